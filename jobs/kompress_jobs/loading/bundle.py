"""A model on disk without pickle: `bundle.json` says how it is built, `model.safetensors` holds its weights; a tokenizer lies beside.

A model is rebuilt as factory + replayed structural history + weights (loaded strictly), so what was pruned can be read
back by any process that has the same libraries. Committing, digests and transport are the store's.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from kompress_api.errors import ArtifactCorrupt, ArtifactMissing, UnsafeFile
from kompress_jobs.description import DESCRIPTION, WEIGHTS, Description, Loaded, inputs_of
from kompress_jobs.models import rebuild
from kompress_jobs.storage.model_place import PICKLES


def write(folder: Path, model: nn.Module, description: Description) -> None:
    """Write a bundle into an empty or new folder. Tied weights are kept once."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, str(folder / WEIGHTS))
    write_description(folder / DESCRIPTION, description)


def write_description(path: Path, description: Description, **more: Any) -> None:
    """Write the description, with `more` beside it, and the files of its preprocessing."""
    content = description.model_copy(update={"inputs": inputs_of(description)}).dump() | more
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name, data in description.preprocessing.files().items():
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_bytes(data)


def describe(folder: Path) -> Description:
    """Read bundle.json; raises ArtifactMissing, ArtifactCorrupt, or UnsafeFile where the folder holds pickles instead."""
    path = folder / DESCRIPTION
    if not path.is_file():
        pickles = sorted(entry.name for entry in folder.glob("*") if entry.suffix in PICKLES) if folder.is_dir() else []
        if pickles:
            raise UnsafeFile(
                f"{folder} holds {pickles[0]}, a pickle, and no {DESCRIPTION}",
                hint="pickles execute code when read: save the weights with safetensors, or make a bundle with a kompress stage",
            )
        raise ArtifactMissing(f"{folder} holds no {DESCRIPTION}", hint="name the folder of a bundle that a kompress stage wrote")
    try:
        described = Description.model_validate_json(path.read_bytes())
        return described.model_copy(update={"preprocessing": described.preprocessing.load(folder)})
    except ValidationError as error:
        raise ArtifactCorrupt(f"{path} is no bundle description: {error.errors()[0]['msg']}", hint="make the bundle again") from error


def read(folder: Path) -> Loaded:
    """Rebuild the model and load its weights strictly; it comes in evaluation mode on the CPU."""
    description = describe(folder)
    model = rebuild(description)
    try:
        load_model(model, str(folder / WEIGHTS), strict=True)
    except FileNotFoundError as error:
        raise ArtifactMissing(f"{folder} holds no {WEIGHTS}", hint="make the bundle again") from error
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactCorrupt(f"{folder / WEIGHTS} does not fit {DESCRIPTION}: {error}", hint="make the bundle again") from error
    return Loaded(model.eval(), description)


def weights_bytes(state: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the weights, tied ones counted once."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in state.values() if tensor.numel()}.values())
