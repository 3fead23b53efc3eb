"""Which containers of a state directory some process answers for, in one file: what the dead have left is found without
a look at those that live.

``<state>/@claims`` is a table of names, `_SIZE` bytes each, zeros where nothing is. Who makes a container takes a line,
by a lock on the byte of the line's number (fcntl(2), "Advisory record locking"), and writes the container's name there
before it makes anything. The kernel drops the locks when the process ends in whatever way: a line with a name and
without a lock is of a dead one. The locks on lines side by side that one process holds are one to the kernel, so a
process with a thousand containers is asked about once. Of processes with one each so many are asked about as a start
takes no notice of (`_MOST`), and the next call goes on with those behind them.

A killed process leaves its names, and they stay until what they name is removed. Whose the directory of that name is,
the table does not decide: it has a lock of its own (`mydocker.state`). Where there is no directory yet, a note behind
the name says which process answers for it: locks of this kind are lost if that closes another descriptor of the file.
The last one to leave removes the file.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: No container can have this name.
FILE = "@claims"

#: Bytes for each name; `mydocker.state.check_name` allows as many.
_SIZE = 128

#: A note of a name that nobody answers for.
_NOBODY = b"0 0"

#: How many living processes one recovery asks about. The kernel goes through all locks of a file for each question.
_MOST = 32

#: The first line is no container's. Where a recovery has not asked about all, it says with which line to go on.
_FIRST = 1

#: struct flock (fcntl(2)): type, whence, start, length, pid.
_FLOCK = "hhqqi4x"
_EVERYTHING = (0, 0)
#: A byte that stands for no line. Who waits for `_EVERYTHING` to be unlocked waits on this.
_LAST = 1 << 62


class Entry:
    """A line of the table, from `enter` to `leave`."""

    __slots__ = ("_left", "_line", "_table")

    def __init__(self, table: _Table, line: int, left: bytes) -> None:
        """``left``: what is in the line when this process has left the name to the next recovery."""
        self._table = table
        self._line = line
        self._left = left

    def leave(self, *, unfinished: bool = False) -> None:
        """Let go of the container. ``unfinished``: the name stays, and the next recovery gets it."""
        self._table.drop(self._line, self._left if unfinished else b"")
        self._table.close()


def enter(root: str, name: str, note: bytes = b"") -> Entry:
    """Note that this process answers for the container ``name``. OSError, such as FileNotFoundError without a root.

    ``note``: what a recovery is to know besides, and `_NOBODY` if this process leaves the name to it.
    """
    while True:
        table = _process().open(f"{root}/{FILE}", os.O_CREAT)
        try:
            line = table.add(_line(os.fsencode(name), note))
        except BaseException:
            table.close()
            raise
        if line is not None:
            return Entry(table, line, _line(os.fsencode(name), _NOBODY if note else b""))
        table.close()  # the file was removed in the moment before


def recover(
    root: str, remove: Callable[[str], bool], remove_noted: Callable[[str, bytes], bool] | None = None
) -> None:
    """Call ``remove`` with each name that a dead process has left; it returns whether nothing of that is there now.

    ``remove_noted`` instead, with the note, where there is one.
    """
    try:
        table = _process().open(f"{root}/{FILE}", 0)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        for line, content in table.dead():
            if table.take(line, content):
                name, _, note = content.partition(b"\0")
                left = content
                try:
                    asked = remove_noted if note else None
                    if remove(os.fsdecode(name)) if asked is None else asked(os.fsdecode(name), note):
                        left = b""
                finally:
                    table.drop(line, left)
    finally:
        table.close()


class _Process:
    """The tables that this process has open.

    Locks of this kind are a process's, not a descriptor's. A fork(2) does not inherit them, as is wanted. But
    any close(2) of the file drops all that the process has there, so each file is opened once and shared.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.mutex = _thread.allocate_lock()
        self.tables: dict[str, _Table] = {}

    def open(self, path: str, flags: int) -> _Table:
        with self.mutex:
            table = self.tables.get(path)
            if table is None or table.is_removed():
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
                table = self.tables[path] = _Table(self, path, fd)
            table.users += 1
            return table


#: Of the process that uses this module; a fork has its own.
_current: list[_Process] = []


def _process() -> _Process:
    if not _current or _current[0].pid != os.getpid():
        _current[:] = [_Process()]
    return _current[0]


class _Table:
    """The file of one root. Its methods are for all threads."""

    def __init__(self, process: _Process, path: str, fd: int) -> None:
        self._process = process
        self._mutex = process.mutex
        self._path = path
        self._fd = fd
        #: how many entries and recoveries of this process there are
        self.users = 0

    def is_removed(self) -> bool:
        return os.fstat(self._fd).st_nlink == 0

    def add(self, content: bytes) -> int | None:
        """Take a free line and write that there. None if the file is not the root's any more."""
        with self._mutex:
            for line in _free(self._content()[::_SIZE]):
                if not self._lock(line):
                    continue
                # Somebody may have taken, written and left it to the next recovery since it was read.
                if os.pread(self._fd, 1, line * _SIZE) not in (b"", b"\0"):
                    self._unlock(line)
                elif self.is_removed():
                    self._unlock(line)
                    break
                else:
                    os.pwrite(self._fd, content.ljust(_SIZE, b"\0"), line * _SIZE)
                    return line
            return None

    def dead(self) -> list[tuple[int, bytes]]:
        """What is in lines that no process holds; of very many lines some, and of the others with the next calls."""
        with self._mutex:
            content = self._content()
            used = content[::_SIZE]  # of each line the first byte
            noted = content[:_SIZE].rstrip(b"\0")
            begin = int(noted) if noted.isdigit() else _FIRST
            if not _FIRST <= begin < len(used):
                begin = _FIRST
            found: list[tuple[int, bytes]] = []
            living = 0
            for line, end in ((begin, len(used)), (_FIRST, begin)):
                while line < end:
                    lock = self._conflict(line) if used[line] else (line, 1)
                    if lock is None:
                        found.append((line, content[line * _SIZE : (line + 1) * _SIZE].rstrip(b"\0")))
                        line += 1
                    elif lock == _EVERYTHING:
                        self._await_removal()
                    elif used[line] and living == _MOST:
                        os.pwrite(self._fd, (b"%d" % line).ljust(_SIZE, b"\0"), 0)
                        return found
                    else:
                        living += used[line] != 0
                        line = sum(lock)
            return found

    def take(self, line: int, content: bytes) -> bool:
        """Take a line that was dead; False if somebody else has, or has cleared it."""
        with self._mutex:
            if not self._lock(line):
                return False
            if os.pread(self._fd, _SIZE, line * _SIZE).rstrip(b"\0") == content:
                return True
            self._unlock(line)
            return False

    def drop(self, line: int, left: bytes) -> None:
        """The reverse of `add` and of `take`. ``left``: what stays there."""
        with self._mutex:
            os.pwrite(self._fd, left.ljust(_SIZE, b"\0"), line * _SIZE)
            self._unlock(line)

    def close(self) -> None:
        """To be called once for each `_Process.open`. The last one removes the file if no name is in it."""
        with self._mutex:
            self.users -= 1
            if self.users:
                return
            if self._process.tables.get(self._path) is self:
                del self._process.tables[self._path]
            try:
                alone = self._set(fcntl.F_WRLCK, *_EVERYTHING)
                if alone and not self._content()[_SIZE:].strip(b"\0") and not self.is_removed():
                    os.unlink(self._path)
            finally:
                os.close(self._fd)

    def _content(self) -> bytes:
        chunks: list[bytes] = []
        at = 0
        while chunk := os.pread(self._fd, 1 << 20, at):
            chunks.append(chunk)
            at += len(chunk)
        return b"".join(chunks)

    def _lock(self, line: int) -> bool:
        """Take the lock of a line that neither another process nor another thread of this one holds."""
        while True:
            lock = self._conflict(line)
            if lock is None and self._set(fcntl.F_WRLCK, line, 1):
                return True
            if lock != _EVERYTHING:
                return False
            self._await_removal()

    def _unlock(self, line: int) -> None:
        self._set(fcntl.F_UNLCK, line, 1)

    def _await_removal(self) -> None:
        """Until the one who removes the file, or finds that it cannot be removed, has done so."""
        fcntl.fcntl(self._fd, fcntl.F_SETLKW, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _LAST, 1, 0))
        self._set(fcntl.F_UNLCK, _LAST, 1)

    def _conflict(self, line: int) -> tuple[int, int] | None:
        """(start, length) of a lock on the line, of this process too; None if there is none.

        Asked as the owner of an open file description, who is never the process (F_OFD_GETLK).
        """
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, line, 1, 0)
        kind, _, start, length, _ = struct.unpack(_FLOCK, fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else (start, length)

    def _set(self, kind: int, start: int, length: int) -> bool:
        """Whether the lock could be had at once."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0))
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
        return True


def _line(name: bytes, note: bytes) -> bytes:
    return name + b"\0" + note if note else name


def _free(used: bytes) -> Iterator[int]:
    """The numbers of the zeros, and all that follow."""
    line = used.find(0, _FIRST)
    while line >= 0:
        yield line
        line = used.find(0, line + 1)
    line = max(_FIRST, len(used))
    while True:
        yield line
        line += 1
