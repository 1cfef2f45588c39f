"""timm's loader, optimizer, schedule and loss put together as its training script does (which its wheel does not hold), with the fused
optimizer and without augmentation:  torchrun --nproc-per-node=2 fine_tune_timm.py FOLDER JSON"""

import json
import sys
import time

import torch
import torch.distributed as dist
from timm import create_model
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, reduce_tensor
from torch import nn
from torch.nn.parallel import DistributedDataParallel

LOG_EVERY = 50


def main() -> None:
    asked = json.loads(sys.argv[2])
    settings, size = asked["settings"], 32
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    folder = asked["dataset"]["source"].removeprefix("file://")
    images = create_dataset("", root=folder, split="train", is_training=True)
    loader = create_loader(
        images,
        input_size=(3, size, size),
        batch_size=settings["batchSize"] // dist.get_world_size(),
        is_training=True,
        no_aug=True,
        num_workers=1,
        distributed=True,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )
    model = DistributedDataParallel(create_model(asked["model"]["source"].removeprefix("timm://"), num_classes=10))
    optimizer = create_optimizer_v2(model, opt="adamw", lr=settings["learningRate"], weight_decay=0.01, fused=True)
    schedule, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=100, step_on_epochs=False, updates_per_epoch=len(loader))
    lossy, updates = nn.CrossEntropyLoss(), 0
    for count in (1, asked["epochs"]):
        dist.barrier()
        start, steps = time.perf_counter(), 0
        for epoch in range(count):
            loader.sampler.set_epoch(epoch)
            model.train()
            losses = AverageMeter()
            for batch, targets in loader:
                loss = lossy(model(batch), targets)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                steps, updates = steps + 1, updates + 1
                if steps % LOG_EVERY == 0:
                    losses.update(reduce_tensor(loss.data, dist.get_world_size()).item(), len(batch))
                schedule.step_update(num_updates=updates, metric=losses.avg)
        dist.barrier()
        seconds = time.perf_counter() - start
    if dist.get_rank() == 0:
        print(f"samples/s {steps * settings['batchSize'] / seconds}")
    dist.destroy_process_group()


main()
