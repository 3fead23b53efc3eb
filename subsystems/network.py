"""Marks for the packets of a container: ``--net-cls-classid`` and ``--net-prio``. cgroup v1 alone has them.

Kernel documentation: cgroup-v1/net_cls.rst, cgroup-v1/net_prio.rst. On v2, packets are told apart by their cgroup
itself (iptables -m cgroup --path, or an eBPF program).
"""

from __future__ import annotations

import errno
import os

from mydocker import CgroupError, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.resources import parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

#: field -> its controller, and the file
_FILES = {
    "net_cls_classid": ("net_cls", "net_cls.classid"),
    "net_prio": ("net_prio", "net_prio.ifpriomap"),
}
_LARGEST = (1 << 32) - 1
#: Of an interface's name, with the NUL at its end (include/uapi/linux/if.h, IFNAMSIZ).
_NAME_SIZE = 16
_INTERFACES = "/sys/class/net"


def parse_class(text: str) -> int:
    """``0x100001``, or ``10:1`` as tc(8) writes it, or a number: the handle of a class, major and minor of 16 bits."""
    major, colon, minor = text.strip().partition(":")
    try:
        if colon:
            numbers = (int(major, 16), int(minor, 16))
            if not all(0 <= number < 1 << 16 for number in numbers):
                raise ValueError
            return numbers[0] << 16 | numbers[1]
        value = int(text, 16) if text.strip().lower().startswith("0x") else parse_integer(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a class: write its handle, as in 10:1 or 0x100001') from None
    if not 0 <= value <= _LARGEST:
        raise ValueError(f"{text.strip()} is not between 0 and 0x{_LARGEST:x}")
    return value


def parse_priority(text: str) -> tuple[str, int]:
    """``eth0=5``: an interface, and the priority of what leaves by it."""
    name, equals, number = text.strip().partition("=")
    if not equals or not name or "/" in name or len(os.fsencode(name)) >= _NAME_SIZE or name.split() != [name]:
        raise ValueError(f'"{text}" is not of the form INTERFACE=N, as in eth0=5')
    priority = parse_integer(number)
    if not 0 <= priority <= _LARGEST:
        raise ValueError(f"{priority} is not between 0 and {_LARGEST}")
    return name, priority


def class_from_oci(number: int) -> str | None:
    """0 is not set."""
    return str(number) if number else None


def priorities_from_oci(priorities: list[dict[str, Any]]) -> list[str]:
    return [f"{one['name']}={one['priority']}" for one in priorities]


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="net_cls_classid",
            flags=("--net-cls-classid",),
            parse=parse_class,
            metavar="HANDLE",
            help="The class that the container's packets have for tc and iptables, as in 10:1. cgroup v1 only.",
            oci="linux.resources.network.classID",
            from_oci=class_from_oci,
        ),
        ResourceField(
            name="net_prio",
            flags=("--net-prio",),
            parse=parse_priority,
            metavar="INTERFACE=N",
            help="The priority of the container's packets on an interface, as in eth0=5; may be repeated. "
            "cgroup v1 only.",
            oci="linux.resources.network.priorities",
            kind="multiple",
            from_oci=priorities_from_oci,
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    there = [(controller, file) for controller, file in _FILES.values() if layout.version(controller) == 1]
    missing = [controller for controller, _ in _FILES.values() if layout.version(controller) != 1]
    return Probe(
        controllers=tuple(controller for controller, _ in _FILES.values()),
        version=1 if there else None,
        files=tuple(file for _, file in there),
        problem=_absent(layout, missing[0]) if missing else "",
    )


def _absent(layout: Layout, controller: str) -> str:
    from mydocker.cgroups.absence import explain

    if any(hierarchy.version == 1 for hierarchy in layout.hierarchies):
        return explain(layout, controller)
    return f"cgroup v2, which this host has, has no {controller}: tell its packets apart by their cgroup"


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    for field, (controller, _) in _FILES.items():
        if field in config and layout.version(controller) != 1:
            raise UnsupportedLimit(field, _absent(layout, controller))
    for name in dict(config.get("net_prio", ())):
        if os.path.isdir(_INTERFACES) and not os.path.exists(f"{_INTERFACES}/{name}"):
            there = ", ".join(sorted(os.listdir(_INTERFACES)))
            raise LimitError("net_prio", f"this host has no interface {name}; it has {there}")


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    _change(config, {}, cgroup)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """Of an interface that is not named any more, the priority of the cgroup above."""
    _change(config, previous, cgroup)


def _change(config: ResourceConfig, previous: ResourceConfig | dict[str, Any], cgroup: ContainerCgroup) -> None:
    if config.get("net_cls_classid") != previous.get("net_cls_classid"):
        cgroup.controller("net_cls").set_property("net_cls.classid", config.get("net_cls_classid", 0))
    wanted, former = dict(config.get("net_prio", ())), dict(previous.get("net_prio", ()))
    for name in {**former, **wanted}:
        if wanted.get(name) != former.get(name):
            _prioritize(cgroup, name, wanted.get(name, 0))


def _prioritize(cgroup: ContainerCgroup, name: str, priority: int) -> None:
    controller = cgroup.controller("net_prio")
    former = _priorities(controller).get(name, "0")
    cgroup.on_undo(lambda: controller.set_property("net_prio.ifpriomap", f"{name} {former}"))
    try:
        controller.set_property("net_prio.ifpriomap", f"{name} {priority}")
    except CgroupError as e:
        if e.errno != errno.ENODEV:
            raise
        raise LimitError("net_prio", f"there is no interface {name} in the network namespace of mydocker") from e


def _priorities(controller: Controller) -> dict[str, str]:
    lines = (line.rsplit(" ", 1) for line in controller.get_property("net_prio.ifpriomap").splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2}


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    for field, (controller, _) in _FILES.items():
        if field in config:
            cgroup.attach(controller, pid)
