"""Whether an exported model is the same model: its outputs on real inputs against those of the PyTorch module."""

from dataclasses import dataclass
from typing import Any

import numpy

from kompress_api.errors import ParityFailed
from kompress_api.stages.export import Verify

Array = numpy.ndarray[Any, Any]


@dataclass(frozen=True)
class Parity:
    """How two sets of scores differ: (samples, classes), or of speech (frames, tokens)."""

    samples: int
    max_absolute: float
    """Largest difference of a score."""
    excess: float
    """Largest amount by which a difference goes beyond atol + rtol * |expected|; at most 0 where all are within."""
    cosine: float
    """Smallest cosine between the scores of one sample."""
    agreement: float
    """Share of samples with the same largest score."""

    def dump(self) -> dict[str, float]:
        return {"samples": self.samples, "maxAbsolute": self.max_absolute, "minCosine": self.cosine, "agreement": self.agreement}


def compare(expected: Array, found: Array, verify: Verify, *, what: str) -> Parity:
    """Compare; raises ParityFailed for scores of another shape or that are not finite. `what` is the format and the target."""
    if expected.shape != found.shape or not numpy.isfinite(found).all():
        raise ParityFailed(
            f"{what} answers {found.shape} with {int((~numpy.isfinite(found)).sum())} values that are not finite, "
            f"the PyTorch model {expected.shape}",
            hint="export in FP32, or report the operator that differs",
        )
    expected, found = expected.astype("float64"), found.astype("float64")
    difference = numpy.abs(expected - found)
    norms = numpy.linalg.norm(expected, axis=1) * numpy.linalg.norm(found, axis=1)
    return Parity(
        samples=len(expected),
        max_absolute=float(difference.max()),
        excess=float((difference - verify.atol - verify.rtol * numpy.abs(expected)).max()),
        cosine=float(((expected * found).sum(1) / numpy.maximum(norms, 1e-12)).min()),
        agreement=float((expected.argmax(1) == found.argmax(1)).mean()),
    )


def require(parity: Parity, verify: Verify, *, what: str, rounded: bool = False, field: str) -> None:
    """Raise ParityFailed with the figures when the exported model is not the same model. Of one with fewer bits only predictions count."""
    if parity.agreement < verify.min_agreement:
        raise ParityFailed(
            f"{what} agrees with the PyTorch model on {parity.agreement:.4f} of {parity.samples} samples, less than "
            f"{verify.min_agreement:g} (scores differ by up to {parity.max_absolute:.3g})",
            hint="export in FP32, ignore the layers that suffer, or lower verify.minAgreement if the loss is wanted",
            field=f"{field}.verify.minAgreement",
        )
    if parity.excess > 0 and not rounded:
        raise ParityFailed(
            f"scores of {what} differ by up to {parity.max_absolute:.3g} on {parity.samples} samples, beyond "
            f"atol {verify.atol:g} + rtol {verify.rtol:g}",
            hint="export in FP32, or raise verify.atol if the difference is wanted",
            field=f"{field}.verify.atol",
        )
