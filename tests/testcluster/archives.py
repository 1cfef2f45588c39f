"""Image archives without a container engine: one OCI layer made of a few small files, and its config.

Two are made here: the sandbox of every pod, and a root without programs for pods with `runtimeClassName: host`, which take them from
the host. Images with content come from Dockerfiles: see `images.py`.
"""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

from testcluster.places import BIN

PAUSE = "kompress.test/pause:1"
HOST = "kompress.test/host:1"
"""Its PATH starts with the programs of the Python environment that runs the test cluster. Names need a host part, or kubelets
would look for them elsewhere."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def write_defaults(folder: Path) -> None:
    """The archives that every node of the cluster in `folder` imports when it starts."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    pause = (BIN / "pause").read_bytes()
    write(images / "pause.tar", PAUSE, [(_member("pause", mode=0o755), pause)], path=SYSTEM_PATH, command=["/pause"])
    path = f"{Path(sys.executable).parent}:{SYSTEM_PATH}"
    write(images / "host.tar", HOST, _host_files(), path=path, command=["/bin/sh"])


def write(out: Path, name: str, files: list[tuple[tarfile.TarInfo, bytes]], *, path: str, command: list[str]) -> None:
    """Writes the OCI archive `out` of an image called `name`."""
    layer = _tar(files)
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layer_blob = blob("layer.v1.tar", layer)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command, "Env": [f"PATH={path}"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [layer_blob],
    }
    entry = {**blob("manifest.v1+json", json.dumps(manifest).encode()), "annotations": {"io.containerd.image.name": name}}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    out.write_bytes(_tar([(_member(path), data) for path, data in blobs.items()]))


def _tar(files: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in files:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _member(name: str, *, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    return info


def _host_files() -> list[tuple[tarfile.TarInfo, bytes]]:
    contents = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
        "etc/group": b"root:x:0:\nuser:x:1000:\n",
        "etc/nsswitch.conf": b"hosts: files dns\n",
    }
    folders = ("etc", "usr", "root", "home", "home/user", "tmp", "var", "var/tmp", "opt", "run")
    files = [(_member(name, mode=0o1777 if name.endswith("tmp") else 0o755, kind=tarfile.DIRTYPE), b"") for name in folders]
    files += [(_member(name, kind=tarfile.SYMTYPE, link=f"usr/{name}"), b"") for name in ("bin", "sbin", "lib", "lib64")]
    return files + [(_member(name), data) for name, data in contents.items()]
