"""Limits of one process by number (prlimit(2)), as unsigned numbers: `INFINITY` is none."""

from __future__ import annotations

import struct

from mydocker.linux.libc import c_char_p, c_int, create_string_buffer, function

INFINITY = (1 << 64) - 1

_LIMITS = struct.Struct("=QQ")
_prlimit = function("prlimit64", c_int, c_int, c_char_p, c_char_p)


def prlimit(pid: int, number: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
    """Set the (soft, hard) limit, if one is given, of the process, 0 for the caller; what it was."""
    old = create_string_buffer(_LIMITS.size)
    _prlimit(pid, number, _LIMITS.pack(*limits) if limits is not None else None, old)
    soft, hard = _LIMITS.unpack(old.raw)
    return int(soft), int(hard)
