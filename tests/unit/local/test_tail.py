"""Live progress must show whole lines as they come, and never fail a run."""

import json
import pathlib

from kompress_operator.local.tail import Tail


def test_it_gives_each_line_once_and_only_when_it_is_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    first, second = {"type": "progress", "done": 1, "total": 2}, {"type": "warning", "text": "é"}
    text = json.dumps(second, ensure_ascii=False).encode()
    path.write_bytes(json.dumps(first).encode() + b"\n" + text[:-3])
    assert tail.read() == [first]
    with path.open("ab") as file:
        file.write(text[-3:] + b"\n")
    assert tail.read() == [second]
    assert tail.read() == []


def test_what_it_does_not_understand_is_passed_over(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'\xff\n[]\n{}\n{"type": "new"}\n')
    assert Tail(path).read() == [{"type": "new"}]
