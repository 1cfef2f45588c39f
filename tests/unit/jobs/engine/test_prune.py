"""Pruning as a stage: by ratio, by budget, by search; what it says of every layer, and that its bundle can be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from stage_contexts import build_context
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune
from kompress_jobs.context import StageOutput
from kompress_jobs.granularities import channel
from kompress_jobs.importances import l1, taylor
from kompress_jobs.loading import bundle
from kompress_jobs.measure import size
from kompress_jobs.modules import structure
from kompress_jobs.modules.history import replay
from kompress_jobs.pruning import budget, search
from kompress_jobs.pruning.recovery import share_epochs
from kompress_jobs.pruning.search import Trial
from kompress_jobs.samples import Inputs
from kompress_jobs.stages import fine_tune

RunStage = Callable[..., StageOutput]
RECOVERY = {"epochs": 2, "learningRate": 1e-2, "batchSize": 64}


def build(name: str) -> tuple[nn.Module, Inputs]:
    from torchvision import models

    torch.manual_seed(0)
    return models.get_model(name, weights=None, num_classes=10).eval(), (torch.randn(2, 3, 64, 64),)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows the digits."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KOMPRESS_FACTORIES", "tiny_models")
        patched.setenv("PYTHONPATH", str(Path(tiny_models.__file__).parent))
        made = fine_tune.run(build_context(folder, {"fineTune": {"epochs": 6, "batchSize": 32, "learningRate": 1e-2}}))
    assert made.folder is not None
    return made.folder


def pruner(model: nn.Module, sample: Inputs, **spec: Any) -> channel.Pruner:
    parsed = Prune.model_validate({"pruningRatio": 0.5, "importance": "L1"} | spec)
    return channel.Pruner(model, sample, l1, parsed, structure.head_of(model, sample), field="spec.stages[0].prune")


def cut(made: channel.Pruner, ratio: float) -> None:
    made.apply(made.choose(made.worths(), ratio))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_history_makes_the_same_model_again(name: str) -> None:
    model, sample = build(name)
    pruned = pruner(model, sample)
    cut(pruned, 0.5)
    again = replay(build(name)[0], [pruned.change()], sample)
    again.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(*sample), model.eval()(*sample))
    assert size.parameters(model) < 0.6 * size.parameters(build(name)[0])


def test_local_scope_cuts_every_layer_alike() -> None:
    model, sample = build("resnet18")
    pruned = pruner(model, sample, scope="Local", ignore=["layer4.*"])
    cut(pruned, 0.5)
    assert set(map(tuple, pruned.removed().values())) == {(64, 32), (128, 64), (256, 128)}
    assert model.fc.out_features == 10
    assert model.layer4[0].conv1.out_channels == 512, "what is ignored is left alone"


def test_taylor_keeps_what_the_loss_depends_on() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    sample = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        model[4].weight[:, 8:] = 0  # what these channels say changes nothing
    model(sample).logsumexp(1).sum().backward()
    spec = Prune.model_validate({"pruningRatio": 0.5, "roundTo": 1})
    pruned = channel.Pruner(model, (sample,), taylor, spec, "4", field="f")
    cut(pruned, 0.5)
    assert pruned.change()["steps"] == [["0", True, list(range(8, 16))]]


def test_what_can_not_be_cut_is_refused_by_field() -> None:
    with pytest.raises(MethodRefused, match="can't be traced"):
        pruner(*build("shufflenet_v2_x0_5"))  # it cuts and swaps halves of its channels
    model, sample = build("resnet18")
    pruned = pruner(model, sample, roundTo=512)
    cut(pruned, 0.5)
    with pytest.raises(MethodRefused, match="none of the channels was removed") as caught:
        pruned.refuse_untouched()
    assert caught.value.field.endswith("pruningRatio")


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(6, 1, [6]), (6, 3, [2, 1, 3]), (5, 4, [1, 1, 0, 3]), (1, 2, [0, 1]), (0, 2, [0, 0])]
)
def test_the_last_step_gets_at_least_half_of_the_epochs(epochs: int, steps: int, expected: list[int]) -> None:
    assert share_epochs(epochs, steps) == expected


def test_the_stage_prunes_in_steps_and_writes_what_a_clean_process_can_read(run_stage: RunStage) -> None:
    recovery = {"epochs": 6, "learningRate": 1e-2, "batchSize": 32}
    output = run_stage(
        {"prune": {"pruningRatio": 0.5, "iterativeSteps": 2, "roundTo": 4, "scope": "Local", "importance": "Taylor", "recovery": recovery}}
    )
    assert output.folder is not None
    found = bundle.read(output.folder)
    assert [(change["change"], change["granularity"]) for change in found.description.history] == [("prune", "Channel")]
    assert output.details["removed"] == {"first": [16, 8], "second": [32, 16]}
    assert {entry["layer"]: entry["now"] for entry in output.details["layers"] if "now" in entry} == {"first": 8, "second": 16}
    assert output.metrics["parameters"] == size.parameters(found.model) < 0.4 * output.metrics["source.parameters"]
    assert output.metrics["macs"] < 0.4 * output.metrics["source.macs"]
    assert output.metrics["accuracy"] > 0.5
    low, high = output.details["intervals"]["accuracy"]
    assert low < output.metrics["accuracy"] < high


def test_zeros_survive_recovery_the_average_and_the_bundle(run_stage: RunStage) -> None:
    own = {"granularity": "Weight", "importance": "L1", "sparsity": 0.7, "iterativeSteps": 2, "schedule": "Cubic"}
    output = run_stage({"prune": own | {"recovery": RECOVERY | {"ema": {"decay": 0.9}}}})
    found = bundle.read(output.folder)
    assert output.details["sparsity"] == pytest.approx(0.7, abs=1e-3)
    zeros = sum(int((module.weight == 0).sum()) for module in (found.model.first, found.model.second))
    assert zeros / (found.model.first.weight.numel() + found.model.second.weight.numel()) == pytest.approx(0.7, abs=1e-3)
    assert output.metrics["parameters"] == output.metrics["source.parameters"]


@pytest.mark.parametrize("constraints", [{"params": 2000}, {"macs": 40_000}, {"params": 3000, "macs": 60_000}])
def test_a_budget_is_kept_and_not_by_more_than_a_channel_need_be(constraints: dict[str, int], run_stage: RunStage) -> None:
    output = run_stage({"prune": {"constraints": constraints, "importance": "L1", "roundTo": 1, "iterativeSteps": 2, "recovery": RECOVERY}})
    shares = [
        output.metrics[figure] / constraints[name] for name, figure in (("params", "parameters"), ("macs", "macs")) if name in constraints
    ]
    assert max(shares) <= 1
    assert max(shares) > 0.85
    assert 0 < output.details["ratio"] < 0.9


def test_a_budget_of_latency_is_measured_on_copies(run_stage: RunStage) -> None:
    loose = run_stage({"prune": {"constraints": {"latencyMs": 1000}, "importance": "L1"}})
    assert loose.details["removed"] == {}, "the model keeps the budget as it is"
    with pytest.raises(MethodRefused, match="latencyP50Ms") as caught:
        run_stage({"prune": {"constraints": {"latencyMs": 1e-4}, "importance": "L1"}}, scratch="tight")
    assert caught.value.field == "spec.stages(stage).prune.constraints"


def test_bisection_finds_the_least_ratio_that_holds() -> None:
    assert budget.bisect(lambda ratio: ratio >= 0.3, 0.9) == pytest.approx(0.3, abs=budget.RESOLUTION)
    assert budget.bisect(lambda ratio: True, 0.9) == 0


def test_the_search_keeps_the_accuracy_on_validation_and_tells_its_front(trained: Path, run_stage: RunStage) -> None:
    own = {"search": {"maxDegradation": 0.05, "maxTrials": 4}, "importance": "L1", "roundTo": 2, "recovery": RECOVERY | {"epochs": 4}}
    output = run_stage({"prune": own}, inputs={"model": trained}, scratch="search")
    found = output.details["search"]
    assert [trial["ratio"] for trial in found["trials"][:2]] == [0.0, 0.45]
    assert found["least"] == pytest.approx(found["baseline"] - 0.05)
    kept = {trial["ratio"] for trial in found["trials"] if trial["accuracy"] >= found["least"]}
    assert found["ratio"] in kept - {0.0}
    assert output.metrics["parameters"] == next(t["parameters"] for t in found["trials"] if t["ratio"] == found["ratio"])
    sizes = [trial["parameters"] for trial in found["front"]]
    assert sizes == sorted(sizes) and len(sizes) > 1


def test_a_search_that_nothing_passes_says_so_by_field(trained: Path, run_stage: RunStage) -> None:
    with pytest.raises(MethodRefused, match="none of 2 pruned models") as caught:
        run_stage(
            {"prune": {"search": {"maxDegradation": 1e-6, "maxTrials": 2}, "importance": "Random", "roundTo": 1}},
            inputs={"model": trained},
            scratch="search",
        )
    assert caught.value.field == "spec.stages(stage).prune.search.maxDegradation"


def test_the_search_narrows_down_and_its_front_holds_what_nothing_beats() -> None:
    spec = Prune.model_validate({"search": {"maxDegradation": 0.1, "maxTrials": 4}})
    assert spec.search
    trials = [Trial(0.0, 0.9, 100, 100)]
    for accuracy in (0.85, 0.6, 0.82, 0.9):
        ratio = search.next_ratio(trials, spec.search, 0.8)
        assert ratio is not None
        trials.append(Trial(ratio, accuracy, round(100 * (1 - ratio)), 100))
    assert [round(trial.ratio, 3) for trial in trials] == [0.0, 0.4, 0.6, 0.5, 0.55]
    assert search.next_ratio(trials, spec.search, 0.8) is None
    assert search.bracket(trials, spec.search, 0.8) == pytest.approx((0.55, 0.6))
    assert [trial.ratio for trial in search.front(trials)] == pytest.approx([0.6, 0.55])


def test_sensitivity_says_what_a_cut_of_each_layer_costs(trained: Path, run_stage: RunStage) -> None:
    for own in ({"pruningRatio": 0.25}, {"granularity": "Weight", "sparsity": 0.3}):
        spec = {"prune": own | {"importance": "L1", "roundTo": 1, "sensitivity": True}}
        output = run_stage(spec, inputs={"model": trained}, scratch=f"told{len(own)}", attempt=len(own))
        told = output.details["sensitivity"]
        assert set(told["layers"]) == {"first", "second"}
        for rows in told["layers"].values():
            assert [row["ratio"] for row in rows] == [0.25, 0.5, 0.75]
            assert rows[0]["loss"] < rows[-1]["loss"], "the more is cut, the more it costs"
        assert told["accuracy"] >= max(row["accuracy"] for rows in told["layers"].values() for row in rows) - 0.02
