"""Suite `engine`: the methods beside the best tool for each, on the same model, data, budget and seeds:  make perf-engine

Each module below is a part that can be measured alone: `python -m perf engine.stalls`. What the stages of kompress make lies in
`build/perf/jobs` and is reused, so that a row which is measured again trains again only what has changed; times are always taken anew.
"""

import importlib
from collections.abc import Iterator

from perf.recorder import Row

PARTS = ("stalls", "speed", "quantized", "pruned", "distilled", "finals")
"""The cheap ones first."""


def results() -> Iterator[Row]:
    """All parts."""
    for part in PARTS:
        yield from importlib.import_module(f"perf.engine.{part}").results()
