"""The files of cgroup v2 and their rules (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mydocker.testing.kernel_file import (
    UNLIMITED,
    KernelFile,
    bytes_or_max,
    device_of,
    ignore,
    keep,
    lines,
    list_of,
    max_or_number,
    number,
    numbers,
    pages,
    refuse,
    text_of,
)
from mydocker.testing.shared_files import CLAMPS, MISC, RDMA, huge_page_bytes, set_period_of, toggle

if TYPE_CHECKING:
    from mydocker.testing.hierarchy import FakeDirectory
    from mydocker.testing.host import FakeHost
    from mydocker.testing.kernel_file import Writer

#: Controllers that may be given to children of a cgroup that holds processes ("Threads").
THREADED = ("cpu", "cpuset", "pids", "perf_event")

_PRESSURE = "\n".join(f"{who} avg10=0.00 avg60=0.00 avg300=0.00 total=0" for who in ("some", "full"))


def _pressure(name: str) -> KernelFile:
    """A pressure file. Writing sets a trigger for the descriptor that it is written to (psi.rst)."""
    return KernelFile(name, _PRESSURE, ignore, "everywhere")


def _move_counter(_directory: FakeDirectory, _text: str) -> None:
    """memory.peak since Linux 6.12: what is written starts the count again for that descriptor only."""


def _reclaim(_directory: FakeDirectory, text: str) -> None:
    pages(text, "max")


_EVENTS = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0"

MEMORY = (
    KernelFile("memory.current", "0"),
    KernelFile("memory.peak", "0", _move_counter),
    *(KernelFile(f"memory.{name}", "0", bytes_or_max) for name in ("min", "low")),
    *(KernelFile(f"memory.{name}", "max", bytes_or_max) for name in ("high", "max", "swap.high", "swap.max")),
    KernelFile("memory.swap.current", "0"),
    KernelFile("memory.swap.peak", "0", _move_counter),
    KernelFile("memory.swap.events", "high 0\nmax 0\nfail 0"),
    KernelFile("memory.zswap.current", "0"),
    KernelFile("memory.zswap.max", "max", bytes_or_max),
    KernelFile("memory.zswap.writeback", "1", toggle(errno.EINVAL), "everywhere"),
    KernelFile("memory.events", _EVENTS),
    KernelFile("memory.events.local", _EVENTS),
    KernelFile("memory.oom.group", "0", toggle(errno.EINVAL)),
    KernelFile("memory.reclaim", "", _reclaim, "everywhere"),
    KernelFile(
        "memory.stat", "anon 0\nfile 0\nkernel 0\nsock 0\nshmem 0\nslab 0\npgfault 0\npgmajfault 0", where="everywhere"
    ),
    KernelFile("memory.numa_stat", "anon N0=0\nfile N0=0", where="everywhere"),
)

#: sched_prio_to_weight (kernel/sched/core.c), nice -20 to 19.
_NICE_WEIGHTS = (
    *(88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916),
    *(9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277),
    *(1024, 820, 655, 526, 423, 335, 272, 215, 172, 137),
    *(110, 87, 70, 56, 45, 36, 29, 23, 18, 15),
)


def _set_weight(directory: FakeDirectory, text: str) -> str:
    weight = number(text.strip())
    if not 1 <= weight <= 10000:
        refuse(errno.ERANGE)
    _refuse_idle(directory)
    return str(weight)


def _refuse_idle(directory: FakeDirectory) -> None:
    if directory.has("cpu.idle") and directory.read("cpu.idle") == "1":
        refuse(errno.EINVAL)


def _set_nice(directory: FakeDirectory, text: str) -> str:
    nice = number(text.strip(), signed=True)
    if not -20 <= nice <= 19:
        refuse(errno.ERANGE)
    _refuse_idle(directory)
    directory.put("cpu.weight", str((_NICE_WEIGHTS[nice + 20] * 100 + 512) // 1024))
    return str(nice)


def _set_idle(directory: FakeDirectory, text: str) -> str:
    idle = str(toggle(errno.EINVAL)(directory, text))
    if idle != directory.read("cpu.idle"):
        directory.put("cpu.weight", "0" if idle == "1" else "100")
    return idle


def _set_bandwidth(directory: FakeDirectory, text: str) -> str:
    """cpu.max: ``QUOTA [PERIOD]``; a period that is left out stays as it is."""
    words = text.split()
    if not words or len(words) > 2:
        refuse(errno.EINVAL)
    period = set_period_of(words[1]) if len(words) == 2 else int(directory.read("cpu.max").split()[1])
    if words[0] == "max":
        return f"max {period}"
    quota = number(words[0])
    burst = int(directory.read("cpu.max.burst")) if directory.has("cpu.max.burst") else 0
    if quota < 1000 or quota < burst:
        refuse(errno.EINVAL)
    return f"{quota} {period}"


def _set_burst(directory: FakeDirectory, text: str) -> str:
    burst = number(text.strip())
    quota = directory.read("cpu.max").split()[0]
    if quota != "max" and burst > int(quota):
        refuse(errno.EINVAL)
    return str(burst)


CPU = (
    KernelFile("cpu.weight", "100", _set_weight),
    KernelFile("cpu.weight.nice", "0", _set_nice),
    KernelFile("cpu.idle", "0", _set_idle),
    KernelFile("cpu.max", "max 100000", _set_bandwidth),
    KernelFile("cpu.max.burst", "0", _set_burst),
    *CLAMPS,
)


def _set_of(kind: str) -> Writer:
    """A cpuset of v2 may name what its parent has not: only what both have is granted."""

    def write(directory: FakeDirectory, text: str) -> str:
        offered = directory.host.cpus if kind == "cpus" else directory.host.mems
        wanted = numbers(text, max(offered) + 1 if kind == "cpus" else 1024)
        if not wanted <= set(offered):
            refuse(errno.EINVAL)
        directory.put(f"cpuset.{kind}", list_of(wanted))
        for changed in (directory, *directory.descendants()):
            if changed.has(f"cpuset.{kind}.effective"):
                changed.put(f"cpuset.{kind}.effective", _effective(changed, kind))
        return list_of(wanted)

    return write


def _effective(directory: FakeDirectory, kind: str) -> str:
    name = f"cpuset.{kind}.effective"
    above = directory.parent
    while above is not None and not above.has(name):
        above = above.parent
    if above is None:
        return list_of(set(directory.host.cpus if kind == "cpus" else directory.host.mems))
    granted = numbers(above.read(name), 1 << 16)
    own = numbers(directory.read(f"cpuset.{kind}"), 1 << 16) if directory.has(f"cpuset.{kind}") else set()
    return list_of(own & granted or granted)


def _set_exclusive(directory: FakeDirectory, text: str) -> str:
    """Only CPUs of the parent's own exclusive ones, or of the root's; none that a sibling has."""
    wanted = numbers(text, max(directory.host.cpus) + 1)
    above = directory.parent
    assert above is not None
    siblings = (one for one in above.children.values() if one is not directory and one.has("cpuset.cpus.exclusive"))
    if any(wanted & numbers(sibling.read("cpuset.cpus.exclusive"), 1 << 16) for sibling in siblings):
        refuse(errno.EINVAL)
    return list_of(wanted)


def _set_partition(directory: FakeDirectory, text: str) -> str:
    """A partition is valid with CPUs of its own below a parent that is one ("Cpuset")."""
    kind = text.strip()
    if kind not in ("member", "root", "isolated"):
        refuse(errno.EINVAL)
    above = directory.parent
    assert above is not None
    valid_parent = above.is_root or above.read("cpuset.cpus.partition") in ("root", "isolated")
    if kind != "member" and not directory.read("cpuset.cpus"):
        return f"{kind} invalid (cpuset.cpus and cpuset.cpus.exclusive are empty)"
    if kind != "member" and not valid_parent:
        return f"{kind} invalid (Parent is not a partition root)"
    return kind


CPUSET = (
    KernelFile("cpuset.cpus", "", _set_of("cpus")),
    KernelFile("cpuset.mems", "", _set_of("mems")),
    KernelFile("cpuset.cpus.effective", lambda directory: _effective(directory, "cpus"), where="everywhere"),
    KernelFile("cpuset.mems.effective", lambda directory: _effective(directory, "mems"), where="everywhere"),
    KernelFile("cpuset.cpus.exclusive", "", _set_exclusive),
    KernelFile("cpuset.cpus.exclusive.effective", ""),
    KernelFile("cpuset.cpus.partition", "member", _set_partition),
)

PIDS = (
    KernelFile("pids.max", "max", max_or_number(1 << 22)),
    KernelFile("pids.current", "0"),
    KernelFile("pids.peak", "0"),
    KernelFile("pids.events", "max 0"),
    KernelFile("pids.events.local", "max 0"),
)

_IO_LIMITS = ("rbps", "wbps", "riops", "wiops")


def _set_io_max(directory: FakeDirectory, text: str) -> str:
    device, rest = device_of(directory, text)
    entries = lines(directory.read("io.max"))
    limits = dict.fromkeys(_IO_LIMITS, "max")
    limits.update(dict(pair.split("=", 1) for pair in entries.pop(device, "").split()))
    for pair in rest.split():
        key, _, value = pair.partition("=")
        if key not in limits or not (value == "max" or value.isdecimal()):
            refuse(errno.EINVAL)
        if value != "max" and int(value) == 0:
            refuse(errno.ERANGE)
        limits[key] = value
    if any(value != "max" for value in limits.values()):
        entries[device] = " ".join(f"{key}={value}" for key, value in limits.items())
    return text_of(entries)


def _weights(name: str, highest: int, otherwise: int) -> KernelFile:
    """``default 100``, and a line for each device that has a weight of its own."""

    def write(directory: FakeDirectory, text: str) -> str:
        words = text.split()
        entries = lines(directory.read(name))
        if len(words) == 1:
            words = ["default", *words]
        if len(words) != 2:
            refuse(errno.EINVAL)
        device, weight = ("default", words[1]) if words[0] == "default" else device_of(directory, text)
        if weight == "default" and device != "default":
            entries.pop(device, None)
            return text_of(entries)
        value = number(weight)
        if not 1 <= value <= highest:
            refuse(otherwise)
        return text_of({**entries, device: str(value)})

    return KernelFile(name, "default 100", write)


def _set_latency(directory: FakeDirectory, text: str) -> str:
    device, rest = device_of(directory, text)
    key, _, value = rest.partition("=")
    if key != "target" or not value.isdecimal():
        refuse(errno.EINVAL)
    return text_of({**lines(directory.read("io.latency")), device: f"target={value}"})


def _set_priority_class(_directory: FakeDirectory, text: str) -> str:
    if text.strip() not in _PRIORITY_CLASSES:
        refuse(errno.EINVAL)
    return text.strip()


#: block/blk-ioprio.c
_PRIORITY_CLASSES = ("no-change", "promote-to-rt", "restrict-to-be", "idle", "none-to-rt")

IO = (
    KernelFile("io.max", "", _set_io_max),
    _weights("io.weight", 10000, errno.EINVAL),
    _weights("io.bfq.weight", 1000, errno.ERANGE),
    KernelFile("io.latency", "", _set_latency),
    KernelFile("io.prio.class", "no-change", _set_priority_class),
    KernelFile("io.stat", "", where="everywhere"),
)


def _huge_pages(host: FakeHost) -> tuple[KernelFile, ...]:
    found: list[KernelFile] = []
    for size in host.huge_pages:

        def write(_directory: FakeDirectory, text: str, unit: int = huge_page_bytes(size)) -> str:
            value = pages(text, "max", unit)
            return "max" if value >= UNLIMITED // unit * unit else str(value)

        found += (
            KernelFile(f"hugetlb.{size}.max", "max", write),
            KernelFile(f"hugetlb.{size}.current", "0"),
            KernelFile(f"hugetlb.{size}.events", "max 0"),
            KernelFile(f"hugetlb.{size}.events.local", "max 0"),
            KernelFile(f"hugetlb.{size}.rsvd.max", "max", write),
            KernelFile(f"hugetlb.{size}.rsvd.current", "0"),
        )
    return tuple(found)


def _freeze(directory: FakeDirectory, text: str) -> str:
    frozen = str(toggle(errno.ERANGE)(directory, text))
    directory.put("cgroup.freeze", frozen)
    for below in (directory, *directory.descendants()):
        above: FakeDirectory | None = below
        while above is not None and not above.is_root and above.read("cgroup.freeze") == "0":
            above = above.parent
        effective = above is not None and not above.is_root
        below.put("cgroup.events", text_of({**lines(below.read("cgroup.events")), "frozen": str(int(effective))}))
    return frozen


def _kill(directory: FakeDirectory, text: str) -> None:
    if number(text.strip(), signed=True) != 1:
        refuse(errno.ERANGE)
    directory.end_processes()


#: The files that every v2 cgroup has. The hierarchy itself takes care of cgroup.procs and cgroup.subtree_control.
CORE = (
    KernelFile("cgroup.max.depth", "max", max_or_number((1 << 31) - 1, errno.ERANGE), "everywhere"),
    KernelFile("cgroup.max.descendants", "max", max_or_number((1 << 31) - 1, errno.ERANGE), "everywhere"),
    KernelFile("cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0", where="everywhere"),
    KernelFile("cgroup.type", "domain", keep),
    KernelFile("cgroup.events", "populated 0\nfrozen 0"),
    KernelFile("cgroup.freeze", "0", _freeze),
    KernelFile("cgroup.kill", "", _kill),
    KernelFile("cgroup.pressure", "1", toggle(errno.ERANGE), "everywhere"),
    KernelFile("cpu.stat", "usage_usec 0\nuser_usec 0\nsystem_usec 0", where="everywhere"),
    *(_pressure(f"{resource}.pressure") for resource in ("cpu", "memory", "io")),
)

#: What the cpu controller adds to cpu.stat, which every cgroup has.
THROTTLING = {"nr_periods": "0", "nr_throttled": "0", "throttled_usec": "0", "nr_bursts": "0", "burst_usec": "0"}


def controllers(host: FakeHost) -> dict[str, tuple[KernelFile, ...]]:
    """Controller to its files, as ``host`` has them."""
    return {
        "cpuset": CPUSET,
        "cpu": CPU,
        "io": IO,
        "memory": MEMORY,
        "hugetlb": _huge_pages(host),
        "pids": PIDS,
        "rdma": RDMA,
        "misc": MISC,
        "perf_event": (),
    }


