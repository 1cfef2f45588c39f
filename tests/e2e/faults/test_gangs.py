"""One job on real nodes, with a real gang in real pods, and what happens to gangs: eviction, a killed rank, a killed operator,
suspension. It ends complete, and its status tells each attempt's end as it was.
"""

import json

from cluster.operating import Job, eventually
from testcluster.cluster import Connection

LONG = 600.0
"""Patience for what takes a training stage on two cores."""
OPERATOR = "kompress-system"


def create(job: Job) -> None:
    job.create(
        output=None,
        tracking=None,
        dataset={"source": "builtin://digits", "imageSize": 32},
        runtime={"nodes": 2, "processesPerNode": 1},
        restartPolicy={"maxRestarts": 2, "backoffSeconds": 1},
        stages=[{"name": "adapt", "fineTune": {"epochs": 12, "batchSize": 64, "learningRate": 1e-3, "checkpoint": {"everySteps": 5}}}],
    )


def wait_until_it_trains(job: Job, attempt: int) -> list[str]:
    """Both pods of the gang run, and a checkpoint of theirs is committed."""

    def pods() -> list[str]:
        found = [pod for pod in job.pods("adapt", attempt) if pod["status"]["phase"] == "Running"]
        return [pod["metadata"]["name"] for pod in found] if len(found) == 2 else []

    names = eventually(f"two pods of attempt {attempt} run", pods, LONG)
    client, uid = job.connection.s3.client(), job.manifest["metadata"]["uid"]

    def committed() -> bool:
        prefix, mark = "artifacts/checkpoints/", f"/{uid}-{attempt}/"
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="kompress", Prefix=prefix).get("Contents", [])]
        return any(mark in key and key.endswith("manifest.json") for key in keys)

    eventually(f"attempt {attempt} has a checkpoint", committed, LONG)
    return names


def test_a_job_survives_what_happens_to_gangs(operator: Connection, team: str) -> None:
    job = Job(operator, team)
    create(job)
    pods = wait_until_it_trains(job, 1)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pods[1], "namespace": team}}
    operator.kubectl("create", "--raw", f"/api/v1/namespaces/{team}/pods/{pods[1]}/eviction", "-f", "-", stdin=json.dumps(eviction))

    pods = wait_until_it_trains(job, 2)
    first = job.stage("adapt")["attempts"][0]
    assert (first["outcome"], first["pod"], first["spentRestart"]) == ("Evicted", pods_of(first), False)
    job.kubectl("exec", pods[0], "--", "pkill", "-9", "-f", "kompress_jobs.worker")

    wait_until_it_trains(job, 3)
    second = job.stage("adapt")["attempts"][1]
    assert (second["rank"], second["spentRestart"], job.status["restarts"]) == (0, True, 1)
    operator.kubectl("delete", "pods", "--all", f"--namespace={OPERATOR}", "--grace-period=0", "--force")
    job.patch({"suspend": True})
    operator.kubectl("wait", f"--namespace={team}", "--for=condition=Suspended", "compressionjob/flowers", "--timeout=180s")
    assert job.pods("adapt", 3) == []
    job.patch({"suspend": False})

    eventually("the job has ended", lambda: job.phase in ("Complete", "Failed"), LONG)
    status = job.status
    assert status["phase"] == "Complete", json.dumps(status, indent=1)
    attempts = job.stage("adapt")["attempts"]
    assert [attempt["outcome"] for attempt in attempts][2:] == ["Cancelled", "Succeeded"]
    assert status["restarts"] == 1
    assert {entry["name"]: len(entry["attempts"]) for entry in status["stages"]} == {"preflight": 1, "adapt": 4, "report": 1}


def pods_of(attempt: dict[str, object]) -> str:
    """The pod that an attempt blames: it must be one of its own."""
    name = str(attempt["pod"])
    assert name.startswith("flowers-adapt-1-1-")
    return name
