"""Where the cgroup of a container of an engine is: ``linux.cgroupsPath`` (config-linux.md, "Cgroups Path").

A path that begins with ``/`` is one from the top of each hierarchy. Another one is below mydocker's own cgroup, and so
is that of a container without a path. With ``--systemd-cgroup`` it is ``SLICE:PREFIX:NAME``, and systemd makes it.
"""

from __future__ import annotations

import os

from mydocker.cgroups import creation
from mydocker.cgroups.group import DEFAULT_PARENT, ContainerCgroup
from mydocker.cgroups.layout import Layout
from mydocker.errors import OciError, UsageError
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Place(Value):
    """``path``: from the base of each hierarchy. ``unit``, ``slice``, ``properties``: of systemd, if that makes it."""

    path: str
    unit: str = ""
    slice: str = ""
    properties: tuple[Any, ...] = ()


def place_of(config: Mapping[str, Any], name: str, *, systemd: bool, layout: Layout | None = None) -> Place:
    """Where the cgroup of the container ``name`` is to be. OciError for what is no such place."""
    wanted = str((config.get("linux") or {}).get("cgroupsPath") or "")
    if systemd:
        from mydocker.oci.systemd import devices_of, from_annotations

        found = [*devices_of(config), *from_annotations(config.get("annotations") or {})]
        return _systemd_place(wanted, name).replace(properties=tuple(found))
    if not wanted:
        wanted = name
    if not wanted.startswith("/"):
        wanted = f"/{DEFAULT_PARENT}{os.path.normpath(f'/{wanted}')}"
    path = _below_base(os.path.normpath(wanted).lstrip("/"), layout)
    try:
        return Place(path=ContainerCgroup(layout or Layout.of(()), path).path)
    except UsageError as e:
        raise OciError(f"linux.cgroupsPath: {e}") from None


def _below_base(path: str, layout: Layout | None) -> str:
    """A plain user's base is a cgroup far below the top; a path through it is one from there."""
    for hierarchy in layout.hierarchies if layout is not None else ():
        base = hierarchy.base.removeprefix(hierarchy.mountpoint).strip("/")
        if base and path.startswith(f"{base}/"):
            return path.removeprefix(f"{base}/")
    return path


def _systemd_place(wanted: str, name: str) -> Place:
    slice_, prefix, unit = "", "mydocker", name
    if wanted:
        parts = wanted.split(":")
        if len(parts) != 3:
            raise OciError(
                f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "{wanted}" instead'
            )
        slice_, prefix, unit = parts
    slice_ = slice_ or ("system.slice" if os.geteuid() == 0 else "user.slice")
    if "/" in prefix + unit or not unit:
        raise OciError(f'linux.cgroupsPath: "{wanted}" does not name a unit: write slice:prefix:name')
    if not unit.endswith(".slice"):
        unit = f"{prefix}-{unit}.scope" if prefix else f"{unit}.scope"
    return Place(path=f"{expand_slice(slice_)}/{unit}".lstrip("/"), unit=unit, slice=slice_)


def expand_slice(name: str) -> str:
    """The cgroup of a slice: ``a-b.slice`` is ``a.slice/a-b.slice``, and ``-.slice`` the top (systemd.slice(5))."""
    if name == "-.slice":
        return ""
    stem = name.removesuffix(".slice")
    parts = stem.split("-")
    if stem == name or "/" in name or "" in parts:
        raise OciError(f"invalid slice name: {name}")
    return "/".join("-".join(parts[: count + 1]) + ".slice" for count in range(len(parts)))


def require_empty(place: Place, layout: Layout) -> None:
    """CgroupError if something runs in what is to be the container's cgroup."""
    for hierarchy in layout.hierarchies:
        creation.is_there(f"{hierarchy.base}/{place.path}")


def require_wanted(cgroup: ContainerCgroup, config: Mapping[str, Any]) -> None:
    """OciError if config.json says where the cgroup is to be, and a plain user may make it in no hierarchy."""
    wanted = (config.get("linux") or {}).get("cgroupsPath")
    if wanted and cgroup.layout.hierarchies and not cgroup.dirs:
        raise OciError(
            f"unable to apply cgroup configuration: linux.cgroupsPath: {wanted}: permission denied: leave it out, or "
            "use a cgroup that root has prepared or systemd has delegated"
        )


def give(cgroup: ContainerCgroup, config: Mapping[str, Any]) -> None:
    """Make the container's user the owner of its v2 cgroup, where it may write there (config-linux.md, "Cgroup
    ownership"): it has a cgroup namespace of its own, and /sys/fs/cgroup is not read-only in it.
    """
    linux = config.get("linux") or {}
    own = any(one["type"] == "cgroup" and not one.get("path") for one in linux.get("namespaces") or ())
    writable = any(
        one.get("type") == "cgroup"
        and os.path.normpath(one["destination"]) == "/sys/fs/cgroup"
        and "ro" not in (one.get("options") or ())
        for one in config.get("mounts") or ()
    )
    if own and writable and cgroup.has("cgroup"):
        from mydocker.oci.idmaps import host_id

        user = ((config.get("process") or {}).get("user") or {}).get("uid", 0)
        outside = host_id(int(user), linux.get("uidMappings"))
        cgroup.give(int(user) if outside is None else outside)


def make(place: Place, layout: Layout) -> ContainerCgroup:
    """Make the cgroup in every hierarchy; `ContainerCgroup.remove` is owed from now on.

    One that exists is taken if nothing runs in it, as runc has it. CgroupError if something does.
    """
    if place.unit:
        from mydocker.oci.systemd import Scope

        return Scope.make(place, layout)
    cgroup = ContainerCgroup(layout, place.path)
    cgroup.make_everywhere()
    return cgroup


def begun(place: Place, layout: Layout) -> ContainerCgroup:
    """The cgroup in the v2 hierarchy, where there is one, for the rest to follow (`ContainerCgroup.make_everywhere`).

    Not for one that systemd makes. The rest is as for `make`.
    """
    cgroup = ContainerCgroup(layout, place.path)
    cgroup.make_everywhere(version=2)
    return cgroup
