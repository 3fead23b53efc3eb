"""The helper: a small process with one thread that clones the children of the program that started it.

Each is cloned with CLONE_PARENT, so that it is the program's child: that waits for it, and it dies with it. The helper
imports no more than a child needs, and its memory is what is copied. It ends when the program does, or lets it.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys

from mydocker import init
from mydocker.linux import process, signals
from mydocker.spawning import wire
from mydocker.spawning.mount_watch import MountWatch
from mydocker.spawning.spare import Spare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    #: PID and pidfd
    Pid = tuple[int, int]

#: How many kinds of container are remembered.
_MOST_TEMPLATES = 32


def main() -> NoReturn:
    """Serve the requests that come by descriptor 0. ``argv[1]``: the PID of the program."""
    try:
        program = os.pidfd_open(int(sys.argv[1]))
        if os.getppid() == int(sys.argv[1]):  # else it ended before, and the number may be another's
            connection = os.dup(0)
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            process.close_all_except({connection, program})
            _become_helper()
            _serve(connection, program)
    finally:
        os._exit(0)


def _become_helper() -> None:
    os.setsid()  # what is typed at the program's terminal is not for this process
    os.chdir("/")
    signals.block()
    init.become_blank()
    process.set_name(wire.NAME)
    gc.collect()
    gc.freeze()
    gc.disable()


def _serve(connection: int, program: int) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(program, select.POLLIN)  # a fork of the program may hold the other end longer than it lives
    children = _Children(program)
    while program not in dict(poll.poll()):
        request = wire.receive(connection)
        if request is None:
            break
        children.make(request)
        if request.kind == wire.CLONE_AND_SPARE and not poll.poll(0):
            spare = children.make_spare(request)
            if spare:
                wire.send_spare(connection, spare)
    children.drop_spares()


class _Children:
    """Clones the children of the program, and knows the spare ones."""

    def __init__(self, program: int) -> None:
        self._program = program
        self._templates: dict[bytes, init.Plan] = {}
        self._mounts = MountWatch()
        #: by what they are for, the oldest first
        self._spares: dict[tuple[bytes, int], Spare] = {}
        self._dropped: list[int] = []

    def make(self, request: wire.Request) -> None:
        """Answer the request by its child's socket: with the spare child, if it is for such a one, or a new one."""
        own = wire.Own.unpacked(request.own, request.fds)
        messages = own.descriptors["messages"]
        try:
            template = self._template(request.template)
            pid, pidfd = self._take_spare(request, template) or self._clone(own.given_to(template), request.flags)
        except OSError as e:
            wire.send_error(messages, e.errno or errno.EIO, os.fsdecode(e.filename or ""))
        else:
            wire.send_child(messages, pid, pidfd, self.take_dropped())
            os.close(pidfd)
        finally:
            for fd in request.fds:
                os.close(fd)

    def make_spare(self, request: wire.Request) -> int:
        """One more child of this kind, for the next request: its PID. 0 if it cannot be; the next request says why."""
        self._drop_where_mounts_changed()
        kind = (request.template, request.flags)
        if kind in self._spares:
            return 0
        process.set_name(wire.SPARE)  # before: it may be all that the program finds of it, if this process is killed
        try:
            spare = Spare.made(self._template(request.template), request.flags, self._clone)
        except OSError:
            return 0
        finally:
            process.set_name(wire.NAME)
        if len(self._spares) >= wire.MOST_SPARES:
            self._drop(self._spares.pop(next(iter(self._spares))))
        self._spares[kind] = spare
        return spare.pid

    def drop_spares(self) -> None:
        """End the spare children."""
        while self._spares:
            self._drop(self._spares.popitem()[1])

    def _drop(self, spare: Spare) -> None:
        self._dropped.append(spare.pid)
        spare.end()

    def _drop_where_mounts_changed(self) -> None:
        """What a spare child shows of the host is of the moment in which it was made."""
        if self._mounts.changed():
            self.drop_spares()

    def take_dropped(self) -> list[int]:
        """The PIDs of the spare children that were ended, which the program is to reap."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def _template(self, data: bytes) -> init.Plan:
        found = self._templates.get(data)
        if found is None:
            if len(self._templates) >= _MOST_TEMPLATES:
                self._templates.clear()
            plan = wire.unpacked(data).replace(runtime=self._program, blank=True)
            found = self._templates[data] = init.loaded(plan)
        return found

    def _clone(self, plan: init.Plan, flags: int, take_over: Callable[[init.Plan], init.Plan] | None = None) -> Pid:
        pid, pidfd = process.clone(flags | process.CLONE_PARENT)
        if pid == 0:
            init.run(plan, take_over)
        return pid, pidfd

    def _take_spare(self, request: wire.Request, template: init.Plan) -> Pid | None:
        self._drop_where_mounts_changed()
        spare = self._spares.pop((request.template, request.flags), None)
        if spare is None:
            return None
        if not (spare.fits(template) and spare.take(request)):
            self._drop(spare)
            return None
        return spare.pid, spare.pidfd
