"""examples/docstrings.yaml, as far as its plan: a run takes minutes. Its stages run in tests/unit/jobs/engine/test_text.py."""

import os
import subprocess
import sys
from pathlib import Path

from minilm import fill_hub_cache

EXAMPLE = Path(__file__).parents[2] / "examples/docstrings.yaml"


def test_the_example_passes_its_preflight_with_the_hub_s_model_and_no_network(tmp_path: Path) -> None:
    """A new user's first contact with text would end in an error."""
    kompress = str(Path(sys.executable).with_name("kompress"))
    environment = {**os.environ, **fill_hub_cache(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    environment.pop("KOMPRESS_HOME", None)
    done = subprocess.run([kompress, "plan", str(EXAMPLE)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row[0]: row for line in done.stdout.splitlines() if (row := line.split())}
    assert [rows[name][1:3] for name in ("adapt", "student", "ship")] == [["fineTune", "run"], ["distill", "run"], ["export", "run"]]
    assert "22,716,681" in rows["adapt"], done.stdout
    assert rows["student"][4] == rows["ship"][4] != rows["adapt"][4]
