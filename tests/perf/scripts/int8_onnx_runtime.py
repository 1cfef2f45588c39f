"""Static int8 as ONNX Runtime's page on quantization recommends it for x86: prepared graph, QDQ, unsigned activations, signed weights, one
scale a channel.  python int8_onnx_runtime.py JSON: what a peer's script is given, and `graph`, `samples`, `written`"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from original import Original, answer, given

BATCH = 32


class Reader(CalibrationDataReader):
    """Batches of training samples by the names of the graph's inputs."""

    def __init__(self, original: Original, names: list[str]) -> None:
        self.feeds = ({name: part.numpy() for name, part in zip(names, inputs, strict=True)} for inputs in calibration(original))

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def calibration(original: Original) -> Iterator[tuple[torch.Tensor, ...]]:
    """As many training samples as kompress calibrates with, chosen by the same seed."""
    train, seed = original.data.train, torch.Generator().manual_seed(original.asked["seed"])
    for rows in torch.randperm(len(train), generator=seed)[: original.asked["samples"]].split(BATCH):
        samples, _ = train.read(rows)
        yield original.description.preprocessing(samples)


def quantize(original: Original) -> dict[str, Any]:
    graph, written = original.asked["graph"], Path(original.asked["written"])
    prepared = written.with_suffix(".prepared.onnx")
    quant_pre_process(graph, str(prepared), skip_symbolic_shape=True)
    names = [entry.name for entry in onnx.load(graph, load_external_data=False).graph.input]
    quantize_static(
        str(prepared),
        str(written),
        Reader(original, names),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return {"file": str(written)}


if __name__ == "__main__":
    answer(lambda: quantize(given()))
