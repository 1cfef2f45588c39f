"""Which weights learn: those that the manifest says and no other; a stage stopped between two phases goes on in the right one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from stage_contexts import CPU, build_context
from torch import nn

from kompress_api.errors import Interrupted, KompressError, MethodRefused
from kompress_api.stages.fine_tune import FineTune
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import WEIGHTS
from kompress_jobs.loading import bundle
from kompress_jobs.stages import fine_tune
from kompress_jobs.strategies import Phase, Subject, lora

MakeContext = Callable[..., StageContext]
BODY = {"first", "first_norm", "second", "second_norm"}


def source(name: str) -> dict[str, Any]:
    return {"source": f"python://tiny_models:{name}"}


def start_of(folder: Path, model: str) -> nn.Module:
    """The model that a stage begins with."""
    context = build_context(folder, {"fineTune": {"epochs": 1}}, model=source(model), scratch="start", device=CPU)
    return Bench(context).take("model").model


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    """Names of modules whose parameters or running statistics are others."""
    own, theirs = before.state_dict(), after.state_dict()
    return {name.rpartition(".")[0] for name in own if not torch.equal(own[name], theirs[name])}


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, set[str]]]]:
    """Of each training that runs: its epochs, and the modules that learn in it."""
    seen: list[tuple[int, set[str]]] = []
    train = Bench.train

    def noting(self: Bench, plan: Any, state: Any) -> None:
        learning = {name.rpartition(".")[0] for name, parameter in state.model.named_parameters() if parameter.requires_grad}
        seen.append((plan.epochs, learning))
        train(self, plan, state)

    with monkeypatch.context() as patched:
        patched.setattr(Bench, "train", noting)
        yield seen


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"strategy": "FeatureExtraction", "epochs": 1}, [(1, {"classifier"})]),
        ({"strategy": "Full", "epochs": 1}, [(1, BODY | {"classifier"})]),
        ({"strategy": "Full", "epochs": 1, "frozenModules": ["first*"]}, [(1, {"second", "second_norm", "classifier"})]),
        ({"strategy": "Partial", "epochs": 1, "trainableModules": ["second*"]}, [(1, {"second", "second_norm"})]),
        (
            {"strategy": "Partial", "epochs": 5, "trainableModules": ["second*", "classifier"], "gradualUnfreezingEpochs": 2},
            [(2, {"classifier"}), (3, {"second", "second_norm", "classifier"})],
        ),
        (
            {"strategy": "Partial", "epochs": 3, "trainableModules": ["*"], "gradualUnfreezingEpochs": 1},
            [(1, {"classifier"}), (1, {"second", "second_norm", "classifier"}), (1, BODY | {"classifier"})],
        ),
        ({"strategy": "LPFT", "epochs": 4}, [(1, {"classifier"}), (3, BODY | {"classifier"})]),
        (
            {"strategy": "LPFT", "epochs": 3, "linearProbeEpochs": 2, "frozenModules": ["first"]},
            [(2, {"classifier"}), (1, BODY - {"first"} | {"classifier"})],
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_learns_moves_and_all_else_rests(
    own: dict[str, Any],
    expected: list[tuple[int, set[str]]],
    phases: list[tuple[int, set[str]]],
    run_stage: Callable[..., StageOutput],
    tmp_path: Path,
) -> None:
    """Running statistics rest too: a backbone that is said to be frozen answers as before."""
    output = run_stage({"fineTune": own | {"learningRate": 1e-2}})
    assert phases == expected
    assert output.folder is not None
    learning = set.union(*(names for _, names in expected))
    assert moved(start_of(tmp_path, "convolutional"), bundle.read(output.folder).model) == learning


def test_lora_learns_a_low_rank_update_and_leaves_plain_weights(run_stage: Callable[..., StageOutput], tmp_path: Path) -> None:
    own = {"strategy": "LoRA", "epochs": 8, "learningRate": 1e-2, "batchSize": 32, "lora": {"rank": 2, "targetModules": ["encoder"]}}
    output = run_stage({"fineTune": own}, model=source("torchvision_vit"))
    assert output.folder is not None
    before = start_of(tmp_path, "torchvision_vit")
    with safe_open(output.folder / WEIGHTS, "pt") as file:
        assert set(file.keys()) == before.state_dict().keys(), "whoever loads the bundle needs to know nothing of adapters"
    after = bundle.read(output.folder).model
    changed = moved(before, after)
    linear = {name for name, module in before.named_modules() if isinstance(module, nn.Linear)}
    assert changed == linear, "norms and embeddings rest; the layer that attention itself never calls has learned, too"
    for name in linear - {"heads.head"}:
        update = (after.get_submodule(name).weight - before.get_submodule(name).weight).double()  # type: ignore[operator]
        assert torch.linalg.matrix_rank(update, rtol=1e-4) == 2
    assert output.metrics["accuracy"] > 0.4


def test_what_lora_merges_is_what_was_trained_bit_by_bit(tmp_path: Path) -> None:
    """The figures that early stopping went by are those of the model that is kept."""
    model = start_of(tmp_path, "torchvision_vit")
    sample = (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)
    settings = FineTune.model_validate({"strategy": "LoRA", "epochs": 1, "lora": {"dropout": 0.5, "rank": 4}})
    [phase] = lora.phases(Subject(model, settings, "heads.head", sample, 0, "f"))
    plain = model.eval()(*sample)
    for name, parameter in model.named_parameters():
        if name in phase.learns:
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    trained = model.eval()(*sample)
    assert not torch.allclose(trained, plain)
    lora.merge(model.train())
    assert torch.equal(model.eval()(*sample), trained)


def test_every_rank_begins_with_the_same_adapters(tmp_path: Path) -> None:
    """Sharded weights are never compared: ranks that began apart would train parts of different models."""

    def downs(seed: int) -> torch.Tensor:
        torch.manual_seed(torch.seed() % 2**31)
        model = start_of(tmp_path, "torchvision_vit")
        settings = FineTune.model_validate({"strategy": "LoRA", "epochs": 1})
        lora.phases(Subject(model, settings, "heads.head", (torch.zeros(1, 3, 8, 8),), seed, "f"))
        return torch.cat([p.flatten() for name, p in model.named_parameters() if name.endswith(".down")])

    assert torch.equal(downs(0), downs(0))
    assert not torch.equal(downs(0), downs(1))


def test_a_stage_that_was_stopped_in_its_second_phase_goes_on_there(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, phases: list[tuple[int, set[str]]]
) -> None:
    stage = {"fineTune": {"strategy": "LPFT", "epochs": 3, "batchSize": 256, "learningRate": 1e-2}}
    first = make_context(stage, scratch="whole")
    whole = fine_tune.run(first)
    first.checkpoints.remove_own()  # as the worker does when the artifact is committed
    context = make_context(stage, scratch="stopped")
    apply, applied = Phase.apply, []

    def stopping(self: Phase, model: nn.Module) -> None:
        apply(self, model)
        applied.append(1)
        if len(applied) == 2:
            context.stop.request()

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Phase, "apply", stopping)
        fine_tune.run(context)
    phases.clear()
    resumed = fine_tune.run(make_context(stage, scratch="resumed", attempt=2))
    assert [epochs for epochs, _ in phases] == [2], "the head is not trained again"
    assert resumed.metrics["loss"] == whole.metrics["loss"]


@pytest.mark.parametrize(
    ("own", "model", "field", "says"),
    [
        (
            {"strategy": "Partial", "trainableModules": ["second*", "layer4*"]},
            "convolutional",
            "trainableModules[1]",
            "'layer4*' matches no",
        ),
        (
            {"strategy": "Partial", "trainableModules": ["*"], "gradualUnfreezingEpochs": 2, "epochs": 4},
            "convolutional",
            "gradualUnfreezingEpochs",
            "3 blocks learn",
        ),
        ({"strategy": "LoRA"}, "convolutional", "lora", "no linear layer but the head"),
        ({"strategy": "LoRA", "lora": {"rank": 40}}, "torchvision_vit", "lora.rank", "rank 40 is no low rank for encoder"),
        ({"strategy": "LoRA", "frozenModules": ["heads*"]}, "torchvision_vit", "frozenModules", "the head heads.head is among"),
        (
            {"strategy": "LPFT", "epochs": 2, "frozenModules": ["classifier"]},
            "convolutional",
            "frozenModules",
            "the head classifier is among",
        ),
        ({"strategy": "Full", "frozenModules": ["*"]}, "convolutional", "frozenModules", "leave nothing"),
    ],
    ids=str,
)
def test_what_can_not_work_is_refused_before_anything_is_trained(
    own: dict[str, Any], model: str, field: str, says: str, make_context: MakeContext
) -> None:
    with pytest.raises(MethodRefused) as caught:
        fine_tune.run(make_context({"fineTune": {"epochs": 1} | own}, model=source(model)))
    assert says in caught.value.message
    assert caught.value.field.endswith(f"fineTune.{field}")
    assert isinstance(caught.value, KompressError)
    assert caught.value.hint
