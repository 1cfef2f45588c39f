"""nvidia-modelopt's FastNAS as its documentation has it, to half of the MACs, then training. It is the only mode left that prunes models of
other libraries than Megatron.  python prune_modelopt.py JSON: what a peer's script is given, and most `macs`"""

import tempfile
from pathlib import Path
from typing import Any

import modelopt.torch.prune
from modelopt.torch.opt.conversion import ApplyModeError
from original import Original, answer, given

CALIBRATION_BATCHES = 20


def prune(original: Original) -> dict[str, Any]:
    loader = []
    for batch in original.batches(CALIBRATION_BATCHES):
        loader.append(original.inputs(batch))
        if len(loader) == CALIBRATION_BATCHES:
            break
    pruned, _ = modelopt.torch.prune.prune(
        original.model,
        mode="fastnas",
        constraints={"flops": "50%"},
        dummy_input=original.example(1),
        config={
            "data_loader": loader,
            "collect_func": lambda inputs: inputs,
            "score_func": lambda tried: original.accuracy(tried, original.data.validation),
            "checkpoint": str(Path(tempfile.mkdtemp()) / "search.pth"),
        },
    )
    for parameter in pruned.parameters():
        parameter.requires_grad_(True)
    original.tune(pruned, original.asked["epochs"])
    return {"accuracy": original.accuracy(pruned), "macs": original.macs(pruned)}


answer(lambda: prune(given()), refusal=ApplyModeError)
