"""Cgroups: which controllers there are, where each lives, and whether this user may make cgroups there."""

from __future__ import annotations

from mydocker.cgroups import absence
from mydocker.cgroups.group import DEFAULT_PARENT
from mydocker.doctor.check import missing, not_needed, ok, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.doctor.check import Check
    from mydocker.doctor.host import Host

#: Controller on v2 to the one of v1 that does the same, by the names of cgroup-v2.rst and cgroup-v1/.
#: Those that bound what every process uses: the others are for hardware that a host may well lack.
_COMMON = ("memory", "cpu", "cpuset", "io", "pids", "cpuacct", "freezer", "devices")
_BOTH = {
    "memory": "memory",
    "cpu": "cpu",
    "cpuset": "cpuset",
    "io": "blkio",
    "pids": "pids",
    "hugetlb": "hugetlb",
    "rdma": "rdma",
    "misc": "misc",
}
#: What v1 has a controller for and v2 does otherwise.
_V1_ONLY = {
    "cpuacct": "cpu.stat of every v2 cgroup has its figures",
    "freezer": "cgroup.freeze of every v2 cgroup does its work",
    "devices": "an eBPF program on the v2 cgroup does its work",
}
_LAYOUTS = {"v1": "cgroup v1", "v2": "cgroup v2", "hybrid": "cgroup v1 and v2 side by side", "none": "none"}


def checks(host: Host) -> Iterator[Check]:
    yield layout(host)
    yield delegation(host)
    for name, older in _BOTH.items():
        yield controller(host, name, older)
    for name in _V1_ONLY:
        yield v1_controller(host, name)
    yield kill(host)
    yield device_programs(host)
    yield swap(host)
    yield pressure(host)


def may_use(host: Host, hierarchy: Hierarchy) -> bool:
    """Whether this user may make cgroups below the base and move processes there.

    On v2 a plain user moves a process only where he may write to the common ancestor of the two cgroups (cgroup-v2.rst,
    "Delegation Containment").
    """
    return _may_write(host, hierarchy) and (host.is_root or hierarchy.version == 1 or _is_inside(hierarchy))


def _may_write(host: Host, hierarchy: Hierarchy) -> bool:
    return host.writable(hierarchy.base) and host.writable(f"{hierarchy.base}/cgroup.procs")


def _is_inside(hierarchy: Hierarchy) -> bool:
    """Whether this process is at or below the base."""
    return f"{hierarchy.mountpoint}{hierarchy.own}/".startswith(f"{hierarchy.base}/")


def _all(host: Host, version: int) -> list[Hierarchy]:
    return [hierarchy for hierarchy in host.layout.hierarchies if hierarchy.version == version]


def layout(host: Host) -> Check:
    kind = host.layout.kind
    if kind == "none":
        why, _, way = absence.reason(host.layout, "memory", host.read("/proc/cgroups") or "").partition("; ")
        if not host.exists("/proc/self/status"):
            why, way = "/proc does not show the cgroups", "mount -t proc proc /proc"
        elif not host.exists("/proc/self/cgroup"):
            why, way = "this kernel has no cgroups", "boot a kernel that was built with CONFIG_CGROUPS"
        return missing("layout", f"{why}, so no limit can be put in force by a cgroup", _way_to_mount(way))
    places = []
    older = list(filter(_real, _all(host, 1)))
    if older:
        places.append(f"{len(older)} v1 {'hierarchy' if len(older) == 1 else 'hierarchies'}")
    places += [f"v2 at {hierarchy.mountpoint}" for hierarchy in _all(host, 2)]
    inside = ", seen from a container or a cgroup namespace" if host.layout.in_container else ""
    return ok("layout", f"{_LAYOUTS[kind]}: {' and '.join(places)}{inside}")


def _way_to_mount(way: str) -> str:
    return f"{way}; in a container, start the outer one with its cgroups mounted"


def delegation(host: Host) -> Check:
    """Where this user may make cgroups, and what to do if there is no such place."""
    name = "delegation"
    hierarchies = [hierarchy for hierarchy in host.layout.hierarchies if _real(hierarchy)]
    usable = [hierarchy for hierarchy in hierarchies if may_use(host, hierarchy)]
    if not hierarchies:
        return not_needed(name, "there are no cgroups that could be delegated")
    if host.is_root:
        return _of_root(hierarchies, usable)
    outside = [h for h in hierarchies if h not in usable and h.controllers and _may_write(host, h)]
    if outside:
        return missing(
            name,
            f"{outside[0].base} is for {host.user}, and this process is not in it, so it may move none there",
            f"as root, mkdir -p {outside[0].base}/shell && echo $PID_OF_A_SHELL > {outside[0].base}/shell/cgroup.procs",
        )
    if not any(hierarchy.controllers for hierarchy in usable):
        return missing(
            name,
            f"no cgroup with controllers is delegated to {host.user}, so limits of a cgroup cannot be set",
            _way_to_delegate(host, hierarchies),
        )
    bases = " and ".join(_described_base(host, hierarchy) for hierarchy in usable)
    closed = [hierarchy for hierarchy in hierarchies if hierarchy.controllers and hierarchy not in usable]
    if closed:
        names = ", ".join(name for hierarchy in closed for name in hierarchy.controllers)
        fact = f"{host.user} may make cgroups in {bases}, and none for {names}"
        return warning(name, fact, _way_to_delegate(host, closed))
    lacking = _not_delegated(host, usable)
    if not lacking:
        return ok(name, f"{host.user} may make cgroups in {bases}")
    given = [controller for hierarchy in usable if hierarchy.version == 2 for controller in hierarchy.controllers]
    if host.exists("/run/systemd/system"):
        advice = (
            f"write Delegate={' '.join([*given, *lacking])} below [Service] in "
            "/etc/systemd/system/user@.service.d/delegate.conf, systemctl daemon-reload, and log in again"
        )
    else:
        advice = f"as root, enable them in cgroup.subtree_control of each cgroup above: {_words(lacking)}"
    return warning(name, f"{host.user} may make cgroups in {bases}, which lacks {', '.join(lacking)}", advice)


def _words(controllers: list[str]) -> str:
    return " ".join(f"+{controller}" for controller in controllers)


def _not_delegated(host: Host, usable: list[Hierarchy]) -> list[str]:
    """The controllers of v2 that are there at its top and not in what this user may use."""
    unified = next((hierarchy for hierarchy in usable if hierarchy.version == 2), None)
    if unified is None:
        return []
    top = (host.read(f"{unified.mountpoint}/cgroup.controllers") or "").split()
    return [name for name in top if name in _BOTH and name not in unified.controllers]


def _real(hierarchy: Hierarchy) -> bool:
    """Not one that v1 has for its name only, as systemd's."""
    return hierarchy.version == 2 or any(not name.startswith("name=") for name in hierarchy.controllers)


def _described_base(host: Host, hierarchy: Hierarchy) -> str:
    by_systemd = host.attribute(hierarchy.base, "user.delegate") == "1"
    return f"{hierarchy.base} (by systemd)" if by_systemd else hierarchy.base


def _of_root(hierarchies: list[Hierarchy], usable: list[Hierarchy]) -> Check:
    closed = [hierarchy.base for hierarchy in hierarchies if hierarchy not in usable]
    if not closed:
        return not_needed("delegation", f"root may make cgroups in all {len(usable)} of the hierarchies")
    return missing(
        "delegation",
        f"root may not write in {', '.join(closed)}: what limits need there cannot be made",
        "mount them read-write; in a container, start the outer one with --privileged or its cgroups writable",
    )


def _way_to_delegate(host: Host, hierarchies: list[Hierarchy]) -> str:
    """systemd gives a user a subtree of v2 ("Delegation", systemd.resource-control(5)); elsewhere root can do it."""
    where = next((hierarchy for hierarchy in hierarchies if "memory" in hierarchy.controllers), hierarchies[0])
    place = f"mydocker-{host.uid}"
    if where.version == 1:
        others = ", and the same in the other hierarchies" if len(hierarchies) > 1 else ""
        change = f"mkdir {place} && chown {host.uid} {place} {place}/cgroup.procs"
        return f"as root, cd {where.mountpoint} && {change}{others}"
    if host.exists("/run/systemd/system"):
        linger = "" if host.exists(f"/run/user/{host.uid}") else f"loginctl enable-linger {host.login}, then "
        return f"{linger}systemd-run --user --scope -p Delegate=yes mydocker run ..., or run mydocker as root"
    enabled = _words([name for name in _BOTH if name in where.controllers])
    files = " ".join(f"{place}/{file}" for file in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"))
    return (
        f'as root, cd {where.mountpoint} && echo "{enabled}" > cgroup.subtree_control && mkdir -p {place}/shell && '
        f"chown {host.uid} {place} {files} && echo $PID_OF_A_SHELL > {place}/shell/cgroup.procs"
    )


def controller(host: Host, name: str, older: str) -> Check:
    """A controller that v1 and v2 have."""
    hierarchy = host.layout.find(name) or host.layout.find(older)
    if hierarchy is None:
        return _absent(host, name, older)
    return _found(host, name if hierarchy.version == 2 else older, hierarchy)


def _found(host: Host, name: str, hierarchy: Hierarchy) -> Check:
    place = f"v{hierarchy.version} at {hierarchy.mountpoint}"
    if not may_use(host, hierarchy):
        return missing(name, f"{place}, where {host.user} may not make cgroups", "see delegation")
    return ok(name, f"{place}; containers are made in {hierarchy.base.rstrip('/')}/{DEFAULT_PARENT}")


def v1_controller(host: Host, name: str) -> Check:
    hierarchy = host.layout.find(name)
    if hierarchy is not None:
        return _found(host, name, hierarchy)
    unified = _all(host, 2)
    if unified:
        return not_needed(name, f"it is a controller of v1, and {_V1_ONLY[name]}")
    return _absent(host, name)


def _absent(host: Host, *names: str) -> Check:
    """A controller that no hierarchy offers; ``names`` are those that v2 and v1 have for it."""
    if host.layout.kind == "none":
        return missing(names[0], "there is no such controller", "see layout")
    known = host.read("/proc/cgroups") or ""
    reasons = [absence.reason(host.layout, name, known) for name in names]
    reason = next((reason for reason in reasons if reason != absence.UNKNOWN), absence.UNKNOWN)
    why, _, way = reason.partition("; ")
    name, fact = names[0], f"there is no such controller: {why}"
    if name not in _COMMON and reason == absence.UNKNOWN:
        return not_needed(name, fact, "boot a kernel that was built with it if a limit needs it")
    return missing(name, fact, way or "boot a kernel that was built with it")


def _below_root(host: Host, hierarchy: Hierarchy) -> str | None:
    """Some cgroup that is not the root of the kernel: the root lacks most files on v2."""
    own = hierarchy.mountpoint + hierarchy.own.rstrip("/")
    candidates = [hierarchy.base, own, *(f"{hierarchy.base}/{name}" for name in host.names(hierarchy.base))]
    return next((path for path in candidates if host.exists(f"{path}/cgroup.type")), None)


def kill(host: Host) -> Check:
    """How all processes of a container are ended at once, without one that forks away."""
    name = "killing"
    unified = _all(host, 2)
    if unified:
        some = _below_root(host, unified[0])
        if host.exists(f"{some}/cgroup.kill") if some else host.kernel_is("5.14"):
            return ok(name, "cgroup.kill ends all processes of a v2 cgroup at once")
        fact = "there is no cgroup.kill, so the processes of a container are frozen and then killed one by one"
        return warning(name, fact, "boot Linux 5.14 or newer to have it")
    if host.layout.find("freezer") is not None:
        return ok(name, "the freezer of v1 stops all processes of a container, so that none escapes being killed")
    if host.layout.kind == "none":
        return not_needed(name, "the end of a PID namespace ends all that is in it")
    return warning(
        name,
        "there is neither cgroup.kill nor the freezer, so a process may fork faster than it is killed",
        "mount the v1 freezer or cgroup2",
    )


def device_programs(host: Host) -> Check:
    name = "device programs"
    if host.layout.find("devices") is not None:
        return not_needed(name, "the devices controller of v1 does their work")
    if not _all(host, 2):
        return not_needed(name, "there is no v2 cgroup to attach one to")
    outcome = host.trial("device program")
    if outcome.ok:
        return ok(name, f"{host.user} can load an eBPF program that allows or denies devices")
    fact = f"{host.user} cannot load an eBPF program that allows or denies devices: {outcome.text}"
    if not host.is_root:
        return missing(name, fact, "run mydocker as root to limit devices")
    return missing(name, fact, "boot a kernel with CONFIG_CGROUP_BPF, and run it with CAP_BPF or CAP_SYS_ADMIN")


def swap(host: Host) -> Check:
    """Whether the kernel counts swap per cgroup, for a limit of memory and swap together."""
    name = "swap accounting"
    hierarchy = host.layout.find("memory")
    if hierarchy is None:
        return not_needed(name, "there is no memory controller that could count it")
    devices = max(0, len((host.read("/proc/swaps") or "").splitlines()) - 1)
    there = f"this host has {devices or 'no'} swap {'device' if devices == 1 else 'devices'}"
    if not host.exists("/proc/swaps"):
        return not_needed(name, "this kernel was built without swap")
    if _counts_swap(host, hierarchy):
        return ok(name, f"the kernel counts swap for each cgroup; {there}")
    return missing(
        name,
        f"the kernel does not count swap, so memory and swap cannot be limited together; {there}",
        "boot with swapaccount=1",
    )


def _counts_swap(host: Host, hierarchy: Hierarchy) -> bool:
    if hierarchy.version == 1:
        return host.exists(f"{hierarchy.base}/memory.memsw.limit_in_bytes")
    some = [hierarchy.base, *(f"{hierarchy.base}/{name}" for name in host.names(hierarchy.base))]
    limited = next((path for path in some if host.exists(f"{path}/memory.max")), None)
    if limited is not None:
        return host.exists(f"{limited}/memory.swap.max")
    return "swapaccount=0" not in (host.read("/proc/cmdline") or "").split()


def pressure(host: Host) -> Check:
    """Pressure stall information (accounting/psi.rst): the files are there and not readable if it is switched off."""
    name = "pressure"
    if host.read("/proc/pressure/memory") is not None:
        where = " and of each v2 cgroup" if _all(host, 2) else ", not of each cgroup, which only v2 has"
        return ok(name, f"the kernel keeps stall figures (PSI) of the host{where}")
    if host.exists("/proc/pressure/memory"):
        return warning(name, "stall figures (PSI) are switched off, and reports are without them", "boot with psi=1")
    return warning(
        name,
        "this kernel keeps no stall figures (PSI), and reports are without them",
        "boot a kernel that was built with CONFIG_PSI, with psi=1",
    )
