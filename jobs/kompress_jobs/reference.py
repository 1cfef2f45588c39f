"""The page of methods, from the modules themselves and the manifests in examples/:  python -m kompress_jobs.reference [FILE]

A method is a value of the API and the module of that name. Its line says what the module's docstring says, what it goes together
with, and where an example of it stands. Values without a module are left out: they are refused by name.
"""

import enum
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from kompress_api import manifest
from kompress_api.job import CompressionJobSpec
from kompress_api.manifest import CompressionJob
from kompress_api.places import DATA_SCHEMES, MODEL_SCHEMES, DataFormat, Task
from kompress_api.reference import NOTE
from kompress_api.stages.distill import DistillLoss
from kompress_api.stages.export import FormatType
from kompress_api.stages.fine_tune import Strategy
from kompress_api.stages.fuse import FuseMethod
from kompress_api.stages.prune import Granularity, Importance
from kompress_api.stages.quantize import Quantize, QuantizeMode
from kompress_jobs import registry
from kompress_jobs.modules import ensemble, qat

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/reference/methods.md"
EXAMPLES = "examples"

Used = Callable[[CompressionJobSpec], Iterator[tuple[str, Any]]]
"""Where a job names methods of a section: (stage's name, or empty; value)."""


@dataclass(frozen=True)
class Section:
    """One table: the values of one field."""

    title: str
    field: str
    folder: str
    values: Sequence[Any]
    used: Used
    together: tuple[str, Callable[[ModuleType], str]] | None = None
    """Another column: its title, and what it says of a module."""

    def modules(self) -> Iterator[tuple[Any, ModuleType]]:
        """The values that are built."""
        if FuseMethod.ENSEMBLE in self.values:
            yield FuseMethod.ENSEMBLE, ensemble
        yield from built(self.folder, self.values)


def sections() -> tuple[Section, ...]:
    """In the order of a manifest."""
    return (
        Section("Tasks", "spec.task", "tasks", get_args(Task), _of_job(lambda spec: spec.task), ("augmentations", _augmentations)),
        Section("Models", "spec.model.source", "models", MODEL_SCHEMES, _models),
        Section("Data", "spec.dataset", "data", [*DATA_SCHEMES, *DataFormat], _data),
        Section("fineTune", "fineTune.strategy", "strategies", list(Strategy), _of_stages("fine_tune", lambda own: [own.strategy])),
        Section(
            "distill",
            "distill.losses[].type",
            "losses",
            list(DistillLoss),
            _of_stages("distill", lambda own: [loss.type for loss in own.losses]),
            ("looks at", lambda module: {"scores": "scores", "features": "pairs of layers"}[module.ON]),
        ),
        Section(
            "prune: what goes",
            "prune.granularity",
            "granularities",
            list(Granularity),
            _of_stages("prune", lambda own: [own.granularity]),
            ("importances", _importances_of),
        ),
        Section(
            "prune: what matters",
            "prune.importance",
            "importances",
            list(Importance),
            _of_stages("prune", lambda own: [own.importance]),
            ("granularities", _granularities_of),
        ),
        Section("fuse", "fuse.method", "fusions", list(FuseMethod), _of_stages("fuse", lambda own: [own.method])),
        Section(
            "export",
            "export.formats[].type",
            "exporters",
            list(FormatType),
            _of_stages("export", lambda own: [form.type for form in own.formats]),
        ),
    )


def page() -> str:
    """docs/reference/methods.md."""
    jobs = list(examples())
    lines = [
        NOTE.replace("kompress_api", "kompress_jobs"),
        "# Methods",
        "",
        "What may stand in the fields that name a method, in the words of its own module. What the API names beyond that is not built in",
        "this version, and is refused by name. Settings are in the [API](api.md).",
    ]
    for section in sections():
        titles = [f"`{section.field}`", "what it is", *([section.together[0]] if section.together else []), "source, remarks", "example"]
        lines += ["", f"## {section.title}", "", f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
        for value, module in section.modules():
            what, remarks = words(module)
            together = [section.together[1](module)] if section.together else []
            lines.append(row(f"`{name_of(value)}`", what, *together, remarks, example_of(section, value, jobs)))
    lines += [
        "",
        "## quantize",
        "",
        "| `quantize.mode` | what it is | schemes | source, remarks | example |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [row(f"`{mode.value}`", what, schemes, remarks, example) for mode, what, schemes, remarks, example in modes(jobs)]
    for name in registry.known("quantizers"):
        what, remarks = words(registry.load("quantizers", name, field=""))
        lines += ["", f"`{name}`: {linked(what)}. {linked(remarks)}"]
    return "\n".join(lines) + "\n"


def modes(jobs: Sequence[tuple[str, CompressionJobSpec]]) -> Iterator[tuple[QuantizeMode, str, str, str, str]]:
    """Modes of quantization are no modules: every engine's quantizer has all that it has kernels for."""
    engine = registry.load("quantizers", "onnx_runtime", field="")
    described = dict(part.split(": ", 1) for part in str(Quantize.model_fields["mode"].description).rstrip(".").split("; "))
    used = _of_stages("quantize", lambda own: [own.mode])
    for mode in QuantizeMode:
        schemes = ", ".join(scheme.value for scheme in engine.SCHEMES[mode])
        what, remarks = words(qat) if mode is QuantizeMode.QAT else (described[mode.value], "")
        yield mode, what, schemes, remarks, first_example(used, mode, jobs, "quantize")


def words(module: ModuleType) -> tuple[str, str]:
    """What a module says it is, and the rest of what it says, each on one line."""
    first, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
    what = " ".join(first.split()).removesuffix(".")
    label, _, said = what.partition(": ")
    return said if said and " " not in label else what, " ".join(rest.split())


def name_of(value: Any) -> str:
    """As it stands in a manifest."""
    text = value.value if isinstance(value, enum.Enum) else str(value)
    return f"{text}://" if text in (*MODEL_SCHEMES, *DATA_SCHEMES) else text


def row(*cells: str) -> str:
    """A line of a table; what is no link yet is text."""
    return f"| {' | '.join(cell if cell.startswith('[') else linked(cell) for cell in cells)} |"


def linked(text: str) -> str:
    """Addresses become links; what Markdown would read otherwise, outside of `code`, is left as it is."""
    plain = [part if number % 2 else re.sub(r"[<*|]", r"\\\g<0>", part) for number, part in enumerate(text.split("`"))]
    return re.sub(r"https://[^\s,;)]*[^\s,;).]", r"<\g<0>>", "`".join(plain))


def examples() -> Iterator[tuple[str, CompressionJobSpec]]:
    """Every job below examples/, those of one method a line first."""
    found = sorted((ROOT / EXAMPLES).rglob("*.yaml"), key=lambda path: (-len(path.parts), path))
    for path in found:
        for entry in manifest.load_file(path):
            if isinstance(entry, CompressionJob):
                yield path.relative_to(ROOT).as_posix(), entry.spec


def example_of(section: Section, value: Any, jobs: Sequence[tuple[str, CompressionJobSpec]]) -> str:
    """Where a value of a section is used first; empty where nobody uses it."""
    return first_example(section.used, value, jobs, section.field.partition(".")[0])


def first_example(used: Used, value: Any, jobs: Sequence[tuple[str, CompressionJobSpec]], kind: str) -> str:
    """A link to the file, and the stage's name; files that are named after the kind of stage come first."""
    named = re.sub(r"[A-Z]", r"-\g<0>", kind).lower()
    for path, spec in sorted(jobs, key=lambda job: named not in job[0]):
        for stage, own in used(spec):
            if own == value:
                return f"[{path.removeprefix(EXAMPLES + '/')}](../../{path})" + (f", stage {stage}" if stage else "")
    return ""


def _of_job(value: Callable[[CompressionJobSpec], Any]) -> Used:
    return lambda spec: iter([("", value(spec))])


def _of_stages(kind: str, values: Callable[[Any], Iterable[Any]]) -> Used:
    def used(spec: CompressionJobSpec) -> Iterator[tuple[str, Any]]:
        for stage in spec.stages:
            if (own := getattr(stage, kind)) is not None:
                yield from ((stage.name, value) for value in values(own))

    return used


def _models(spec: CompressionJobSpec) -> Iterator[tuple[str, Any]]:
    yield "", spec.model.source.partition("://")[0]
    for stage in spec.stages:
        if stage.distill is not None and stage.distill.student is not None:
            yield stage.name, stage.distill.student.source.partition("://")[0]


def _data(spec: CompressionJobSpec) -> Iterator[tuple[str, Any]]:
    yield "", spec.dataset.format or spec.dataset.source.partition("://")[0]


def built(folder: str, values: Iterable[Any]) -> Iterator[tuple[Any, ModuleType]]:
    """The values that have a module."""
    names = registry.known(folder)
    return ((value, registry.load(folder, value, field="")) for value in values if registry.module_name(value) in names)


def _augmentations(module: ModuleType) -> str:
    return ", ".join(module.DRAWS)


def _importances_of(granularity: ModuleType) -> str:
    from kompress_jobs.pruning.recovery import ranks

    return ", ".join(value.value for value, module in built("importances", Importance) if ranks(module, granularity))


def _granularities_of(importance: ModuleType) -> str:
    from kompress_jobs.pruning.recovery import ranks

    return ", ".join(value.value for value, module in built("granularities", Granularity) if ranks(importance, module))


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / PAGE
    path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
