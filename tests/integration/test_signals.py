"""Signals that the runtime gets, its grace period, and the deadline."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen

import pytest

import mydocker

Run = Callable[..., CompletedProcess[str]]
Start = Callable[..., "Popen[str]"]
Eventually = Callable[..., object]

PATIENCE = 60
FORWARDED = ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"]


def number(name: str) -> int:
    return int(getattr(signal, f"SIG{name}"))


def line(process: Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def running(start: Start, *arguments: str | Path, **options: object) -> Popen[str]:
    """Start a shell script that says ``ready`` first, and wait for that."""
    process = start(*arguments, **options)
    assert line(process) == "ready\n"
    return process


@pytest.mark.vm_once
@pytest.mark.parametrize("name", FORWARDED)
@pytest.mark.parametrize("options", [[], ["--init"]], ids=["pid1", "init"])
def test_a_signal_reaches_the_command(start: Start, name: str, options: list[str]) -> None:
    script = f"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
    process = running(start, *options, "sh", "-c", script)
    process.send_signal(number(name))
    assert line(process) == f"got {name}\n"
    assert process.wait() == 7


def test_a_change_of_the_window_reaches_the_command_without_a_terminal_too(start: Start) -> None:
    process = running(start, "sh", "-c", "trap 'echo winch; exit' WINCH; echo ready; while :; do sleep 0.05; done")
    process.send_signal(signal.SIGWINCH)
    assert line(process) == "winch\n"
    assert process.wait() == 0


@pytest.mark.vm_once
@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT"])
@pytest.mark.parametrize("options", [[], ["--init"]], ids=["pid1", "init"])
def test_a_signal_that_the_command_does_not_handle_ends_it(
    start: Start, tmp_path: Path, name: str, options: list[str]
) -> None:
    """Though the kernel spares PID 1 (pid_namespaces(7))."""
    file = tmp_path / "result.json"
    process = start("--result", file, *options, "-i", "cat", stdin=PIPE)
    assert process.stdin is not None
    process.stdin.write("ready\n")
    process.stdin.flush()
    assert line(process) == "ready\n"
    process.send_signal(number(name))
    assert process.wait() == 128 + number(name)
    result = json.loads(file.read_text())
    assert (result["exit_code"], result["signal"], result["reason"]) == (128 + number(name), number(name), "signaled")


def test_a_shell_that_starts_processes_all_the_time_is_ended(start: Start) -> None:
    """It blocks signals while it makes one, and PID 1 loses what comes then."""
    for _ in range(10):
        process = running(start, "--stop-timeout", "1h", "sh", "-c", "echo ready; while :; do /bin/true; done")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "wait", ["signal.sigwait([15])", "next(filter(None, iter(lambda: signal.sigtimedwait([15], 0.002), 0)))"]
)
def test_a_command_that_waits_for_blocked_signals_gets_them(start: Start, wait: str) -> None:
    """As an init such as tini does."""
    script = f"import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); print('ready', flush=True); {wait}"
    process = running(start, sys.executable, "-Sc", script + "; print('got it')")
    process.send_signal(signal.SIGTERM)
    assert (line(process), process.wait()) == ("got it\n", 0)


def test_a_command_that_reads_signals_from_a_descriptor_gets_them(start: Start) -> None:
    script = (
        "import ctypes, os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); libc = ctypes.CDLL(None);"
        "fd = libc.signalfd(-1, (1 << 14).to_bytes(128, 'little'), 0); print('ready', flush=True);"
        "print('got', os.read(fd, 128)[0])"
    )
    process = running(start, sys.executable, "-Sc", script)
    process.send_signal(signal.SIGTERM)
    assert (line(process), process.wait()) == ("got 15\n", 0)


@pytest.mark.parametrize("options", [[], ["--init"]], ids=["pid1", "init"])
def test_a_signal_that_the_command_ignores_is_ignored(start: Start, options: list[str]) -> None:
    process = running(start, *options, "sh", "-c", "trap '' HUP INT; echo ready; sleep 0.5; echo still here")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert line(process) == "still here\n"
    assert process.wait() == 0


@pytest.mark.vm_once
@pytest.mark.parametrize("options", [[], ["--init"]], ids=["pid1", "init"])
def test_a_command_that_ignores_term_is_killed_after_the_grace_period(start: Start, options: list[str]) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    process = running(start, "--stop-timeout", "300ms", *options, "sh", "-c", script)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGKILL


def test_a_command_has_its_grace_period(start: Start) -> None:
    script = "trap 'sleep 0.5; echo cleaned up; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    process = running(start, "--stop-timeout", "60s", "sh", "-c", script)
    process.send_signal(signal.SIGTERM)
    assert line(process) == "cleaned up\n"
    assert process.wait() == 9


def test_a_grace_period_of_nothing_kills_at_once(start: Start) -> None:
    process = running(start, "--stop-timeout", "0", "sh", "-c", "trap '' TERM; echo ready; sleep 1000")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGKILL


def test_only_term_starts_the_grace_period(start: Start) -> None:
    script = "trap '' TERM; trap 'echo usr1' USR1; trap 'echo int' INT; echo ready; while :; do sleep 0.05; done"
    process = running(start, "--stop-timeout", "0", "sh", "-c", script)
    process.send_signal(signal.SIGUSR1)
    assert line(process) == "usr1\n"
    process.send_signal(signal.SIGINT)
    assert line(process) == "int\n"
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGKILL


def test_the_processes_of_the_command_end_too(start: Start) -> None:
    """`nothing_left` sees those that do not."""
    process = running(start, "sh", "-c", "sleep 1000 & (trap '' TERM; sleep 1000) & echo ready; exec sleep 1000")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM


def test_stop_and_continue(start: Start, eventually: Eventually, tmp_path: Path) -> None:
    """Job control: TSTP stops the command and then the runtime, CONT lets both go on."""
    pidfile = tmp_path / "pid"
    script = "echo ready; n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done"
    process = running(start, "--pidfile", pidfile, "sh", "-c", script, start_new_session=True)
    command = int(pidfile.read_text())
    process.send_signal(signal.SIGTSTP)
    eventually(lambda: state(process.pid) == "T")
    eventually(lambda: state(command) in ("T", "D"))  # D: its vfork waits for a child that is stopped itself
    process.send_signal(signal.SIGCONT)
    eventually(lambda: state(process.pid) != "T")
    eventually(lambda: state(command) not in ("T", "D"))
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    process.stdout.read()
    assert process.wait() == 128 + signal.SIGTERM


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("options", [[], ["-mem", "100m", "--overlay"]], ids=["plain", "limits"])
def test_a_signal_at_any_moment_of_the_start_ends_the_run(start: Start, options: list[str]) -> None:
    """The interpreter's own start is in the first delays: then it is Python that dies."""
    for step in range(12):
        process = start(*options, "sleep", "1000")
        time.sleep(step * 0.008)
        process.send_signal(signal.SIGTERM)
        assert process.wait() in (128 + signal.SIGTERM, -signal.SIGTERM)


@pytest.mark.vm_once
@pytest.mark.parametrize("options", [[], ["--init"]], ids=["pid1", "init"])
def test_the_deadline_kills(run: Run, tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "result.json"
    script = "trap '' TERM; echo started; sleep 1000"
    result = run("--timeout", "400ms", "--result", file, *options, "sh", "-c", script)
    assert (result.returncode, result.stdout) == (137, "started\n")
    told = json.loads(file.read_text())
    assert (told["reason"], told["signal"]) == ("timeout", 9)
    assert told["wall_seconds"] >= 0.4


def test_a_command_that_ends_before_its_deadline_is_not_touched(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert run("--timeout", "1h", "--result", file, "sh", "-c", "exit 5").returncode == 5
    assert json.loads(file.read_text())["reason"] == "exited"


def test_a_command_that_kills_itself_is_not_a_timeout() -> None:
    result = mydocker.run(["sh", "-c", "kill -9 $$"], init=True, timeout=60)
    assert (result.reason, result.signal, result.exit_code) == ("signaled", 9, 137)


def test_sigchld_ignored_by_the_caller_does_not_lose_the_exit_code(run: Run) -> None:
    result = run("sh", "-c", "exit 6", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert result.returncode == 6


def test_signals_of_a_python_program_are_its_own() -> None:
    """The API blocks nothing and handles nothing when it has returned."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)}
    mydocker.run(["true"])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert {n: signal.getsignal(n) for n in handlers} == handlers


#: A runtime whose reaper is late: the command runs, and the reaper still holds what tells the runtime so.
LATE_REAPER = """
import sys, time
from mydocker import cli
from mydocker.linux import process

set_name = process.set_name

def late(name):
    time.sleep(1)
    set_name(name)

process.set_name = late
cli.main(sys.argv[1:])
"""


def test_a_signal_is_the_commands_as_soon_as_that_runs() -> None:
    script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    command = [sys.executable, "-c", LATE_REAPER, "run", "--init", "sh", "-c", script]
    with Popen(command, stdin=DEVNULL, stdout=PIPE, text=True) as process:
        assert line(process) == "ready\n"
        process.terminate()
        assert line(process) == "got it\n"
        assert process.wait() == 7
