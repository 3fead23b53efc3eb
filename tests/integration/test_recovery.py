"""kill -9 of the runtime: the command dies too, and the next call removes what was left."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, Popen

import pytest

import mydocker
from mydocker import claims, state
from mydocker.cgroups.layout import Layout

Run = Callable[..., CompletedProcess[str]]
Start = Callable[..., "Popen[str]"]
Eventually = Callable[..., object]

VARIANTS = {
    "plain": [],
    "limits": ["-m", "100m", "-cpushare", "512", "-cpuset", "0"],
    "init": ["--init"],
    "rootfs": ["--rootfs", "ROOTFS", "-v", "DATA:/data", "--tmpfs", "/t"],
    "overlay": ["--overlay", "-m", "100m"],
    "all": ["--rootfs", "ROOTFS", "--overlay", "--init", "-m", "100m", "--cpus", "1"],
}


#: Not the name of a container in another run of these tests on this host: cgroups are everybody's.
NAME = f"killed-{os.getpid()}"


def filled(options: list[str], rootfs: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "data").mkdir(exist_ok=True)
    places = {"ROOTFS": str(rootfs), "DATA": str(tmp_path / "data")}
    for placeholder, path in places.items():
        options = [option.replace(placeholder, path) for option in options]
    return options


def sleeping(seconds: str) -> list[str]:
    """The processes that were started as ``sleep`` with this argument, which only this test uses."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(pid)
        except OSError:
            continue
    return found


def copies_of_the_runtime() -> list[str]:
    """The processes that have the name of the container on their command line: children that have not executed yet."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if NAME.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def is_free(lock: Path) -> bool:
    """Whether nobody holds it: a process that ends gives up its memory, and so its command line, before its files."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def cgroups_named(name: str) -> list[str]:
    return [
        directory
        for hierarchy in Layout.read().hierarchies
        if os.path.exists(directory := f"{hierarchy.base}/mydocker/{name}")
    ]


def kill(process: Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.vm
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_command_dies_with_the_runtime(
    start: Start, eventually: Eventually, rootfs: Path, tmp_path: Path, state_dir: Path, variant: str
) -> None:
    pidfile = tmp_path / "pid"
    options = [*filled(VARIANTS[variant], rootfs, tmp_path), "--name", NAME, "--pidfile", str(pidfile)]
    seconds = f"{1000 + os.getpid() / 1e7:.7f}"
    process = start(*options, "sh", "-c", f"(sleep {seconds}) & exec sleep {seconds}")
    eventually(lambda: len(sleeping(seconds)) == 2)
    if "-m" in options:
        assert cgroups_named(NAME) != []
    kill(process)
    eventually(lambda: sleeping(seconds) == [])
    assert sorted(os.listdir(state_dir)) == sorted([NAME, claims.FILE])
    assert pidfile.exists()
    mydocker.run(["true"])
    assert not state_dir.exists()
    assert not pidfile.exists()
    assert cgroups_named(NAME) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_any_moment(
    start: Start, eventually: Eventually, rootfs: Path, tmp_path: Path, state_dir: Path, variant: str
) -> None:
    """From the start of the interpreter until the command has run for a while."""
    options = [*filled(VARIANTS[variant], rootfs, tmp_path), "--name", NAME, "--pidfile", str(tmp_path / "pid")]
    seconds = f"{1000 + os.getpid() / 1e7:.7f}"
    for step in range(16):
        process = start(*options, "sleep", seconds)
        time.sleep(step * 0.006)
        kill(process)
        eventually(lambda: sleeping(seconds) == [])
        eventually(lambda: copies_of_the_runtime() == [])
        eventually(lambda: is_free(state_dir / NAME / "lock"))
        assert mydocker.run(["true"], name=NAME).exit_code == 0
        assert not state_dir.exists()
        assert list(tmp_path.glob("pid*")) == []
        assert cgroups_named(NAME) == []


#: A runtime that is killed at its n-th call of a function written in C, with whatever it has made until then.
KILLED_AT = """
import os, signal, sys
from mydocker import plugins
from mydocker.cli import fast, run

at, count, runtime = int(sys.argv[1]), 0, os.getpid()

def count_calls(frame, event, function):
    global count
    if event == "c_call" and getattr(function, "__module__", "") in ("posix", "fcntl", "io", "_io"):
        count += 1
        if count == at and os.getpid() == runtime:
            os.kill(runtime, signal.SIGKILL)

registry = plugins.load()
parsed = fast.read(["run", *sys.argv[2:]], registry)
sys.setprofile(count_calls)
run.execute(parsed, registry)
sys.setprofile(None)
print(count)
"""


def test_killed_at_each_kind_of_step(eventually: Eventually, rootfs: Path, tmp_path: Path, state_dir: Path) -> None:
    options = [*filled(VARIANTS["all"], rootfs, tmp_path), "--name", NAME, "--pidfile", str(tmp_path / "pid")]
    driver = [sys.executable, "-c", KILLED_AT]
    command = [*options, "true"]
    steps = int(subprocess.run([*driver, "0", *command], capture_output=True, check=True).stdout)
    ways = [-signal.SIGKILL]
    for at in range(1, steps, max(1, steps // 60)):
        killed = subprocess.run([*driver, str(at), *command], capture_output=True, check=False)
        if at > steps // 2:
            ways = [-signal.SIGKILL, 0]  # it waits by asking again and again: this run may have needed fewer calls
        assert killed.returncode in ways
        eventually(lambda: copies_of_the_runtime() == [])
        eventually(lambda: is_free(state_dir / NAME / "lock"))
        mydocker.run(["true"])  # by the same name it would take the cgroup for one that an update has given it
        assert not state_dir.exists(), at
        assert list(tmp_path.glob("pid*")) == [], at
        assert cgroups_named(NAME) == [], at


def test_the_name_of_a_killed_container_is_free_at_once(start: Start, run: Run, eventually: Eventually) -> None:
    process = start("--name", "web", "sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert "in use" in run("--name", "web", "true").stderr
    kill(process)
    assert run("--name", "web", "echo", "again").stdout == "again\n"


@pytest.mark.vm
def test_a_container_that_runs_is_not_disturbed_by_others_that_recover(start: Start, run: Run) -> None:
    process = start("-m", "100m", "-i", "sh", "-c", "echo ready; read line; echo got $line", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        assert run("-m", "50m", "true").returncode == 0
    assert process.communicate("on\n")[0] == "got on\n"
    assert process.returncode == 0


def test_a_process_with_the_pid_of_a_killed_container_is_not_touched(
    start: Start, eventually: Eventually, state_dir: Path
) -> None:
    """The record names the process by its start time too."""
    process = start("--name", "gone", "sleep", "1000")
    eventually(lambda: getattr(state.read(str(state_dir / "gone")), "pid", 0))
    kill(process)
    record = state_dir / "gone/state.json"
    time.sleep(0.05)  # start times are in clock ticks, of 10 ms
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": innocent.pid}))
        mydocker.run(["true"])
        assert innocent.poll() is None
        innocent.kill()


def test_the_next_call_may_be_one_that_fails(start: Start, run: Run, state_dir: Path) -> None:
    process = start("-m", "100m", "--name", NAME, "sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    kill(process)
    assert run("no-such-command").returncode == 127
    assert cgroups_named(NAME) == []
