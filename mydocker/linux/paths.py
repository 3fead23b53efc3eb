"""The one module that resolves paths inside a root that is not trusted.

Every component is resolved by openat2(2) with RESOLVE_IN_ROOT: absolute links and ``..`` stay below the
root, and magic links (those of /proc) are refused. What comes back is a descriptor, which is then used; the
path is not looked up again.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from mydocker.linux.libc import c_char_p, c_int, c_size_t, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.linux.batch import Batch, Slot

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10

_MAX_TRIES = 1000  # somebody who renames on purpose is not to hold a runtime up for ever
_MAX_LINKS = 40  # the kernel's own (path_resolution(7))

_OPENAT2 = 437
_openat2 = system_call(_OPENAT2, c_int, c_char_p, c_char_p, c_size_t)


def open_in_root(root: int, path: bytes, flags: int = os.O_PATH, *, links: bool = True) -> int:
    """Open ``path`` as a process whose root is the directory ``root`` would; close-on-exec.

    With ``links=False`` a symbolic link on the way is an error (ELOOP).
    """
    how = _how(flags, links=links)
    for _ in range(_MAX_TRIES):
        try:
            return _openat2(root, path, how, len(how))
        except BlockingIOError:
            continue  # EAGAIN: something was renamed meanwhile, and the kernel cannot vouch for ".." (openat2(2))
        except OSError as e:
            raise OSError(e.errno, e.strerror, os.fsdecode(path)) from None
    raise OSError(errno.EAGAIN, "something on the way is renamed all the time", os.fsdecode(path))


def open_in_batch(
    batch: Batch,
    root: Slot,
    path: bytes,
    flags: int = os.O_PATH,
    *,
    links: bool = True,
    name: str = "",
    failing: int = 0,
    over: int = 0,
) -> Slot:
    """As `open_in_root`, as a part of ``batch``, which knows the root; see `Batch.call` for the rest."""
    opened = batch.slot()
    how = _how(flags, links=links)
    batch.call(_OPENAT2, root, path, how, len(how), to=opened, name=name, failing=failing, over=over)
    return opened


def _how(flags: int, *, links: bool) -> bytes:
    """struct open_how (openat2(2))."""
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | (0 if links else _RESOLVE_NO_SYMLINKS)
    return struct.pack("=3Q", flags | os.O_CLOEXEC, 0, resolve)


def make_directory_in_root(root: int, path: bytes, mode: int = 0o755, *, links: bool = True) -> int:
    """Open the directory ``path``, making it and its parents where they are missing.

    Where a link leads nowhere, what it points to is made: images have such links to what is mounted later.
    """
    return _make(root, path, _new_directory, os.O_PATH | os.O_DIRECTORY, mode, links)


def make_file_in_root(root: int, path: bytes, mode: int = 0o644, *, links: bool = True) -> int:
    """Open the file ``path`` with O_PATH, making an empty one and its parents where they are missing."""
    return _make(root, path, _new_file, os.O_PATH, mode, links)


def _new_directory(name: bytes, mode: int, parent: int) -> None:
    os.mkdir(name, mode, dir_fd=parent)


def _new_file(name: bytes, mode: int, parent: int) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, mode, dir_fd=parent))


def _make(
    root: int,
    path: bytes,
    make: Callable[[bytes, int, int], None],
    flags: int,
    mode: int,
    links: bool,
    followed: int = 0,
) -> int:
    try:
        return open_in_root(root, path, flags, links=links)
    except FileNotFoundError:
        pass
    parent_path, name = os.path.split(path.rstrip(b"/"))
    if not name or name in (b".", b".."):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
    parent = make_directory_in_root(root, parent_path or b"/", links=links)
    try:
        make(name, mode, parent)
    except FileExistsError:  # made meanwhile, or a link
        if not links:
            return open_in_root(root, path, flags, links=False)
        try:
            target = os.readlink(name, dir_fd=parent)
        except OSError:
            return open_in_root(root, path, flags)
        if followed == _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path)) from None
        beside = target if target.startswith(b"/") else parent_path + b"/" + target
        return _make(root, beside, make, flags, mode, links, followed + 1)
    finally:
        os.close(parent)
    return open_in_root(root, path, flags, links=links)


def read_in_root(root: int, path: bytes, limit: int = 1 << 20) -> bytes:
    """The first ``limit`` bytes of a regular file; empty if there is none. A fifo or a device is not opened.

    Nor is the file by its descriptor in /proc, which may be of the root's own making. So between two looks it can be
    exchanged for what is opened then without waiting for anything, and not read.
    """
    try:
        probe = open_in_root(root, path)
        try:
            if not stat.S_ISREG(os.fstat(probe).st_mode):
                return b""
        finally:
            os.close(probe)
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    with open(fd, "rb") as f:
        return f.read(limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
