"""The example's four stages as four bare scripts, without kompress, tracking or store: same data sizes, models, epochs, evaluations,
export, latency measurement and reload:  torchrun --nproc-per-node=2 path_bare.py EXAMPLE FOLDER {adapt,student,slim,ship}

`path_bare.py --reload FOLDER FILE` is the clean process that proves a file.
"""

import copy
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy, interpolate, kl_div, log_softmax, softmax
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

TRAIN, VALIDATION = 1293, 144
TEMPERATURE, ALPHA, ITERATIONS, WARMUP = 4.0, 0.7, 200, 10
Arrays = tuple[torch.Tensor, torch.Tensor]


def digits() -> dict[str, Arrays]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = torch.from_numpy(raw.images).float()[:, None] / 16
    images = (interpolate(images, (32, 32), mode="bilinear", antialias=True) - 0.5).div(0.5).expand(-1, 3, -1, -1).contiguous()
    order, targets = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)), torch.from_numpy(raw.target)
    parts = {"train": order[:TRAIN], "validation": order[TRAIN : TRAIN + VALIDATION], "test": order[TRAIN + VALIDATION :]}
    return {name: (images[rows], targets[rows]) for name, rows in parts.items()}


def build(name: str) -> nn.Module:
    """`teacher`, or the student as the example's JSON says it."""
    if name == "teacher":
        from torchvision.models import resnet18

        return resnet18(num_classes=10)
    import timm

    source = json.loads(name)
    return timm.create_model(source["source"].removeprefix("timm://"), num_classes=10, **source.get("arguments", {}))


@torch.inference_mode()
def evaluate(model: nn.Module, data: Arrays) -> float:
    """Accuracy; each rank scores its share."""
    model.eval()
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    right = torch.tensor([float((model(data[0][mine]).argmax(1) == data[1][mine]).sum())])
    dist.all_reduce(right)
    return float(right) / len(data[1])


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Each image moved by up to two pixels."""
    offsets = torch.randint(-2, 3, (len(images), 2))
    rows = (torch.arange(32) + offsets[:, :1]).clamp(0, 31)
    columns = (torch.arange(32) + offsets[:, 1:]).clamp(0, 31)
    samples = torch.arange(len(images))[:, None, None]
    return images.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train(model: nn.Module, data: dict[str, Arrays], settings: dict[str, Any], epochs: int, teacher: nn.Module | None = None) -> None:
    sampler = DistributedSampler(TensorDataset(*data["train"]))
    size = settings["batchSize"] // dist.get_world_size()
    loader = DataLoader(sampler.dataset, batch_size=size, sampler=sampler, drop_last=True)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learningRate"], weight_decay=0.01, fused=True)
    steps = epochs * len(loader)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / warm) * 0.5 * (1 + math.cos(math.pi * max(0, s - warm) / max(1, steps - warm)))
    )
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        model.train()
        for batch, targets in loader:
            images = shifted(batch)
            scores = wrapped(images)
            loss = cross_entropy(scores, targets)
            if teacher is not None:
                with torch.no_grad():
                    taught = teacher(images)
                imitated = kl_div(log_softmax(scores / TEMPERATURE, 1), softmax(taught / TEMPERATURE, 1), reduction="batchmean")
                loss = (1 - ALPHA) * loss + ALPHA * TEMPERATURE**2 * imitated
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch} validation {evaluate(model, data['validation'])}", flush=True)


def keep(model: nn.Module, name: str, folder: Path, inputs: torch.Tensor) -> None:
    """Write the weights and prove in a clean process that they give the same answers."""
    if dist.get_rank() == 0:
        save_file(model.state_dict(), folder / f"{name}.safetensors")
        torch.save(model, folder / f"{name}.pt") if name == "slim" else None
        prove(model.eval(), folder / f"{name}.safetensors", inputs)
    dist.barrier()


@torch.inference_mode()
def prove(model: nn.Module, path: Path, inputs: torch.Tensor) -> None:
    numpy.save(path.with_suffix(".in.npy"), inputs.numpy())
    subprocess.run([sys.executable, __file__, "--reload", str(path.parent), path.name], check=True)
    answered = torch.from_numpy(numpy.load(path.with_suffix(".out.npy")))
    assert torch.allclose(answered, model(inputs), atol=1e-3)


def restore(folder: Path, name: str, student: str) -> nn.Module:
    if name == "slim":
        return torch.load(folder / "slim.pt", weights_only=False)  # what people do by hand
    model = build("teacher" if name == "adapt" else student)
    model.load_state_dict(load_file(folder / f"{name}.safetensors"))
    return model


def reload(folder: Path, file: str) -> None:
    inputs = numpy.load(folder / Path(file).with_suffix(".in.npy"))
    if file.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    else:
        with torch.inference_mode():
            student = (folder / "student.json").read_text() if (folder / "student.json").exists() else ""
            outputs = restore(folder, Path(file).stem, student).eval()(torch.from_numpy(inputs)).numpy()
    numpy.save(folder / Path(file).with_suffix(".out.npy"), outputs)


def prune(model: nn.Module, data: dict[str, Arrays], spec: dict[str, Any]) -> None:
    import torch_pruning

    steps, epochs = spec["iterativeSteps"], spec["recovery"]["epochs"]
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        model, data["train"][0][:2], torch_pruning.importance.TaylorImportance(), global_pruning=True, pruning_ratio=spec["pruningRatio"],
        iterative_steps=steps, ignored_layers=[head], round_to=8, max_pruning_ratio=0.9,
    )  # fmt: skip
    last = math.ceil(epochs / 2) if steps > 1 else epochs
    shares = [*[(epochs - last) // max(1, steps - 1)] * (steps - 1), last]
    for share in shares:
        for batch in range(10):
            rows = slice(batch * 64, batch * 64 + 64)
            cross_entropy(model(data["train"][0][rows]), data["train"][1][rows]).backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)  # running statistics differ a little, and ranks must cut alike
        pruner.step()
        model.zero_grad()
        train(model, data, spec["recovery"], share)


def export(models: dict[str, nn.Module], data: dict[str, Arrays], folder: Path, batch_sizes: list[int]) -> None:
    import onnxruntime

    sessions = {}
    for name, model in models.items():
        path = folder / f"{name}-shipped.onnx"
        sample = (data["validation"][0][:2],)
        torch.onnx.export(model.eval(), sample, dynamo=True, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), verbose=False).save(str(path))
        prove(model, path, data["validation"][0])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        sessions[name] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = data["test"][0].numpy()
        scores = numpy.concatenate(
            [sessions[name].run(None, {sessions[name].get_inputs()[0].name: part})[0] for part in numpy.array_split(inputs, 3)]
        )  # fmt: skip
        print(f"{name} onnx accuracy {(scores.argmax(1) == data['test'][1].numpy()).mean()}")
    for size in batch_sizes:
        batch = numpy.resize(data["validation"][0].numpy(), (size, 3, 32, 32))
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        for turn in range(WARMUP + ITERATIONS):
            for name, session in sessions.items():
                start = time.perf_counter()
                session.run(None, {session.get_inputs()[0].name: batch})
                if turn >= WARMUP:
                    taken[name].append(time.perf_counter() - start)
        print(size, {name: float(numpy.median(seconds)) for name, seconds in taken.items()})


def main() -> None:
    if sys.argv[1] == "--reload":
        reload(Path(sys.argv[2]), sys.argv[3])
        return
    spec, folder, name = YAML(typ="safe", pure=True).load(Path(sys.argv[1]))["spec"], Path(sys.argv[2]), sys.argv[3]
    stages = {stage["name"]: stage for stage in spec["stages"]}
    student = json.dumps(stages["student"]["distill"]["student"])
    dist.init_process_group("gloo")
    torch.manual_seed(spec.get("seed", 0))
    data = digits()
    if name == "adapt":
        model = build("teacher")
        evaluate(model, data["test"])
        train(model, data, stages[name]["fineTune"], stages[name]["fineTune"]["epochs"])
    elif name == "student":
        (folder / "student.json").write_text(student)
        teacher, model = restore(folder, "adapt", student).eval(), build(student)
        evaluate(teacher, data["test"])
        train(model, data, stages[name]["distill"], stages[name]["distill"]["epochs"], teacher)
    elif name == "slim":
        model = restore(folder, "student", student)
        evaluate(model, data["test"])
        prune(model, data, stages[name]["prune"])
    else:
        models = {stage: restore(folder, stage, student) for stage in ("adapt", "slim")}
        for model in models.values():
            evaluate(model, data["test"])
        if dist.get_rank() == 0:
            export({k: copy.deepcopy(m) for k, m in models.items()}, data, folder, stages[name]["export"]["targets"][0]["batchSizes"])
    if name != "ship":
        print(f"{name} test {evaluate(model, data['test'])}")
        keep(model, name, folder, data["validation"][0][:32])
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
