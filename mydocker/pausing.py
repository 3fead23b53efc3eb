"""Pausing a running container from outside: ``mydocker pause`` and ``unpause``.

    find → lock → announce → freeze, or thaw

A container without a cgroup that can freeze gets one. As with an update, its record is written first, so that the
runtime removes the cgroup at the end.
"""

from __future__ import annotations

import os
import time

from mydocker import state
from mydocker.cgroups import freezing
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout
from mydocker.errors import CgroupError, StateError
from mydocker.linux import signals
from mydocker.updating import ended, has_ended, open_first_process, remove_empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.state import Record

#: Seconds in which a container that is just being started has to have its first process.
_START_PATIENCE = 10.0


def pause(name: str) -> None:
    """Stop every process of the running container ``name`` where it is.

    `StateError` if no such container runs, or it is paused already; `CgroupError` if this host cannot, or a process
    does not stop.
    """
    root = state.default_root()
    state.find(name, root)
    lock = state.lock_for_update(name, root)
    try:
        record = _with_process(name, root)
        pidfd = open_first_process(record)
        try:
            _freeze(record, lock, pidfd)
        finally:
            os.close(pidfd)
    finally:
        os.close(lock)


def _with_process(name: str, root: str) -> Record:
    """The record, once the container has its first process."""
    deadline = time.monotonic() + _START_PATIENCE
    record = state.find(name, root)
    while not record.pid:
        if time.monotonic() > deadline:
            raise StateError(f'the container "{name}" is still being started: try again in a moment')
        time.sleep(0.005)
        record = state.find(name, root)
    return record


def _freeze(record: Record, lock: int, pidfd: int) -> None:
    cgroup = ContainerCgroup.opened(Layout.read(), record.cgroup, record.pid)
    if freezing.is_frozen(cgroup):
        raise StateError(f'the container "{record.id}" is paused already')
    if not freezing.can_freeze(cgroup):
        state.rewrite(record, lock)
    there = set(cgroup.dirs)
    try:
        freezing.freeze(cgroup)
        if _is_killed(record.pid):  # its runtime has thawed it a moment too early for what v1 holds
            freezing.thaw(cgroup)
            raise ended(record)
    except CgroupError as error:  # such as that processes which are about to end do not let themselves be moved
        if has_ended(pidfd, patience=1.0):
            raise ended(record) from error
        raise
    finally:
        if has_ended(pidfd):
            remove_empty([directory for directory in cgroup.dirs if directory not in there])
    if has_ended(pidfd):
        raise ended(record)


def _is_killed(pid: int) -> bool:
    """Whether SIGKILL is pending for the process (proc(5), SigPnd and ShdPnd)."""
    try:
        with open(f"/proc/{pid}/status", "rb") as f:
            lines = dict(line.split(b":", 1) for line in f if line.startswith((b"SigPnd", b"ShdPnd")))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(int(mask, 16) >> (signals.SIGKILL - 1) & 1 for mask in lines.values())


def unpause(name: str) -> None:
    """Let the paused container ``name`` go on; one that was started with ``--frozen`` starts its command.

    `StateError` if no such container runs, or it is not paused; `CgroupError` if a cgroup above it is frozen.
    """
    root = state.default_root()
    record = state.find(name, root)
    cgroup = ContainerCgroup.opened(Layout.read(), record.cgroup)
    if not freezing.is_frozen(cgroup):
        raise StateError(f'the container "{record.id}" is not paused')
    freezing.thaw(cgroup)
