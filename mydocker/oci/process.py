"""What config.json's ``process`` asks of a process, for the first one of a container and for those of ``exec``.

`plan` works it out in the runtime and refuses what cannot be. `limit` is done by the runtime on the PID of the child,
and the rest by the child itself (`mydocker.oci.restriction`).
"""

from __future__ import annotations

import errno
import os

from mydocker import labels
from mydocker.errors import OciError
from mydocker.linux import capabilities, rlimits
from mydocker.oci.lookup import encoded, quoted, reason_of
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from mydocker.linux import scheduling

#: Of the process whose ``user`` names none. The runtime specification leaves it open; this is what runc and crun have.
_DEFAULT_UMASK = 0o022

#: By the number that the kernel has for them (include/uapi/asm-generic/resource.h).
RLIMITS = (
    "RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC RLIMIT_NOFILE "
    "RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME"
).split()

#: Those that would hinder the child itself while it waits for ``start``: it lowers them as the last thing.
LATE_RLIMITS = frozenset(RLIMITS.index(name) for name in ("RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_DATA"))

#: By the names that `mydocker.linux.scheduling` has for them too, which few containers need.
POLICIES = "SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_ISO SCHED_IDLE SCHED_DEADLINE".split()
SCHEDULER_FLAGS = (
    "SCHED_FLAG_RESET_ON_FORK SCHED_FLAG_RECLAIM SCHED_FLAG_DL_OVERRUN SCHED_FLAG_KEEP_POLICY "
    "SCHED_FLAG_KEEP_PARAMS SCHED_FLAG_UTIL_CLAMP_MIN SCHED_FLAG_UTIL_CLAMP_MAX"
).split()
IO_CLASSES = "IOPRIO_CLASS_RT IOPRIO_CLASS_BE IOPRIO_CLASS_IDLE".split()

#: personality(2), ``PER_LINUX`` and ``PER_LINUX32``.
DOMAINS = {"LINUX": 0, "LINUX32": 8}


class Capabilities(Value):
    """The five sets of capabilities(7), each a mask."""

    bounding: int = 0
    permitted: int = 0
    effective: int = 0
    inheritable: int = 0
    ambient: int = 0


class ProcessPlan(Value):
    """Everything that is applied to one process, as the kernel's interfaces take it.

    ``rlimits``          (number, soft, hard) each.
    ``io_priority``      (class, level).
    ``initial_cpus``     the CPUs of a process of ``exec`` until it is in the container's cgroup; None: the caller's.
    ``final_cpus``       its CPUs from then on.
    ``set_memory_policy``  puts its memory policy in force, if it has one: few load the module for that.
    ``console_size``     (height, width) of the terminal.
    ``user_namespace``   whether the container has one that is not the runtime's.
    """

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int = _DEFAULT_UMASK
    cwd: str = "/"
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[tuple[int, int, int], ...] = ()
    no_new_privs: bool = False
    oom_score_adj: int | None = None
    scheduler: scheduling.SchedAttr | None = None
    io_priority: tuple[int, int] | None = None
    initial_cpus: frozenset[int] | None = None
    final_cpus: frozenset[int] | None = None
    apparmor: str = ""
    selinux: str = ""
    personality: int | None = None
    set_memory_policy: Callable[[], None] | None = None
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    user_namespace: bool = False

    @property
    def labelled(self) -> bool:
        """Whether `restrict` writes an attribute of a security module, and is to be given a procfs."""
        return bool(self.apparmor or self.selinux)


def plan(
    process: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    warn: Callable[[str], None],
    joins_user_namespace: bool = False,
) -> ProcessPlan:
    """What ``process`` (a validated one) asks for, in the container of ``config``. Done in the runtime.

    ``warn`` takes a message about what is left out. ``joins_user_namespace``: the container that is joined has one.
    OciError, naming the property, for what this kernel or this process cannot do.
    """
    linux = config.get("linux") or {}
    namespaces = linux.get("namespaces") or ()
    has_user_namespace = joins_user_namespace or any(entry.get("type") == "user" for entry in namespaces)
    user = process.get("user") or {}
    umask = user.get("umask")
    size = process.get("consoleSize")
    affinity = process.get("execCPUAffinity") or {}
    _check_labels(process)
    return ProcessPlan(
        uid=user.get("uid", 0),
        gid=user.get("gid", 0),
        groups=tuple(dict.fromkeys(user.get("additionalGids") or ())),  # Docker names a group once for each reason
        umask=_DEFAULT_UMASK if umask is None else umask & 0o777,
        cwd=process.get("cwd") or "/",
        capabilities=_capabilities(process.get("capabilities") or {}, has_user_namespace, warn),
        rlimits=_rlimits(process.get("rlimits") or ()),
        no_new_privs=bool(process.get("noNewPrivileges")),
        oom_score_adj=process.get("oomScoreAdj"),
        scheduler=_scheduler(process.get("scheduler")),
        io_priority=_io_priority(process.get("ioPriority")),
        initial_cpus=_cpus("process.execCPUAffinity.initial", affinity.get("initial")),
        final_cpus=_cpus("process.execCPUAffinity.final", affinity.get("final")),
        apparmor=process.get("apparmorProfile") or "",
        selinux=process.get("selinuxLabel") or "",
        personality=_personality(linux.get("personality")),
        set_memory_policy=_memory_policy(linux.get("memoryPolicy")),
        terminal=bool(process.get("terminal")),
        console_size=(size["height"], size["width"]) if size else None,
        user_namespace=has_user_namespace,
    )


def command(process: Mapping[str, Any]) -> tuple[list[bytes], list[bytes]]:
    """(argv, environment) of a process, exactly. OciError for what the kernel cannot pass."""
    arguments = [_encoded("process.args", argument) for argument in process.get("args") or ()]
    if not arguments:
        raise OciError("process.args: args must not be empty")
    environment = []
    for entry in process.get("env") or ():
        name, equals, _ = entry.partition("=")
        if not equals or not name:
            problem = "missing '='" if not equals else "name cannot be empty"
            raise OciError(f"process.env: invalid environment variable {quoted(encoded(entry))}: {problem}")
        environment.append(_encoded("process.env", entry))
    return arguments, environment


def _encoded(where: str, text: str) -> bytes:
    data = encoded(text)
    if b"\0" in data:
        raise OciError(f"{where}: {quoted(data)} contains a nul byte (\\x00), which the kernel cannot pass")
    return data


def limit(plan: ProcessPlan, pid: int) -> None:
    """Apply to the waiting child what is a matter of its PID; when it is in its cgroups.

    By the runtime, which may have privileges that the child lacks. OciError that names what the kernel refused.
    """
    if plan.oom_score_adj is not None:
        _set_oom_score_adj(pid, plan.oom_score_adj)
    if plan.io_priority is not None:
        from mydocker.linux import scheduling

        try:
            scheduling.ioprio_set(pid, *plan.io_priority)
        except OSError as e:
            raise OciError(f"process.ioPriority: cannot set the io priority: {reason_of(e)}") from e
    if plan.scheduler is not None:
        from mydocker.linux import scheduling

        try:
            scheduling.sched_setattr(pid, plan.scheduler)
        except OSError as e:
            # sched_setattr(2), EPERM: a deadline is kept on any CPU of the system, or on none.
            restricted = e.errno == errno.EPERM and len(os.sched_getaffinity(pid)) < (os.cpu_count() or 1)
            why = "process scheduler can't be used together with AllowedCPUs (cpus of linux.resources.cpu): "
            raise OciError(f"process.scheduler: error setting scheduler: {why * restricted}{reason_of(e)}") from e
    if plan.rlimits:
        _set_rlimits(pid, plan.rlimits)


def use_all_cpus(pid: int) -> None:
    """Let a process that is in its cgroup run on all CPUs that this one has, whatever the runtime was bound to.

    A kernel since 6.2 keeps what somebody has asked for when a process enters a cpuset. It leaves out the CPUs that are
    not there or not in the cpuset itself (sched_setaffinity(2)).
    """
    try:
        os.sched_setaffinity(pid, range(max(1024, os.cpu_count() or 1)))
    except OSError:
        pass  # not ours to change: then it runs where the runtime does


def set_own_oom_score_adj(value: int | None) -> None:
    """In the child, as long as it is dumpable: after that its file is root's alone, and `limit` by a plain user fails.

    If it cannot be, `limit` says so.
    """
    if value is not None:
        try:
            _write_oom_score_adj("self", value)
        except OSError:
            pass


def _write_oom_score_adj(process: object, value: int) -> None:
    fd = os.open(f"/proc/{process}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    finally:
        os.close(fd)


def _has_oom_score_adj(pid: int, value: int) -> bool:
    try:
        with open(f"/proc/{pid}/oom_score_adj", "rb") as f:
            return int(f.read()) == value
    except OSError:
        return False


def _set_oom_score_adj(pid: int, value: int) -> None:
    if _has_oom_score_adj(pid, value):
        return
    try:
        _write_oom_score_adj(pid, value)
    except OSError as e:
        more = ": less than now takes CAP_SYS_RESOURCE" if e.errno == errno.EACCES else ""
        raise OciError(f"process.oomScoreAdj: failed to set oom_score_adj to {value}: {reason_of(e)}{more}") from e


def _set_rlimits(pid: int, wanted: Sequence[tuple[int, int, int]]) -> None:
    for number, soft, hard in wanted:
        present = rlimits.prlimit(pid, number)
        limits = soft, hard
        if number in LATE_RLIMITS:  # until `seal` no less than now
            limits = max(soft, present[0]), max(hard, present[1])
        try:
            rlimits.prlimit(pid, number, limits)
        except OSError as e:
            reason = reason_of(e)
            if isinstance(e, PermissionError):
                reason += f": to raise the hard limit above {present[1]}, which it is now, takes CAP_SYS_RESOURCE"
                if RLIMITS[number] == "RLIMIT_NOFILE":
                    reason += ", and nothing raises it above the sysctl fs.nr_open"
            raise OciError(f"process.rlimits: error setting rlimits: {RLIMITS[number]}: {reason}") from e


def _capabilities(sets: Mapping[str, Any], user_namespace: bool, warn: Callable[[str], None]) -> Capabilities:
    if not sets:
        return Capabilities()
    unknown: list[str] = []
    last = capabilities.last()

    def mask(kind: str) -> int:
        bits = 0
        for name in sets.get(kind) or ():
            number = capabilities.NAMES.index(name) if name in capabilities.NAMES else 64
            if number <= last:
                bits |= 1 << number
            elif name not in unknown:
                unknown.append(name)
        return bits

    found = Capabilities(**{kind: mask(kind) for kind in Capabilities._fields})
    _check_grants(found)
    if not user_namespace:  # in one that is new or joined there are all of them
        ours = capabilities.permitted()
        unknown += _names((found.permitted | found.inheritable) & ~ours)
        found = found.replace(
            permitted=found.permitted & ours, effective=found.effective & ours, inheritable=found.inheritable & ours
        )
    if unknown:
        # "Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot be granted"
        # (config.md, "Linux Process"), but say so.
        warn(f"ignoring unknown or unavailable capabilities: {', '.join(unknown)}")
    # The kernel raises no others (capabilities(7)), and engines' configs name them all the same: runc drops them too.
    return found.replace(ambient=found.ambient & found.permitted & found.inheritable)


def _check_grants(wanted: Capabilities) -> None:
    """The kernel's rules of capset(2), so that what is refused is named."""
    problem = ""
    if wanted.effective & ~wanted.permitted:
        names = _names(wanted.effective & ~wanted.permitted)
        problem = f"{', '.join(names)} cannot be effective without being permitted"
    elif wanted.inheritable & ~wanted.bounding:
        names = _names(wanted.inheritable & ~wanted.bounding)
        problem = f"{', '.join(names)} cannot be inheritable outside the bounding set"
    if problem:
        raise OciError(f"unable to apply caps: operation not permitted: process.capabilities: {problem}")


def _names(bits: int) -> list[str]:
    return [name for number, name in enumerate(capabilities.NAMES) if bits >> number & 1]


def _rlimits(entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, int, int], ...]:
    found: dict[int, tuple[int, int, int]] = {}
    for index, entry in enumerate(entries):
        where, name = f"process.rlimits[{index}]", entry["type"]
        if name not in RLIMITS:
            raise OciError(f"{where}.type: invalid rlimit type: {name}")
        number = RLIMITS.index(name)
        if number in found:
            raise OciError(f"{where}.type: {name} is there twice: each rlimit has one entry")
        soft, hard = entry.get("soft", 0), entry.get("hard", 0)
        if soft > hard:
            raise OciError(f"{where}: {name}: the soft limit, {soft}, is more than the hard limit, {hard}")
        found[number] = (number, soft, hard)
    return tuple(found.values())


def _scheduler(entry: Mapping[str, Any] | None) -> scheduling.SchedAttr | None:
    if not entry:
        return None
    name = entry.get("policy")
    if name not in POLICIES:
        raise OciError(f"process.scheduler.policy: invalid scheduler policy: {name}")
    from mydocker.linux import scheduling

    policy: int = getattr(scheduling, name)
    flags = 0
    for flag in entry.get("flags") or ():
        if flag not in SCHEDULER_FLAGS:
            raise OciError(f"process.scheduler.flags: invalid scheduler flag: {flag}")
        flags |= getattr(scheduling, flag)
    nice, priority = entry.get("nice") or 0, entry.get("priority") or 0
    times = {key: entry.get(key) or 0 for key in ("runtime", "deadline", "period")}
    if not -20 <= nice <= 19:
        raise OciError(f"process.scheduler.nice: invalid scheduler.nice: {nice}: write -20 to 19")
    if priority and policy not in (scheduling.SCHED_FIFO, scheduling.SCHED_RR):
        raise OciError("process.scheduler.priority: can only be specified for SCHED_FIFO or SCHED_RR policy")
    if any(times.values()) and policy != scheduling.SCHED_DEADLINE:
        raise OciError(
            "process.scheduler: runtime, deadline and period can only be specified for SCHED_DEADLINE policy"
        )
    return scheduling.SchedAttr(policy=policy, flags=flags, nice=nice, priority=priority, **times)


def _io_priority(entry: Mapping[str, Any] | None) -> tuple[int, int] | None:
    if not entry:
        return None
    name, level = entry.get("class"), entry.get("priority") or 0
    if name not in IO_CLASSES:
        raise OciError(f"process.ioPriority.class: invalid ioPriority.class: {name}")
    if not 0 <= level <= 7:
        raise OciError(f"process.ioPriority.priority: invalid ioPriority.priority: {level}: write 0 to 7")
    from mydocker.linux import scheduling

    return getattr(scheduling, name), level


def _cpus(where: str, text: str | None) -> frozenset[int] | None:
    """``0-3,7`` as the spec's grammar of cpusets has it (cpuset(7), "List format")."""
    if not text:
        return None
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise OciError(f'{where}: invalid CPU list "{text}": write numbers and ranges, as in 0-3,7')
        low, high = int(first), int(last or first)
        if low > high or high > 8191:
            raise OciError(f'{where}: invalid CPU range "{part}"')
        found.update(range(low, high + 1))
    return frozenset(found)


def _memory_policy(entry: Mapping[str, Any] | None) -> Callable[[], None] | None:
    if not entry:
        return None
    from mydocker.linux import numa
    from mydocker.oci import memory_policy

    mode, nodes = memory_policy.parse(entry)
    return lambda: numa.set_policy(mode, nodes)


def _personality(entry: Mapping[str, Any] | None) -> int | None:
    if not entry:
        return None
    domain = entry.get("domain")
    if domain not in DOMAINS:
        raise OciError(f"linux.personality.domain: {domain} is none: write LINUX or LINUX32")
    if entry.get("flags"):
        raise OciError("linux.personality.flags: additional flags are not supported")
    return DOMAINS[domain]


def _check_labels(entry: Mapping[str, Any]) -> None:
    """A profile that nobody enforces is refused: the command would run without it."""
    profile = entry.get("apparmorProfile")
    if profile and profile != "unconfined" and not labels.apparmor_enabled():
        raise OciError(
            f"process.apparmorProfile: apparmor is not enabled on this host, so the profile {profile} cannot be applied"
        )
    if entry.get("selinuxLabel") and not labels.selinux_enabled():
        raise OciError(
            "process.selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported"
        )
