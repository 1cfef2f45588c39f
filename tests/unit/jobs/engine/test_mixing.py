"""Mixup and CutMix: what becomes of an image becomes of its target, and no model is taught wrong labels."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from stage_contexts import TINY

from kompress_api.errors import MethodRefused
from kompress_api.stages.distill import Distill
from kompress_api.stages.fuse import Fuse
from kompress_api.stages.prune import Prune
from kompress_api.training import Training
from kompress_jobs import classification
from kompress_jobs.context import StageOutput
from kompress_jobs.distillation import teacher_cache
from kompress_jobs.samples.splits import Data
from kompress_jobs.tasks import audio_classification, image_classification, text_classification
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.mixing import build_mixing
from kompress_jobs.training.objective import task_loss
from kompress_jobs.training.refusals import refuse, refuse_for_task


def mixed(digits: Data, seed: int, **own: float) -> tuple[Batch, Batch]:
    """A batch of digits before and after."""
    samples, _ = digits.train.read(torch.arange(8))
    batch = Batch(samples, digits.train.labels[:8], torch.arange(8), 1.0)
    torch.manual_seed(seed)
    return batch, build_mixing(Training.model_validate(own))(batch)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_adds_images_in_the_share_of_their_targets(seed: int, digits: Data) -> None:
    batch, found = mixed(digits, seed, mixup=1.0)
    own, other = batch.samples.float(), batch.samples.float().roll(1, 0)  # type: ignore[union-attr]
    assert found.samples.dtype == torch.uint8  # type: ignore[union-attr]
    assert (found.samples.float() - (found.own * own + (1 - found.own) * other)).abs().max() <= 0.51  # type: ignore[union-attr]
    assert 0 < found.own < 1
    assert found.partners is not None and torch.equal(found.partners, batch.targets.roll(1, 0))


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_puts_in_a_part_in_the_share_of_their_targets(seed: int, digits: Data) -> None:
    batch, found = mixed(digits, seed, cutmix=1.0)
    assert isinstance(batch.samples, torch.Tensor) and isinstance(found.samples, torch.Tensor)
    from_other = (found.samples == batch.samples.roll(1, 0)) & (found.samples != batch.samples)
    assert ((found.samples == batch.samples) | from_other).all()
    marks = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 1, 8, 8).contiguous()
    torch.manual_seed(seed)
    cut = build_mixing(Training.model_validate({"cutmix": 1.0}))(Batch(marks, batch.targets, batch.indices, 1.0))
    assert float((cut.samples == marks).float().mean()) == pytest.approx(cut.own)  # type: ignore[union-attr, arg-type]
    assert cut.own == found.own


def test_the_loss_of_a_mixed_sample_is_that_of_both_targets() -> None:
    scores, targets = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    batch = Batch(torch.empty(4), targets, torch.arange(4), 1.0, partners=targets.roll(1, 0), own=0.3)
    soft = 0.3 * torch.eye(3)[targets] + 0.7 * torch.eye(3)[targets.roll(1, 0)]
    expected = torch.nn.functional.cross_entropy(scores, soft)
    torch.testing.assert_close(task_loss(classification, scores, batch, weight=None, smoothing=0.0), expected)


def test_a_batch_of_one_stays_what_it_is(digits: Data) -> None:
    samples, _ = digits.train.read(torch.arange(1))
    batch = Batch(samples, digits.train.labels[:1], torch.arange(1), 1.0)
    found = build_mixing(Training.model_validate({"mixup": 1.0}))(batch)
    assert torch.equal(found.samples, batch.samples)  # type: ignore[arg-type]
    assert found.own == pytest.approx(1)


def test_the_teacher_answers_what_the_student_sees(run_stage: Callable[..., StageOutput], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores of the samples as they were would be wrong for those that were mixed."""
    adapt = run_stage({"fineTune": {"epochs": 3, "learningRate": 1e-2}}, scratch="teacher")
    monkeypatch.setattr(teacher_cache, "answers", lambda *_: pytest.fail("answers were remembered"))
    own = {"teachers": [{"from": "adapt"}], "student": TINY, "epochs": 2, "augmentation": "None", "mixup": 0.4, "learningRate": 1e-2}
    output = run_stage({"distill": own}, inputs={"teacher0": adapt.folder}, scratch="student")
    assert output.metrics["accuracy"] > 0.3


@pytest.mark.parametrize("task", [text_classification, audio_classification])
@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (Training.model_validate({"mixup": 0.1}), "f.mixup"),
        (Training.model_validate({"cutmix": 0.1}), "f.cutmix"),
        (Prune.model_validate({"pruningRatio": 0.5, "recovery": {"epochs": 1, "cutmix": 1}}), "f.recovery.cutmix"),
        (
            Fuse.model_validate({"method": "UniformSoup", "models": [{"from": "a"}], "training": {"epochs": 1, "mixup": 1}}),
            "f.training.mixup",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_images_are_mixed(task: ModuleType, spec: Any, field: str) -> None:
    refuse_for_task(spec, image_classification, field="f")
    with pytest.raises(MethodRefused, match="only images") as caught:
        refuse_for_task(spec, task, field="f")
    assert caught.value.field == field


def test_dkd_is_refused_targets_of_two_classes() -> None:
    own = {"teachers": [{"from": "a"}], "epochs": 1, "losses": [{"type": "DKD"}]}
    refuse(Distill.model_validate(own), field="d")
    with pytest.raises(MethodRefused, match="DKD") as caught:
        refuse(Distill.model_validate(own | {"mixup": 1}), field="d")
    assert caught.value.field == "d.losses"
