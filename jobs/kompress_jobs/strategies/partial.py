"""Partial: what `trainableModules` match learns, at once or from the head down.

Gradual unfreezing: J. Howard, S. Ruder, Universal Language Model Fine-tuning for Text Classification, 2018, section 3.3,
https://arxiv.org/abs/1801.06146. Each block that is added begins a training of its own, with its own warm-up and schedule, as the
authors' library does.
"""

from kompress_api.errors import MethodRefused
from kompress_jobs.modules.structure import is_within
from kompress_jobs.strategies import Phase, Subject


def phases(subject: Subject) -> list[Phase]:
    """One phase, or one for each block that has weights to learn: `gradualUnfreezingEpochs` each, and the last what is left."""
    settings = subject.settings
    chosen = subject.some(matching(subject))
    step = settings.gradual_unfreezing_epochs
    if step is None:
        return [Phase(settings.epochs, chosen)]
    levels = sorted({subject.depths[name] for name in chosen}, reverse=True)
    last = settings.epochs - step * (len(levels) - 1)
    if last < 1:
        raise MethodRefused(
            f"{len(levels)} blocks learn, one more after every {step} epochs: {settings.epochs} epochs end before the last of them",
            hint=f"set epochs to {step * (len(levels) - 1) + step}, or name fewer modules",
            field=f"{subject.field}.gradualUnfreezingEpochs",
        )
    lengths = [step] * (len(levels) - 1) + [last]
    return [
        Phase(length, frozenset(name for name in chosen if subject.depths[name] >= level))
        for length, level in zip(lengths, levels, strict=True)
    ]


def matching(subject: Subject) -> list[str]:
    """Parameters that learn. Raises MethodRefused for a glob that matches none at all."""
    names = [name for name, _ in subject.model.named_parameters()]
    for index, glob in enumerate(subject.settings.trainable_modules):
        if not any(is_within(name, [glob]) for name in names):
            raise MethodRefused(
                f"{glob!r} matches no parameter",
                hint=f"names are such as {names[0]}, {names[len(names) // 2]}, {names[-1]}",
                field=f"{subject.field}.trainableModules[{index}]",
            )
    return [name for name in subject.free() if is_within(name, subject.settings.trainable_modules)]
