"""Builds the cluster's programs from pinned Go modules, into `places.BIN`.

Each folder of `programs/` pins one component in its go.mod and names its programs by `tool` directives; `pause` is a page of C.
A component whose sources and toolchain did not change is not touched again: its digest lies beside the programs.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from testcluster.places import BIN
from testcluster.processes import ClusterError

SOURCES = Path(__file__).with_name("programs")
# Versions that upstream's own build scripts stamp; without them the kubelet reports v0.0.0 and Helm v4.3.
STAMPS = {
    "containerd": ("github.com/containerd/containerd/v2", {"github.com/containerd/containerd/v2/version.Version": "{v}"}),
    "helm": ("helm.sh/helm/v4", {"helm.sh/helm/v4/internal/version.version": "{v}"}),
    "kubernetes": (
        "k8s.io/kubernetes",
        {
            f"k8s.io/component-base/version.{variable}": form
            for variable, form in {"gitVersion": "{v}", "gitMajor": "1", "gitMinor": "{minor}"}.items()
        },
    ),
    "versitygw": ("github.com/versity/versitygw", {"main.Version": "{v}"}),
}
RENAMED = {"server": "etcd"}  # Go names a program after its package


def build(report: Callable[[str], None]) -> None:
    """Builds what is missing or out of date; `report` gets one line per component.

    Raises:
        ClusterError: Go is missing, or a build failed (with the end of its output).
    """
    if not shutil.which("go"):
        raise ClusterError("no `go` on PATH: the test cluster's programs are built by Go 1.26.6 or newer")
    toolchain = _run("go", "version", folder=SOURCES)
    BIN.mkdir(parents=True, exist_ok=True)
    with (BIN / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two clones may share the cache
        _build_all(toolchain, report)


def _build_all(toolchain: str, report: Callable[[str], None]) -> None:
    for folder in sorted(path for path in SOURCES.iterdir() if path.is_dir()):
        record = BIN / f".{folder.name}"  # first line: digest; then the programs
        digest = _digest(folder, toolchain)
        known = record.read_text().splitlines() if record.exists() else []
        if known[:1] == [digest] and all((BIN / name).exists() for name in known[1:]):
            continue
        began = time.monotonic()
        programs = _build_pause(folder) if folder.name == "pause" else _build_module(folder)
        record.write_text("\n".join([digest, *programs]))
        report(f"{folder.name:14} {time.monotonic() - began:6.1f} s  {' '.join(programs)}")


def _digest(folder: Path, toolchain: str) -> str:
    digest = hashlib.sha256(toolchain.encode())
    for path in (*sorted(folder.iterdir()), Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _build_module(folder: Path) -> list[str]:
    flags = ["-s", "-w"]
    if folder.name in STAMPS:
        module, variables = STAMPS[folder.name]
        version = _run("go", "list", "-m", "-f", "{{.Version}}", module, folder=folder).strip()
        values = {name: form.format(v=version, minor=version.split(".")[1]) for name, form in variables.items()}
        flags += [f"-X {name}={value}" for name, value in values.items()]
    # runc enters namespaces in C, and cannot start a pod sandbox without libseccomp; all else is plain Go.
    cgo, tags = ("1", "seccomp") if folder.name == "runc" else ("0", "")
    packages = _run("go", "list", "tool", folder=folder).split()
    programs = []
    for package in packages:
        last, *rest = reversed(package.split("/"))
        name = rest[0] if last in ("v2", "v3", "v4") else last
        programs.append(RENAMED.get(name, name))
    part = BIN / f".part-{folder.name}"
    part.mkdir(exist_ok=True)
    _run(
        *("go", "build", "-trimpath", "-buildvcs=false", f"-tags={tags}", f"-ldflags={' '.join(flags)}"),
        *("-o", f"{part}/", "tool"),
        folder=folder,
        CGO_ENABLED=cgo,
    )
    for path in part.iterdir():  # renamed into place: a program in use is replaced, not overwritten
        path.rename(BIN / RENAMED.get(path.name, path.name))
    part.rmdir()
    return programs


def _build_pause(folder: Path) -> list[str]:
    _run("cc", "-Os", "-static", "-s", "-o", str(BIN / "pause"), "pause.c", folder=folder)
    return ["pause"]


def _run(*command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed in {folder}:\n{done.stderr[-3000:]}")
    return done.stdout
