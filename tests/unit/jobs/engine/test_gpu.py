"""What only a GPU can show; the other tests of this folder run on it too, where there is one (`make test-gpu`)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kompress_jobs import reload
from kompress_jobs.context import StageOutput

RunStage = Callable[..., StageOutput]
TARGETS: list[dict[str, Any]] = [{"device": "GPU", "batchSizes": [1, 64]}, {"batchSizes": [1]}]
RESIDUAL = {"source": "python://tiny_models:residual"}
BENCHMARK = {"iterations": 30, "warmup": 5}


@pytest.mark.parametrize("precision", ["FP32", "FP16"])
@pytest.mark.parametrize("form", ["TorchExport", "TorchScript"])
def test_a_file_serves_on_the_gpu_and_on_the_cpu_and_what_the_move_costs_is_measured(
    form: str, precision: str, run_stage: RunStage
) -> None:
    spec = {"formats": [{"type": form, "precision": precision}], "targets": TARGETS, "benchmark": BENCHMARK}
    output = run_stage({"export": spec}, inputs={"model": None, "baseline": None})
    metrics, parity = output.metrics, output.details["parity"][form]
    assert parity["gpu"]["agreement"] > 0.99
    assert parity["cpu1"]["agreement"] > 0.99
    assert 0 < metrics["peakMemoryBytes"] < 2**30, "of the GPU, where a process with PyTorch takes more than that of the machine"
    assert metrics[f"peakMemoryBytes@{form}/gpu/64"] >= metrics["peakMemoryBytes"]
    assert abs(metrics["accuracy"] - metrics[f"accuracy@{form}/cpu1/1"]) < 0.02
    assert metrics[f"latencyP50Ms@{form}/cpu1/1"] > 0
    assert [entry["target"] for entry in output.details["speedups"]] == ["gpu", "gpu", "cpu1"]


def test_processes_that_share_a_gpu_train_as_one(tmp_path: Path) -> None:
    """As on a laptop: two processes, one GPU."""
    ranks = 2 * torch.cuda.device_count()
    told = {}
    for count in (1, ranks):
        folder = tmp_path / str(count)
        folder.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "-m", "recorded_training", str(folder)]
        subprocess.run([*command, "{}", "whole"], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
        told[count] = json.loads((folder / "told.json").read_text())["whole"]["losses"]
    assert told[1] == pytest.approx(told[ranks], rel=1e-3)


@pytest.mark.parametrize("settings", [{"precision": "BF16"}, {"precision": "FP16"}, {"compile": True}, {"activationCheckpointing": True}])
def test_a_model_learns_on_the_gpu(settings: dict[str, Any], run_stage: RunStage) -> None:
    output = run_stage({"fineTune": {"epochs": 15, "learningRate": 1e-2, "batchSize": 64} | settings}, model=RESIDUAL)
    assert output.metrics["accuracy"] > 0.8
    assert output.folder is not None
    assert (output.folder / "model.safetensors").is_file()
    assert reload.run(output.folder, [torch.zeros(2, 1, 8, 8).numpy()], output.folder.parent).outputs.shape == (2, 10)
