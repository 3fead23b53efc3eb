"""``mydocker stats``: what running containers use."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker import state
from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

Start = Callable[..., subprocess.Popen[str]]
Eventually = Callable[..., object]

MIB = 1 << 20
LOOP = "while :; do :; done"
#: Holds 40 MB.
HOLD = "x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo ready; sleep 100"


def stats(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mydocker", "stats", *arguments]
    return subprocess.run(line, capture_output=True, encoding="utf-8", check=False, timeout=120)


def objects(*arguments: str) -> dict[str, dict[str, Any]]:
    """What ``--format json`` says once, by name."""
    done = stats("--no-stream", "--format", "json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["name"]: one for one in found}


@pytest.fixture
def running(start: Start, eventually: Eventually, state_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a container of that name, and ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def run_until_the_end(name: str, *arguments: str) -> subprocess.Popen[str]:
        process = start("--name", name, *arguments)
        started.append(process)
        eventually(lambda: has_pid(name, state_dir) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        return process

    yield run_until_the_end
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def has_pid(name: str, state_dir: Path) -> bool:
    return any(record.id == name and record.pid for record in state.running(str(state_dir)))


def test_figures_of_a_container_with_limits(running: Any) -> None:
    holding = running("holds", "-m", "200m", "--pids-limit", "30", "--cpus", "0.5", "--init", "sh", "-c", HOLD)
    assert holding.stdout.readline() == "ready\n"
    found = objects("holds")["holds"]
    assert 40 * 10**6 < found["memory_bytes"] < 200 * MIB
    assert found["memory_limit_bytes"] == 200 * MIB
    assert found["pids"] == 3
    assert (found["pids_limit"], found["cpu_limit"]) == (30, 0.5)
    assert found["limits"] == {"memory": "200m", "pids_limit": "30", "cpus": "0.5"}
    assert found["cpu_user_seconds"] + found["cpu_system_seconds"] > 0
    assert found["cpu_percent"] < 10


def test_a_container_without_a_cgroup_is_told_by_its_processes(running: Any) -> None:
    holding = running("bare", "sh", "-c", HOLD)
    assert holding.stdout.readline() == "ready\n"
    running("busy", "sh", "-c", f"{LOOP} & {LOOP} & wait")
    found = objects()
    assert list(found) == ["bare", "busy"]
    assert all(one["by_processes"] for one in found.values())
    assert 40 * 10**6 < found["bare"]["memory_bytes"] < 200 * MIB
    assert found["bare"]["memory_limit_bytes"] is None
    assert (found["bare"]["pids"], found["busy"]["pids"]) == (2, 3)
    assert found["bare"]["cpu_percent"] < 10 < found["busy"]["cpu_percent"]


def test_cpu_percent_is_held_by_the_quota(running: Any) -> None:
    running("quarter", "--cpus", "0.25", "sh", "-c", LOOP)
    found = objects("--interval", "2s")["quarter"]
    assert 5 < found["cpu_percent"] < 35
    assert found["cpu_throttled_seconds"] > 0


def test_pressure_where_the_kernel_keeps_it(running: Any, layout: Layout) -> None:
    """In v2 cgroups; on a hybrid host the container has one for --profile, and not for other figures."""
    kept = os.path.exists("/proc/pressure/cpu") and layout.version("cpu") == 2
    loops = " & ".join([LOOP] * 4)
    running("crowd", "--result", "/dev/null", "sh", "-c", f"{loops} & wait")
    found = objects("crowd")["crowd"]
    assert bool(found["pressure"]) == kept
    if kept:
        assert found["pressure"]["cpu"]["some_seconds"] > 0
        (row,) = stats("--no-stream").stdout.splitlines()[1:]
        assert re.search(r" m \d+% c \d+% i \d+% ", row)


def test_the_table(running: Any) -> None:
    running("one", "-m", "64m", "sleep", "100")
    running("two", "sh", "-c", "sleep 100; echo '\x1b[2J'")
    header, one, two = stats("--no-stream").stdout.splitlines()
    assert header.split()[:3] == ["NAME", "CPU", "%"]
    assert re.match(r"one +\d+\.\d\d% +[\d.]+[KM]iB / 64MiB +\d+\.\d\d% +1 +[\d.]+B / [\d.]+B .*sleep 100$", one)
    assert two.endswith("sh -c sleep 100; echo '?[2J'")
    assert "GiB" in two or "MiB" in two  # the host's memory in place of a limit
    (_, only) = stats("--no-stream", "two").stdout.splitlines()
    assert only.startswith("two ")


def test_nothing_runs(state_dir: Path) -> None:
    assert objects() == {}
    assert len(stats("--no-stream").stdout.splitlines()) == 1
    done = stats("nobody")
    assert (done.returncode, done.stderr) == (125, 'mydocker: no container named "nobody" is running\n')
    done = stats("--interval", "soon")
    assert (done.returncode, done.stderr.startswith('mydocker: --interval: "soon" is not a duration')) == (125, True)


def test_it_goes_on_until_those_named_have_ended(running: Any) -> None:
    running("long", "sleep", "1000")
    short = running("short", "sleep", "1000")
    line = [sys.executable, "-m", "mydocker", "stats", "--interval", "100ms", "--format", "json", "short"]
    looking = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    assert looking.stdout is not None
    assert json.loads(looking.stdout.readline())["name"] == "short"
    short.terminate()
    rest, errors = looking.communicate(timeout=60)
    assert (looking.returncode, errors) == (0, "")
    assert {json.loads(one)["name"] for one in rest.splitlines()} <= {"short"}


def test_containers_that_end_while_it_looks_are_gone(running: Any, start: Start) -> None:
    """Containers come and go, and their runtimes are killed, while it reads as fast as it can."""
    line = [sys.executable, "-m", "mydocker", "stats", "--interval", "1ms", "--format", "json"]
    looking = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    for number in range(8):
        running(f"brief{number}", "-m", "64m", "--pids-limit", "9", "sleep", "0.05")
        killed = running(f"killed{number}", "-m", "64m", "sleep", "100")
        time.sleep(0.05)
        killed.kill()
        killed.wait()
    assert looking.poll() is None
    looking.send_signal(signal.SIGINT)
    output, errors = looking.communicate(timeout=60)
    assert (looking.returncode, errors) == (0, "")
    assert {json.loads(one)["name"] for one in output.splitlines()} & {f"killed{number}" for number in range(8)}
    start("true").wait()  # removes what the killed runtimes have left


def test_a_plugin_that_hangs_holds_up_the_first_look_alone(
    running: Any, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "1")
    site.add(
        "slow",
        """
import time
from mydocker import ResourceField, hookimpl

@hookimpl
def mydocker_fields():
    return [ResourceField(name="slow", flags=("--slow",), parse=str, metavar="N", help="A limit.")]

@hookimpl
def mydocker_account(cgroup):
    pass

@hookimpl
def mydocker_usage(cgroup):
    time.sleep(30)
""",
    )
    running("job", "-m", "64m", "sleep", "100")
    found = objects("--interval", "1ms")["job"]
    assert found["memory_limit_bytes"] == 64 * MIB
    assert "slow" not in found["plugins"]


class Terminal:
    """``mydocker stats`` on a terminal of 24 lines with 80 columns."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(LINES="24", COLUMNS="80")
            os.execv(sys.executable, [sys.executable, "-m", "mydocker", "stats", *arguments])
        self.text = ""

    def read_until(self, pattern: str) -> None:
        end = time.monotonic() + 60
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            ready, _, _ = select.select([self._fd], [], [], 1)
            if ready:
                self.text += os.read(self._fd, 65536).decode()

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        os.write(self._fd, b"\x03")
        try:
            while data := os.read(self._fd, 65536):
                self.text += data.decode()
        except OSError:  # EIO: the other end is closed
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_on_a_terminal_it_draws_over_itself_until_ctrl_c(running: Any) -> None:
    running("job", "-m", "64m", "sh", "-c", "sleep 100; : " + "x" * 200)
    terminal = Terminal("--interval", "100ms")
    terminal.read_until(r"(?s)job.*job.*job")
    assert terminal.interrupt() == 0
    assert terminal.text.startswith("\x1b[?25l\x1b[2J\x1b[H")
    # The kernel sends the signal before it shows ^C, which may so come after all else.
    assert terminal.text.rstrip("\r\n").removesuffix("^C").endswith("\x1b[?25h")
    frames = terminal.text.split("\x1b[H")[1:]
    assert len(frames) >= 3
    shown = re.sub("\x1b\\[[?0-9]*[A-Za-z]", "", frames[0]).splitlines()
    assert [line.split()[0] for line in shown] == ["NAME", "job"]
    assert all(len(line) <= 80 for line in shown)
