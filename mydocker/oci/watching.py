"""Plugins that watch a container of an engine: a process of ours stays with it, since no runtime does.

It is forked when the container is made, right before its command can be started, and ends with the container's first
process. It acts on the verdicts as the runner of ``mydocker run`` does.
"""

from __future__ import annotations

import os
import select

from mydocker.errors import MydockerError
from mydocker.linux import process, signals
from mydocker.linux.pidfd import send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mydocker.limits import Limits
    from mydocker.oci.container import Container
    from mydocker.watch import Verdict
    from mydocker.watching import Watcher


def stay_if_wanted(limits: Limits, found: Container, pidfd: int, not_ours: Iterable[int]) -> None:
    """Ask the plugins what they want to look at, and leave a process that does, if they want any.

    ``pidfd``: of the container's first process. ``not_ours``: descriptors that the process must not keep.
    """
    watches = limits.watches(found.pid)
    if not watches:
        return
    from mydocker.hooks import timeout
    from mydocker.watching import Watcher

    seconds = timeout()
    if process.fork() != 0:
        return
    try:
        _leave_the_caller(not_ours)
        _Stay(Watcher(watches, seconds), found, pidfd).run()
    except BaseException:  # it fails closed: what nobody watches does not run
        _kill(found, pidfd)
    finally:
        os._exit(0)


def _leave_the_caller(not_ours: Iterable[int]) -> None:
    """Hold nothing for whose end an engine waits: a pipe, a lock, a session."""
    os.setsid()
    os.chdir("/")
    process.set_name(b"mydocker-watch")
    signals.unblock_all()
    for fd in not_ours:
        try:
            os.close(fd)
        except OSError:
            continue
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


class _Stay:
    """The process that watches."""

    def __init__(self, watcher: Watcher, found: Container, pidfd: int) -> None:
        self._watcher = watcher
        self._found = found
        self._pidfd = pidfd

    def run(self) -> None:
        watcher = self._watcher
        poll = select.poll()
        for fd in (self._pidfd, watcher.fd):
            poll.register(fd, select.POLLIN)
        watcher.start()
        while True:
            overdue = watcher.overdue()
            if overdue is not None:
                self._act(overdue)
            for fd, _ in poll.poll(watcher.patience * 1000 + 1):
                if fd == self._pidfd:
                    return
                for _, verdict in watcher.take():
                    self._act(verdict)

    def _act(self, verdict: Verdict) -> None:
        if verdict.action == "stop":
            _kill(self._found, self._pidfd)
        elif verdict.action != "note":
            self._freeze(verdict)

    def _freeze(self, verdict: Verdict) -> None:
        """One that cannot be frozen is stopped: a limit fails closed."""
        from mydocker.cgroups import freezing

        try:
            (freezing.freeze if verdict.action == "freeze" else freezing.thaw)(self._found.cgroup())
        except MydockerError:
            _kill(self._found, self._pidfd)


def _kill(found: Container, pidfd: int) -> None:
    """All of the container, also where its first process is not the first of a PID namespace."""
    from mydocker.oci.kill import signal_all, thaw

    try:
        send_signal(pidfd, signals.SIGKILL)
        thaw(found)
    except ProcessLookupError:
        pass
    try:
        signal_all(found, signals.SIGKILL)
    except MydockerError:
        pass  # it is being removed
