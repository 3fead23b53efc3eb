"""Whom the kernel kills first when memory runs out: ``--oom-score-adj``.

proc(5), /proc/PID/oom_score_adj. It counts within the container's own memory limit as well as on the whole host.
"""

from __future__ import annotations

from mydocker import LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker import ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup

#: include/uapi/linux/oom.h; the lowest one is "never".
VALUES = range(-1000, 1000 + 1)


def parse_oom_score_adj(text: str) -> int:
    value = parse_integer(text)
    if value not in VALUES:
        raise ValueError(f"{value} is not between {VALUES[0]} (never killed) and {VALUES[-1]} (killed first)")
    return value


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="oom_score_adj",
            flags=("--oom-score-adj",),
            parse=parse_oom_score_adj,
            metavar="N",
            help="How soon the kernel kills the container when memory runs out: -1000 for never, 1000 for first.",
            oci="process.oomScoreAdj",
        ),
    )


@hookimpl
def mydocker_probe() -> Probe:
    return Probe(files=("/proc/PID/oom_score_adj",))


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.claim("oom_score_adj")
    _write(pid, config["oom_score_adj"])


def _read(pid: int) -> int:
    with open(f"/proc/{pid}/oom_score_adj") as file:
        return int(file.read())


def _write(pid: int, value: int) -> None:
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(value))
    except PermissionError as e:
        raise LimitError(
            "oom_score_adj",
            f"{value} is below what the container was given, {_read(pid)}, and mydocker may not lower it "
            "without CAP_SYS_RESOURCE: ask for that or more",
        ) from e


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """For every process that there is; those to come inherit it."""
    from mydocker.cgroups.members import each_process

    def change(process: int) -> None:
        former = _read(process)
        _write(process, config["oom_score_adj"])
        cgroup.on_undo(lambda: _put_back(process, former))

    each_process(cgroup, pid, change)


def _put_back(pid: int, value: int) -> None:
    try:
        _write(pid, value)
    except (ProcessLookupError, FileNotFoundError):
        pass


@hookimpl
def mydocker_explain(config: ResourceConfig) -> tuple[str, ...]:
    return (f"write {config['oom_score_adj']} to /proc/PID/oom_score_adj",)
