"""A pod that is told nonsense says which variable is wrong, and ends for good (78)."""

import json

import pytest

from kompress_api.errors import InvalidManifest
from kompress_jobs.pod.environment import Pod

STAGE = {
    "job": {"name": "flowers", "uid": "u-1"},
    "kind": "preflight",
    "name": "preflight",
    "attempt": 2,
    "task": "image-classification",
    "seed": 0,
    "evaluation": {},
    "model": {"source": "timm://resnet18"},
    "dataset": {"source": "builtin://digits"},
    "output": {"uri": "file:///tmp/output"},
    "tracking": {"uri": "sqlite:////tmp/m.db"},
}


def environment(**variables: str) -> dict[str, str]:
    return {"KOMPRESS_STAGE": json.dumps(STAGE), **variables}


def test_one_pod_needs_nothing_but_its_stage():
    pod = Pod.read(environment(KOMPRESS_SCRATCH="/scratch"))
    assert (pod.index, pod.min_nodes, pod.max_nodes, pod.processes, pod.elastic) == (0, 1, 1, None, False)
    assert str(pod.scratch) == "/scratch/flowers-preflight-2-0"


def test_a_gang_knows_its_place_and_its_master():
    pod = Pod.read(
        environment(KOMPRESS_NODES="4", KOMPRESS_POD_INDEX="3", KOMPRESS_PROCESSES="8", KOMPRESS_MASTER="flowers-adapt-1-0.flowers:29500")
    )
    assert (pod.index, pod.max_nodes, pod.processes, pod.master_host, pod.master_port) == (3, 4, 8, "flowers-adapt-1-0.flowers", 29500)


def test_an_elastic_gang_has_bounds():
    pod = Pod.read(environment(KOMPRESS_NODES="2:5", KOMPRESS_MASTER="m:1"))
    assert (pod.min_nodes, pod.max_nodes, pod.elastic) == (2, 5, True)


@pytest.mark.parametrize(
    ("variables", "field", "words"),
    [
        ({"KOMPRESS_STAGE": ""}, "KOMPRESS_STAGE", "missing or empty"),
        ({"KOMPRESS_STAGE": "{"}, "KOMPRESS_STAGE", "Invalid JSON"),
        ({"KOMPRESS_STAGE": json.dumps({**STAGE, "kind": "melt"})}, "KOMPRESS_STAGE", "kind: Input should be 'preflight', 'fineTune'"),
        ({"KOMPRESS_STAGE": json.dumps({**STAGE, "sead": 1})}, "KOMPRESS_STAGE", "sead: Extra inputs are not permitted"),
        ({"KOMPRESS_STAGE": "x" * 70_000}, "KOMPRESS_STAGE", "more than 65536"),
        ({"KOMPRESS_NODES": "two"}, "KOMPRESS_NODES", "'two' is no whole number from 1 up"),
        ({"KOMPRESS_NODES": "3:2", "KOMPRESS_MASTER": "m:1"}, "KOMPRESS_NODES", "'2' is no whole number from 3 up"),
        ({"KOMPRESS_PROCESSES": "0"}, "KOMPRESS_PROCESSES", "'0' is no whole number from 1 up"),
        ({"KOMPRESS_POD_INDEX": "1"}, "KOMPRESS_POD_INDEX", "1 is no index of a gang of 1 pods"),
        ({"KOMPRESS_NODES": "2"}, "KOMPRESS_MASTER", "needs the address of rank 0"),
    ],
)
def test_what_is_wrong_is_named(variables, field, words):
    with pytest.raises(InvalidManifest) as caught:
        Pod.read(environment(**variables))
    assert caught.value.field == field
    assert words in caught.value.message
    assert caught.value.exit_code == 78
