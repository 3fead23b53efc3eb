"""A container that starts frozen, and one that is paused while it runs: nothing of it runs, and all can be ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mydocker
from mydocker import state
from mydocker.cgroups import freezing
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Eventually = Callable[..., object]

COUNTER = 'while :; do echo >> "$0"; sleep 0.01; done'


def mydocker_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mydocker", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)


def is_frozen(name: str, state_dir: Path) -> bool:
    """Whether the container runs and its processes stand still."""
    try:
        record = state.find(name, str(state_dir))
        return freezing.is_frozen(ContainerCgroup.opened(Layout.read(), record.cgroup))
    except mydocker.MydockerError:
        return False


def end(runtime: subprocess.Popen[str]) -> None:
    """Stop the container if it still runs, so that nothing is left for a recovery."""
    if runtime.poll() is None:
        runtime.send_signal(signal.SIGTERM)
        runtime.communicate(timeout=60)


def lives(pid: int) -> bool:
    """Whether there is such a process that is not a zombie, which is its parent's to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def frozen(start: Start, eventually: Eventually, state_dir: Path, name: str) -> Iterator[Start]:
    """Starts a container frozen, and waits until it is."""
    started: list[subprocess.Popen[str]] = []

    def start_frozen(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
        runtime = start("--name", name, "--frozen", *arguments, **options)
        started.append(runtime)
        eventually(lambda: is_frozen(name, state_dir) or runtime.poll() is not None)
        assert runtime.poll() is None, runtime.communicate()
        return runtime

    yield start_frozen
    for runtime in started:
        end(runtime)


def grows(path: Path) -> bool:
    before = path.stat().st_size
    end = time.monotonic() + 60
    while path.stat().st_size == before and time.monotonic() < end:
        time.sleep(0.005)
    return path.stat().st_size > before


def stands_still(path: Path) -> bool:
    before = path.stat().st_size
    time.sleep(0.2)
    return path.stat().st_size == before


class TestStart:
    def test_nothing_runs_until_it_is_unpaused(self, frozen: Start, tmp_path: Path, name: str) -> None:
        mark = tmp_path / "mark"
        runtime = frozen("sh", "-c", f"touch {mark}; echo ran; exit 3")
        time.sleep(0.2)
        assert not mark.exists()
        assert mydocker_command("unpause", name).stdout == f"{name}\n"
        assert runtime.communicate(timeout=60) == ("ran\n", "")
        assert runtime.returncode == 3
        assert mark.exists()

    def test_a_command_larger_than_a_pipe_waits_too(self, frozen: Start, name: str) -> None:
        arguments = ["x" * 100_000] * 5
        runtime = frozen("sh", "-c", 'echo "$# $1"', "sh", *arguments)
        mydocker_command("unpause", name)
        assert runtime.communicate(timeout=60)[0] == f"5 {arguments[0]}\n"

    def test_with_init(self, frozen: Start, name: str) -> None:
        runtime = frozen("--init", "echo", "ran")
        mydocker_command("unpause", name)
        assert runtime.communicate(timeout=60)[0] == "ran\n"

    def test_with_other_limits(self, frozen: Start, name: str) -> None:
        runtime = frozen("-m", "100m", "--ulimit", "nofile=50", "sh", "-c", "ulimit -n")
        mydocker_command("unpause", name)
        assert runtime.communicate(timeout=60)[0] == "50\n"

    @pytest.mark.parametrize("large", [False, True], ids=["small command", "large command"])
    def test_it_can_be_stopped(self, frozen: Start, tmp_path: Path, large: bool) -> None:
        mark = tmp_path / "mark"
        runtime = frozen("sh", "-c", f"touch {mark}", *(["x" * 100_000] * 5 if large else []))
        runtime.send_signal(signal.SIGTERM)
        _, errors = runtime.communicate(timeout=60)
        assert runtime.returncode == 128 + signal.SIGTERM
        assert errors == "mydocker: stopped by signal 15 before the command was started\n"
        assert not mark.exists()

    @pytest.mark.parametrize("large", [False, True], ids=["small command", "large command"])
    def test_its_timeout_counts(self, run: Run, tmp_path: Path, large: bool) -> None:
        mark, result = tmp_path / "mark", tmp_path / "result"
        arguments = ["x" * 100_000] * 5 if large else []
        done = run("--frozen", "--timeout", "0.3", "--result", result, "sh", "-c", f"touch {mark}", *arguments)
        assert done.returncode == 137
        assert json.loads(result.read_text())["reason"] == "timeout"
        assert not mark.exists()

    def test_a_runtime_killed_meanwhile_leaves_what_the_next_run_removes(
        self, frozen: Start, state_dir: Path, tmp_path: Path, name: str
    ) -> None:
        mark = tmp_path / "mark"
        runtime = frozen("sh", "-c", f"touch {mark}")
        pid = state.find(name, str(state_dir)).pid
        runtime.kill()
        runtime.wait()
        began = time.monotonic()
        mydocker.run(["true"])
        assert not lives(pid)
        assert time.monotonic() - began < 9, "it was thawed only after the time to wait for its end was over"
        assert not mark.exists()

    def test_from_python(self, tmp_path: Path) -> None:
        result = mydocker.run(["touch", str(tmp_path / "mark")], frozen=True, timeout=0.3)
        assert (result.reason, result.exit_code) == ("timeout", 137)
        assert not (tmp_path / "mark").exists()
        assert mydocker.run(["true"], frozen=False).exit_code == 0


class TestPause:
    """A container that was started without any limit has no cgroup before it is paused."""

    @pytest.fixture(params=[(), ("-m", "100m"), ("--init",)], ids=["no limit", "memory", "init"])
    def runtime(
        self, request: pytest.FixtureRequest, start: Start, tmp_path: Path, eventually: Eventually, name: str
    ) -> Iterator[subprocess.Popen[str]]:
        count = tmp_path / "count"
        runtime = start("--name", name, "--stop-timeout", "0.3", *request.param, "sh", "-c", COUNTER, count)
        eventually(count.exists, "the command runs")
        yield runtime
        end(runtime)

    def test_it_stands_still_and_goes_on(self, runtime: subprocess.Popen[str], tmp_path: Path, name: str) -> None:
        paused = mydocker_command("pause", name)
        assert (paused.returncode, paused.stdout, paused.stderr) == (0, f"{name}\n", "")
        assert stands_still(tmp_path / "count")
        assert mydocker_command("unpause", name).returncode == 0
        assert grows(tmp_path / "count")

    def test_twice_is_an_error(self, runtime: subprocess.Popen[str], name: str) -> None:
        assert mydocker_command("unpause", name).stderr == f'mydocker: the container "{name}" is not paused\n'
        mydocker_command("pause", name)
        again = mydocker_command("pause", name)
        assert (again.returncode, again.stderr) == (125, f'mydocker: the container "{name}" is paused already\n')

    def test_a_paused_container_can_be_stopped(self, runtime: subprocess.Popen[str], name: str) -> None:
        mydocker_command("pause", name)
        runtime.send_signal(signal.SIGTERM)
        runtime.communicate(timeout=60)
        # The reaper of --init cannot pass the signal on, so that one is killed when its time to stop is over.
        assert runtime.returncode in (128 + signal.SIGTERM, 128 + signal.SIGKILL)

    def test_from_python(self, runtime: subprocess.Popen[str], tmp_path: Path, name: str) -> None:
        mydocker.pause(name)
        assert stands_still(tmp_path / "count")
        mydocker.unpause(name)
        assert grows(tmp_path / "count")


def test_the_time_of_a_paused_container_runs_out(
    start: Start, tmp_path: Path, eventually: Eventually, name: str
) -> None:
    count = tmp_path / "count"
    runtime = start("--name", name, "--timeout", "8", "sh", "-c", COUNTER, count)
    eventually(count.exists, "the command runs")
    assert mydocker_command("pause", name).returncode == 0
    runtime.communicate(timeout=60)
    assert runtime.returncode == 137


def test_a_paused_container_whose_command_ignores_term_is_killed(
    start: Start, tmp_path: Path, eventually: Eventually, name: str
) -> None:
    count = tmp_path / "count"
    runtime = start("--name", name, "--stop-timeout", "0.5", "sh", "-c", f"trap : TERM; {COUNTER}", count)
    eventually(count.exists, "the command runs")
    mydocker_command("pause", name)
    runtime.terminate()
    runtime.communicate(timeout=60)
    assert runtime.returncode == 137


def test_a_paused_container_of_a_killed_runtime_is_removed(
    start: Start, tmp_path: Path, eventually: Eventually, state_dir: Path, name: str
) -> None:
    count = tmp_path / "count"
    runtime = start("--name", name, "sh", "-c", COUNTER, count)
    eventually(count.exists, "the command runs")
    pid = state.find(name, str(state_dir)).pid
    mydocker_command("pause", name)
    runtime.kill()
    runtime.wait()
    mydocker.run(["true"])
    assert not lives(pid)


def test_only_what_runs_can_be_paused() -> None:
    for command in ("pause", "unpause"):
        missing = mydocker_command(command, "nobody")
        assert missing.returncode == 125
        assert missing.stderr == 'mydocker: no container named "nobody" is running\n'


def test_several_are_paused_at_once_as_far_as_they_are_there(
    start: Start, tmp_path: Path, eventually: Eventually, name: str
) -> None:
    names = [f"{name}-{number}" for number in (1, 2)]
    counts = [tmp_path / each for each in names]
    runtimes = [start("--name", count.name, "sh", "-c", COUNTER, count) for count in counts]
    for count in counts:
        eventually(count.exists, "the command runs")
    done = mydocker_command("pause", names[0], "nobody", names[1])
    assert (done.returncode, done.stdout.split()) == (125, names)
    assert 'no container named "nobody"' in done.stderr
    assert all(stands_still(count) for count in counts)
    for runtime in runtimes:
        end(runtime)


def test_update_does_not_freeze(start: Start, tmp_path: Path, eventually: Eventually, name: str) -> None:
    count = tmp_path / "count"
    runtime = start("--name", name, "sh", "-c", COUNTER, count)
    eventually(count.exists, "the command runs")
    done = mydocker_command("update", name, "--frozen")
    assert (done.returncode, done.stderr) == (
        125,
        "mydocker: --frozen: it cannot be changed while the container runs\n",
    )
    assert grows(count)
    end(runtime)
