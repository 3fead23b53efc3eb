"""Resource limits of each process (rlimits): ``--ulimit NAME=SOFT[:HARD]``.

What each means is in getrlimit(2). The names and the grammar are Docker's (docker/go-units, ulimit.go), with
``unlimited`` for -1 and ``as`` besides.
"""

from __future__ import annotations

import resource

from mydocker import LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup

    #: name, soft and hard limit
    Ulimit = tuple[str, int, int]

UNLIMITED = -1

NAMES = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": resource.RLIMIT_RTTIME,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}

#: Docker takes these, and the kernel no longer does anything with them (getrlimit(2)).
WITHOUT_EFFECT = {
    "locks": "the kernel has not bounded locks since Linux 2.4.25",
    "rss": "the kernel has not bounded the resident set since Linux 2.4.30; use --memory",
}

#: Below this the command cannot have its stdin, stdout and stderr.
FEWEST_FILES = 3


def parse_ulimit(text: str) -> Ulimit:
    """``nofile=1024:2048``; one number is both limits. RLIMIT_NOFILE, as the OCI runtime spec writes it, will do."""
    name, equals, values = text.strip().partition("=")
    name = name.removeprefix("RLIMIT_").lower() if name.startswith("RLIMIT_") else name
    if name in WITHOUT_EFFECT:
        raise ValueError(f"{name} cannot be put in force: {WITHOUT_EFFECT[name]}")
    if not equals or name not in NAMES:
        problem = f'"{name}" is not one of them' if equals else f'"{text}" has no "="'
        raise ValueError(f"{problem}: write NAME=SOFT[:HARD], as in nofile=1024:2048, with one of {', '.join(NAMES)}")
    soft, colon, hard = values.partition(":")
    lower = _parse_value(soft)
    upper = _parse_value(hard) if colon else lower
    if upper != UNLIMITED and (lower == UNLIMITED or lower > upper):
        raise ValueError(f"{name}: the soft limit, {soft}, is more than the hard limit, {hard}")
    if name == "nofile" and lower != UNLIMITED and lower < FEWEST_FILES:
        raise ValueError(f"nofile: {lower} is not enough for stdin, stdout and stderr: write {FEWEST_FILES} or more")
    return name, lower, upper


def rlimits_from_oci(rlimits: list[dict[str, Any]]) -> list[str]:
    return [f"{one['type']}={_from_unsigned(one['soft'])}:{_from_unsigned(one['hard'])}" for one in rlimits]


def _from_unsigned(value: int) -> int:
    """RLIM_INFINITY is the largest number that there is."""
    return UNLIMITED if value == (1 << 64) - 1 else value


def _parse_value(text: str) -> int:
    if text.strip() in ("-1", "unlimited"):
        return UNLIMITED
    value = parse_integer(text)
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{value} is not a limit: write a number from 0 on, or -1 for none")
    return value


def _written(value: int) -> str:
    return "unlimited" if value == UNLIMITED else str(value)


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="ulimit",
            flags=("--ulimit",),
            parse=parse_ulimit,
            metavar="NAME=SOFT[:HARD]",
            help="A limit of each process (getrlimit(2)), as in nofile=1024 or core=0:unlimited; may be repeated.",
            oci="process.rlimits",
            kind="multiple",
            from_oci=rlimits_from_oci,
            complete=" ".join(f"{name}=" for name in NAMES),
        ),
    )


@hookimpl
def mydocker_probe() -> Probe:
    return Probe()


def _wanted(config: ResourceConfig) -> dict[str, tuple[int, int]]:
    """By name. Of several for one name the last counts, as with ``docker run``."""
    return {name: (soft, hard) for name, soft, hard in config.get("ulimit", ())}


@hookimpl
def mydocker_validate(config: ResourceConfig) -> None:
    """Raising a hard limit takes CAP_SYS_RESOURCE, and nofile has a bound for everybody (getrlimit(2), proc(5))."""
    for name, (_, hard) in _wanted(config).items():
        present = resource.getrlimit(NAMES[name])[1]
        if name == "nofile" and (hard == UNLIMITED or hard > _nr_open()):
            raise LimitError(
                "ulimit", f"nofile={_written(hard)} is more than this kernel allows any process, {_nr_open()}: "
                "ask for less, or raise the sysctl fs.nr_open"
            )
        if _is_more(hard, present) and not _may_raise():
            raise _too_high(name, hard, present)


def _is_more(limit: int, than: int) -> bool:
    return than != UNLIMITED and (limit == UNLIMITED or limit > than)


def _too_high(name: str, hard: int, present: int) -> LimitError:
    return LimitError(
        "ulimit",
        f"{name}={_written(hard)} is more than the hard limit here, {_written(present)}, and mydocker may not raise it "
        f"without CAP_SYS_RESOURCE: ask for at most {_written(present)}",
    )


def _nr_open() -> int:
    with open("/proc/sys/fs/nr_open") as file:
        return int(file.read())


def _may_raise() -> bool:
    """Whether this process has CAP_SYS_RESOURCE, bit 24 (capabilities(7))."""
    with open("/proc/self/status") as file:
        effective = next((line.split()[1] for line in file if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> 24 & 1)


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    for name, limits in _wanted(config).items():
        cgroup.claim(f"rlimit {name}")
        _set(pid, name, limits)


def _set(pid: int, name: str, limits: tuple[int, int]) -> tuple[int, int]:
    """Set one limit of one process; what it was. ProcessLookupError if it has ended."""
    try:
        return resource.prlimit(pid, NAMES[name], limits)
    except PermissionError as e:
        present = resource.prlimit(pid, NAMES[name])[1]
        if _is_more(limits[1], present):
            raise _too_high(name, limits[1], present) from e
        raise LimitError("ulimit", f"{name}: this user may not change the limits of the container's processes") from e


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """For every process that there is; those to come inherit it. A limit that is not named any more stays as it is."""
    from mydocker.cgroups.members import each_process

    before = _wanted(previous)
    changed = {name: limits for name, limits in _wanted(config).items() if before.get(name) != limits}

    def change(process: int) -> None:
        for name, limits in changed.items():
            cgroup.on_undo(_putting_back(process, name, _set(process, name, limits)))

    each_process(cgroup, pid, change)


def _putting_back(pid: int, name: str, limits: tuple[int, int]) -> Callable[[], None]:
    def put_back() -> None:
        try:
            resource.prlimit(pid, NAMES[name], limits)
        except ProcessLookupError:
            pass

    return put_back


@hookimpl
def mydocker_explain(config: ResourceConfig) -> list[str]:
    return [
        f"prlimit(RLIMIT_{name.upper()}): soft {_written(soft)}, hard {_written(hard)}"
        for name, (soft, hard) in _wanted(config).items()
    ]
