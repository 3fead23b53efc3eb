"""The pipe protocol between the runtime and the child that waits to become the command.

Down the first pipe goes the command, as one frame::

    b"MYDK" version:u8 length:u64   then ``length`` bytes:
    argc:u32  (size:u32 bytes)*argc   envc:u32  (size:u32 bytes)*envc

Numbers are little-endian. The frame is also the word "go". A child that reads the end of the pipe before the
frame's end, or anything else than a frame, does not execute anything: a truncated command never runs.

Words of one byte come before the frame. `MAPPED`, where the child has a user namespace: the id maps are written;
until then the child has no ids and does nothing. `PLACED`: it is in its cgroups, and the limits are in force; only
where the runtime has to move it there.

Up the second pipe, whose end in the child is close-on-exec, come reports: ``R`` (ready: the mounts are made,
the child waits; in `mydocker.oci` more than once) or ``W`` (the same, and the command is to come as `mydocker.landing`
lays it out; then ``F`` is that it cannot go on), then either the end of the pipe (the command runs) or ``E`` (failed:
stage, errno, text).
"""

from __future__ import annotations

import os

from mydocker.errors import HandoffError
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What ``mydocker-oci start`` sends to the init of a container that waits for it.
GO = b"g"

#: The words before the frame.
MAPPED = b"m"
PLACED = b"p"

#: What comes with the entrances of the child's cgroups: these are all that it is to be in, or it is moved into others.
ENTER = b"e"
ENTER_SOME = b"s"
#: More hierarchies than a host has.
MOST_ENTRANCES = 64

#: What comes with the entrances where the child has its streams later: the word, the size of the host name, and that.
PLACE_SIZE = 66

#: In `mydocker.oci`, after the frame: the container is noted as complete.
NOTED = b"d"

_MAGIC = b"MYDK\x01"
#: Bytes of numbers. By hand: who reads one report, as `mydocker.oci.start` does, has no other use for struct.
_LENGTH = 8
_COUNT = 4
_CHUNK = 1 << 16  # the capacity of a pipe (pipe(7)): more at once would not arrive at once

#: More than the kernel takes for argv and environment together: 3/4 of _STK_LIM, 6 MiB (fs/exec.c), with
#: what the sizes in the frame add to the shortest strings.
MAX_PAYLOAD = 64 << 20


def encode(argv: Sequence[bytes], env: Sequence[bytes]) -> bytes:
    """The frame. ValueError if a string holds a NUL byte, which no argument of execve(2) can."""
    parts = []
    for strings in (argv, env):
        parts.append(_packed(len(strings)))
        for string in strings:
            if b"\0" in string:
                raise ValueError("an argument holds a NUL byte, which the kernel cannot pass")
            parts.append(_packed(len(string)))
            parts.append(string)
    payload = b"".join(parts)
    return _MAGIC + len(payload).to_bytes(_LENGTH, "little") + payload


def decode(payload: bytes) -> tuple[list[bytes], list[bytes]]:
    """The payload of a frame: (argv, env). HandoffError if it is not exactly one."""
    lists: tuple[list[bytes], list[bytes]] = ([], [])
    at = 0
    for strings in lists:
        count, at = _count(payload, at)
        for _ in range(count):
            size, at = _count(payload, at)
            if at + size > len(payload):
                raise HandoffError("the command came truncated")
            strings.append(payload[at : at + size])
            at += size
    if at != len(payload):
        raise HandoffError("the command came with bytes that are not part of it")
    return lists


def _packed(number: int) -> bytes:
    return number.to_bytes(_COUNT, "little")


def _count(payload: bytes, at: int) -> tuple[int, int]:
    """The number that stands there, and where it ends. HandoffError if there is none."""
    end = at + _COUNT
    if end > len(payload):
        raise HandoffError("the command came truncated")
    return int.from_bytes(payload[at:end], "little"), end


def _signed(body: bytes) -> int:
    return int.from_bytes(body[:_COUNT], "little", signed=True)


def _report(kind: bytes, number: int, others: bytes = b"") -> bytes:
    body = number.to_bytes(_COUNT, "little", signed=True) + others
    return kind + _packed(len(body)) + body


def _read_exactly(fd: int, size: int) -> bytes:
    """``size`` bytes of a pipe; HandoffError at its end."""
    parts = []
    while size:
        part = os.read(fd, min(size, _CHUNK))
        if not part:
            raise HandoffError("the runtime ended before it had handed the whole command over")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def await_word(fd: int, word: bytes) -> None:
    """Child: wait for one of the words before the frame. HandoffError if it is another, or the pipe ends."""
    if _read_exactly(fd, 1) != word:
        raise HandoffError("what came through the pipe is not what was to come first")


def receive(fd: int) -> tuple[list[bytes], list[bytes]]:
    """Wait for the frame and read it: (argv, env). HandoffError if it is not complete and valid."""
    header = _read_exactly(fd, len(_MAGIC) + _LENGTH)
    magic, length = header[: len(_MAGIC)], int.from_bytes(header[len(_MAGIC) :], "little")
    if magic != _MAGIC or length > MAX_PAYLOAD:
        raise HandoffError("what came through the pipe is not a command")
    return decode(_read_exactly(fd, length))


#: Who only reads has no use for it.
_writers: list[Callable[[int, memoryview], int]] = []


def send(fd: int, frame: bytes, wait: Callable[[], None] | None = None) -> None:
    """Write the whole frame. The reader takes it in pieces, so one larger than the pipe passes as well.

    ``wait``, for a pipe that does not block: called when there is no room, returns when there is some, or raises.
    BrokenPipeError if the child is gone, and no SIGPIPE.
    """
    if not _writers:
        from mydocker.linux.signals import write_without_sigpipe

        _writers.append(write_without_sigpipe)
    view = memoryview(frame)
    while view:
        try:
            view = view[_writers[0](fd, view[: 1 << 20]) :]
        except BlockingIOError:
            if wait is None:
                raise
            wait()


#: The last stage of a container's first process under an engine.
EXECUTING = "start the command"


class Failure(Value):
    """What the child reports when it cannot go on: at which stage, on what, and the kernel's errno (or 0)."""

    stage: str
    errno: int
    text: str


def report_ready(fd: int, terminal: int = -1) -> None:
    """Child: everything is set up. ``terminal``: the descriptor, here, of the pseudo-terminal's master, or -1."""
    os.write(fd, _report(b"R", terminal))


def report_failure(fd: int, failure: Failure) -> None:
    """Child: cannot go on. One write, below PIPE_BUF, so that it arrives as a whole."""
    text = failure.text.encode(errors="surrogateescape")[:2048]
    stage = failure.stage.encode()
    os.write(fd, _report(b"E", failure.errno, len(stage).to_bytes(2, "little") + stage + text))


def place(word: bytes, hostname: bytes) -> bytes:
    """Runtime: what begins with a word and has a host name of up to 64 bytes, or none."""
    return word + bytes((len(hostname),)) + hostname.ljust(PLACE_SIZE - 2, b"\0")


def read_place(data: bytes) -> tuple[bytes, bytes]:
    """Child: the word and the host name, which is empty where there is none. HandoffError if it is not whole."""
    if len(data) != PLACE_SIZE:
        raise HandoffError("the runtime ended before there was a container for this process")
    return data[:1], data[2 : 2 + data[1]]


class Waiting(Value):
    """The child waits (``R``), and at ``landing`` in its memory is place for its command (`mydocker.landing`)."""

    landing: int


def waiting_report(landing: int) -> bytes:
    """Child: as `report_ready`, of one that waits as `Waiting` says."""
    return b"W" + _packed(8) + landing.to_bytes(8, "little")


class Stuck(Value):
    """A child that is `Waiting` cannot go on, and makes calls that it is asked for (`mydocker.landing`).

    ``outcome``: of the last table, as `mydocker.linux.batch.outcome_of` takes it.
    """

    outcome: int


def stuck_report() -> bytes:
    """Child: what comes before the outcome, of 8 bytes."""
    return b"F" + _packed(8)


class Listener(Value):
    """The descriptor, in the child, of a seccomp listener, which waits until the runtime has sent it to its agent."""

    fd: int


def report_listener(fd: int, listener: int) -> None:
    """Child: there is a seccomp listener. By write(2) alone: what else the filter lets through is not known."""
    os.write(fd, _report(b"L", listener))


def read_report(fd: int) -> int | Waiting | Stuck | Failure | Listener | None:
    """Runtime: the next report. The terminal's descriptor (or -1) when ready, a Failure, None at the end of the pipe.

    An end in the middle of a report (the child was killed) is the end too: the caller sees that the child is dead.
    """
    first = os.read(fd, 1)
    if not first:
        return None
    try:
        size = int.from_bytes(_read_exactly(fd, _COUNT), "little")
        body = _read_exactly(fd, size)
    except HandoffError:
        return None
    if first in (b"W", b"F"):
        value = int.from_bytes(body, "little")
        return Waiting(landing=value) if first == b"W" else Stuck(outcome=value)
    number = _signed(body)
    if first in (b"R", b"L"):
        return number if first == b"R" else Listener(fd=number)
    at = 6 + int.from_bytes(body[4:6], "little")
    return Failure(stage=body[6:at].decode(), errno=number, text=body[at:].decode(errors="surrogateescape"))
