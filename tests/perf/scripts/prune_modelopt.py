"""nvidia-modelopt's pruning as its documentation has it: FastNAS for convolutions, GradNAS for transformers, to half of the MACs, then
training.  python prune_modelopt.py JSON; `epochs` of training, most `macs`."""

import tempfile
from pathlib import Path
from typing import Any

import modelopt.torch.prune
from original import Original, answer, given
from torch import nn

CALIBRATION_BATCHES = 20


def prune(original: Original) -> dict[str, Any]:
    model = original.model
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 1
    loader = []
    for batch in original.batches(CALIBRATION_BATCHES):
        loader.append((*original.inputs(batch), batch.targets))
        if len(loader) == CALIBRATION_BATCHES:
            break
    config: dict[str, Any] = {"data_loader": loader, "collect_func": lambda found: tuple(found[:-1])}
    if convolutions:
        config["score_func"] = lambda tried: original.accuracy(tried, original.data.validation)
        config["checkpoint"] = str(Path(tempfile.mkdtemp()) / "search.pth")
    else:
        config["loss_func"] = lambda outputs, found: original.task.loss(outputs, found[-1])
    pruned, _ = modelopt.torch.prune.prune(
        model,
        mode="fastnas" if convolutions else "gradnas",
        constraints={"flops": "50%"},
        dummy_input=original.description.preprocessing.sample(1),
        config=config,
    )
    for parameter in pruned.parameters():
        parameter.requires_grad_(True)
    original.tune(pruned, original.asked["epochs"])
    return {"accuracy": original.accuracy(pruned), "macs": original.macs(pruned)}


answer(lambda: prune(given()))
