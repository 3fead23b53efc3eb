"""The command for a child that waits with machine code (`mydocker.waiting`), and why it does not run.

It comes by the pipe as in `mydocker.handoff`, but laid out as execve(2) wants it, for a place in the child's
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

from mydocker.handoff import Failure
from mydocker.linux import batch
from mydocker.linux.libc import AT_FDCWD, architecture_number
from mydocker.spec import candidates
from mydocker.table import ROOM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What it is, bytes that follow, place and number of the records.
HEADER = struct.Struct("=8s3Q")
MAGIC = b"MYDL\x01\0\0\0"
#: Of a table that the runtime asks for later: bytes and number of the records.
QUESTION = struct.Struct("=2Q")
_POINTER = 8

_EXECVE, _FACCESSAT, _OPENAT = (architecture_number(*numbers) for numbers in ((59, 221), (269, 48), (257, 56)))


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
            self.frame = HEADER.pack(MAGIC, len(content), 0, 0) + content
            return
        first, last = len(argv), len(argv) + len(env)
        pointers = struct.pack(f"={last + 2}Q", *places[:first], 0, *places[first:last], 0)
        records = b"".join(
            # A failed execve(2) has copied all the arguments before, so it is looked first.
            batch.record(_FACCESSAT, AT_FDCWD, path, os.F_OK, failing=errno.ENOENT, over=1) + self._execution(path)
            for path in self._places
        )
        self.frame = HEADER.pack(MAGIC, size, table, 2 * len(self._paths)) + pointers + records + content

    def _execution(self, path: int) -> bytes:
        return batch.record(_EXECVE, path, self._argv, self._envp)

    def failure(self, ask: Callable[[bytes], int | None]) -> Failure | None:
        """Once the child is stuck: why the command does not run, as `mydocker.init` finds out; None if it runs now.

        ``ask``: sends a question (`question`), and gives the child's answer: 0, or the errno; None at the end of its
        pipe.
        """
        failed = (errno.ENOENT, self._paths[0] if self._paths else b"")
        for path, place in zip(self._paths, self._places, strict=True):
            exists = question(batch.record(_FACCESSAT, AT_FDCWD, place, os.F_OK))
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
                opened = ask(question(batch.record(_OPENAT, AT_FDCWD, place, os.O_PATH | os.O_DIRECTORY)))
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
    return QUESTION.pack(sum(map(len, records)), len(records)) + b"".join(records)
