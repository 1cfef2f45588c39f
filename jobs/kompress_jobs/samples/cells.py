"""What the cells of a table's columns hold: of samples texts, whole files (images, sound) or the paths of files; of labels one or several.

Files lie in cells as binary values, or as `datasets` of Hugging Face keeps them: a struct of `bytes` and `path`.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Self, TypeVar

import numpy
import pyarrow
import pyarrow.compute

from kompress_api.errors import DataUnreadable
from kompress_jobs.samples.images import IMAGES
from kompress_jobs.samples.sound import SOUND

Medium = Literal["text", "image", "clip"]
LOOKED_AT = 100
"""First cells that tell a column of paths from one of texts."""
SEPARATOR = "|"
"""Between several labels in a cell of text that is no JSON list."""


@dataclass(frozen=True)
class Column:
    """Samples of a file that are texts, or the paths of files."""

    cells: pyarrow.ChunkedArray
    """large_string."""
    medium: Medium
    paths: bool = False
    """The cells are paths of files."""

    def pick(self, rows: list[int]) -> Self:
        """Some of the samples."""
        return dataclasses.replace(self, cells=self.cells.take(pyarrow.array(numpy.array(rows, dtype=numpy.int64))))

    @property
    def names(self) -> list[str]:
        """A name of each sample that depends on its content alone."""
        return self.cells.to_pylist()  # type: ignore[no-any-return]


def samples_of(column: pyarrow.ChunkedArray, path: str, name: str, *, field: str) -> Column:
    """What a column that holds no files holds, by its type and its first cells."""
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pyarrow.types.is_null(kind) or pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        cells = column.cast(pyarrow.large_string())
        first = [cell.lower() for cell, _ in zip(values(cells), range(LOOKED_AT), strict=False)]
        for medium, suffixes in (("image", IMAGES.suffixes), ("clip", SOUND.suffixes)):
            if first and all(cell.endswith(tuple(suffixes)) for cell in first):
                return Column(cells, medium, paths=True)  # type: ignore[arg-type]
        return Column(cells, "text")
    raise DataUnreadable(
        f"column {name} of {path} holds {kind}: neither text nor files",
        hint="name a column of texts, of paths of images or sounds, or of their bytes",
        field=f"{field}.inputColumn",
    )


def holds_files(kind: pyarrow.DataType) -> bool:
    """Whether cells of this type are files."""
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


Checked = TypeVar("Checked", pyarrow.Array, pyarrow.ChunkedArray, pyarrow.RecordBatch)


def checked(found: Checked) -> Checked:
    """Raise pyarrow.ArrowInvalid for offsets that point anywhere: to follow one ends the process."""
    found.validate(full=True)
    return found


def files_in(column: pyarrow.Array) -> pyarrow.Array:
    """Such cells as large_binary. Raises a pyarrow.ArrowException where they are damaged; what else a struct holds is not looked at."""
    column.validate()
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pyarrow.types.is_struct(column.type):
        column = pyarrow.compute.struct_field(column, "bytes")
    return checked(column.cast(pyarrow.large_binary()))


def values(cells: pyarrow.ChunkedArray) -> Iterator[object]:
    """Those that are there, one after the other."""
    return (scalar.as_py() for chunk in cells.chunks for scalar in chunk if scalar.is_valid)  # type: ignore[no-any-return]


def medium_of(content: bytes) -> Medium:
    """Sound by the first bytes that its formats have; all else is left to the decoder of images."""
    wave = content[:4] == b"RIFF" and content[8:12] == b"WAVE"
    return "clip" if wave or content.startswith((b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"FORM", b".snd")) else "image"


def labels_of(
    column: pyarrow.ChunkedArray, names: tuple[str, ...], path: str, name: str, *, several: bool, field: str
) -> list[tuple[str, ...] | None]:
    """The labels of each row as text; None where there is none, or where a number has no name among those that the file gives."""
    kind = column.type
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        if not several:
            raise DataUnreadable(
                f"column {name} of {path} holds lists",
                hint="set multiLabel: true for several labels a sample",
                field=f"{field}.labelColumn",
            )
        return [all_of(cell, names) for cell in column.to_pylist()]
    if pyarrow.types.is_nested(kind) or pyarrow.types.is_temporal(kind) or pyarrow.types.is_binary(kind):
        raise DataUnreadable(
            f"column {name} of {path} holds {kind}, not labels", hint="name a column of text or whole numbers", field=f"{field}.labelColumn"
        )
    if several:
        return [all_of(listed(cell), names) for cell in column.to_pylist()]
    return [None if (found := label_of(cell, names)) is None else (found,) for cell in column.to_pylist()]


def listed(cell: object) -> list[object] | None:
    """Several labels in one cell: a JSON list, or text with SEPARATOR between them; an empty text is no label at all."""
    if not isinstance(cell, str):
        return None if cell is None else [cell]
    if cell.lstrip().startswith("["):
        try:
            found = json.loads(cell)
        except ValueError:
            return None
        return found if isinstance(found, list) else None
    return [part for part in cell.split(SEPARATOR) if part.strip()]


def all_of(cell: list[object] | None, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Every label of a cell once; None where one of them can't be used."""
    found = None if cell is None else [label_of(value, names) for value in cell]
    if found is None or None in found:
        return None
    return tuple(dict.fromkeys(label for label in found if label is not None))


def label_of(value: object, names: tuple[str, ...]) -> str | None:
    """One label; 3.0 is 3, which is what a column of whole numbers with gaps becomes elsewhere. None: unusable."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, float | list | dict) or (isinstance(value, str) and not value.strip()):
        return None
    if names and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return str(value).strip()


def label_names(metadata: Mapping[bytes, bytes], column: str) -> tuple[str, ...]:
    """What the numbers of a label column mean, where `datasets` has written it down."""
    try:
        described = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"][column]
        if isinstance(described, list) or described["_type"] in ("Sequence", "List", "LargeList"):  # several labels a row
            described = described[0] if isinstance(described, list) else described["feature"]
        return tuple(str(name) for name in described["names"]) if described["_type"] == "ClassLabel" else ()
    except (ValueError, KeyError, TypeError, IndexError):
        return ()
