"""Which processor this is: figures that were measured on one are never reused on another."""

import platform
import re
from pathlib import Path

from kompress_api.stages.export import Device
from kompress_api.stages.stage import Stage
from kompress_jobs.planning.keys import needs_hardware

CPU_INFO = Path("/proc/cpuinfo")


def hardware_of(stage: Stage) -> str:
    """What a stage's result depends on: the processors of an export's targets, or of a latency budget; empty for all other stages."""
    devices = {target.device for target in stage.export.targets} if stage.export else {Device.CPU} if needs_hardware(stage) else set()
    return " + ".join(sorted(cpu_model() if device is Device.CPU else gpu_model() for device in devices))


def cpu_model(info: Path = CPU_INFO) -> str:
    """The processor's own name for itself, such as `Intel(R) Xeon(R) Platinum 8481C`."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def gpu_model() -> str:
    """Name of the first GPU, `none` without."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
