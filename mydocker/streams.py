"""Standard input, output and error of a container: passed through, relayed from a terminal, or captured.

Each kind of `Streams` gives the three descriptors that the child takes, and then serves its own ends from the
runner's poll loop.
"""

from __future__ import annotations

import os
import select

from mydocker.linux import pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 16


def reserve_standard() -> None:
    """Put /dev/null where descriptor 0, 1 or 2 is closed.

    Else the next thing that is opened takes the number: a pipe or a lock of the runtime would go to the command
    as its standard output.
    """
    os.close(open_null())


def open_null() -> int:
    """A descriptor of /dev/null, to read and to write, after `reserve_standard`."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # the lowest number that is free
        if fd > 2:
            return fd


class Streams:
    """The descriptors of the caller go to the command as they are: nothing to relay."""

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self._for_child = (stdin, stdout, stderr)

    def for_child(self) -> tuple[int, int, int]:
        """The descriptors that become the command's 0, 1 and 2."""
        return self._for_child

    def started(self, master: int, poll: select.poll) -> None:
        """The child is there. ``master``: of its terminal, or -1. Register what is to be served."""

    def serve(self, fd: int, poll: select.poll) -> None:
        """``fd``, one of those registered, is ready or at its end."""

    def resize(self) -> None:
        """The caller's terminal has a new size."""

    def suspend(self) -> None:
        """The runtime is about to be stopped."""

    def resume(self) -> None:
        """The runtime goes on."""

    def finish(self) -> None:
        """The container has ended: take what is left in the pipes."""

    def close(self) -> None:
        """Give back all that is held, and the terminal as it was found. May be called at any time, and twice."""


def _read(fd: int) -> bytes:
    """What there is; empty at the end, and also where a terminal's other side is gone (EIO)."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        raise
    except OSError:
        return b""


def _close_all(descriptors: list[int]) -> None:
    """Close each and forget it before: an exception in between closes none twice, when another may have its number."""
    while descriptors:
        os.close(descriptors.pop())


def _write_all(fd: int, data: bytes) -> bool:
    """Write to the caller's descriptor; False if nobody reads there any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # the caller made it non-blocking: wait for room
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True


class TerminalStreams(Streams):
    """The command has a pseudo-terminal of its own; ours is in raw mode and both are relayed.

    ``interactive``: what is typed goes to the command. Without it, only its output is shown.
    """

    def __init__(self, *, interactive: bool) -> None:
        super().__init__(0, 1, 2)
        self._interactive = interactive
        self._master = -1
        self._saved: list[Any] | None = None
        self._to_command = b""
        self._output_open = True

    def started(self, master: int, poll: select.poll) -> None:
        self._master = master
        os.set_blocking(master, False)
        self.resize()
        poll.register(master, select.POLLIN)
        if self._interactive:
            self.resume()
            poll.register(0, select.POLLIN)

    def serve(self, fd: int, poll: select.poll) -> None:
        if fd == 0:
            self._to_command += _read(0) or self._end_of_input(poll)
        elif fd == self._master:
            self._relay_output(poll)
        self._relay_input(poll)

    def _end_of_input(self, poll: select.poll) -> bytes:
        """Our input is at its end: say so to the command as a terminal does, with the EOF character."""
        poll.unregister(0)
        self._interactive = False
        return b"\x04"

    def _relay_output(self, poll: select.poll) -> None:
        try:
            data = _read(self._master)
        except BlockingIOError:
            return
        if not data:
            poll.unregister(self._master)
            os.close(self._master)
            self._master = -1
        elif self._output_open:
            self._output_open = _write_all(1, data)

    def _relay_input(self, poll: select.poll) -> None:
        """Pass on what was typed. While the command does not read, we do not either."""
        if self._master < 0:
            return
        if self._to_command:
            try:
                self._to_command = self._to_command[os.write(self._master, self._to_command) :]
            except BlockingIOError:
                pass
            except OSError:
                self._to_command = b""
        full = bool(self._to_command)
        poll.modify(self._master, select.POLLIN | (select.POLLOUT if full else 0))
        if self._interactive:
            poll.register(0, 0 if full else select.POLLIN)

    def resize(self) -> None:
        if self._master >= 0:
            for fd in (0, 1, 2):
                try:
                    pty.copy_window_size(fd, self._master)
                    return
                except OSError:
                    continue  # not a terminal

    def suspend(self) -> None:
        if self._saved is not None:
            import termios

            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
            except termios.error:
                pass  # the terminal is gone
            self._saved = None

    def resume(self) -> None:
        """Raw mode: every byte goes to the command's terminal, which makes the signals and the echo (termios(3))."""
        if not self._interactive or self._saved is not None:
            return
        import termios
        import tty

        saved = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSADRAIN)
        self._saved = saved

    def finish(self) -> None:
        while self._master >= 0:
            try:
                data = _read(self._master)
            except BlockingIOError:
                break
            if not data:
                break
            if self._output_open:
                self._output_open = _write_all(1, data)

    def close(self) -> None:
        self.suspend()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1


class CapturedStreams(Streams):
    """What the Python API passes: descriptors of the caller's, pipes that are read, bytes that are fed.

    ``stdin``, ``stdout``, ``stderr``: a descriptor; `PIPE` to feed ``data`` or to capture; `STDOUT` for stderr
    to go where stdout goes.
    """

    PIPE = -1
    STDOUT = -2

    def __init__(self, stdin: int, stdout: int, stderr: int, data: bytes = b"") -> None:
        self._pending = memoryview(data)
        self._own: list[int] = []  # the child's ends, closed here once the child has them
        self._feed = -1
        self._captured: dict[int, list[bytes]] = {}
        self._collected: dict[str, list[bytes]] = {}
        try:
            super().__init__(*self._with_pipes(stdin, stdout, stderr))
        except BaseException:  # the second of the pipes may be one too many (EMFILE)
            self.close()
            raise

    def _with_pipes(self, stdin: int, stdout: int, stderr: int) -> tuple[int, int, int]:
        if stdin == self.PIPE:
            stdin, self._feed = os.pipe()
            self._own.append(stdin)
            os.set_blocking(self._feed, False)
        if stdout == self.PIPE:
            stdout = self._capture("stdout")
        if stderr == self.PIPE:
            stderr = self._capture("stderr")
        elif stderr == self.STDOUT:
            stderr = stdout
        return stdin, stdout, stderr

    def _capture(self, name: str) -> int:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self._own.append(writer)
        self._captured[reader] = self._collected[name] = []
        return writer

    def output(self, name: str) -> bytes | None:
        """What came through ``stdout`` or ``stderr``, None if it was not captured."""
        parts = self._collected.get(name)
        return None if parts is None else b"".join(parts)

    def started(self, master: int, poll: select.poll) -> None:
        _close_all(self._own)
        for fd in self._captured:
            poll.register(fd, select.POLLIN)
        if self._feed >= 0:
            poll.register(self._feed, select.POLLOUT)

    def serve(self, fd: int, poll: select.poll) -> None:
        if fd == self._feed:
            try:
                self._pending = self._pending[os.write(fd, self._pending[:_CHUNK]) :]
            except BlockingIOError:
                return
            except OSError:  # the command closed its input
                self._pending = self._pending[:0]
            if not self._pending:
                poll.unregister(fd)
                self._feed = -1
                os.close(fd)
        elif fd in self._captured and not self._take(fd):
            poll.unregister(fd)
            os.close(fd)

    def _take(self, fd: int) -> bool:
        """Read once; False at the end of the pipe, which is then forgotten."""
        try:
            data = _read(fd)
        except BlockingIOError:
            return True
        if not data:
            del self._captured[fd]
            return False
        self._captured[fd].append(data)
        return True

    def finish(self) -> None:
        """No writer is left in the container, so what is not in the pipes by now never will be."""
        for fd, parts in self._captured.items():
            while True:
                try:
                    data = _read(fd)
                except BlockingIOError:
                    break
                if not data:
                    break
                parts.append(data)

    def close(self) -> None:
        if self._feed >= 0:
            self._own.append(self._feed)
            self._feed = -1
        self._own += self._captured
        self._captured.clear()
        _close_all(self._own)
