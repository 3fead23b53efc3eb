"""A child that waits with machine code: all that it does up to the command is tables of system calls.

What the interpreter would touch to do that is a copy of the memory of the process that cloned the child, page for page,
and takes longer than the system calls themselves; and execve(2) has to take that memory apart. So it is worked out
beforehand, as a `mydocker.linux.batch.Batch` in which the child waits by recvmsg(2) and read(2). Most children do the
same with what comes before they have cgroups (`mydocker.groundwork`), and have no memory but that; one that the
interpreter has set up unmaps all but the tables first. The steps, and their order, are those of `mydocker.init`, which
does them for all other children. `mydocker.table` has what was worked out, `mydocker.landing` the command for it.
"""

from __future__ import annotations

import errno
import os
import struct

from mydocker import cgroup_view, groundwork, handoff, landing, mounts
from mydocker.handoff import Failure
from mydocker.linux import batch, capabilities, empty_file, machine, process, seccomp, signals
from mydocker.linux.libc import architecture_number
from mydocker.table import MOST_GAPS, POLLFD_SIZE, SIZE, TABLES, Places, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.linux.batch import Batch, Slot
    from mydocker.plan import Plan

_MOST_QUESTIONS = 4

_DROP = "drop privileges"

_WRITE, _SETHOSTNAME, _UNSHARE, _CHDIR, _GETCWD, _RT_SIGPROCMASK, _RECVMSG = (
    architecture_number(*numbers)
    for numbers in ((1, 64), (170, 161), (272, 97), (80, 49), (79, 17), (14, 135), (47, 212))
)
_SETGROUPS, _SETRESGID, _SETRESUID, _PRCTL, _MUNMAP = (
    architecture_number(*numbers)
    for numbers in ((116, 159), (119, 149), (117, 147), (157, 167), (11, 215))
)

_MSG_CMSG_CLOEXEC = 0x40000000
_SIG_SETMASK = 2

#: struct msghdr and iovec (recvmsg(2)), cmsghdr (cmsg(3)).
_MSGHDR = struct.Struct("@PI4xPNPNi4x")
_IOVEC = struct.Struct("@PN")
_CMSG = 16
_PATH_MAX = 4096

#: Descriptors that stay when the others are closed, at most: those of a plan, and that of an empty executable.
_MOST_STAYING = 5


def failed_step(plan: Plan, outcome: int) -> Failure | None:
    """What the child of this plan was at that is stuck; None if it had its command."""
    number, index = batch.outcome_of(outcome)
    way = _without_memory(plan)
    if not outcome or index >= way.length - 1:
        return None
    doing = way.name_of(index)
    if number in (batch.ENODATA, errno.EPROTO):
        return Failure(stage="setup", errno=0, text=f"cannot {doing}: what was to come has not come")
    return Failure(stage="setup", errno=number, text=f"cannot {doing}: {os.strerror(number)}")


def failed_in_groundwork(plan: Plan, outcome: int) -> int:
    """The errno if it has no cgroups yet, else 0: then the interpreter may do better, and knows more words."""
    number, index = batch.outcome_of(outcome)
    return number if outcome and index < _without_memory(plan).groundwork else 0


def _without_memory(plan: Plan) -> Waiting:
    return Waiting(plan, _Memory(0))


class Waiting:
    """What the child of a plan does from its cgroups on, and before that if it can (`groundwork`)."""

    def __init__(self, plan: Plan, memory: _Memory) -> None:
        """Works it out: once for all plans that differ in nothing but descriptors and staging directory."""
        self._memory = memory
        self._calls = calls = mounts.OnRoot()
        self._commands, self._reports, self._messages = calls.slot(), calls.slot(), calls.slot()
        self._reserved = (calls.slot(), calls.slot())
        #: the descriptors between those that stay, as (first, last)
        self._gaps = [(calls.slot(), calls.slot()) for _ in range(_MOST_STAYING + 1)]
        #: place and number of the records that bring the child to its command, and of those for when it is stuck
        self._way = (calls.slot(), calls.slot())
        self._stuck = (calls.slot(), calls.slot())
        self._unmap = [(calls.slot(), calls.slot()) for _ in range(MOST_GAPS)]
        self._into = cgroup_view.new_places(calls, plan.hierarchies)
        #: whether the process is as `mydocker.init.become_blank` leaves it, and else what it needs to become so
        self._is_blank, self._nothing = calls.slot(), calls.slot()
        #: whether the interpreter has done what the first calls do
        self._is_set_up = calls.slot()
        #: how many those are, 0 if the interpreter must do it
        self.groundwork = 0
        if plan.may_do_groundwork:
            self._do_groundwork(plan)
        # What nothing depends on comes before the waiting; what may fail has its turn later.
        capabilities.add_dropping(calls, plan.capabilities, _DROP)
        entered = plan.entered
        if entered is not None:
            self._show_cgroups(plan, lambda hierarchy: hierarchy.mountpoint not in entered)
        self._take_place()
        calls.close(*self._reserved)
        self._show_cgroups(plan, lambda hierarchy: entered is None or hierarchy.mountpoint in entered)
        self._confine(plan)
        self._take_command()
        #: how many records lead to the command
        self.length = len(calls)
        outcome = calls.slot()
        calls.call_table(*self._way, outcome)
        self._stuck_from = len(calls)
        self._be_stuck(outcome)

    def name_of(self, index: int) -> str:
        """What the call of that number is for."""
        return self._calls.name_of(index)

    def _do_groundwork(self, plan: Plan) -> None:
        calls, memory = self._calls, self._memory
        calls.expect(self._is_set_up, 0, errno.EXDEV, failing=errno.EXDEV, over=1)
        calls.pass_over(1)
        behind = len(calls)
        calls.pass_over(0)
        in_use = calls.slots_in_use
        given = groundwork.Given(
            gaps=self._gaps,
            reserved=self._reserved,
            places=self._into,
            is_blank=self._is_blank,
            nothing=self._nothing,
            executable=memory.executable,
            pollfd=memory.pollfd,
            status=memory.status,
        )
        groundwork.add(calls, plan, given)
        calls.free_slots(in_use)
        self.groundwork = len(calls)
        calls.set_pass_over(behind, self.groundwork - behind - 1)

    def _take_place(self) -> None:
        """What is the container's own: its name, and its cgroups."""
        calls, memory = self._calls, self._memory
        enter = "enter the cgroup"
        first = len(calls)
        for begin, size in self._unmap:
            calls.call(_MUNMAP, begin, size, name=enter)
        calls.optional(first)  # those that are left over have no size: EINVAL
        came = calls.slot()
        calls.call(_RECVMSG, self._messages, memory.place_message, _MSG_CMSG_CLOEXEC, to=came, name=enter)
        calls.expect(came, handoff.PLACE_SIZE, batch.ENODATA)
        size_of_name = calls.load(memory.place + 1, 1)
        calls.expect(size_of_name, 0, errno.EXDEV, failing=errno.EXDEV, over=1)
        calls.pass_over(1)
        calls.call(_SETHOSTNAME, memory.place + 2, size_of_name, name="set the host name")
        first = len(calls)
        entrance = calls.slot()
        for number in range(handoff.MOST_ENTRANCES):  # where none came there is -1: EBADF, and the rest is passed over
            calls.load(memory.entrances + 4 * number, 4, entrance)
            calls.call(_WRITE, entrance, b"0", 1)
            calls.close(entrance)
        calls.optional(first)  # the runtime sees where it is, and moves it to where it is not
        report = handoff.waiting_report(memory.room)
        calls.call(_WRITE, self._reports, report, len(report), name="wait for the limits")
        word = calls.load(memory.place, 1)
        calls.expect(word, handoff.ENTER_SOME[0], errno.EXDEV, failing=errno.EXDEV, over=3)
        calls.read_all(self._commands, memory.word, 1)
        calls.expect(calls.load(memory.word, 1), handoff.PLACED[0], errno.EPROTO)

    def _show_cgroups(self, plan: Plan, only: Callable[[Hierarchy], bool]) -> None:
        """As this process is in them now."""
        calls = self._calls
        calls.call(_UNSHARE, process.CLONE_NEWCGROUP, name="make a cgroup namespace")
        writable = plan.spec.privileged
        cgroup_view.add_filling(calls, plan.hierarchies, self._into, writable=writable, only=only)

    def _confine(self, plan: Plan) -> None:
        calls, memory, user = self._calls, self._memory, plan.user
        if not plan.spec.gains_nothing:
            self._filter(plan)
        calls.call(_SETGROUPS, len(user.groups), struct.pack(f"={len(user.groups)}I", *user.groups), name=_DROP)
        calls.call(_SETRESGID, user.gid, user.gid, user.gid, name=_DROP)
        calls.call(_SETRESUID, user.uid, user.uid, user.uid, name=_DROP)
        capabilities.add_setting(calls, plan.capabilities if user.uid == 0 else 0, _DROP)
        enter = f"enter the working directory {plan.cwd}"
        calls.call(_CHDIR, os.fsencode(plan.cwd), name=enter)
        calls.call(_GETCWD, memory.cwd, _PATH_MAX)
        calls.expect(calls.load(memory.cwd, 1), ord("/"), errno.ENOENT)  # it is outside the root (CVE-2024-21626)
        groundwork.add_closing(calls, self._gaps, handoff.EXECUTING)
        groundwork.add_death_with_runtime(calls, memory.pollfd, handoff.EXECUTING)
        if plan.spec.gains_nothing:
            calls.call(_PRCTL, process.PR_SET_NO_NEW_PRIVS, 1)
            self._filter(plan)

    def _filter(self, plan: Plan) -> None:
        if plan.filter is not None:
            program = plan.filter.program
            header = seccomp.header(program, self._memory.constant(program))
            argument = self._memory.constant(header)
            name = "put the seccomp filter in force"
            self._calls.call(seccomp.NUMBER, seccomp.SET_MODE_FILTER, plan.filter.flags, argument, name=name)

    def _take_command(self) -> None:
        """Its 0, 1 and 2, of which the child closes its own first, so that these are what comes; and what it is."""
        calls, memory = self._calls, self._memory
        name = "take its standard input, output and error"
        came = calls.slot()
        calls.call(groundwork.CLOSE_RANGE, 0, 2, 0, name=name)
        calls.call(_RECVMSG, self._messages, memory.streams_message, 0, to=came)
        calls.expect(came, 1, batch.ENODATA)
        for fd in (0, 1, 2):
            calls.expect(calls.load(memory.streams + 4 * fd, 4), fd, errno.EBADF)
        calls.read_all(self._commands, memory.header, landing.HEADER.size, name="take the command")
        calls.expect(calls.load(memory.header, 8), int.from_bytes(landing.MAGIC, "little"), errno.EPROTO)
        calls.read_all(self._commands, memory.room, calls.load(memory.header + 8, 8))
        calls.call(_RT_SIGPROCMASK, _SIG_SETMASK, bytes(signals.SIGSET_SIZE), None, signals.SIGSET_SIZE)
        calls.go_to(calls.load(memory.header + 16, 8), calls.load(memory.header + 24, 8))

    def _be_stuck(self, outcome: Slot) -> None:
        """Report how it went, and make the calls that are asked for, until nobody asks any more."""
        calls, memory = self._calls, self._memory
        first = len(calls)
        begin = handoff.stuck_report()
        calls.call(_WRITE, self._reports, begin, len(begin))
        calls.call(_WRITE, self._reports, memory.slots + 8 * outcome, 8)
        calls.read_all(self._messages, memory.question, landing.QUESTION.size)
        size, count = calls.load(memory.question, 8), calls.load(memory.question + 8, 8)
        calls.read_all(self._messages, memory.questions, size)
        calls.call_table(memory.questions, count, outcome)
        calls.go_to(*self._stuck)
        calls.optional(first)
        calls.call(groundwork.EXIT_GROUP, 125)

    def table(self) -> Table:
        """It, in its memory. OSError (ENOMEM) if there is no place for it."""
        memory = self._memory
        memory.fill(self._calls)
        return Table(
            Places(
                begin=memory.begin,
                used=memory.used,
                table=memory.table,
                count=len(self._calls),
                length=self.length,
                groundwork=self.groundwork,
                stuck_from=self._stuck_from,
                slots=memory.slots,
                room=memory.room,
                pollfd=memory.pollfd,
                executable=memory.executable,
                commands=int(self._commands),
                reports=int(self._reports),
                messages=int(self._messages),
                nothing=int(self._nothing),
                reserved=_plain(self._reserved),
                gaps=tuple(map(_plain, self._gaps)),
                way=_plain(self._way),
                stuck=_plain(self._stuck),
                unmap=tuple(map(_plain, self._unmap)),
                into=tuple(map(int, self._into)),
                is_set_up=int(self._is_set_up),
                is_blank=int(self._is_blank),
            )
        )


def made(plan: Plan, at: int | None = None) -> Table:
    """The table of the child of this plan, and of all others of which the plans differ in nothing but descriptors and
    staging directory. ``at``: the address that it is to have. OSError: ENOMEM, or EEXIST if something else is there;
    ValueError if it takes more slots than there are.
    """
    begin = machine.new_memory(SIZE, later=True, at=at)
    try:
        return Waiting(plan, _Memory(begin)).table()
    except BaseException:
        machine.give_back(begin, SIZE)
        raise


def _plain(slots: tuple[Slot, Slot]) -> tuple[int, int]:
    return int(slots[0]), int(slots[1])


class _Memory:
    """Places in a process: of what comes by its sockets and pipes, of the table and its slots, and of the command."""

    def __init__(self, address: int) -> None:
        """``address``: of so much memory, or 0 if it is about the calls only."""
        self.begin = self._next = address
        self._constants: list[tuple[int, bytes]] = []
        self.room = address + TABLES
        self.slots = self._take(8 * batch.MOST_SLOTS)
        control = _CMSG + 4 * handoff.MOST_ENTRANCES
        self.place, self.entrances, self.place_message = self._message(handoff.PLACE_SIZE, control)
        _, self.streams, self.streams_message = self._message(1, _CMSG + 4 * 4)
        self.word = self._take(8)
        self.header = self._take(landing.HEADER.size)
        self.question = self._take(landing.QUESTION.size)
        self.questions = self._take(_MOST_QUESTIONS * batch.RECORD_SIZE)
        self.cwd = self._take(_PATH_MAX)
        self.status = self._take(groundwork.STAT_SIZE)
        self.pollfd = self._take(POLLFD_SIZE)
        self.executable = self._take(empty_file.DESCRIPTION_SIZE)
        self.table = 0

    @property
    def used(self) -> int:
        """How many of its first bytes are taken."""
        return self._next - self.begin

    def _take(self, size: int) -> int:
        at = self._next
        self._next += (size + 15) & ~15
        return at

    def constant(self, data: bytes) -> int:
        """The place of ``data``."""
        at = self._take(len(data))
        self._constants.append((at, data))
        return at

    def _message(self, size: int, control: int) -> tuple[int, int, int]:
        """Places of the data, of the descriptors that come with it, which are -1 until then, and of the msghdr."""
        data, beside = self._take(size), self.constant(b"\xff" * control)
        vector = self.constant(_IOVEC.pack(data, size))
        return data, beside + _CMSG, self.constant(_MSGHDR.pack(0, 0, vector, 1, beside, control, 0))

    def fill(self, calls: Batch) -> None:
        self.table = self._take(calls.size)
        if self._next > self.room:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        calls.freeze(self.table)
        for at, data in self._constants:
            machine.put(at, data)
