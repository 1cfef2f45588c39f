"""export: lower a model for its targets, prove that it is the same model, and measure it there."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from kompress_api.base import Model, Rule


class FormatType(StrEnum):
    """File formats."""

    ONNX = "ONNX"
    TORCH_EXPORT = "TorchExport"
    TORCH_SCRIPT = "TorchScript"
    OPENVINO = "OpenVINO"


class Format(Model):
    """One file that is written."""

    type: FormatType
    """TorchScript is deprecated and warned about."""
    opset: Annotated[int, Field(ge=13, le=30)] | None = None
    """ONNX opset, 18 to 23; absent: the exporter's default."""
    dynamic_batch: bool = True
    """The batch axis is free; else it is fixed to the first batch size."""
    precision: Literal["FP32", "FP16", "INT8"] | None = None
    """Arithmetic of the graph; FP16 rounds the model's weights and activations, not the baseline's; INT8 follows the bundle's quantization
    recipe. Absent: as the bundle says, FP32 where it has no recipe."""


class Device(StrEnum):
    """Kind of processor."""

    CPU = "CPU"
    GPU = "GPU"


BatchSize = Annotated[int, Field(ge=1, le=65_536)]


class Target(Model):
    """Where the model will serve; latency is measured there."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*$", max_length=16)] | None = None
    """For goals and metric names; absent: gpu, or cpu with its threads, such as cpu1."""
    device: Device = Device.CPU
    """Kind of processor. GPU: the stage's first, for formats that PyTorch runs (TorchExport, TorchScript)."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads of a CPU's engine."""
    batch_sizes: Annotated[list[BatchSize], Field(min_length=1, max_length=8)] = [1]
    """Batch sizes that are measured."""

    rules = (
        Rule(
            cel="self.device == 'CPU' || self.threads == 1",
            holds=lambda t: t.device is Device.CPU or t.threads == 1,
            message="threads are a CPU's",
            field="threads",
        ),
    )

    @property
    def key(self) -> str:
        """How metrics and goals call this target."""
        return self.name or ("gpu" if self.device is Device.GPU else f"cpu{self.threads}")


class Verify(Model):
    """What makes the exported model the same model, on real validation inputs; a miss fails the stage."""

    num_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Validation samples that are compared."""
    atol: Annotated[float, Field(ge=0, le=1e6)] = 1e-3
    """Largest absolute difference of an output, beyond rtol. Of FP16 and INT8, and on a GPU, only predictions count."""
    rtol: Annotated[float, Field(ge=0, le=1)] = 1e-3
    """Largest relative difference of an output."""
    min_agreement: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Smallest share of samples (of speech-recognition: of frames) with the same prediction."""


class Benchmark(Model):
    """How latency is measured: interleaved with the baseline in one process."""

    warmup: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Runs that do not count."""
    iterations: Annotated[int, Field(ge=10, le=1_000_000)] = 200
    """Runs that count, for each batch size."""


class Export(Model):
    """Lower a model for its targets, verify it and measure it."""

    formats: Annotated[list[Format], Field(min_length=1, max_length=4)]
    """Files that are written, each type once; the first is the one that goals and `summary` read."""
    targets: Annotated[list[Target], Field(min_length=1, max_length=8)] = [Target()]
    """Where latency is measured; the first is the one that goals and `summary` read."""
    verify: Verify = Verify()
    """What makes the exported model the same model."""
    benchmark: Benchmark = Benchmark()
    """How latency is measured."""

    rules = (
        Rule(
            cel="self.formats.all(f, self.formats.exists_one(g, g.type == f.type))",
            holds=lambda e: len({form.type for form in e.formats}) == len(e.formats),
            message="each type of format once: figures go by that name; write another precision in an export of its own",
            field="formats",
        ),
    )
