"""Namespaces: whether the kernel has each, and whether this user may make one."""

from __future__ import annotations

import errno

from mydocker.doctor.check import missing, not_needed, ok, warning
from mydocker.doctor.trials import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mydocker.doctor.check import Check
    from mydocker.doctor.host import Host
    from mydocker.doctor.trials import Outcome

#: The option of the kernel's configuration (init/Kconfig); mount and cgroup namespaces have none of their own.
_OPTIONS = {
    "mnt": "CONFIG_NAMESPACES",
    "uts": "CONFIG_UTS_NS",
    "ipc": "CONFIG_IPC_NS",
    "pid": "CONFIG_PID_NS",
    "net": "CONFIG_NET_NS",
    "user": "CONFIG_USER_NS",
    "cgroup": "CONFIG_CGROUPS",
    "time": "CONFIG_TIME_NS",
}
_APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_DEBIAN = "/proc/sys/kernel/unprivileged_userns_clone"


def checks(host: Host) -> Iterator[Check]:
    user = user_namespace(host)
    yield user
    for kind in NAMESPACES:
        if kind != "user":
            yield namespace(host, kind, users=user.status == "ok")
    yield subordinate_ids(host)


def namespace(host: Host, kind: str, *, users: bool) -> Check:
    """A namespace of any kind but ``user``. ``users``: whether this user can make user namespaces."""
    separates = f"for {NAMESPACES[kind][1]}"
    used = kind != "time"
    if not _has(host, kind):
        fact = f"this kernel has no namespace {separates}"
        if not used:
            return not_needed(kind, f"{fact}, and mydocker uses none")
        return missing(kind, fact, f"boot a kernel that was built with {_OPTIONS[kind]}")
    outcome = host.trial(f"namespace {kind}")
    if outcome.ok:
        return ok(kind, f"{host.user} can make one {separates}")
    if not host.can("CAP_SYS_ADMIN"):
        if not users:
            fact = f"{host.user} can make none {separates} without a user namespace"
            return missing(kind, fact, "see user") if used else not_needed(kind, f"{fact}, and mydocker uses none")
        outcome = host.trial(f"namespace {kind} as root of a user namespace")
        if outcome.ok:
            return ok(kind, f"{host.user} can make one {separates} in a user namespace")
    fact = f"{host.user} can make none {separates}: {outcome.text}"
    if not used:
        return not_needed(kind, f"{fact}; mydocker uses none")
    return missing(kind, fact, _way(host, kind, outcome))


def user_namespace(host: Host) -> Check:
    """What a plain user needs for every other one; root does without."""
    if not _has(host, "user"):
        fact = "this kernel has no user namespaces"
        if host.is_root:
            return not_needed("user", f"{fact}, and root does without")
        return missing("user", fact, "boot a kernel that was built with CONFIG_USER_NS, or run mydocker as root")
    outcome = host.trial("namespace user")
    if not outcome.ok:
        fact = f"{host.user} can make no user namespace: {outcome.text}"
        if host.is_root:
            return warning("user", f"{fact}; root does without", _way(host, "user", outcome))
        return missing("user", fact, f"{_way(host, 'user', outcome)}, or run mydocker as root")
    inside = host.trial("capabilities in a user namespace")
    if inside.ok:
        return ok("user", f"{host.user} can make one, and is its root")
    fact = f"{host.user} can make one, and has no capabilities in it: {inside.text}"
    if host.is_root:
        return warning("user", f"{fact}; root does without", _way(host, "user", inside))
    return missing("user", fact, f"{_way(host, 'user', inside)}, or run mydocker as root")


def _has(host: Host, kind: str) -> bool:
    """Whether the kernel has such namespaces; where /proc does not tell, the trial will."""
    return host.exists(f"/proc/self/ns/{kind}") or not host.exists("/proc/self/ns")


def _way(host: Host, kind: str, outcome: Outcome) -> str:
    """What to do about a refusal: the kernel's reasons are those of unshare(2), the switches are distributions'."""
    maximum = host.read(f"/proc/sys/user/max_{kind}_namespaces")
    if maximum == "0":
        return f"sysctl -w user.max_{kind}_namespaces=10000"
    if kind == "user" and not host.is_root and host.read(_DEBIAN) == "0":
        return "sysctl -w kernel.unprivileged_userns_clone=1"
    if not host.is_root and host.read(_APPARMOR) == "1":
        return "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows userns"
    if outcome.errno == errno.ENOSPC:
        return f"sysctl -w user.max_{kind}_namespaces to more than {maximum or 'there are'}"
    if outcome.errno == errno.EPERM and host.is_root:
        return "run it with CAP_SYS_ADMIN, as in an outer container that is started with --privileged"
    return "look for a seccomp filter or a security module of the outer container that refuses it"


def subordinate_ids(host: Host) -> Check:
    """More than one user id inside a user namespace: newuidmap(1) and the ranges of subuid(5)."""
    name = "subordinate ids"
    if host.is_root:
        return not_needed(name, "root gives a container any user id without them")
    outcome = host.trial("subordinate ids")
    reason = outcome.value or outcome.text
    if not reason:
        return ok(name, f"containers of {host.user} have them")
    advice = []
    if any(host.program(program) is None for program in ("newuidmap", "newgidmap")):
        advice.append("install the package uidmap (shadow-utils)")
    if not all(_has_range(host, file) for file in ("/etc/subuid", "/etc/subgid")):
        advice.append(f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {host.login}")
    return warning(
        name,
        f"{reason}: a container of this user has one user id only, its root",
        " and ".join(advice) or f"start mydocker from a login of {host.user}",
    )


def _has_range(host: Host, file: str) -> bool:
    """Whether subuid(5) has a line for this user, by name or by number."""
    owners = {line.partition(":")[0] for line in (host.read(file) or "").splitlines()}
    return bool(owners & {host.login, str(host.uid)})
