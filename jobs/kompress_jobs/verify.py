"""`python -m kompress_jobs.verify URI`: can this artifact be trusted, and does it still answer? Behind `kompress verify`.

Every byte is checked against the commit, the files are read back in a clean process (`reload.py`), and the answer is one JSON
object: what was committed, beside what that process measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from kompress_api.errors import KompressError
from kompress_api.places import ModelSource
from kompress_jobs.reload import SECONDS
from kompress_jobs.storage import artifacts, files


def main() -> int:
    """Print one JSON object; exit code 0, or that of the error."""
    parser = argparse.ArgumentParser(prog="python -m kompress_jobs.verify", description="Check an artifact and reload it.")
    parser.add_argument("uri", help="file:// or s3:// of an artifact's folder, or of the folder with its manifest.json")
    given = parser.parse_args()
    try:
        commit = artifacts.locate(ModelSource(source=given.uri), "model")
        with tempfile.TemporaryDirectory() as folder:
            files.download(commit.store, commit.prefix, Path(folder), commit.manifest.files)
            command = [sys.executable, "-m", "kompress_jobs.reload", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=False)
    except KompressError as error:
        print(f"{error.reason}: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    if done.returncode:
        return done.returncode
    committed = {
        "uri": commit.uri,
        "key": commit.key,
        "digest": commit.digest,
        "files": len(commit.manifest.files),
        "metrics": commit.metrics,
    }
    print(json.dumps(committed | {"reloaded": json.loads(done.stdout.strip().splitlines()[-1])}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
