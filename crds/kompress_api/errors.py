"""Every error that a user may meet, with its exit code and what to do about it.

A pod ends with the exit code of the error; the operator reads from the code whether another attempt can help. The codes
are those of `sysexits.h`; the class name is the reason that `status`, the command line and the log show.

KompressError
├── DataUnreadable              65  the data can't be read, or can't be learned from
├── ArtifactMissing             66  an input's commit or files are gone
│   └── ArtifactCorrupt         66  an input's bytes don't match their digest
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
    ├── AccuracyCollapsed       78  a stage left the model at chance
    ├── ParityFailed            78  the exported model answers differently from the PyTorch model
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
    exit_code = ExitCode.DATA_UNREADABLE


class ArtifactMissing(KompressError):
    exit_code = ExitCode.INPUT_MISSING


class ArtifactCorrupt(ArtifactMissing):
    pass


class StorageUnavailable(KompressError):
    exit_code = ExitCode.UNAVAILABLE


class StorageFailure(KompressError):
    exit_code = ExitCode.IO_ERROR


class Interrupted(KompressError):
    exit_code = ExitCode.INTERRUPTED


class CredentialsRefused(KompressError):
    exit_code = ExitCode.CREDENTIALS_REFUSED


class SpecCannotWork(KompressError):
    exit_code = ExitCode.SPEC_CANNOT_WORK


class InvalidManifest(SpecCannotWork):
    pass


class UnknownModel(SpecCannotWork):
    pass


class UnknownMethod(SpecCannotWork):
    pass


class MethodRefused(SpecCannotWork):
    pass


class LabelMismatch(SpecCannotWork):
    pass


class BucketMissing(SpecCannotWork):
    pass


class NoConditionalWrites(SpecCannotWork):
    pass


class UnsafeFile(SpecCannotWork):
    pass


class FactoryNotAllowed(SpecCannotWork):
    pass


class LossNotFinite(SpecCannotWork):
    pass


class AccuracyCollapsed(SpecCannotWork):
    pass


class ParityFailed(SpecCannotWork):
    pass


class NoOutput(SpecCannotWork):
    pass


class SpecTooLarge(SpecCannotWork):
    pass
