"""What a plan predicts is shown as it is known: a figure where it is exact, with its range where the weights decide."""

import io

from rich.console import Console

from kompress_api.job import CompressionJobSpec
from kompress_api.status import PlanStatus
from kompress_operator.cli.plan import plan_table


def test_a_range_stands_beside_what_is_likely() -> None:
    spec = CompressionJobSpec.model_validate(
        {
            "task": "image-classification",
            "model": {"source": "timm://resnet18"},
            "dataset": {"source": "builtin://digits"},
            "stages": [{"name": "adapt", "fineTune": {"epochs": 1}}, {"name": "slim", "prune": {"pruningRatio": 0.5}}],
        }
    )
    exact = {"parameters": 5000.0, "macs": 9000.0, "modelSizeBytes": 20000.0}
    low, high = ({name: value * factor for name, value in exact.items()} for factor in (0.1, 1))
    half = {name: value / 2 for name, value in exact.items()}
    memory = {"low": {"workerMemoryBytes": 600 * 2**20}, "high": {"workerMemoryBytes": 2000 * 2**20}}
    adapt = {"name": "adapt", "figures": exact | {"workerMemoryBytes": 1000 * 2**20}, **memory}
    stages = [adapt, {"name": "slim", "figures": half, "low": low, "high": high}]
    plan = PlanStatus(uri="file:///plan.json", digest="sha256:0", keys={"adapt": "a", "slim": "b"}, hits={})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_table(spec, plan, {"source": exact, "stages": stages}))
    rows = {line.split()[0]: line for line in console.export_text().splitlines() if line.split()}
    assert rows["adapt"].split()[4:] == ["5,000", "9,000", "20,000", "1,000", "(600", "-", "2,000)"]
    assert "2,500 (500 - 5,000)" in rows["slim"]
