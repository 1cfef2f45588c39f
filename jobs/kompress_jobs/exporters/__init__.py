"""File formats. The format's name is the module, with

- `SUFFIX`, of its file; what lies beside it under the same stem belongs to it,
- `lower(model, preprocessing, path, batch, metadata)`, which writes it,
- `open_engine(path, threads) -> Engine`, which reads it without importing what wrote it,

and where it has them

- `open_on_gpu(path) -> Engine`, the same on this process's GPU; without it the format serves CPUs only,
- `rehearse(model, preprocessing, batch, field)`, which refuses by field path what can't be written, without writing; without it a model
  can be written whose graph torch.export captures (`capture.require`),
- `QUANTIZER`, the module of `quantizers/` whose recipes `lower` takes as `recipe`, and `MODES`, those that its engine has kernels for,
- `CALIBRATED`, the modes for which `lower` takes `batches`, too: as many samples of the job's train split as the recipe says,
- `OPSETS`, what `lower` takes as `opset`,
- `DEPRECATED`, what to say to who still wants it.
"""

from pathlib import Path
from types import ModuleType

from kompress_api.stages.export import Device
from kompress_jobs.engine import Engine


def open_on(device: Device, exporter: ModuleType, path: Path, threads: int) -> Engine:
    """A file in its engine; `threads` are a CPU's."""
    opened: Engine = exporter.open_on_gpu(path) if device is Device.GPU else exporter.open_engine(path, threads)
    return opened
