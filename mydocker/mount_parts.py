"""What the file systems of a people's container and of an engine's have in common."""

from __future__ import annotations

import errno
import os
import stat

from mydocker.linux import mount, paths

SAFE = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC

# The devices that the OCI runtime spec asks for (config-linux.md, "Default Devices").
NODES = ((b"null", 1, 3), (b"zero", 1, 5), (b"full", 1, 7), (b"random", 1, 8), (b"urandom", 1, 9), (b"tty", 5, 0))
LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
    (b"ptmx", b"pts/ptmx"),
)


def unescape(path: bytes) -> bytes:
    """Undo the octal escapes of a path in mountinfo (proc(5)): blank, tab, newline, backslash."""
    for escape, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        path = path.replace(escape, byte)
    return path


def bind_console(root: int, devpts: int, number: int) -> None:
    """Show the command's terminal as /dev/console too, as the OCI runtime spec asks.

    What is bound is the peer by its number in the devpts that is open, and no link is followed to where it goes: both
    could be exchanged for something of the host (CVE-2025-52565).
    """
    slave = mount.clone_tree(devpts, b"%d" % number, recursive=False)
    target = paths.make_file_in_root(root, b"dev/console", 0o600, links=False)
    mount.attach(slave, target)
    os.close(target)
    os.close(slave)


def open_null_device() -> int:
    """The host's null device, with O_PATH: a cover that is not it would show something instead (CVE-2025-31133)."""
    null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not is_null_device(os.fstat(null)):
        raise OSError(errno.EINVAL, "/dev/null is not the null device")
    return null


class Covers:
    """What paths are hidden with: the host's null device over files, an empty read-only directory over directories."""

    def __init__(self) -> None:
        self._null = open_null_device()
        self._empty = -1

    def hide(self, target: int) -> None:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            cover = mount.clone_tree(self._null, recursive=False)
            mount.attach(cover, target)
            os.close(cover)
        elif self._empty < 0:
            self._empty = mount.new_filesystem(b"tmpfs", (), SAFE | mount.MOUNT_ATTR_RDONLY)
            mount.attach(self._empty, target)
        else:  # one file system for all: each costs the kernel something to make, and more to take down
            cover = mount.clone_tree(self._empty, recursive=False)
            mount.attach(cover, target)
            os.close(cover)

    def close(self) -> None:
        os.close(self._null)
        if self._empty >= 0:
            os.close(self._empty)


def is_null_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def make_read_only(target: int) -> None:
    """Bind what the descriptor is open on, with all that is mounted below, over itself, read-only."""
    cover = mount.clone_tree(target)
    mount.set_attributes(cover, set_=mount.MOUNT_ATTR_RDONLY, recursive=True)
    mount.attach(cover, target)
    os.close(cover)
