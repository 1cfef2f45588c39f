"""The processes that train together, and everything that they must agree on.

Each method that is a collective says so: all ranks must call it. With one process every one of them is the identity.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

# torch 2.15 has renamed the argument
_NAME = "forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters else "broadcast_buffers"
_NO_BUFFERS: dict[str, Any] = {_NAME: False}

PATIENCE = timedelta(days=1)
"""How long ranks wait for rank 0, which exports and measures alone; one that dies is noticed at once, by its closed connection."""


@dataclass(frozen=True)
class Agreed:
    """What at least one rank wanted at the last step boundary."""

    stop: bool = False
    """Someone was asked to stop."""
    save: bool = False
    """A checkpoint is due."""
    uploading: bool = False
    """Some rank has not yet written its part of the checkpoint before."""


class Gang:
    """Rank, size, device, and gloo groups of its own for control and for checkpoints (never those of DDP)."""

    def __init__(self, rank: int, world_size: int, device: torch.device) -> None:
        self.rank, self.world_size, self.device = rank, world_size, device
        self.control: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if world_size > 1 else None
        self.saving: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if world_size > 1 else None
        self._ballot: tuple[torch.Tensor, Any] | None = None

    def wrap(self, model: nn.Module) -> nn.Module:
        """DistributedDataParallel, where the model is not sharded already; buffers are averaged where they are looked at
        (`average_buffers`), not at every step."""
        learns = any(parameter.requires_grad for parameter in model.parameters())
        if self.world_size == 1 or isinstance(model, FSDPModule) or not learns:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, **_NO_BUFFERS)

    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged with the last micro-batch only."""
        if isinstance(wrapped, FSDPModule):
            wrapped.set_requires_gradient_sync(last)
        return nullcontext() if last or not isinstance(wrapped, DistributedDataParallel) else wrapped.no_sync()

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """This rank's rows of a global batch."""
        return rows.tensor_split(self.world_size)[self.rank]

    def vote(self, *, stop: bool, save: bool, uploading: bool) -> Agreed:
        """Collective, without waiting: casts this boundary's votes and returns what the ranks said at the boundary before."""
        if self.control is None:
            return Agreed(stop, save, uploading)
        agreed = self._count()
        ballot = torch.tensor([stop, save, uploading], dtype=torch.int32)
        self._ballot = ballot, dist.all_reduce(ballot, dist.ReduceOp.MAX, group=self.control, async_op=True)
        return agreed

    def _count(self) -> Agreed:
        if self._ballot is None:
            return Agreed()
        ballot, work = self._ballot
        work.wait()
        self._ballot = None
        return Agreed(*(bool(value) for value in ballot.tolist()))

    def settle(self) -> None:
        """Collective: forget a vote that is still under way, so that another collective may follow."""
        self._count()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Collective: the mean over the ranks, on the CPU."""
        found = values.detach().to("cpu", torch.float64)
        if self.control is not None:
            dist.all_reduce(found, group=self.control)
            found /= self.world_size
        return found

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Collective: all ranks' rows (their number may differ), on the CPU, in the order of the ranks."""
        mine = rows.detach().cpu()
        if self.control is None:
            return mine
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(counts, torch.tensor([len(mine)]), group=self.control)
        most = int(max(count.item() for count in counts))
        padded = torch.zeros(most, *mine.shape[1:], dtype=mine.dtype)
        padded[: len(mine)] = mine
        found = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(found, padded, group=self.control)
        return torch.cat([part[: int(count)] for part, count in zip(found, counts, strict=True)])

    def from_rank_0(self, look: Callable[[], Any]) -> Any:
        """Collective: the JSON-like value that `look` gives on rank 0, where alone it is called."""
        return self.broadcast(look() if self.rank == 0 else None)

    def broadcast(self, value: Any) -> Any:
        """Collective: rank 0's JSON-like value."""
        if self.control is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def barrier(self) -> None:
        """Collective: go on when all are here."""
        if self.control is not None:
            dist.barrier(group=self.control)

    @torch.no_grad()
    def average_buffers(self, model: nn.Module) -> None:
        """Collective: running statistics become their mean over the ranks (each has seen its own share of the batches)."""
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if self.control is None or not buffers:
            return
        flat = self.mean(torch.cat([buffer.reshape(-1).double() for buffer in buffers]))
        for buffer, part in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    @torch.no_grad()
    def sum_gradients(self, model: nn.Module) -> None:
        """Collective: gradients become their sum over the ranks (outside of DDP)."""
        found = [parameter for parameter in model.parameters() if parameter.grad is not None]
        if self.control is None or not found:
            return
        flat = self.mean(torch.cat([parameter.grad.reshape(-1).double() for parameter in found])) * self.world_size  # type: ignore[union-attr]
        for parameter, part in zip(found, flat.split([parameter.numel() for parameter in found]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))  # type: ignore[union-attr]
