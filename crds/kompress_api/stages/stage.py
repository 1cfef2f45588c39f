"""A stage of a CompressionJob: a name, what it starts from, exactly one kind, and overrides of the runtime."""

from typing import Literal, get_args

from kompress_api.base import Model, Rule
from kompress_api.names import RESERVED_STAGES, StageName
from kompress_api.runtime import Runtime
from kompress_api.stages.distill import Distill
from kompress_api.stages.export import Export
from kompress_api.stages.fine_tune import FineTune
from kompress_api.stages.fuse import Fuse
from kompress_api.stages.prune import Prune
from kompress_api.stages.quantize import Quantize

StageKind = Literal["fineTune", "distill", "prune", "fuse", "quantize", "export"]
KINDS: tuple[StageKind, ...] = get_args(StageKind)
COMPRESSING: frozenset[StageKind] = frozenset({"distill", "prune", "fuse", "quantize"})
StageSpec = FineTune | Distill | Prune | Fuse | Quantize | Export

_COUNT = f"[{', '.join(f'has(self.{kind})' for kind in KINDS)}].filter(x, x).size()"
_ONE_KIND = f"a stage is exactly one of {', '.join(KINDS)}"
_RESERVED = f"a stage can't be called {', '.join(RESERVED_STAGES)}"


class Stage(Model):
    """One step of the job."""

    name: StageName
    """Unique within the job; part of the names of its Jobs and pods."""
    from_: StageName | None = None
    """Stage above, or `source` (spec.model), that this one starts from; absent: the stage above. `fuse` takes none; `distill` takes
    either this or one of `student` and `keepLayers`."""
    fine_tune: FineTune | None = None
    """Adapt a model to the task's data."""
    distill: Distill | None = None
    """Teach a student what teachers know."""
    prune: Prune | None = None
    """Remove weights, channels, heads or layers: as much as exactly one of pruningRatio, sparsity, pattern, constraints or search says."""
    fuse: Fuse | None = None
    """One model out of several."""
    quantize: Quantize | None = None
    """Fewer bits."""
    export: Export | None = None
    """Lower a model for its targets, verify it and measure it."""
    runtime: Runtime | None = None
    """Overrides of spec.runtime for this stage (maps key by key, lists whole)."""

    rules = (
        Rule(
            cel=f"{_COUNT} == 1",
            holds=lambda s: len(s.kinds) == 1,
            message=lambda s: f"{_ONE_KIND}, not {len(s.kinds)} of them",
            message_cel=f"'{_ONE_KIND}, not %d of them'.format([{_COUNT}])",
        ),
        Rule(
            cel=f"!(self.name in {list(RESERVED_STAGES)!r})",
            holds=lambda s: s.name not in RESERVED_STAGES,
            message=_RESERVED,
            field="name",
        ),
        Rule(
            cel="!has(self.fuse) || !has(self.from)",
            holds=lambda s: s.fuse is None or s.from_ is None,
            message="fuse takes no from: its inputs are fuse.models",
            field="from",
        ),
        Rule(
            cel="!has(self.distill) || [has(self.from), has(self.distill.student), "
            "has(self.distill.keepLayers) && size(self.distill.keepLayers) > 0].filter(x, x).size() == 1",
            holds=lambda s: s.distill is None or (s.from_ is not None) + (s.distill.student is not None) + bool(s.distill.keep_layers) == 1,
            message="distill takes exactly one of distill.student (a new model), distill.keepLayers (the first teacher with fewer layers) "
            "and from (the model that the student starts as)",
        ),
    )

    @property
    def kinds(self) -> list[StageKind]:
        """The kinds that are filled in; one in a valid stage."""
        return [kind for kind in KINDS if getattr(self, _ATTRIBUTE[kind]) is not None]

    @property
    def kind(self) -> StageKind:
        """The stage's kind, as its field is called in a manifest."""
        return self.kinds[0]

    @property
    def spec(self) -> StageSpec:
        """What the kind's own field holds."""
        return getattr(self, _ATTRIBUTE[self.kind])  # type: ignore[no-any-return]


_ATTRIBUTE: dict[StageKind, str] = {kind: "fine_tune" if kind == "fineTune" else kind for kind in KINDS}
