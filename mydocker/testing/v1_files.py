"""The files of the v1 controllers and their rules (Documentation/admin-guide/cgroup-v1/)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mydocker.testing.kernel_file import (
    UNLIMITED,
    KernelFile,
    device_of,
    ignore,
    keep,
    lines,
    list_of,
    max_or_number,
    number,
    number_between,
    numbers,
    pages,
    refuse,
    reset,
    text_of,
)
from mydocker.testing.shared_files import CLAMPS, MISC, RDMA, huge_page_bytes, set_period_of, toggle

if TYPE_CHECKING:
    from mydocker.testing.hierarchy import FakeDirectory
    from mydocker.testing.host import FakeHost
    from mydocker.testing.kernel_file import Writer

_LIMIT = "memory.limit_in_bytes"
_SWAP = "memory.memsw.limit_in_bytes"
#: kernel/sched/sched.h, MIN_SHARES and MAX_SHARES.
_SHARES = (2, 262144)
_WEIGHT_IDLE = "3"
_RT_SHARE = 0.95


def _below_root(write: Writer) -> Writer:
    """The root cgroup has the file, and takes no value."""

    def checked(directory: FakeDirectory, text: str) -> str | None:
        if directory.is_root:
            refuse(errno.EINVAL)
        return write(directory, text)

    return checked


def _set_memory(directory: FakeDirectory, text: str) -> str:
    """memory.rst, 2.4 and 5: at most the limit of memory and swap together; EBUSY for what is in use."""
    size = pages(text, "-1")
    if directory.has(_SWAP) and size > int(directory.read(_SWAP)):
        refuse(errno.EINVAL)
    return _unless_used(directory, size, "memory.usage_in_bytes")


def _set_memory_and_swap(directory: FakeDirectory, text: str) -> str:
    size = pages(text, "-1")
    if size < int(directory.read(_LIMIT)):
        refuse(errno.EINVAL)
    return _unless_used(directory, size, "memory.memsw.usage_in_bytes")


def _unless_used(directory: FakeDirectory, size: int, usage: str) -> str:
    if int(directory.read(usage)) > size:
        refuse(errno.EBUSY)
    return str(size)


def _set_soft_limit(_directory: FakeDirectory, text: str) -> str:
    return str(pages(text, "-1"))


def _set_oom_control(directory: FakeDirectory, text: str) -> str:
    value = number(text.strip())
    if value not in (0, 1):
        refuse(errno.EINVAL)
    return text_of({**lines(directory.read("memory.oom_control")), "oom_kill_disable": str(value)})


def _only_one(_directory: FakeDirectory, text: str) -> str:
    """memory.use_hierarchy since Linux 5.11: it is always 1."""
    if number(text.strip()) != 1:
        refuse(errno.EINVAL)
    return "1"


_KINDS = ("cache", "rss", "rss_huge", "shmem", "mapped_file", "swap", "pgfault", "pgmajfault")
_STAT = "\n".join(f"{total}{kind} 0" for total in ("", "total_") for kind in _KINDS)

MEMORY = (
    KernelFile(_LIMIT, str(UNLIMITED), _below_root(_set_memory), "everywhere"),
    KernelFile(_SWAP, str(UNLIMITED), _below_root(_set_memory_and_swap), "everywhere"),
    KernelFile("memory.soft_limit_in_bytes", str(UNLIMITED), _below_root(_set_soft_limit), "everywhere"),
    KernelFile("memory.usage_in_bytes", "0", where="everywhere"),
    KernelFile("memory.max_usage_in_bytes", "0", reset, "everywhere"),
    KernelFile("memory.failcnt", "0", reset, "everywhere"),
    KernelFile("memory.memsw.usage_in_bytes", "0", where="everywhere"),
    KernelFile("memory.memsw.max_usage_in_bytes", "0", reset, "everywhere"),
    KernelFile("memory.memsw.failcnt", "0", reset, "everywhere"),
    KernelFile("memory.kmem.limit_in_bytes", str(UNLIMITED), ignore, "everywhere"),
    KernelFile("memory.kmem.usage_in_bytes", "0", where="everywhere"),
    KernelFile("memory.kmem.max_usage_in_bytes", "0", reset, "everywhere"),
    KernelFile("memory.kmem.failcnt", "0", reset, "everywhere"),
    KernelFile("memory.swappiness", "60", number_between(0, 200, errno.EINVAL), "everywhere"),
    KernelFile(
        "memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
        _below_root(_set_oom_control),
        "everywhere",
    ),
    KernelFile("memory.use_hierarchy", "1", _only_one, "everywhere"),
    KernelFile("memory.force_empty", "", _below_root(ignore), "everywhere"),
    KernelFile("memory.stat", _STAT, where="everywhere"),
    KernelFile("memory.numa_stat", "total=0 N0=0", where="everywhere"),
    KernelFile("memory.kmem.tcp.limit_in_bytes", str(UNLIMITED), _below_root(_set_soft_limit), "everywhere"),
    KernelFile("memory.kmem.tcp.usage_in_bytes", "0", where="everywhere"),
    KernelFile("memory.kmem.tcp.max_usage_in_bytes", "0", reset, "everywhere"),
    KernelFile("memory.kmem.tcp.failcnt", "0", reset, "everywhere"),
)


def _set_shares(directory: FakeDirectory, text: str) -> str:
    """What is out of range is moved into it (sched_group_set_shares)."""
    shares = number(text.strip())
    if directory.has("cpu.idle") and directory.read("cpu.idle") == "1":
        refuse(errno.EINVAL)
    return str(min(max(shares, _SHARES[0]), _SHARES[1]))


def _set_quota(directory: FakeDirectory, text: str) -> str:
    quota = max(number(text.strip(), signed=True), -1)
    if 0 <= quota < 1000:
        refuse(errno.EINVAL)
    burst = int(directory.read("cpu.cfs_burst_us")) if directory.has("cpu.cfs_burst_us") else 0
    if 0 <= quota < burst:
        refuse(errno.EINVAL)
    _refuse_more_than_above(directory, quota, int(directory.read("cpu.cfs_period_us")))
    return str(quota)


def _set_period(directory: FakeDirectory, text: str) -> str:
    period = set_period_of(text)
    _refuse_more_than_above(directory, int(directory.read("cpu.cfs_quota_us")), period)
    return str(period)


def _refuse_more_than_above(directory: FakeDirectory, quota: int, period: int) -> None:
    """sched-bwc.rst, "Hierarchical considerations": a child's part is never larger than its parent's."""
    if quota == -1:
        return
    above = directory.parent
    while above is not None and not above.is_root:
        bound = int(above.read("cpu.cfs_quota_us"))
        if bound != -1:
            if quota / period > bound / int(above.read("cpu.cfs_period_us")):
                refuse(errno.EINVAL)
            return
        above = above.parent
    for below in directory.descendants():
        theirs = int(below.read("cpu.cfs_quota_us"))
        if theirs != -1 and theirs / int(below.read("cpu.cfs_period_us")) > quota / period:
            refuse(errno.EINVAL)


def _set_burst(directory: FakeDirectory, text: str) -> str:
    burst = number(text.strip())
    if 0 <= int(directory.read("cpu.cfs_quota_us")) < burst:
        refuse(errno.EINVAL)
    return str(burst)


def _set_idle(directory: FakeDirectory, text: str) -> str:
    idle = toggle(errno.EINVAL)(directory, text)
    if idle != directory.read("cpu.idle"):
        directory.put("cpu.shares", _WEIGHT_IDLE if idle == "1" else "1024")
    return str(idle)


def _set_rt_runtime(directory: FakeDirectory, text: str) -> str:
    """sched-rt-group.rst: a group's part of real time is taken from its parent's, and a new group has none."""
    runtime = number(text.strip(), signed=True)
    above = directory.parent
    assert above is not None
    part = runtime / int(directory.read("cpu.rt_period_us"))
    if runtime < -1 or part > int(above.read("cpu.rt_runtime_us")) / int(above.read("cpu.rt_period_us")):
        refuse(errno.EINVAL)
    return str(runtime)


CPU = (
    KernelFile("cpu.shares", "1024", _below_root(_set_shares), "everywhere"),
    KernelFile("cpu.cfs_quota_us", "-1", _below_root(_set_quota), "everywhere"),
    KernelFile("cpu.cfs_period_us", "100000", _below_root(_set_period), "everywhere"),
    KernelFile("cpu.cfs_burst_us", "0", _below_root(_set_burst), "everywhere"),
    KernelFile("cpu.idle", "0", _below_root(_set_idle), "everywhere"),
    KernelFile(
        "cpu.rt_runtime_us",
        lambda directory: "950000" if directory.is_root else "0",
        _below_root(_set_rt_runtime),
        "everywhere",
    ),
    KernelFile("cpu.rt_period_us", "1000000", _below_root(number_between(1, 1 << 32, errno.EINVAL)), "everywhere"),
    KernelFile(
        "cpu.stat",
        "nr_periods 0\nnr_throttled 0\nthrottled_time 0\nnr_bursts 0\nburst_time 0",
        where="everywhere",
    ),
    *CLAMPS,
)

CPUACCT = (
    KernelFile("cpuacct.usage", "0", number_between(0, 0, errno.EINVAL), "everywhere"),
    KernelFile("cpuacct.usage_user", "0", where="everywhere"),
    KernelFile("cpuacct.usage_sys", "0", where="everywhere"),
    KernelFile("cpuacct.stat", "user 0\nsystem 0", where="everywhere"),
)


def _set_of(kind: str) -> Writer:
    """cpuset.cpus or cpuset.mems: within the parent's, and no less than the children's (cpusets.rst, 1.8)."""
    name, effective = f"cpuset.{kind}", f"cpuset.effective_{kind}"

    def write(directory: FakeDirectory, text: str) -> str:
        if directory.is_root:
            refuse(errno.EACCES)
        offered = directory.host.cpus if kind == "cpus" else directory.host.mems
        wanted = numbers(text, max(offered) + 1 if kind == "cpus" else 1024)
        if not wanted <= set(offered):
            refuse(errno.EINVAL)
        if any(not _numbers_in(below, name) <= wanted for below in directory.children.values()):
            refuse(errno.EBUSY)
        assert directory.parent is not None
        if not wanted <= _numbers_in(directory.parent, name):
            refuse(errno.EACCES)
        if not wanted and directory.processes:
            refuse(errno.ENOSPC)
        directory.put(effective, list_of(wanted))
        return list_of(wanted)

    return write


def _numbers_in(directory: FakeDirectory, name: str) -> set[int]:
    return numbers(directory.read(name), 1 << 16)


def _first_set(kind: str) -> KernelFile:
    def content(directory: FakeDirectory) -> str:
        if directory.is_root:
            return list_of(set(directory.host.cpus if kind == "cpus" else directory.host.mems))
        assert directory.parent is not None
        clones = directory.parent.read("cgroup.clone_children") == "1"
        return directory.parent.read(f"cpuset.{kind}") if clones else ""

    return KernelFile(f"cpuset.{kind}", content, _set_of(kind), "everywhere")


CPUSET = (
    _first_set("cpus"),
    _first_set("mems"),
    KernelFile("cpuset.effective_cpus", lambda directory: directory.read("cpuset.cpus"), where="everywhere"),
    KernelFile("cpuset.effective_mems", lambda directory: directory.read("cpuset.mems"), where="everywhere"),
    *(
        KernelFile(f"cpuset.{name}", "1" if name == "sched_load_balance" else "0", toggle(errno.EINVAL), "everywhere")
        for name in (
            "cpu_exclusive",
            "mem_exclusive",
            "mem_hardwall",
            "memory_migrate",
            "memory_spread_page",
            "memory_spread_slab",
            "sched_load_balance",
        )
    ),
    KernelFile("cpuset.memory_pressure", "0", where="everywhere"),
    KernelFile("cpuset.sched_relax_domain_level", "-1", number_between(-1, 5, errno.EINVAL), "everywhere"),
)

PIDS = (
    KernelFile("pids.max", "max", max_or_number(1 << 22)),
    KernelFile("pids.current", "0"),
    KernelFile("pids.peak", "0"),
    KernelFile("pids.events", "max 0"),
)


def _set_state(directory: FakeDirectory, text: str) -> str:
    """freezer-subsystem.rst: what is below is frozen with it."""
    state = text.strip()
    if state not in ("FROZEN", "THAWED"):
        refuse(errno.EINVAL)
    directory.put("freezer.self_freezing", "1" if state == "FROZEN" else "0")
    directory.put("freezer.state", state)
    for below in directory.descendants():
        assert below.parent is not None
        above_is_frozen = below.parent.read("freezer.state") == "FROZEN"
        below.put("freezer.parent_freezing", "1" if above_is_frozen else "0")
        frozen = above_is_frozen or below.read("freezer.self_freezing") == "1"
        below.put("freezer.state", "FROZEN" if frozen else "THAWED")
    return directory.read("freezer.state")


FREEZER = (
    KernelFile("freezer.state", "THAWED", _set_state),
    KernelFile("freezer.self_freezing", "0"),
    KernelFile("freezer.parent_freezing", "0"),
)

_ALL_DEVICES = "a *:* rwm"


def _rule(text: str) -> tuple[str, str, str]:
    """Type, ``major:minor`` and access of a rule (devices.rst)."""
    words = text.split()
    if words[:1] == ["a"]:
        return "a", "*:*", "rwm"
    if len(words) != 3:
        refuse(errno.EINVAL)
    kind, device, access = words
    numbers_of_device = device.split(":")
    wrong_number = len(numbers_of_device) != 2 or any(n != "*" and not n.isdecimal() for n in numbers_of_device)
    if kind not in ("b", "c") or wrong_number or not set(access) <= set("rwm"):
        refuse(errno.EINVAL)
    return kind, device, "".join(letter for letter in "rwm" if letter in access)


def _covers(rules: str, wanted: tuple[str, str, str]) -> bool:
    for line in rules.splitlines():
        kind, device, access = line.split()
        pairs = zip(device.split(":"), wanted[1].split(":"), strict=True)
        same_device = kind in ("a", wanted[0]) and all(one in ("*", other) for one, other in pairs)
        if same_device and set(wanted[2]) <= set(access):
            return True
    return False


def _allow(directory: FakeDirectory, text: str) -> None:
    wanted = _rule(text)
    if directory.parent is not None and not _covers(directory.parent.read("devices.list"), wanted):
        refuse(errno.EPERM)
    present = directory.read("devices.list")
    if wanted[0] == "a":
        directory.put("devices.list", _ALL_DEVICES)
    elif not _covers(present, wanted):
        directory.put("devices.list", "\n".join(_with_rule(present.splitlines(), wanted)))


def _with_rule(rules: list[str], added: tuple[str, str, str]) -> list[str]:
    kind, device, access = added
    merged = []
    for rule in rules:
        if rule.split()[:2] == [kind, device]:
            access = "".join(letter for letter in "rwm" if letter in access + rule.split()[2])
            merged.append(f"{kind} {device} {access}")
        else:
            merged.append(rule)
    return merged if f"{kind} {device} {access}" in merged else [*merged, f"{kind} {device} {access}"]


def _deny(directory: FakeDirectory, text: str) -> None:
    denied = _rule(text)
    present = directory.read("devices.list")
    if denied[0] == "a":
        if directory.children:
            refuse(errno.EINVAL)
        directory.put("devices.list", "")
    elif present != _ALL_DEVICES:  # there the kernel notes an exception, which the list does not show
        kept = []
        for line in present.splitlines():
            kind, device, access = line.split()
            if (kind, device) == denied[:2]:
                access = "".join(letter for letter in access if letter not in denied[2])
            if access:
                kept.append(f"{kind} {device} {access}")
        directory.put("devices.list", "\n".join(kept))


DEVICES = (
    KernelFile("devices.allow", "", _allow, "everywhere"),
    KernelFile("devices.deny", "", _deny, "everywhere"),
    KernelFile(
        "devices.list",
        lambda directory: _ALL_DEVICES if directory.parent is None else directory.parent.read("devices.list"),
        where="everywhere",
    ),
)


def _throttle(name: str) -> KernelFile:
    def write(directory: FakeDirectory, text: str) -> str:
        device, value = device_of(directory, text)
        if not value.isdecimal():
            refuse(errno.EINVAL)
        entries = lines(directory.read(name))
        entries.pop(device, None)
        return text_of(entries if int(value) == 0 else {**entries, device: str(int(value))})

    return KernelFile(name, "", write, "everywhere")


def _set_device_weight(directory: FakeDirectory, text: str) -> str:
    device, value = device_of(directory, text)
    entries = lines(directory.read("blkio.bfq.weight_device"))
    if value == "default":
        entries.pop(device, None)
        return text_of(entries)
    weight = number(value)
    if not 1 <= weight <= 1000:
        refuse(errno.ERANGE)
    return text_of({**entries, device: str(weight)})


BLKIO = (
    KernelFile("blkio.bfq.weight", "100", number_between(1, 1000)),
    KernelFile("blkio.bfq.weight_device", "default 100", _set_device_weight),
    *(_throttle(f"blkio.throttle.{way}_{what}_device") for way in ("read", "write") for what in ("bps", "iops")),
    KernelFile("blkio.throttle.io_service_bytes", "Total 0", where="everywhere"),
    KernelFile("blkio.throttle.io_serviced", "Total 0", where="everywhere"),
    KernelFile("blkio.throttle.io_service_bytes_recursive", "Total 0", where="everywhere"),
    KernelFile("blkio.throttle.io_serviced_recursive", "Total 0", where="everywhere"),
    KernelFile("blkio.reset_stats", "", ignore, "everywhere"),
)


def _huge_pages(host: FakeHost) -> tuple[KernelFile, ...]:
    found: list[KernelFile] = []
    for size in host.huge_pages:
        unit = huge_page_bytes(size)
        unlimited = str((UNLIMITED // unit) * unit)

        def write(_directory: FakeDirectory, text: str, unit: int = unit) -> str:
            return str(min(pages(text, "-1", unit), UNLIMITED // unit * unit))

        for kind in ("", ".rsvd"):
            prefix = f"hugetlb.{size}{kind}"
            found += (
                KernelFile(f"{prefix}.limit_in_bytes", unlimited, _below_root(write), "everywhere"),
                KernelFile(f"{prefix}.usage_in_bytes", "0", where="everywhere"),
                KernelFile(f"{prefix}.max_usage_in_bytes", "0", reset, "everywhere"),
                KernelFile(f"{prefix}.failcnt", "0", reset, "everywhere"),
            )
    return tuple(found)


def _set_priority(directory: FakeDirectory, text: str) -> str:
    words = text.split()
    if len(words) != 2:
        refuse(errno.EINVAL)
    return text_of({**lines(directory.read("net_prio.ifpriomap")), words[0]: str(number(words[1]))})


#: The files that every v1 cgroup has, with those of the root. Writing the first two moves a process.
CORE = (
    KernelFile("notify_on_release", "0", toggle(errno.EINVAL), "everywhere"),
    KernelFile("cgroup.clone_children", "0", toggle(errno.EINVAL), "everywhere"),
    KernelFile("release_agent", "", keep, "root"),
    KernelFile("cgroup.sane_behavior", "0", where="root"),
)


def controllers(host: FakeHost) -> dict[str, tuple[KernelFile, ...]]:
    """Controller to its files, as ``host`` has them."""
    return {
        "memory": MEMORY,
        "cpu": CPU,
        "cpuacct": CPUACCT,
        "cpuset": CPUSET,
        "pids": PIDS,
        "freezer": FREEZER,
        "devices": DEVICES,
        "blkio": BLKIO,
        "hugetlb": _huge_pages(host),
        "net_cls": (KernelFile("net_cls.classid", "0", number_between(0, (1 << 32) - 1), "everywhere"),),
        "net_prio": (KernelFile("net_prio.ifpriomap", "lo 0", _set_priority, "everywhere"),),
        "perf_event": (),
        "rdma": RDMA,
        "misc": MISC,
    }


