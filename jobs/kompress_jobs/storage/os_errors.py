"""The operating system's errors of files, as kompress's own."""

import errno

from kompress_api.errors import ArtifactMissing, CredentialsRefused, KompressError, SpecCannotWork, StorageFailure

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_FILE = frozenset({errno.ENOENT})
_NO_PATH = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})


def map_os_error(error: OSError, doing: str) -> KompressError:
    """The kompress error of an operating system's error while `doing` something to a file."""
    text = f"can't {doing}: {error.strerror or error}"
    if error.errno in _FULL:
        return StorageFailure(text, hint="free space on this file system, or raise the quota")
    if error.errno in _REFUSED:
        return CredentialsRefused(text, hint="let the user that runs the stage write there")
    if error.errno in _NO_FILE:
        return ArtifactMissing(text, hint="check the path")
    if error.errno in _NO_PATH:
        return SpecCannotWork(text, hint="choose a path of folders below which nothing else lies")
    return StorageFailure(text, hint="check the disk or the file server")
