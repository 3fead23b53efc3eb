"""A child that waits with machine code: all that it does from its cgroups to the command is tables of system calls.

What the interpreter would touch to do that is a copy of the spawner's memory, page for page, and takes longer than the
system calls themselves; and execve(2) has to take that memory apart. So it is worked out beforehand, as a
`mydocker.linux.batch.Batch` in which the child waits by recvmsg(2) and read(2). Most children do the same with what
comes before (`mydocker.groundwork`), and have nothing of the spawner's memory but that; one that the interpreter has
set up unmaps all but the tables first. The steps, and their order, are those of `mydocker.init`, which does them for
all other children.

The command comes by the pipe as in `mydocker.handoff`, but laid out as execve(2) wants it, for a place in the child's
memory that its report names (`mydocker.handoff.Waiting`): a header, and then ``argv`` and ``envp``, a table with a call
of execve for each candidate, and the strings.

There is no interpreter left to find out why something failed. The child reports at which call it was
(`mydocker.handoff.Stuck`), and makes calls that the runtime asks for by further tables, through its socket: so that
finds out.
"""

from __future__ import annotations

import errno
import os
import struct
from itertools import accumulate

from mydocker import groundwork, handoff, mounts
from mydocker.handoff import Failure
from mydocker.linux import batch, capabilities, machine, process, seccomp
from mydocker.linux.libc import architecture_number
from mydocker.spec import candidates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from mydocker import init
    from mydocker.linux.batch import Batch
    from mydocker.mounts import CgroupView

#: Bytes that the child has for the command. The kernel takes no more than 6 MiB (3/4 of _STK_LIM, fs/exec.c).
ROOM = 8 << 20

#: What it is, bytes that follow, place and number of the records.
_HEADER = struct.Struct("=8s3Q")
_MAGIC = b"MYDL\x01\0\0\0"
#: Of a table that the runtime asks for later: bytes and number of the records.
_QUESTION = struct.Struct("=2Q")
_MOST_QUESTIONS = 4
_POINTER = 8
_MASK = (1 << 64) - 1

_WRITE, _EXECVE, _SETHOSTNAME, _UNSHARE, _CHDIR, _GETCWD, _RT_SIGPROCMASK, _RECVMSG = (
    architecture_number(*numbers)
    for numbers in ((1, 64), (59, 221), (170, 161), (272, 97), (80, 49), (79, 17), (14, 135), (47, 212))
)
_SETGROUPS, _SETRESGID, _SETRESUID, _PRCTL, _FACCESSAT, _OPENAT, _MUNMAP, _EXIT_GROUP = (
    architecture_number(*numbers)
    for numbers in (
        (116, 159), (119, 149), (117, 147), (157, 167), (269, 48), (257, 56), (11, 215), (231, 94)
    )
)  # fmt: skip
_CLOSE_RANGE = 436

_AT_FDCWD = -100
_MSG_CMSG_CLOEXEC = 0x40000000
_SIG_SETMASK = 2
_SIGSET_SIZE = 8  # the kernel's, in bytes

#: struct msghdr and iovec (recvmsg(2)), cmsghdr (cmsg(3)).
_MSGHDR = struct.Struct("@PI4xPNPNi4x")
_IOVEC = struct.Struct("@PN")
_CMSG = 16
_PATH_MAX = 4096


class Command:
    """The command for a child whose report was `mydocker.handoff.Waiting`, and why it does not run."""

    def __init__(self, argv: Sequence[bytes], env: Sequence[bytes], landing: int) -> None:
        """ValueError if a string holds a NUL byte, which no argument of execve(2) can."""
        self._paths = candidates(argv, env)
        self._argv, self._envp = landing, landing + _POINTER * (len(argv) + 1)
        strings = (*argv, *env, *self._paths)
        content = b"\0".join((*strings, b""))
        if content.count(b"\0") != len(strings):
            raise ValueError("an argument holds a NUL byte, which the kernel cannot pass")
        table = self._envp + _POINTER * (len(env) + 1)
        begin = table + batch.RECORD_SIZE * 2 * len(self._paths)
        size = begin + len(content) - landing
        #: whether there is place for it
        self._fits = size <= ROOM
        if not self._fits:  # the kernel would not take it either: the paths go alone, to see whether there is one
            begin, strings = landing, tuple(self._paths)
            content = b"\0".join((*strings, b""))
        places = list(accumulate((len(string) + 1 for string in strings), initial=begin))
        self._places = places[len(strings) - len(self._paths) : -1]
        #: what goes down the pipe
        self.frame: bytes
        if not self._fits:
            self.frame = _HEADER.pack(_MAGIC, len(content), 0, 0) + content
            return
        first, last = len(argv), len(argv) + len(env)
        pointers = struct.pack(f"={last + 2}Q", *places[:first], 0, *places[first:last], 0)
        records = b"".join(
            # A failed execve(2) has copied all the arguments before, so it is looked first.
            batch.record(_FACCESSAT, _AT_FDCWD, path, os.F_OK, failing=errno.ENOENT, over=1) + self._execution(path)
            for path in self._places
        )
        self.frame = _HEADER.pack(_MAGIC, size, table, 2 * len(self._paths)) + pointers + records + content

    def _execution(self, path: int) -> bytes:
        return batch.record(_EXECVE, path, self._argv, self._envp)

    def failure(self, ask: Callable[[bytes], int | None]) -> Failure | None:
        """Once the child is stuck: why the command does not run, as `mydocker.init` finds out; None if it runs now.

        ``ask``: sends a question (`question`), and gives the child's answer: 0, or the errno; None at the end of its
        pipe.
        """
        failed = (errno.ENOENT, self._paths[0] if self._paths else b"")
        for path, place in zip(self._paths, self._places, strict=True):
            exists = question(batch.record(_FACCESSAT, _AT_FDCWD, place, os.F_OK))
            number = ask(exists)
            if number in (errno.ENOENT, errno.ENOTDIR):
                continue
            number = ask(question(self._execution(place))) if self._fits else errno.E2BIG
            if number is None:
                return None
            if number in (errno.ENOENT, errno.ENOTDIR):
                if ask(exists) == 0:  # then it is the interpreter or the loader that is missing
                    return _not_executed(errno.ELIBACC, path)
            elif number == errno.EACCES:
                opened = ask(question(batch.record(_OPENAT, _AT_FDCWD, place, os.O_PATH | os.O_DIRECTORY)))
                failed = (errno.EISDIR if opened == 0 else errno.EACCES, path)
            else:
                return _not_executed(number, path)
        return _not_executed(*failed)


_last: list[tuple[tuple[object, ...], Command]] = []


def command(argv: tuple[bytes, ...], env: tuple[bytes, ...], landing: int) -> Command:
    """As `Command`; the last one again, if it is for the same."""
    key = (argv, env, landing)
    found = next(iter(_last), None)  # looked at once: threads share it
    if found is None or found[0] != key:
        found = (key, Command(argv, env, landing))
        _last[:] = [found]
    return found[1]


def _not_executed(number: int, path: bytes) -> Failure:
    return Failure(stage="exec", errno=number, text=os.fsdecode(path))


def question(*records: bytes) -> bytes:
    """What a child that is stuck is sent: some calls, of which the outcome is to be reported."""
    return _QUESTION.pack(sum(map(len, records)), len(records)) + b"".join(records)


def failed_step(plan: init.Plan, outcome: int) -> Failure | None:
    """What the child of this plan was at that is stuck; None if it had its command."""
    number, index = batch.outcome_of(outcome)
    way = _without_memory(plan)
    if not outcome or index >= way.length - 1:
        return None
    doing = way.name_of(index)
    if number in (batch.ENODATA, errno.EPROTO):
        return Failure(stage="setup", errno=0, text=f"cannot {doing}: what was to come has not come")
    return Failure(stage="setup", errno=number, text=f"cannot {doing}: {os.strerror(number)}")


def failed_in_groundwork(plan: init.Plan, outcome: int) -> int:
    """The errno if it has no cgroups yet, else 0: then the interpreter may do better, and knows more words."""
    number, index = batch.outcome_of(outcome)
    return number if outcome and index < _without_memory(plan).groundwork else 0


def _without_memory(plan: init.Plan) -> Waiting:
    return Waiting(plan.replace(runtime=0, blank=True), _Memory(0))


class Waiting:
    """What the child of a plan does from its cgroups on, and before that if it can (`groundwork`)."""

    @staticmethod
    def may(plan: init.Plan) -> bool:
        """Whether the child of this plan can wait so."""
        return (
            plan.stdio is None
            and plan.drops_ahead
            and plan.user.maps is None
            and not (plan.spec.apparmor_profile or plan.spec.selinux_label or plan.spec.terminal)
            and batch.code_page() != 0
            and not machine.has_shadow_stack()
        )

    def __init__(self, plan: init.Plan, memory: _Memory) -> None:
        """Works it out: once for all plans that differ in nothing but descriptors and staging directory."""
        self._memory = memory
        self._calls = calls = mounts.OnRoot()
        self._commands, self._reports, self._messages = calls.slot(), calls.slot(), calls.slot()
        self._reserved = (calls.slot(), calls.slot())
        #: the descriptors between those that stay, as (first, last)
        self._gaps = [(calls.slot(), calls.slot()) for _ in range(5)]
        #: place and number of the records that bring the child to its command, and of those for when it is stuck
        self._way = (calls.slot(), calls.slot())
        self._stuck = (calls.slot(), calls.slot())
        self._unmap = [(calls.slot(), calls.slot()) for _ in range(_Memory.MOST_GAPS)]
        self._into = mounts.new_places(calls, plan.hierarchies)
        #: whether the interpreter has done what the first calls do
        self._is_set_up = calls.slot()
        #: how many those are, 0 if the interpreter must do it
        self.groundwork = 0
        if groundwork.may(plan):
            self._do_groundwork(plan)
        self._take_place()
        calls.call(_UNSHARE, process.CLONE_NEWCGROUP, name="make a cgroup namespace")
        calls.close(*self._reserved)
        mounts.add_filling(calls, plan.hierarchies, self._into, writable=plan.spec.privileged)
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

    def _do_groundwork(self, plan: init.Plan) -> None:
        calls = self._calls
        calls.expect(self._is_set_up, 0, errno.EXDEV, failing=errno.EXDEV, over=1)
        calls.pass_over(1)
        behind = len(calls)
        calls.pass_over(0)
        in_use = calls.slots_in_use
        groundwork.add(calls, plan, self._gaps, self._reserved, self._into, self._memory.status)
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

    def _confine(self, plan: init.Plan) -> None:
        calls, memory, user = self._calls, self._memory, plan.user
        if not plan.spec.gains_nothing:
            self._filter(plan)
        drop = "drop privileges"
        capabilities.add_dropping(calls, plan.capabilities, drop)
        calls.call(_SETGROUPS, len(user.groups), struct.pack(f"={len(user.groups)}I", *user.groups), name=drop)
        calls.call(_SETRESGID, user.gid, user.gid, user.gid, name=drop)
        calls.call(_SETRESUID, user.uid, user.uid, user.uid, name=drop)
        capabilities.add_setting(calls, plan.capabilities if user.uid == 0 else 0, drop)
        enter = f"enter the working directory {plan.cwd}"
        calls.call(_CHDIR, os.fsencode(plan.cwd), name=enter)
        calls.call(_GETCWD, memory.cwd, _PATH_MAX)
        calls.expect(calls.load(memory.cwd, 1), ord("/"), errno.ENOENT)  # it is outside the root (CVE-2024-21626)
        groundwork.add_closing(calls, self._gaps, handoff.EXECUTING)
        groundwork.add_death_with_runtime(calls, plan.runtime, handoff.EXECUTING)
        if plan.spec.gains_nothing:
            calls.call(_PRCTL, process.PR_SET_NO_NEW_PRIVS, 1)
            self._filter(plan)

    def _filter(self, plan: init.Plan) -> None:
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
        calls.call(_CLOSE_RANGE, 0, 2, 0, name=name)
        calls.call(_RECVMSG, self._messages, memory.streams_message, 0, to=came)
        calls.expect(came, 1, batch.ENODATA)
        for fd in (0, 1, 2):
            calls.expect(calls.load(memory.streams + 4 * fd, 4), fd, errno.EBADF)
        calls.read_all(self._commands, memory.header, _HEADER.size, name="take the command")
        calls.expect(calls.load(memory.header, 8), int.from_bytes(_MAGIC, "little"), errno.EPROTO)
        calls.read_all(self._commands, memory.room, calls.load(memory.header + 8, 8))
        calls.call(_RT_SIGPROCMASK, _SIG_SETMASK, bytes(_SIGSET_SIZE), None, _SIGSET_SIZE)
        calls.go_to(calls.load(memory.header + 16, 8), calls.load(memory.header + 24, 8))

    def _be_stuck(self, outcome: batch.Slot) -> None:
        """Report how it went, and make the calls that are asked for, until nobody asks any more."""
        calls, memory = self._calls, self._memory
        first = len(calls)
        begin = handoff.stuck_report()
        calls.call(_WRITE, self._reports, begin, len(begin))
        calls.call(_WRITE, self._reports, memory.slots + 8 * outcome, 8)
        calls.read_all(self._messages, memory.question, _QUESTION.size)
        size, count = calls.load(memory.question, 8), calls.load(memory.question + 8, 8)
        calls.read_all(self._messages, memory.questions, size)
        calls.call_table(memory.questions, count, outcome)
        calls.go_to(*self._stuck)
        calls.optional(first)
        calls.call(_EXIT_GROUP, 125)

    @classmethod
    def made(cls, plan: init.Plan) -> Waiting:
        """In the memory of this process, and of those that are forked from it. OSError (ENOMEM)."""
        memory = _Memory(machine.new_memory(_Memory.SIZE, later=True))
        try:
            waiting = cls(plan, memory)
            memory.fill(waiting._calls)
        except BaseException:
            memory.close()
            raise
        return waiting

    def close(self) -> None:
        """Give its memory back."""
        self._memory.close()

    def go_on(self, plan: init.Plan, view: CgroupView) -> NoReturn:
        """Do it, in a child that the interpreter has set up."""
        batch.work_off(*self._begin(plan, {self._is_set_up: 1}, view.reserved, view.places))
        os._exit(125)  # it does not come back

    def clone(self, plan: init.Plan, namespaces: int, forks: machine.ForkedMemory) -> tuple[int, int]:
        """`process.clone`, in the parent, of a child that does it all, the groundwork too. OSError."""
        forks.keep_only(self._memory.kept)
        table = self._begin(plan, {self._is_set_up: 0}, (-1, -1), [-1] * len(self._into))
        return process.clone_to_work_off(namespaces, *table)

    def _begin(
        self, plan: init.Plan, given: dict[batch.Slot, int], reserved: tuple[int, int], places: list[int]
    ) -> tuple[int, int, int]:
        """Fill the slots; what `batch.work_off` is to be given."""
        memory = self._memory
        given.update({self._commands: plan.commands, self._reports: plan.reports, self._messages: plan.messages})
        given.update(zip(self._reserved, reserved, strict=True))
        given.update(zip(self._into, places, strict=True))
        stay = (2, *sorted((plan.commands, plan.reports, plan.messages, plan.runtime)), 1 << 31)
        for (low, high), before, after in zip(self._gaps, stay[:-1], stay[1:], strict=True):
            given.update({low: before + 1, high: after - 1})
        for (begin, size), gap in zip(self._unmap, memory.gaps, strict=False):
            given.update(zip((begin, size), gap, strict=True))
        record = batch.RECORD_SIZE
        last = len(self._calls)
        given.update(zip(self._way, (memory.table, self.length), strict=True))
        given.update(zip(self._stuck, (memory.table + self._stuck_from * record, last - self._stuck_from), strict=True))
        memory.fill_slots(given)
        return memory.table + self.length * record, last - self.length, memory.slots


class _Memory:
    """Places in a process: of what comes by its sockets and pipes, of the table and its slots, and of the command."""

    _TABLES = 2 << 20  # what the CPUs of a large host take, of which each has its own path to hide
    SIZE = _TABLES + ROOM
    MOST_GAPS = 8

    def __init__(self, address: int) -> None:
        """``address``: of so much memory, or 0 if it is about the calls only."""
        self._begin = self._next = address
        self._constants: list[tuple[int, bytes]] = []
        #: begin and end of what a child has a use for, and begin and size of all else
        self.kept: list[tuple[int, int]] = []
        self.gaps: list[tuple[int, int]] = []
        self.room = address + self._TABLES
        self.slots = self._take(8 * batch.MOST_SLOTS)
        control = _CMSG + 4 * handoff.MOST_ENTRANCES
        self.place, self.entrances, self.place_message = self._message(handoff.PLACE_SIZE, control)
        _, self.streams, self.streams_message = self._message(1, _CMSG + 4 * 4)
        self.word = self._take(8)
        self.header = self._take(_HEADER.size)
        self.question = self._take(_QUESTION.size)
        self.questions = self._take(_MOST_QUESTIONS * batch.RECORD_SIZE)
        self.cwd = self._take(_PATH_MAX)
        self.status = self._take(groundwork.STAT_SIZE)
        self.table = 0

    def close(self) -> None:
        machine.give_back(self._begin, self.SIZE)

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
        page = batch.code_page()
        here = (self._begin, self._begin + self.SIZE)
        self.kept = [here, (page, page + machine.PAGE), *machine.needed_by_kernel()]
        self.gaps = machine.gaps(self.kept)
        assert len(self.gaps) <= self.MOST_GAPS

    def fill_slots(self, given: Mapping[batch.Slot, int]) -> None:
        values = [0] * batch.MOST_SLOTS
        for slot, value in given.items():
            values[slot] = value & _MASK
        machine.put(self.slots, struct.pack(f"={len(values)}Q", *values))
