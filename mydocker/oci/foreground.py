"""Staying with a process until it ends: its terminal relayed, our signals passed on, its exit code ours."""

from __future__ import annotations

import os
import select

from mydocker.linux import pty, signals
from mydocker.linux.pidfd import send_signal
from mydocker.streams import Streams, TerminalStreams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.child import Child

#: Those that are about this process itself, or cannot be had by a descriptor: SIGILL, TRAP, BUS, FPE, SEGV, PIPE, CHLD,
#: STOP, KILL, TTIN, TTOU, URG.
_OWN = frozenset((4, 5, 7, 8, 9, 11, 13, 17, 19, 21, 22, 23))
_PASSED_ON = tuple(number for number in range(1, 65) if number not in _OWN and number not in (32, 33))
_DEADLY = frozenset((signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM))


class Signals:
    """Our signals, held back from its making on and read from a descriptor."""

    def __init__(self) -> None:
        self._mask = signals.block(_PASSED_ON)
        self.fd = signals.signalfd(_PASSED_ON)

    def pending(self) -> list[int]:
        try:
            return signals.parse_siginfo(os.read(self.fd, 128 * 16))
        except BlockingIOError:
            return []

    def told_to_stop(self) -> int | None:
        """A signal that came before there was a process to pass it to and would have ended us."""
        return next((number for number in self.pending() if number in _DEADLY), None)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            signals.restore(self._mask)


def fit(master: int) -> None:
    """Make the terminal of a process that is yet to start fit for the relay: of the size of ours, if we have one.

    Its output comes with the newlines as they are, as from runc: they are for our terminal to make lines of, and who
    reads a pipe gets what was written.
    """
    pty.keep_newlines(master)
    for fd in (0, 1, 2):
        try:
            pty.copy_window_size(fd, master)
            return
        except OSError:
            continue


class Relay(TerminalStreams):
    """The terminal of the process on ours, or on whatever our standard streams are."""

    def __init__(self) -> None:
        super().__init__(interactive=True)

    def resume(self) -> None:
        if os.isatty(0):
            super().resume()
            pty.make_lines(0)


def stay(child: Child, streams: Streams, master: int, ours: Signals) -> int:
    """Until the process has ended: its exit code, 128 and the number for one that a signal ended."""
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    poll.register(ours.fd, select.POLLIN)
    try:
        streams.started(master, poll)
        while True:
            for fd, _ in poll.poll():
                if fd == child.pidfd:
                    code = os.waitstatus_to_exitcode(child.reap_status())
                    streams.finish()
                    return code if code >= 0 else 128 - code
                if fd == ours.fd:
                    _pass_on(ours, child.pidfd, streams)
                else:
                    streams.serve(fd, poll)
    finally:
        streams.close()


def _pass_on(ours: Signals, pidfd: int, streams: Streams) -> None:
    for number in ours.pending():
        if number == signals.SIGWINCH and isinstance(streams, TerminalStreams):
            streams.resize()  # the kernel tells the process, whose terminal has a new size
            continue
        try:
            send_signal(pidfd, number)
        except ProcessLookupError:
            return
