"""Stages run for real on the digits at 8 by 8, with models of a few thousand weights; on the GPU where there is one."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kompress_api.places import Dataset
from kompress_jobs import data, registry
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.samples.splits import Data

PACKAGES = str(Path(__file__).parent / "packages")
if PACKAGES not in sys.path:
    sys.path.append(PACKAGES)  # where `tiny_models`, a user's own package, would lie in an image

from stage_contexts import DIGITS, build_context  # noqa: E402

collect_ignore = [] if torch.cuda.is_available() else ["test_gpu.py"]

MakeContext = Callable[..., StageContext]
RunStage = Callable[..., StageOutput]


@pytest.fixture(autouse=True, scope="module")
def users_image() -> Iterator[None]:
    """The image holds the package `tiny_models` and allows it; a pod shares its cores."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOMPRESS_FACTORIES", "tiny_models")
        patch.setenv("PYTHONPATH", PACKAGES)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(torch.backends.cudnn, "deterministic", True)  # else sums on a GPU come in any order
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data.load(Dataset.model_validate(DIGITS), tmp_path_factory.mktemp("digits"))


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    """See `stage_contexts.build_context`."""

    def make(stage: dict[str, Any], **fields: Any) -> StageContext:
        return build_context(tmp_path, stage, **fields)

    return make


@pytest.fixture
def run_stage(make_context: MakeContext) -> RunStage:
    """Run a stage in this process and return what it made."""

    def run(stage: dict[str, Any], **fields: Any) -> StageOutput:
        context = make_context(stage, **fields)
        output: StageOutput = registry.load("stages", context.input.kind, field="kind").run(context)
        return output

    return run
