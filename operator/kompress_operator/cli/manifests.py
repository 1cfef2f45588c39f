"""Reading manifests for the command line: all problems of all files, then exit 2."""

import pathlib
import sys
from collections.abc import Iterator

from kompress_api import manifest
from kompress_api.errors import KompressError
from kompress_api.manifest import ClusterCompressionRuntime, CompressionJob, Manifest, ManifestError, Problem
from kompress_operator.cli.exits import Exit, fail, say
from kompress_operator.launch.merge import reserved_fields
from kompress_operator.local.backend import merged_locally

STANDARD_INPUT = pathlib.Path("-")


def read(path: pathlib.Path) -> list[Manifest]:
    """The objects of a file (`-`: standard input). Raises ManifestError with every problem that can be seen without a cluster."""
    found = manifest.load(sys.stdin.buffer.read()) if path == STANDARD_INPUT else manifest.load_file(path)
    problems = [problem for entry in found for problem in _beyond_the_schema(entry)]
    if problems:
        raise ManifestError(problems)
    return found


def read_job(path: pathlib.Path) -> CompressionJob:
    """The one CompressionJob of a file, or the end of the command."""
    jobs = [entry for entry in read_or_fail(path) if isinstance(entry, CompressionJob)]
    if len(jobs) != 1:
        fail(f"{path}: {len(jobs)} CompressionJobs in it", hint="name a file that holds exactly one", code=Exit.INVALID)
    return jobs[0]


def read_or_fail(path: pathlib.Path) -> list[Manifest]:
    """The objects of a file, or the end of the command."""
    try:
        return read(path)
    except ManifestError as error:
        *others, last = (f"{path}: {problem}" for problem in error.problems)
        for text in others:
            say(f"error: {text}")
        fail(last, code=Exit.INVALID)


def _beyond_the_schema(entry: Manifest) -> Iterator[Problem]:
    """What the API server's schema can't see: the inside of pod templates, and the size of the whole."""
    spec = entry.spec
    for path, reason in reserved_fields(spec):
        yield Problem(path, f"Invalid value: {reason}")
    if isinstance(entry, ClusterCompressionRuntime):
        return
    try:
        merged_locally(entry.spec, pathlib.Path("/"))
    except KompressError as error:
        yield Problem(error.field, error.message, error.hint)
