"""The same training by hand, as in PyTorch's tutorials (DDP, DataLoader, asynchronous checkpoints), its optimizer fused.

torchrun --nproc-per-node=2 loop_bare.py EPOCHS [--images FOLDER --size PIXELS] [--checkpoint FOLDER --every SECONDS]
"""

import argparse
import time
from concurrent.futures import Future
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from bare_digits import digits
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from watch import Memory, Stopwatch

BATCH = 64


def folder_of_images(folder: Path, size: int) -> ImageFolder:
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    return ImageFolder(str(folder), transforms.Compose(steps))


class Saver:
    """Checkpoints by time: the tensors are copied, and written beside the loop."""

    def __init__(self, folder: Path, every: float) -> None:
        self.folder, self.every, self.since = folder, every, time.monotonic()
        self.voting, self.saving = (dist.new_group(backend="gloo") for _ in range(2))  # a save that is under way talks at the same time
        self.written: Future[object] | None = None

    def boundary(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        due = torch.tensor([int(time.monotonic() - self.since >= self.every)])
        dist.broadcast(due, 0, group=self.voting)
        if due.item():
            self.finish()
            weights, learnt = get_state_dict(model, optimizer)
            state = {"model": weights, "optimizer": learnt}
            self.written = dcp.async_save(state, checkpoint_id=str(self.folder / f"step-{step}"), process_group=self.saving)
            self.since = time.monotonic()

    def finish(self) -> None:
        if self.written is not None:
            self.written.result()
            self.written = None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("epochs", type=int)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--size", type=int)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--every", type=float)
    asked = parser.parse_args()
    dist.init_process_group("gloo")
    memory = Memory()
    torch.manual_seed(0)
    data: Dataset = folder_of_images(asked.images, asked.size) if asked.images else digits(32)
    sampler = DistributedSampler(data)
    workers = 1 if asked.images else 0
    size = BATCH // dist.get_world_size()
    loader = DataLoader(data, size, sampler=sampler, drop_last=True, num_workers=workers, persistent_workers=bool(workers))
    model = DistributedDataParallel(resnet18(num_classes=10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    saver = Saver(asked.checkpoint, asked.every) if asked.checkpoint else None
    reading, saving = Stopwatch(), Stopwatch()
    if saver is not None:
        boundary, finish = saving.around(saver.boundary), saving.around(saver.finish)
    for count in (1, asked.epochs):
        dist.barrier()
        reading.seconds = saving.seconds = 0.0
        start, steps = time.perf_counter(), 0
        model.train()
        for epoch in range(count):
            sampler.set_epoch(epoch)
            for batch, targets in reading.each(loader):
                loss = cross_entropy(model(batch), targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                steps += 1
                if saver is not None:
                    boundary(steps, model, optimizer)
        if saver is not None:
            finish()
        seconds = time.perf_counter() - start
    if dist.get_rank() == 0:
        print(f"samples/s {steps * BATCH / seconds}")
        print(f"seconds {seconds}")
        print(f"reading {reading.seconds}")
        print(f"saving {saving.seconds}")
        print(f"memory {memory.above()}")
    dist.destroy_process_group()


main()
