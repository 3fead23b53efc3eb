"""The figures of a container's cgroups, read in one call: a program that makes many containers reads the same files of
each at its end, and between two system calls the interpreter takes longer than the kernel takes for one.

Which files those are is seen once: the plugins read what they like, by `mydocker.cgroups.files`, which notes it. For
the next container with the same limits they are read beforehand, and `files` has them when a plugin asks. What was not
read so is read as ever.

Where that is all that was asked of the kernel, the plugins need not be asked before the cgroups are removed, and who
does not look at the figures does not wait for them.
"""

from __future__ import annotations

import _thread
import os

from mydocker.cgroups import files
from mydocker.cgroups.past import Past, put_off
from mydocker.linux import batch
from mydocker.linux.libc import AT_FDCWD, addressof, architecture_number, c_char

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")

_OPENAT, _READ, _CLOSE = (architecture_number(*numbers) for numbers in ((257, 56), (0, 63), (3, 57)))

#: Kinds of container, files of one directory, and directories, of which so many are remembered.
_MOST_KINDS, _MOST_FILES, _MOST_DIRECTORIES = 32, 40, 5
#: Bytes for the path of a directory with its NUL, and for the content of a file: a longer one is read as ever.
_PATH, _CONTENT = 1024, files.FAR_SHORTER + 1


class ReadAhead:
    """For threads."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Together] = {}

    def during(
        self, directories: Sequence[str], kind: Hashable, work: Callable[[], T], later: Callable[[], T] | None = None
    ) -> T | Callable[[], T]:
        """Do ``work``, which reads files in these directories: much the same ones for all containers of a ``kind``.

        ``later``: does the same, in one thread, when the directories are gone. Where all that ``work`` would ask is
        known, what is returned does this, with all as it is now; in any thread, and more than once if need be.
        """
        if not batch.code_page():
            return work()
        known = self._known.get(kind)
        found = known.read(directories) if known is not None else {}
        # Put there, and taken away, in one step each: an interrupt leaves nothing.
        if found:
            if known is not None and later is not None and known.is_all(directories, found):
                return put_off(later, known.past(directories, found))
            key = id(found)
            try:
                files.ahead[key] = found
                return work()
            finally:
                files.ahead.pop(key, None)
        noted = Noted(directories)
        key = id(noted)
        try:
            files.noting[key] = noted
            result = work()
        finally:
            files.noting.pop(key, None)
        if len(self._known) >= _MOST_KINDS:
            self._known.clear()
        self._known[kind] = _Together(directories, noted)
        return result


def _forget_all() -> None:
    """What was another thread's in the process from which this one was forked."""
    files.ahead.clear()
    files.noting.clear()
    files.past.clear()


os.register_at_fork(after_in_child=_forget_all)


class Noted:
    """What was asked of the kernel about some directories."""

    def __init__(self, directories: Sequence[str]) -> None:
        #: by directory the names of the files that were read, each once
        self.read: dict[str, dict[str, None]] = {directory: {} for directory in directories}
        #: by path whether something was there
        self.looks: dict[str, bool] = {}
        #: the directories that were asked whether there are others in them
        self.nested: set[str] = set()
        #: whether this thread has asked about something else
        self.elsewhere = False
        self._thread = _thread.get_ident()

    def note_read(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        if directory in self.read:
            self.read[directory][name] = None
        else:
            self._note_elsewhere()

    def note_look(self, path: str, found: bool) -> None:
        if path.rpartition("/")[0] in self.read:
            self.looks[path] = found
        else:
            self._note_elsewhere()

    def note_nested(self, path: str) -> None:
        if path in self.read:
            self.nested.add(path)
        else:
            self._note_elsewhere()

    def _note_elsewhere(self) -> None:
        self.elsewhere = self.elsewhere or self._thread == _thread.get_ident()


class _Together:
    """The files of some directories, by their names, as calls that read them all."""

    def __init__(self, directories: Sequence[str], noted: Noted) -> None:
        read = [list(noted.read[directory]) for directory in directories]
        self._names = [found[:_MOST_FILES] for found in read][:_MOST_DIRECTORIES]
        self._asked_for_more = noted.elsewhere or self._names != read
        #: by the number of the directory and the name of the file
        self._looks = {
            (number, path.rpartition("/")[2]): found
            for number, directory in enumerate(directories)
            for path, found in noted.looks.items()
            if path.rpartition("/")[0] == directory
        }
        self._nested = [number for number, directory in enumerate(directories) if directory in noted.nested]
        self._contents_at = _PATH * len(self._names)
        size = self._contents_at + _CONTENT * sum(map(len, self._names))
        self._memory: Any = (c_char * size)()
        self._view = memoryview(self._memory).cast("B")
        self._lock = _thread.allocate_lock()
        self._sizes: list[batch.Slot] = []
        self._calls = batch.Batch()
        at = addressof(self._memory)
        content = at + self._contents_at
        directory_slot, file = self._calls.slot(), self._calls.slot()
        for number, found in enumerate(self._names):
            self._calls.call(
                _OPENAT,
                AT_FDCWD,
                at + _PATH * number,
                os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,
                to=directory_slot,
                failing=batch.ANY_ERROR,
                over=3 * len(found) + 1,
            )
            for name in found:
                self._add(directory_slot, file, name, content)
                content += _CONTENT
            self._calls.call(_CLOSE, directory_slot, failing=batch.ANY_ERROR)

    def _add(self, directory: batch.Slot, file: batch.Slot, name: str, content: int) -> None:
        size = self._calls.slot()  # 0 until something was read
        self._sizes.append(size)
        flags, ignored = os.O_RDONLY | os.O_CLOEXEC, batch.ANY_ERROR
        self._calls.call(_OPENAT, directory, os.fsencode(name), flags, to=file, failing=ignored, over=2)
        self._calls.call(_READ, file, content, _CONTENT, to=size, failing=ignored)
        self._calls.call(_CLOSE, file, failing=ignored)

    def read(self, directories: Sequence[str]) -> dict[str, bytes]:
        """What is in those files of these directories, by their paths, as far as it can be read at once."""
        encoded = [os.fsencode(directory) + b"\0" for directory in directories]
        if not self._sizes or len(encoded) < len(self._names) or any(len(path) > _PATH for path in encoded):
            return {}
        found: dict[str, bytes] = {}
        with self._lock:
            for number, path in enumerate(encoded[: len(self._names)]):
                begin = _PATH * number
                self._view[begin : begin + len(path)] = path
            sizes = self._calls.run({})
            at, slots = self._contents_at, iter(self._sizes)
            for directory, names in zip(directories, self._names, strict=False):
                for name in names:
                    size = sizes[next(slots)]
                    if 0 < size < _CONTENT:
                        found[f"{directory}/{name}"] = bytes(self._view[at : at + size])
                    at += _CONTENT
        return found

    def is_all(self, directories: Sequence[str], found: dict[str, bytes]) -> bool:
        """Whether what was ``found`` is all that there is to be asked about these directories, as far as is known."""
        if self._asked_for_more or len(found) < len(self._sizes) or len(directories) != len(self._names):
            return False
        try:
            return not any(files.has_nested(directories[number]) for number in self._nested)
        except OSError:
            return False

    def past(self, directories: Sequence[str], found: dict[str, bytes]) -> Past:
        """These directories as they are now, if what was ``found`` `is_all`."""
        looks = {f"{directories[number]}/{name}": there for (number, name), there in self._looks.items()}
        return Past(directories, found, looks, frozenset(directories[number] for number in self._nested))
