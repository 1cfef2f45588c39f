"""python -m perf SUITE...: print the table and keep build/perf/<suite>.json."""

import importlib
import sys
from pathlib import Path

from perf.recorder import table, write

BUILD = Path(__file__).parents[2] / "build" / "perf"


def main() -> None:
    for suite in sys.argv[1:]:
        found = []
        for result in importlib.import_module(f"perf.{suite}").results():
            found.append(result)
            write(found, BUILD / f"{suite}.json")
        print(table(found), flush=True)


main()
