"""What the Dockerfiles must share with the rest of the repository, as no COPY can bring it in."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("room", ["operator", "jobs"])
def test_dockerfile_installs_with_the_uv_of_the_makefile(room: str) -> None:
    version = re.search(r"^UV_VERSION := (\S+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert version
    assert f"ARG UV_VERSION={version[1]}\n" in (REPOSITORY / room / "Dockerfile").read_text()


def test_chart_is_of_the_same_release() -> None:
    release = re.search(r'^version = "(\S+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert release
    chart = (REPOSITORY / "charts/kompress/Chart.yaml").read_text()
    assert f"\nversion: {release[1]}\nappVersion: {release[1]}\n" in chart
