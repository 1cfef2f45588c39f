"""The loop: the losses it should have, what it keeps, and when it stops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from short_trainings import metrics, train
from torch import nn
from torch._dynamo.utils import counters

from kompress_api.errors import LossNotFinite, MethodRefused
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext
from kompress_jobs.training import loop

MakeContext = Callable[..., StageContext]
GOLDEN = Path(__file__).parent / "golden_losses.txt"


def test_the_losses_are_those_written_down(make_context: MakeContext) -> None:
    """A change said to be neutral keeps them; any other brings a convergence table and new ones."""
    context = make_context({"fineTune": {"epochs": 3, "learningRate": 3e-3}})
    train(context)
    told = metrics(context, "train/loss") + metrics(context, "validation/loss")
    expected = [float(line) for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    assert told == pytest.approx(expected, rel=2e-3)


def test_the_log_tells_how_training_goes(make_context: MakeContext, caplog: pytest.LogCaptureFixture) -> None:
    """What `kubectl logs` shows of hours of training, where nobody has opened MLflow."""
    caplog.set_level("INFO", logger="kompress_jobs")
    train(make_context({"fineTune": {"epochs": 2}}))
    told = [record.getMessage() for record in caplog.records if record.name == "kompress_jobs.training.loop"]
    assert all(line.startswith("step ") for line in told)
    assert [name in told[index] for index, name in enumerate(("train/loss", "validation/accuracy") * 2)] == [True] * 4


def test_accumulated_micro_batches_are_the_whole_batch(make_context: MakeContext) -> None:
    source = {"source": "python://tiny_models:normless"}
    one = train(make_context({"fineTune": {"epochs": 1, "batchSize": 60}}, model=source, scratch="one"))[1]
    three = train(
        make_context({"fineTune": {"epochs": 1, "batchSize": 60, "gradientAccumulationSteps": 3}}, model=source, scratch="three")
    )[1]
    for own, other in zip(one.model.parameters(), three.model.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "BF16"},
        {"optimizer": "SGD", "schedule": "Linear", "gradientClipNorm": 1.0, "learningRate": 0.1},
        {"optimizer": "Adam", "schedule": "Constant", "labelSmoothing": 0.1, "classWeights": "Balanced"},
        {"augmentation": "Standard"},
        {"augmentation": "None", "ema": {"decay": 0.9}},
        {"mixup": 0.2, "cutmix": 1.0},
        {"regularizers": [{"type": "L2SP", "weight": 1e-3}], "layerDecay": 0.8},
        {"precision": "FP16"},
    ],
)
def test_every_setting_learns(settings: dict[str, Any], make_context: MakeContext) -> None:
    context = make_context({"fineTune": {"epochs": 4, "learningRate": 1e-2, "batchSize": 32} | settings})
    train(context)
    assert metrics(context, "validation/accuracy")[-1] > 0.5


def test_compiled_a_model_learns_the_same(make_context: MakeContext) -> None:
    own = {"epochs": 2, "learningRate": 1e-2}
    model = {"source": "python://tiny_models:normless"}
    eager, compiled = (make_context({"fineTune": own | {"compile": on}}, model=model, scratch=str(on)) for on in (False, True))
    train(eager)
    before = counters["stats"]["unique_graphs"]
    train(compiled)
    assert counters["stats"]["unique_graphs"] > before, "it ran as a graph, and nobody gave up in silence"
    for name in ("train/loss", "validation/loss"):
        assert metrics(compiled, name) == pytest.approx(metrics(eager, name), rel=1e-3)


def test_early_stopping_keeps_the_best_weights(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_context({"fineTune": {"epochs": 9, "earlyStopping": {"patience": 2}}})
    told = iter([0.5, 0.7, 0.6, 0.7])
    seen: list[torch.Tensor] = []

    def validate(self: Bench, found: Any, split: Any, *, intervals: bool) -> Any:
        seen.append(found.model.classifier.weight.detach().clone())
        return type("Scored", (), {"values": {"accuracy": next(told)}})

    monkeypatch.setattr(Bench, "score", validate)
    state = train(context)[1]
    assert len(seen) == 4
    assert state.best_value == 0.7
    assert torch.equal(state.model.classifier.weight, seen[1])  # type: ignore[union-attr, arg-type]


def test_a_loss_that_is_not_finite_ends_the_stage_with_the_step(make_context: MakeContext) -> None:
    with pytest.raises(LossNotFinite, match="step") as caught:
        train(make_context({"fineTune": {"epochs": 2, "learningRate": 100, "optimizer": "SGD", "weightDecay": 10, "warmupFraction": 0}}))
    assert "learningRate" in caught.value.hint
    assert caught.value.exit_code == 78


def test_what_is_frozen_rests_with_its_running_statistics() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5)), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    loop.set_training(model)
    assert not model[0][1].training
    assert not model[0][2].training
    assert model[1].training


def test_a_batch_that_can_not_be_shared_is_refused(make_context: MakeContext) -> None:
    with pytest.raises(MethodRefused, match="can't be shared") as caught:
        train(make_context({"fineTune": {"epochs": 1, "batchSize": 2, "gradientAccumulationSteps": 4}}))
    assert caught.value.field.endswith("fineTune.batchSize")
