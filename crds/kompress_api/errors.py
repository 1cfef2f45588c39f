"""Every error that a user may meet, with its exit code and what to do about it.

A pod ends with the exit code of the error; the operator reads from the code whether another attempt can help. The codes
are those of `sysexits.h`; the class name is the reason that `status`, the command line and the log show.

KompressError
├── DataUnreadable              65  the data can't be read, or can't be learned from
├── ArtifactMissing             66  an input's commit or files are gone
│   └── ArtifactCorrupt         66  an input's bytes don't match their digest
├── MicroBatchTooLarge          70  not enough memory; the next attempt takes half the micro-batch
├── StorageUnavailable          69  S3 or MLflow out of reach for longer than the retries last
├── StorageFailure              74  an I/O error, such as a full disk
├── Interrupted                 75  stopped from outside after a checkpoint
├── CredentialsRefused          77  S3 or MLflow know us and say no, or do not know us
└── SpecCannotWork              78  what is asked can't be done, however often it is tried
    ├── InvalidManifest         78  a field of the manifest is wrong
    ├── UnknownModel            78  no such model, architecture or factory
    ├── UnknownMethod           78  a stage kind or method that this version does not have
    ├── MethodRefused           78  the method has no meaning for this model, task or target
    ├── LabelMismatch           78  teacher, student or splits disagree about the labels
    ├── BucketMissing           78  the bucket does not exist
    ├── NoConditionalWrites     78  the store ignores the condition of a put, so commits would not be safe
    ├── UnsafeFile              78  a file that would execute code when read (pickle)
    ├── FactoryNotAllowed       78  python:// outside of KOMPRESS_FACTORIES
    ├── LossNotFinite           78  the loss became NaN or infinite
    ├── OutOfMemory             78  not enough memory for half the micro-batch either
    ├── AccuracyCollapsed       78  a stage left the model at chance
    ├── ParityFailed            78  the exported model answers differently from the PyTorch model
    ├── JobLocked               78  another process of this machine runs this job
    ├── NoOutput                78  a place is named by neither the job nor its runtime, or no pod can reach it
    └── SpecTooLarge            78  the merged spec is over its limit
"""

import enum
import re
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """Exit codes of a pod (`sysexits.h`), and what they mean for the next attempt."""

    DONE = 0
    DATA_UNREADABLE = 65
    INPUT_MISSING = 66
    SOFTWARE = 70
    UNAVAILABLE = 69
    IO_ERROR = 74
    INTERRUPTED = 75
    CREDENTIALS_REFUSED = 77
    SPEC_CANNOT_WORK = 78


PERMANENT = frozenset(
    {
        ExitCode.DATA_UNREADABLE,
        ExitCode.INPUT_MISSING,
        ExitCode.CREDENTIALS_REFUSED,
        ExitCode.SPEC_CANNOT_WORK,
    }
)
"""Another attempt would end the same way."""

FREE = frozenset({ExitCode.INTERRUPTED})
"""Another attempt goes on where this one stopped, and spends no restart."""


class KompressError(Exception):
    """An error with its cure.

    `message` says what is wrong with which value; `hint` what to do (empty only where nothing can be done by the
    reader); `field` is the path in the manifest where there is one, such as `spec.stages[1].prune.pruningRatio`.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.SOFTWARE

    def __init__(self, message: str, *, hint: str, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field

    @property
    def reason(self) -> str:
        """CamelCase, as in a condition's reason."""
        return type(self).__name__

    @property
    def reference(self) -> str:
        """kebab-case, the anchor of this error's paragraph in docs/reference/errors.md."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.reason).lower()

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}"


class DataUnreadable(KompressError):
    """The data can't be read, or can't be learned from: an empty folder, one class only, labels that differ between the splits, or more
    unreadable samples than dataset.maxUnreadableFraction. The message names the file; mend it, or raise the fraction."""

    exit_code = ExitCode.DATA_UNREADABLE


class ArtifactMissing(KompressError):
    """An input's commit or files are gone from the store: deleted, or a bundle that was never committed. Run the stage that makes it again:
    apply the job under another name."""

    exit_code = ExitCode.INPUT_MISSING


class ArtifactCorrupt(ArtifactMissing):
    """An input's bytes don't match the digest of its commit: it was changed or torn. It is never loaded; the stage that makes it replaces
    it
    when it runs again."""


class MicroBatchTooLarge(KompressError):
    """The device had not enough memory for a step's micro-batch. The next attempt, which spends a restart, goes on from the last checkpoint
    with half of it and twice the gradientAccumulationSteps; set those yourself to spare the attempt."""


class StorageUnavailable(KompressError):
    """S3 or MLflow stayed out of reach for longer than the retries last (10 minutes; 30 s in preflight). Tried again as a restart."""

    exit_code = ExitCode.UNAVAILABLE


class StorageFailure(KompressError):
    """An I/O error, such as a full disk. Tried again as a restart, perhaps on another node; raise the ephemeral storage."""

    exit_code = ExitCode.IO_ERROR


class Interrupted(KompressError):
    """Stopped from outside after a checkpoint was saved. Goes on from there and spends no restart."""

    exit_code = ExitCode.INTERRUPTED


class CredentialsRefused(KompressError):
    """S3 or MLflow know us and say no, or do not know us. Check the Secret that credentialsSecret names, and what its keys may do."""

    exit_code = ExitCode.CREDENTIALS_REFUSED


class SpecCannotWork(KompressError):
    """What is asked can't be done, however often it is tried."""

    exit_code = ExitCode.SPEC_CANNOT_WORK


class InvalidManifest(SpecCannotWork):
    """A field of the manifest is wrong; the message gives its path."""


class UnknownModel(SpecCannotWork):
    """No such model, architecture or factory; the message names the nearest ones."""


class UnknownMethod(SpecCannotWork):
    """A stage kind or method of the API that this version does not have yet; the message names those it has."""


class MethodRefused(SpecCannotWork):
    """The method has no meaning for this model, task or target, or would be ignored; the message says why."""


class LabelMismatch(SpecCannotWork):
    """Teacher, student or data disagree about the labels. Use models that were trained on the same label set."""


class BucketMissing(SpecCannotWork):
    """The bucket does not exist. Create it, or mend the URI."""


class NoConditionalWrites(SpecCannotWork):
    """The store ignores the condition of a put (If-None-Match), so two attempts could both believe that they won. Use a store that
    honours it."""


class UnsafeFile(SpecCannotWork):
    """A file that would execute code when it is read (pickle). Save the weights as safetensors."""


class FactoryNotAllowed(SpecCannotWork):
    """python:// names a package that the image does not allow. Add it to KOMPRESS_FACTORIES in the image (on a laptop: in the
    environment)."""


class LossNotFinite(SpecCannotWork):
    """The loss or the weights became NaN or infinite; the message gives the step. Checkpoints from before it are kept. Lower the learning
    rate, or use FP32."""


class OutOfMemory(SpecCannotWork):
    """The device has not enough memory, not even for half the micro-batch that was asked for. Lower batchSize, raise
    gradientAccumulationSteps, set activationCheckpointing, precision BF16, or parallelism FSDP2 over more processes."""


class AccuracyCollapsed(SpecCannotWork):
    """A stage left the model no better than chance. Use a smaller ratio, more recovery epochs, or a lower learning rate."""


class ParityFailed(SpecCannotWork):
    """The exported model answers differently from the PyTorch model on real inputs. Raise export.verify's bounds only if you accept
    that."""


class JobLocked(SpecCannotWork):
    """Another process of this machine runs this job. Wait for it or stop it; the message gives its process id."""


class NoOutput(SpecCannotWork):
    """A place that the job needs is named neither by the job nor by its runtime, or no pod could reach it."""


class SpecTooLarge(SpecCannotWork):
    """The merged spec is over its limit (32 KiB without podTemplates, 256 KiB with). Shorten podTemplates, or split the job."""
