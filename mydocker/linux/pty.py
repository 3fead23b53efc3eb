"""Pseudo-terminals of a devpts instance, by descriptor (ioctl_tty(2))."""

from __future__ import annotations

import fcntl
import os
import struct

_TCGETS = 0x5401
_TCSETS = 0x5402
#: struct termios of the kernel (include/uapi/asm-generic/termbits.h): 4 words of flags, the discipline, 19 characters.
_TERMIOS_SIZE = 36
_OPOST, _ONLCR = 0o1, 0o4
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


def keep_newlines(terminal: int) -> None:
    """Let a newline of the terminal's output come as it was written, and not as CR and newline (termios(3), ONLCR)."""
    _change_output(terminal, off=_ONLCR)


def make_lines(terminal: int) -> None:
    """Let each newline begin a line on a terminal that is in raw mode otherwise."""
    _change_output(terminal, on=_OPOST | _ONLCR)


def _change_output(terminal: int, *, on: int = 0, off: int = 0) -> None:
    settings = bytearray(fcntl.ioctl(terminal, _TCGETS, bytes(_TERMIOS_SIZE)))
    _, output_flags = struct.unpack_from("=2I", settings)
    struct.pack_into("=I", settings, 4, (output_flags | on) & ~off)
    fcntl.ioctl(terminal, _TCSETS, bytes(settings))


def copy_window_size(source: int, target: int) -> None:
    fcntl.ioctl(target, _TIOCSWINSZ, fcntl.ioctl(source, _TIOCGWINSZ, bytes(8)))


def set_window_size(terminal: int, height: int, width: int) -> None:
    """In characters. Each is 16 bits for the kernel."""
    fcntl.ioctl(terminal, _TIOCSWINSZ, struct.pack("=4H", min(height, 0xFFFF), min(width, 0xFFFF), 0, 0))
