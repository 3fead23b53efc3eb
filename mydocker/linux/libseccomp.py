"""libseccomp: the names and numbers of system calls by architecture, and rules made into a BPF program.

It is loaded by the first call, which few runs make. Functions raise `Missing` where there is no libseccomp, and OSError
with its errno for what it refuses (seccomp_rule_add(3) and the other pages of libseccomp).
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

LIBRARY = "libseccomp.so.2"

#: What `resolve` returns for a name that is unknown (__NR_SCMP_ERROR).
UNKNOWN = -1

_ATTRIBUTE_NO_NEW_PRIVS = 3  # enum scmp_filter_attr
_ATTRIBUTE_OPTIMIZE = 8  # since 2.5
_BINARY_TREE = 2


class Missing(Exception):
    """There is no libseccomp on this host, or none that can be loaded."""


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: ``op`` of the argument with number ``arg`` and one or two values."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


def _load() -> Any:
    library = _loaded.get(LIBRARY)
    if library is None:
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as e:
            raise Missing(str(e)) from None
        u32, pointer, number, name = ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        for function, result, arguments in (
            ("seccomp_version", ctypes.POINTER(_Version), ()),
            ("seccomp_init", pointer, (u32,)),
            ("seccomp_release", None, (pointer,)),
            ("seccomp_arch_native", u32, ()),
            ("seccomp_arch_resolve_name", u32, (name,)),
            ("seccomp_arch_add", number, (pointer, u32)),
            ("seccomp_attr_set", number, (pointer, number, u32)),
            ("seccomp_syscall_resolve_name", number, (name,)),
            ("seccomp_syscall_resolve_name_arch", number, (u32, name)),
            ("seccomp_rule_add_array", number, (pointer, u32, number, ctypes.c_uint, ctypes.POINTER(Comparison))),
            ("seccomp_export_bpf", number, (pointer, number)),
        ):
            bound = library[function]
            bound.restype, bound.argtypes = result, arguments
            setattr(library, function, bound)
        _loaded[LIBRARY] = library
    return library


_loaded: dict[str, Any] = {}


def version() -> tuple[int, int, int]:
    found = _load().seccomp_version().contents
    return found.major, found.minor, found.micro


def path() -> str:
    """The file that was loaded, by the name under which another version would stand there."""
    _load()
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            file = os.fsdecode(line.split(None, 5)[-1].strip())
            if "/libseccomp.so" in file:
                named = f"{os.path.dirname(file)}/{LIBRARY}"
                return named if os.path.exists(named) else file
    raise Missing(f"{LIBRARY} is loaded from nowhere")


def native_architecture() -> int:
    """The token of this machine's architecture (``SCMP_ARCH_*``)."""
    return int(_load().seccomp_arch_native())


def architecture(name: str) -> int:
    """The token of ``x86_64``, ``aarch64`` and so on; 0 for one that this libseccomp does not know."""
    return int(_load().seccomp_arch_resolve_name(name.encode()))


def resolve(name: str, architecture: int | None = None) -> int:
    """The number of a system call, here or on another architecture: `UNKNOWN`, or below that where it lacks one."""
    library, encoded = _load(), name.encode(errors="surrogateescape")
    if architecture is None:
        return int(library.seccomp_syscall_resolve_name(encoded))
    return int(library.seccomp_syscall_resolve_name_arch(architecture, encoded))


class Rules:
    """A filter in the making (scmp_filter_ctx). For a ``with`` statement."""

    def __init__(self, default: int) -> None:
        self._library = _load()
        self._context = self._library.seccomp_init(default)
        if not self._context:
            raise OSError(errno.EINVAL, "libseccomp does not take this default action")
        # The caller sets no_new_privs where it wants that; exporting needs none.
        self._check(self._library.seccomp_attr_set(self._context, _ATTRIBUTE_NO_NEW_PRIVS, 0))

    def __enter__(self) -> Rules:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._library.seccomp_release(self._context)

    def add_architecture(self, token: int) -> None:
        """Filter the calls of this architecture too. The native one is there from the start."""
        result = self._library.seccomp_arch_add(self._context, token)
        if result != -errno.EEXIST:
            self._check(result)

    def use_binary_tree(self) -> None:
        """Have the kernel look a number up in some ten comparisons. libseccomp before 2.5 cannot: then in a row."""
        self._library.seccomp_attr_set(self._context, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE)

    def add(self, action: int, number: int, comparisons: Iterable[Comparison] = ()) -> None:
        """One rule; it applies where all comparisons hold."""
        several = tuple(comparisons)
        array = (Comparison * len(several))(*several)
        self._check(self._library.seccomp_rule_add_array(self._context, action, number, len(several), array))

    def export(self) -> bytes:
        """The BPF program, in this machine's byte order."""
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            self._check(self._library.seccomp_export_bpf(self._context, fd))
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            raise OSError(-result, os.strerror(-result))
