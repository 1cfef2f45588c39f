"""Out of memory in a step: the micro-batch is halved once, by the next attempt; then it is named.

An attempt and not the same process, because the others of the gang wait in a collective that this one can't join any more, and because
a process that has run out of memory has it in pieces. That the micro-batch was halved is noted beside the checkpoints.
"""

from typing import NoReturn

import torch

from kompress_api.errors import MicroBatchTooLarge, OutOfMemory
from kompress_jobs.context import StageContext
from kompress_jobs.gang import Gang
from kompress_jobs.training.plan import Plan

NOTE = "micro-batches"
MARKS = ("DefaultCPUAllocator: can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What the texts of errors hold that have no class of their own."""


def is_short(error: Exception) -> bool:
    """Whether the error says that there was not enough memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in MARKS)


def micro_batches(plan: Plan, context: StageContext, gang: Gang) -> int:
    """Collective: of a step of each rank; twice as many where an earlier attempt ran out of memory."""
    asked = plan.settings.gradient_accumulation_steps
    if context.input.attempt == 1:
        return asked
    noted = gang.from_rank_0(lambda: context.checkpoints.noted(NOTE))
    if noted is None:
        return asked
    context.events.warning(f"an earlier attempt ran out of memory: micro-batches are halved, gradientAccumulationSteps is {2 * asked}")
    return 2 * asked


def give_up(error: Exception, step: int, accumulation: int, plan: Plan, context: StageContext, gang: Gang) -> NoReturn:
    """Raise MicroBatchTooLarge where the next attempt should take half, else OutOfMemory."""
    samples = max(1, plan.order.batch // (gang.world_size * accumulation))
    told = f"out of memory in step {step} with micro-batches of {samples} samples"
    if samples > 1 and accumulation == plan.settings.gradient_accumulation_steps:
        context.checkpoints.note(NOTE, {"samples": samples})
        raise MicroBatchTooLarge(
            f"{told}: the next attempt takes half", hint="raise gradientAccumulationSteps, and no attempt is spent on this"
        ) from error
    raise OutOfMemory(
        told,
        hint="lower batchSize, raise gradientAccumulationSteps, set activationCheckpointing: true, precision BF16 or parallelism FSDP2",
        field=f"spec.stages({context.input.name}).{context.input.kind}.batchSize",
    ) from error
