"""Reading and writing one kernel file of a cgroup, with errors that say what was refused and why."""

from __future__ import annotations

import _thread
import errno
import os
import sys

from mydocker.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from mydocker.cgroups.past import Past
    from mydocker.cgroups.read_ahead import Noted

    class Imitation(Protocol):
        """What answers in place of the kernel below ``path``. Its methods raise OSError as the system call would."""

        path: str

        def write(self, path: str, value: str) -> None: ...
        def make_directory(self, path: str) -> None: ...
        def remove_directory(self, path: str) -> None: ...
        def kill(self, path: str) -> None: ...


#: The imitated cgroup file systems of this process (`mydocker.testing`): none in a run.
imitations: list[Imitation] = []

_ENCODING = sys.getfilesystemencoding()

#: Bytes. Than a page, and than what there may be in it before a record that does not fit any more.
FAR_SHORTER = 2048

#: For `mydocker.cgroups.read_ahead`, each by its id: what is in files, by their paths, for the next who reads them, and
#: who takes note of all that is asked meanwhile. Threads change them, so who looks takes a copy.
ahead: dict[int, dict[str, bytes]] = {}
noting: dict[int, Noted] = {}

#: And what answers for cgroups that were removed, to the thread, by its ident, that asks about these.
past: dict[int, Past] = {}

# What each refusal means for a cgroup file: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/*.rst, cgroups(7).
_HINTS = {
    errno.ENOENT: "this kernel does not have that file for this cgroup",
    errno.EROFS: "cgroups are mounted read-only here; in a container, the outer one has to be privileged",
    errno.EACCES: "this user may not write here: a delegated cgroup is needed, "
    "as from systemd-run --user --scope -p Delegate=yes",
    errno.EPERM: "this user, or the cgroup namespace's boundary, does not allow it",
    errno.EINVAL: "the kernel does not take that value, or a cgroup above this one does not allow it",
    errno.ERANGE: "the value is out of the range that the kernel takes",
    errno.EBUSY: "the cgroup is in use in a way that does not allow it",
    errno.EOPNOTSUPP: "the kernel does not support it for this kind of cgroup",
    errno.ENOSPC: "the cgroup, or one above it, has nothing of it to give",
    errno.ESRCH: "the process has ended",
    errno.ENODEV: "the cgroup was removed",
}


def refused(action: str, path: str, error: OSError, hint: str = "") -> CgroupError:
    """The error for a system call on ``path`` that the kernel refused. ``action`` is as in ``cannot <action>``."""
    number = error.errno or 0
    hint = hint or _HINTS.get(number, "")
    reason = f"{os.strerror(number)} ({hint})" if hint else os.strerror(number)
    return CgroupError(f"cannot {action} {path}: {reason}", number)


def imitation_of(path: str) -> Imitation | None:
    """What answers for ``path`` in place of the kernel, if anything does."""
    for imitation in imitations:
        if path.startswith(f"{imitation.path}/"):
            return imitation
    return None


def read(path: str) -> str:
    """The whole text of a cgroup file, stripped. `CgroupError` if the kernel refuses."""
    was = _past_of(path) if past else None
    if was is not None:
        try:
            return _text(was.read(path))
        except OSError as e:
            raise refused("read", path, e) from e
    for contents in tuple(ahead.values()):
        found = contents.pop(path, None)
        if found is not None:
            return _text(found)
    for noted in tuple(noting.values()):
        noted.note_read(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks = [os.read(fd, 1 << 16)]
            # The kernel gives a file of several records by pages (seq_file.rst): what is far shorter is the last of it.
            while len(chunks[-1]) > FAR_SHORTER:
                chunks.append(os.read(fd, 1 << 16))
        finally:
            os.close(fd)
    except OSError as e:
        raise refused("read", path, e) from e
    return _text(b"".join(chunks))


def _text(content: bytes) -> str:
    """As os.fsdecode has it, in one call."""
    return content.strip().decode(_ENCODING, "surrogateescape")


def exists(path: str) -> bool:
    """Whether there is a file of that name."""
    was = _past_of(path) if past else None
    if was is not None:
        try:
            return was.exists(path)
        except OSError as e:
            raise refused("look for", path, e) from e
    found = (bool(ahead) and any(path in contents for contents in tuple(ahead.values()))) or os.path.exists(path)
    for noted in tuple(noting.values()):
        noted.note_look(path, found)
    return found


def has_nested(path: str) -> bool:
    """Whether there are cgroups in the cgroup ``path``: a directory counts its subdirectories in its links. OSError."""
    was = _past_of(path) if past else None
    if was is not None:
        return was.has_nested(path)
    for noted in tuple(noting.values()):
        noted.note_nested(path)
    return os.stat(path).st_nlink != 2


def _past_of(path: str) -> Past | None:
    """What answers for this path in this thread, which may be in a handler of signals that asks about others."""
    found = past.get(_thread.get_ident())
    return found if found is not None and found.covers(path) else None


def write(path: str, value: str) -> None:
    """Write ``value`` to a cgroup file. `CgroupError` if the kernel refuses.

    One write(2): a cgroup file takes each write as a whole value. The file is never created: on a file system
    that is no cgroup's, a missing file would otherwise look like a limit in force.
    """
    for contents in tuple(ahead.values()):
        beside = path[: path.rindex("/") + 1]
        if any(other.startswith(beside) for other in tuple(contents)):
            contents.clear()  # what is in one file may follow from what is written to another
    try:
        imitation = imitation_of(path) if imitations else None
        if imitation is not None:
            return imitation.write(path, value)
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, os.fsencode(value))
        finally:
            os.close(fd)
    except OSError as e:
        raise refused(f'write "{value}" to', path, e) from e


def make_directory(path: str) -> None:
    """mkdir(2) of a cgroup. OSError if the kernel refuses."""
    imitation = imitation_of(path) if imitations else None
    if imitation is None:
        os.mkdir(path)
    else:
        imitation.make_directory(path)


def remove_directory(path: str, parent: int | None = None) -> None:
    """rmdir(2) of a cgroup, by its name in the directory ``parent``. OSError if the kernel refuses."""
    imitation = imitation_of(path) if imitations else None
    if imitation is None:
        os.rmdir(path, dir_fd=parent)
    else:
        imitation.remove_directory(path)
