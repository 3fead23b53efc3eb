"""Pseudo-terminals of a devpts instance, by descriptor (ioctl_tty(2))."""

from __future__ import annotations

import fcntl
import os
import struct

_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430
_TIOCGPTPEER = 0x5441
_TIOCSCTTY = 0x540E
_TIOCGWINSZ = 0x5413
_TIOCSWINSZ = 0x5414


def open_pair(devpts: int) -> tuple[int, int, int]:
    """A new pseudo-terminal of the devpts mounted at the descriptor: (master, slave, number).

    The slave comes from the master by TIOCGPTPEER, not by a path that could lead elsewhere.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = os.open("ptmx", flags, dir_fd=devpts)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("=i", 0))
    (number,) = struct.unpack("=i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
    return master, fcntl.ioctl(master, _TIOCGPTPEER, flags), number


def make_controlling(slave: int) -> None:
    """Make the terminal the controlling one of this session, which must have none."""
    fcntl.ioctl(slave, _TIOCSCTTY, 0)


def copy_window_size(source: int, target: int) -> None:
    fcntl.ioctl(target, _TIOCSWINSZ, fcntl.ioctl(source, _TIOCGWINSZ, bytes(8)))


def set_window_size(terminal: int, height: int, width: int) -> None:
    """In characters. Each is 16 bits for the kernel."""
    fcntl.ioctl(terminal, _TIOCSWINSZ, struct.pack("=4H", min(height, 0xFFFF), min(width, 0xFFFF), 0, 0))
