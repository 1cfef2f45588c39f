"""onnx_runtime: ONNX Runtime's own quantizer, for its CPU kernels.

Activations are unsigned and weights signed bytes, one scale a channel: with both signed the same graph is slower than float
(0.6 x against 4 x the speed on ResNet-18), and graphs of PT2E's quantizers are too (0.35 x). A sixteenth of the weights' range is
left unused where the processor has no VNNI instructions, whose sums would overflow (`reduce_range`). Of transformers only layers with
weights and products of attention are computed in bytes, and give floats: masks (-3.4e38) and residual sums with a few large channels
(T. Dettmers et al., 2022, https://arxiv.org/abs/2208.07339) need more than a byte, without which MiniLM fell from 0.61 to 0.37 right, and
what is added to a float is fused with what follows. In modes Dynamic and WeightOnly embeddings, which are most of a small language
model's bytes, are kept as signed bytes with a scale a row; what is looked up becomes float.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import ast
import functools
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kompress_api.errors import MethodRefused
from kompress_api.stages.quantize import Quantize, QuantizeMode, Scheme
from kompress_jobs.quantizers import Recipe

SCHEMES: dict[QuantizeMode, tuple[Scheme, ...]] = {
    QuantizeMode.DYNAMIC: (Scheme.W8A8,),
    QuantizeMode.STATIC: (Scheme.W8A8,),
    QuantizeMode.QAT: (Scheme.W8A8,),
    QuantizeMode.WEIGHT_ONLY: (Scheme.W8A16, Scheme.W4A16),
}
"""What its CPU kernels do."""
LINEAR = ("MatMul", "Gemm")
READS_FLOATS = ("Softmax", "LayerNormalization")
"""What attention and the residual sums of a transformer end in."""
WEIGHED = (*LINEAR, "Conv", "ConvTranspose", "Gather")
"""What becomes bytes in a graph with those; a Gather is an embedding's."""
LEAST_COLUMNS = 32
"""Of an embedding that is worth a scale a row."""
BLOCK = 32
"""Weights that share a scale in weight-only graphs; the smallest that the kernel takes is 16."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter says which modules a node comes from."""
VNNI = ("avx512_vnni", "avx_vnni", "asimddp", "i8mm")


def refuse(spec: Quantize, *, field: str) -> None:
    """Raise MethodRefused for a mode and scheme that no kernel of the engine runs."""
    known = SCHEMES[spec.mode]
    if spec.scheme is Scheme.FP8:
        raise MethodRefused(
            "FP8 needs a compiled graph to be faster than FP16, and the formats here are run as they are",
            hint="use W8A8 for a CPU, for a GPU export TorchExport in precision FP16",
            field=f"{field}.scheme",
        )
    if spec.scheme not in known:
        names = " or ".join(scheme.value for scheme in known)
        raise MethodRefused(
            f"ONNX Runtime on the CPU has no kernel for {spec.scheme.value} in mode {spec.mode.value}",
            hint=f"use scheme {names}",
            field=f"{field}.scheme",
        )


def calibrate(source: Path, recipe: Recipe, batches: Iterable[list[Any]]) -> Recipe:
    """The recipe with the activations' ranges, by the names of the float graph's tensors. Only mode Static has any."""
    if recipe["mode"] not in (QuantizeMode.STATIC, QuantizeMode.QAT):
        return recipe
    with tempfile.TemporaryDirectory() as folder:
        prepared, cache = _prepared(source, Path(folder)), Path(folder) / "ranges.json"
        _static(prepared, Path(folder) / "thrown-away.onnx", recipe, cache, _Reader(prepared, batches))
        return recipe | {"ranges": json.loads(cache.read_text(encoding="utf-8"))}


def apply(source: Path, target: Path, recipe: Recipe) -> None:
    """Write the quantized graph; the model's own metadata stays."""
    import onnx

    metadata = {entry.key: entry.value for entry in onnx.load(str(source), load_external_data=False).metadata_props}
    with tempfile.TemporaryDirectory() as folder:
        prepared, cache = _prepared(source, Path(folder)), Path(folder) / "ranges.json"
        mode = QuantizeMode(recipe["mode"])
        if mode is QuantizeMode.DYNAMIC:
            _dynamic(prepared, target, recipe)
        elif mode is QuantizeMode.WEIGHT_ONLY:
            _weight_only(prepared, target, recipe)
        else:
            cache.write_text(json.dumps(recipe["ranges"]), encoding="utf-8")
            _static(prepared, target, recipe, cache, None)
        written = onnx.load(str(target))
        if mode in (QuantizeMode.DYNAMIC, QuantizeMode.WEIGHT_ONLY):
            _round_embeddings(written.graph, set(ignored(prepared, recipe["ignore"])))
    onnx.helper.set_model_props(written, metadata)
    onnx.save(written, str(target))


class _Reader:
    """Batches as the calibrator asks for them."""

    def __init__(self, graph: Path, batches: Iterable[list[Any]]) -> None:
        import onnx

        self._names = [entry.name for entry in onnx.load(str(graph), load_external_data=False).graph.input]
        self._batches: Iterator[list[Any]] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(zip(self._names, batch, strict=True))


def _prepared(source: Path, folder: Path) -> Path:
    """The float graph with shapes, constants and batch norms folded, as the quantizer wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    found = folder / "prepared.onnx"
    quant_pre_process(str(source), str(found), skip_symbolic_shape=True)
    return found


def _static(source: Path, target: Path, recipe: Recipe, cache: Path, reader: _Reader | None) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    transforms = any(node.op_type in READS_FLOATS for node in nodes_of(source))
    quantize_static(
        str(source),
        str(target),
        reader,
        per_channel=recipe["perChannel"],
        reduce_range=not has_vnni(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=ignored(source, recipe["ignore"]),
        op_types_to_quantize=list(WEIGHED) if transforms else None,
        extra_options={"OpTypesToExcludeOutputQuantization": list(LINEAR)} if transforms else {},
        calibrate_method=CalibrationMethod[recipe["calibration"]],
        calibration_cache_path=cache,
    )


def _dynamic(source: Path, target: Path, recipe: Recipe) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _require_linear(source, "Dynamic quantizes linear layers only")
    quantize_dynamic(
        str(source),
        str(target),
        op_types_to_quantize=list(LINEAR),
        per_channel=recipe["perChannel"],
        reduce_range=not has_vnni(),
        weight_type=QuantType.QInt8,
        nodes_to_exclude=ignored(source, recipe["ignore"]),
    )


def _weight_only(source: Path, target: Path, recipe: Recipe) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    _require_linear(source, "WeightOnly quantizes linear layers only")
    bits = 4 if recipe["scheme"] == Scheme.W4A16 else 8
    graph = MatMulNBitsQuantizer(
        _gemm_as_matmul(onnx.load(str(source))),
        bits=bits,
        block_size=BLOCK,
        is_symmetric=True,
        nodes_to_exclude=ignored(source, recipe["ignore"]),
    )
    graph.process()
    graph.model.save_model_to_file(str(target), False)


def _round_embeddings(graph: Any, left_alone: set[str]) -> None:
    """Tables of floats that rows are looked up in become signed bytes with a scale a row (symmetric)."""
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    tables = {entry.name: entry for entry in graph.initializer if entry.data_type == TensorProto.FLOAT and len(entry.dims) == 2}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    rounded = {
        name: table
        for name, table in tables.items()
        if table.dims[1] >= LEAST_COLUMNS
        and name in readers  # else of a subgraph
        and all(node.op_type == "Gather" and node.input[0] == name and not _axis(node) for node in readers[name])
        and not left_alone.intersection(node.name for node in readers[name])
    }
    for name, table in rounded.items():
        values = numpy_helper.to_array(table)
        scale = numpy.maximum(numpy.abs(values).max(1, keepdims=True) / 127, numpy.finfo("float32").tiny).astype("float32")
        graph.initializer.remove(table)
        graph.initializer.append(numpy_helper.from_array(numpy.rint(values / scale).astype("int8"), f"{name}_bytes"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Gather" and node.input[0] in rounded:
            table, indices, found = node.input[0], node.input[1], node.output[0]
            graph.node.extend(
                [
                    helper.make_node("Gather", [f"{table}_bytes", indices], [f"{found}_bytes"], f"{node.name}_bytes"),
                    helper.make_node("Cast", [f"{found}_bytes"], [f"{found}_whole"], f"{node.name}_whole", to=TensorProto.FLOAT),
                    helper.make_node("Gather", [f"{table}_scale", indices], [f"{found}_scale"], f"{node.name}_scale"),
                    helper.make_node("Mul", [f"{found}_whole", f"{found}_scale"], [found], node.name),
                ]
            )
        else:
            graph.node.append(node)


def _axis(node: Any) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == "axis"), 0)


def _gemm_as_matmul(model: Any) -> Any:
    """Gemm with a transposed weight is what linear layers become; the weight-only kernel exists for MatMul."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    return wrapped.model


def _require_linear(source: Path, what: str) -> None:
    if not any(node.op_type in LINEAR for node in nodes_of(source)):
        raise MethodRefused(f"{what}, and the model has none", hint="use mode Static")


def nodes_of(graph: Path) -> Sequence[Any]:
    """The nodes of an ONNX file."""
    import onnx

    found: Sequence[Any] = onnx.load(str(graph), load_external_data=False).graph.node
    return found


def ignored(graph: Path, globs: list[str]) -> list[str]:
    """Nodes that come from a module (or one within a module) whose name a glob matches."""
    found = []
    for node in nodes_of(graph):
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        if any(fnmatchcase(scope, glob) for scope in ast.literal_eval(scopes) if scope for glob in globs):
            found += [node.name, f"{node.name}_MatMul"]  # the quantizer's own name for a Gemm that it has made a MatMul
    return found


@functools.cache
def has_vnni() -> bool:
    """Whether this processor multiplies bytes without overflow (Linux)."""
    path = Path("/proc/cpuinfo")
    return not path.exists() or any(name in path.read_text(encoding="utf-8", errors="replace") for name in VNNI)
