"""`python -m kompress_jobs.reload FOLDER`: read a bundle or an export in a clean process and say what it answers.

A stage succeeds only after this process, which shares nothing with the one that made the model, has given the same
answers on real inputs. `kompress verify` runs the same program. Torch is imported for a bundle, and for a format that torch itself
runs, only, so that the memory an exported model needs is not hidden behind it.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kompress_api.errors import ArtifactMissing, KompressError, OutOfMemory, ParityFailed
from kompress_api.stages.export import Device

if TYPE_CHECKING:
    import numpy
    from torch import nn

    from kompress_jobs.samples import Inputs

SAMPLES = 32
"""Real inputs that a bundle is proven with."""
ATOL = 1e-4
"""Largest difference between a bundle's outputs before and after the reload (one machine, float32)."""
EXPORT = "export.json"
SECONDS = 600
FREE_AXIS = 8
RUNS = 3
"""Of each batch size before its memory is read: engines that compile on use are done then."""


@dataclass(frozen=True)
class Answer:
    """What the clean process says."""

    outputs: "numpy.ndarray[Any, Any]"
    """(samples, classes)."""
    peaks: dict[int, int]
    """By batch size: largest resident size of a process that has served no larger one, the engine's own libraries included; on a GPU
    what PyTorch has taken of its memory."""


def run(
    folder: Path,
    inputs: "Sequence[numpy.ndarray[Any, Any]]",
    scratch: Path,
    *,
    file: str = "",
    threads: int = 1,
    device: Device = Device.CPU,
    batch_sizes: Sequence[int] = (),
) -> Answer:
    """Answer a model's inputs, in order, the batch first, in a clean process; `file` names one of an export's files, which serves
    `batch_sizes` of these inputs first.

    Raises ParityFailed with the process's last words when it can't read the folder.
    """
    from safetensors.numpy import load_file, save_file

    question, answer = scratch / "reload-inputs.safetensors", scratch / "reload-outputs.safetensors"
    save_file({str(index): part for index, part in enumerate(inputs)}, question)
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "kompress_jobs.reload", str(folder), "--inputs", str(question), "--outputs", str(answer)]
    if file:
        command += ["--file", file, "--threads", str(threads), "--device", device, "--batch-sizes", *map(str, batch_sizes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]
        if "out of memory" in words:
            raise OutOfMemory(f"a clean process has no memory for {file or 'the bundle'}: {words}", hint="lower the targets' batchSizes")
        raise ParityFailed(
            f"a clean process can't {'serve' if file else 'read'} {file or 'the bundle'}: {words}",
            hint="export TorchExport, whose graph moves to a GPU as a whole"
            if device is Device.GPU
            else "a model that is built differently in another process can't be kept: make its factory depend on its arguments only",
        )
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return Answer(load_file(answer)["outputs"], {int(size): peak for size, peak in said.get("peaks", {}).items()})


def prove(folder: Path, model: "nn.Module", inputs: "Inputs", scratch: Path) -> None:
    """Raise ParityFailed unless a clean process rebuilds the bundle and answers `inputs` as `model` does (to ATOL)."""
    import copy

    import torch

    with torch.inference_mode():
        outputs = copy.deepcopy(model).cpu().eval()(*inputs)
    expected = (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()
    answer = run(folder, [part.numpy() for part in inputs], scratch).outputs
    worst = float(abs(answer - expected).max()) if answer.shape == expected.shape else float("inf")
    if not worst <= ATOL:
        raise ParityFailed(
            f"the bundle answers differently after a reload in a clean process: outputs differ by up to {worst:.3g} (allowed {ATOL:g})",
            hint="state that is neither a parameter nor a registered buffer is lost: register it",
        )


def answer_bundle(folder: Path, inputs: "list[numpy.ndarray[Any, Any]] | None") -> tuple["numpy.ndarray[Any, Any]", dict[str, Any]]:
    """Rebuild a bundle and run it."""
    import torch

    from kompress_jobs.loading import bundle

    torch.set_num_threads(1)
    loaded = bundle.read(folder)
    question = [torch.from_numpy(part) for part in inputs] if inputs is not None else loaded.description.preprocessing.sample()
    with torch.inference_mode():
        outputs = loaded.model(*question)
    found = (outputs[0] if isinstance(outputs, tuple) else outputs).float().numpy()
    return found, {"task": loaded.description.task, "labels": loaded.description.labels, "metrics": loaded.description.metrics}


def answer_export(
    folder: Path, inputs: "list[numpy.ndarray[Any, Any]] | None", file: str, device: Device, threads: int, batch_sizes: Sequence[int]
) -> tuple["numpy.ndarray[Any, Any]", dict[str, Any]]:
    """Open one file of an export (the first by default) in its engine and run it."""
    import numpy

    from kompress_jobs import registry
    from kompress_jobs.exporters import open_on

    written = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
    entry = next((entry for entry in written["files"] if not file or entry["file"] == file), None)
    if entry is None:
        raise ArtifactMissing(f"{folder} holds no {file}", hint=f"it has {', '.join(e['file'] for e in written['files'])}")
    exporter = registry.load("exporters", entry["exporter"], field="export.json: exporter")
    engine = open_on(device, exporter, folder / entry["file"], threads)
    question = inputs if inputs is not None else zeros(written["inputs"], entry["batch"] or 1)
    count, peaks = len(question[0]), {}
    for size in sorted(batch_sizes):
        rows = numpy.arange(size) % count
        for _ in range(RUNS):
            engine([part[rows] for part in question])
        peaks[size] = peak_memory_bytes(device)
    step = entry["batch"] or count
    parts = [engine([part[start : start + step] for part in question]) for start in range(0, count - step + 1, step)]
    said = {"task": written["task"], "labels": written["labels"], "metrics": written["metrics"], "peaks": peaks}
    return numpy.concatenate(parts), said


def zeros(inputs: list[dict[str, Any]], batch: int) -> "list[numpy.ndarray[Any, Any]]":
    """Inputs that mean nothing; axes of any length get FREE_AXIS."""
    import numpy

    return [
        numpy.zeros([batch, *(size if size > 0 else FREE_AXIS for size in entry["shape"][1:])], dtype=entry["dtype"]) for entry in inputs
    ]


def peak_memory_bytes(device: Device = Device.CPU) -> int:
    """Largest resident size of this program (Linux: without that of the process that started it, which getrusage counts in), or what
    PyTorch has taken of the GPU's memory."""
    if device is Device.GPU:
        import torch

        return torch.cuda.max_memory_reserved()
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    """Print one JSON object; exit code 0, or that of the error."""
    parser = argparse.ArgumentParser(prog="python -m kompress_jobs.reload", description="Read a bundle or an export in a clean process.")
    parser.add_argument("folder", type=Path, help="folder of a bundle or an export")
    parser.add_argument("--inputs", type=Path, help="safetensors file with the model's inputs as `0`, `1`, ...; default: zeros")
    parser.add_argument("--outputs", type=Path, help="safetensors file to write the tensor `outputs` to")
    parser.add_argument("--file", default="", help="file of an export; default: the first")
    parser.add_argument("--threads", type=int, default=1, help="threads of an export's engine")
    parser.add_argument("--device", type=Device, default=Device.CPU, help="where an export's engine runs")
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[], help="batch sizes that the memory is told of")
    given = parser.parse_args()
    from safetensors.numpy import load_file, save_file

    inputs = [part for _, part in sorted(load_file(given.inputs).items())] if given.inputs else None
    try:
        exported = (given.folder / EXPORT).is_file()
        if exported:
            outputs, said = answer_export(given.folder, inputs, given.file, given.device, given.threads, given.batch_sizes)
        else:
            outputs, said = answer_bundle(given.folder, inputs)
    except KompressError as error:
        print(f"{error.reason}: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    if given.outputs:
        save_file({"outputs": outputs.copy()}, given.outputs)
    said |= {"samples": len(outputs), "peakMemoryBytes": peak_memory_bytes(given.device)}
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
