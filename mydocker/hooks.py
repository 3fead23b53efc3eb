"""Calling the hooks of plugins in a thread with a deadline: a plugin that hangs is an error, not a hang.

A thread, because nothing else interrupts code that waits in a system call or swallows exceptions, and because what
a hook does to its thread (a namespace, a signal mask) ends with it. One thread serves one phase of a run, all
plugins in turn; to start one for each hook would cost a run a millisecond. It has left the process when
`supervised` returns, unless it hangs: a process with one thread is cloned faster. A run calls mydocker's own plugins
without one (`mydocker.limits`).
"""

from __future__ import annotations

import _thread
import os
import time

from mydocker.errors import PluginError, UsageError
from mydocker.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

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
    job = _Job(work, seconds)
    thread: list[int] = []

    def body() -> None:
        thread.append(_thread.get_native_id())
        job.do()
        job.done.release()

    _thread.start_new_thread(body, ())
    job.wait()
    _await_end(thread[0])
    result: T = job.outcome()
    return result


class _Job:
    """Work for another thread, and what came of it."""

    def __init__(self, work: Callable[[Phase], Any], seconds: float | None) -> None:
        self._phase = Phase(timeout() if seconds is None else seconds)
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = _thread.allocate_lock()
        self.done.acquire()

    def do(self) -> bool:
        """The other thread: do it, and say whether somebody has waited until now. Then release ``done``."""
        try:
            self._result = self._work(self._phase)
        except BaseException as error:  # raised again in the caller's thread
            self._error = error
        self._phase.end_if_forked()
        return not self._phase.abandoned

    def wait(self) -> None:
        """Until it is done. `PluginError` if a hook takes too long."""
        phase, done = self._phase, self.done
        try:
            while not done.acquire(timeout=min(max(0.0, phase.until - time.monotonic()), _thread.TIMEOUT_MAX)):
                if time.monotonic() >= phase.until:
                    phase.abandon()
                    raise PluginError(f"{phase.what} and did not return in {phase.seconds:g} seconds")
        except BaseException:
            phase.abandoned = True  # no further hook begins
            if not done.acquire(timeout=max(0.0, phase.until - time.monotonic())):
                phase.abandon()
            raise

    def outcome(self) -> Any:
        error, self._error = self._error, None  # its traceback would hold this, and this it
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error


class Crew:
    """Threads that serve one phase after another, for a program that makes many containers: to start one costs as much
    as some phases of the built-in limits.

    One to which a hook has done something that would stay (another namespace, a signal mask) serves no other phase, nor
    does one that was abandoned. They end a moment after the last phase.
    """

    IDLE = 1.0  # seconds

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._owner = os.getpid()

    def supervised(self, work: Callable[[Phase], T], seconds: float | None = None) -> T:
        """As the function `supervised`."""
        if self._owner != os.getpid():
            self._idle, self._owner = [], os.getpid()  # a fork has none of the threads
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._idle)
        job = _Job(work, seconds)
        worker.give(job)
        job.wait()
        result: T = job.outcome()
        return result

    def close(self) -> None:
        """End the threads that serve nothing."""
        while self._idle:
            self._idle.pop().end()


class _Worker:
    def __init__(self, idle: list[_Worker]) -> None:
        self._idle = idle
        self._job: _Job | None = None
        self._given = _thread.allocate_lock()
        self._given.acquire()
        self._native_id = 0
        _thread.start_new_thread(self._serve, ())

    def give(self, job: _Job | None) -> None:
        self._job = job
        self._given.release()

    def end(self) -> None:
        """Serve nothing more; it is not among the idle."""
        self.give(None)
        _await_end(self._native_id)

    def _serve(self) -> None:
        self._native_id = _thread.get_native_id()
        own = _condition()
        while True:
            if not self._given.acquire(timeout=Crew.IDLE):
                try:
                    self._idle.remove(self)
                except ValueError:
                    self._given.acquire()  # it was taken in this moment
                else:
                    return
            job, self._job = self._job, None
            if job is None:
                return
            done = job.done
            reusable = job.do() and _condition() == own
            del job
            if reusable:
                self._idle.append(self)
            done.release()  # the last of all: whoever waits shall not compete for the interpreter
            if not reusable:
                return


def _condition() -> tuple[object, ...]:
    """What a thread may have for itself: namespaces(7), credentials(7) and more."""
    return (
        signals.current_mask(),
        os.sched_getaffinity(0),
        os.getpriority(os.PRIO_PROCESS, 0),
        os.getresuid(),
        os.getresgid(),
        *(os.readlink(f"/proc/thread-self/ns/{name}") for name in ("mnt", "net", "uts", "ipc", "cgroup")),
    )


def _await_end(native_id: int) -> None:
    """Until the kernel has forgotten the thread, which has nothing left to do; not for long, whatever happens."""
    path = f"/proc/self/task/{native_id}"
    for _ in range(2000):
        if not os.path.exists(path):
            return
        os.sched_yield()
