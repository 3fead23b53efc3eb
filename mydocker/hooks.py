"""Calling the hooks of plugins in a thread with a deadline: a plugin that hangs is an error, not a hang.

A thread, because nothing else interrupts code that waits in a system call or swallows exceptions, and because what
a hook does to its thread (a namespace, a signal mask) ends with it. One thread serves one phase of a run, all
plugins in turn; to start one for each hook would cost a run a millisecond. It has left the process when
`supervised` returns, unless it hangs: a process with one thread is cloned faster.
"""

from __future__ import annotations

import _thread
import os
import time

from mydocker.errors import PluginError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

TIMEOUT_VARIABLE = "MYDOCKER_PLUGIN_TIMEOUT"
DEFAULT_TIMEOUT = 10.0


def timeout() -> float:
    """Seconds that each hook may take, from the environment. `UsageError` if that is no number above 0."""
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    if not text:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 1e6:
        raise UsageError(f'{TIMEOUT_VARIABLE}: "{text}" is not a number of seconds: write one above 0, as in 10')
    return seconds


class _Abandoned(BaseException):
    """Ends a phase whose caller waits for it no more."""


class Phase:
    """What the thread says of its progress: which hook it is in, and until when that must return."""

    __slots__ = ("abandoned", "seconds", "until", "what", "whenever_abandoned")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.what = ""
        self.until = time.monotonic() + seconds
        self.abandoned = False
        self.whenever_abandoned: Callable[[], object] | None = None

    def begin(self, what: str, whenever_abandoned: Callable[[], object] | None = None) -> None:
        """The next hook is called now. ``what``, such as "plugin x was called in y", begins the error if it hangs."""
        if self.abandoned:
            raise _Abandoned
        self.what = what
        self.whenever_abandoned = whenever_abandoned
        self.until = time.monotonic() + self.seconds

    def abandon(self) -> None:
        self.abandoned = True
        if self.whenever_abandoned is not None:
            self.whenever_abandoned()


def supervised(work: Callable[[Phase], T], seconds: float | None = None) -> T:
    """Do ``work`` in a thread, and return what it returns or raise what it raises.

    ``work`` calls `Phase.begin` before each hook. `PluginError` if one takes longer than ``seconds`` (by default
    `timeout`). An interrupt (KeyboardInterrupt) passes on when the hook at work has returned, or its time is over.
    """
    phase = Phase(timeout() if seconds is None else seconds)
    outcome: list[tuple[bool, T | BaseException]] = []
    thread: list[int] = []
    done = _thread.allocate_lock()
    done.acquire()

    def body() -> None:
        try:
            thread.append(_thread.get_native_id())
            outcome.append((True, work(phase)))
        except BaseException as error:  # raised again in the caller's thread
            outcome.append((False, error))
        finally:
            done.release()

    _thread.start_new_thread(body, ())
    try:
        _await(phase, done)
    except BaseException:
        phase.abandoned = True  # no further hook begins
        if not done.acquire(timeout=max(0.0, phase.until - time.monotonic())):
            phase.abandon()
        raise
    _await_end(thread[0])
    worked, result = outcome[0]
    if not worked:
        assert isinstance(result, BaseException)
        try:
            raise result
        finally:
            del outcome, result  # the traceback would hold them, and they it
    return result  # type: ignore[return-value]


def _await(phase: Phase, done: _thread.LockType) -> None:
    while not done.acquire(timeout=min(max(0.0, phase.until - time.monotonic()), _thread.TIMEOUT_MAX)):
        if time.monotonic() >= phase.until:
            phase.abandon()
            raise PluginError(f"{phase.what} and did not return in {phase.seconds:g} seconds")


def _await_end(native_id: int) -> None:
    """Until the kernel has forgotten the thread, which has nothing left to do; not for long, whatever happens."""
    path = f"/proc/self/task/{native_id}"
    for _ in range(2000):
        if not os.path.exists(path):
            return
        os.sched_yield()
