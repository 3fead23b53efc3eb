"""``--disk``: how much a container may write over its root, with ``--overlay``.

What is written goes to a file system of its own, of the size that was asked for, in place of the tmpfs that
``--overlay`` has else. The container gets ENOSPC when it is full. Nobody but this container can fill it, and the
kernel drops it whole when the last process has ended, in whatever way.
"""

from __future__ import annotations

import os

from mydocker import Amendment, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.resources import format_size, parse_size
from mydocker_disk import backing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.spec import Spec

MYDOCKER_API = 1

#: Bytes. The tables of ext4 want some room themselves.
MINIMUM = 1 << 20

BACKINGS = ("image", "tmpfs", "auto")

#: Container's cgroup path to a descriptor of its file system, for the figures.
_mounted: dict[str, int] = {}


def parse_disk_size(text: str) -> int:
    size = parse_size(text)
    if size < MINIMUM:
        raise ValueError(f'"{text}" is less than the minimum, {format_size(MINIMUM)}')
    if size > backing.MAXIMUM:
        raise ValueError(f'"{text}" is more than the maximum, {format_size(backing.MAXIMUM)}')
    return size


def parse_backing(text: str) -> str:
    word = text.strip()
    if word not in BACKINGS:
        raise ValueError(f'"{text}" is none of {", ".join(BACKINGS)}')
    return word


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="disk",
            flags=("--disk",),
            parse=parse_disk_size,
            metavar="SIZE",
            help="The most bytes that the container may have written over its root with --overlay, as in 1g.",
        ),
        ResourceField(
            name="disk_backing",
            flags=("--disk-backing",),
            parse=parse_backing,
            metavar="KIND",
            help="Where --disk keeps them: image (default), a file on the host's disk; tmpfs, memory; auto, the first "
            "of both that this host can make.",
            complete=" ".join(BACKINGS),
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    return Probe(problem=backing.image_problem())


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    problem = backing.image_problem() if config.get("disk_backing", "image") == "image" else ""
    if problem:
        field = "disk" if "disk" in config else "disk_backing"  # best-effort limits drop one after the other
        raise UnsupportedLimit(field, f"{problem}; --disk-backing tmpfs keeps it in memory instead")
    if "disk" not in config:
        raise LimitError("disk_backing", "it says where --disk keeps what is written: give that too")


@hookimpl
def mydocker_amend(config: ResourceConfig, spec: Spec, cgroup: ContainerCgroup) -> Amendment:
    if not spec.overlay:
        raise LimitError("disk", "it needs --overlay: without that the container writes to the host's own files")
    try:
        upper = _make_upper(config)
    except OSError as e:
        reason = f"{os.strerror(e.errno)}: {e.filename}" if e.errno and e.filename else e.strerror or str(e)
        raise LimitError("disk", f"cannot make a file system of {format_size(config['disk'])}: {reason}") from e
    # A second descriptor keeps the file system until the figures are read, after the last process.
    _mounted[cgroup.path] = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=upper)
    return Amendment(upper=upper)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> Mapping[str, Any]:
    if "disk" not in config:
        return {}
    used = _used_bytes(cgroup, config["disk"])
    return {"disk_limit_bytes": config["disk"]} | ({} if used is None else {"disk_used_bytes": used})


@hookimpl
def mydocker_remove(cgroup: ContainerCgroup) -> None:
    mounted = _mounted.pop(cgroup.path, -1)
    if mounted >= 0:
        backing.discard(mounted)


@hookimpl
def mydocker_explain(config: ResourceConfig, layout: Layout) -> tuple[str, ...]:
    size = format_size(config["disk"])
    if _kind(config) == "tmpfs":
        return (f"mount a tmpfs of {size} as the upper layer of the overlay",)
    return (
        f"make a sparse file without a name in {backing.image_directory()}, with ext4 and {size} of room",
        "attach it to a loop device that the kernel clears, and mount that as the upper layer of the overlay",
    )


def _kind(config: ResourceConfig) -> str:
    kind: str = config.get("disk_backing", "image")
    if kind != "auto":
        return kind
    return "tmpfs" if backing.image_problem() else "image"


def _make_upper(config: ResourceConfig) -> int:
    if _kind(config) == "tmpfs":
        return backing.mount_tmpfs(config["disk"])
    return backing.mount_image(config["disk"])


def _used_bytes(cgroup: ContainerCgroup, limit: int) -> int | None:
    """What of the limit is taken. In another process than the runtime, which has no descriptor, the container's root
    is asked, as an overlay answers for its upper layer; None if no process of it is known.
    """
    if cgroup.path in _mounted:
        status = os.fstatvfs(_mounted[cgroup.path])
        return max(0, limit - status.f_bavail * status.f_frsize)
    for pid in cgroup.pids():
        try:
            status = os.statvfs(f"/proc/{pid}/root")
        except OSError:
            continue
        return max(0, limit - status.f_bavail * status.f_frsize)
    return None
