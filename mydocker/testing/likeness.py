"""Filling a `FakeHost` after a real host: its hierarchies, the files that they have, and what those hold."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mydocker.cgroups.layout import Hierarchy
from mydocker.resources import parse_cpu_list
from mydocker.testing.hierarchy import FakeDirectory, FakeHierarchy
from mydocker.testing.kernel_file import KernelFile, keep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from mydocker.testing.host import FakeHost


def machine() -> dict[str, Any]:
    """What this machine offers, as the constructor of `FakeHost` takes it."""
    return {
        "cpus": _numbers("/sys/devices/system/cpu/possible"),
        "mems": _numbers("/sys/devices/system/node/possible"),
        "block_devices": _names("/sys/dev/block"),
        "huge_pages": [_size(name) for name in _names("/sys/kernel/mm/hugepages")],
        "rdma_devices": _names("/sys/class/infiniband"),
        "misc_resources": {},
    }


def _numbers(path: str) -> tuple[int, ...]:
    return parse_cpu_list(_content(path) or "0")


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _content(path: str) -> str | None:
    """None if there is no such file, or it cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None


def _size(name: str) -> str:
    """``hugepages-2048kB`` as the cgroup files call it: ``2MB``."""
    size, units = int(name.removeprefix("hugepages-").removesuffix("kB")), ["KB", "MB", "GB"]
    while size >= 1024 and len(units) > 1:
        size //= 1024
        units.pop(0)
    return f"{size}{units[0]}"


def imitate(host: FakeHost, real: Hierarchy, mountpoint: str, path: str) -> Hierarchy:
    """Make the hierarchy ``real`` again at ``mountpoint``, down to its base and what exists of the cgroup ``path``."""
    kernel_root = real.at_kernel_root
    made = FakeHierarchy(host, real.version, mountpoint, real.controllers, at_kernel_root=kernel_root)
    host.hierarchies.append(made)
    _learn_files(made, real)
    _copy(made.root, real.mountpoint)
    base = mountpoint + real.base[len(real.mountpoint) :]
    here, there = made.root, real.mountpoint
    for name in [*real.base[len(real.mountpoint) :].split("/"), *path.split("/")]:
        if name:
            there = f"{there}/{name}"
            if not os.path.isdir(there):
                break
            made.make(f"{here.path}/{name}")
            here = here.children[name]
            _copy(here, there)
    return Hierarchy(
        version=real.version, mountpoint=mountpoint, controllers=real.controllers, own=real.own, base=base
    )


def _learn_files(made: FakeHierarchy, real: Hierarchy) -> None:
    """Which files this kernel's cgroups have, as far as a cgroup that exists shows it."""
    for controller in real.controllers:
        sample = next(_cgroups_with(real, controller), None)
        if sample is None:
            continue
        there = {name for name in _names(sample) if name.startswith(f"{controller}.")}
        known = {file.name for file in made.files_of.get(controller, ()) if file.where != "root"}
        made.absent |= {name for name in known - there if name.startswith(f"{controller}.")}
        files = made.files_of.get(controller, ())
        made.files_of[controller] = (*files, *(KernelFile(name, "", keep) for name in sorted(there - known)))


def _cgroups_with(real: Hierarchy, controller: str) -> Iterator[str]:
    """Cgroups below the base that have the files of the controller."""
    for name in _names(real.base):
        directory = f"{real.base}/{name}"
        if os.path.isdir(directory):
            offered = _content(f"{directory}/cgroup.controllers")
            if real.version == 1 or controller in (offered or "").split():
                yield directory


def _copy(made: FakeDirectory, real: str) -> None:
    """The files that the real directory has, and what they hold."""
    for name in list(made.files):
        if name in ("cgroup.procs", "tasks", "cgroup.threads"):
            continue
        if not os.path.exists(f"{real}/{name}"):
            del made.files[name]
            os.unlink(f"{made.path}/{name}")
            continue
        content = _content(f"{real}/{name}")
        if content is not None:
            made.put(name, content)
    if made.hierarchy.version == 2 and not made.is_root:
        made.processes = [int(pid) for pid in (_content(f"{real}/cgroup.procs") or "").split()]
        made.refresh()
