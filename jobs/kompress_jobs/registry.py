"""The folder is the registry: a value of the API's enum is a module of the same name, imported on use.

So heavy libraries load only where asked for, and a new method is its file. A value that the API knows and that has no
module yet is refused by name, with the ones that are there.
"""

import difflib
import enum
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

from kompress_api.errors import UnknownMethod


def module_name(value: str) -> str:
    """`FeatureExtraction` (an enum's member, by its own name) -> `feature_extraction`, `fineTune` -> `fine_tune`."""
    if isinstance(value, enum.Enum):
        return value.name.lower()
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", value).replace("-", "_").lower()


def known(folder: str) -> list[str]:
    """Names of the modules of a folder of kompress_jobs."""
    return sorted(found.name for found in pkgutil.iter_modules([str(Path(__file__).parent / folder)]))


def load(folder: str, value: str, *, field: str) -> ModuleType:
    """The module of `kompress_jobs.<folder>` that `value` names; `field` is the value's path in the manifest.

    Raises UnknownMethod with the known names, the nearest first.
    """
    name, names = module_name(value), known(folder)
    if name not in names:
        there = [member.value for member in type(value) if module_name(member) in names] if isinstance(value, enum.Enum) else names
        near = difflib.get_close_matches(value, there, n=1)
        raise UnknownMethod(
            f"{value} is not built in this version (known {folder.replace('_', ' ')}: {', '.join(there)})",
            hint=f"use {near[0] if near else ' or '.join(there)}",
            field=field,
        )
    return importlib.import_module(f"kompress_jobs.{folder}.{name}")
