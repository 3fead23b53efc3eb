"""A copy-on-write root in a user namespace.

The mounts that came along from the host are locked to each other there (mount_namespaces(7)), and the kernel makes no
overlay of a directory that has one of them below it: its layer would show what the mount hides. So the directories on
the way to such mounts are made anew, in a tmpfs, and each directory beside the way gets an overlay of its own.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker.linux import mount, paths

#: A file on the way is copied up to this size; a larger one, or one that this user may not read, is seen read-only.
_COPIED = 1 << 20

#: How ids that the namespace does not have are shown (user_namespaces(7)).
_NOBODY = 65534

_NOSUID_NODEV = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV


def copy_on_write_root(base: str, staging: str, layers: int, mounts: set[str], hidden: set[str]) -> int:
    """The descriptor of a root that shows ``base``, attached at ``staging``; what is written goes to ``layers``.

    ``mounts``: every mount point. ``hidden``: directories that stay empty, since the container has its own there.
    """
    target = _directory(staging)
    mount.attach(layers, target)
    os.close(target)
    parts = _Parts(staging, mounts, hidden)
    if parts.is_on_the_way(base):
        root = mount.new_filesystem(b"tmpfs", ((b"mode", b"755"),), _NOSUID_NODEV)
        parts.copy_directory(base, os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root), "")
    else:
        root = parts.overlay(base)
    target = _directory(staging)
    mount.attach(root, target)
    os.close(target)
    for path, part in parts.made:
        place = paths.open_in_root(root, os.fsencode(path))
        mount.attach(part, place)
        os.close(place)
        os.close(part)
    os.close(layers)
    return root


def _directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class _Parts:
    """The mounts of which the root consists: made before any is attached, since they name their layers by path."""

    def __init__(self, staging: str, mounts: set[str], hidden: set[str]) -> None:
        self.made: list[tuple[str, int]] = []
        self._staging = staging
        self._hidden = hidden
        self._number = 0
        self._ways = {parent for path in mounts for parent in _parents(path)}

    def is_on_the_way(self, path: str) -> bool:
        """Whether something is mounted below ``path``."""
        return path in self._ways

    def copy_directory(self, path: str, place: int, below: str) -> None:
        """Make in the directory ``place`` (which is closed) what is in ``path``; ``below``: its path in the root."""
        _copy_attributes(path, place)
        try:
            names = os.listdir(path)
        except PermissionError:
            names = []
        for name in names:
            try:
                self._copy_entry(f"{path.rstrip('/')}/{name}", name, place, f"{below}{name}")
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.EACCES):  # gone meanwhile, or not for this user
                    raise
        os.close(place)

    def _copy_entry(self, path: str, name: str, place: int, below: str) -> None:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(path), name, dir_fd=place)
        elif stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o755, dir_fd=place)
            if path in self._hidden:
                return
            if self.is_on_the_way(path):
                self.copy_directory(path, os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=place), f"{below}/")
            else:
                self.made.append((below, self.overlay(path)))
        elif stat.S_ISREG(status.st_mode):
            self._copy_file(path, name, place, below, status)

    def _copy_file(self, path: str, name: str, place: int, below: str, status: os.stat_result) -> None:
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
        try:
            if status.st_size <= _COPIED and os.access(path, os.R_OK):
                with open(path, "rb") as f:
                    os.write(new, f.read(_COPIED))
                os.fchmod(new, stat.S_IMODE(status.st_mode) & 0o777)
            else:
                self.made.append((below, _read_only(path)))
        finally:
            os.close(new)

    def overlay(self, path: str) -> int:
        """An overlay of ``path`` that is attached nowhere yet; where it cannot be made, ``path`` read-only."""
        lower = _directory(path)
        upper, work = f"{self._staging}/u{self._number}", f"{self._staging}/w{self._number}"
        self._number += 1
        os.mkdir(upper)
        os.mkdir(work)
        place = os.open(upper, os.O_RDONLY | os.O_CLOEXEC)
        _copy_attributes(path, place)
        os.close(place)
        options: tuple[tuple[bytes, bytes | None], ...] = (
            (b"lowerdir", b"/proc/self/fd/%d" % lower),  # a path could hold the layers' separator
            (b"upperdir", os.fsencode(upper)),
            (b"workdir", os.fsencode(work)),
            (b"userxattr", None),  # attributes of the kind trusted.* are the real root's alone
        )
        try:
            return mount.new_filesystem(b"overlay", options, mount.MOUNT_ATTR_NODEV)
        except OSError:
            if self._number == 1:
                raise
            return _read_only(path)
        finally:
            os.close(lower)


def _parents(path: str) -> list[str]:
    found = []
    while path != "/":
        path = os.path.dirname(path)
        found.append(path)
    return found


def _copy_attributes(path: str, place: int) -> None:
    """Mode and owner; what belongs to nobody in this namespace becomes its root's, who may then write there."""
    status = os.stat(path)
    if status.st_uid != _NOBODY and status.st_gid != _NOBODY:
        os.fchown(place, status.st_uid, status.st_gid)
    os.fchmod(place, stat.S_IMODE(status.st_mode))


def _read_only(path: str) -> int:
    tree = mount.clone_tree(mount.AT_FDCWD, os.fsencode(path))
    mount.set_attributes(tree, set_=mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV, recursive=True)
    return tree
