"""Penalties on weights: what pretraining has found stays where nothing speaks against it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_trainings import metrics, train

from kompress_api.training import Training, WeightedRegularizer
from kompress_jobs.context import StageContext
from kompress_jobs.regularizers import add_gradients, l2, l2sp
from kompress_jobs.training.state import build_state, decayed

MakeContext = Callable[..., StageContext]
SGD = {"epochs": 1, "optimizer": "SGD", "learningRate": 0.05, "weightDecay": 0, "schedule": "Constant", "warmupFraction": 0}
NORMLESS = {"source": "python://tiny_models:normless"}


def test_the_penalties_are_those_of_the_papers() -> None:
    weights = {"body": torch.tensor([1.0, 2.0]), "head": torch.tensor([3.0])}
    assert float(l2.penalty(weights, {})) == 0.5 * (1 + 4 + 9)
    assert float(l2sp.penalty(weights, {"body": torch.tensor([1.0, 0.0])})) == 0.5 * (4 + 9), "a fresh head has nowhere to stay"


def test_their_gradients_join_those_of_the_task() -> None:
    """Times the scale of FP16, else they would be as good as nothing there."""
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.grad = torch.tensor([10.0, 10.0])
    parts = [WeightedRegularizer.model_validate({"type": name, "weight": 0.5}) for name in ("L2", "L2SP")]
    total = add_gradients(parts, {"body": weight}, {"body": torch.tensor([0.0, 2.0])}, 4.0)
    assert float(total) == 0.5 * 2.5 + 0.5 * 0.5
    assert weight.grad.tolist() == [10 + 4 * (0.5 + 0.5), 10 + 4 * 1.0]


def test_l2sp_holds_the_weights_where_training_began(make_context: MakeContext) -> None:
    def distance(scratch: str, **own: Any) -> tuple[float, float]:
        context = make_context({"fineTune": SGD | own}, model=NORMLESS, scratch=scratch)
        bench, state = train(context)
        start = bench.take("model").model.state_dict()
        weights = decayed(state.model)
        return sum(float((weight - start[name]).square().sum()) for name, weight in weights.items()), metrics(context, "train/loss")[0]

    free, plain_loss = distance("free")
    held, loss = distance("held", regularizers=[{"type": "L2SP", "weight": 5.0}])
    assert held < 0.3 * free
    assert loss > plain_loss, "the loss that is told is the one that is made small"


def test_a_penalty_counts_once_however_many_micro_batches_there_are(make_context: MakeContext) -> None:
    own = SGD | {"batchSize": 60, "regularizers": [{"type": "L2", "weight": 0.1}]}
    one = train(make_context({"fineTune": own}, model=NORMLESS, scratch="one"))[1]
    three = train(make_context({"fineTune": own | {"gradientAccumulationSteps": 3}}, model=NORMLESS, scratch="three"))[1]
    for ours, theirs in zip(one.model.parameters(), three.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("earlier", [False, True])
def test_training_in_phases_is_held_to_where_the_first_began(earlier: bool) -> None:
    model = torch.nn.Linear(2, 2)
    settings = Training.model_validate({"regularizers": [{"type": "L2SP", "weight": 1}]})
    first = build_state(model, settings, fresh=("bias",))
    assert first.start.keys() == {"weight"}
    with torch.no_grad():
        model.weight.zero_()
    second = build_state(model, settings, start=first.start if earlier else None)
    assert bool(second.start["weight"].any()) == earlier
