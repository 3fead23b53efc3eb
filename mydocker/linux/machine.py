"""Functions of machine code: for what must be done without the interpreter, or far faster than by it."""

from __future__ import annotations

import errno
import os

from mydocker.linux.libc import c_int, c_long, c_size_t, c_void_p, foreign, function, memmove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PAGE = 4096

_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_NORESERVE, _MAP_POPULATE = 0x02, 0x20, 0x4000, 0x8000
_MADV_NOHUGEPAGE = 15

_mmap = foreign("mmap", c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_mprotect = function("mprotect", c_void_p, c_size_t, c_int)
_munmap = function("munmap", c_void_p, c_size_t)
_madvise = foreign("madvise", c_int, c_void_p, c_size_t, c_int)  # EINVAL in a kernel without huge pages


class Code:
    """Machine code in a page of its own, which can be executed and no longer written.

    OSError (EACCES, EPERM) where a security module or prctl(2), PR_SET_MDWE, does not let memory become executable.
    """

    def __init__(self, code: bytes) -> None:
        self._page = new_memory(PAGE)
        try:
            memmove(self._page, code, len(code))
            _mprotect(self._page, PAGE, _PROT_READ | _PROT_EXEC)
        except OSError:
            self.close()
            raise

    def function(self, *argtypes: Any) -> Callable[..., int]:
        """The code as a function of the C calling convention that gives a long."""
        found: Callable[..., int] = foreign(self._page, c_long, *argtypes)
        return found

    def close(self) -> None:
        _munmap(self._page, PAGE)


def new_memory(size: int, *, later: bool = False) -> int:
    """The address of ``size`` bytes of memory, which are there already, or ``later``: small pages when they are
    touched. OSError (ENOMEM).
    """
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS | (_MAP_NORESERVE if later else _MAP_POPULATE)
    address = _mmap(None, size, _PROT_READ | _PROT_WRITE, flags, -1, 0)
    if address is None or address == c_void_p(-1).value:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if later:
        _madvise(address, size, _MADV_NOHUGEPAGE)
    return int(address)
