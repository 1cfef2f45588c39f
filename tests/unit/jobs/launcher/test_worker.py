"""Which processor a worker takes, and how it speaks to the others."""

import pytest
import torch

from kompress_api.errors import MethodRefused
from kompress_api.stages.fine_tune import FineTune
from kompress_api.stages.prune import Prune
from kompress_jobs.pod import worker
from kompress_jobs.training.refusals import refuse_shared_gpus


@pytest.mark.parametrize(
    ("gpus", "processes", "devices", "own"),
    [
        (0, 2, ["cpu", "cpu"], False),
        (2, 2, ["cuda:0", "cuda:1"], True),
        (1, 2, ["cuda:0", "cuda:0"], False),
        (2, 3, ["cuda:0", "cuda:1", "cuda:0"], False),
    ],
)
def test_processes_share_the_gpus_that_there_are(gpus, processes, devices, own, monkeypatch):
    """As on a laptop: two processes and one GPU would else end with an ordinal that does not exist."""
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    found = [worker.prepare_torch(0, rank, processes) for rank in range(processes)]
    assert [str(device) for device, _ in found] == devices
    assert {alone for _, alone in found} == {own}
    assert len(taken) == (processes if gpus else 0)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (FineTune.model_validate({"epochs": 1, "parallelism": "FSDP2"}), "s.parallelism"),
        (Prune.model_validate({"pruningRatio": 0.5, "recovery": {"epochs": 1, "parallelism": "FSDP2"}}), "s.recovery.parallelism"),
    ],
    ids=["fineTune", "recovery"],
)
def test_shards_want_a_gpu_each(spec, field):
    """gloo would end such a gang with a segmentation fault."""
    with pytest.raises(MethodRefused, match="a GPU for each process") as caught:
        refuse_shared_gpus(spec, field="s")
    assert caught.value.field == field
    refuse_shared_gpus(FineTune.model_validate({"epochs": 1}), field="s")
