"""LPFT: the head first, then everything: a fresh head's first gradients would distort the features that it is to build on.

A. Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, 2022,
https://arxiv.org/abs/2202.10054. Reference: on ten data sets 1 point better than fine-tuning alone on data like the training's, 10 points
on data of another kind.
"""

from kompress_jobs.strategies import Phase, Subject


def phases(subject: Subject) -> list[Phase]:
    """`linearProbeEpochs` of the head (a third of all where it is absent), the rest of everything."""
    settings, free = subject.settings, subject.free()
    probe = settings.linear_probe_epochs or max(1, settings.epochs // 3)
    return [Phase(probe, subject.of_head(free)), Phase(settings.epochs - probe, subject.some(free))]
