"""Several models side by side, answering as one: the mean of their probabilities, or a learned head on their scores.

The members may be of unlike architectures and want their samples prepared in unlike ways; they share one label map. A bundle
keeps the members' descriptions as arguments of the architecture `ensemble://`.

B. Lakshminarayanan et al., Deep Ensembles, 2017, https://arxiv.org/abs/1612.01474; the learned head is weight-normalised
(T. Salimans, D. Kingma, 2016, https://arxiv.org/abs/1602.07868) and begins as the mean of the scores.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from kompress_jobs.description import Architecture, Description, Loaded
from kompress_jobs.preprocessing.ensemble import Preprocessing

SOURCE = "ensemble://"


class Ensemble(nn.Module):
    """`model(*inputs)`: the inputs of all members one after the other, those that several share given once."""

    def __init__(self, members: Sequence[nn.Module], takes: Sequence[Sequence[int]], classes: int, *, learned: bool, several: bool) -> None:
        """`takes` says which of the inputs each member is called with; `several` that each score is a yes or no of its own."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.takes = [list(places) for places in takes]
        self.several = several
        self.head: nn.Module | None = None
        if learned:
            layer = nn.Linear(len(self.members) * classes, classes)
            with torch.no_grad():
                layer.weight.copy_(torch.eye(classes).repeat(1, len(self.members)) / len(self.members))
                layer.bias.zero_()
            self.head = weight_norm(layer)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Scores (batch, classes); of a mean they are logarithms of probabilities (of several labels: log odds)."""
        answers = []
        for member, places in zip(self.members, self.takes, strict=True):
            outputs = member(*(inputs[place] for place in places))
            answers.append(outputs[0] if isinstance(outputs, tuple) else outputs)
        if self.head is not None:
            return self.head(torch.cat(answers, dim=1))  # type: ignore[no-any-return]
        if self.several:
            return torch.stack(answers).sigmoid().mean(0).logit(eps=1e-6)
        return torch.stack(answers).softmax(-1).mean(0).clamp(min=1e-12).log()


def gather(members: Sequence[Loaded], *, learned: bool) -> Loaded:
    """An ensemble of models with one label map, described so that a bundle can build it again."""
    first = members[0].description
    described = [member.description.model_copy(update={"metrics": {}, "lineage": []}) for member in members]
    preprocessing = Preprocessing.of([member.description.preprocessing for member in members])
    model = Ensemble(
        [member.model for member in members], preprocessing.takes, len(first.labels), learned=learned, several=first.multi_label
    )
    architecture = Architecture(
        source=SOURCE, arguments={"members": [entry.dump() for entry in described], "learned": learned}, num_classes=len(first.labels)
    )
    lineage = [step for member in members for step in member.description.lineage]
    return Loaded(
        model,
        Description(
            task=first.task,
            architecture=architecture,
            labels=first.labels,
            multi_label=first.multi_label,
            preprocessing=preprocessing,
            lineage=lineage,
        ),
    )
