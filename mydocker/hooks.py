"""Calling the hooks of plugins in a thread with a deadline: a plugin that hangs is an error, not a hang.

A thread, because nothing else interrupts code that waits in a system call or swallows exceptions, and because what
a hook does to its thread (a namespace, a signal mask) ends with it. One thread serves one phase of a run, all
plugins in turn; to start one for each hook would cost a run a millisecond. It has left the process when
`supervised` returns, unless it hangs: a process with one thread is cloned faster. A run calls mydocker's own plugins
without one (`mydocker.limits`). What such threads do, and how they are kept, is in `mydocker.crew`.
"""

from __future__ import annotations

import _thread
import os
import time

from mydocker.errors import UsageError

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


def end_if_forked(process: int) -> None:
    """End this process if it is not ``process``: a hook has forked and returned in its child too, which would set
    limits a second time, or watch beside its parent and fork again at each look.
    """
    if os.getpid() != process:
        os._exit(1)


class _Abandoned(BaseException):
    """Ends a phase whose caller waits for it no more."""


class Phase:
    """What the thread says of its progress: which hook it is in, and until when that must return."""

    __slots__ = ("_process", "_what", "abandoned", "seconds", "until", "whenever_abandoned")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._what: str | Callable[[], str] = ""
        self.until = time.monotonic() + seconds
        self.abandoned = False
        self.whenever_abandoned: Callable[[], object] | None = None
        self._process = os.getpid()

    def begin(
        self, what: str | Callable[[], str], whenever_abandoned: Callable[[], object] | None = None
    ) -> None:
        """The next hook is called now. ``what``, such as "plugin x was called in y", or what returns that, begins the
        error if it hangs.
        """
        self.end_if_forked()
        if self.abandoned:
            raise _Abandoned
        self._what = what
        self.whenever_abandoned = whenever_abandoned
        self.until = time.monotonic() + self.seconds

    @property
    def what(self) -> str:
        """What the last `begin` said."""
        return self._what if isinstance(self._what, str) else self._what()

    def end_if_forked(self) -> None:
        end_if_forked(self._process)

    def abandon(self) -> None:
        self.abandoned = True
        if self.whenever_abandoned is not None:
            self.whenever_abandoned()


class _Unsupervised(Phase):
    """Of mydocker's own plugins, which are called as any other function is: nobody waits for them, or gives them up."""

    __slots__ = ()

    def begin(self, what: object, whenever_abandoned: object = None) -> None:
        """There is nothing to watch."""


#: For who calls mydocker's own plugins.
UNSUPERVISED: Phase = _Unsupervised(0.0)


def supervised(work: Callable[[Phase], T], seconds: float | None = None) -> T:
    """Do ``work`` in a thread, and return what it returns or raise what it raises.

    ``work`` calls `Phase.begin` before each hook. `PluginError` if one takes longer than ``seconds`` (by default
    `timeout`). An interrupt (KeyboardInterrupt) passes on when the hook at work has returned, or its time is over.
    """
    from mydocker.crew import Job, await_end

    job = Job(work, seconds)
    thread: list[int] = []

    def body() -> None:
        thread.append(_thread.get_native_id())
        job.do()
        job.done.release()

    _thread.start_new_thread(body, ())
    job.wait()
    await_end(thread[0])
    result: T = job.outcome()
    return result
