"""The one network device that every network namespace has."""

from __future__ import annotations

import fcntl
import os
import struct

from mydocker.linux.libc import architecture_number, c_int, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.linux.mount import MountBatch

_AF_INET, _SOCK_DGRAM, _SOCK_CLOEXEC = 2, 2, 0o2000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_SOCKET, _IOCTL = (architecture_number(*numbers) for numbers in ((41, 198), (16, 29)))
#: struct ifreq
_UP = struct.pack("=16sH22x", b"lo", _IFF_UP)

_socket = function("socket", c_int, c_int, c_int)


def loopback_up() -> None:
    """Bring ``lo`` up in this network namespace (netdevice(7)). ``import socket`` would cost 5 ms."""
    fd = _socket(_AF_INET, _SOCK_DGRAM | _SOCK_CLOEXEC, 0)
    try:
        fcntl.ioctl(fd, _SIOCSIFFLAGS, _UP)
    finally:
        os.close(fd)


def add_loopback_up(batch: MountBatch, name: str) -> None:
    """`loopback_up` as a part of ``batch``."""
    fd = batch.slot()
    batch.call(_SOCKET, _AF_INET, _SOCK_DGRAM | _SOCK_CLOEXEC, 0, to=fd, name=name)
    batch.call(_IOCTL, fd, _SIOCSIFFLAGS, _UP)
    batch.close(fd)
