"""Terminals: of the first process and of ``exec``, sent to an engine's socket or relayed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import socket
import stat
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30


class Engine:
    """The end of a socket on which a runtime sends descriptors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        directory = os.open(path.parent, os.O_PATH)
        self._socket.bind(f"/proc/self/fd/{directory}/{path.name}")  # for a path longer than an address
        os.close(directory)
        self._socket.listen()
        self._socket.settimeout(PATIENCE)
        self.fds: list[int] = []

    def receive(self) -> tuple[bytes, int]:
        connection, _ = self._socket.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 4096, 8)
            self.fds += fds
            assert len(fds) == 1
            return data, fds[0]

    def close(self) -> None:
        self._socket.close()
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = Engine(tmp_path / "console.sock")
    yield found
    found.close()


def read_until(fd: int, end: str) -> str:
    """What comes out of a terminal until ``end`` does, or it is at its end."""
    text = b""
    deadline = time.monotonic() + PATIENCE
    while end.encode() not in text and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:
                break
            if not data:
                break
            text += data
    return text.decode()


def size(fd: int) -> tuple[int, int]:
    height, width, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return height, width


def started(ours: Any, engine: Engine, bundle: Path, name: str) -> int:
    """Create and start the container: its terminal's master."""
    done = ours.create(bundle, name, "--console-socket", engine.path)
    assert done.returncode == 0, done.stderr
    data, master = engine.receive()
    assert data == b"/dev/ptmx"
    assert ours("start", name).returncode == 0
    return master


def test_of_the_first_process(ours: Any, engine: Engine, bundle: Any, cid: str) -> None:
    script = "tty; stat -c %F:%u:%a /dev/pts/0 /dev/console; stty size; read word; echo got $word"
    changes = {
        "process__terminal": True,
        "process__consoleSize": {"height": 31, "width": 73},
        "process__user": {"uid": 1000, "gid": 1000},
    }
    master = started(ours, engine, bundle("sh", "-c", script, **changes), cid)
    assert size(master) == (31, 73)
    text = read_until(master, "31 73\r\n")
    assert "/dev/pts/0\r\n" in text
    assert text.count("character special file:1000:620\r\n") == 2, text
    os.write(master, b"it\r")
    assert "got it\r\n" in read_until(master, "got it\r\n")


@pytest.mark.parametrize("user", [{"uid": 0, "gid": 0}, {"uid": 1000, "gid": 1000}])
def test_of_exec_is_the_users_and_the_containers(
    user: dict[str, int], ours: Any, engine: Engine, bundle: Any, cid: str, tmp_path: Path
) -> None:
    for done in (ours.create(bundle("sleep", "1000"), cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    path = tmp_path / "process.json"
    script = "tty; ps -o tty,args; cat > /dev/tty < /etc/passwd; echo end; sleep 1000"
    process = {
        "terminal": True,
        "consoleSize": {"height": 3, "width": 4},
        "user": user,
        "args": ["sh", "-c", script],
        "cwd": "/",
        "env": ["PATH=/bin"],
    }
    path.write_text(json.dumps(process))
    done = ours("exec", "--detach", "--process", path, "--console-socket", engine.path, cid)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    data, master = engine.receive()
    assert data == b"/dev/ptmx"
    assert size(master) == (3, 4)
    text = read_until(master, "end\r\n")
    assert text.startswith("/dev/pts/0\r\n")
    assert "alice:x:1000" in text, "its terminal is the controlling one"
    node = os.stat(f"/proc/{ours.state(cid)['pid']}/root/dev/pts/0")
    assert stat.S_ISCHR(node.st_mode)
    assert node.st_uid == user["uid"]


class OurTerminal:
    """A call of the runtime on a terminal that we hold the master of."""

    def __init__(self, command: list[Any], height: int, width: int) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.caller = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command], stdin=slave, stdout=slave, stderr=slave, close_fds=True
        )
        self._slave = slave

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        self.caller.kill()
        self.caller.wait()
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., OurTerminal]]:
    made: list[OurTerminal] = []

    def call(command: list[Any], height: int = 24, width: int = 80) -> OurTerminal:
        made.append(OurTerminal(command, height, width))
        return made[-1]

    yield call
    for terminal in made:
        terminal.close()


def test_of_exec_on_ours(ours: Any, bundle: Any, cid: str, on_terminal: Callable[..., OurTerminal]) -> None:
    for done in (ours.create(bundle("sleep", "1000"), cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    script = "tty; stty size; read word; echo got $word; exit 7"
    terminal = on_terminal([*ours.command, "--root", ours.root, "exec", "--tty", cid, "sh", "-c", script], 11, 22)
    text = read_until(terminal.master, "11 22")
    assert "/dev/pts/0" in text
    os.write(terminal.master, b"it\r")
    assert "got it" in read_until(terminal.master, "got it")
    assert terminal.caller.wait(PATIENCE) == 7
    assert terminal.settings() == terminal.before, "our terminal is as it was"


def test_of_run_on_ours(ours: Any, bundle: Any, cid: str, on_terminal: Callable[..., OurTerminal]) -> None:
    made = bundle("sh", "-c", "tty; stty size; read word; echo got $word; exit 7", process__terminal=True)
    terminal = on_terminal([*ours.command, "--root", ours.root, "run", "--bundle", made, cid], 11, 22)
    text = read_until(terminal.master, "11 22")
    assert "/dev/pts/0" in text
    os.write(terminal.master, b"it\r")
    assert "got it" in read_until(terminal.master, "got it")
    assert terminal.caller.wait(PATIENCE) == 7
    assert terminal.settings() == terminal.before, "our terminal is as it was"


def test_of_exec_follows_the_size_of_ours(
    ours: Any, bundle: Any, cid: str, on_terminal: Callable[..., OurTerminal]
) -> None:
    for done in (ours.create(bundle("sleep", "1000"), cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.01; done"
    terminal = on_terminal([*ours.command, "--root", ours.root, "exec", "--tty", cid, "sh", "-c", script], 11, 22)
    assert "11 22" in read_until(terminal.master, "11 22")
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("4H", 44, 55, 0, 0))
    assert "44 55" in read_until(terminal.master, "44 55")


def test_control_c_is_the_terminals(
    ours: Any, bundle: Any, cid: str, on_terminal: Callable[..., OurTerminal]
) -> None:
    for done in (ours.create(bundle("sleep", "1000"), cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.01; done"
    terminal = on_terminal([*ours.command, "--root", ours.root, "exec", "-t", cid, "sh", "-c", script])
    read_until(terminal.master, "ready")
    os.write(terminal.master, b"\x03")
    assert "interrupted" in read_until(terminal.master, "interrupted")
    assert terminal.caller.wait(PATIENCE) == 5


def test_without_a_terminal_of_ours(ours: Any, bundle: Any, cid: str) -> None:
    for done in (ours.create(bundle("sleep", "1000"), cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    done = ours("exec", "-t", cid, "sh", "-c", "tty; read word; echo got $word", input="it\n")
    assert done.returncode == 0, done.stderr
    assert "/dev/pts/0\n" in done.stdout
    assert "got it\n" in done.stdout


def test_newlines_are_as_they_were_written(ours: Any, bundle: Any, cid: str) -> None:
    """Who reads a pipe does not get what is for a terminal."""
    made = bundle("sh", "-c", "echo one; echo two", process__terminal=True)
    done = ours.run(made, cid, text=False, errors=None)
    assert done.stdout.lstrip(b"\0").removeprefix(b"^D\b\b") == b"one\ntwo\n", done


def test_newlines_begin_lines_on_ours(
    ours: Any, bundle: Any, cid: str, on_terminal: Callable[..., OurTerminal]
) -> None:
    made = bundle("sh", "-c", "echo one; echo two", process__terminal=True)
    terminal = on_terminal([*ours.command, "--root", ours.root, "run", "-b", made, cid])
    assert read_until(terminal.master, "two\r\n").endswith("one\r\ntwo\r\n")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--tty", "--detach"], "cannot allocate tty if runc will detach without setting console socket"),
        (["--console-socket", "x", "--detach"], "cannot use console socket"),
        (["--console-socket", "x", "--tty"], "cannot use console socket"),
        (["--console-socket", "/nonsense", "--tty", "--detach"], "--console-socket: cannot connect to /nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nobody_to_hold_the_master(options: list[str], named: str, ours: Any, bundle: Any, cid: str) -> None:
    for done in (ours.create(bundle("sleep", "1000"), cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    done = ours("exec", *options, cid, "true")
    assert done.returncode == 255
    assert named in done.stderr


def test_socket_with_a_long_path(ours: Any, bundle: Any, cid: str, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    engine = Engine(directory / "console.sock")
    try:
        master = started(ours, engine, bundle("sh", "-c", "tty; sleep 1000", process__terminal=True), cid)
        assert "/dev/pts/0" in read_until(master, "\n")
    finally:
        engine.close()


class TestPidfdSocket:
    def test_of_the_first_process(self, ours: Any, engine: Engine, bundle: Any, cid: str) -> None:
        done = ours.create(bundle("sleep", "1000"), cid, "--pidfd-socket", engine.path)
        assert done.returncode == 0, done.stderr
        data, pidfd = engine.receive()
        assert data
        assert self.pid_of(pidfd) == ours.state(cid)["pid"]

    def test_of_exec(self, ours: Any, engine: Engine, bundle: Any, cid: str, tmp_path: Path) -> None:
        for done in (ours.create(bundle("sleep", "1000"), cid), ours("start", cid)):
            assert done.returncode == 0, done.stderr
        options = ["--detach", "--pid-file", tmp_path / "pid", "--pidfd-socket", engine.path]
        with (tmp_path / "stderr").open("w") as f:
            assert ours("exec", *options, cid, "sleep", "1000", stdout=f, stderr=f).returncode == 0
        data, pidfd = engine.receive()
        assert data == b"setns"
        assert self.pid_of(pidfd) == int((tmp_path / "pid").read_text())

    @staticmethod
    def pid_of(pidfd: int) -> int:
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("Pid:")))


class TestUntrustedRoot:
    """The container's /dev is what its processes have made of it."""

    def test_devpts_exchanged_for_a_link(self, ours: Any, bundle: Any, cid: str) -> None:
        """Nothing is opened by the name of a slave, and what is no devpts is refused."""
        sets = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "permitted", "effective")}
        script = "umount /dev/pts && rmdir /dev/pts && mkdir /tmp/pts && touch /tmp/pts/ptmx && ln -s /tmp/pts /dev/pts"
        made = bundle("sh", "-c", f"{script} && echo done > /tmp/done; sleep 1000", process__capabilities=sets)
        for done in (ours.create(made, cid), ours("start", cid)):
            assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + PATIENCE
        while not (made / "rootfs/tmp/done").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (made / "rootfs/tmp/done").exists()
        done = ours("exec", "--tty", cid, "sh", "-c", "echo ran")
        assert done.returncode == 255
        assert "ran" not in done.stdout
        assert "/dev/pts" in done.stderr
