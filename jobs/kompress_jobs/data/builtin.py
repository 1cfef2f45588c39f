"""builtin://NAME: a data set that every machine has (`builtins/`)."""

import difflib
from pathlib import Path
from types import ModuleType

from kompress_api.errors import InvalidManifest
from kompress_api.places import Dataset
from kompress_jobs import registry
from kompress_jobs.samples.splits import Data

TRANSCRIPTS = True
"""Some of them have transcripts."""


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """The data set in memory; with `first` one that is dear to make may give about that many samples of each split."""
    found: Data = module_of(dataset, field=field).load(dataset, first)
    return found


def module_of(dataset: Dataset, *, field: str = "spec.dataset") -> ModuleType:
    """The module behind the name; raises InvalidManifest with the known names."""
    name, known = dataset.source.removeprefix("builtin://"), registry.known("builtins")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise InvalidManifest(
            f"there is no builtin data set {name!r} (known: {', '.join(known)})",
            hint=f"did you mean builtin://{near[0]}?" if near else "use one of them, or your own data",
            field=f"{field}.source",
        )
    return registry.load("builtins", name, field=f"{field}.source")
