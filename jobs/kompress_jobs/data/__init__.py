"""Labelled samples: three splits with one label map, however they are stored.

The module that reads them is named by `dataset.format` (imagefolder, audiofolder, parquet, ...), or by the scheme of `dataset.source` where
there is no format (builtin). Each has `load(dataset, scratch, field, first) -> Data`.
"""

import dataclasses
from pathlib import Path
from types import ModuleType

from kompress_api.errors import DataUnreadable, MethodRefused
from kompress_api.places import Dataset
from kompress_jobs import registry
from kompress_jobs.samples.splits import Data, counts


def load(dataset: Dataset, scratch: Path, *, field: str = "spec.dataset", first: int | None = None, transcripts: bool = False) -> Data:
    """Read a data set, or as much of it as lies in memory; with `first` about that many samples of each split (preflight).

    With `transcripts` the label column holds what is said.

    Raises DataUnreadable with the file or folder, UnknownMethod for a format that is not built, StorageUnavailable.
    """
    scheme = dataset.source.partition("://")[0]
    name, where = (dataset.format, "format") if dataset.format is not None else (scheme, "source")
    module = registry.load("data", name, field=f"{field}.{where}")
    if transcripts:
        return load_transcripts(module, dataset, scratch, field=field, first=first)
    found: Data = module.load(dataset, scratch, field=field, first=first)
    if found.transcribed:
        raise MethodRefused(
            f"{dataset.source} holds transcripts, not labels", hint="use it with task speech-recognition", field=f"{field}.source"
        )
    if dataset.multi_label and found.train.labels.ndim == 1:
        raise MethodRefused(
            f"{name} has one label a sample", hint="leave multiLabel out, or give a table with lists of labels", field=f"{field}.multiLabel"
        )
    if dataset.max_length is not None:
        found = dataclasses.replace(found, max_length=dataset.max_length)
    absent = set(found.absent)
    seen = [label for label in found.labels if label not in absent]
    if len(seen) < 2 and not dataset.multi_label:
        raise DataUnreadable(
            f"{dataset.source} has one class only ({', '.join(seen)}): there is nothing to tell apart",
            hint="give at least two classes",
            field=f"{field}.source",
        )
    if first is None:
        require_learnable(found, field=field)
    return found


def load_transcripts(module: ModuleType, dataset: Dataset, scratch: Path, *, field: str, first: int | None) -> Data:
    """The data set with transcripts as targets; raises MethodRefused where the format has labels only."""
    hint = "use a table with a column of texts, python://, or builtin://phrases"
    if not getattr(module, "TRANSCRIPTS", False):
        raise MethodRefused(f"{dataset.format or 'it'} has one label a sample, no transcripts", hint=hint, field=f"{field}.format")
    if dataset.multi_label:
        raise MethodRefused("a transcript is no list of labels", hint="leave multiLabel out", field=f"{field}.multiLabel")
    found: Data = module.load(dataset, scratch, field=field, first=first, transcripts=True)
    if not found.transcribed:
        raise MethodRefused(f"{dataset.source} has one label a sample, no transcripts", hint=hint, field=f"{field}.source")
    return found


def require_learnable(data: Data, *, field: str) -> None:
    """Raise DataUnreadable for a label that is asked for in another split and of which train has no sample to learn from."""
    for name, split in (("validation", data.validation), ("test", data.test)):
        asked = counts(split.labels, data.labels)
        for label in data.absent:
            if asked[data.labels.index(label)]:
                raise DataUnreadable(
                    f"label {label} has samples in {name} and none that can be read in train: it can't be learned",
                    hint="give train samples of it, or take it out of the other splits",
                    field=f"{field}.source",
                )
