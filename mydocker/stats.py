"""What the running containers use at this moment: the figures behind ``mydocker stats``.

Only what runs is looked at, each container in its own cgroup; no hierarchy is walked. A container may end while it
is looked at, and is then simply not there.
"""

from __future__ import annotations

import time

from mydocker import hooks, state
from mydocker.cgroups.group import ContainerCgroup
from mydocker.errors import MydockerError, PluginError
from mydocker.linux import process
from mydocker.processes import figures_of
from mydocker.resources import ResourceConfig
from mydocker.result import Usage, checked_figures
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from mydocker.cgroups.layout import Layout
    from mydocker.plugins import Plugin, Registry
    from mydocker.state import Record


class Reading(Value):
    """One container's usage at ``time`` (seconds of the monotonic clock).

    ``by_processes``: whether some figure is the sum over the container's processes, because it has no cgroup there.
    """

    record: Record
    time: float
    usage: Usage
    by_processes: bool = False


class Stats(Value):
    """Two readings of one container and what follows from them. ``before`` is None at first: no rate is known then."""

    now: Reading
    before: Reading | None = None

    @property
    def cpus(self) -> float | None:
        """How many CPUs the container kept busy between the readings."""
        return self._rate(lambda usage: usage.cpu_user + usage.cpu_system)

    def pressure(self, name: str) -> float | None:
        """For which part of the time, 0 to 1, some task of the container waited for memory, CPU or io."""
        rate = self._rate(lambda usage: usage.pressure.get(name, {}).get("some_seconds"))
        return None if rate is None else min(rate, 1.0)

    def _rate(self, count: Any) -> float | None:
        if self.before is None:
            return None
        now, before = count(self.now.usage), count(self.before.usage)
        seconds = self.now.time - self.before.time
        if now is None or before is None or seconds <= 0:
            return None
        return max(0.0, float(now - before) / seconds)

    @property
    def memory(self) -> int | None:
        """Bytes in use but for file pages that the kernel can drop at any time, as ``docker stats`` shows it."""
        usage = self.now.usage
        if usage.memory_current is None:
            return None
        return max(0, usage.memory_current - usage.memory_kinds.get("inactive_file", 0))


class Observer:
    """Reads the usage of running containers again and again."""

    def __init__(self, registry: Registry, layout: Layout, root: str) -> None:
        self._registry = registry
        self._layout = layout
        self._root = root
        self._last: dict[tuple[str, int], Reading] = {}
        #: plugins that did not answer in time once: they would hold up every reading
        self._hanging: set[str] = set()

    def look(self, names: Sequence[str] = ()) -> list[Stats]:
        """All running containers, or those of ``names`` that still run; the oldest first."""
        found = []
        for record in state.running_of(names, self._root) if names else state.running(self._root):
            if record.pid:
                reading = self.read(record)
                if reading is not None:
                    found.append(Stats(now=reading, before=self._last.get(_identity(record))))
        self._last = {_identity(stats.now.record): stats.now for stats in found}
        return found

    def read(self, record: Record) -> Reading | None:
        """The usage of one container, None if it has ended."""
        cgroup = ContainerCgroup.opened(self._layout, record.cgroup)
        figures = self._figures(_config(record, self._registry), cgroup)
        counted = Usage.of(figures)
        own_cpu = any("user_seconds" in of_plugin for of_plugin in figures.values())
        whole = own_cpu and None not in (counted.memory_current, counted.pids_current, counted.io_read_bytes)
        usage = counted if whole else _completed(counted, record.pid, own_cpu=own_cpu)
        if not is_alive(record):
            return None
        return Reading(record=record, time=time.monotonic(), usage=usage, by_processes=not whole)

    def _figures(self, config: ResourceConfig, cgroup: ContainerCgroup) -> Mapping[str, Mapping[str, Any]]:
        """What the plugins say that own a limit of the container, or can count without one."""
        owners = self._registry.owners(config)
        asked = [
            plugin
            for plugin in self._registry.plugins
            if "mydocker_usage" in plugin.hooks
            and plugin.name not in self._hanging
            and (plugin in owners or "mydocker_account" in plugin.hooks)
        ]
        figures: dict[str, Mapping[str, Any]] = {}
        while asked:
            try:
                hooks.supervised(lambda phase: self._ask(phase, asked, figures, config, cgroup))
            except PluginError as error:  # the first of them hangs: the others are still asked
                hanging = asked.pop(0).name
                self._hanging.add(hanging)
                figures[hanging] = {"error": str(error)}
        return figures

    def _ask(
        self,
        phase: hooks.Phase,
        asked: list[Plugin],
        figures: dict[str, Mapping[str, Any]],
        config: ResourceConfig,
        cgroup: ContainerCgroup,
    ) -> None:
        while asked:
            plugin = asked[0]
            view = cgroup.for_plugin(plugin.name)
            phase.begin(f"{plugin} was called in mydocker_usage", view.abandon)
            try:
                answer = self._registry.call(plugin, "mydocker_usage", config=config, cgroup=view)
                found = checked_figures(str(plugin), answer)
            except MydockerError as error:  # such as a cgroup that has just been removed
                found = {"error": str(error)}
            if phase.abandoned:
                return
            figures[plugin.name] = found
            asked.pop(0)


def _identity(record: Record) -> tuple[str, int]:
    """A later container may have the same name."""
    return record.id, record.start_time


def is_alive(record: Record) -> bool:
    """Whether the container's first process has not ended."""
    try:
        return process.start_time(record.pid) == record.start_time and not _is_zombie(record.pid)
    except (ProcessLookupError, FileNotFoundError):
        return False


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as f:
        stat = f.read()
    return stat[stat.rindex(b")") + 2 :][:1] in (b"Z", b"X")


def _config(record: Record, registry: Registry) -> ResourceConfig:
    """The limits in the record; none if a plugin that the container was started with is not here."""
    try:
        return registry.parse(record.limits)
    except MydockerError:
        return ResourceConfig()


def _completed(usage: Usage, first: int, *, own_cpu: bool) -> Usage:
    """With the sums over the container's processes in place of what no cgroup counts."""
    of_processes = figures_of(first)
    changes: dict[str, Any] = {}
    if not own_cpu:
        changes.update(cpu_user=of_processes.cpu_user, cpu_system=of_processes.cpu_system)
    if usage.memory_current is None:
        changes.update(memory_current=of_processes.memory, memory_kinds={})
    if usage.pids_current is None:
        changes.update(pids_current=of_processes.tasks)
    if usage.io_read_bytes is None:
        changes.update(io_read_bytes=of_processes.read_bytes, io_written_bytes=of_processes.written_bytes)
    return usage.replace(**changes)
