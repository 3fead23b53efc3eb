#!/usr/bin/env python3
"""Install Podman, Docker, containerd and runc from Debian where they are missing, and start none of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "vm"))

import debian

#: What shows that an engine is there, and its packages: without those that Debian only recommends it has no network.
PODMAN = {
    "/usr/bin/podman": ("podman", "conmon", "catatonit", "iptables"),
    "/usr/lib/podman/netavark": ("netavark", "aardvark-dns"),
}
DOCKER = {
    "/usr/sbin/dockerd": ("docker.io", "tini", "iptables"),
    "/usr/bin/docker": ("docker.io",),
    "/usr/bin/docker-compose": ("docker-compose",),
}
CONTAINERD = {"/usr/bin/ctr": ("containerd",)}
OTHERS = {"/usr/sbin/runc": ("runc",), "/usr/bin/curl": ("curl",)}


def install(tools: dict[str, tuple[str, ...]]) -> None:
    packages = {package for tool, packages in tools.items() if not Path(tool).exists() for package in packages}
    if packages:
        with services_stay_off():
            debian.install(*sorted(packages))


@contextmanager
def services_stay_off() -> Iterator[None]:
    """Debian starts the service of a package that it installs, unless this program forbids it (invoke-rc.d(8))."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


if __name__ == "__main__":
    try:
        install(PODMAN | DOCKER | CONTAINERD | OTHERS)
    except debian.DebianError as e:
        sys.exit(f"engines: {e}")
