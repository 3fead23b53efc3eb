"""Every test here leaves the host as it found it."""

from __future__ import annotations

import gc
import os
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker import api
from mydocker.cgroups.layout import Layout

SETTLE = 10.0  # seconds
TOKEN = "MYDOCKER_TEST_TOKEN"

PLUGIN_HEAD = """
import os, time
from mydocker import Amendment, CgroupError, LimitError, Probe, ResourceField, Tmpfs, UnsupportedLimit, Verdict, Volume
from mydocker import Watch, hookimpl
from mydocker.resources import parse_integer

def field(name, **others):
    return ResourceField(name=name, flags=(f"--{name}",), parse=parse_integer, metavar="N", help="A limit.", **others)

@hookimpl
def mydocker_fields():
    return [field({name!r})]
"""


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs of this test keep their state."""
    path = tmp_path / "state"
    monkeypatch.setenv("MYDOCKER_STATE_DIR", str(path))
    return path


@pytest.fixture
def plugin(site: Any) -> Callable[..., None]:
    """Add a plugin with one field of its name and these hooks."""

    def add(name: str, hooks: str) -> None:
        site.add(name, PLUGIN_HEAD.format(name=name) + textwrap.dedent(hooks))

    return add


@pytest.fixture
def name() -> str:
    """Of one container: its cgroup is beside those of all others on this host."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def nothing_left(state_dir: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """After the test there is no process, descriptor, thread, mount, cgroup or state that was not there before."""
    token = f"{os.getpid()}.{time.monotonic_ns()}"
    monkeypatch.setenv(TOKEN, token)
    cgroups, mounts, own = containers_cgroups(), mountinfo(), of_this_process()
    yield
    api.close()  # the helper of the runs from Python is kept some seconds for the next one, else
    gc.collect()
    assert staying(lambda: processes_with(token)) == set(), "these processes are left"
    assert staying(lambda: of_this_process() - own) == set()
    assert not state_dir.exists() or os.listdir(state_dir) == []
    assert staying(lambda: mountinfo() - mounts) == set(), "these mounts are left"
    assert staying(lambda: containers_cgroups() - cgroups) == set(), "these cgroups are left"


def staying(what_is_left: Callable[[], set[str]]) -> set[str]:
    """What is left now and does not go away: other processes on this host may be in the middle of runs of their own."""
    left = what_is_left()
    end = time.monotonic() + SETTLE
    while left and time.monotonic() < end:
        time.sleep(0.01)
        left &= what_is_left()
    return left


def containers_cgroups() -> set[str]:
    """Every directory without others in it that is called ``mydocker``, or is below one, in each hierarchy."""
    return {
        directory
        for hierarchy in Layout.read().hierarchies
        for directory, below, _ in os.walk(hierarchy.base)
        if "/mydocker" in directory.removeprefix(hierarchy.base) and not below
    }


def mountinfo() -> set[str]:
    """The mounts of this mount namespace, by place and source."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {" ".join(line.split()[2:5]) for line in lines}


def of_this_process() -> set[str]:
    """Descriptors, threads and children, zombies too."""
    found = {f"descriptor {fd}" for fd in os.listdir("/proc/self/fd")}
    found |= {f"thread {number}" for number in os.listdir("/proc/self/task")}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
            found.add(f"child {stat.rpartition(')')[0]})")
    return found


def processes_with(token: str) -> set[str]:
    """The processes that were started with this test's environment."""
    wanted = f"{TOKEN}={token}".encode()
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(f"{pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
        except OSError:
            continue
    return found
