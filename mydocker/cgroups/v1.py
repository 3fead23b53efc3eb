# mypy: disallow-subclassing-any=False
"""The files of the cgroup v1 controllers (Documentation/admin-guide/cgroup-v1/)."""

from __future__ import annotations

from mydocker.cgroups.controllers import (
    Controller,
    FlatKeyedFile,
    KeyedLimitsFile,
    NestedKeyedFile,
    ValueOrMaxFile,
)
from mydocker.cgroups.spy import contenttypes, controllers, interfaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Other(Controller):
    """A v1 cgroup, seen by a controller of which no file is described here (perf_event)."""

    version = 1


class Memory(Other, controllers.MemoryController):
    """memory. Limits are bytes; reading no limit gives 9223372036854771712; None sets none.

    ``oom_control`` reads as a dict: oom_kill_disable, under_oom, and since 4.13 oom_kill, the number of processes
    killed in this very cgroup (the count does not go up the tree on v1).
    """

    force_empty = interfaces.FlagFile("memory.force_empty", writeonly=True)
    kmem_usage_in_bytes = interfaces.IntegerFile("memory.kmem.usage_in_bytes", readonly=True)
    kmem_max_usage_in_bytes = interfaces.IntegerFile("memory.kmem.max_usage_in_bytes")


class Cpu(Other, controllers.CpuController):
    """cpu. Microseconds; ``cfs_quota_us`` is None for no quota."""

    cfs_burst_us = interfaces.IntegerFile("cpu.cfs_burst_us")
    idle = interfaces.FlagFile("cpu.idle")


class CpuAcct(Other, controllers.CpuAcctController):
    """cpuacct. Nanoseconds, but ``acct_stat`` in ticks of USER_HZ."""

    usage_user = interfaces.IntegerFile("cpuacct.usage_user", readonly=True)
    usage_sys = interfaces.IntegerFile("cpuacct.usage_sys", readonly=True)


class CpuSet(Other, controllers.CpuSetController):
    """cpuset. Sets of CPU and memory node numbers; the effective ones are what the kernel schedules on."""

    effective_cpus = interfaces.CommaDashSetFile("cpuset.effective_cpus", readonly=True)
    effective_mems = interfaces.CommaDashSetFile("cpuset.effective_mems", readonly=True)


class Pids(Other):
    """pids. Numbers of tasks, threads included."""

    max = ValueOrMaxFile("pids.max")
    current = interfaces.IntegerFile("pids.current", readonly=True)
    peak = interfaces.IntegerFile("pids.peak", readonly=True)
    events = FlatKeyedFile("pids.events")


class Freezer(Other):
    """freezer. ``state`` is THAWED, FREEZING or FROZEN; FROZEN and THAWED can be written."""

    state = interfaces.BaseFileInterface("freezer.state")
    self_freezing = interfaces.FlagFile("freezer.self_freezing", readonly=True)
    parent_freezing = interfaces.FlagFile("freezer.parent_freezing", readonly=True)


class DeviceOperationsFile(interfaces.BaseFileInterface):
    """Lines of ``8:0 Read 4096`` as ``{"8:0": {"Read": 4096}}``; the total of all devices is left out. Read-only."""

    readonly = True

    def sanitize_get(self, value: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for device, operation, number in (line.split() for line in value.splitlines() if line.count(" ") == 2):
            found.setdefault(device, {})[operation] = int(number)
        return found


class HugeTlb(Other):
    """hugetlb. The files are named after the page sizes of the machine: ``limit("2MB")``."""

    def limit(self, size: str) -> int:
        """The limit in bytes on huge pages of ``size``."""
        return int(self.get_property(f"hugetlb.{size}.limit_in_bytes"))

    def set_limit(self, size: str, value: int) -> None:
        """Set the limit in bytes, a multiple of the page size, on huge pages of ``size``."""
        self.set_property(f"hugetlb.{size}.limit_in_bytes", value)


def _device_throttle(filename: str) -> Any:
    return interfaces.TypedFile(filename, contenttype=contenttypes.DeviceThrottle, many=True)


class BlkIo(Other, controllers.BlkIOController):
    """blkio. cgroupspy has a trailing blank in the names of two throttles, and takes a write-only file for readable."""

    reset_stats = interfaces.IntegerFile("blkio.reset_stats", writeonly=True)
    throttle_write_bps_device = _device_throttle("blkio.throttle.write_bps_device")
    throttle_write_iops_device = _device_throttle("blkio.throttle.write_iops_device")
    bfq_weight = interfaces.IntegerFile("blkio.bfq.weight")
    throttle_io_service_bytes = DeviceOperationsFile("blkio.throttle.io_service_bytes")
    throttle_io_service_bytes_recursive = DeviceOperationsFile("blkio.throttle.io_service_bytes_recursive")
    throttle_io_serviced = DeviceOperationsFile("blkio.throttle.io_serviced")
    throttle_io_serviced_recursive = DeviceOperationsFile("blkio.throttle.io_serviced_recursive")


class Devices(Other, controllers.DevicesController):
    """devices."""


class Rdma(Other):
    """rdma. Counts keyed by RDMA device: ``{"mlx5_0": {"hca_handle": 2, "hca_object": None}}``."""

    max = NestedKeyedFile("rdma.max")
    current = NestedKeyedFile("rdma.current", readonly=True)


class Misc(Other):
    """misc. Counts keyed by resource; ``capacity`` is in the root alone."""

    max = KeyedLimitsFile("misc.max")
    current = FlatKeyedFile("misc.current")
    capacity = FlatKeyedFile("misc.capacity")
    events = FlatKeyedFile("misc.events")


class NetCls(Other, controllers.NetClsController):
    """net_cls."""


class NetPrio(Other, controllers.NetPrioController):
    """net_prio."""


CONTROLLERS: dict[str, type[Controller]] = {
    "memory": Memory,
    "cpu": Cpu,
    "cpuacct": CpuAcct,
    "cpuset": CpuSet,
    "pids": Pids,
    "freezer": Freezer,
    "hugetlb": HugeTlb,
    "blkio": BlkIo,
    "devices": Devices,
    "rdma": Rdma,
    "misc": Misc,
    "net_cls": NetCls,
    "net_prio": NetPrio,
}
