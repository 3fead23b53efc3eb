"""Functions of machine code: for what must be done without the interpreter, or far faster than by it."""

from __future__ import annotations

import errno
import os

from mydocker.linux.libc import (
    addressof,
    c_char,
    c_int,
    c_long,
    c_size_t,
    c_void_p,
    foreign,
    function,
    get_errno,
    memmove,
    system_call,
    variable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

PAGE = 4096

_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_NORESERVE, _MAP_POPULATE = 0x02, 0x20, 0x4000, 0x8000
_MAP_FIXED_NOREPLACE = 0x100000
_MADV_DONTFORK, _MADV_DOFORK, _MADV_NOHUGEPAGE = 10, 11, 15

#: The user's part of the address space (Documentation/arch/x86/x86_64/mm.rst); below are pages that nobody may map.
_LOWEST, _HIGHEST = 1 << 16, (1 << 47) - PAGE
#: The kernel maps nothing so near below the stack (mmap_base, arch/x86/mm/mmap.c: 128 MiB).
_STACK = 100 << 20
_AROUND_THREAD = 4 * PAGE
_ARCH_GET_FS, _ARCH_SHSTK_STATUS = 0x1003, 0x5005
_ARCH_SHSTK_SHSTK = 1

_mmap = foreign("mmap", c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_mprotect = function("mprotect", c_void_p, c_size_t, c_int)
_munmap = function("munmap", c_void_p, c_size_t)
_arch_prctl = system_call(158, c_int, c_void_p)
_madvise = foreign("madvise", c_int, c_void_p, c_size_t, c_int)  # EINVAL in a kernel without huge pages


class Code:
    """Machine code in a page of its own, which can be executed and no longer written.

    OSError (EACCES, EPERM) where a security module or prctl(2), PR_SET_MDWE, does not let memory become executable.
    """

    def __init__(self, code: bytes) -> None:
        self._page = new_memory(PAGE)
        try:
            put(self._page, code)
            _mprotect(self._page, PAGE, _PROT_READ | _PROT_EXEC)
        except OSError:
            self.close()
            raise

    @property
    def address(self) -> int:
        return self._page

    def function(self, *argtypes: Any, at: int = 0) -> Callable[..., int]:
        """The code, from this byte on, as a function of the C calling convention that gives a long."""
        found: Callable[..., int] = foreign(self._page + at, c_long, *argtypes)
        return found

    def close(self) -> None:
        give_back(self._page, PAGE)


def new_memory(size: int, *, later: bool = False, at: int | None = None) -> int:
    """The address of ``size`` bytes of memory, which are there already, or ``later``: small pages when they are
    touched. OSError: ENOMEM, or EEXIST if the memory is to be ``at`` an address where something is.
    """
    flags = _MAP_PRIVATE | _MAP_ANONYMOUS | (_MAP_NORESERVE if later else _MAP_POPULATE)
    flags |= _MAP_FIXED_NOREPLACE if at is not None else 0
    address = _mmap(at, size, _PROT_READ | _PROT_WRITE, flags, -1, 0)
    if address is None or address == c_void_p(-1).value:
        raise OSError(get_errno(), os.strerror(get_errno()))
    if at not in (None, address):  # a kernel before Linux 4.17 puts it elsewhere
        give_back(address, size)
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    if later:
        _madvise(address, size, _MADV_NOHUGEPAGE)
    return int(address)


def put(address: int, data: bytes) -> None:
    """Write to memory of `new_memory`."""
    memmove(address, data, len(data))


def content(address: int, size: int) -> bytes:
    """What is there."""
    found: bytes = (c_char * size).from_address(address).raw
    return found


def give_back(address: int, size: int) -> None:
    """The reverse of `new_memory`."""
    _munmap(address, size)


def has_shadow_stack() -> bool:
    """Whether returns are checked against a second stack, in pages of its own (Documentation/arch/x86/shstk.rst).

    x86-64 only.
    """
    features = c_size_t(0)
    try:
        _arch_prctl(_ARCH_SHSTK_STATUS, addressof(features))
    except OSError:
        return False  # a kernel that knows of none
    return bool(features.value & _ARCH_SHSTK_SHSTK)


def needed_by_kernel() -> list[tuple[int, int]]:
    """Where, by begin and end, is what the kernel itself writes to for the one thread of this process: the stack,
    with room to grow, and what is around the thread pointer, where libc has registered its rseq(2). And where is what
    the kernel has put there, such as its vDSO: that a child once lacks it cannot be undone. x86-64 only.
    """
    pointer = c_size_t(0)
    _arch_prctl(_ARCH_GET_FS, addressof(pointer))
    pages = [(pointer.value + offset) & -PAGE for offset in (0, variable("__rseq_offset") or 0)]
    found = [(page - _AROUND_THREAD, page + _AROUND_THREAD) for page in pages]
    with open("/proc/self/maps", "rb") as f:
        for line in f.read().splitlines():
            if not line.endswith(b"]") or line.endswith((b"[heap]", b"[vsyscall]")) or b"[anon:" in line:
                continue
            begin, end = (int(text, 16) for text in line.partition(b" ")[0].split(b"-"))
            found.append((end - _STACK, end) if line.endswith(b"[stack]") else (begin, end))
    return found


def gaps(kept: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Begin and size of all that a process can have mapped but for these ranges."""
    found = []
    at = _LOWEST
    for begin, end in sorted(kept):
        if begin > at:
            found.append((at, begin - at))
        at = max(at, end)
    found.append((at, _HIGHEST - at))
    return found


class ForkedMemory:
    """Which of this process's memory a child gets that is cloned from it (madvise(2), MADV_DONTFORK): to copy the
    tables of what a child has no use for, and then each of their pages on which this process writes, takes longer than
    all that the child does.
    """

    def __init__(self) -> None:
        self._left_out: list[tuple[int, int]] = []
        self._kept: object = None

    def keep_only(self, kept: list[tuple[int, int]]) -> None:
        """What is in these ranges, by begin and end, and what is mapped from now on. `needed_by_kernel` is owed."""
        if self._kept is not kept:
            self.keep_all()
            self._left_out = gaps(kept)
            for begin, size in self._left_out:
                _madvise(begin, size, _MADV_DONTFORK)  # ENOMEM: not all of it is mapped
            self._kept = kept

    def keep_all(self) -> None:
        """As it is in every process at first."""
        self._kept = None
        while self._left_out:
            _madvise(*self._left_out.pop(), _MADV_DOFORK)
