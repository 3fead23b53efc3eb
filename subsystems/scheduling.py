"""How the CPU scheduler treats the container's threads: ``--nice`` and ``--sched-policy``.

sched(7), sched_setattr(2), setpriority(2). The command starts with them, and what it starts inherits them.
"""

from __future__ import annotations

import errno
import os

from mydocker import LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.linux import scheduling
from mydocker.linux.scheduling import SchedAttr
from mydocker.resources import parse_duration, parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mydocker import Amendment, ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.spec import Spec

NICE = range(-20, 19 + 1)
#: What FIFO and RR take on Linux (sched(7)).
PRIORITY = range(1, 99 + 1)
#: Nanoseconds: what the kernel takes (sched_setattr(2), SCHED_DEADLINE).
SHORTEST_RUNTIME = 1024

POLICIES = {
    "other": scheduling.SCHED_OTHER,
    "batch": scheduling.SCHED_BATCH,
    "idle": scheduling.SCHED_IDLE,
    "fifo": scheduling.SCHED_FIFO,
    "rr": scheduling.SCHED_RR,
    "deadline": scheduling.SCHED_DEADLINE,
}

_GRAMMAR = "write other, batch, idle, fifo:PRIORITY, rr:PRIORITY or deadline:RUNTIME/DEADLINE/PERIOD"


def parse_nice(text: str) -> int:
    value = parse_integer(text)
    if value not in NICE:
        raise ValueError(f"{value} is not between {NICE[0]} (the most CPU time) and {NICE[-1]} (the least)")
    return value


def parse_sched_policy(text: str) -> tuple[int | str, ...]:
    """``("batch",)``, ``("fifo", 10)``, ``("deadline", 10000000, 30000000, 100000000)``, which are nanoseconds.

    SCHED_FIFO, as the OCI runtime spec writes it, will do.
    """
    name, colon, parameters = text.strip().partition(":")
    name = name.removeprefix("SCHED_").lower() if name.startswith("SCHED_") else name
    if name not in POLICIES:
        raise ValueError(f'"{name}" is not a scheduling policy: {_GRAMMAR}')
    if name == "deadline":
        return (name, *_parse_deadline(parameters))
    if name not in ("fifo", "rr"):
        if colon:
            raise ValueError(f"{name} takes nothing after it: {_GRAMMAR}")
        return (name,)
    priority = parse_integer(parameters) if parameters else 0
    if priority not in PRIORITY:
        raise ValueError(f"{name} needs a priority between {PRIORITY[0]} and {PRIORITY[-1]}, as in {name}:10")
    return name, priority


def _parse_deadline(text: str) -> tuple[int, int, int]:
    parts = text.split("/")
    if len(parts) != 3:
        raise ValueError(f'"{text}" is not RUNTIME/DEADLINE/PERIOD: write three durations, as in 10ms/30ms/100ms')
    runtime, deadline, period = (round(parse_duration(part) * 1e9) for part in parts)
    if not SHORTEST_RUNTIME <= runtime <= deadline <= period:
        raise ValueError("the runtime must be 2us or more, the deadline no less than it, the period no less than that")
    return runtime, deadline, period


def policy_from_oci(scheduler: dict[str, Any]) -> str | None:
    """The spec's times are nanoseconds."""
    if scheduler.get("flags"):
        raise ValueError("flags of the scheduler cannot be combined with an annotation")
    policy = scheduler.get("policy")
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        return f"{policy}:{scheduler.get('priority', 0)}"
    if policy == "SCHED_DEADLINE":
        times = (int(scheduler.get(key, 0)) for key in ("runtime", "deadline", "period"))
        return f"{policy}:{'/'.join(f'{time // 1000}.{time % 1000:03}us' for time in times)}"
    return str(policy) if policy else None


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="nice",
            flags=("--nice",),
            parse=parse_nice,
            metavar="N",
            help="Its share of the CPU time beside others: -20 for the most, 19 for the least, 0 for the ordinary.",
            oci="process.scheduler.nice",
        ),
        ResourceField(
            name="sched_policy",
            flags=("--sched-policy",),
            parse=parse_sched_policy,
            metavar="POLICY",
            help="other, batch, idle, fifo:PRIORITY, rr:PRIORITY or deadline:RUNTIME/DEADLINE/PERIOD.",
            oci="process.scheduler",
            from_oci=policy_from_oci,
            complete="other batch idle fifo: rr: deadline:",
        ),
    )


@hookimpl
def mydocker_probe() -> Probe:
    return Probe()


@hookimpl
def mydocker_validate(config: ResourceConfig) -> None:
    policy = config.get("sched_policy", ("other",))[0]
    if "nice" in config and policy not in ("other", "batch"):
        raise LimitError("nice", f"it has no meaning for {config.flag('sched_policy')} {policy}")
    if "sched_policy" not in config:
        return
    try:
        scheduling.sched_getattr(0)
        os.sched_get_priority_max(POLICIES[policy])
    except OSError as e:
        if e.errno in (errno.ENOSYS, errno.EINVAL):
            raise UnsupportedLimit("sched_policy", f"this kernel does not have the policy {policy}") from e
        raise


@hookimpl
def mydocker_amend(config: ResourceConfig, spec: Spec) -> Amendment | None:
    """A thread of DEADLINE may not fork (sched(7)), and the reaper of ``--init`` has to."""
    if spec.init and config.get("sched_policy", ("",))[0] == "deadline":
        raise LimitError("sched_policy", "deadline cannot be combined with --init: such a process may not fork")
    return None


def _attributes(config: ResourceConfig, present: SchedAttr) -> SchedAttr:
    """What the thread that has ``present`` is to get. What is not set stays, but for what has no meaning any more."""
    policy, *parameters = config.get("sched_policy", ("",))
    nice = config.get("nice", present.nice)
    if not policy:
        # A slice that the kernel chose is not to become a slice that was asked for.
        return present.replace(nice=nice, runtime=0)
    if policy == "deadline":
        runtime, deadline, period = parameters
        return SchedAttr(policy=POLICIES[policy], runtime=runtime, deadline=deadline, period=period)
    return SchedAttr(policy=POLICIES[policy], nice=nice, priority=parameters[0] if parameters else 0)


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.claim("scheduling policy")
    _set(pid, config)


def _set(thread: int, config: ResourceConfig) -> SchedAttr:
    """Set what ``config`` says; what it was. ProcessLookupError if the thread has ended."""
    present = scheduling.sched_getattr(thread)
    try:
        scheduling.sched_setattr(thread, _attributes(config, present))
    except ProcessLookupError:
        raise
    except OSError as e:
        field = "sched_policy" if "sched_policy" in config else "nice"
        raise LimitError(field, _reason(e.errno or 0, config.get("sched_policy", ("other",))[0])) from e
    return present


def _reason(number: int, policy: str) -> str:
    """What a refusal of sched_setattr(2) means for the user."""
    if policy not in ("fifo", "rr", "deadline"):
        return "mydocker may not raise the priority of the container without CAP_SYS_NICE"
    if number == errno.EBUSY:
        return "the kernel cannot guarantee that much CPU time beside what it has guaranteed already: ask for less"
    if number != errno.EPERM:
        return f"the kernel refuses {policy}: {os.strerror(number)}"
    if policy == "deadline":
        return (
            "the kernel refuses deadline: it takes CAP_SYS_NICE, and a container that may run on every CPU "
            "(sched(7)), so without --cpuset-cpus"
        )
    return (
        f"the kernel refuses {policy}: it takes CAP_SYS_NICE, and in a cgroup v1 with cpu.rt_runtime_us a share of it "
        "(--cpu-rt-runtime)"
    )


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """For every thread that there is; those to come inherit it."""
    from mydocker.cgroups.members import each_thread

    def change(thread: int) -> None:
        former = _set(thread, config)
        cgroup.on_undo(_putting_back(thread, former))

    each_thread(cgroup, pid, change)


def _putting_back(thread: int, former: SchedAttr) -> Callable[[], None]:
    def put_back() -> None:
        try:
            scheduling.sched_setattr(thread, _restored(former))
        except ProcessLookupError:
            pass

    return put_back


def _restored(former: SchedAttr) -> SchedAttr:
    return former if former.policy == scheduling.SCHED_DEADLINE else former.replace(runtime=0)


@hookimpl
def mydocker_explain(config: ResourceConfig) -> list[str]:
    lines = []
    if "sched_policy" in config:
        policy, *parameters = config["sched_policy"]
        names = ("runtime", "deadline", "period") if policy == "deadline" else ("priority",)
        unit = " ns" if policy == "deadline" else ""
        texts = (f", {name} {value}{unit}" for name, value in zip(names, parameters, strict=False))
        lines.append(f"sched_setattr: policy {policy}{''.join(texts)}")
    if "nice" in config:
        lines.append(f"sched_setattr: nice {config['nice']}")
    return lines
