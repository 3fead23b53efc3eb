"""A container without a mount namespace of its own: its mounts are made in the host's, and somebody must remove them.

They all hang on one mount, a bind of the rootfs over itself. It is known by that when the container is gone, since who
was killed cannot have noted what he had mounted.
"""

from __future__ import annotations

import os

from mydocker.errors import OciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def are_private(config: Mapping[str, Any]) -> bool:
    """Whether the container has a mount namespace that is not the runtime's."""
    for entry in config.get("linux", {}).get("namespaces", ()):
        if entry["type"] == "mount":
            return not entry.get("path") or not _is_own(entry["path"])
    return False


def _is_own(path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.stat("/proc/self/ns/mnt"))
    except OSError:
        return False


def check(config: Mapping[str, Any]) -> None:
    """OciError for what would change the mounts of the host."""
    if config.get("linux", {}).get("rootfsPropagation"):
        raise OciError("unable to set rootfs propagation without a private MNT namespace")


def remove(config: Mapping[str, Any], bundle: str) -> None:
    """Take away what a container without a mount namespace has mounted, once it has ended."""
    if not config.get("root") or are_private(config):
        return
    rootfs = os.fsencode(os.path.realpath(os.path.join(bundle, config["root"]["path"])))
    from mydocker.linux import oldmount

    try:
        if _is_bound_over_itself(rootfs):
            oldmount.detach(rootfs)
    except OSError as e:
        raise OciError(f"cannot unmount {os.fsdecode(rootfs)}: {(e.strerror or '').lower()}") from e


def _is_bound_over_itself(path: bytes) -> bool:
    from mydocker.mount_parts import unescape

    mounts = {}
    top = None
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            number, parent, device, root, mountpoint = line.split(b" ", 5)[:5]
            mounts[number] = (device, unescape(root), unescape(mountpoint))
            if mounts[number][2] == path:
                top = (number, parent)
    if top is None or top[1] not in mounts:
        return False
    device, root, _ = mounts[top[0]]
    below_device, below_root, below = mounts[top[1]]
    inside = os.path.relpath(path, below)
    return device == below_device and root == os.path.normpath(os.path.join(below_root, inside))
