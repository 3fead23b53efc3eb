"""The threads in which hooks of plugins are called, and what is waited for (`mydocker.hooks`)."""

from __future__ import annotations

import _thread
import os
import time

from mydocker.errors import PluginError
from mydocker.hooks import Phase, timeout
from mydocker.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")


class Job:
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
        """As `mydocker.hooks.supervised`."""
        if self._owner != os.getpid():
            self._idle, self._owner = [], os.getpid()  # a fork has none of the threads
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._idle)
        job = Job(work, seconds)
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
        self._job: Job | None = None
        self._given = _thread.allocate_lock()
        self._given.acquire()
        self._native_id = 0
        _thread.start_new_thread(self._serve, ())

    def give(self, job: Job | None) -> None:
        self._job = job
        self._given.release()

    def end(self) -> None:
        """Serve nothing more; it is not among the idle."""
        self.give(None)
        await_end(self._native_id)

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


def await_end(native_id: int) -> None:
    """Until the kernel has forgotten the thread, which has nothing left to do; not for long, whatever happens."""
    path = f"/proc/self/task/{native_id}"
    for _ in range(2000):
        if not os.path.exists(path):
            return
        os.sched_yield()
