"""A signal to the process behind a pidfd, without libc: the interpreter's own built-in module has the system call."""

from __future__ import annotations

SIGKILL = 9


def send_signal(pidfd: int, number: int) -> None:
    """Signal the process behind a pidfd, and never another that got its PID. ProcessLookupError if it is gone."""
    try:
        from _signal import pidfd_send_signal  # type: ignore[import-not-found]
    except ImportError:  # an interpreter that was built for a kernel before 5.1
        from mydocker.linux.libc import c_int, c_uint, c_void_p, system_call

        system_call(424, c_int, c_int, c_void_p, c_uint)(pidfd, number, None, 0)
        return
    pidfd_send_signal(pidfd, number)
