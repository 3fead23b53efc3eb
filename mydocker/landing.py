"""A child that waits with machine code: all that it does from its cgroups to the command is one table of system calls.

A child that was set up before there is a container for it, or a command, is to be quick once there is. What the
interpreter would touch to do the rest is a copy of the spawner's memory, page for page, and takes longer than the
system calls themselves. So the rest is worked out beforehand, as a `mydocker.linux.batch.Batch` in which the child
waits by recvmsg(2) and read(2). The steps, and their order, are those of `mydocker.init`, which does them for all
other children.

The command comes by the pipe as in `mydocker.handoff`, but laid out as execve(2) wants it, for a place in the child's
memory that its report names: a header, and then ``argv`` and ``envp``, a table with a call of execve for each
candidate, and the strings. Where that does not do (it is too large, or there is no such command) the interpreter goes
on, and finds out what is to be said.
"""

from __future__ import annotations

import os
import struct
from itertools import accumulate

from mydocker import handoff, mounts, spec
from mydocker.errors import HandoffError
from mydocker.linux import batch, capabilities, machine, process, seccomp, signals
from mydocker.linux.libc import addressof, architecture_number, c_char, create_string_buffer, memmove
from mydocker.linux.mount import MountBatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from mydocker import init
    from mydocker.mounts import CgroupView, Step

#: Bytes that the child has for the command. More goes by the frame of `mydocker.handoff`.
ROOM = 8 << 20

#: What it is, bytes that follow, place and number of the records, places of argv and envp. Without records a frame of
#: `mydocker.handoff` follows.
_HEADER = struct.Struct("=8s5Q")
_MAGIC = b"MYDL\x01\0\0\0"
_POINTER = 8

_WRITE, _CLOSE, _EXECVE, _SETHOSTNAME, _UNSHARE, _CHDIR, _GETCWD, _RT_SIGPROCMASK, _RECVMSG = (
    architecture_number(*numbers)
    for numbers in ((1, 64), (3, 57), (59, 221), (170, 161), (272, 97), (80, 49), (79, 17), (14, 135), (47, 212))
)
_SETGROUPS, _SETRESGID, _SETRESUID, _PRCTL, _PPOLL, _FACCESSAT = (
    architecture_number(*numbers) for numbers in ((116, 159), (119, 149), (117, 147), (157, 167), (271, 73), (269, 48))
)
_CLOSE_RANGE = 436

_AT_FDCWD = -100
_MSG_CMSG_CLOEXEC = 0x40000000
_SIG_SETMASK = 2
_SIGSET_SIZE = 8  # the kernel's, in bytes
_POLLIN = 1
_ENOENT, _ESRCH, _EBADF, _EXDEV, _EPROTO = 2, 3, 9, 18, 71

#: struct msghdr and iovec (recvmsg(2)), cmsghdr (cmsg(3)).
_MSGHDR = struct.Struct("@PI4xPNPNi4x")
_IOVEC = struct.Struct("@PN")
_CMSG = 16
_PATH_MAX = 4096


def frame(argv: Sequence[bytes], env: Sequence[bytes], landing: int) -> bytes:
    """The command for a child whose report was `mydocker.handoff.Waiting`. ValueError as from `handoff.encode`."""
    paths = spec.candidates(argv, env)
    strings = (*argv, *env, *paths)
    content = b"\0".join(strings) + b"\0"
    if content.count(b"\0") != len(strings):
        raise ValueError("an argument holds a NUL byte, which the kernel cannot pass")
    envp = landing + _POINTER * (len(argv) + 1)
    table = envp + _POINTER * (len(env) + 1)
    begin = table + batch.RECORD_SIZE * 2 * len(paths)
    size = begin + len(content) - landing
    if not paths or size > ROOM:
        return _HEADER.pack(_MAGIC, 0, 0, 0, 0, 0) + handoff.encode(argv, env)
    places = list(accumulate((len(string) + 1 for string in strings), initial=begin))
    first, last = len(argv), len(argv) + len(env)
    pointers = struct.pack(f"={last + 2}Q", *places[:first], 0, *places[first:last], 0)
    records = b"".join(
        # A failed execve(2) has copied all the arguments before, so it is looked first.
        batch.record(_FACCESSAT, _AT_FDCWD, path, 0, failing=_ENOENT, over=1)
        + batch.record(_EXECVE, path, landing, envp)
        for path in places[last:-1]
    )
    return _HEADER.pack(_MAGIC, size, table, 2 * len(paths), landing, envp) + pointers + records + content


class Waiting:
    """The rest of what the child of a plan does."""

    @staticmethod
    def may(plan: init.Plan) -> bool:
        """Whether the child of this plan can wait so."""
        return (
            plan.stdio is None
            and plan.drops_ahead
            and plan.user.maps is None
            and plan.set_label is None
            and not plan.spec.terminal
            and batch.is_native()
        )

    def __init__(self, plan: init.Plan) -> None:
        """Works the table out: once for all plans that differ in nothing but descriptors and staging directory."""
        self._memory = memory = _memory()
        self._calls = calls = MountBatch()
        self._commands, self._reports, self._messages = calls.slot(), calls.slot(), calls.slot()
        self._reserved = (calls.slot(), calls.slot())
        #: the descriptors between those that stay, as (first, last)
        self._gaps = [(calls.slot(), calls.slot()) for _ in range(5)]
        self._kept: list[object] = []
        self._take_place()
        calls.call(_UNSHARE, process.CLONE_NEWCGROUP, name="make a cgroup namespace")
        for reserved in self._reserved:
            calls.call(_CLOSE, reserved)
        self._into = mounts.add_filling(calls, plan.hierarchies, writable=plan.spec.privileged)
        self._confine(plan)
        self._take_streams()
        calls.read_all(self._commands, memory.header, _HEADER.size, name="take the command")
        calls.expect(calls.load(memory.header, 8), int.from_bytes(_MAGIC, "little"), _EPROTO)
        calls.read_all(self._commands, memory.room, calls.load(memory.header + 8, 8))
        calls.call(_RT_SIGPROCMASK, _SIG_SETMASK, bytes(_SIGSET_SIZE), None, _SIGSET_SIZE)
        table, count = calls.load(memory.header + 16, 8), calls.load(memory.header + 24, 8)
        self._last = len(calls)
        calls.go_to(table, count)
        calls.freeze()

    def _take_place(self) -> None:
        """What is the container's own: its name, and its cgroups."""
        calls, memory = self._calls, self._memory
        came = calls.slot()
        calls.call(_RECVMSG, self._messages, memory.place_message, _MSG_CMSG_CLOEXEC, to=came, name="enter the cgroup")
        calls.expect(came, handoff.PLACE_SIZE, batch.ENODATA)
        size = calls.load(memory.place + 1, 1)
        calls.expect(size, 0, _EXDEV, failing=_EXDEV, over=1)
        calls.pass_over(1)
        calls.call(_SETHOSTNAME, memory.place + 2, size, name="set the host name")
        first = len(calls)
        entrance = calls.slot()
        for number in range(handoff.MOST_ENTRANCES):  # where none came there is -1: EBADF, and the rest is passed over
            calls.load(memory.entrances + 4 * number, 4, entrance)
            calls.call(_WRITE, entrance, b"0", 1)
            calls.call(_CLOSE, entrance)
        calls.optional(first)  # the runtime sees where it is, and moves it to where it is not
        report = handoff.waiting_report(memory.room)
        calls.call(_WRITE, self._reports, report, len(report), name="wait for the limits")
        word = calls.load(memory.place, 1)
        calls.expect(word, handoff.ENTER_SOME[0], _EXDEV, failing=_EXDEV, over=3)
        calls.read_all(self._commands, memory.word, 1)
        calls.expect(calls.load(memory.word, 1), handoff.PLACED[0], _EPROTO)

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
        calls.expect(calls.load(memory.cwd, 1), ord("/"), _ENOENT)  # it is outside the root (CVE-2024-21626)
        start = handoff.EXECUTING
        for low, high in self._gaps:
            first = len(calls)
            calls.call(_CLOSE_RANGE, low, high, 0, name=start)
            calls.optional(first)  # there is none: EINVAL
        calls.call(_PRCTL, process.PR_SET_PDEATHSIG, signals.SIGKILL, name=start)
        dead = calls.slot()
        pollfd = struct.pack("=ihh", plan.runtime, _POLLIN, 0)
        calls.call(_PPOLL, pollfd, 1, struct.pack("=2q", 0, 0), None, _SIGSET_SIZE, to=dead)
        calls.expect(dead, 0, batch.ENODATA)
        if plan.spec.gains_nothing:
            calls.call(_PRCTL, process.PR_SET_NO_NEW_PRIVS, 1)
            self._filter(plan)

    def _filter(self, plan: init.Plan) -> None:
        if plan.filter is not None:
            name = "put the seccomp filter in force"
            self._kept.append(seccomp.add_loading(self._calls, plan.filter.program, plan.filter.flags, name))

    def _take_streams(self) -> None:
        """The command's 0, 1 and 2, which are closed first, so that these are what comes."""
        calls, memory = self._calls, self._memory
        name = "take its standard input, output and error"
        came = calls.slot()
        calls.call(_CLOSE_RANGE, 0, 2, 0, name=name)
        calls.call(_RECVMSG, self._messages, memory.streams_message, 0, to=came)
        calls.expect(came, 1, batch.ENODATA)
        for fd in (0, 1, 2):
            calls.expect(calls.load(memory.streams + 4 * fd, 4), fd, _EBADF)

    def go_on(self, plan: init.Plan, step: Step, view: CgroupView) -> tuple[list[bytes], list[bytes]]:
        """Do it. Returns (argv, env) if no candidate could be executed: whoever tries again knows why.

        OSError for a step that failed, of which ``step`` is told; HandoffError if the runtime is gone.
        """
        given = {self._commands: plan.commands, self._reports: plan.reports, self._messages: plan.messages}
        given.update(zip(self._reserved, view.reserved, strict=True))
        given.update(zip(self._into, view.places, strict=True))
        stay = (2, *sorted((plan.commands, plan.reports, plan.messages, plan.runtime)), 1 << 31)
        for (low, high), before, after in zip(self._gaps, stay[:-1], stay[1:], strict=True):
            given.update({low: before + 1, high: after - 1})
        try:
            self._calls.run(given, 1)
        except batch.BatchError as e:
            if e.index < self._last:
                step.doing = self._calls.name_of(e.index)
                if e.errno in (batch.ENODATA, _EPROTO):
                    raise HandoffError("the runtime ended before it had handed the whole command over") from None
                raise OSError(e.errno, e.strerror) from None
        return self._memory.command(plan.commands)


class _Memory:
    """Where in a process what comes by its sockets and pipes goes. Its forks have it at the same places."""

    def __init__(self) -> None:
        self._fixed = fixed = create_string_buffer(2 * _PATH_MAX)
        self._at = addressof(fixed)
        control = _CMSG + 4 * handoff.MOST_ENTRANCES
        self.place, self.entrances, self.place_message = self._message(handoff.PLACE_SIZE, control)
        _, self.streams, self.streams_message = self._message(1, _CMSG + 4 * 4)
        self.word = self._take(8)
        self.header = self._take(_HEADER.size)
        self.cwd = self._take(_PATH_MAX)
        self.room = machine.new_memory(ROOM, later=True)

    def _take(self, size: int) -> int:
        at = self._at
        self._at += (size + 15) & ~15
        return at

    def _message(self, size: int, control: int) -> tuple[int, int, int]:
        """Places of the data, of the descriptors that come with it, which are -1 until then, and of the msghdr."""
        data, beside, vector, header = map(self._take, (size, control, _IOVEC.size, _MSGHDR.size))
        memmove(beside, b"\xff" * control, control)
        memmove(vector, _IOVEC.pack(data, size), _IOVEC.size)
        memmove(header, _MSGHDR.pack(0, 0, vector, 1, beside, control, 0), _MSGHDR.size)
        return data, beside + _CMSG, header

    def command(self, commands: int) -> tuple[list[bytes], list[bytes]]:
        """What was to be executed. HandoffError."""
        _, size, _, count, argv, envp = _HEADER.unpack((c_char * _HEADER.size).from_address(self.header).raw)
        if not count:
            return handoff.receive(commands)
        content = (c_char * size).from_address(self.room).raw
        return self._strings(content, argv), self._strings(content, envp)

    def _strings(self, content: bytes, array: int) -> list[bytes]:
        found: list[bytes] = []
        at = array - self.room
        while True:
            (pointer,) = struct.unpack_from("=Q", content, at)
            if not pointer:
                return found
            begin = pointer - self.room
            found.append(content[begin : content.index(b"\0", begin)])
            at += _POINTER


_memories: list[_Memory] = []


def _memory() -> _Memory:
    if not _memories:
        _memories.append(_Memory())
    return _memories[0]
