"""Writes `kompress/values.schema.json` and the table of `kompress/README.md` from `kompress/values.yaml`.

The comment above a value documents it. Its type is its default's; a comment line `@schema {...}` adds JSON Schema keywords. An object
with keys allows no others, so that a mistyped value is refused by Helm rather than ignored.

    python charts/generate.py
"""

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CHART = Path(__file__).with_name("kompress")
DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}
TABLE = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- end of values -->)", re.DOTALL)
LINE = re.compile(r"(?P<indent> *)(# ?(?P<comment>.*)|(?P<key>\w+):.*)?")


def comments(text: str) -> dict[tuple[str, ...], list[str]]:
    """The comment lines right above each key, by its path."""
    found: dict[tuple[str, ...], list[str]] = {}
    path: list[str] = []
    above: list[str] = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if match and match["comment"] is not None:
            above.append(match["comment"])
            continue
        if match and match["key"]:
            path[len(match["indent"]) // 2 :] = [match["key"]]
            found[tuple(path)] = above
        above = []
    return found


class Values:
    """The values with their comments."""

    def __init__(self, text: str) -> None:
        self.defaults = YAML(typ="safe").load(text)
        self.comments = comments(text)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of all values."""
        return {"$schema": DRAFT, "title": "Values of the chart kompress", **self._schema_of((), self.defaults)}

    def _schema_of(self, path: tuple[str, ...], default: Any) -> dict[str, Any]:
        about: dict[str, Any] = {"description": self.description(path)} if path else {}
        keywords = self._keywords(path)
        about["type"] = TYPES[type(default)]
        if isinstance(default, dict):
            closed = "additionalProperties" not in keywords
            if closed:
                about["properties"] = {key: self._schema_of((*path, key), value) for key, value in default.items()}
                if not path:
                    about["properties"]["global"] = {"description": "Helm hands it down from a parent chart.", "type": "object"}
                about["additionalProperties"] = False
        return about | keywords | ({"default": default} if path and "properties" not in about else {})

    def _keywords(self, path: tuple[str, ...]) -> dict[str, Any]:
        lines = [line.removeprefix("@schema ") for line in self.comments.get(path, ()) if line.startswith("@schema ")]
        return YAML(typ="safe").load(lines[0]) if lines else {}

    def description(self, path: tuple[str, ...]) -> str:
        """What the comment above a value says of it.

        Raises:
            ValueError: nothing stands above it.
        """
        text = " ".join(line for line in self.comments.get(path, ()) if not line.startswith("@schema "))
        if not text:
            raise ValueError(f"values.yaml: `{'.'.join(path)}` has no comment above it that says what it is")
        return text

    def table(self) -> str:
        """A Markdown table of every value that can be set, its default and its description."""
        rows = ["| value | default | what it is |", "| --- | --- | --- |"]
        rows += [f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {self.description(path)} |" for path, default in self.leaves()]
        return "\n".join(rows) + "\n"

    def leaves(self, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
        """Every value that is set as one, with its default."""
        default = self.defaults
        for key in path:
            default = default[key]
        if path and ("properties" not in self._schema_of(path, default)):
            return [(path, default)]
        return [leaf for key in default for leaf in self.leaves((*path, key))]


def generated() -> dict[Path, str]:
    """The files that are made from values.yaml, with their text."""
    values = Values((CHART / "values.yaml").read_text())
    readme = CHART / "README.md"
    return {
        CHART / "values.schema.json": json.dumps(values.schema(), indent=2) + "\n",
        readme: TABLE.sub(lambda _: values.table(), readme.read_text()),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
