"""What a user reads, byte for byte: exit code, standard output, standard error."""

import json
import pathlib

import pytest
from typer.testing import CliRunner

import manifests
from kompress_operator.cli.app import app


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, manifest: object) -> str:
    pathlib.Path(name).write_text(json.dumps(manifest))
    return name


def transcript(*arguments: str, given: str | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, arguments, input=given, catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def test_a_valid_manifest() -> None:
    assert transcript("validate", write("good.yaml", manifests.good())) == (0, "good.yaml: CompressionJob good is valid\n", "")


def test_standard_input() -> None:
    assert transcript("validate", "-", given=json.dumps(manifests.good())) == (0, "-: CompressionJob good is valid\n", "")


def test_every_problem_of_every_file() -> None:
    wrong = manifests.good()
    wrong["spec"]["seed"] = -1
    wrong["spec"]["stages"][2]["prune"]["pruningRation"] = 0.5
    files = [write("wrong.yaml", wrong), write("good.yaml", manifests.good()), "absent.yaml"]
    assert transcript("validate", *files) == (
        2,
        "good.yaml: CompressionJob good is valid\n",
        "error: wrong.yaml: spec.seed: Invalid value: -1: spec.seed in body should be greater than or equal to 0\n"
        'error: wrong.yaml: unknown field "spec.stages[2].prune.pruningRation" (did you mean pruningRatio?)\n'
        "error: absent.yaml: absent.yaml can't be read: No such file or directory\n",
    )


def test_for_programs() -> None:
    wrong = manifests.good()
    wrong["spec"]["seed"] = -1
    code, out, err = transcript("validate", "--json", write("wrong.yaml", wrong), write("good.yaml", manifests.good()))
    assert (code, err) == (2, "")
    assert json.loads(out) == [
        {
            "file": "wrong.yaml",
            "valid": False,
            "objects": [],
            "problems": [
                {
                    "path": "spec.seed",
                    "message": "Invalid value: -1: spec.seed in body should be greater than or equal to 0",
                    "hint": "",
                }
            ],
        },
        {"file": "good.yaml", "valid": True, "objects": [{"kind": "CompressionJob", "name": "good"}], "problems": []},
    ]


def test_what_only_the_operator_could_refuse_is_refused_here_too() -> None:
    """The schema of the API server does not look into pod templates."""
    wrong = manifests.good()
    wrong["spec"]["stages"][1]["runtime"] = {"podTemplate": {"spec": {"containers": [{"name": "worker", "command": ["sh"]}]}}}
    assert transcript("validate", write("wrong.yaml", wrong)) == (
        2,
        "",
        "error: wrong.yaml: spec.stages[1].runtime.podTemplate.spec.containers[0].command: "
        "Invalid value: command of the container worker is set by the operator\n",
    )


def test_a_spec_over_its_limit() -> None:
    wrong = manifests.good()
    wrong["spec"]["model"]["arguments"] = {f"argument{index}": "x" * 900 for index in range(60)}
    code, out, err = transcript("validate", write("wrong.yaml", wrong))
    assert (code, out) == (2, "")
    assert err.startswith("error: wrong.yaml: the merged spec without podTemplates has ")
    assert "the limit is 32768 (shorten podTemplates or split the job in two)" in err


@pytest.mark.parametrize("command", ["run", "plan", "submit"])
def test_no_other_command_takes_what_is_not_valid(command: str) -> None:
    wrong = manifests.good() | {"kind": "CompresionJob"}
    path = write("wrong.yaml", wrong)
    arguments = [command, path] if command != "submit" else [command, path, "--context", "none"]
    code, out, err = transcript(*arguments)
    assert (code, out) == (2, "")
    assert err == (
        "error: wrong.yaml: apiVersion 'kompress.io/v1alpha1', kind 'CompresionJob' is not kompress.io/v1alpha1, "
        "CompressionJob or ClusterCompressionRuntime (did you mean CompressionJob?)\n"
    )
    assert not pathlib.Path("kompress-runs").exists(), "nothing is made for it"
