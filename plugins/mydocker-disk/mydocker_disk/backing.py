"""File systems of a given size that vanish by themselves: mounts that are attached nowhere.

On disk it is ext4 in a sparse file, behind a loop device. Nothing of it has a name or an owner that could be left
behind: the file is made without a name (O_TMPFILE, open(2)) and lives as long as the loop device holds it; the
device lets it go when the last mount is gone (LO_FLAGS_AUTOCLEAR, loop(4)); the mount goes with the last descriptor
and mount namespace. So a runtime that is killed, with -9 too, leaves nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from mydocker.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, new_filesystem

#: What ext4 can hold with blocks of 4 KiB, and room for its tables (Documentation/filesystems/ext4/blocks.rst).
MAXIMUM = 8 << 40

_BLOCK = 4096
_ATTRIBUTES = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID

# include/uapi/linux/loop.h
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
# include/uapi/linux/fs.h; ext4 has it since Linux 4.11.
_FS_IOC_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = struct.pack("=I", 2)

_LOOP_INFO64 = struct.Struct("=5Q4I64s64s32s2Q")
_LOOP_CONFIG = struct.Struct(f"=2I{_LOOP_INFO64.size}s64x")

# One inode for each block, so that small files never run out of inodes before they run out of room. No journal and
# no reserve: nobody mounts this again after a crash. Nothing is zeroed now or later: a sparse file reads as zeros.
_MKFS = (
    *("-q", "-F", "-b", str(_BLOCK), "-i", str(_BLOCK), "-m", "0"),
    *("-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"),
)
# No flush goes to the host's disk: what is written need not outlive the container.
_MOUNT_OPTIONS = ((b"noinit_itable", None), (b"nobarrier", None))


def image_directory() -> str:
    """The directory on whose disk the images are."""
    return os.environ.get("MYDOCKER_DISK_DIR") or "/var/tmp"


def image_problem() -> str:
    """Why no image can be made on this host, or empty."""
    directory = image_directory()
    if not os.path.isdir(directory):
        return f"{directory}, where the image is to be, is no directory: set MYDOCKER_DISK_DIR to one"
    if not os.access(directory, os.W_OK):
        return f"this user may not write to {directory}, where the image is to be: set MYDOCKER_DISK_DIR"
    if not _mkfs():
        return "mkfs.ext4 is not installed (package e2fsprogs)"
    if not os.path.exists("/dev/loop-control"):
        return "this host has no loop devices (/dev/loop-control)"
    if not os.access("/dev/loop-control", os.R_OK | os.W_OK):
        return "this user may not use loop devices (/dev/loop-control)"
    return ""


def mount_tmpfs(size: int) -> int:
    """A tmpfs that holds ``size`` bytes, in memory: descriptor of its mount. OSError."""
    return new_filesystem(b"tmpfs", ((b"mode", b"700"), (b"size", b"%d" % size)), _ATTRIBUTES)


def mount_image(size: int) -> int:
    """An ext4 with room for ``size`` bytes, in a file in `image_directory`: descriptor of its mount. OSError."""
    image = _unnamed_file(image_directory())
    try:
        os.ftruncate(image, _with_tables(size))
        _make_ext4(image)
        device, path = _attach_to_loop(image)
    finally:
        os.close(image)
    try:
        mounted = new_filesystem(b"ext4", _MOUNT_OPTIONS, _ATTRIBUTES, source=path)
    finally:
        os.close(device)
    try:
        _leave_room_for(size, mounted)
    except BaseException:
        os.close(mounted)
        raise
    return mounted


def discard(mounted: int) -> None:
    """Close the last descriptor of a file system that nobody needs any more.

    What was written and is not in the image yet need not go there: the kernel drops it, as at a power failure.
    """
    try:
        fcntl.ioctl(mounted, _FS_IOC_SHUTDOWN, _NOLOGFLUSH)
    except OSError:
        pass  # a tmpfs, or a kernel that does not know it: then it takes a moment longer
    os.close(mounted)


def _with_tables(size: int) -> int:
    """How large an ext4 has to be for ``size`` bytes to be free in it; a little more, never less.

    It has 256 bytes of inode for each block of 4096, bitmaps and copies of the superblock (some thousandths), and keeps
    back 2 % of its blocks, 16 MiB at most, for itself (fs/ext4/super.c, ext4_calculate_resv_clusters).
    """
    return (size + size // 15 + size // 500 + min(size // 45, 17 << 20) + (1 << 20)) // _BLOCK * _BLOCK


def _unnamed_file(directory: str) -> int:
    flags = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as e:
        if e.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
    path = f"{directory}/.mydocker-disk-{os.urandom(8).hex()}"  # a file system without O_TMPFILE, such as NFS
    image = os.open(path, flags | os.O_CREAT, 0o600)
    os.unlink(path)
    return image


def _mkfs() -> str:
    """The path of mkfs.ext4, or empty. A plain user's PATH is often without the directories of the system's tools."""
    for directory in [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]:
        path = f"{directory}/mkfs.ext4"
        if directory and os.access(path, os.X_OK):
            return path
    return ""


def _make_ext4(image: int) -> None:
    """Run mkfs.ext4 on the file; what it complains of becomes an OSError. Not by subprocess, whose import is slow."""
    complaints, theirs = os.pipe()
    try:
        with_name = os.dup(image)
        os.set_inheritable(with_name, True)
        try:
            pid = os.posix_spawn(
                _mkfs(),
                ["mkfs.ext4", *_MKFS, f"/proc/self/fd/{with_name}"],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs, 1),
                    (os.POSIX_SPAWN_DUP2, theirs, 2),
                ],
            )
        finally:
            os.close(with_name)
            os.close(theirs)
        said = b""
        while chunk := os.read(complaints, 4096):
            said += chunk
        try:
            failed = os.waitpid(pid, 0)[1] != 0
        except ChildProcessError:
            failed = False  # this program ignores SIGCHLD; a file system that is none does not mount
    finally:
        os.close(complaints)
    if failed:
        words = " ".join(said.decode(errors="replace").split())
        raise OSError(errno.EIO, f"mkfs.ext4 failed: {words or 'it says nothing'}")


def _attach_to_loop(image: int) -> tuple[int, bytes]:
    """Attach the file to a free loop device: descriptor of the device, its path. The last close of it undoes it."""
    info = _LOOP_INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, b"mydocker-disk", b"", b"", 0, 0)
    config = _LOOP_CONFIG.pack(image, _BLOCK, info)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(1000):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                return device, path.encode()
            except OSError as e:
                os.close(device)
                if e.errno != errno.EBUSY:  # another process was faster
                    raise OSError(e.errno, e.strerror, path) from None
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "other processes take every loop device first")


def _leave_room_for(size: int, mounted: int) -> None:
    """Fill the file system, which was made a little too large, until ``size`` bytes are free.

    The filling is beside the layers, where no container sees it, and takes no room on the host: ext4 notes that the
    blocks are taken and writes none (fallocate(2)).
    """
    wanted = size // _BLOCK
    filling = os.open("filling", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=mounted)
    try:
        free = os.fstatvfs(filling).f_bavail
        if free < wanted:
            raise OSError(errno.ENOSPC, f"ext4 leaves {free * _BLOCK} bytes free in an image for {size}")
        if free > wanted:
            os.posix_fallocate(filling, 0, (free - wanted) * _BLOCK)
    finally:
        os.close(filling)
