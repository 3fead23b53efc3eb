"""In what order a disk serves the container: ``--io-priority CLASS[:LEVEL]``, or ``--ionice``.

ioprio_set(2). The io scheduler of the disk has to know priorities, as bfq and mq-deadline do; ``none`` does not.
"""

from __future__ import annotations

import errno
import os

from mydocker import LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.linux import scheduling
from mydocker.resources import parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup

CLASSES = {
    "rt": scheduling.IOPRIO_CLASS_RT,
    "be": scheduling.IOPRIO_CLASS_BE,
    "idle": scheduling.IOPRIO_CLASS_IDLE,
}
#: ionice(1) writes these out.
_LONG_NAMES = {"realtime": "rt", "best-effort": "be"}

LEVELS = range(8)
#: What a process of nice 0 has (ioprio_set(2)).
DEFAULT_LEVEL = 4


def parse_io_priority(text: str) -> tuple[str, int]:
    """``("be", 4)``. IOPRIO_CLASS_BE, as the OCI runtime spec writes it, will do."""
    name, colon, level = text.strip().partition(":")
    name = name.removeprefix("IOPRIO_CLASS_").lower() if name.startswith("IOPRIO_CLASS_") else name
    name = _LONG_NAMES.get(name, name)
    if name not in CLASSES:
        raise ValueError(f'"{name}" is not a class of io priority: write rt[:LEVEL], be[:LEVEL] or idle, as in be:7')
    if name == "idle":
        if colon and level != "0":
            raise ValueError("idle has no levels: write it alone")
        return name, 0
    value = parse_integer(level) if colon else DEFAULT_LEVEL
    if value not in LEVELS:
        raise ValueError(f"{value} is not a level between {LEVELS[0]} (first) and {LEVELS[-1]} (last)")
    return name, value


def io_priority_from_oci(priority: dict[str, Any]) -> str:
    name = str(priority["class"])
    return name if name == "IOPRIO_CLASS_IDLE" else f"{name}:{priority.get('priority', 0)}"


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="io_priority",
            flags=("--io-priority", "--ionice"),
            parse=parse_io_priority,
            metavar="CLASS[:LEVEL]",
            help="When a disk serves the container: rt (first), be or idle (when nobody else wants it), levels 0 to 7.",
            oci="process.ioPriority",
            from_oci=io_priority_from_oci,
            complete="rt be idle",
        ),
    )


@hookimpl
def mydocker_probe() -> Probe:
    return Probe(problem=_what_is_missing())


def _what_is_missing() -> str:
    try:
        scheduling.ioprio_get(0)
    except OSError as e:
        if e.errno == errno.ENOSYS:
            return "this kernel has no io priorities (CONFIG_BLOCK)"
        raise
    return ""


@hookimpl
def mydocker_validate(config: ResourceConfig) -> None:
    problem = _what_is_missing()
    if problem:
        raise UnsupportedLimit("io_priority", problem)


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.claim("io priority")
    _set(pid, config)


def _set(thread: int, config: ResourceConfig) -> None:
    name, level = config["io_priority"]
    try:
        scheduling.ioprio_set(thread, CLASSES[name], level)
    except PermissionError as e:
        raise LimitError(
            "io_priority", f"mydocker may not give the class {name} without CAP_SYS_NICE or CAP_SYS_ADMIN: ask for be"
        ) from e
    except ProcessLookupError:
        raise
    except OSError as e:
        raise LimitError("io_priority", f"the kernel refuses {name}:{level}: {os.strerror(e.errno or 0)}") from e


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """For every thread that there is; those to come inherit it."""
    from mydocker.cgroups.members import each_thread

    def change(thread: int) -> None:
        former = scheduling.ioprio_get(thread)
        _set(thread, config)
        cgroup.on_undo(_putting_back(thread, former))

    each_thread(cgroup, pid, change)


def _putting_back(thread: int, former: tuple[int, int]) -> Callable[[], None]:
    def put_back() -> None:
        try:
            scheduling.ioprio_set(thread, *former)
        except ProcessLookupError:
            pass

    return put_back


@hookimpl
def mydocker_explain(config: ResourceConfig) -> tuple[str, ...]:
    name, level = config["io_priority"]
    return (f"ioprio_set: class {name}" + ("" if name == "idle" else f", level {level}"),)
