"""A goal that is missed must be told as missed, and the stage that cost the most must be named."""

import pytest

import manifests
from kompress_api.goals import Goal
from kompress_api.judge import judge
from kompress_api.manifest import parse_spec
from kompress_api.stages.export import Export

FIGURES = {
    "adapt": {"accuracy": 0.98, "source.accuracy": 0.1},
    "student": {"accuracy": 0.975},
    "slim": {"accuracy": 0.972},
    "ship": {"accuracy": 0.972, "latencyP50Ms": 1.0, "baseline.latencyP50Ms": 6.0, "latencyP50Ms@ONNX/cpu2/8": 3.0},
}


def judged(goal: dict[str, object], figures: dict[str, dict[str, float]] = FIGURES, **spec: object):
    return judge(parse_spec(manifests.good()["spec"] | {"goals": [goal]} | spec), figures)[0]


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        ({"metric": "accuracy", "maxDegradation": 0.01}, True),
        ({"metric": "accuracy", "maxDegradation": 0.008}, True),
        ({"metric": "accuracy", "maxDegradation": 0.007}, False),
        ({"metric": "accuracy", "atLeast": 0.98}, False),
        ({"metric": "accuracy", "atLeast": 0.98, "stage": "adapt"}, True),
        ({"metric": "latencyP50Ms", "minImprovement": 6.0}, True),
        ({"metric": "latencyP50Ms", "minImprovement": 6.1}, False),
        ({"metric": "latencyP50Ms", "atMost": 1.0}, True),
        ({"metric": "modelSizeBytes", "atMost": 1e9}, False),  # nobody measured it
    ],
)
def test_bounds(goal: dict[str, object], met: bool) -> None:
    assert judged(goal).met is met


@pytest.mark.parametrize(
    ("bound", "met"),
    [({"maxDegradation": 0.03}, True), ({"maxDegradation": 0.01}, False), ({"atMost": 0.1}, False), ({"atMost": 0.12}, True)],
)
def test_fewer_words_wrong_is_better(bound: dict[str, float], met: bool) -> None:
    figures = {"adapt": {"wer": 0.1}, "ship": {"wer": 0.12}}
    assert judged({"metric": "wer", **bound}, figures, task="speech-recognition").met is met


def test_loss_is_told_along_the_way_from_the_baseline() -> None:
    result = judged({"metric": "accuracy", "maxDegradation": 0.01})
    assert {stage: round(loss, 4) for stage, loss in result.loss.items()} == {"student": -0.005, "slim": -0.003, "ship": 0.0}
    assert (result.value, result.baseline) == (0.972, 0.98)


def test_the_source_as_baseline_is_told_by_the_stage_that_began_with_it() -> None:
    assert judged({"metric": "accuracy", "minImprovement": 9.0}, baseline="source").met


def test_what_does_not_depend_on_a_target_or_its_batch_size_is_found_where_it_was_measured() -> None:
    """Quality is that of the kind of processor, sizes are those of the file."""
    export = Export.model_validate(
        {"formats": [{"type": "TorchExport"}], "targets": [{"device": "GPU", "batchSizes": [1, 64]}, {}, {"threads": 2, "batchSizes": [8]}]}
    )
    places = [{"target": "gpu", "batchSize": 64}, {"target": "cpu2"}]

    def names(metric: str) -> list[str]:
        return [Goal.model_validate({"metric": metric, "atLeast": 0, **place}).figure(export) for place in places]

    assert names("accuracy") == ["accuracy", "accuracy@TorchExport/cpu1/1"]
    assert names("macs") == ["macs", "macs"]
    assert names("latencyP50Ms") == ["latencyP50Ms@TorchExport/gpu/64", "latencyP50Ms@TorchExport/cpu2/8"]


def test_another_target_and_batch_size_have_their_own_figure() -> None:
    export = {"formats": [{"type": "ONNX"}], "targets": [{}, {"threads": 2, "batchSizes": [1, 8]}]}
    stages = [*manifests.good()["spec"]["stages"][:3], {"name": "ship", "export": export}]
    assert judged({"metric": "latencyP50Ms", "atMost": 4, "target": "cpu2", "batchSize": 8}, stages=stages).value == 3.0
    assert judged({"metric": "latencyP50Ms", "atMost": 4, "target": "cpu1"}, stages=stages).value == 1.0
