"""Many containers at once: none is in another's way, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import mydocker

Run = Callable[..., CompletedProcess[str]]

MYDOCKER = [sys.executable, "-m", "mydocker", "run"]


def test_two_hundred_runs_at_once(tmp_path: Path) -> None:
    """A hundred with limits and a hundred without."""
    script = 'cat /proc/self/cgroup >/dev/null; echo "$0"'
    processes = []
    for number in range(200):
        limits = ["-mem", "64m", "-cpushare", "512"] if number % 2 else []
        command = [*MYDOCKER, *limits, "sh", "-c", script, str(number)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    outputs = [process.communicate()[0] for process in processes]
    assert outputs == [f"{number}\n" for number in range(200)]
    assert [process.returncode for process in processes] == [0] * 200


@pytest.mark.vm
def test_a_few_at_once_with_every_limit() -> None:
    options = ["-mem", "64m", "-cpushare", "512", "--cpus", "1", "-cpuset", "0", "--overlay"]
    processes = [
        subprocess.Popen([*MYDOCKER, *options, "echo", str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(6)
    ]
    assert [process.communicate()[0] for process in processes] == [f"{number}\n" for number in range(6)]


@pytest.mark.vm
def test_threads_of_one_program() -> None:
    """Every thread its own containers: outputs, exit codes and limits stay apart."""
    wrong: list[object] = []
    filters = list(warnings.filters)

    def work(thread: int) -> None:
        for step in range(4):
            number = thread * 10 + step
            limits = {"memory": f"{40 + thread}m"} if step % 2 else {}
            result = mydocker.run(
                ["sh", "-c", f"cat; echo {number}; exit {number}"],
                input=f"in {number}\n",
                capture_output=True,
                text=True,
                **limits,
            )
            expected = (f"in {number}\n{number}\n", number, dict.fromkeys(limits, (40 + thread) << 20))
            if (result.stdout, result.exit_code, result.limits) != expected:
                wrong.append((result, expected))

    run_in_threads(8, work)
    assert wrong == []
    assert list(warnings.filters) == filters


def test_threads_that_want_the_interpreter_meanwhile() -> None:
    """A fork of a large program takes long enough for others to ask for the lock, which the child cannot give them."""
    ballast = b"x" * (400 << 20)
    stop = threading.Event()
    codes: list[int] = []

    def compute() -> None:
        while not stop.is_set():
            for _ in range(10_000):
                pass

    busy = [threading.Thread(target=compute) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        run_in_threads(3, lambda _: codes.extend(mydocker.run(["true"]).exit_code for _ in range(6)))
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    del ballast
    assert codes == [0] * 18


def test_one_name_is_one_container(tmp_path: Path) -> None:
    codes: list[int] = []

    def work(_thread: int) -> None:
        try:
            codes.append(mydocker.run(["sleep", "0.5"], name="only").exit_code)
        except mydocker.StateError as e:
            assert '"only" is in use' in str(e)
            codes.append(e.exit_code)

    run_in_threads(6, work)
    assert codes.count(0) >= 1
    assert len(codes) == 6


def test_a_program_that_forks_workers() -> None:
    """As a pool of processes does: each uses mydocker, imported before the fork."""
    workers = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                result = mydocker.run(["sh", "-c", f"echo {number}; exit {number}"], capture_output=True, text=True)
                code = 0 if (result.stdout, result.exit_code) == (f"{number}\n", number) else 2
            finally:
                os._exit(code)
        workers.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers] == [0] * 4


def run_in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
