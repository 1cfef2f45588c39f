"""Reads what the pages of the documentation have their readers type, see and write: nothing here knows a page by name.

Of a page these are steps, in its order: each fenced `sh` block, each command between backticks in the text, each fenced `yaml` block.
A `text` block shows what the `sh` block above it prints, where … stands for anything.
"""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import Literal

PROGRAMS = ("helm", "kompress", "kubectl", "make", "mlflow", "torchx")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.yaml)\n")


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that a reader does."""

    page: str
    line: int
    kind: Literal["block", "inline", "yaml"]
    text: str
    shows: str = ""
    """What must be seen of it: the `text` block below."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """Name of the file that a manifest is written to, told by the comment in its first line; empty where it has none."""
        found = FILE_NAME.match(self.text) if self.kind == "yaml" else None
        return found[1] if found else ""


def pages(repository: pathlib.Path) -> list[str]:
    """The documentation, in the order in which it is run: the README first, as its readers do."""
    found = (repository / "docs").rglob("*.md")
    return ["README.md", "CONTRIBUTING.md", "charts/kompress/README.md", *sorted(str(path.relative_to(repository)) for path in found)]


def steps(page: str, content: str) -> list[Step]:
    """The steps of a page."""
    fences = list(FENCE.finditer(content))
    return sorted((*_fenced(page, content, fences), *_inline(page, content, fences)), key=lambda step: step.line)


def _fenced(page: str, content: str, fences: list[re.Match[str]]) -> Iterator[Step]:
    for fence, after in itertools.zip_longest(fences, fences[1:]):
        language, text = fence.groups()
        line = _line(content, fence.start())
        if language == "sh":
            follows = after is not None and after[1] == "text" and not content[fence.end() : after.start()].strip()
            yield Step(page, line, "block", text, after[2] if after is not None and follows else "")
        elif language == "yaml":
            yield Step(page, line, "yaml", text)
        elif language not in ("", "text"):
            raise ValueError(f"{page}:{line}: nobody runs a block of `{language}`: write `sh`, or `text` for what is only shown")


def _inline(page: str, content: str, fences: list[re.Match[str]]) -> Iterator[Step]:
    """Blanks take the place of fences and comments, so that lines keep their numbers."""
    for span in [*fences, *COMMENT.finditer(content)]:
        content = content[: span.start()] + re.sub(r"[^\n]", " ", span[0]) + content[span.end() :]
    for found in INLINE.finditer(content):
        yield Step(page, _line(content, found.start()), "inline", " ".join(found[1].split()))


def _line(content: str, position: int) -> int:
    return content.count("\n", 0, position) + 1


def unseen(shows: str, printed: str) -> list[str]:
    """The lines of `shows` that `printed` does not hold in this order, whatever the width of blanks."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    wanted = [" ".join(line.split()) for line in shows.splitlines() if line.strip()]
    return [line for line in wanted if not any(_pattern(line).search(candidate) for candidate in lines)]


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part.strip()) for part in line.split("…")))
