"""What a task decides: preprocessing, augmentation, loss, metrics. The task's name is the module.

Its `DRAWS` says which augmentations it has, and how many random numbers each takes a sample; with 0 every epoch sees the same.
Where it has them,

- `TRANSCRIPTS` is True of a task whose targets are transcripts, not labels,
- `NO_MEANING` names settings and methods that the task has no use for, each with the reason,
- `remarks_on_data(data)` and `remarks_on_model(loaded, data)` yield what people should know of them that stops nothing.
"""

from types import ModuleType


def transcripts(task: ModuleType) -> bool:
    """Whether targets are transcripts."""
    return getattr(task, "TRANSCRIPTS", False)
