"""Images from the project's own Dockerfiles, without a container engine and without a registry.

buildah builds them in a chroot. What a Dockerfile starts from can't be pulled here, so it takes its base as the build argument
`BASE_IMAGE`, and gets one that debootstrap makes of this machine's own Debian. An image whose inputs did not change is not built again:
its archive carries their digest in its name. The build uses the network, certificates and package index settings of this machine.
"""

import fcntl
import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from testcluster.places import BUILDS, REPOSITORY
from testcluster.processes import ClusterError

BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "no-index", "proxy", "default-timeout", "timeout", "retries")


def build(dockerfile: Path, tag: str, arguments: Mapping[str, str] | None = None, context: Path = REPOSITORY) -> Path:
    """Builds an image called `tag` and returns its docker archive, for `Cluster.load_image`.

    The tag needs a host part (`kompress.test/operator:1`): kubelets look for bare names elsewhere.

    Raises:
        ClusterError: a step of the build failed, with the end of its output.
    """
    if "." not in tag.split("/", maxsplit=1)[0]:
        raise ClusterError(f"the image name `{tag}` needs a host part, as in kompress.test/{tag}")
    if os.geteuid():
        raise ClusterError("building images needs root")
    BUILDS.mkdir(parents=True, exist_ok=True)
    with (BUILDS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base = _base()
        wanted = {**(arguments or {}), "BASE_IMAGE": base}
        name = re.sub(r"[^a-z0-9.]+", "-", tag)
        archive = BUILDS / f"{name}-{_digest(dockerfile, context, tag, wanted)}.tar"
        if not archive.exists():
            before = _image_id(tag)
            _bud(dockerfile, context, tag, wanted)
            if before and before != _image_id(tag):
                _buildah("rmi", before)  # else every change of a source would leave a few hundred MB
            for old in BUILDS.glob(f"{name}-{'[0-9a-f]' * 16}.tar*"):
                old.unlink()
            part = archive.with_suffix(".tar.part")
            _buildah("push", "--quiet", tag, f"docker-archive:{part}:{tag}")
            part.rename(archive)
    return archive


def copied_files(dockerfile: Path, context: Path) -> Iterator[Path]:
    """The files of the context that the Dockerfile's COPY lines name, without what Python leaves beside its sources."""
    for line in dockerfile.read_text().replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:1] != ["COPY"] or any(word.startswith("--from=") for word in words):
            continue
        for source in [word for word in words[1:-1] if not word.startswith("--")]:
            found = sorted(context.glob(source))
            if not found:
                raise ClusterError(f"{dockerfile}: `{line}` copies `{source}`, which is not in {context}")
            for path in found:
                inside = sorted(path.rglob("*")) if path.is_dir() else [path]
                yield from (file for file in inside if file.is_file() and "__pycache__" not in file.parts)


def _digest(dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr((tag, sorted(arguments.items()))).encode())
    digest.update(dockerfile.read_bytes())
    for file in copied_files(dockerfile, context):
        digest.update(f"\n{file.relative_to(context)} {file.stat().st_mode} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _bud(dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mounts = [f"--volume={source}:{target}:ro" for source, target in _index_settings(Path(folder))]
        build_arguments = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        _buildah(
            *("bud", "--layers", "--isolation=chroot", "--network=host", "--pull-never", "--format=docker"),
            *(*mounts, *build_arguments, f"--file={dockerfile}", f"--tag={tag}", str(context)),
        )


def _index_settings(folder: Path) -> Iterator[tuple[Path, str]]:
    """This machine's certificates and settings of pip and uv, as files to lay over those of the chroot: (source, target).

    They are mounted for the steps of the build only: nothing of them stays in the image.
    """
    bundle = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if bundle and Path(bundle).exists():
        yield Path(bundle).resolve(), CERTIFICATES
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    settings = dict(re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
    pip = {name: settings[name].replace(r"\n", " ") for name in PIP_OPTIONS if name in settings}
    for links in settings.get("find-links", "").split():
        if Path(links).is_dir():
            yield Path(links), links
        pip["find-links"] = f"{pip.get('find-links', '')} {links}".strip()
    (folder / "pip.conf").write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in {**pip, "cert": CERTIFICATES}.items()))
    yield folder / "pip.conf", "/etc/pip.conf"
    uv = ["system-certs = true"]
    if index := os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL") or pip.get("index-url"):
        uv.append(f'index-url = "{index}"')
    if extra := (os.environ.get("UV_INDEX") or os.environ.get("UV_EXTRA_INDEX_URL") or pip.get("extra-index-url", "")).split():
        uv.append(f"extra-index-url = {extra}")
    (folder / "uv.toml").write_text("\n".join(uv) + "\n")
    yield folder / "uv.toml", "/etc/uv/uv.toml"


def _base() -> str:
    """The image that stands for `python:3`: this machine's Debian release with its Python. Made once."""
    release = _debian_release()
    name = f"localhost/python:{release}-{hashlib.sha256(repr(BASE_PACKAGES).encode()).hexdigest()[:8]}"
    if _image_id(name):
        return name
    root = BUILDS / "debootstrap"
    shutil.rmtree(root, ignore_errors=True)
    _run("debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", release, str(root), _debian_mirror(release))
    shutil.rmtree(root / "var/cache/apt/archives")
    (root / "usr/bin/python").symlink_to("python3")  # as in the official image
    container = _buildah("from", "scratch").strip()
    _buildah("add", "--quiet", container, str(root), "/")
    _buildah("config", "--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "--cmd=python3", container)
    _buildah("commit", "--quiet", "--rm", "--format=docker", "--disable-compression", container, name)
    shutil.rmtree(root)
    return name


def _image_id(name: str) -> str:
    """Empty when there is no such image."""
    return _buildah("images", "--quiet", "--no-trunc", "--filter", f"reference={name}").strip()


def _debian_release() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found:
        raise ClusterError("/etc/os-release names no Debian release, and images are built on this machine's own")
    return found[1]


def _debian_mirror(release: str) -> str:
    sites = _run("apt-get", "indextargets", "--format", "$(SITE)", f"Codename: {release}", "Created-By: Packages").split()
    if not sites:
        raise ClusterError(f"apt knows no mirror of Debian's `{release}`: run `apt-get update`")
    return sites[0]


def _buildah(*arguments: str) -> str:
    storage = ("--root", str(BUILDS / "storage"), "--runroot", str(BUILDS / "run"), "--storage-driver", "overlay")
    return _run("buildah", *storage, *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout
