"""ensemble: each member's own preprocessing; what members share is prepared once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from kompress_jobs import preprocessing
from kompress_jobs.preprocessing import AnyPreprocessing
from kompress_jobs.samples import Inputs, Samples


class Preprocessing(preprocessing.Preprocessing):
    """The distinct preprocessings of an ensemble's members, one after the other."""

    type: Literal["ensemble"] = "ensemble"
    """This module."""
    parts: list[AnyPreprocessing]
    """Those that differ."""
    members: list[int]
    """Of each member, its place in `parts`."""

    @classmethod
    def of(cls, members: Sequence[preprocessing.Preprocessing]) -> "Preprocessing":
        """From the members' own."""
        parts: list[preprocessing.Preprocessing] = []
        for member in members:
            if member not in parts:
                parts.append(member)
        return cls(parts=parts, members=[parts.index(member) for member in members])

    @property
    def takes(self) -> list[list[int]]:
        """Of each member, the places of its inputs among all."""
        starts = [sum(len(part.names) for part in self.parts[:index]) for index in range(len(self.parts))]
        return [[starts[part] + place for place in range(len(self.parts[part].names))] for part in self.members]

    @property
    def names(self) -> tuple[str, ...]:
        if len(self.parts) == 1:
            return self.parts[0].names
        return tuple(f"{name}_{index}" for index, part in enumerate(self.parts) for name in part.names)

    @property
    def axes(self) -> tuple[dict[int, str], ...]:
        return tuple(axes for part in self.parts for axes in part.axes)

    def __call__(self, samples: Samples) -> Inputs:
        return tuple(prepared for part in self.parts for prepared in part(samples))

    def sample(self, batch: int = 2) -> Inputs:
        return tuple(prepared for part in self.parts for prepared in part.sample(batch))

    def files(self) -> Mapping[str, bytes]:
        """Of each part under its number: members may bring files of one name."""
        return {f"part{index}/{name}": data for index, part in enumerate(self.parts) for name, data in part.files().items()}

    def load(self, folder: Path) -> "Preprocessing":
        parts = [part.load(folder / f"part{index}") for index, part in enumerate(self.parts)]
        return self.model_copy(update={"parts": parts})
