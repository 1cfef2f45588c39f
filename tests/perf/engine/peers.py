"""Peers from PyPI, each in an environment of its own: `build/perf/peers/<name>`, made from `peers/<name>.txt`.

Such an environment sees what the project has installed (the same torch, timm, transformers) and holds only what is missing, by
exact versions and without looking at requirements again. Neither the project's environment nor its lock knows of any of these.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import onnx

from minilm import fill_hub_cache

ROOT = Path(__file__).parents[3]
PINS = Path(__file__).parent / "peers"
SCRIPTS = Path(__file__).parents[1] / "scripts"
BUILD = ROOT / "build" / "perf"
UV = Path(sys.executable).parent / "uv"
OURS = "project.pth"
SILENT = {"CI": "true", "NNCF_CI": "1", "OLIVE_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""No peer tells its makers of a measurement. (Olive sends a heartbeat before it looks at its own variable, but none in a CI.)"""
FIGURES = ("samples/s", "seconds", "reading", "saving", "memory")


def as_torch_writes(graph: Path, folder: str) -> str:
    """An exported graph without what kompress does for ONNX Runtime: Sums are additions again."""
    found = onnx.load(str(graph))
    for node in found.graph.node:
        node.op_type = "Add" if node.op_type == "Sum" else node.op_type
    path = Path(folder) / "plain.onnx"
    onnx.save(found, str(path))
    return str(path)


def python(peer: str) -> Path:
    """The interpreter of a peer's environment, which is made where it is missing or where its versions have changed."""
    folder, pins = BUILD / "peers" / peer, PINS / f"{peer}.txt"
    done = folder / "done.txt"
    if not done.exists() or done.read_text() != pins.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        run([UV, "venv", "--quiet", "--python", sys.executable, folder])
        run([UV, "pip", "install", "--quiet", "--no-deps", "--python", folder / "bin" / "python", "--requirement", pins])
        (site,) = folder.glob("lib/python*/site-packages")
        # `addsitedir` and not the path alone: kompress itself is installed by a .pth file of the project's environment
        (site / OURS).write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        done.write_text(pins.read_text())
    return folder / "bin" / "python"


def script(name: str, *arguments: object, peer: str | None = None, threads: int = 1, processes: int = 0) -> str:
    """What a script of `scripts/` printed, run in a peer's environment or in the project's own; under torchrun with `processes`."""
    interpreter = python(peer) if peer else Path(sys.executable)
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"] if processes else []
    environment = os.environ | SILENT | hub() | {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "0", "RAYON_NUM_THREADS": str(threads)}
    return run([interpreter, *torchrun, SCRIPTS / f"{name}.py", *map(str, arguments)], environment)


def answer(name: str, asked: dict[str, Any], *, peer: str | None = None, threads: int = 2) -> dict[str, Any]:
    """The JSON in the last line of a script that takes JSON."""
    said: dict[str, Any] = json.loads(script(name, json.dumps(asked), peer=peer, threads=threads).splitlines()[-1])
    return said


def figures(said: str) -> dict[str, float]:
    """What a script printed as `name value` lines."""
    return {words[0]: float(words[1]) for line in said.splitlines() if len(words := line.split()) == 2 and words[0] in FIGURES}


def hub() -> dict[str, str]:
    """The environment in which MiniLM is had without a network."""
    return fill_hub_cache(BUILD / "hub")


def run(command: list[object], environment: dict[str, str] | None = None) -> str:
    """Standard output; raises RuntimeError with what the program said."""
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[-1]} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-6000:]}")
    return done.stdout
