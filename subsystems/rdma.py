"""How much of each RDMA device the container may use: ``--rdma 'DEVICE hca_handle=N hca_object=N'``.

Kernel documentation: cgroup-v1/rdma.rst, cgroup-v2.rst ("RDMA"). The files are the same on both versions.
"""

from __future__ import annotations

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

#: Handles of the device that are open, and objects made on it (queue pairs, memory regions).
RESOURCES = ("hca_handle", "hca_object")
_DEVICES = "/sys/class/infiniband"


def parse_rdma(text: str) -> tuple[str, dict[str, int | None]]:
    """``mlx5_0 hca_handle=2 hca_object=max``: the device, and the limits; None for ``max``."""
    device, *words = text.split() or [""]
    wrong = ValueError(f"\"{text}\" is not of the form 'DEVICE hca_handle=N hca_object=N'; N may be max")
    limits: dict[str, int | None] = {}
    for word in words:
        resource, equals, number = word.partition("=")
        if not equals or resource not in RESOURCES or resource in limits:
            raise wrong
        limits[resource] = None if number == "max" else parse_integer(number)
        if not 0 <= (limits[resource] or 0) < 1 << 31:
            raise ValueError(f"{resource}={number} is not between 0 and {(1 << 31) - 1}")
    if not limits or "=" in device or "/" in device:
        raise wrong
    return device, limits


def rdma_from_oci(devices: dict[str, dict[str, int]]) -> list[str]:
    keys = {"hcaHandles": "hca_handle", "hcaObjects": "hca_object"}
    texts = {
        device: " ".join(f"{keys[key]}={limits[key]}" for key in keys if limits.get(key) is not None)
        for device, limits in devices.items()
    }
    return [f"{device} {text}" for device, text in texts.items() if text]


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="rdma",
            flags=("--rdma",),
            parse=parse_rdma,
            metavar="'DEVICE KEY=N ...'",
            help="The most handles and objects of an RDMA device, as in 'mlx5_0 hca_handle=2 hca_object=2000'.",
            oci="linux.resources.rdma",
            kind="multiple",
            from_oci=rdma_from_oci,
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("rdma").version
    except CgroupError as e:
        return Probe(controllers=("rdma",), problem=str(e))
    problem = "" if _devices() else "this host has no RDMA device"
    return Probe(controllers=("rdma",), version=version, files=("rdma.max",), problem=problem)


def _devices() -> list[str]:
    try:
        return sorted(os.listdir(_DEVICES))
    except OSError:
        return []


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    layout.require_for("rdma", config, "rdma")
    known = _devices()
    seen = set()
    for device, _ in config.get("rdma", ()):
        if device not in known:
            there = f"there are {', '.join(known)}" if known else "there is none at all"
            raise UnsupportedLimit("rdma", f"this host has no RDMA device {device}; {there}")
        if device in seen:
            raise LimitError("rdma", f"the limits of {device} are given twice: give them in one value")
        seen.add(device)


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("rdma")
    for device, limits in config["rdma"]:
        _set(controller, device, limits)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    controller = cgroup.controller("rdma")
    unlimited = dict.fromkeys(RESOURCES)
    wanted, former = dict(config.get("rdma", ())), dict(previous.get("rdma", ()))
    for device in {**former, **wanted}:
        before = {**unlimited, **former.get(device, {})}
        # A file with lines for several devices is not put back as a whole.
        cgroup.on_undo(lambda device=device, before=before: _set(controller, device, before))  # type: ignore[misc]
        _set(controller, device, {**unlimited, **wanted.get(device, {})})


def _set(controller: Controller, device: str, limits: dict[str, int | None]) -> None:
    """The kernel takes one device for each write."""
    controller.max = {device: limits}


@hookimpl
def mydocker_account(cgroup: ContainerCgroup) -> None:
    if cgroup.layout.find("rdma") and _devices():
        cgroup.controller("rdma")


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("rdma", pid)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """For each RDMA device ``hca_handle`` and ``hca_object``, as they are at the moment."""
    if not cgroup.has("rdma"):
        return {}
    current = cgroup.controller("rdma").current
    return {device: {key: int(number) for key, number in of.items()} for device, of in current.items()}
