"""The watches of plugins on a running container: one thread calls their checks, the runtime acts on the verdicts.

It fails closed: whatever goes wrong with a check is a verdict to stop the container.
"""

from __future__ import annotations

import _thread
import os
import select
import time

from mydocker import hooks, logs
from mydocker.errors import MydockerError
from mydocker.plugins import error_text
from mydocker.watch import LONGEST, SHORTEST, Verdict, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: The reason of a container that was stopped because a plugin failed to watch it.
FAILED = "plugin-error"

#: Seconds; poll(2) takes milliseconds as an int.
_LONGEST_POLL = 1e6

_GONE = select.POLLHUP | select.POLLERR


class _Watched:
    """One watch and when to look next."""

    def __init__(self, owner: str, watch: Watch) -> None:
        self.owner = owner
        self.watch = watch
        self.due: float | None = 0.0

    def look(self) -> Verdict | None:
        """Call the check and work out when it is due again. A failure is a verdict."""
        try:
            answer = self.watch.check()
        except MydockerError as error:
            return self.failed(str(error))
        except BaseException as error:  # in this thread no Ctrl-C is raised
            return self.failed(error_text(error))
        pause = self.watch.interval
        if isinstance(answer, (int, float)) and not isinstance(answer, bool):
            if not -LONGEST < answer < LONGEST:  # nan, too
                return self.failed(f"its check returned {answer!r}, which is no number of seconds below 1e9")
            pause, answer = answer, None
        self.due = None if pause is None else time.monotonic() + max(SHORTEST, pause)
        if answer is None:
            return None
        if not isinstance(answer, Verdict):
            return self.failed(f"its check returned {answer!r}, which is no verdict, no number and not None")
        problem = answer.problem()
        return self.failed(problem) if problem else answer

    def failed(self, problem: str) -> Verdict:
        """The verdict on a plugin that does not watch as it is to."""
        text = f"{self.owner} failed to watch the container, which was stopped: {problem}"
        return Verdict(action="stop", reason=FAILED, text=text)


class Watcher:
    """Watches one container from `start` to `stop`. ``fd`` is readable while there are verdicts to `take`."""

    def __init__(self, watches: Sequence[tuple[str, Watch]], seconds: float) -> None:
        """``watches``: name of the plugin for texts, and the watch. ``seconds``: how long a check may take."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watched = [_Watched(owner, watch) for owner, watch in watches]
        self._seconds = seconds
        self._verdicts: list[tuple[str, Verdict]] = []
        self._exchange = _thread.allocate_lock()
        self._ending = False
        #: the watch whose check is being called, and until when it may take
        self._looking: tuple[_Watched, float] | None = None
        self._ended = _thread.allocate_lock()
        self._started = False
        self._process = os.getpid()

    def start(self) -> None:
        self._ended.acquire()
        self._started = True
        _thread.start_new_thread(self._run, ())

    def take(self) -> list[tuple[str, Verdict]]:
        """The verdicts since the last call, in the order in which they were given.

        Each with the plugin whose it is, and with no name where it is the core's on one that has failed.
        """
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        with self._exchange:
            verdicts, self._verdicts = self._verdicts, []
        return verdicts

    @property
    def patience(self) -> float:
        """Seconds after which to ask for what is `overdue`, again and again."""
        return self._seconds / 4

    def overdue(self) -> Verdict | None:
        """The verdict on a check that takes too long."""
        looking = self._looking
        if looking is None or time.monotonic() < looking[1]:
            return None
        self._looking = None
        self._ending = True
        return looking[0].failed(f"its check did not return in {self._seconds:g} seconds")

    def stop(self) -> None:
        """No check is called any more when this returns, and the watches are closed; what hangs is left behind in its
        thread.
        """
        self._ending = True
        if not self._started and any(watched.watch.close is not None for watched in self._watched):
            self.start()
        os.eventfd_write(self._wake, 1)
        if not self._started or self._ended.acquire(timeout=self._seconds):
            os.close(self.fd)
            os.close(self._wake)

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException as error:
            text = f"the watches of the container failed, which was stopped: {error_text(error)}"
            self._tell(Verdict(action="stop", reason=FAILED, text=text))
        finally:
            self._looking = None
            self._close()
            self._ended.release()

    def _close(self) -> None:
        for watched in self._watched:
            if watched.watch.close is None:
                continue
            try:
                watched.watch.close()
            except BaseException as error:  # in this thread no Ctrl-C is raised
                logs.warning("%s failed to close its watch: %s", watched.owner, error_text(error))
            hooks.end_if_forked(self._process)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        by_descriptor: dict[int, list[_Watched]] = {}
        for watched in self._watched:
            if watched.watch.fd >= 0:
                by_descriptor.setdefault(watched.watch.fd, []).append(watched)
                poll.register(watched.watch.fd, select.POLLIN)
        while not self._ending:
            now = time.monotonic()
            for watched in self._watched:
                if watched.due is not None and watched.due <= now:
                    self._look(watched)
            dues = [watched.due for watched in self._watched if watched.due is not None]
            pause = min(max(0.0, min(dues) - time.monotonic()), _LONGEST_POLL) * 1000 if dues else None
            for fd, events in poll.poll(pause):
                if events & select.POLLNVAL and fd in by_descriptor:
                    self._tell(by_descriptor[fd][0].failed(f"the descriptor {fd}, which it watches, is closed"))
                    return
                for watched in by_descriptor.get(fd, ()):
                    self._look(watched)
                if events & _GONE and fd in by_descriptor:
                    poll.unregister(fd)

    def _look(self, watched: _Watched) -> None:
        if self._ending:
            return
        self._looking = (watched, time.monotonic() + self._seconds)
        verdict = watched.look()
        hooks.end_if_forked(self._process)
        self._looking = None
        if verdict is not None and not self._ending:
            self._tell(verdict, "" if verdict.reason == FAILED else watched.owner)

    def _tell(self, verdict: Verdict, owner: str = "") -> None:
        if verdict.action == "stop":
            self._ending = True
        with self._exchange:
            self._verdicts.append((owner, verdict))
        os.eventfd_write(self.fd, 1)
