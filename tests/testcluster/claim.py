"""The machine's one cluster with real nodes: its bridge, addresses and cgroups exist once, whoever asks.

The claim is a file that only one `up` can create. Who comes second learns at once who holds it and how to take that cluster down.
"""

import dataclasses
import json
import os
import tempfile
from pathlib import Path

from testcluster.places import CLAIM
from testcluster.processes import ClusterError, is_alive
from testcluster.settings import Settings


@dataclasses.dataclass(frozen=True)
class Claim:
    folder: str
    name: str
    owner: str
    down_command: str

    @property
    def is_stale(self) -> bool:
        """Whether the process that it was meant for has ended without taking it down."""
        return bool(self.owner) and not is_alive(self.owner)


def holder() -> Claim | None:
    try:
        return Claim(**json.loads(CLAIM.read_text()))
    except FileNotFoundError:
        return None


def refuse_if_taken(folder: Path | None = None) -> None:
    """Tells whoever wants real nodes that the cluster in another folder has them.

    Raises:
        ClusterError: with that cluster's name and the command that takes it down.
    """
    other = holder()
    if other and not other.is_stale and other.folder != str(folder):
        whose = f", made for process {other.owner.split()[0]}" if other.owner else ""
        raise ClusterError(
            f"a cluster with real nodes is already up on this machine: `{other.name}`{whose}. There can be only one.\n"
            f"Take it down first: {other.down_command}"
        )


def take(folder: Path, settings: Settings) -> None:
    """Claims the machine's real nodes for the cluster in `folder`; again is no error. A stale claim is for its finder to clear first.

    Raises:
        ClusterError: another cluster has them.
    """
    claim = Claim(str(folder), settings.name, settings.owner, settings.down_command)
    with tempfile.NamedTemporaryFile("w", dir=CLAIM.parent, prefix=CLAIM.name) as part:
        part.write(json.dumps(dataclasses.asdict(claim)))
        part.flush()
        try:
            os.link(part.name, CLAIM)  # whole or not at all, and for one only
        except FileExistsError:
            refuse_if_taken(folder)


def release(folder: Path) -> None:
    """Gives the claim back if the cluster in `folder` has it."""
    current = holder()
    if current and current.folder == str(folder):
        CLAIM.unlink(missing_ok=True)
