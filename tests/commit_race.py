"""Several processes that commit the same work at the same moment, to any store; for the unit and the cluster tests.

Run as a program it is one of the writers:

    commit_race.py OUTPUT_JSON KEY ATTEMPT FOLDER GO

It says `ready`, waits until the file GO is there (so that all start at once), commits FOLDER and prints what it got.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kompress_api.places import Output


def race(output: Output, key: str, writers: int, folder: Path, environment: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """What each writer got; writer i commits files that nobody else has, as attempt i of one job."""
    go, processes = folder / "go", []
    for attempt in range(1, writers + 1):
        made = folder / f"made{attempt}"
        (made / "sub").mkdir(parents=True)
        (made / "model.safetensors").write_bytes(os.urandom(200_000))
        (made / "sub" / f"only-{attempt}.json").write_text(str(attempt))
        command = [sys.executable, __file__, output.model_dump_json(by_alias=True), key, str(attempt), str(made), str(go)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}))
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        go.touch()
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [json.loads(line) for line in said]


def write(output: str, key: str, attempt: str, folder: str, go: str) -> None:
    """Be a writer."""
    from kompress_jobs.storage import artifacts
    from kompress_jobs.storage.store import open_store

    store = open_store(Output.model_validate_json(output), "output", patience=60)
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.001)
    got = artifacts.commit(store, key, "uid", int(attempt), Path(folder), {"accuracy": float(attempt)}, {}, [])
    print(json.dumps({"folder": got.manifest.folder, "digest": got.digest, "reused": got.reused, "accuracy": got.metrics["accuracy"]}))


if __name__ == "__main__":
    write(*sys.argv[1:])
