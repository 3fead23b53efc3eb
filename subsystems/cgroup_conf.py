"""Any file of the container's cgroup on v2, as the kernel takes it: ``--cgroup-conf KEY=VALUE``.

Kernel documentation: cgroup-v2.rst. For what no flag covers, such as ``memory.zswap.max=0`` or ``io.latency``.
"""

from __future__ import annotations

import os

from mydocker import CgroupError, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Hierarchy, Layout

_FIELD = "cgroup_conf"
#: The cgroup's own files, which are of no controller.
_CORE = "cgroup"
#: With these the runtime puts the container together and takes it apart.
_OURS = {
    "cgroup.procs": "which processes are in the container's cgroup",
    "cgroup.threads": "which threads are in the container's cgroup",
    "cgroup.subtree_control": "which controllers the container's cgroup passes on",
    "cgroup.type": "of which kind the container's cgroup is",
    "cgroup.kill": "when the container is killed",
    "cgroup.freeze": "when the container is frozen",
}

_V1_NAMES = {"io": "blkio"}


def parse_setting(text: str) -> tuple[str, str]:
    """``memory.high=100m``: the file, and what is written to it as it stands."""
    key, equals, value = text.partition("=")
    controller, point, rest = key.strip().partition(".")
    if not (equals and controller and point and rest) or "/" in key or "\0" in text or key.split() != [key.strip()]:
        raise ValueError(f'"{text}" is not of the form KEY=VALUE with a file of cgroup v2, as in memory.high=1g')
    return key.strip(), value


def settings_from_oci(unified: dict[str, str]) -> list[str]:
    """What no other plugin has a field for. ValueError for a key that names no file of a controller."""
    for key in unified:
        controller, point, rest = key.partition(".")
        if not (controller and point and rest):
            raise ValueError(f"the specified key has not the form CONTROLLER.VALUE `{key}`")
    return [f"{key}={value}" for key, value in unified.items()]


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name=_FIELD,
            flags=("--cgroup-conf",),
            parse=parse_setting,
            metavar="KEY=VALUE",
            help="Write a file of the container's cgroup (v2) as it stands, as in memory.high=100000000.",
            oci="linux.resources.unified",
            kind="multiple",
            from_oci=settings_from_oci,
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    unified = _unified(layout)
    if unified is None:
        return Probe(controllers=(_CORE,), problem="it is for cgroup v2, and this host has none")
    files = tuple(f"{name}.*" for name in (_CORE, *sorted(unified.controllers)))
    return Probe(controllers=(_CORE,), version=2, files=files)


def _unified(layout: Layout) -> Hierarchy | None:
    return layout.find(_CORE)


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    for key, _ in config.get(_FIELD, ()):
        _require_controller(key, layout)
        if key in _OURS:
            raise LimitError(_FIELD, f"{key} is mydocker's own: with it, it decides {_OURS[key]}")


def _require_controller(key: str, layout: Layout) -> None:
    controller = key.partition(".")[0]
    unified = _unified(layout)
    if unified is None:
        raise UnsupportedLimit(_FIELD, f"{key} is a file of cgroup v2, and this host has v1 only: use a flag for it")
    if controller == _CORE or controller in unified.controllers:
        return
    if layout.find(_V1_NAMES.get(controller, controller)) is not None:
        raise UnsupportedLimit(
            _FIELD, f"{key} is a file of cgroup v2, and the controller {controller} is on v1 here: use a flag for it"
        )
    there = ", ".join(sorted(unified.controllers)) or "none"
    missing = f"the requested cgroup controller `{controller}` is not available; v2 has {there}"
    raise UnsupportedLimit(_FIELD, f"{key}: {missing}")


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    for key, value in config[_FIELD]:
        _write(cgroup, key, value)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """What is not named any more stays as it is: nobody knows the default of any file."""
    before = previous.get(_FIELD, ())
    for setting in config.get(_FIELD, ()):
        if setting not in before:
            _write(cgroup, *setting)


def _write(cgroup: ContainerCgroup, key: str, value: str) -> None:
    controller = cgroup.controller(key.partition(".")[0])
    if not controller.has(key):
        raise UnsupportedLimit(_FIELD, f"{key}: no such file or directory: there is {_writable(controller, key)}")
    if not os.stat(controller.filepath(key)).st_mode & 0o222:
        raise LimitError(_FIELD, f"{key} can only be read; what can be written is {_writable(controller, key)}")
    try:
        controller.set_property(key, value)
    except CgroupError as e:
        raise CgroupError(f"--cgroup-conf {key}: {e}", e.errno) from e


def _writable(controller: Controller, key: str) -> str:
    """The files of the same controller that take a value."""
    prefix = key.partition(".")[0] + "."
    names = [name for name in os.listdir(controller.path) if name.startswith(prefix) and name not in _OURS]
    return ", ".join(sorted(name for name in names if os.stat(controller.filepath(name)).st_mode & 0o222)) or "none"


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach(_CORE, pid)
