"""Runs that fail or are interrupted leave nothing, and a program that runs many containers does not grow.

What is left of a test is found by the fixture `nothing_left`, after each.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import mydocker
from mydocker import api
from mydocker.spec import Tmpfs, Volume

Run = Callable[..., CompletedProcess[str]]


def descriptors() -> list[str]:
    end_helper()
    return sorted(os.listdir("/proc/self/fd"))


def end_helper() -> None:
    """It is kept a moment for the next run; what waits for its end does so in a thread."""
    api.close()
    end = time.monotonic() + 0.3  # other tests may have left threads that stay
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < end:
        time.sleep(0.001)


def children() -> list[int]:
    end_helper()
    try:
        return [os.waitpid(-1, os.WNOHANG)[0]]
    except ChildProcessError:
        return []


FAILURES: dict[str, dict[str, object]] = {
    "no such command": {"argv": ["no-such-command"]},
    "a directory": {"argv": ["/tmp"]},
    "too long": {"argv": ["true", "x" * 200_000]},
    "no such directory": {"argv": ["true"], "cwd": "/no/such/place"},
    "no such user": {"argv": ["true"], "user": "nobody-here"},
    "no such rootfs": {"argv": ["true"], "rootfs": "/no/such/root"},
    "bad limit": {"argv": ["true"], "memory": "lots"},
    "limit not there": {"argv": ["true"], "memory": "100m", "cpuset_cpus": "99"},
    "pidfile": {"argv": ["true"], "pidfile": "/no/such/place/pid", "memory": "100m"},
    "volume on a file": {"argv": ["true"], "mounts": [Tmpfs(destination="/etc/passwd")]},
    "volume source": {"argv": ["true"], "mounts": [Volume(source="/no/such", destination="/mnt")]},
    "check": {"argv": ["false"], "check": True},
    "name": {"argv": ["true"], "name": "no/name"},
    "capability": {"argv": ["true"], "cap_add": ["FLY"]},
    "timeout": {"argv": ["true"], "timeout": "soon"},
    "empty": {"argv": []},
}


@pytest.mark.vm
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_one_of_our_errors_and_leaves_nothing(failure: str) -> None:
    before = descriptors()
    for capture in (False, True):
        with pytest.raises(mydocker.MydockerError) as caught:
            mydocker.run(**FAILURES[failure], capture_output=capture)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert descriptors() == before
        assert children() == []


@pytest.mark.vm
def test_many_runs_do_not_grow_the_program(rootfs: Path) -> None:
    kinds: list[dict[str, object]] = [
        {},
        {"capture_output": True, "input": b"x"},
        {"memory": "100m", "cpu_shares": 512},
        {"init": True, "timeout": 100},
        {"rootfs": rootfs, "overlay": True},
    ]
    for kind in kinds:
        mydocker.run(["true"], **kind)  # type: ignore[arg-type]
    before = descriptors()
    for _ in range(5):
        for kind in kinds:
            assert mydocker.run(["true"], **kind).exit_code == 0  # type: ignore[arg-type]
    assert descriptors() == before
    assert children() == []


def test_a_program_that_may_open_no_more_files() -> None:
    """Each step that opens a file fails once: an error, or a run, and nothing kept."""
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failed, ran = set(), 0
    try:
        for limit in range(len(before) + 1, len(before) + 40):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                ran += mydocker.run(["true"], capture_output=True, input=b"x", init=True, memory="100m").exit_code == 0
            except (mydocker.MydockerError, OSError) as e:
                failed.add(type(e))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert descriptors() == before, limit
            assert children() == [], limit
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    mydocker.run(["true"])
    assert mydocker.SetupError in failed
    assert ran > 0


def test_a_working_directory_that_was_removed(tmp_path: Path, rootfs: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    before = os.getcwd()
    try:
        os.chdir(gone)
        gone.rmdir()
        with pytest.raises(mydocker.UsageError, match="working directory"):
            mydocker.run(["true"])
        assert mydocker.run(["true"], cwd="/").exit_code == 0
        assert mydocker.run(["true"], rootfs=rootfs).exit_code == 0
    finally:
        os.chdir(before)


class TestInterrupted:
    """KeyboardInterrupt, as Ctrl-C raises it in a Python program."""

    @pytest.fixture
    def interrupt_after(self) -> Iterator[Callable[[float], None]]:
        """Raise KeyboardInterrupt in so many seconds."""

        def interrupt(_number: int, _frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    @pytest.mark.vm
    @pytest.mark.parametrize("options", [{}, {"init": True, "memory": "100m"}, {"capture_output": True}])
    def test_it_kills_the_container_and_passes_on(
        self, interrupt_after: Callable[[float], None], options: dict[str, object]
    ) -> None:
        interrupt_after(0.6)
        with pytest.raises(KeyboardInterrupt):
            mydocker.run(["sleep", "1000"], **options)  # type: ignore[arg-type]

    def test_at_any_moment_no_process_stays_and_what_else_does_is_removed_by_the_next_program(self) -> None:
        """Python raises it between any two instructions."""
        program = """
import os, signal, time, mydocker
from mydocker import api

def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as main:
        return main.read().split()

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
mydocker.run(["true"], memory="100m")
for step in range(0, 160, 4):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + step * 0.0001)
        mydocker.run(["sleep", "1000"], memory="100m")
    except KeyboardInterrupt:
        pass
    api.close()
    end = time.monotonic() + 10  # a helper that was started in this moment is waited for by its own thread
    while children() and time.monotonic() < end:
        time.sleep(0.001)
    if children():
        print(step, "left a child", children())
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (result.stdout, result.stderr) == ("", "")
        mydocker.run(["true"])


def test_an_error_in_a_thread_leaves_the_others_alone() -> None:
    results: list[object] = []

    def work(number: int) -> None:
        try:
            results.append(mydocker.run(["sh", "-c", "sleep 0.1"] if number % 2 else ["no-such-command"]).exit_code)
        except mydocker.CommandNotFound as e:
            results.append(e.exit_code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results, key=str) == [0] * 4 + [127] * 4
