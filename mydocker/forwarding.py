"""Signals that the runtime gets, passed on to the command."""

from __future__ import annotations

import os
import time

from mydocker.linux import process, signals
from mydocker.linux.pidfd import send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.streams import Streams

_FORWARDED = (
    signals.SIGHUP,
    signals.SIGINT,
    signals.SIGQUIT,
    signals.SIGUSR1,
    signals.SIGUSR2,
    signals.SIGTERM,
    signals.SIGTSTP,
    signals.SIGWINCH,
)
_DEADLY = (signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM)


class Forwarder:
    """Reads the runtime's signals from a descriptor while it runs a container in the foreground.

    A process that is PID 1 does not die by a signal that it neither handles nor ignores: the kernel drops it
    (pid_namespaces(7)), and Ctrl-C on ``sleep`` would do nothing. As PID 1 is what the command would be without a
    container, INT, TERM, HUP and QUIT then do what they would do there: they end it.

    After TERM, which tells the runtime to stop, the container has ``stop_timeout`` seconds and is then killed.
    """

    def __init__(self, stop_timeout: float) -> None:
        self._stop_timeout = stop_timeout
        self._mask = signals.block(_FORWARDED)
        self.fd = signals.signalfd(_FORWARDED)
        self.kill_at: float | None = None
        #: the signal that ended the command by its default action, or None
        self.ended_by: int | None = None

    def pending(self) -> list[int]:
        try:
            return signals.parse_siginfo(os.read(self.fd, 128 * 16))
        except BlockingIOError:
            return []

    def pending_stop(self) -> int | None:
        """A signal to stop that came before there was a command to pass it to."""
        return next((number for number in self.pending() if number in _DEADLY), None)

    def forward(self, pid: int, pidfd: int, kill: Callable[[], None], streams: Streams, *, reaper: bool) -> None:
        """Pass on what has come to the container's first process; ``reaper``: it is ours and passes it on.

        ``kill`` kills the container.
        """
        for number in self.pending():
            if number == signals.SIGTSTP:
                self._stop(pid, streams)
                continue
            if number == signals.SIGWINCH:
                streams.resize()
            try:
                if number in _DEADLY and not reaper and _default_action(pid, number):
                    self.ended_by = number
                    kill()
                    continue
                send_signal(pidfd, number)
            except ProcessLookupError:
                return
            if number == signals.SIGTERM and self.kill_at is None:
                self.kill_at = time.monotonic() + self._stop_timeout

    def _stop(self, pid: int, streams: Streams) -> None:
        """Job control: stop the command's process group, then ourselves; both go on with CONT."""
        try:
            os.killpg(pid, signals.SIGSTOP)
        except ProcessLookupError:
            return
        streams.suspend()
        os.kill(os.getpid(), signals.SIGSTOP)
        streams.resume()
        streams.resize()
        try:
            os.killpg(pid, signals.SIGCONT)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            signals.restore(self._mask)


class Interrupt:
    """Ends a run from another thread: in the place of a `Forwarder`, which a library's run has none of."""

    kill_at: float | None = None
    ended_by: int | None = None

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def stop(self) -> None:
        """Kill the container, wherever its run is."""
        os.eventfd_write(self.fd, 1)

    def pending_stop(self) -> int | None:
        return signals.SIGKILL

    def forward(self, pid: int, pidfd: int, kill: Callable[[], None], streams: Streams, *, reaper: bool) -> None:
        os.eventfd_read(self.fd)
        kill()

    def close(self) -> None:
        os.close(self.fd)


def _default_action(pid: int, number: int) -> bool:
    """Whether the process neither handles, nor ignores, nor blocks, nor waits for the signal.

    A shell blocks every signal while it makes a process, a millisecond or so and longer on a busy host; PID 1
    would then lose the signal when it unblocks it. What stays blocked for 0.2 s is so on purpose, for signalfd(2).
    """
    free = 0
    for _ in range(200):
        masks = _signal_masks(pid)
        if len(masks) != 3 or (masks[b"SigIgn"] | masks[b"SigCgt"]) >> (number - 1) & 1:
            return False
        if process.waits_for_signals(pid):
            return False
        # Twice, for it may have come out of sigtimedwait(2) between the two looks.
        free = 0 if masks[b"SigBlk"] >> (number - 1) & 1 else free + 1
        if free == 2:
            return True
        if not free:
            time.sleep(0.001)
    return False


def _signal_masks(pid: int) -> dict[bytes, int]:
    """SigBlk, SigIgn and SigCgt of proc(5); fewer if the process is gone."""
    masks = {}
    try:
        with open(f"/proc/{pid}/status", "rb") as f:
            for line in f:
                key, _, value = line.partition(b":")
                if key in (b"SigBlk", b"SigIgn", b"SigCgt"):
                    masks[key] = int(value, 16)
    except OSError:
        pass
    return masks
