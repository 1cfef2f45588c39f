"""`kompress verify`: the jobs' own program checks every byte of an artifact, reloads it in a clean process and tells what it measured."""

import json
import os
import pathlib
import subprocess
import sys

import typer

from kompress_api.contract import ENV_CREDENTIALS
from kompress_operator.cli.exits import Exit


def verify(uri: str, *, as_json: bool) -> None:
    """Ends the command with exit 1 where the artifact can't be trusted; the program has said why."""
    place = uri if "://" in uri else pathlib.Path(uri).absolute().as_uri()
    environment = {**os.environ, ENV_CREDENTIALS: os.environ.get(ENV_CREDENTIALS, "")}
    done = subprocess.run(
        [sys.executable, "-m", "kompress_jobs.verify", place], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise typer.Exit(Exit.FAILED)
    if as_json:
        print(done.stdout, end="")
        return
    for name, value in json.loads(done.stdout).items():
        print(f"{name}: {json.dumps(value) if isinstance(value, dict | list) else value}")
