"""``--nice``, ``--sched-policy`` and ``--io-priority``, as the command sees itself."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker import state
from mydocker.linux import scheduling
from mydocker.linux.scheduling import SchedAttr

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Eventually = Callable[..., object]

#: (policy, nice, priority, runtime, deadline, period), and the io priority, of the command and of a child.
SEEN = """
import os, sys
sys.path[:0] = {path!r}
from mydocker.linux.scheduling import ioprio_get, sched_getattr
a = sched_getattr(0)
print((a.policy, a.nice, a.priority, a.runtime, a.deadline, a.period), ioprio_get(0), sep=", ")
"""


def command() -> list[str]:
    return [sys.executable, "-c", SEEN.format(path=sys.path)]


def seen(done: subprocess.CompletedProcess[str]) -> tuple[tuple[int, ...], tuple[int, int]]:
    assert done.returncode == 0, done.stderr
    found = ast.literal_eval(done.stdout)
    return found[0], found[1]


@pytest.mark.parametrize("nice", [19, 5, 0, -7])
def test_nice(run: Run, nice: int) -> None:
    done = run("--nice", str(nice), *command())
    if nice < os.getpriority(os.PRIO_PROCESS, 0) and done.returncode == 125:
        assert "may not raise the priority of the container without CAP_SYS_NICE" in done.stderr
        return
    assert seen(done)[0][:2] == (scheduling.SCHED_OTHER, nice)


@pytest.mark.parametrize(
    ("text", "policy"),
    [("other", scheduling.SCHED_OTHER), ("batch", scheduling.SCHED_BATCH), ("idle", scheduling.SCHED_IDLE)],
)
def test_ordinary_policies(run: Run, text: str, policy: int) -> None:
    assert seen(run("--sched-policy", text, *command()))[0][0] == policy


def test_policy_and_nice_together(run: Run) -> None:
    assert seen(run("--sched-policy", "batch", "--nice", "3", *command()))[0][:2] == (scheduling.SCHED_BATCH, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fifo:7", (scheduling.SCHED_FIFO, 0, 7)),
        ("rr:1", (scheduling.SCHED_RR, 0, 1)),
        ("deadline:5ms/50ms/100ms", (scheduling.SCHED_DEADLINE, 0, 0, 5_000_000, 50_000_000, 100_000_000)),
    ],
)
def test_realtime_policies(run: Run, text: str, expected: tuple[int, ...]) -> None:
    """In force, or refused by this kernel with a sentence, and then nothing has run."""
    done = run("--sched-policy", text, *command())
    if done.returncode == 125:
        policy = text.partition(":")[0]
        assert done.stderr.startswith(f"mydocker: --sched-policy: the kernel refuses {policy}: it takes CAP_SYS_NICE")
        assert done.stdout == ""
        return
    assert seen(done)[0][: len(expected)] == expected


def test_more_than_there_is_cannot_be_guaranteed(run: Run, start: Start, eventually: Eventually, name: str) -> None:
    """Of each CPU 95 % at most are for such threads (sched_rt_runtime_us); these ask for all of it and more."""
    share = ("--sched-policy", "deadline:90ms/100ms/100ms")
    refused = run(*share, "true")
    if refused.returncode == 125:
        assert "refuses deadline: it takes CAP_SYS_NICE" in refused.stderr
        return
    others = [start("--name", f"{name}-{n}", *share, "sleep", "60") for n in range(os.cpu_count() or 1)]
    eventually(lambda: all(running_pid(f"{name}-{n}") for n in range(len(others))))
    eventually(lambda: run(*share, "true").returncode == 125)
    assert "the kernel cannot guarantee that much CPU time" in run(*share, "true").stderr
    for other in others:
        other.terminate()
        other.communicate(timeout=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("be:7", (scheduling.IOPRIO_CLASS_BE, 7)),
        ("be", (scheduling.IOPRIO_CLASS_BE, 4)),
        ("idle", (scheduling.IOPRIO_CLASS_IDLE, 0)),
        ("rt:2", (scheduling.IOPRIO_CLASS_RT, 2)),
    ],
)
def test_io_priority(run: Run, text: str, expected: tuple[int, int]) -> None:
    done = run("--ionice", text, *command())
    if text.startswith("rt") and done.returncode == 125:
        assert "mydocker may not give the class rt without CAP_SYS_NICE" in done.stderr
        return
    assert seen(done)[1] == expected


def test_from_python() -> None:
    result = mydocker.run(
        command(), nice=4, sched_policy="batch", io_priority="be:6", capture_output=True, text=True
    )
    policy, io = ast.literal_eval(str(result.stdout))
    assert (policy[:2], io) == ((scheduling.SCHED_BATCH, 4), (scheduling.IOPRIO_CLASS_BE, 6))


def test_of_a_caller_with_threads() -> None:
    """The thread of the child that waits is meant, whichever thread of the caller runs it."""
    found: list[str] = []

    def work() -> None:
        found.append(str(mydocker.run(command(), nice=6, capture_output=True, text=True).stdout))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ast.literal_eval(found[0])[0][1] == 6


def test_deadline_cannot_have_a_reaper(run: Run) -> None:
    done = run("--init", "--sched-policy", "deadline:1ms/2ms/3ms", "true")
    assert done.stderr == (
        "mydocker: --sched-policy: deadline cannot be combined with --init: such a process may not fork\n"
    )


def test_nice_without_meaning(run: Run) -> None:
    done = run("--nice", "5", "--sched-policy", "fifo:1", "true")
    assert done.stderr == "mydocker: --nice: it has no meaning for --sched-policy fifo\n"


def running_pid(name: str) -> int:
    try:
        return state.find(name, state.default_root()).pid
    except mydocker.StateError:
        return 0


THREADS = "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start(); time.sleep(1000)"


@pytest.mark.vm
def test_update_reaches_every_thread(start: Start, eventually: Eventually, name: str) -> None:
    runtime = start("--name", name, "sh", "-c", f"{sys.executable} -c '{THREADS}' & wait")
    pid = eventually(lambda: running_pid(name))
    assert isinstance(pid, int)

    def threads() -> list[int]:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [pid, *(int(thread) for child in children for thread in os.listdir(f"/proc/{child}/task"))]

    eventually(lambda: len(threads()) == 3)
    mydocker.update(name, nice=9, sched_policy="batch", io_priority="idle")
    attributes = [scheduling.sched_getattr(thread) for thread in threads()]
    assert [(found.policy, found.nice) for found in attributes] == [(scheduling.SCHED_BATCH, 9)] * 3
    assert [scheduling.ioprio_get(thread)[0] for thread in threads()] == [scheduling.IOPRIO_CLASS_IDLE] * 3
    runtime.terminate()
    runtime.communicate(timeout=60)


FAILING = """
from mydocker import MydockerError, ResourceField, hookimpl

@hookimpl
def mydocker_fields():
    return [ResourceField(name="zz", flags=("--zz",), parse=str, metavar="X", help="Fails when it is changed.")]

@hookimpl
def mydocker_update():
    raise MydockerError("zz: not now")
"""


@pytest.mark.vm
def test_a_failed_update_puts_all_back(start: Start, eventually: Eventually, name: str, site: Any) -> None:
    """The plugin zz comes after the others, in the order of the names, and fails."""
    site.add("zz", FAILING)
    before = ("--nice", "2", "--io-priority", "be:6", "--oom-score-adj", "100", "--ulimit", "nofile=50:60")
    runtime = start("--name", name, *before, "sleep", "60")
    pid = eventually(lambda: running_pid(name))
    assert isinstance(pid, int)
    changes = {"nice": 9, "io_priority": "idle", "oom_score_adj": 200, "ulimit": ["nofile=40:60"]}
    with pytest.raises(mydocker.MydockerError, match="zz: not now"):
        mydocker.update(name, **changes, zz="1")
    assert scheduling.sched_getattr(pid).replace(runtime=0) == SchedAttr(nice=2)
    assert scheduling.ioprio_get(pid) == (scheduling.IOPRIO_CLASS_BE, 6)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "100\n"
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (50, 60)
    mydocker.update(name, **changes)
    assert scheduling.sched_getattr(pid).nice == 9
    assert scheduling.ioprio_get(pid) == (scheduling.IOPRIO_CLASS_IDLE, 0)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "200\n"
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (40, 60)
    runtime.terminate()
    runtime.communicate(timeout=60)
