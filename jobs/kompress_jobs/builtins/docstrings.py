"""builtin://docstrings: what Python's standard library says of itself, and which of nine subjects it belongs to (no download).

A Python without its windows (tkinter, idlelib) has eight: a subject of a few files only is left out.

Docstrings of modules, classes and functions, read from the sources and never imported, each once and at most 400 characters
long. The split is by file, because the docstrings of one file resemble each other: by hash within each subject, about 20 % test,
10 % of the rest validation. How many there are depends on the Python build, so the fingerprint is that of the texts.
"""

import ast
import functools
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from kompress_api.canonical import digest
from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs.samples.splits import HELD_OUT, Data, MemorySplit, rank_of

LONGEST = 400
TEST_SHARE = 0.2
FEWEST_FILES = 5
"""Of a subject: some for each split."""
TESTS = frozenset({"test", "tests", "idle_test"})
SUBJECTS: dict[str, str] = {
    "concurrency": "_threading_local asynchat asyncio asyncore concurrent contextvars multiprocessing queue sched selectors signal "
    "subprocess threading",
    "data": "_collections_abc _pydatetime _pydecimal bisect calendar collections copy dataclasses datetime decimal enum "
    "fractions functools graphlib heapq numbers operator random statistics types typing weakref zoneinfo",
    "development": "bdb cProfile doctest logging pdb profile pstats pydoc pyclbr tabnanny timeit trace traceback tracemalloc "
    "unittest warnings",
    "files": "_compression _pyio bz2 dbm filecmp fileinput fnmatch genericpath glob gzip linecache lzma ntpath os pathlib "
    "posixpath shelve shutil stat tarfile tempfile zipfile",
    "interface": "cmd curses idlelib tkinter turtle turtledemo",
    "language": "ast code codeop compileall dis imp importlib inspect lib2to3 modulefinder opcode pickletools pkgutil "
    "py_compile runpy symtable tokenize zipimport",
    "network": "cgi cgitb ftplib http imaplib ipaddress nntplib poplib smtpd smtplib socket socketserver ssl telnetlib urllib "
    "uuid webbrowser wsgiref xmlrpc",
    "packaging": "_aix_support _osx_support distutils ensurepip platform site sysconfig venv zipapp",
    "text": "_markupbase base64 codecs configparser csv difflib email encodings gettext html json locale mailbox mimetypes "
    "plistlib quopri re string stringprep textwrap tomllib xml",
}
"""Subject -> top-level modules; those that a Python version does not have are not missed."""


class Row(NamedTuple):
    """One docstring."""

    file: str
    """Relative to the standard library."""
    subject: str
    text: str


def load(dataset: Dataset, first: int | None = None) -> Data:
    """The data set in memory, all of it."""
    labels = sorted({row.subject for row in rows()})
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for subject in labels:
        rest, test = cut_files([row for row in rows() if row.subject == subject], TEST_SHARE)
        train, validation = cut_files(rest, HELD_OUT)
        for name, found in zip(parts, (train, validation, test), strict=True):
            parts[name] += found
    splits = {
        name: MemorySplit(
            [row.text for row in found], torch.tensor([labels.index(row.subject) for row in found]), [row.file for row in found]
        )
        for name, found in parts.items()
    }
    return Data(labels, **splits)


def made_of(dataset: Dataset) -> dict[str, str]:
    """The texts themselves: two builds of the same Python version may differ."""
    return {"docstrings": digest([list(row) for row in rows()])}


@functools.cache
def rows() -> tuple[Row, ...]:
    """All docstrings in the order of their files; the first of equal ones stays. Raises DataUnreadable without sources of two subjects."""
    root = Path(sysconfig.get_paths()["stdlib"])
    subjects = {module: subject for subject, modules in SUBJECTS.items() for module in modules.split()}
    seen: set[str] = set()
    found: list[Row] = []
    for file in sorted(path.relative_to(root).as_posix() for module in subjects for path in sources(root, module)):
        for text in docstrings(root / file):
            if text not in seen:
                seen.add(text)
                found.append(Row(file, subjects[file.partition("/")[0].removesuffix(".py")], text))
    files = {subject: {row.file for row in found if row.subject == subject} for subject in SUBJECTS}
    kept = {subject for subject, own in files.items() if len(own) >= FEWEST_FILES}
    if len(kept) < 2:
        raise DataUnreadable(
            f"{root} holds hardly any sources: this Python comes without those of its standard library",
            hint="use a Python that has them",
            field="spec.dataset.source",
        )
    return tuple(row for row in found if row.subject in kept)


def sources(root: Path, module: str) -> Iterator[Path]:
    """The files of a module or package, without its tests."""
    if (single := root / f"{module}.py").is_file():
        yield single
    for path in (root / module).rglob("*.py"):
        if not TESTS.intersection(path.relative_to(root).parts):
            yield path


def docstrings(file: Path) -> Iterator[str]:
    """Those of a file that are short enough."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # lib2to3 and the like keep samples of other Pythons
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            if 0 < len(text) <= LONGEST:
                yield text


def cut_files(found: list[Row], share: float) -> tuple[list[Row], list[Row]]:
    """(kept, cut): whole files, first by hash, as long as no more than `share` of the rows go; at least the smallest file goes."""
    sizes: dict[str, int] = {}
    for row in found:
        sizes[row.file] = sizes.get(row.file, 0) + 1
    away: set[str] = set()
    gone = 0
    for file in sorted(sizes, key=rank_of):
        if gone + sizes[file] <= share * len(found):
            away.add(file)
            gone += sizes[file]
    away = away or {min(sizes, key=lambda file: (sizes[file], file))}
    return [row for row in found if row.file not in away], [row for row in found if row.file in away]
