"""The same training on one GPU by hand, as PyTorch's pages on tuning recommend: pinned memory, copies that don't wait, workers that
read ahead, fused optimizer, autocast, a compiled model.  python loop_bare_gpu.py EPOCHS JSON: what loop_kompress.py is given"""

import json
import sys
import time

import timm
import torch
from bare_digits import digits
from device import DEVICE, wait
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

WORKERS = 4


def main() -> None:
    epochs, asked = int(sys.argv[1]), json.loads(sys.argv[2])
    settings = asked["settings"]
    torch.manual_seed(0)
    name = asked["model"]["source"].removeprefix("timm://")
    model = timm.create_model(name, num_classes=10, **asked["model"].get("arguments", {})).to(DEVICE)
    called = torch.compile(model) if settings.get("compile") else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learningRate"], fused=True)
    data = digits(asked["dataset"]["imageSize"])
    loader = DataLoader(
        data, settings["batchSize"], shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True, pin_memory=True
    )
    for count in (1, epochs):  # the first is the warm-up
        wait()
        start, steps = time.perf_counter(), 0
        model.train()
        for _ in range(count):
            for batch, targets in loader:
                images, labels = batch.to(DEVICE, non_blocking=True), targets.to(DEVICE, non_blocking=True)
                with torch.autocast(DEVICE.type, torch.bfloat16, enabled=settings.get("precision") == "BF16"):
                    loss = cross_entropy(called(images), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                steps += 1
        wait()
        seconds = time.perf_counter() - start
    print(f"samples/s {steps * settings['batchSize'] / seconds}")


main()
