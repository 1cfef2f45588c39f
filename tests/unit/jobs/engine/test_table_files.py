"""Tables of images and sound: the same samples whichever table they lie in, and each bad cell counted and named by its row."""

import csv
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pytest
import soundfile
import torch
from PIL import Image
from pyarrow import ipc, parquet

from kompress_api.errors import DataUnreadable, InvalidManifest, LabelMismatch
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext
from kompress_jobs.planning import fingerprint
from kompress_jobs.samples import Clips, cells, images
from kompress_jobs.samples.row_groups import Memory
from kompress_jobs.samples.sound import RATE
from kompress_jobs.samples.splits import Data, MemorySplit

MakeContext = Callable[..., StageContext]
COUNT = 24
LABELS = ["dark", "light"]


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (10 * number, 10 * number, 10 * number)).save(file, "PNG")
    return file.getvalue()


def wav(number: int, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, numpy.full(rate // 10, (number + 1) / 32), rate, format="WAV")
    return file.getvalue()


def rows(content: Callable[[int], bytes]) -> list[dict[str, Any]]:
    return [{"file": content(number), "label": LABELS[number % 2]} for number in range(COUNT)]


def saved_by_datasets(
    folder: Path, found: list[dict[str, Any]], kind: str, splits: tuple[str, ...] = ("train", "test"), names: list[str] = LABELS
) -> None:
    """What `DatasetDict.save_to_disk` of datasets 5 writes: a stream of record batches a split, columns typed in the schema's metadata."""
    features = {"file": {"_type": kind}, "label": {"names": names, "_type": "ClassLabel"}}
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    (folder).mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    for split in splits:
        (folder / split).mkdir()
        (folder / split / "state.json").write_text(
            json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split})
        )
        (folder / split / "dataset_info.json").write_text(json.dumps({"features": features}))
        cells_of = [{"bytes": row["file"], "path": f"{number}.png"} for number, row in enumerate(found)]
        table = pyarrow.table({"file": cells_of, "label": [names.index(row["label"]) for row in found]}).replace_schema_metadata(told)
        with ipc.new_stream(str(folder / split / "data-00000-of-00001.arrow"), table.schema) as stream:
            stream.write_table(table, max_chunksize=5)


def files_beside(folder: Path, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    (folder / "files").mkdir(parents=True)
    for number, row in enumerate(found):
        ending = "wav" if row["file"].startswith(b"RIFF") else "png"
        (folder / f"files/{number:02}.{ending}").write_bytes(row["file"])
        row["file"] = f"files/{number:02}.{ending}"
    return found


def as_parquet(folder: Path, found: list[dict[str, Any]]) -> None:
    folder.mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(found), folder / "train.parquet", row_group_size=7)


def as_csv(folder: Path, found: list[dict[str, Any]]) -> None:
    listed = files_beside(folder, found)
    with (folder / "train.csv").open("w") as file:
        writer = csv.DictWriter(file, ["file", "label"])
        writer.writeheader()
        writer.writerows(listed)


def as_json(folder: Path, found: list[dict[str, Any]]) -> None:
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, files_beside(folder, found))))


def as_arrow(folder: Path, found: list[dict[str, Any]]) -> None:
    saved_by_datasets(folder, found, "Audio" if found[0]["file"].startswith(b"RIFF") else "Image", splits=("train",))


WRITERS = {"parquet": as_parquet, "csv": as_csv, "json": as_json, "arrow": as_arrow}


def load(place: Path, form: str, tmp_path: Path, *, first: int | None = None, **fields: object) -> Data:
    asked = {"source": place.as_uri(), "format": form, "inputColumn": "file", "labelColumn": "label"}
    return data.load(Dataset.model_validate(asked | fields), tmp_path / "scratch", first=first)


def everything(found: Data) -> list[tuple[float, int]]:
    """Of every sample what it was made of, and its label."""
    made = []
    for split in (found.train, found.validation, found.test):
        samples, positions = split.read(torch.arange(len(split)))
        values = samples.waves[:, 0] * 32 - 1 if isinstance(samples, Clips) else samples[:, 0, 0, 0] / 10  # type: ignore[index]
        made += list(zip(values.round().tolist(), split.labels[positions].tolist(), strict=True))
    return sorted(made)


@pytest.mark.parametrize("content", [png, wav])
@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("in_memory", [True, False])
def test_every_table_gives_the_same_samples_with_their_labels(
    in_memory: bool, form: str, content: Callable[[int], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr("kompress_jobs.samples.images.IN_MEMORY_BYTES", 0)
        monkeypatch.setattr("kompress_jobs.samples.sound.IN_MEMORY_BYTES", 0)
    WRITERS[form](tmp_path / "set", rows(content))
    found = load(tmp_path / "set", form, tmp_path)
    assert found.labels == LABELS
    assert everything(found) == [(number, number % 2) for number in range(COUNT)]
    assert (len(found.validation), len(found.test)) == (2, 2)
    assert isinstance(found.train, MemorySplit) == (in_memory and content is png)
    if content is png:
        assert (found.image_size, found.channels) == (8, 3)
    else:
        assert (found.sample_rate, found.clip_samples) == (RATE, RATE // 2)
    few = load(tmp_path / "set", form, tmp_path, first=4)
    assert torch.bincount(few.train.labels).tolist() == [2, 2]
    assert (few.image_size, few.clip_samples) == (found.image_size, found.clip_samples)


def test_a_set_that_datasets_saved_keeps_its_splits_and_the_names_of_its_labels(tmp_path: Path) -> None:
    saved_by_datasets(tmp_path / "set", rows(png), "Image", splits=("train", "validation", "test"))
    found = load(tmp_path / "set", "arrow", tmp_path)
    assert found.labels == LABELS
    assert (len(found.train), len(found.validation), len(found.test)) == (COUNT, COUNT, COUNT)
    with pytest.raises(InvalidManifest, match=r"no column image \(it has file, label\)"):
        load(tmp_path / "set", "arrow", tmp_path, inputColumn="image")


def test_a_named_label_without_a_sample_is_warned_of_and_one_that_only_the_test_split_has_is_refused(
    tmp_path: Path, make_context: MakeContext
) -> None:
    """Else a class whose folder was forgotten shows up as a recall of 0 after the training."""
    saved_by_datasets(tmp_path / "set", [row for row in rows(png) if row["label"] == "dark"], "Image", splits=("train",))
    with pytest.raises(DataUnreadable, match="one class only"):
        load(tmp_path / "set", "arrow", tmp_path)
    three = [*LABELS, "blue"]
    saved_by_datasets(tmp_path / "three", rows(png), "Image", names=three)
    dataset = {"source": (tmp_path / "three").as_uri(), "format": "arrow", "inputColumn": "file", "labelColumn": "label"}
    context = make_context({"fineTune": {"epochs": 1}}, dataset=dataset)
    assert Bench(context).data.absent == ["blue"]
    assert "train has no sample of blue" in (context.scratch / "events.jsonl").read_text()
    blue = [{"file": png(1), "label": "blue"}]
    saved_by_datasets(tmp_path / "blue", blue, "Image", splits=("test",), names=three)
    (tmp_path / "blue/test").rename(tmp_path / "three/exam")
    with pytest.raises(LabelMismatch, match=r"arrow:1: label 'blue' of split test is none of the 2 that train has"):
        load(tmp_path / "three", "arrow", tmp_path, splits={"test": "exam"})


def test_texts_that_datasets_saved_and_a_torn_file(tmp_path: Path) -> None:
    told = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}})}
    table = pyarrow.table({"file": [f"film {number}" for number in range(40)], "label": [number % 2 for number in range(40)]})
    table = table.replace_schema_metadata(told)
    with ipc.new_stream(str(tmp_path / "films.arrow"), table.schema) as stream:
        stream.write_table(table)
    found = load(tmp_path / "films.arrow", "arrow", tmp_path)
    assert found.labels == ["bad", "good"]
    assert found.train.read(torch.arange(1))[0][0].startswith("film ")  # type: ignore[index]
    with ipc.new_file(str(tmp_path / "other.arrow"), table.schema) as file:
        file.write_table(table)
    assert len(load(tmp_path / "other.arrow", "arrow", tmp_path).train) == len(found.train)
    (tmp_path / "torn.arrow").write_bytes((tmp_path / "films.arrow").read_bytes()[:300])
    with pytest.raises(DataUnreadable, match=r"torn\.arrow can't be read"):
        load(tmp_path / "torn.arrow", "arrow", tmp_path)


@pytest.mark.parametrize("content", [png, wav])
def test_cells_without_a_file_and_files_that_can_not_be_decoded_are_named_by_their_row(
    content: Callable[[int], bytes], tmp_path: Path
) -> None:
    found = rows(content)
    found[3]["file"], found[5]["file"], found[7]["label"] = None, b"", None
    found[8]["file"] = content(8)[:30]
    as_parquet(tmp_path / "set", found)
    read = load(tmp_path / "set", "parquet", tmp_path, maxUnreadableFraction=0.5)
    assert len(everything(read)) == COUNT - 4
    named = [name for names in read.unreadable.values() for name in names]
    empty = [f"train.parquet:{row} (empty or damaged)" for row in (4, 6)]
    assert sorted(named) == [*empty, "train.parquet:8 (no label)", "train.parquet:9"]
    with pytest.raises(DataUnreadable, match=r"1 of 24 rows of split train .* train\.parquet:8 \(no label\)"):
        load(tmp_path / "set", "parquet", tmp_path)
    found[7]["label"] = LABELS[1]
    parquet.write_table(pyarrow.Table.from_pylist(found), tmp_path / "set/train.parquet")
    with pytest.raises(DataUnreadable, match=r"can't be read, .* train\.parquet:\d"):
        everything(load(tmp_path / "set", "parquet", tmp_path))


def test_a_row_group_of_damaged_images_costs_its_own_rows(tmp_path: Path) -> None:
    as_parquet(tmp_path / "set", rows(png))
    file = tmp_path / "set/train.parquet"
    content = bytearray(file.read_bytes())
    start = parquet.ParquetFile(file).metadata.row_group(1).column(0).dictionary_page_offset
    content[start : start + 40] = b"\xff" * 40
    file.write_bytes(content)
    found = load(tmp_path / "set", "parquet", tmp_path, maxUnreadableFraction=0.5)
    assert [number for number, _ in everything(found)] == [number for number in range(COUNT) if number not in range(7, 14)]
    named = {name for names in found.unreadable.values() for name in names}
    assert named == {f"train.parquet:{row} (empty or damaged)" for row in range(8, 15)}


@pytest.mark.parametrize("empty", ["train-0", "train-2"])
def test_a_part_without_rows_is_none_of_any_kind(empty: str, tmp_path: Path) -> None:
    """What Spark and pandas write for an empty partition: its columns have no type."""
    as_parquet(tmp_path / "set", rows(png))
    (tmp_path / "set/train.parquet").rename(tmp_path / "set/train-1.parquet")
    nothing = pyarrow.table({"file": pyarrow.array([], pyarrow.null()), "label": pyarrow.array([], pyarrow.null())})
    parquet.write_table(nothing, tmp_path / f"set/{empty}.parquet")
    assert len(everything(load(tmp_path / "set", "parquet", tmp_path))) == COUNT


def test_a_copy_that_was_torn_when_the_node_went_down_is_made_again(tmp_path: Path) -> None:
    as_parquet(tmp_path / "set", rows(png))
    first = everything(load(tmp_path / "set", "parquet", tmp_path))
    copies = list((tmp_path / "scratch/data").rglob("*.parquet"))
    assert len(copies) == 4, "one for each row group"
    for copy, size in zip(copies, (0, 10, 100, copies[3].stat().st_size), strict=True):
        copy.write_bytes(bytes(size))
    assert everything(load(tmp_path / "set", "parquet", tmp_path)) == first


def test_files_in_a_column_with_a_dot_and_other_things_that_are_called_bytes(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(rows(png))
    (tmp_path / "dotted").mkdir()
    parquet.write_table(table.rename_columns(["photo.png", "label"]), tmp_path / "dotted/train.parquet")
    assert len(everything(load(tmp_path / "dotted", "parquet", tmp_path, inputColumn="photo.png"))) == COUNT
    counted = pyarrow.table({"file": [{"bytes": [1, 2]}] * COUNT, "label": table["label"]})
    (tmp_path / "counted").mkdir()
    parquet.write_table(counted, tmp_path / "counted/train.parquet")
    with pytest.raises(DataUnreadable, match=r"holds struct<.*neither text nor files"):
        load(tmp_path / "counted", "parquet", tmp_path)


def test_a_table_that_is_made_anew_while_it_is_in_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one epoch is of two data sets."""
    monkeypatch.setattr(images, "IN_MEMORY_BYTES", 0)
    as_parquet(tmp_path / "set", rows(png))
    (tmp_path / "set/train.parquet").rename(tmp_path / "set/one.parquet")
    splits = {"train": "one", "validation": "two", "test": "three"}
    for name in ("two", "three"):
        (tmp_path / f"set/{name}.parquet").write_bytes((tmp_path / "set/one.parquet").read_bytes())
    train = load(tmp_path / "set", "parquet", tmp_path, splits=splits, imageSize=8).train
    parquet.write_table(pyarrow.Table.from_pylist(rows(png)), tmp_path / "set/one.parquet")
    with pytest.raises(DataUnreadable, match=r"one\.parquet was overwritten while it was in use"):
        train.read(torch.arange(len(train)))


def test_a_path_that_leads_nowhere_or_out_of_the_set_is_named(tmp_path: Path) -> None:
    as_csv(tmp_path / "set", rows(png))
    (tmp_path / "secret.png").write_bytes(png(1))
    table = (tmp_path / "set/train.csv").read_text().replace("files/03.png", "files/33.png").replace("files/05.png", "../secret.png")
    (tmp_path / "set/train.csv").write_text(table)
    found = load(tmp_path / "set", "csv", tmp_path, maxUnreadableFraction=0.5)
    assert found.unreadable["train"] == ["train.csv:5 (no such file)", "train.csv:7 (no such file)"]
    with pytest.raises(DataUnreadable, match=r"2 of 24 rows .* train\.csv:5 \(no such file\)"):
        load(tmp_path / "set", "csv", tmp_path)


def test_paths_are_looked_for_beside_their_table_first(tmp_path: Path) -> None:
    """As in the metadata.csv of the hub: the table lies in the split's folder, beside its images."""
    as_csv(tmp_path / "set/train", rows(png))
    (tmp_path / "set/train/train.csv").rename(tmp_path / "set/train/metadata.csv")
    assert len(everything(load(tmp_path / "set", "csv", tmp_path))) == COUNT


def test_texts_that_end_like_a_file_now_and_then_stay_texts(tmp_path: Path) -> None:
    found = [{"file": "see figure.png" if number == 3 else f"text {number}", "label": LABELS[number % 2]} for number in range(COUNT)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, found)))
    assert isinstance(load(tmp_path / "train.jsonl", "json", tmp_path).train.read(torch.arange(2))[0], list)


def test_equal_images_do_not_fall_on_both_sides_of_a_cut(tmp_path: Path) -> None:
    """Else the test split holds what was learned."""
    as_parquet(tmp_path / "set", [row for row in rows(png) for _ in range(2)])
    found = load(tmp_path / "set", "parquet", tmp_path)
    train, test = (set(split.read(torch.arange(len(split)))[0][:, 0, 0, 0].tolist()) for split in (found.train, found.test))  # type: ignore[call-overload]
    assert not train & test


def test_splits_of_unlike_kinds_are_refused(tmp_path: Path) -> None:
    as_parquet(tmp_path / "set", rows(png))
    parquet.write_table(pyarrow.Table.from_pylist(rows(wav)), tmp_path / "set/test.parquet")
    with pytest.raises(DataUnreadable, match="split test holds clips, train images"):
        load(tmp_path / "set", "parquet", tmp_path)


def test_a_changed_image_of_a_listing_changes_the_fingerprint_of_its_table(tmp_path: Path) -> None:
    as_csv(tmp_path / "set", rows(png))
    dataset = Dataset.model_validate(
        {"source": (tmp_path / "set").as_uri(), "format": "csv", "inputColumn": "file", "labelColumn": "label"}
    )
    before = fingerprint.fingerprint(dataset)
    assert before.files == COUNT + 1
    (tmp_path / "set/files/03.png").write_bytes(png(4))
    assert fingerprint.fingerprint(dataset).digest != before.digest


def test_sound_is_known_by_its_first_bytes() -> None:
    for form in ("WAV", "FLAC", "OGG", "AIFF"):
        file = io.BytesIO()
        soundfile.write(file, numpy.zeros(100), RATE, format=form)
        assert cells.medium_of(file.getvalue()) == "clip", form
    for ending in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, ending)
        assert cells.medium_of(file.getvalue()) == "image", ending
        assert images.decode(io.BytesIO(file.getvalue()), 8) is not None


def test_a_damaged_length_of_a_column_does_not_end_the_process_either(tmp_path: Path) -> None:
    saved_by_datasets(tmp_path / "set", rows(png), "Image", splits=("train",))
    file = tmp_path / "set/train/data-00000-of-00001.arrow"
    content = bytearray(file.read_bytes())
    node = numpy.array([5, 0], "<i8").tobytes()  # rows, nulls: of the struct, then of its bytes
    second = content.index(node, content.index(node) + 1)
    content[second + 7] = 0xFF
    file.write_bytes(content)
    found = load(tmp_path / "set", "arrow", tmp_path, maxUnreadableFraction=0.5)
    assert [number for number, _ in everything(found)] == list(range(5, COUNT))


def test_damaged_offsets_are_told_and_do_not_end_the_process(tmp_path: Path) -> None:
    """Arrow believes what it maps: an offset beyond its buffer is a bus error when the cell is read."""
    table = pyarrow.table({"file": [bytes([number]) * 100 for number in range(40)], "label": [number % 2 for number in range(40)]})
    with ipc.new_stream(str(tmp_path / "train.arrow"), table.schema) as stream:
        stream.write_table(table)
    content = bytearray((tmp_path / "train.arrow").read_bytes())
    offsets = content.index(numpy.arange(0, 1000, 100, dtype="<i4").tobytes())
    content[offsets + 40 : offsets + 44] = numpy.array([1 << 30], "<i4").tobytes()
    (tmp_path / "train.arrow").write_bytes(content)
    splits = {"train": "train", "validation": "other", "test": "other"}
    with ipc.new_stream(str(tmp_path / "other.arrow"), table.schema) as stream:
        stream.write_table(pyarrow.Table.from_pylist(rows(png)).select(["file"]).append_column("label", [[0, 1] * (COUNT // 2)]))
    with pytest.raises(DataUnreadable, match=r"train\.arrow:\d+ \(empty or damaged\)"):
        load(tmp_path, "arrow", tmp_path, splits=splits)


def test_what_threads_hold_together_is_bounded() -> None:
    """Eight row groups of 64 MiB at once are what a pod has no room for."""
    memory, began, order = Memory(64), threading.Event(), []

    def large() -> None:
        began.set()
        with memory.taken(1000):  # more than there is: alone
            order.append("large")

    with memory.taken(40):
        with memory.taken(24):
            pass
        waiting = threading.Thread(target=large)
        waiting.start()
        assert began.wait(10)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "large"]
    assert memory.left == 64
