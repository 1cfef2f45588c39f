"""What a fresh Debian lacks beside Python, Go and make, checked first and installed with apt-get when that is allowed."""

import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from testcluster.processes import ClusterError

PACKAGES = {  # package: a program or file that shows it is there
    "gcc": "gcc",
    "libc6-dev": "/usr/include/stdlib.h",
    "pkg-config": "pkg-config",
    "libseccomp-dev": "/usr/include/seccomp.h",  # runc cannot start a pod sandbox without it
    "openssl": "openssl",
    "iproute2": "ip",
    "iptables": "iptables",
    "procps": "sysctl",
    "util-linux": "nsenter",
    "mount": "mount",
    "buildah": "buildah",  # images from Dockerfiles
    "debootstrap": "debootstrap",  # ... and the base that they start from
    "espeak-ng": "espeak-ng",  # speaks builtin://words and phrases
}


def missing(asked: Collection[str] = PACKAGES) -> list[str]:
    """Those of PACKAGES that are asked for and that this machine lacks."""

    def there(evidence: str) -> bool:
        return Path(evidence).exists() if evidence.startswith("/") else bool(shutil.which(evidence, path=search))

    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [package for package, evidence in PACKAGES.items() if package in asked and not there(evidence)]


def install(asked: Collection[str] = PACKAGES) -> list[str]:
    """Installs what is missing of `asked` and returns it; nothing is touched when nothing is missing.

    Raises:
        ClusterError: packages are missing and this is not root on Debian, or apt-get failed.
    """
    packages = missing(asked)
    if not packages:
        return []
    if os.geteuid() or not shutil.which("apt-get"):
        raise ClusterError(
            f"the tests need the packages {' '.join(packages)}: install them (names are Debian's), or run this as root on Debian"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return packages
