"""How samples become a model's inputs: part of the model, kept in its bundle.

The `type` in a bundle's description is the module; its class `Preprocessing` holds the settings. Files that belong to it (a
tokenizer) lie beside the weights. Nothing here is random: augmentation is the task's and comes before.
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, SerializeAsAny

from kompress_api.base import Model
from kompress_jobs import registry
from kompress_jobs.samples import Inputs, Samples


class Preprocessing(Model):
    """Base of all kinds; called with samples it gives inputs on the same device (of texts: on the CPU, see `samples.place`)."""

    type: str
    """Module of this package."""
    limited: ClassVar[bool] = False
    """Whether a sample may be too large, and then loses a part (`shortened`)."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the model's arguments."""

    @property
    def axes(self) -> tuple[dict[int, str], ...]:
        """Of each input, the axes besides the batch that may have any length, by name."""
        return tuple({} for _ in self.names)

    @abstractmethod
    def __call__(self, samples: Samples) -> Inputs:
        """Prepare."""

    @abstractmethod
    def sample(self, batch: int = 2) -> Inputs:
        """Inputs of the right shape and type on the CPU, as large as they get; their content means nothing."""

    def shortened(self, samples: Samples) -> int:
        """How many of these lose a part, where that can happen."""
        return 0

    def files(self) -> Mapping[str, bytes]:
        """What must lie beside the settings."""
        return {}

    def load(self, folder: Path) -> "Preprocessing":
        """The same with its files read."""
        return self


def parse(content: Any) -> Any:
    """JSON of any kind as an object of that kind."""
    if not isinstance(content, dict):
        return content
    module = registry.load("preprocessing", content.get("type", ""), field="bundle.json: preprocessing.type")
    return module.Preprocessing.model_validate(content)


AnyPreprocessing = Annotated[SerializeAsAny[Preprocessing], BeforeValidator(parse)]
"""A field that holds one of them."""
