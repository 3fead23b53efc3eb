"""The one network device that every network namespace has."""

from __future__ import annotations

import fcntl
import os
import struct

from mydocker.linux.libc import c_int, function

_AF_INET, _SOCK_DGRAM, _SOCK_CLOEXEC = 2, 2, 0o2000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_socket = function("socket", c_int, c_int, c_int)


def loopback_up() -> None:
    """Bring ``lo`` up in this network namespace (netdevice(7)). ``import socket`` would cost 5 ms."""
    fd = _socket(_AF_INET, _SOCK_DGRAM | _SOCK_CLOEXEC, 0)
    try:
        fcntl.ioctl(fd, _SIOCSIFFLAGS, struct.pack("=16sH22x", b"lo", _IFF_UP))
    finally:
        os.close(fd)
