"""mount(2) and its kin, for what the mount API by descriptors cannot do; a target is still a descriptor.

A path ``/proc/self/fd/N`` is a magic link: it leads to what the descriptor is open on, whatever happened to its name.
"""

from __future__ import annotations

import os

from mydocker.linux.libc import c_char_p, c_int, c_uint, c_ulong, c_void_p, function, system_call

_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_RECONFIGURE = 7
_MNT_DETACH = 2

# mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

_mount = function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_void_p)
_umount2 = function("umount2", c_char_p, c_int)
_fspick = system_call(433, c_int, c_char_p, c_uint)
_fsconfig = system_call(431, c_int, c_uint, c_char_p, c_char_p, c_int)


def mount_on(target: int, source: bytes, fstype: bytes, flags: int, data: bytes) -> None:
    """Mount a new file system on what ``target`` is open on.

    The only way to give an option of more than 255 bytes: fsconfig(2) takes no longer ones, mount(2) takes a page.
    """
    _mount(source, b"/proc/self/fd/%d" % target, fstype, flags, data)


def reconfigure(mount: int, options: tuple[tuple[bytes, bytes | None], ...]) -> None:
    """Change options of the file system behind a descriptor of its mount, as ``mount -o remount`` does (fspick(2))."""
    context = _fspick(mount, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    try:
        for key, value in options:
            _fsconfig(context, _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING, key, value, 0)
        _fsconfig(context, _FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    finally:
        os.close(context)


def detach(path: bytes) -> None:
    """Take the topmost mount at ``path`` out of the tree, with all below; it lives on for who has it open."""
    _umount2(path, _MNT_DETACH)
