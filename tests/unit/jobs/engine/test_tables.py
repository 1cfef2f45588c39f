"""Tables: rows come with the right label in the right split, and what can't be used is named by file and row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import ipc, parquet

from kompress_api.errors import DataUnreadable, InvalidManifest, KompressError, LabelMismatch
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.planning import fingerprint
from kompress_jobs.samples import tables
from kompress_jobs.samples.splits import Data, Split

Rows = list[dict[str, Any]]
ROWS: Rows = [{"text": f"{word} number {number}", "label": word} for number in range(20) for word in ("tea", "sea")]


def write_csv(path: Path, rows: Rows) -> None:
    quoted = [",".join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in rows]
    path.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n")


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_array(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows))


def write_parquet(path: Path, rows: Rows) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=10)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {"csv": write_csv, "jsonl": write_jsonl, "json": write_array, "parquet": write_parquet}
FORMATS = {"csv": "csv", "tsv": "csv", "jsonl": "json", "json": "json", "parquet": "parquet", "arrow": "arrow"}


def load(place: Path, ending: str, tmp_path: Path, *, first: int | None = None, **fields: object) -> Data:
    asked = {"source": place.as_uri(), "format": FORMATS[ending], "inputColumn": "text", "labelColumn": "label"}
    return data.load(Dataset.model_validate(asked | fields), tmp_path / "scratch", first=first)


def texts(split: Split) -> list[str]:
    found, positions = split.read(torch.arange(len(split)))
    assert isinstance(found, list)
    assert len(positions) == len(found)
    return found


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_rows_and_cuts_the_same_splits(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"data.{ending}"
    WRITERS[ending](file, ROWS)
    found = load(file, ending, tmp_path)
    assert found.labels == ["sea", "tea"]
    assert (len(found.train), len(found.validation), len(found.test)) == (32, 4, 4)
    assert texts(found.test) == ["sea number 3", "tea number 4", "tea number 14", "sea number 17"]
    for split in (found.train, found.validation, found.test):
        assert [found.labels[label] for label in split.labels.tolist()] == [text.split()[0] for text in texts(split)]
    picked, _ = found.train.read(torch.tensor([5, 0]))
    assert picked == [texts(found.train)[5], texts(found.train)[0]]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train.csv", "validation.csv", "test.csv"], {}),
        (["training.csv", "dev.csv", "eval.csv"], {}),
        (["data/train-00000-of-00001.csv", "data/validation-00000.csv", "data/test_0.csv"], {}),
        (["train/part.csv", "val/part.csv", "testing/part.csv"], {}),
        (["reviews.train.csv", "reviews.dev.csv", "reviews.test.csv"], {}),
        (["contest_one.csv", "two.csv", "three.csv"], {"train": "contest_one", "validation": "two", "test": "three"}),
    ],
)
def test_files_belong_to_splits_by_name_as_on_the_hub(names: list[str], splits: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "data set"
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_csv(root / name, ROWS[: 4 + 2 * index])
    write_csv(root / "unsupervised.csv", ROWS)
    found = load(root, "csv", tmp_path, splits=splits)
    assert (len(found.train), len(found.validation), len(found.test)) == (4, 6, 8)


def test_a_split_in_several_files_is_one_and_without_train_nothing_can_be_learned(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    write_parquet(root / "train-0.parquet", ROWS[:6])
    write_parquet(root / "train-1.parquet", ROWS[6:10])
    write_parquet(root / "test.parquet", ROWS[10:])
    assert len(load(root, "parquet", tmp_path).train) == 8, "10 rows, of which 2 are held out for validation"
    assert len(load(root / "test.parquet", "parquet", tmp_path).train) == 24, "30 rows: the file that is named is all there is"
    for path in root.glob("train*"):
        path.unlink()
    with pytest.raises(DataUnreadable, match="none for train") as caught:
        load(root, "parquet", tmp_path)
    assert caught.value.field == "spec.dataset.splits.train"


def test_numbers_are_labels_in_their_own_order_and_keep_their_zeros(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "label": number % 12} for number in range(48)]
    for ending, writer in WRITERS.items():
        writer(tmp_path / f"n.{ending}", rows)
        assert load(tmp_path / f"n.{ending}", ending, tmp_path).labels == [str(number) for number in range(12)]
    write_csv(tmp_path / "zeros.csv", [{"text": f"NA {row['label']}", "label": f"{row['label']:02}"} for row in rows])
    found = load(tmp_path / "zeros.csv", "csv", tmp_path)
    assert found.labels[:2] == ["00", "01"]
    assert texts(found.train)[0].startswith("NA ")


def test_names_of_labels_are_those_that_datasets_wrote_down(tmp_path: Path) -> None:
    told = {"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}}
    table = pyarrow.Table.from_pylist([{"text": f"film {number}", "label": number % 2} for number in range(40)])
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "films.parquet")
    assert load(tmp_path / "films.parquet", "parquet", tmp_path).labels == ["bad", "good"]
    hidden = pyarrow.Table.from_pylist([{"text": "film", "label": -1}] * 4).replace_schema_metadata({"huggingface": json.dumps(told)})
    (tmp_path / "hub").mkdir()
    (tmp_path / "films.parquet").rename(tmp_path / "hub" / "train.parquet")
    parquet.write_table(hidden, tmp_path / "hub" / "test.parquet")
    with pytest.raises(DataUnreadable, match=r"4 of 4 rows of split test .* test\.parquet:1 \(no label\)"):
        load(tmp_path / "hub", "parquet", tmp_path)


def broken_lines(path: Path) -> list[str]:
    lines = [json.dumps(row) for row in ROWS]
    lines[3:6] = ['{"text": "tea", "label"', '{"text": " ", "label": "tea"}', '{"text": "tea", "label": null}']
    path.write_text("\n".join(lines))
    return ["set.jsonl:4 (damaged)", "set.jsonl:5 (no text)", "set.jsonl:6 (no label)"]


def broken_csv(path: Path) -> list[str]:
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in ROWS)]
    lines[4:7] = ["tea,milk,tea", '"",tea', "tea,"]
    path.write_text("\n".join(lines) + "\n")
    return ["set.csv:5 (damaged)", "set.csv:6 (no text)", "set.csv:7 (no label)"]


def broken_parquet(path: Path) -> list[str]:
    rows = [dict(row) for row in ROWS]
    rows[4]["text"], rows[5]["label"] = None, None
    write_parquet(path, rows)
    content = bytearray(path.read_bytes())
    start = parquet.ParquetFile(path).metadata.row_group(3).column(0).dictionary_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    return [*(f"set.parquet:{row} (damaged)" for row in range(31, 41)), "set.parquet:5 (no text)", "set.parquet:6 (no label)"]


@pytest.mark.parametrize(("ending", "break_it"), [("jsonl", broken_lines), ("csv", broken_csv), ("parquet", broken_parquet)])
def test_rows_that_can_not_be_used_are_named_and_skipped_up_to_the_allowed_share(
    ending: str, break_it: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    file = tmp_path / f"set.{ending}"
    unusable = break_it(file)
    found = load(file, ending, tmp_path, maxUnreadableFraction=0.5)
    assert found.unreadable["train"] == unusable
    assert len(found.train) + len(found.validation) + len(found.test) == 40 - len(unusable)
    with pytest.raises(DataUnreadable, match=rf"{len(unusable)} of 40 rows of split train") as caught:
        load(file, ending, tmp_path, maxUnreadableFraction=0.05)
    assert unusable[0] in caught.value.message


@pytest.mark.parametrize(
    ("ending", "content", "fields", "error", "field", "says"),
    [
        ("parquet", "PAR1 no parquet", {}, DataUnreadable, "source", r"bad\.parquet can't be read"),
        ("json", "[{", {}, DataUnreadable, "source", r"bad\.json can't be read"),
        ("csv", "text,lable\na,b\n", {}, InvalidManifest, "labelColumn", r"bad\.csv has no column label \(it has text, lable\)"),
        ("jsonl", '{"txt": "a", "label": 1}', {}, InvalidManifest, "inputColumn", "has no column text"),
        ("csv", "text,label\na,b\n", {"inputColumn": None}, InvalidManifest, "inputColumn", "inputColumn is needed"),
        ("csv", "text,label\na,b\n", {"format": "parquet"}, DataUnreadable, "source", "ends in .parquet"),
        ("csv", "text,label\na,b\nc,b\n", {}, DataUnreadable, "source", "one class only"),
        ("csv", "text,label\n", {}, DataUnreadable, "source", "0 of 0 rows"),
    ],
)
def test_what_can_not_be_read_is_answered_by_file_and_field(
    ending: str, content: str, fields: dict[str, Any], error: type[KompressError], field: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / f"bad.{ending}").write_text(content)
    with pytest.raises(error, match=says) as caught:
        load(tmp_path / f"bad.{ending}", ending, tmp_path, **fields)
    assert caught.value.field == f"spec.dataset.{field}"


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
def test_a_column_that_is_there_twice_is_refused(ending: str, tmp_path: Path) -> None:
    """One of the two would be taken, and nobody would know which."""
    rows = pyarrow.table([pyarrow.array(["a", "b"]) for _ in range(3)], names=["text", "label", "label"])
    if ending == "arrow":
        with ipc.new_stream(str(tmp_path / "data.arrow"), rows.schema) as stream:
            stream.write_table(rows)
    elif ending == "csv":
        (tmp_path / "data.csv").write_text("text,label,label\na,a,b\n")
    else:
        parquet.write_table(rows, tmp_path / "data.parquet")
    with pytest.raises(DataUnreadable, match=rf"data\.{ending} can't be read: it has 2 columns label"):
        load(tmp_path / f"data.{ending}", ending, tmp_path)


def test_columns_of_other_things_than_text_and_labels_are_refused_by_field(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": [1, 2], "label": [["a"], ["b"]], "name": ["x", "y"]}), tmp_path / "odd.parquet")
    with pytest.raises(DataUnreadable, match=r"column text .* holds int64: neither text nor files") as caught:
        load(tmp_path / "odd.parquet", "parquet", tmp_path, labelColumn="name")
    assert caught.value.field == "spec.dataset.inputColumn"
    with pytest.raises(DataUnreadable, match="holds lists") as caught:
        load(tmp_path / "odd.parquet", "parquet", tmp_path, inputColumn="name")
    assert caught.value.field == "spec.dataset.labelColumn"
    assert "multiLabel" in caught.value.hint
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [b"a", b"b"]}), tmp_path / "odd.parquet")
    with pytest.raises(DataUnreadable, match="holds binary, not labels"):
        load(tmp_path / "odd.parquet", "parquet", tmp_path)


def test_a_label_that_train_does_not_have_is_named_with_its_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ROWS)
    write_csv(tmp_path / "test.csv", [*ROWS[:2], {"text": "new", "label": "pea"}])
    with pytest.raises(LabelMismatch, match=r"test\.csv:4: label 'pea'"):
        load(tmp_path, "csv", tmp_path)


def test_the_preflight_reads_a_few_rows_of_each_label(tmp_path: Path) -> None:
    write_csv(tmp_path / "data.csv", ROWS)
    found = load(tmp_path / "data.csv", "csv", tmp_path, first=6)
    assert torch.bincount(found.train.labels).tolist() == [3, 3]


def test_equal_texts_do_not_fall_on_both_sides_of_a_cut(tmp_path: Path) -> None:
    """Else the test split holds what was learned."""
    write_csv(tmp_path / "data.csv", [row for row in ROWS for _ in range(2)])
    found = load(tmp_path / "data.csv", "csv", tmp_path)
    assert not set(texts(found.train)) & set(texts(found.test))


def test_a_file_alone_has_a_fingerprint_that_changes_with_it(tmp_path: Path) -> None:
    write_csv(tmp_path / "data.csv", ROWS)
    dataset = Dataset(source=(tmp_path / "data.csv").as_uri(), format="csv", input_column="text", label_column="label")
    before = fingerprint.fingerprint(dataset)
    assert (before.means, before.files) == ("content", 1)
    write_csv(tmp_path / "data.csv", ROWS[1:])
    assert fingerprint.fingerprint(dataset).digest != before.digest


def test_a_word_inside_another_is_no_split() -> None:
    found = tables.by_split(["latest.csv", "train_2.csv", "trainer.csv"], {"train": "train", "validation": "validation", "test": "test"})
    assert found == {"train": ["train_2.csv"], "validation": [], "test": []}
