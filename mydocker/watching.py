"""The watches of plugins on a running container: one thread calls their checks, the runtime acts on the verdicts.

It fails closed: whatever goes wrong with a check is a verdict to stop the container.
"""

from __future__ import annotations

import _thread
import os
import select
import time

from mydocker.errors import MydockerError
from mydocker.plugins import error_text
from mydocker.watch import Verdict, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: The reason of a container that was stopped because a plugin failed to watch it.
FAILED = "plugin-error"

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
            return self._failed(str(error))
        except (Exception, SystemExit) as error:
            return self._failed(error_text(error))
        pause = self.watch.interval
        if isinstance(answer, (int, float)) and not isinstance(answer, bool):
            pause, answer = max(0.0, float(answer)), None
        self.due = None if pause is None else time.monotonic() + pause
        if answer is None or isinstance(answer, Verdict):
            return answer
        return self._failed(f"its check returned {answer!r}, which is no verdict, no number and not None")

    def _failed(self, problem: str) -> Verdict:
        return Verdict.stop(FAILED, f"{self.owner} failed to watch the container: {problem}")


class Watcher:
    """Watches one container from `start` to `stop`. ``fd`` is readable while there are verdicts to `take`."""

    def __init__(self, watches: Sequence[tuple[str, Watch]], seconds: float) -> None:
        """``watches``: name of the plugin for texts, and the watch. ``seconds``: how long a check may take."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watched = [_Watched(owner, watch) for owner, watch in watches]
        self._seconds = seconds
        self._verdicts: list[Verdict] = []
        self._exchange = _thread.allocate_lock()
        self._ending = False
        #: the watch whose check is being called, and until when it may take
        self._looking: tuple[_Watched, float] | None = None
        self._ended = _thread.allocate_lock()
        self._started = False

    def start(self) -> None:
        self._ended.acquire()
        self._started = True
        _thread.start_new_thread(self._run, ())

    def take(self) -> list[Verdict]:
        """The verdicts since the last call, in the order in which they were given."""
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
        problem = f"its check did not return in {self._seconds:g} seconds"
        return Verdict.stop(FAILED, f"{looking[0].owner} failed to watch the container: {problem}")

    def stop(self) -> None:
        """No check is called any more when this returns; one that hangs is left behind in its thread."""
        self._ending = True
        os.eventfd_write(self._wake, 1)
        if not self._started or self._ended.acquire(timeout=self._seconds):
            os.close(self.fd)
            os.close(self._wake)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # such as a poll of a descriptor that the plugin has closed
            self._tell(Verdict.stop(FAILED, f"the watches of the container failed: {error_text(error)}"))
        finally:
            self._looking = None
            self._ended.release()

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
            pause = max(0.0, min(dues) - time.monotonic()) * 1000 if dues else None
            for fd, events in poll.poll(pause):
                if events & select.POLLNVAL:
                    raise OSError(f"descriptor {fd}, which it watches, is closed")
                for watched in by_descriptor.get(fd, ()):
                    self._look(watched)
                if events & _GONE and fd in by_descriptor:
                    poll.unregister(fd)

    def _look(self, watched: _Watched) -> None:
        if self._ending:
            return
        self._looking = (watched, time.monotonic() + self._seconds)
        verdict = watched.look()
        self._looking = None
        if verdict is not None and not self._ending:
            self._tell(verdict)

    def _tell(self, verdict: Verdict) -> None:
        if verdict.action == "stop":
            self._ending = True
        with self._exchange:
            self._verdicts.append(verdict)
        os.eventfd_write(self.fd, 1)
