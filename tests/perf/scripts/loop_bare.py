"""The same training, written by hand as in PyTorch's DDP tutorial, optimizer fused:  torchrun --nproc-per-node=2 loop_bare.py EPOCHS"""

import sys
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy, interpolate
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchvision.models import resnet18

SAMPLES = 1293
"""As many as kompress trains on."""


def main() -> None:
    epochs = int(sys.argv[1])
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    raw = load_digits()
    images = torch.from_numpy(raw.images).float()[:SAMPLES, None] / 16
    images = (interpolate(images, (32, 32), mode="bilinear", antialias=True) - 0.5).div(0.5).expand(-1, 3, -1, -1).contiguous()
    data = TensorDataset(images, torch.from_numpy(raw.target)[:SAMPLES])
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=64 // dist.get_world_size(), sampler=sampler, drop_last=True)
    model = DistributedDataParallel(resnet18(num_classes=10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for count in (1, epochs):
        dist.barrier()
        start, steps = time.perf_counter(), 0
        model.train()
        for epoch in range(count):
            sampler.set_epoch(epoch)
            for batch, targets in loader:
                loss = cross_entropy(model(batch), targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                steps += 1
        seconds = time.perf_counter() - start
    if dist.get_rank() == 0:
        print(f"samples/s {steps * 64 / seconds}")
    dist.destroy_process_group()


main()
