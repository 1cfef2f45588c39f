"""examples/phrases.yaml, as far as its plan: a run takes minutes. Its stages run in tests/unit/jobs/engine/test_speech_stages.py."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples/phrases.yaml"


def test_the_example_passes_its_preflight_and_shrinks_as_it_says(tmp_path: Path) -> None:
    """A new user's first contact with speech would end in an error."""
    kompress = str(Path(sys.executable).with_name("kompress"))
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(EXAMPLE.parent), "KOMPRESS_FACTORIES": "phrases_model"}
    environment.pop("KOMPRESS_HOME", None)
    done = subprocess.run([kompress, "plan", str(EXAMPLE)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row[0]: row for line in done.stdout.splitlines() if (row := line.split())}
    assert [rows[name][1:3] for name in ("adapt", "slim", "ship")] == [["fineTune", "run"], ["prune", "run"], ["export", "run"]]
    assert rows["slim"][4] != rows["adapt"][4]
