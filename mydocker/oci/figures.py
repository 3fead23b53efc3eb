"""What a container uses, in the shape in which runc prints it: engines read it by these names.

runc's types/events.go has the names; that what is 0 is left out in some places and not in others is runc's too. The
figures are the kernel's own: cgroup-v1/*.rst, cgroup-v2.rst.
"""

from __future__ import annotations

import os

from mydocker.cgroups import files
from mydocker.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.cgroups.group import ContainerCgroup

#: No limit on v2, as an unsigned number of 64 bits.
_NO_LIMIT = (1 << 64) - 1
#: Nanoseconds in a tick of USER_HZ, which is 100 on every architecture that Linux has today.
_TICK = 10_000_000

_BLKIO_FILES = {
    "ioServiceBytesRecursive": "io_service_bytes_recursive",
    "ioServicedRecursive": "io_serviced_recursive",
    "ioQueueRecursive": "io_queued_recursive",
    "ioServiceTimeRecursive": "io_service_time_recursive",
    "ioWaitTimeRecursive": "io_wait_time_recursive",
    "ioMergedRecursive": "io_merged_recursive",
    "ioTimeRecursive": "time_recursive",
    "sectorsRecursive": "sectors_recursive",
}
_CPUSET_FILES = (
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)


def figures_of(cgroup: ContainerCgroup) -> dict[str, Any]:
    """All of them. What the kernel does not count for this container is 0, or not there."""
    memory = _memory_v1 if cgroup.layout.version("memory") == 1 else _memory_v2
    io = _blkio_v1 if cgroup.layout.version("blkio") == 1 else _blkio_v2
    return {
        "cpu": _cpu(cgroup),
        "cpuset": _cpuset(_directory(cgroup, "cpuset"), cgroup.layout.version("cpuset")),
        "memory": memory(_directory(cgroup, "memory")),
        "pids": _pids(_directory(cgroup, "pids")),
        "blkio": io(_directory(cgroup, "blkio") or _directory(cgroup, "io")),
        "hugetlb": _hugetlb(_directory(cgroup, "hugetlb"), cgroup.layout.version("hugetlb")),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _directory(cgroup: ContainerCgroup, controller: str) -> str:
    """The container's cgroup in the controller's hierarchy, or empty."""
    return cgroup.controller(controller).path if cgroup.has(controller) else ""


def _text(directory: str, name: str) -> str:
    """The file's text; empty where there is none."""
    try:
        return files.read(f"{directory}/{name}") if directory else ""
    except CgroupError:
        return ""


def _number(directory: str, name: str) -> int:
    """Its number; 0 where there is none, and `_NO_LIMIT` for max."""
    text = _text(directory, name)
    return _NO_LIMIT if text == "max" else int(text) if text.lstrip("-").isdigit() else 0


def _pairs(directory: str, name: str) -> dict[str, int]:
    pairs = (line.split() for line in _text(directory, name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _without_zeros(values: dict[str, Any], kept: tuple[str, ...] = ()) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value or key in kept}


def _cpu(cgroup: ContainerCgroup) -> dict[str, Any]:
    if cgroup.layout.version("cpu") == 1 or cgroup.has("cpuacct"):
        return {
            "usage": _cpu_usage_v1(_directory(cgroup, "cpuacct")),
            "throttling": _throttling_v1(_directory(cgroup, "cpu")),
        }
    directory = _directory(cgroup, "cgroup")
    stat = _pairs(directory, "cpu.stat")
    usage = {
        "total": stat.get("usage_usec", 0) * 1000,
        "kernel": stat.get("system_usec", 0) * 1000,
        "user": stat.get("user_usec", 0) * 1000,
    }
    throttling = {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": stat.get("throttled_usec", 0) * 1000,
    }
    return {
        "usage": _without_zeros(usage, ("kernel", "user")),
        "throttling": _without_zeros(throttling),
        **_pressure(directory, "cpu.pressure"),
    }


def _cpu_usage_v1(directory: str) -> dict[str, Any]:
    stat = _pairs(directory, "cpuacct.stat")
    by_cpu = [line.split() for line in _text(directory, "cpuacct.usage_all").splitlines()[1:]]
    usage = {
        "total": _number(directory, "cpuacct.usage"),
        "percpu": [int(word) for word in _text(directory, "cpuacct.usage_percpu").split()],
        "percpu_kernel": [int(system) for _, _, system in by_cpu],
        "percpu_user": [int(user) for _, user, _ in by_cpu],
        "kernel": stat.get("system", 0) * _TICK,
        "user": stat.get("user", 0) * _TICK,
    }
    return _without_zeros(usage, ("kernel", "user"))


def _throttling_v1(directory: str) -> dict[str, int]:
    stat = _pairs(directory, "cpu.stat")
    names = {"periods": "nr_periods", "throttledPeriods": "nr_throttled", "throttledTime": "throttled_time"}
    return _without_zeros({key: stat.get(name, 0) for key, name in names.items()})


def _pressure(directory: str, name: str) -> dict[str, Any]:
    """``psi``, where the kernel counts it: shares of the time in percent, and microseconds."""
    found = {}
    for line in _text(directory, name).splitlines():
        kind, *words = line.split()
        pairs = (word.split("=") for word in words)
        found[kind] = {key: int(value) if key == "total" else float(value) for key, value in pairs}
    return {"psi": found} if found else {}


def _cpuset(directory: str, version: int | None) -> dict[str, Any]:
    """runc has it for v1 alone; the names are there in any case."""
    if version != 1:
        directory = ""
    values: dict[str, Any] = {"cpus": _listed(_text(directory, "cpuset.cpus"))}
    values["cpu_exclusive"] = _number(directory, "cpuset.cpu_exclusive")
    values["mems"] = _listed(_text(directory, "cpuset.mems"))
    for name in _CPUSET_FILES[1:]:
        values[name] = _number(directory, f"cpuset.{name}")
    return _without_zeros(values, _CPUSET_FILES)


def _listed(text: str) -> list[int]:
    from mydocker.resources import parse_cpu_list

    return list(parse_cpu_list(text)) if text else []


def _memory_v1(directory: str) -> dict[str, Any]:
    raw = _pairs(directory, "memory.stat")
    values: dict[str, Any] = {
        "cache": raw.get("cache", 0),
        "usage": _memory_entry_v1(directory, "memory"),
        "swap": _memory_entry_v1(directory, "memory.memsw"),
        "kernel": _memory_entry_v1(directory, "memory.kmem"),
        "kernelTCP": _memory_entry_v1(directory, "memory.kmem.tcp"),
        "raw": raw,
    }
    return _without_zeros(values)


def _memory_entry_v1(directory: str, prefix: str) -> dict[str, int]:
    values = {
        "limit": _number(directory, f"{prefix}.limit_in_bytes"),
        "usage": _number(directory, f"{prefix}.usage_in_bytes"),
        "max": _number(directory, f"{prefix}.max_usage_in_bytes"),
        "failcnt": _number(directory, f"{prefix}.failcnt"),
    }
    return _without_zeros(values, ("limit", "failcnt"))


def _memory_v2(directory: str) -> dict[str, Any]:
    """Swap is that of both together, as v1 counts it."""
    raw = _pairs(directory, "memory.stat")
    usage = {
        "limit": _number(directory, "memory.max"),
        "usage": _number(directory, "memory.current"),
        "max": _number(directory, "memory.peak"),
        "failcnt": _pairs(directory, "memory.events").get("max", 0),
    }
    swap = {
        "limit": _number(directory, "memory.swap.max"),
        "usage": _number(directory, "memory.swap.current") + usage["usage"],
        "max": _number(directory, "memory.swap.peak"),
        "failcnt": _pairs(directory, "memory.swap.events").get("max", 0),
    }
    if swap["limit"] != _NO_LIMIT:
        swap["limit"] = _NO_LIMIT if usage["limit"] == _NO_LIMIT else swap["limit"] + usage["limit"]
    kept = ("limit", "failcnt")
    values: dict[str, Any] = {
        "cache": raw.get("file", 0),
        "usage": _without_zeros(usage, kept),
        "swap": _without_zeros(swap, kept),
        "kernel": _without_zeros({"limit": 0, "usage": raw.get("kernel", 0), "failcnt": 0}, kept),
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "raw": raw,
        **_pressure(directory, "memory.pressure"),
    }
    return _without_zeros(values)


def _pids(directory: str) -> dict[str, int]:
    limit = _number(directory, "pids.max")
    return _without_zeros(
        {"current": _number(directory, "pids.current"), "limit": 0 if limit == _NO_LIMIT else limit}
    )


def _blkio_v1(directory: str) -> dict[str, Any]:
    """BFQ's where it has some, else those of the throttle."""
    found = {}
    for key, name in _BLKIO_FILES.items():
        for prefix in ("blkio.bfq", "blkio", "blkio.throttle"):
            entries = [_entry(line) for line in _text(directory, f"{prefix}.{name}").splitlines()]
            entries = [entry for entry in entries if entry]
            if entries:
                found[key] = entries
                break
    return found


def _entry(line: str) -> dict[str, Any]:
    """``8:0 Read 4096`` or ``8:0 4096``."""
    device, *words = line.split()
    major, colon, minor = device.partition(":")
    if not colon or not words:
        return {}
    values = {"major": int(major), "minor": int(minor), "op": words[0] if len(words) > 1 else "", "value": words[-1]}
    return _without_zeros({**values, "value": int(words[-1])})


def _blkio_v2(directory: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    operations = {"r": "Read", "w": "Write", "d": "Discard"}
    for line in _text(directory, "io.stat").splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        for word in words:
            key, _, value = word.partition("=")
            table = {"bytes": "ioServiceBytesRecursive", "ios": "ioServicedRecursive"}.get(key[1:])
            if table is not None and key[0] in operations:
                values = {"major": int(major), "minor": int(minor), "op": operations[key[0]], "value": int(value)}
                found.setdefault(table, []).append(_without_zeros(values))
    return {**found, **_pressure(directory, "io.pressure")}


def _hugetlb(directory: str, version: int | None) -> dict[str, Any]:
    found = {}
    for size in _page_sizes(directory):
        prefix = f"hugetlb.{size}"
        if version == 1:
            values = {
                "usage": _number(directory, f"{prefix}.usage_in_bytes"),
                "max": _number(directory, f"{prefix}.max_usage_in_bytes"),
                "failcnt": _number(directory, f"{prefix}.failcnt"),
            }
        else:
            values = {
                "usage": _number(directory, f"{prefix}.current"),
                "failcnt": _pairs(directory, f"{prefix}.events").get("max", 0),
            }
        found[size] = _without_zeros(values, ("failcnt",))
    return found


def _page_sizes(directory: str) -> list[str]:
    names = os.listdir(directory) if directory else []
    sizes = {name.split(".")[1] for name in names if name.startswith("hugetlb.")}
    return sorted(sizes)
