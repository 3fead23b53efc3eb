"""Plugins that watch a container of an engine: a process of ours stays, since no runtime does.

It is there when the container is made, right before its command can be started, and acts on the verdicts as the runner
of ``mydocker run`` does. Where the plugins allow it, it is one for all containers: `mydocker.oci.monitor`. Of a plugin
that needs what its other hooks have left in the process, each container gets a fork, which ends with it.
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
    from mydocker.plugins import Registry
    from mydocker.watch import Verdict
    from mydocker.watching import Watcher


def begin_if_wanted(
    limits: Limits, registry: Registry, found: Container, pidfd: int, not_ours: Iterable[int]
) -> dict[str, object] | None:
    """Have the container watched, if a plugin wants to. What to note in its record of a monitor, if that does it.

    ``pidfd``: of the container's first process. ``not_ours``: descriptors that a process of its own must not keep.
    """
    watching = limits.watching
    if not watching:
        return None
    if all(registry.shares_watch(plugin) for plugin in watching):
        from mydocker.oci import monitor

        limits.watched_elsewhere()
        return monitor.hand_over(found, registry, limits)
    _stay_if_wanted(limits, found, pidfd, not_ours)
    return None


def _stay_if_wanted(limits: Limits, found: Container, pidfd: int, not_ours: Iterable[int]) -> None:
    watches = limits.watches(found.pid)
    if not watches:
        return
    from mydocker.hooks import timeout
    from mydocker.watching import Watcher

    seconds = timeout()
    if process.fork() != 0:
        return
    try:
        leave_the_caller()
        for fd in not_ours:
            try:
                os.close(fd)
            except OSError:
                continue
        watcher = Watcher(watches, seconds)
        watcher.start()
        Stay(watcher, found, pidfd).run()
    except BaseException:  # it fails closed: what nobody watches does not run
        kill(found, pidfd)
    finally:
        os._exit(0)


def leave_the_caller() -> None:
    """Hold nothing for whose end an engine waits: a session, a directory, the standard streams."""
    os.setsid()
    os.chdir("/")
    process.set_name(b"mydocker-watch")
    signals.unblock_all()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


class Stay:
    """One container that is watched, by the thread that calls `run`."""

    def __init__(self, watcher: Watcher, found: Container, pidfd: int) -> None:
        self._watcher = watcher
        self.found = found
        self._pidfd = pidfd

    def run(self) -> None:
        """Act on the verdicts until its first process has ended."""
        watcher = self._watcher
        poll = select.poll()
        for fd in (self._pidfd, watcher.fd):
            poll.register(fd, select.POLLIN)
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
            self.kill()
        elif verdict.action != "note":
            self._freeze(verdict)

    def _freeze(self, verdict: Verdict) -> None:
        """One that cannot be frozen is stopped: a limit fails closed."""
        from mydocker.cgroups import freezing

        try:
            (freezing.freeze if verdict.action == "freeze" else freezing.thaw)(self.found.cgroup())
        except MydockerError:
            self.kill()

    def kill(self) -> None:
        kill(self.found, self._pidfd)

    def close(self) -> None:
        self._watcher.stop()
        os.close(self._pidfd)


def kill(found: Container, pidfd: int) -> None:
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
