"""The helper: a small process with one thread that clones the children of the program that started it.

Each is cloned with CLONE_PARENT, so that it is the program's child: that waits for it, and it dies with it. The helper
imports no more than a child needs: its memory is copied, but for children that do without (`mydocker.groundwork`). It
ends when the program does, or lets it, and removes the common parent of the containers' cgroups then, which stays as
long as it lives.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys

from mydocker import init, table, waiting
from mydocker.cgroups import creation  # for the end, when this package may not be there any more
from mydocker.linux import machine, process, signals
from mydocker.spawning import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.plan import Plan
    from mydocker.table import Table

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
    templates = _Templates(program)
    courtesy = _Courtesy()
    try:
        while program not in dict(poll.poll()):
            request = wire.receive(connection)
            if request is None:
                break
            courtesy.end()  # a child has the policy of who clones it
            _make(request, templates)
            courtesy.begin()
    finally:
        creation.remove_common_parents(templates.hierarchies)


class _Courtesy:
    """While this process waits, its policy is SCHED_BATCH: who sends a request keeps its CPU.

    Of SCHED_OTHER a process that has slept for long takes the CPU from who wakes it, if no other is free (sched(7)).
    The program that has just asked for the spare child of its next run would wait until that is cloned.
    """

    def __init__(self) -> None:
        self._wanted = os.sched_getscheduler(0) == os.SCHED_OTHER  # another one was chosen, and stays
        self._param = os.sched_param(0)
        self.begin()

    def begin(self) -> None:
        if self._wanted:
            try:
                os.sched_setscheduler(0, os.SCHED_BATCH, self._param)
            except OSError:
                self._wanted = False  # a filter of system calls forbids it

    def end(self) -> None:
        """OSError."""
        if self._wanted:
            os.sched_setscheduler(0, os.SCHED_OTHER, self._param)


def _make(request: wire.Request, templates: _Templates) -> None:
    """Answer the request by its child's socket."""
    own = wire.Own.unpacked(request.own, request.fds)
    messages = own.descriptors["messages"]
    fds = set(own.descriptors.values()) - {-1}
    for fd in set(request.fds) - fds:  # the child is to have no copy, which would be the last
        os.close(fd)
    try:
        plan = own.given_to(templates.plan(request.template))
        pid, pidfd = templates.clone(plan, request)
        if pid == 0:
            init.run(plan)
    except OSError as e:
        wire.send_error(messages, e.errno or errno.EIO, os.fsdecode(e.filename or ""))
    else:
        wire.send_child(messages, pid, pidfd)
        os.close(pidfd)
    finally:
        for fd in fds:
            os.close(fd)


class _Templates:
    """What the plans of the containers have in common, by kind, with what can be worked out for a kind."""

    def __init__(self, program: int) -> None:
        self._program = program
        self._plans: dict[bytes, Plan] = {}
        self._forks = machine.ForkedMemory()
        #: all that there were
        self.hierarchies: set[Hierarchy] = set()

    def plan(self, data: bytes) -> Plan:
        found = self._plans.get(data)
        if found is None:
            if len(self._plans) >= _MOST_TEMPLATES:
                self._forget_all()
            plan = wire.unpacked(data).replace(runtime=self._program, blank=True)
            known = _table(plan)
            if known is None or not known.groundwork:
                plan = init.loaded(plan)
            found = self._plans[data] = plan.replace(table=known)
            self.hierarchies.update(plan.hierarchies)
        return found

    def clone(self, plan: Plan, request: wire.Request) -> tuple[int, int]:
        """(PID, pidfd) of the child; (0, -1) in a child that is to do `init.run`. OSError."""
        flags = request.flags | process.CLONE_PARENT
        known = plan.table
        if known is not None and known.groundwork and plan.trace < 0 and not request.by_interpreter:
            return known.clone(plan, flags, self._forks)
        init.loaded(plan)
        self._forks.keep_all()
        return process.clone(flags)

    def _forget_all(self) -> None:
        for plan in self._plans.values():
            if plan.table is not None:
                plan.table.close()
        self._plans.clear()


def _table(plan: Plan) -> Table | None:
    try:
        return waiting.made(plan) if plan.may_wait and table.may_be_used() else None
    except (OSError, ValueError):
        return None  # there is no memory for it, or no slot: the interpreter does it
