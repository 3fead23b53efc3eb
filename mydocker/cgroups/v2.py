# mypy: disallow-subclassing-any=False
"""The files of the cgroup v2 controllers (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import os

from mydocker.cgroups import files
from mydocker.cgroups.controllers import (
    Controller,
    FlatKeyedFile,
    KeyedLimitsFile,
    NestedKeyedFile,
    QuotaPeriodFile,
    ValueOrMaxFile,
    WordsFile,
)
from mydocker.cgroups.spy import interfaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: How our program is known among others of the cgroup.
_DEVICE_PROGRAM = b"mydocker_dev"


class Other(Controller):
    """A v2 cgroup, seen by a controller of which no file is described here (perf_event)."""

    version = 2

    # These three files are v1's.
    tasks = None
    notify_on_release = None
    clone_children = None


class Core(Other):
    """The files that every v2 cgroup has; the root lacks ``type``, ``events``, ``freeze`` and ``kill``.

    CPU time (``cpu_stat``) is counted without the cpu controller, and so is for how long tasks waited.
    """

    threads = interfaces.MultiLineIntegerFile("cgroup.threads")
    controllers = WordsFile("cgroup.controllers", readonly=True)
    subtree_control = WordsFile("cgroup.subtree_control")
    events = FlatKeyedFile("cgroup.events")
    stat = FlatKeyedFile("cgroup.stat")
    type = interfaces.BaseFileInterface("cgroup.type")
    freeze = interfaces.FlagFile("cgroup.freeze")
    kill = interfaces.FlagFile("cgroup.kill", writeonly=True)
    max_depth = ValueOrMaxFile("cgroup.max.depth")
    max_descendants = ValueOrMaxFile("cgroup.max.descendants")
    cpu_stat = FlatKeyedFile("cpu.stat")
    cpu_pressure = NestedKeyedFile("cpu.pressure")
    memory_pressure = NestedKeyedFile("memory.pressure")
    io_pressure = NestedKeyedFile("io.pressure")

    def allow_devices(
        self, rules: Iterable[tuple[int, int | None, int | None, int]], *, others: bool = False
    ) -> None:
        """Let the processes of this cgroup use the devices that ``rules`` allow (`mydocker.linux.bpf.device_program`);
        with ``others`` all but those that ``rules`` name.

        They take the place of those that were set before, at once. `CgroupError` with the kernel's errno.
        """
        from mydocker.linux import bpf

        if self._is_imitation():
            return  # it has no processes that could open a device
        try:
            program = bpf.load_device_program(bpf.device_program(rules, others=others), _DEVICE_PROGRAM)
            try:
                self._with_directory(lambda directory: bpf.attach_device_program(directory, program))
            finally:
                os.close(program)
        except OSError as e:
            raise files.refused("attach a device program to", self.path, e) from e

    def allow_all_devices(self) -> None:
        """Undo `allow_devices`."""
        from mydocker.linux import bpf

        if self._is_imitation():
            return
        try:
            self._with_directory(lambda directory: bpf.detach_device_program(directory, _DEVICE_PROGRAM))
        except OSError as e:
            raise files.refused("detach the device program of", self.path, e) from e

    def _is_imitation(self) -> bool:
        return bool(files.imitations) and files.imitation_of(self.path) is not None

    def _with_directory(self, call: Callable[[int], None]) -> None:
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            call(directory)
        finally:
            os.close(directory)


class Memory(Other):
    """memory. Bytes; None for no limit.

    ``events`` counts this cgroup and all below it, ``events_local`` this very one.
    """

    current = interfaces.IntegerFile("memory.current", readonly=True)
    peak = interfaces.IntegerFile("memory.peak", readonly=True)
    max = ValueOrMaxFile("memory.max")
    high = ValueOrMaxFile("memory.high")
    low = ValueOrMaxFile("memory.low")
    min = ValueOrMaxFile("memory.min")
    swap_max = ValueOrMaxFile("memory.swap.max")
    swap_current = interfaces.IntegerFile("memory.swap.current", readonly=True)
    events = FlatKeyedFile("memory.events")
    events_local = FlatKeyedFile("memory.events.local")
    swap_events = FlatKeyedFile("memory.swap.events")
    oom_group = interfaces.FlagFile("memory.oom.group")
    stat = FlatKeyedFile("memory.stat")
    pressure = NestedKeyedFile("memory.pressure")


class Cpu(Other):
    """cpu. ``max`` is (quota or None, period) in microseconds; ``weight`` 1 to 10000."""

    weight = interfaces.IntegerFile("cpu.weight")
    max = QuotaPeriodFile("cpu.max")
    max_burst = interfaces.IntegerFile("cpu.max.burst")
    idle = interfaces.FlagFile("cpu.idle")
    stat = FlatKeyedFile("cpu.stat")
    pressure = NestedKeyedFile("cpu.pressure")


class CpuSet(Other):
    """cpuset. Sets of CPU and memory node numbers; the effective ones are what the kernel schedules on."""

    cpus = interfaces.CommaDashSetFile("cpuset.cpus")
    mems = interfaces.CommaDashSetFile("cpuset.mems")
    effective_cpus = interfaces.CommaDashSetFile("cpuset.cpus.effective", readonly=True)
    effective_mems = interfaces.CommaDashSetFile("cpuset.mems.effective", readonly=True)
    exclusive_cpus = interfaces.CommaDashSetFile("cpuset.cpus.exclusive")
    partition = interfaces.BaseFileInterface("cpuset.cpus.partition")


class Pids(Other):
    """pids. Numbers of tasks, threads included."""

    max = ValueOrMaxFile("pids.max")
    current = interfaces.IntegerFile("pids.current", readonly=True)
    peak = interfaces.IntegerFile("pids.peak", readonly=True)
    events = FlatKeyedFile("pids.events")
    events_local = FlatKeyedFile("pids.events.local")


class Io(Other):
    """io. Keyed by device number, ``8:0``."""

    max = NestedKeyedFile("io.max")
    stat = NestedKeyedFile("io.stat", readonly=True)
    weight = interfaces.BaseFileInterface("io.weight")
    bfq_weight = interfaces.BaseFileInterface("io.bfq.weight")
    pressure = NestedKeyedFile("io.pressure")


class HugeTlb(Other):
    """hugetlb. The files are named after the page sizes of the machine: ``limit("2MB")``."""

    def limit(self, size: str) -> int | None:
        """The limit in bytes on huge pages of ``size``, None for none."""
        value = self.get_property(f"hugetlb.{size}.max")
        return None if value == "max" else int(value)

    def set_limit(self, size: str, value: int | None) -> None:
        """Set the limit in bytes, a multiple of the page size, on huge pages of ``size``."""
        self.set_property(f"hugetlb.{size}.max", "max" if value is None else value)


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


CONTROLLERS: dict[str, type[Controller]] = {
    "cgroup": Core,
    "memory": Memory,
    "cpu": Cpu,
    "cpuset": CpuSet,
    "pids": Pids,
    "io": Io,
    "hugetlb": HugeTlb,
    "rdma": Rdma,
    "misc": Misc,
}
