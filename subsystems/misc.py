"""Countable resources of the host that belong to no other controller: ``--misc RESOURCE=N``.

Which there are depends on the machine: ``sev`` and ``sev_es`` (keys for encrypted virtual machines) on AMD, ``tdx`` on
Intel. Kernel documentation: cgroup-v2.rst ("Misc"); misc.c. The files are the same on both versions.
"""

from __future__ import annotations

from mydocker import CgroupError, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.resources import parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout


def parse_misc(text: str) -> tuple[str, int | None]:
    """``sev=2``: the resource and how much of it; None for ``max``."""
    name, equals, number = text.strip().partition("=")
    if not equals or not name or name.split() != [name]:
        raise ValueError(f'"{text}" is not of the form RESOURCE=N, as in sev=2; N may be max')
    limit = None if number == "max" else parse_integer(number)
    if not 0 <= (limit or 0) < 1 << 63:
        raise ValueError(f"{number} is not between 0 and what the kernel can count")
    return name, limit


def misc_from_oci(text: str) -> list[str]:
    """Lines of ``RESOURCE N``, as misc.max takes them."""
    return ["=".join(line.split()) for line in text.splitlines() if line.strip()]


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="misc",
            flags=("--misc",),
            parse=parse_misc,
            metavar="RESOURCE=N",
            help="The most of a resource that the controller misc counts on this host, as in sev=2.",
            oci="linux.resources.unified.misc.max",
            kind="multiple",
            from_oci=misc_from_oci,
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("misc").version
    except CgroupError as e:
        return Probe(controllers=("misc",), problem=str(e))
    problem = "" if _capacity(layout) else "this host has no resource that the controller misc counts"
    return Probe(controllers=("misc",), version=version, files=("misc.max",), problem=problem)


def _capacity(layout: Layout) -> dict[str, int]:
    """What there is, and how much; the kernel tells in its root cgroup alone."""
    return layout.root("misc").get_content("capacity") or {}


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    layout.require_for("misc", config, "misc")
    capacity = _capacity(layout) if "misc" in config else {}
    whole = "misc" in config and layout.root("misc").has("misc.capacity")
    limits: dict[str, int | None] = {}
    for resource, limit in config.get("misc", ()):
        if whole and resource not in capacity:
            there = f"there are {', '.join(capacity)}" if capacity else "there is none at all"
            raise UnsupportedLimit("misc", f"this host has no resource {resource} for the controller misc; {there}")
        if limits.setdefault(resource, limit) != limit:
            raise LimitError("misc", f"the limit for {resource} is given twice, and not the same")


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("misc")
    for resource, limit in config["misc"]:
        controller.max = {resource: limit}


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    controller = cgroup.controller("misc")
    former, wanted = dict(previous.get("misc", ())), dict(config.get("misc", ()))
    for resource in {**former, **wanted}:
        before = {resource: former.get(resource)}
        # A file with lines for several resources is not put back as a whole.
        cgroup.on_undo(lambda before=before: setattr(controller, "max", before))  # type: ignore[misc]
        controller.max = {resource: wanted.get(resource)}


@hookimpl
def mydocker_account(cgroup: ContainerCgroup) -> None:
    if cgroup.layout.find("misc") and _capacity(cgroup.layout):
        cgroup.controller("misc")


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("misc", pid)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """How much of each resource the container has at the moment."""
    return dict(cgroup.controller("misc").current) if cgroup.has("misc") else {}
