"""What users of kubectl see of the API: refusals in plain words, columns, explanations, immutable fields."""

import copy
import json
from typing import Any

import pytest

import manifests
from cluster.operating import install_crds
from testcluster.cluster import ClusterError, Connection


@pytest.fixture(scope="module")
def api(control_plane: Connection) -> Connection:
    install_crds(control_plane)
    return control_plane


def create(api: Connection, manifest: dict[str, Any], *flags: str) -> str:
    return api.kubectl("create", *flags, "--filename=-", stdin=json.dumps(manifest))


def refused(api: Connection, *arguments: str, stdin: str | None = None) -> str:
    with pytest.raises(ClusterError) as caught:
        api.kubectl(*arguments, stdin=stdin)
    return str(caught.value)


@pytest.mark.parametrize("case", manifests.bad(), ids=lambda case: case.what)
def test_a_bad_manifest_is_refused_with_path_value_and_reason(api: Connection, case: manifests.Case) -> None:
    said = refused(api, "create", "--dry-run=server", "--filename=-", stdin=json.dumps(case.manifest))
    assert [sentence for sentence in case.says if sentence not in said] == [], said


def test_the_good_manifest_is_taken_and_shown_in_columns(api: Connection, namespace: str) -> None:
    create(api, manifests.good(), f"--namespace={namespace}")
    header, row = api.kubectl("get", "cmpj", f"--namespace={namespace}").splitlines()
    assert header.split() == ["NAME", "PHASE", "STAGE", "ATTEMPT", "PROGRESS", "ACCURACY", "SMALLER", "FASTER", "AGE"]
    assert row.split()[0] == "good"


def test_a_field_is_explained(api: Connection) -> None:
    said = api.kubectl("explain", "compressionjob.spec.stages.prune")
    assert "Share of channels, heads or layers to remove." in said
    assert "exactly one of pruningRatio, sparsity, pattern, constraints or search" in " ".join(said.split())
    assert "Pruning is done in this many steps with recovery in between. Default: `1`." in " ".join(said.split())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "task, seed, model, dataset and stages are immutable"),
        ({"stages": [{"name": "a", "fineTune": {"epochs": 9}}], "goals": []}, "task, seed, model, dataset and stages are immutable"),
        ({"goals": []}, "goals, baseline, output, tracking and runtimeRef are immutable"),
        ({"output": {"uri": "s3://other/place"}}, "goals, baseline, output, tracking and runtimeRef are immutable"),
        ({"suspend": True, "ttlSecondsAfterFinished": 60}, ""),
    ],
)
def test_what_runs_can_not_be_changed(api: Connection, namespace: str, change: dict[str, Any], said: str) -> None:
    create(api, manifests.good(), f"--namespace={namespace}")
    patch = ("patch", "cmpj", "good", f"--namespace={namespace}", "--type=merge", f"--patch={json.dumps({'spec': change})}")
    if said:
        assert said in refused(api, *patch)
    else:
        assert "patched" in api.kubectl(*patch)


def test_the_largest_legal_job_is_within_the_cost_of_its_rules(api: Connection, namespace: str) -> None:
    """32 stages that all refer to the first: the rules must not cost more than the API server grants."""
    big = copy.deepcopy(manifests.good())
    teachers = [{"from": "s0"}] * 8
    stages = [{"name": f"s{i}", "distill": {"teachers": teachers, "student": {"source": "timm://a"}, "epochs": 1}} for i in range(1, 32)]
    big["spec"] |= {"stages": [{"name": "s0", "fineTune": {"epochs": 1}}, *stages], "goals": [{"metric": "accuracy", "atLeast": 0.5}] * 16}
    assert "created" in create(api, big, f"--namespace={namespace}")
