"""A spare child: cloned into its namespaces and with its mounts made before there is a container for it.

For a program that runs one container after another of the same kind: while one runs, the next child is set up on
another CPU. It has nothing of any container's own, no cgroup, no name, no descriptor, until it is taken. What it has is
what it would have if it were made then: it is taken only if no mount of the host, and none of the directories that it
shows, has become another since.
"""

from __future__ import annotations

import _socket
import os
import select

from mydocker.linux import process, rights
from mydocker.linux.pidfd import SIGKILL, send_signal
from mydocker.spawning import wire
from mydocker.spec import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker import init

#: What a plan has for itself, in marshal's format: two paths and some numbers.
_LARGEST = 1 << 16
_MOST_DESCRIPTORS = 16


class Spare:
    def __init__(self, pid: int, pidfd: int, socket: int, shown: object) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._socket = socket
        self._shown = shown

    @classmethod
    def made(cls, template: init.Plan, flags: int, clone: Callable[..., tuple[int, int]]) -> Spare:
        """One for containers of this kind. OSError from the clone."""
        shown = _shown(template)
        ours, theirs = rights.pair(_socket.SOCK_SEQPACKET)
        try:
            staging = template.spec.rootfs or ""  # any directory does, and in its own mount namespace only
            plan = template.replace(staging=staging, taking_over=theirs)
            pid, pidfd = clone(plan, flags, _take_over)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(pid, pidfd, ours, shown)

    def fits(self, template: init.Plan) -> bool:
        """Whether it is what would be made now, if no mount has changed."""
        if self._shown != _shown(template):
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)  # it could not be set up, or was killed

    def take(self, request: wire.Request) -> bool:
        """Give it what is the container's own. False if it is gone, which it may be in this moment."""
        try:
            rights.send(self._socket, request.own, request.fds)
        except OSError:
            return False
        os.close(self._socket)
        return True

    def end(self) -> None:
        try:
            send_signal(self.pidfd, SIGKILL)
        except ProcessLookupError:
            pass
        os.close(self.pidfd)
        os.close(self._socket)


def _take_over(plan: init.Plan) -> init.Plan:
    """The spare child: wait for what is the container's own."""
    data, fds = rights.receive(plan.taking_over, _LARGEST, _MOST_DESCRIPTORS)
    if not data:
        os._exit(125)  # nobody wants it
    process.set_name(wire.NAME)
    os.close(plan.taking_over)
    return wire.Own.unpacked(data, fds).given_to(plan).replace(taking_over=-1)


def _shown(template: init.Plan) -> list[tuple[int, int] | None]:
    """Which directories and files are at the paths that a child shows of the host."""
    spec = template.spec
    paths = [spec.rootfs or "/", *(entry.source for entry in spec.mounts if isinstance(entry, Volume))]
    return list(map(_identity, paths))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
