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


class _Shape:
    """What is the same of all commands of which the strings are as many and as long: the frame but for the strings."""

    def __init__(self, sizes: tuple[int, ...], argc: int, paths: int, landing: int) -> None:
        """``sizes``: of the strings, without their NULs: ``argc`` arguments, the environment, as many ``paths``."""
        envc = len(sizes) - argc - paths
        self.argv, self.envp = landing, landing + _POINTER * (argc + 1)
        table = self.envp + _POINTER * (envc + 1)
        begin = table + batch.RECORD_SIZE * (1 if paths == 1 else 2 * paths)
        size = begin + sum(sizes) + len(sizes) - landing
        #: whether there is place for it
        self.fits = size <= ROOM
        if not self.fits:  # the kernel would not take it either: the paths go alone, to see whether there is one
            begin, sizes = landing, sizes[argc + envc :]
            size = sum(sizes) + len(sizes)
        places = list(accumulate((size + 1 for size in sizes), initial=begin))
        #: where each of the paths is
        self.paths = places[len(sizes) - paths : -1]
        #: what comes before the strings
        self.head = HEADER.pack(MAGIC, size, 0, 0)
        if self.fits:
            pointers = struct.pack(f"={argc + envc + 2}Q", *places[:argc], 0, *places[argc : argc + envc], 0)
            records = b"".join(map(self._attempt, self.paths))
            self.head = HEADER.pack(MAGIC, size, table, len(records) // batch.RECORD_SIZE) + pointers + records

    def _attempt(self, path: int) -> bytes:
        if len(self.paths) == 1:
            return self.execution(path)
        # A failed execve(2) has copied all the arguments before, so it is looked first.
        return batch.record(_FACCESSAT, AT_FDCWD, path, os.F_OK, failing=errno.ENOENT, over=1) + self.execution(path)

    def execution(self, path: int) -> bytes:
        """The call of execve for one of the paths."""
        return batch.record(_EXECVE, path, self.argv, self.envp)


#: The last ones, by what they were made of, but for those of very many strings, which take megabytes.
_shapes: dict[tuple[object, ...], _Shape] = {}
_MOST_SHAPES = 64
_MOST_STRINGS = 512


def _shape(sizes: tuple[int, ...], argc: int, paths: int, landing: int) -> _Shape:
    key = (landing, argc, paths, sizes)
    found = _shapes.get(key)
    if found is None:
        found = _Shape(sizes, argc, paths, landing)
        if len(sizes) <= _MOST_STRINGS:
            if len(_shapes) >= _MOST_SHAPES:
                _shapes.clear()
            _shapes[key] = found
    return found


class Command:
    """The command for a child whose report was `mydocker.handoff.Waiting`, and why it does not run."""

    def __init__(self, argv: Sequence[bytes], env: Sequence[bytes], landing: int) -> None:
        """ValueError if a string holds a NUL byte, which no argument of execve(2) can."""
        self._paths = candidates(argv, env)
        strings = (*argv, *env, *self._paths)
        content = b"\0".join((*strings, b""))
        if content.count(b"\0") != len(strings):
            raise ValueError("an argument holds a NUL byte, which the kernel cannot pass")
        self._shape = _shape(tuple(map(len, strings)), len(argv), len(self._paths), landing)
        if not self._shape.fits:
            content = b"\0".join((*self._paths, b""))
        #: what goes down the pipe
        self.frame = self._shape.head + content

    def failure(self, ask: Callable[[bytes], int | None]) -> Failure | None:
        """Once the child is stuck: why the command does not run, as `mydocker.init` finds out; None if it runs now.

        ``ask``: sends a question (`question`), and gives the child's answer: 0, or the errno; None at the end of its
        pipe.
        """
        failed = (errno.ENOENT, self._paths[0] if self._paths else b"")
        for path, place in zip(self._paths, self._shape.paths, strict=True):
            exists = question(batch.record(_FACCESSAT, AT_FDCWD, place, os.F_OK))
            number = ask(exists)
            if number in (errno.ENOENT, errno.ENOTDIR):
                continue
            number = ask(question(self._shape.execution(place))) if self._shape.fits else errno.E2BIG
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


def _not_executed(number: int, path: bytes) -> Failure:
    return Failure(stage="exec", errno=number, text=os.fsdecode(path))


def question(*records: bytes) -> bytes:
    """What a child that is stuck is sent: some calls, of which the outcome is to be reported."""
    return QUESTION.pack(sum(map(len, records)), len(records)) + b"".join(records)
