"""Samples a second of kompress's distill stage, from the first look at the teacher to the trained student, validation after each epoch
included.  python distill_kompress.py JSON: what a peer's script is given, and `student`, `distill`"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stage import context_of, stage_input

from kompress_jobs.bench import Bench, Measured
from kompress_jobs.context import StageOutput
from kompress_jobs.description import Loaded
from kompress_jobs.stages import distill


class Timed(Bench):
    """The clock runs from when the teacher has been measured until the student would be."""

    start = seconds = 0.0
    samples = 0

    def measure(self, found: Loaded) -> Measured:
        Timed.samples, Timed.start = len(self.data.train), time.perf_counter()
        return Measured({}, {})

    def finish(self, *_: Any, **__: Any) -> StageOutput:
        Timed.seconds = time.perf_counter() - Timed.start
        return StageOutput()


def main() -> None:
    asked, folder = json.loads(sys.argv[1]), Path(tempfile.mkdtemp())
    spec = {"teachers": [{"from": "source"}], "student": asked["student"], **asked["settings"], **asked["distill"]}
    stage = stage_input(
        folder,
        {"name": "student", "distill": spec},
        "teacher0",
        model={"source": f"file://{asked['bundle']}"},
        dataset=asked["dataset"],
        task=asked["task"],
        seed=asked["seed"],
    )
    distill.open_bench = lambda context, _: (Timed(context), context.input.stage.spec)
    distill.run(context_of(stage, folder))
    batch = asked["settings"]["batchSize"]
    print(json.dumps({"rate": Timed.samples // batch * batch * asked["epochs"] / Timed.seconds}))


main()
