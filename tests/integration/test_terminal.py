"""``-t`` and ``-i`` through a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]

PATIENCE = 60
MYDOCKER = [sys.executable, "-m", "mydocker", "run"]


class Terminal:
    """A terminal of 30 rows and 90 columns with a program in the foreground, as a terminal emulator has it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(30, 90)
        self.process: subprocess.Popen[bytes] | None = None
        self.screen = b""

    def start(self, *command: str | Path, **options: object) -> None:
        settings = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave, **options}
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            command,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (one thread)
            **settings,
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        self.screen += os.read(self.master, 1 << 16)
        return True

    def expect(self, text: bytes) -> None:
        """Wait until ``text`` is on the screen, then forget all up to it."""
        end = time.monotonic() + PATIENCE
        while text not in self.screen:
            assert time.monotonic() < end, f"{text!r} did not come: {self.screen!r}"
            self.read(0.1)
            self.screen = self.screen.replace(b"\r\r\n", b"\r\n")
        self.screen = self.screen.partition(text)[2]

    def wait(self) -> int:
        """The exit code of the program, with its output read meanwhile: else it could not end."""
        assert self.process is not None
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {self.screen!r}"
            self.read(0.02)
        while self.read(0):
            pass
        return self.process.returncode

    def output(self, *command: str | Path, **options: object) -> bytes:
        """What a program shows from its start to its end.

        With ``-t`` alone our terminal is not in raw mode and adds a return of its own to each line: it does not show.
        """
        self.screen = b""
        self.start(*command, **options)
        assert self.wait() == 0, self.screen
        return self.screen.replace(b"\r\r\n", b"\r\n")

    def attributes(self) -> list[object]:
        return list(termios.tcgetattr(self.slave))

    def hang_up(self) -> None:
        os.close(self.slave)
        os.close(self.master)
        self.master = self.slave = -1

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.master >= 0:
            self.hang_up()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.mark.vm_once
@pytest.mark.parametrize("options", [["-ti"], ["-it"], ["-i", "-t"], ["--tty", "--interactive"], ["-t"]])
def test_the_command_has_a_terminal(terminal: Terminal, options: list[str]) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && tty && echo x >/dev/tty"
    assert terminal.output(*MYDOCKER, *options, "sh", "-c", script) == b"/dev/pts/0\r\nx\r\n"


@pytest.mark.vm_once
def test_it_is_not_the_hosts_terminal(terminal: Terminal) -> None:
    shown = terminal.output(*MYDOCKER, "-ti", "sh", "-c", "ls /dev/pts; readlink /proc/self/fd/*; true")
    assert os.ttyname(terminal.slave).encode() + b"\r" not in shown or os.ttyname(terminal.slave) == "/dev/pts/0"
    assert shown.split()[:2] == [b"0", b"ptmx"]


@pytest.mark.vm_once
def test_a_command_looks_as_it_does_on_the_host(terminal: Terminal, tmp_path: Path) -> None:
    directory = tmp_path / "shown"
    (directory / "below").mkdir(parents=True)
    for name in ("a", "b with blank", "c" * 60, "d" * 40):
        (directory / name).touch()
    (directory / "run").touch(mode=0o755)
    (directory / "link").symlink_to("a")
    environment = {**os.environ, "TERM": "xterm-256color"}
    for command in (["ls", "-l", "--color=auto"], ["ls", "--color=auto"]):
        host = terminal.output(*command, directory, env=environment)
        inside = terminal.output(*MYDOCKER, "-ti", *command, directory, env=environment)
        assert inside == host
        assert b"\x1b[" in host


@pytest.mark.vm_once
def test_the_window_has_its_size_from_the_start(terminal: Terminal) -> None:
    for options in (["-ti"], ["-t"]):
        assert terminal.output(*MYDOCKER, *options, "stty", "size") == b"30 90\r\n"


@pytest.mark.vm_once
@pytest.mark.parametrize("options", [["-ti"], ["-t"], ["-ti", "--init"]])
def test_a_change_of_the_window_reaches_the_command(terminal: Terminal, options: list[str]) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    terminal.start(*MYDOCKER, *options, "sh", "-c", script)
    terminal.expect(b"ready\r\n")
    terminal.resize(40, 120)
    terminal.expect(b"40 120\r\n")
    assert terminal.wait() == 0


@pytest.mark.vm_once
def test_what_is_typed_reaches_the_command(terminal: Terminal) -> None:
    terminal.start(*MYDOCKER, "-ti", "sh", "-c", 'echo ready; read line; echo "<$line>"')
    terminal.expect(b"ready\r\n")
    terminal.type(b"hello  there\r")
    terminal.expect(b"hello  there\r\n<hello  there>\r\n")
    assert terminal.wait() == 0


def test_what_is_typed_early_is_not_lost(terminal: Terminal) -> None:
    terminal.type(b"early\r")
    terminal.start(*MYDOCKER, "-ti", "sh", "-c", 'read line; echo "<$line>"')
    terminal.expect(b"<early>\r\n")
    assert terminal.wait() == 0


def test_end_of_file_as_typed(terminal: Terminal) -> None:
    terminal.start(*MYDOCKER, "-ti", "sh", "-c", "echo ready; cat; echo end")
    terminal.expect(b"ready\r\n")
    terminal.type(b"\x04")
    terminal.expect(b"end\r\n")
    assert terminal.wait() == 0


@pytest.mark.vm_once
@pytest.mark.parametrize("options", [["-ti"], ["-ti", "--init"]])
def test_control_c_reaches_the_handler_of_the_command(terminal: Terminal, options: list[str]) -> None:
    script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    terminal.start(*MYDOCKER, *options, "sh", "-c", script)
    terminal.expect(b"ready\r\n")
    terminal.type(b"\x03")
    terminal.expect(b"interrupted\r\n")
    assert terminal.wait() == 3


@pytest.mark.parametrize("options", [["-ti", "--init"], ["-t"]])
def test_control_c_ends_a_command_that_does_not_handle_it(
    terminal: Terminal, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "ready").write_text("ready\n")
    terminal.start(*MYDOCKER, *options, "tail", "-f", f"{tmp_path}/ready")
    terminal.expect(b"ready\r\n")
    terminal.type(b"\x03")
    assert terminal.wait() == 130


def test_control_c_is_a_byte_for_a_command_that_wants_bytes(terminal: Terminal) -> None:
    script = "stty raw -echo; echo ready; head -c 3 | od -An -tx1"
    terminal.start(*MYDOCKER, "-ti", "sh", "-c", script)
    terminal.expect(b"ready\n")
    terminal.type(b"\x03\x1a\x04")
    terminal.expect(b"03 1a 04")
    assert terminal.wait() == 0


def test_a_shell_has_job_control(terminal: Terminal) -> None:
    environment = {**os.environ, "PS1": "<prompt>", "TERM": "dumb"}
    terminal.start(*MYDOCKER, "-ti", "bash", "--norc", "--noprofile", "-i", env=environment)
    terminal.expect(b"<prompt>")
    # It starts nothing in the loop: dash starts programs by vfork, and a child that ^Z stops before its exec keeps
    # its parent from stopping, for good.
    script = b'trap "echo on again" CONT; sleep 1000 & echo started; while :; do wait; done'
    terminal.type(b"sh -c '" + script + b"'\r")
    terminal.expect(b"\r\nstarted\r\n")
    terminal.type(b"\x1a")
    terminal.expect(b"Stopped")
    terminal.expect(b"<prompt>")
    terminal.type(b"fg\r")
    terminal.expect(b"\r\non again\r\n")
    terminal.type(b"\x03")
    terminal.expect(b"<prompt>")
    terminal.type(b"exit 4\r")
    assert terminal.wait() == 4


def test_a_large_paste_passes_whole(terminal: Terminal) -> None:
    """More than the buffers on the way hold, while the command sleeps: it waits, and nothing is lost."""
    script = "stty raw -echo; echo ready; sleep 0.5; head -c 100000 | md5sum"
    terminal.start(*MYDOCKER, "-ti", "sh", "-c", script)
    terminal.expect(b"ready\n")
    data = os.urandom(50_000).hex().encode()
    os.set_blocking(terminal.master, False)
    left = data
    while left:
        select.select([], [terminal.master], [], PATIENCE)
        left = left[os.write(terminal.master, left[:4096]) :]
    terminal.expect(md5(data))
    assert terminal.wait() == 0


def md5(data: bytes) -> bytes:
    return subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout.split()[0]


def test_a_large_output_passes_whole(terminal: Terminal) -> None:
    shown = terminal.output(*MYDOCKER, "-ti", "seq", "30000")
    assert shown == b"".join(b"%d\r\n" % number for number in range(1, 30001))


@pytest.mark.vm_once
@pytest.mark.parametrize("options", [["-ti"], ["-t"]])
@pytest.mark.parametrize("end", ["exit", "not found", "term", "int", "timeout"])
def test_the_terminal_is_as_it_was_afterwards(
    terminal: Terminal, tmp_path: Path, options: list[str], end: str
) -> None:
    before = terminal.attributes()
    # The last program itself says that it is ready: a shell may lose a signal between an echo and an exec.
    (tmp_path / "ready").write_text("ready")
    script = "stty raw -echo; " + ("exit 0" if end == "exit" else f"exec cat {tmp_path}/ready -")
    limit = ["--timeout", "1s"] if end == "timeout" else []
    command = ["no-such-command"] if end == "not found" else ["sh", "-c", script]
    terminal.start(*MYDOCKER, *options, *limit, *command)
    assert terminal.process is not None
    if end in ("term", "int"):
        terminal.expect(b"ready")
        if options == ["-ti"]:
            assert terminal.attributes() != before
        terminal.process.send_signal(signal.SIGTERM if end == "term" else signal.SIGINT)
    terminal.wait()
    assert terminal.attributes() == before


def test_the_terminal_is_restored_while_the_runtime_is_stopped(terminal: Terminal) -> None:
    before = terminal.attributes()
    terminal.start(*MYDOCKER, "-ti", "sh", "-c", "echo ready; read line; echo got $line")
    terminal.expect(b"ready\r\n")
    raw = terminal.attributes()
    process = terminal.process
    assert process is not None
    process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert terminal.attributes() == before
    process.send_signal(signal.SIGCONT)
    end = time.monotonic() + PATIENCE
    while terminal.attributes() != raw and time.monotonic() < end:
        time.sleep(0.01)
    terminal.type(b"on\r")
    terminal.expect(b"got on\r\n")
    assert terminal.wait() == 0
    assert terminal.attributes() == before


def test_a_terminal_that_goes_away_ends_the_command(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "ready").write_text("ready\n")
    terminal.start(*MYDOCKER, "-ti", "tail", "-f", f"{tmp_path}/ready")
    terminal.expect(b"ready\r\n")
    assert terminal.process is not None
    terminal.hang_up()
    assert terminal.process.wait(PATIENCE) == 128 + signal.SIGHUP


@pytest.mark.vm_once
def test_without_a_terminal_it_is_dockers_error(run: Run) -> None:
    for options in (["-t"], ["-ti"]):
        result = run(*options, "echo", "ran")
        assert (result.returncode, result.stdout) == (125, "")
        assert result.stderr == "mydocker: the input device is not a TTY\n"


def test_output_that_goes_to_a_pipe(terminal: Terminal, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        terminal.start(*MYDOCKER, "-t", "sh", "-c", "echo out; echo err >&2", stdout=out)
        assert terminal.wait() == 0
    assert (tmp_path / "out").read_bytes() == b"out\r\nerr\r\n"
    assert terminal.screen == b""


def test_interactive_alone_has_no_terminal(terminal: Terminal) -> None:
    """Docker's -i without -t on a terminal: the command gets the descriptors as they are."""
    shown = terminal.output(*MYDOCKER, "-i", "sh", "-c", "readlink /proc/self/fd/0 >/dev/null; echo done")
    assert shown == b"done\r\n"


class TestRootfs:
    @pytest.mark.vm_once
    def test_the_terminal_is_the_console_too(self, terminal: Terminal, rootfs: Path) -> None:
        script = "tty; stty size; ls /dev/pts; echo to the console >/dev/console"
        shown = terminal.output(*MYDOCKER, "-ti", "--rootfs", rootfs, "sh", "-c", script)
        assert shown == b"/dev/pts/0\r\n30 90\r\n0     ptmx\r\nto the console\r\n"

    @pytest.mark.parametrize("options", [[], ["--init"]])
    def test_another_user_owns_it(self, terminal: Terminal, rootfs: Path, options: list[str]) -> None:
        script = "stat -c '%u %g %a' $(tty); echo x >/dev/tty; echo y >/proc/self/fd/1"
        shown = terminal.output(*MYDOCKER, "-ti", *options, "--rootfs", rootfs, "-u", "alice", "sh", "-c", script)
        assert shown == b"1000 5 620\r\nx\r\ny\r\n"

    def test_term_is_passed_on(self, terminal: Terminal, rootfs: Path) -> None:
        environment = {**os.environ, "TERM": "screen"}
        shown = terminal.output(*MYDOCKER, "-ti", "--rootfs", rootfs, "sh", "-c", "echo $TERM", env=environment)
        assert shown == b"screen\r\n"

    def test_more_terminals_can_be_opened(self, terminal: Terminal, rootfs: Path) -> None:
        shown = terminal.output(*MYDOCKER, "-ti", "--rootfs", rootfs, "sh", "-c", "exec 3<>/dev/ptmx; ls /dev/pts")
        assert shown.split() == [b"0", b"1", b"ptmx"]
