"""The mount API that works on descriptors (fsopen(2) and its kin, Linux 5.2 to 5.12), and pivot_root.

A file system is made detached, gets its attributes while nobody can see it, and is then attached to a
descriptor of its target: no path is resolved twice, so none can be exchanged in between. Where a descriptor leads is
also the working directory, and there the old mount(2) is as good, and faster (`MountBatch.mount_at`).
"""

from __future__ import annotations

import os
import struct

from mydocker.linux.batch import Batch, BatchError, Slot
from mydocker.linux.libc import AT_FDCWD as AT_FDCWD
from mydocker.linux.libc import architecture_number, c_char_p, c_int, c_size_t, c_uint, function, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_AT_SYMLINK_NOFOLLOW = 0x100

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

#: The longest value of an option that fsconfig(2) takes, in bytes (fs/fsopen.c).
MAX_OPTION_VALUE = 255

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_MNT_DETACH = 2

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_F_DUPFD_CLOEXEC = 1030
_CLOSE, _FCNTL, _PIVOT_ROOT, _FCHDIR, _CHDIR, _MOUNT, _UMOUNT2 = (
    architecture_number(*numbers)
    for numbers in ((3, 57), (72, 25), (155, 41), (81, 50), (80, 49), (165, 40), (166, 39))
)

_open_tree = system_call(_OPEN_TREE, c_int, c_char_p, c_uint)
_move_mount = system_call(_MOVE_MOUNT, c_int, c_char_p, c_int, c_char_p, c_uint)
_fsopen = system_call(_FSOPEN, c_char_p, c_uint)
_fsconfig = system_call(_FSCONFIG, c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = system_call(_FSMOUNT, c_int, c_uint, c_uint)
_mount_setattr = system_call(_MOUNT_SETATTR, c_int, c_char_p, c_uint, c_char_p, c_size_t)
_pivot_root = system_call(_PIVOT_ROOT, c_char_p, c_char_p)
_umount2 = function("umount2", c_char_p, c_int)


def new_filesystem(
    fstype: bytes,
    options: Iterable[tuple[bytes, bytes | None]] = (),
    attributes: int = 0,
    *,
    source: bytes = b"",
) -> int:
    """A new mount of ``fstype``, detached: its descriptor. An option with the value None is a flag.

    ``source``: the block device of a file system that is on one.

    The OSError of a refused file system carries the kernel's own words, where it said any.
    """
    context = _fsopen(fstype, _FSOPEN_CLOEXEC)
    try:
        # Where no device is needed it is only shown in mountinfo, which has "none" if it is not set.
        _fsconfig(context, _FSCONFIG_SET_STRING, b"source", source or fstype, 0)
        for key, value in options:
            _fsconfig(context, _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING, key, value, 0)
        _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _fsmount(context, _FSMOUNT_CLOEXEC, attributes)
    except OSError as e:
        words = _context_message(context)
        raise OSError(e.errno, f"{e.strerror} ({words})" if words else e.strerror) from None
    finally:
        os.close(context)


def _context_message(context: int) -> str:
    """What the kernel has to say about a failed fsconfig: lines ``e message`` read from the context."""
    words = []
    try:
        while True:
            words.append(os.read(context, 4096).decode(errors="replace").partition(" ")[2].strip())
    except OSError:
        return "; ".join(words)


class MountBatch(Batch):
    """Mounts made in one go: see the functions of these names, and `Batch.call` for ``failing`` and ``over``."""

    def __init__(self) -> None:
        super().__init__()
        self._contexts: dict[int, Slot] = {}

    def new_filesystem(
        self,
        fstype: bytes,
        options: Iterable[tuple[bytes, bytes | None]] = (),
        attributes: int = 0,
        *,
        name: str = "",
        failing: int = 0,
        over: int = 0,
    ) -> Slot:
        """``failing``, ``over``: a kernel that does not have the file system."""
        context, made = self.slot(), self.slot()
        first = len(self)
        calls: list[tuple[int, bytes | None, bytes | None]] = [(_FSCONFIG_SET_STRING, b"source", fstype)]
        calls += [
            (_FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING, key, value) for key, value in options
        ]
        over += len(calls) + 3
        self.call(_FSOPEN, fstype, _FSOPEN_CLOEXEC, to=context, name=name, failing=failing, over=over)
        for kind, key, value in (*calls, (_FSCONFIG_CMD_CREATE, None, None)):
            self.call(_FSCONFIG, context, kind, key, value, 0)
        self.call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes, to=made)
        self.close(context)
        self._contexts.update(dict.fromkeys(range(first + 1, len(self) - 1), context))
        return made

    def clone_tree(
        self,
        directory: int,
        path: bytes = b"",
        *,
        recursive: bool = True,
        follow: bool = False,
        name: str = "",
        failing: int = 0,
        over: int = 0,
    ) -> Slot:
        made = self.slot()
        flags = _tree_flags(path, recursive=recursive, follow=follow)
        self.call(_OPEN_TREE, directory, path, flags, to=made, name=name, failing=failing, over=over)
        return made

    def attach(self, mount: Slot, target: Slot) -> None:
        self.call(_MOVE_MOUNT, mount, b"", target, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)

    def mount_at(
        self, target: Slot, fstype: bytes, options: Iterable[tuple[bytes, bytes | None]], attributes: int
    ) -> None:
        """A new file system on the directory ``target``, which is the working directory then. By mount(2): two calls,
        and no descriptor. Of ``attributes`` its flags are RDONLY, NOSUID, NODEV and NOEXEC, by the same numbers.
        """
        data = b",".join(key if value is None else key + b"=" + value for key, value in options)
        self.call(_FCHDIR, target)
        self.call(_MOUNT, fstype, b".", fstype, attributes, data or None)

    def go_to_root(self) -> None:
        """Make the root the working directory."""
        self.call(_CHDIR, b"/")

    def set_attributes(self, mount: Slot, *, set_: int, recursive: bool = False) -> None:
        attr = struct.pack("=4Q", set_, 0, 0, 0)
        # Of the size of 32 the NUL that ends the string is not seen.
        self.call(_MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0), attr, len(attr))

    def make_all_private(self, *, name: str = "") -> None:
        attr = struct.pack("=4Q", 0, 0, MS_PRIVATE, 0)
        self.call(_MOUNT_SETATTR, AT_FDCWD, b"/", _AT_RECURSIVE, attr, len(attr), name=name)

    def pivot_to(self, new_root: Slot, *, name: str = "") -> None:
        self.call(_FCHDIR, new_root, name=name)
        self.call(_PIVOT_ROOT, b".", b".")
        self.call(_UMOUNT2, b".", _MNT_DETACH)
        self.go_to_root()

    def duplicate(self, descriptor: Slot, *, to: Slot) -> None:
        """The lowest number that is free, close-on-exec."""
        self.call(_FCNTL, descriptor, _F_DUPFD_CLOEXEC, 0, to=to)

    def close(self, *descriptors: Slot) -> None:
        for descriptor in descriptors:
            self.call(_CLOSE, descriptor)

    def make(self, given: Mapping[Slot, int], begin: Callable[[str], object]) -> Any:
        """`Batch.run`; ``begin`` is told which step has failed. The OSError carries the kernel's own words."""
        try:
            return self.run(given)
        except BatchError as e:
            begin(self.name_of(e.index))
            words = _context_message(e.slots[self._contexts[e.index]]) if e.index in self._contexts else ""
            raise OSError(e.errno, f"{e.strerror} ({words})" if words else e.strerror) from None


def _tree_flags(path: bytes, *, recursive: bool, follow: bool = False) -> int:
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (0 if follow else _AT_SYMLINK_NOFOLLOW)
    return flags | (0 if path else _AT_EMPTY_PATH) | (_AT_RECURSIVE if recursive else 0)


def clone_tree(directory: int, path: bytes = b"", *, recursive: bool = True, follow: bool = False) -> int:
    """A detached bind mount of what is at ``path`` below ``directory`` (of the descriptor itself if empty).

    ``follow``: a symbolic link at the end of ``path`` is followed; for the user's own paths on the host only.
    """
    return _open_tree(directory, path, _tree_flags(path, recursive=recursive, follow=follow))


def attach(mount: int, target: int) -> None:
    """Attach a detached mount to the file or directory behind the descriptor ``target``."""
    _move_mount(mount, b"", target, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def set_attributes(
    mount: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, userns: int = 0, recursive: bool = False
) -> None:
    """mount_setattr(2) on the mount behind a descriptor.

    ``userns``: with MOUNT_ATTR_IDMAP the descriptor of the user namespace that has the map.
    """
    attr = struct.pack("=4Q", set_, clear, propagation, userns)
    _mount_setattr(mount, b"", _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0), attr, len(attr))


def make_all_private() -> None:
    """No mount event leaves this mount namespace or comes into it (mount_namespaces(7))."""
    set_propagation_of_all(MS_PRIVATE)


def set_propagation_of_all(propagation: int) -> None:
    """The propagation type of every mount of this mount namespace."""
    attr = struct.pack("=4Q", 0, 0, propagation, 0)
    _mount_setattr(AT_FDCWD, b"/", _AT_RECURSIVE, attr, len(attr))


def pivot_to(new_root: int) -> None:
    """Make the mount behind the descriptor ``/`` and drop the old root."""
    stack_roots(new_root)
    drop_old_root()


def stack_roots(new_root: int) -> None:
    """Make the mount ``/`` that is behind the descriptor.

    ``pivot_root(".", ".")`` leaves the old root stacked on it (pivot_root(2)).
    """
    os.fchdir(new_root)
    _pivot_root(b".", b".")


def drop_old_root() -> None:
    """Detach what is stacked on the root, with all that is mounted below it."""
    _umount2(b".", _MNT_DETACH)
    os.chdir("/")
