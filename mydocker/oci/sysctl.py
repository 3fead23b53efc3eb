"""Kernel parameters of the container's own namespaces (``linux.sysctl``), written by the container's first process.

Through the host's /proc, before the container's root is ``/``, and through nothing that is mounted over a part of it:
a write to a file of somebody's choosing instead would go through, or would be lost (CVE-2025-52881). What a
parameter of the network, IPC and UTS namespaces is, the kernel decides by who opens it.
"""

from __future__ import annotations

import errno
import os

from mydocker.linux import mount, security
from mydocker.oci.config import sysctl_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from mydocker.step import Step


def plan(config: Mapping[str, Any]) -> tuple[tuple[str, bytes, bytes], ...]:
    """(name, path below /proc, value) of each parameter of a validated config."""
    wanted = (config.get("linux") or {}).get("sysctl") or {}
    return tuple(
        (name, b"sys/" + os.fsencode("/".join(sysctl_parts(name))), os.fsencode(value))
        for name, value in wanted.items()
    )


def write(proc: int, entries: Iterable[tuple[str, bytes, bytes]], step: Step) -> None:
    """Write them all. ``proc``: the host's /proc. OSError; see ``step``."""
    for name, path, value in entries:
        step.doing = f"set the sysctl {name}"
        fd = _open(proc, path)
        try:
            os.write(fd, value)
        finally:
            os.close(fd)


def _open(proc: int, path: bytes) -> int:
    """In a procfs of our own where the host's /proc/sys is covered, as it is for a runtime inside a container."""
    try:
        return security.open_in_procfs(proc, path)
    except OSError as e:
        if e.errno not in (errno.EXDEV, errno.EROFS):
            raise
    own = mount.new_filesystem(b"proc")
    try:
        return security.open_in_procfs(own, path)
    finally:
        os.close(own)
