"""python -m perf SUITE...: measure, keep build/perf/<suite>.json, print its table.

A part of a suite, such as `engine.stalls`, measures its own rows anew and leaves the others of that suite as they were kept.
"""

import importlib
import sys
from pathlib import Path

from perf.recorder import kept, merged, table, write

BUILD = Path(__file__).parents[2] / "build" / "perf"


def main() -> None:
    for suite in sys.argv[1:]:
        name, _, part = suite.partition(".")
        path = BUILD / f"{name}.json"
        before = kept(path) if part else []
        found = []
        for result in importlib.import_module(f"perf.{suite}").results():
            found.append(result.record)
            print(table(found[-1:]).splitlines()[-1], flush=True)
            write(merged(before, found), path)
        print(table(kept(path)), flush=True)


main()
