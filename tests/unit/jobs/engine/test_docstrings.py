"""builtin://docstrings: the same texts wherever the same Python is, and nothing of test in train."""

import functools
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.builtins import docstrings
from kompress_jobs.planning import fingerprint


def test_the_docstrings_are_split_by_file(tmp_path) -> None:
    found = data.load(Dataset(source="builtin://docstrings"), tmp_path)
    assert len(found.labels) == 9
    rows = docstrings.rows()
    assert 5000 < len(rows) < 9000
    assert len({row.text for row in rows}) == len(rows)
    assert max(len(row.text) for row in rows) <= 400
    files = {row.text: row.file for row in rows}
    seen = [{files[text] for text in split.samples} for split in (found.train, found.validation, found.test)]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    for split in (found.train, found.validation, found.test):
        counts = torch.bincount(split.labels, minlength=9)
        assert counts.min() > 0
        assert 0.15 < float(counts.max() / counts.sum()) < 0.3, "no subject is the answer to everything"
    assert 0.15 < len(found.test) / len(rows) < 0.25


def test_tests_are_left_out_and_subjects_follow_the_module() -> None:
    rows = docstrings.rows()
    assert not [row.file for row in rows if "/test/" in row.file or "/tests/" in row.file]
    subjects = {row.file: row.subject for row in rows}
    assert subjects["tkinter/__init__.py"] == "interface"
    assert subjects["asyncio/queues.py"] == "concurrency"


def test_the_fingerprint_is_that_of_the_texts(monkeypatch) -> None:
    """Two builds of one Python version may hold other docstrings."""
    dataset = Dataset(source="builtin://docstrings")
    before = fingerprint.fingerprint(dataset)
    assert before.means == "library"
    fewer = docstrings.rows()[1:]
    monkeypatch.setattr(docstrings, "rows", lambda: fewer)
    assert fingerprint.fingerprint(dataset).digest != before.digest


def test_a_python_without_windows_has_one_subject_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As servers and images have it: a label with samples in one split only would end the job."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for subject in ("files", "text"):
        for module in docstrings.SUBJECTS[subject].split():
            for path in docstrings.sources(root, module):
                copy = tmp_path / path.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    shutil.copy(root / "cmd.py", tmp_path)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setattr(docstrings, "rows", functools.cache(docstrings.rows.__wrapped__))
    assert docstrings.load(Dataset(source="builtin://docstrings")).labels == ["files", "text"]
    for subject in ("files", "text"):
        for module in docstrings.SUBJECTS[subject].split():
            shutil.rmtree(tmp_path / module, ignore_errors=True)
            (tmp_path / f"{module}.py").unlink(missing_ok=True)
    monkeypatch.setattr(docstrings, "rows", functools.cache(docstrings.rows.__wrapped__))
    with pytest.raises(DataUnreadable, match="hardly any sources"):
        docstrings.rows()
