"""Change the limits of a running container: all that were asked for, or none.

    find → lock → parse → validate → announce → change → keep

Another process than the runtime's does this. Two updates of one container come one after the other. The runtime learns
of it by the record, which is written before the first change: whatever cgroup an update makes is removed at the
container's end, by whichever of the two looks last.
"""

from __future__ import annotations

import errno
import os
import select
import time

from mydocker import hooks, plugins, state
from mydocker.cgroups import removal
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout
from mydocker.errors import CgroupError, LimitError, MydockerError, PluginError, StateError, UsageError
from mydocker.linux import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from mydocker.plugins import Plugin, Registry
    from mydocker.resources import ResourceConfig
    from mydocker.state import Record

#: PF_FORKNOEXEC of include/linux/sched.h: the process was forked and has not executed a program yet.
_FORKED_NOT_EXECUTED = 0x40
#: Seconds for which an update waits for a container that is just being started, and for one that is frozen before its
#: command runs: it has its limits in a moment.
_START_PATIENCE, _FROZEN_PATIENCE = 10.0, 0.5
#: What the kernel says of a cgroup, or of processes, that are about to be gone.
_OF_THE_ENDING = (errno.EBUSY, errno.ESRCH, errno.ENOENT, errno.ENODEV)


def update(name: str, /, **fields: Any) -> Mapping[str, Any]:
    """Change limits of the running container ``name``: ``mydocker.update("job", memory="200m")``.

    The keywords are those of `mydocker.run`; what is not given stays as it is. Returns all limits that are in force
    then, field to value. Raises `StateError` if no such container runs, or it ends meanwhile; `LimitError` for a
    value that cannot be put in force; `UsageError` for one that cannot be changed while the container runs. If
    anything is raised, the limits are as they were.
    """
    given = {field: value for field, value in fields.items() if value is not None}
    return change(name, plugins.load(), given, {field: field for field in given}).asdict()


def change(
    name: str, registry: Registry, given: Mapping[str, object], flags: Mapping[str, str], root: str | None = None
) -> ResourceConfig:
    """As `update`. ``flags``: how errors name the fields. ``root``: where the state of the containers is."""
    if not given:
        raise UsageError("there is no limit to change: give at least one, as in mydocker update NAME -mem 200m")
    root = root or state.default_root()
    state.find(name, root)
    lock = state.lock_for_update(name, root)
    try:
        record = _started(state.find(name, root), root)
        return _Update(record, registry, given, flags, lock).run()
    finally:
        os.close(lock)


def change_record(
    record: Record, registry: Registry, given: Mapping[str, object], flags: Mapping[str, str], lock: int
) -> ResourceConfig:
    """The same for a container whose record the caller has, under the lock of `state.lock_for_update`. Its command need
    not run yet, but its limits are in force.
    """
    return _Update(record, registry, given, flags, lock).run()


def _started(record: Record, root: str) -> Record:
    """Wait until the command runs: before that the limits it is started with are still being put in force."""
    since = time.monotonic()
    while not (record.pid and _has_command(record)):
        waited = time.monotonic() - since
        if waited > _FROZEN_PATIENCE and _is_frozen(record):
            break
        if waited > _START_PATIENCE:
            raise StateError(f'the container "{record.id}" is still being started: try again when its command runs')
        time.sleep(0.005)
        record = state.find(record.id, root)
    return record


def _has_command(record: Record) -> bool:
    """Whether the first process has executed the command, or, as ``--init``, has been told to start it."""
    try:
        with open(f"/proc/{record.pid}/stat", "rb") as f:
            stat = f.read()
        if not int(stat[stat.rindex(b")") + 2 :].split()[6]) & _FORKED_NOT_EXECUTED:
            return True
        with open(f"/proc/{record.pid}/task/{record.pid}/children", "rb") as f:
            return bool(f.read())
    except (FileNotFoundError, ProcessLookupError):
        raise ended(record) from None


def _is_frozen(record: Record) -> bool:
    from mydocker.cgroups import freezing

    return freezing.is_frozen(ContainerCgroup.opened(Layout.read(), record.cgroup))


def ended(record: Record) -> StateError:
    return StateError(f'the container "{record.id}" has ended')


class _Update:
    """One change of one container's limits, under the lock."""

    def __init__(
        self,
        record: Record,
        registry: Registry,
        given: Mapping[str, object],
        flags: Mapping[str, str],
        lock: int,
    ) -> None:
        self._record = record
        self._registry = registry
        self._lock = lock
        self._layout = Layout.read()
        self._previous = registry.parse(record.limits, flags)
        self._config = registry.parse({**record.limits, **given}, flags)
        self._changed = [field for field in given if self._config[field] != self._previous.get(field)]

    def run(self) -> ResourceConfig:
        """The limits in force then."""
        affected = self._affected()
        self._require_hook(affected)
        hooks.supervised(self._validate)
        if affected:
            self._change(affected)
        return self._config

    def _affected(self) -> Sequence[Plugin]:
        """The plugins that own a changed field, in the order in which their hooks are called."""
        owners = {self._registry.field(field)[1].name for field in self._changed}
        ordered = self._registry.owners(self._config, "mydocker_update")
        return [plugin for plugin in ordered if plugin.name in owners]

    def _require_hook(self, affected: Sequence[Plugin]) -> None:
        for plugin in affected:
            if "mydocker_update" not in plugin.hooks:
                field = next(name for name in self._changed if self._registry.field(name)[1] is plugin)
                raise LimitError(field, "it cannot be changed while the container runs", self._config.flag(field))

    def _validate(self, phase: hooks.Phase) -> None:
        """All of them: what is not changed must go with what is."""
        for plugin in self._registry.owners(self._config, "mydocker_validate"):
            phase.begin(f"{plugin} was called in mydocker_validate")
            self._registry.call(plugin, "mydocker_validate", config=self._config, layout=self._layout)

    def _change(self, affected: Sequence[Plugin]) -> None:
        """Signals wait until all or nothing is done; a hook that hangs is given up after its time."""
        mask = signals.current_mask()
        pidfd = open_first_process(self._record)
        try:
            signals.block((signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGQUIT))
            state.rewrite(self._record, self._lock)
            cgroup = ContainerCgroup.opened(self._layout, self._record.cgroup, self._record.pid)
            there = set(cgroup.dirs)
            try:
                self._change_or_undo(affected, cgroup, pidfd)
            finally:
                if has_ended(pidfd):
                    remove_empty([directory for directory in cgroup.dirs if directory not in there])
        finally:
            signals.restore(mask)
            os.close(pidfd)

    def _change_or_undo(self, affected: Sequence[Plugin], cgroup: ContainerCgroup, pidfd: int) -> None:
        cgroup.begin_update(self._record.writers)
        try:
            hooks.supervised(lambda phase: self._call_each(phase, affected, cgroup))
            state.rewrite(self._record.replace(limits=self._config.texts, writers=cgroup.writers), self._lock)
        except BaseException as error:
            failed = hooks.supervised(lambda phase: _undo(phase, cgroup))
            # What is being killed does not let itself be moved, and takes a moment to end.
            ends = isinstance(error, CgroupError) and error.errno in _OF_THE_ENDING
            if has_ended(pidfd, patience=1.0 if ends else 0.0):
                raise ended(self._record) from error
            if failed and isinstance(error, MydockerError):
                left = "; ".join(str(failure) for failure in failed)
                raise PluginError(f"{error}; what was changed before that could not be changed back: {left}") from error
            raise
        if has_ended(pidfd):
            raise ended(self._record)

    def _call_each(self, phase: hooks.Phase, affected: Sequence[Plugin], cgroup: ContainerCgroup) -> None:
        for plugin in affected:
            view = cgroup.for_plugin(plugin.name)
            phase.begin(f"{plugin} was called in mydocker_update", view.abandon)
            self._registry.call(
                plugin,
                "mydocker_update",
                config=self._config,
                previous=self._previous,
                cgroup=view,
                pid=self._record.pid,
            )


def _undo(phase: hooks.Phase, cgroup: ContainerCgroup) -> list[Exception]:
    phase.begin("what was changed before was being changed back")
    return cgroup.undo()


def open_first_process(record: Record) -> int:
    """A pidfd of the container's first process. StateError if it has ended."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        raise ended(record) from None
    try:
        if process.start_time(record.pid) != record.start_time:
            raise ProcessLookupError
    except ProcessLookupError:
        os.close(pidfd)
        raise ended(record) from None
    return pidfd


def has_ended(pidfd: int, patience: float = 0.0) -> bool:
    """Whether the process has ended, or does so in ``patience`` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def remove_empty(directories: Sequence[str]) -> None:
    """Remove what this update made, for the runtime may have looked before it was there.

    With the container's first process all others have ended, so it is empty in a moment. Nothing is killed: a later
    container of the same name may have it by now.
    """
    deadline = time.monotonic() + 1
    for directory in directories:
        while os.path.isdir(directory) and not removal.remove_if_empty(directory) and time.monotonic() < deadline:
            time.sleep(0.002)
