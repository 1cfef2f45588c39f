"""Which weights learn, and when. The strategy's name is the module, with

- `phases(subject) -> list[Phase]`: trainings, one after the other. It may put into the model what learns in the place of its weights;
- `merge(model)`, where it does so: leaves a model with plain weights behind.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.fine_tune import FineTune
from kompress_jobs.modules.structure import is_within
from kompress_jobs.samples import Inputs
from kompress_jobs.training import depth


@dataclass(frozen=True)
class Subject:
    """What a strategy looks at."""

    model: nn.Module
    settings: FineTune
    head: str
    """Name of the layer that gives the outputs."""
    sample: Inputs
    seed: int
    field: str
    """Path of the stage's kind in the manifest."""

    @cached_property
    def depths(self) -> dict[str, int]:
        """See `depth.depths`."""
        return depth.depths(self.model, self.sample)

    def free(self) -> list[str]:
        """Parameters that `frozenModules` leaves alone."""
        return [name for name, _ in self.model.named_parameters() if not is_within(name, self.settings.frozen_modules)]

    def of_head(self, names: Iterable[str]) -> frozenset[str]:
        """Those that are the head's. Raises MethodRefused when there are none."""
        found = frozenset(name for name in names if depth.is_inside(name, [self.head]))
        if not found:
            raise MethodRefused(f"the head {self.head} is among frozenModules", hint="leave it out", field=f"{self.field}.frozenModules")
        return found

    def some(self, names: Iterable[str]) -> frozenset[str]:
        """All of them. Raises MethodRefused when there are none."""
        found = frozenset(names)
        if not found:
            raise MethodRefused(
                f"frozenModules {self.settings.frozen_modules} leave nothing that learns",
                hint="name fewer modules",
                field=f"{self.field}.frozenModules",
            )
        return found


@dataclass(frozen=True)
class Phase:
    """One training."""

    epochs: int
    learns: frozenset[str]
    """Parameters; all others rest, with running statistics and dropout of modules that rest as a whole."""

    def apply(self, model: nn.Module) -> None:
        """Set `requires_grad`."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self.learns)
