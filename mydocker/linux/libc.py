"""The one handle on libc, and how its functions and bare system calls are bound."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_libc = ctypes.PyDLL(None, use_errno=True)

c_int = ctypes.c_int
c_uint = ctypes.c_uint
c_long = ctypes.c_long
c_ulong = ctypes.c_ulong
c_size_t = ctypes.c_size_t
c_char_p = ctypes.c_char_p
c_void_p = ctypes.c_void_p


def raise_errno(where: object = None) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), *(() if where is None else (where,)))


def function(name: str, *argtypes: Any) -> Callable[..., int]:
    """A function of libc that returns -1 and sets errno on failure."""
    bound = _libc[name]
    bound.argtypes = argtypes
    bound.restype = c_int

    def call(*args: Any) -> int:
        result: int = bound(*args)
        if result == -1:
            raise_errno()
        return result

    return call


def system_call(number: int, *argtypes: Any) -> Callable[..., int]:
    """A system call by its number, for those that libc has no function for."""
    bound = _libc["syscall"]
    bound.argtypes = (c_long, *argtypes)
    bound.restype = c_long

    def call(*args: Any) -> int:
        result: int = bound(number, *args)
        if result == -1:
            raise_errno()
        return result

    return call


def architecture_number(x86_64: int, generic: int) -> int:
    """The number of one of the older system calls, which differs by architecture.

    Those from 424 up are the same everywhere; below, arm64 and riscv64 share the generic table
    (include/uapi/asm-generic/unistd.h).
    """
    return x86_64 if os.uname().machine == "x86_64" else generic
