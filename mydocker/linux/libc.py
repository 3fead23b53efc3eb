"""The one handle on libc, and how its functions and bare system calls are bound.

By ``_ctypes``, the half of ctypes that is written in C: the other half makes some fifty classes that nothing here
needs, and takes a fifth of the interpreter's own start. The few types that are needed are made here.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from ctypes import addressof as addressof
    from ctypes import c_char as c_char
    from ctypes import c_char_p as c_char_p
    from ctypes import c_int as c_int
    from ctypes import c_long as c_long
    from ctypes import c_size_t as c_size_t
    from ctypes import c_uint as c_uint
    from ctypes import c_uint64 as c_uint64
    from ctypes import c_ulong as c_ulong
    from ctypes import c_void_p as c_void_p
    from ctypes import create_string_buffer as create_string_buffer
    from ctypes import get_errno as get_errno
    from typing import Any

    def foreign(where: str | int, restype: Any, *argtypes: Any) -> Any: ...
    def variable(name: str) -> int | None: ...

else:
    import _ctypes
    from _ctypes import addressof as addressof
    from _ctypes import get_errno as get_errno

    def _simple(name: str, code: str) -> Any:
        """One of the types of ctypes, by the letter that `struct` has for it."""
        return type(_ctypes._SimpleCData)(name, (_ctypes._SimpleCData,), {"_type_": code, "__module__": __name__})

    c_int = _simple("c_int", "i")
    c_uint = _simple("c_uint", "I")
    c_long = _simple("c_long", "l")
    c_ulong = c_size_t = _simple("c_ulong", "L")
    c_uint64 = _simple("c_uint64", "Q")
    c_char = _simple("c_char", "c")
    c_char_p = _simple("c_char_p", "z")
    c_void_p = _simple("c_void_p", "P")

    def create_string_buffer(init: bytes | int, size: int | None = None) -> Any:
        """So many bytes of memory, or ``init`` in ``size`` bytes, by default with a NUL behind it."""
        if isinstance(init, int):
            return (c_char * init)()
        buffer = (c_char * (len(init) + 1 if size is None else size))()
        buffer.value = init
        return buffer

    class _Libc:
        """What `_ctypes` takes for a library: its handle is of this process and all that it has loaded."""

        _handle = _ctypes.dlopen(None, 0)

    class _Function(_ctypes.CFuncPtr):
        """As ``ctypes.PyDLL(None, use_errno=True)`` has them: the interpreter keeps its lock, and errno is put by."""

        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = c_int

    def foreign(where: str | int, restype: Any, *argtypes: Any) -> Any:
        """The function of libc by that name, or the one at that address, with a result that nobody looks at."""
        found = _Function((where, _Libc) if isinstance(where, str) else where)
        found.argtypes = argtypes
        found.restype = restype
        return found


    def variable(name: str) -> int | None:
        """The long of libc by that name; None if it has none."""
        try:
            return c_long.in_dll(_Libc, name).value
        except ValueError:
            return None


#: Instead of a descriptor: the working directory (openat(2)).
AT_FDCWD = -100

#: (to, from, size): memmove(3).
memmove = foreign("memmove", c_void_p, c_void_p, c_char_p, c_size_t)


def raise_errno(where: object = None) -> None:
    number = get_errno()
    raise OSError(number, os.strerror(number), *(() if where is None else (where,)))


def function(name: str, *argtypes: Any) -> Callable[..., int]:
    """A function of libc that returns -1 and sets errno on failure."""
    bound = foreign(name, c_int, *argtypes)

    def call(*args: Any) -> int:
        result: int = bound(*args)
        if result == -1:
            raise_errno()
        return result

    return call


def system_call(number: int, *argtypes: Any) -> Callable[..., int]:
    """A system call by its number, for those that libc has no function for."""
    bound = foreign("syscall", c_long, c_long, *argtypes)

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
