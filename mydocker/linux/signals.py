"""Signals by mask and descriptor. Plain numbers: ``import signal`` builds enumerations, at 3.5 ms."""

from __future__ import annotations

import errno
import os
import struct
from _signal import (  # type: ignore[import-not-found]  # the C part of signal, at no cost
    pthread_sigmask,
    strsignal,
    valid_signals,
)

from mydocker.linux.libc import (
    architecture_number,
    c_char_p,
    c_int,
    c_size_t,
    c_void_p,
    function,
    system_call,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mydocker.linux.batch import Batch

SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGUSR1, SIGUSR2, SIGPIPE, SIGTERM = 1, 2, 3, 9, 10, 12, 13, 15
SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH = 17, 18, 19, 20, 21, 22, 28

_SIG_BLOCK, _SIG_SETMASK = 0, 2
_SFD_NONBLOCK, _SFD_CLOEXEC = 0o4000, 0o2000000
_SIGINFO_SIZE = 128

#: RWF_NOSIGNAL (pwritev2(2), linux/fs.h), Linux 6.18, as long as the kernel is not against it.
_no_signal = [0x100] if hasattr(os, "RWF_DSYNC") else []

_signalfd = function("signalfd", c_int, c_char_p, c_int)
_signal = function("signal", c_int, c_void_p)
_sigtimedwait = function("sigtimedwait", c_char_p, c_void_p, c_char_p)
_RT_SIGACTION = architecture_number(13, 134)
_rt_sigaction = system_call(_RT_SIGACTION, c_int, c_char_p, c_void_p, c_size_t)
_DEFAULT = bytes(32)  # struct sigaction of the kernel: all zero is SIG_DFL
#: Bytes of the kernel's own sigset_t.
SIGSET_SIZE = 8


def name_of(number: int) -> str:
    """In small words, as Go's programs say it: ``bad system call``."""
    return (strsignal(number) or "unknown").lower()


def _sigset(signals: Iterable[int]) -> bytes:
    """A sigset_t of glibc: 1024 bits, signal n at bit n - 1."""
    mask = 0
    for number in signals:
        mask |= 1 << (number - 1)
    return mask.to_bytes(128, "little")


_ALL: frozenset[int] = frozenset(valid_signals())  # but for libc's own


def block(signals: Iterable[int] | None = None) -> set[int]:
    """Block these signals, or all, in this thread; return the mask that was, for `restore`."""
    old: set[int] = pthread_sigmask(_SIG_BLOCK, _ALL if signals is None else _ALL.intersection(signals))
    return old


def current_mask() -> set[int]:
    """This thread's mask. Taken before a ``try`` that restores it: an interrupt may come out of `block` itself."""
    mask: set[int] = pthread_sigmask(_SIG_BLOCK, ())
    return mask


def restore(mask: Iterable[int]) -> None:
    pthread_sigmask(_SIG_SETMASK, _ALL.intersection(mask))


def write_without_sigpipe(pipe: int, data: bytes | memoryview) -> int:
    """write(2), of which no SIGPIPE comes: BrokenPipeError if nobody reads there any more."""
    for flag in tuple(_no_signal):
        try:
            return os.pwritev(pipe, [data], -1, flag)
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM):  # or a seccomp filter's
                raise
            _no_signal.clear()
    mask = current_mask()
    try:
        block((SIGPIPE,))
        return os.write(pipe, data)
    except BrokenPipeError:
        discard(SIGPIPE)
        raise
    finally:
        restore(mask)


def unblock_all() -> None:
    pthread_sigmask(_SIG_SETMASK, ())


def default_all() -> None:
    """Set every disposition to the default: what is ignored stays so over exec (signal(7)); Python ignores PIPE."""
    for number in range(1, 65):
        if number not in (SIGKILL, SIGSTOP, 32, 33):
            _signal(number, None)
    default_of_libc()


def default_of_libc() -> None:
    """The default for libc's own two, which it refuses to touch, as posix_spawn(3) leaves them ignored."""
    for number in (32, 33):
        _rt_sigaction(number, _DEFAULT, None, SIGSET_SIZE)


def add_default_all(calls: Batch) -> None:
    """The calls of `default_all`."""
    for number in range(1, 65):
        if number not in (SIGKILL, SIGSTOP):
            calls.call(_RT_SIGACTION, number, _DEFAULT, None, SIGSET_SIZE)


def default(number: int) -> None:
    _signal(number, None)


def ignore(number: int) -> None:
    _signal(number, 1)


def signalfd(signals: Iterable[int]) -> int:
    """A descriptor, non-blocking and close-on-exec, that reads these signals; they must be blocked."""
    return _signalfd(-1, _sigset(signals), _SFD_NONBLOCK | _SFD_CLOEXEC)


def parse_siginfo(data: bytes) -> list[int]:
    """The signal numbers in what was read from a signalfd (struct signalfd_siginfo, 128 bytes each)."""
    return [struct.unpack_from("=I", data, at)[0] for at in range(0, len(data), _SIGINFO_SIZE)]


def wait_for(signals: Iterable[int]) -> int:
    """sigwaitinfo(2) on blocked signals: the number of the one that came."""
    mask = _sigset(signals)
    while True:
        try:
            return _sigtimedwait(mask, None, None)
        except InterruptedError:
            continue


def discard(number: int) -> None:
    """Take a blocked signal out of the pending ones, if it is there."""
    try:
        _sigtimedwait(_sigset((number,)), None, bytes(16))
    except BlockingIOError:
        pass
