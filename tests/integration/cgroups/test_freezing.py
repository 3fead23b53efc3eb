"""Freezing on a real kernel: a counter that stands still, and goes on where it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mydocker import CgroupError
from mydocker.cgroups import freezing
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout
from mydocker.cgroups.removal import remove_stale

pytestmark = pytest.mark.vm

COUNTER = """
import os, time
os.read(0, 1)
os.fork()
if os.fork() == 0:
    while True:
        os.write(1, b".")
        time.sleep(0.001)
while True:
    time.sleep(0.001)
"""


class Counter:
    """Four processes, two of which write bytes into a file for as long as they are let; one until `begin`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, "-c", COUNTER], stdin=subprocess.PIPE, stdout=file)

    def begin(self) -> None:
        assert self.process.stdin is not None
        with self.process.stdin as go:
            go.write(b"\n")
        assert self.goes_on()

    @property
    def count(self) -> int:
        return self.path.stat().st_size

    def goes_on(self) -> bool:
        before = self.count
        end = time.monotonic() + 30
        while self.count == before and time.monotonic() < end:
            time.sleep(0.005)
        return self.count > before

    def stands_still(self) -> bool:
        before = self.count
        time.sleep(0.1)
        return self.count == before


@pytest.fixture
def counter(tmp_path: Path, cgroup: ContainerCgroup) -> Iterator[Counter]:
    """In the cgroup that can freeze, of the version that this layout has it on."""
    counter = Counter(tmp_path / "count")
    try:
        cgroup.attach(freezing.freezer_of(cgroup.layout), counter.process.pid)
        counter.begin()
        yield counter
    finally:
        counter.process.kill()
        cgroup.remove()
        counter.process.wait()


def test_frozen_processes_stand_still_until_they_are_thawed(cgroup: ContainerCgroup, counter: Counter) -> None:
    assert not freezing.is_frozen(cgroup)
    freezing.freeze(cgroup)
    assert freezing.is_frozen(cgroup)
    assert counter.stands_still()
    freezing.thaw(cgroup)
    assert not freezing.is_frozen(cgroup)
    assert counter.goes_on()


def test_to_freeze_or_thaw_twice_is_as_once(cgroup: ContainerCgroup, counter: Counter) -> None:
    freezing.thaw(cgroup)
    freezing.freeze(cgroup)
    freezing.freeze(cgroup)
    assert counter.stands_still()
    freezing.thaw(cgroup)
    assert counter.goes_on()


def test_processes_in_nested_cgroups_stand_still_too(cgroup: ContainerCgroup, counter: Counter) -> None:
    nested = f"{cgroup.dirs[0]}/nested"
    os.mkdir(nested)
    Path(f"{nested}/cgroup.procs").write_text(str(counter.process.pid))
    freezing.freeze(cgroup)
    assert counter.stands_still()
    freezing.thaw(cgroup)
    assert counter.goes_on()


def test_another_process_freezes_what_it_finds(layout: Layout, cgroup: ContainerCgroup, counter: Counter) -> None:
    other = ContainerCgroup.opened(layout, cgroup.path)
    freezing.freeze(other)
    assert counter.stands_still()
    assert freezing.is_frozen(cgroup)
    freezing.thaw(ContainerCgroup.opened(layout, cgroup.path))
    assert counter.goes_on()


def test_a_container_without_such_a_cgroup_is_moved_into_one(
    layout: Layout, cgroup: ContainerCgroup, tmp_path: Path
) -> None:
    counter = Counter(tmp_path / "count")
    try:
        counter.begin()
        other = ContainerCgroup.opened(layout, cgroup.path, counter.process.pid)
        assert not freezing.is_frozen(other)
        freezing.freeze(other)
        assert counter.stands_still()
        freezing.thaw(other)
        assert counter.goes_on()
    finally:
        other.remove()
        counter.process.wait()


def test_to_thaw_where_a_cgroup_above_is_frozen_is_an_error(
    layout: Layout, new_cgroup: Callable[..., ContainerCgroup], cgroup: ContainerCgroup, counter: Counter
) -> None:
    inner = new_cgroup(cgroup.path)
    inner.attach(freezing.freezer_of(layout), counter.process.pid)
    freezing.freeze(inner)
    freezing.freeze(cgroup)
    with pytest.raises(CgroupError, match="stays frozen, because a cgroup above"):
        freezing.thaw(inner, patience=0.1)
    freezing.thaw(cgroup)
    inner.remove()


@pytest.mark.parametrize("end", [ContainerCgroup.kill, ContainerCgroup.remove])
def test_what_is_frozen_can_be_ended(
    cgroup: ContainerCgroup, counter: Counter, end: Callable[[ContainerCgroup], None]
) -> None:
    freezing.freeze(cgroup)
    end(cgroup)
    assert counter.process.wait(30) == -9


def test_what_a_container_has_frozen_in_its_own_cgroup_can_be_ended(
    layout: Layout, cgroup: ContainerCgroup, counter: Counter
) -> None:
    nested = f"{cgroup.dirs[0]}/nested"
    os.mkdir(nested)
    Path(f"{nested}/cgroup.procs").write_text(str(counter.process.pid))
    version = layout.require(freezing.freezer_of(layout)).version
    freezing.request(nested, version, frozen=True)
    assert freezing.settle(nested, version, frozen=True, patience=30)
    remove_stale(layout, cgroup.path)
    assert counter.process.wait(30) == -9


def test_killed_processes_of_a_frozen_container_end_when_they_are_let(
    layout: Layout, cgroup: ContainerCgroup, counter: Counter
) -> None:
    freezing.freeze(cgroup)
    counter.process.kill()
    freezing.let_killed_end(layout, cgroup.path)
    assert counter.process.wait(30) == -9


def test_a_v1_freezer_is_used_where_there_is_no_v2(layout: Layout, cgroup: ContainerCgroup, tmp_path: Path) -> None:
    """On a hybrid host both could; here the v1 one is tried even then."""
    old = Layout.of(found for found in layout.hierarchies if found.version == 1)
    if old.find("freezer") is None:
        with pytest.raises(CgroupError, match="nothing can freeze a container here: mount cgroup2"):
            freezing.freezer_of(old)
        return
    group = ContainerCgroup(old, cgroup.path)
    counter = Counter(tmp_path / "count")
    try:
        group.attach("freezer", counter.process.pid)
        counter.begin()
        freezing.freeze(group)
        assert counter.stands_still()
        counter.process.kill()
        time.sleep(0.05)
        assert counter.process.poll() is None, "a process that v1 has frozen does not end when killed"
        freezing.let_killed_end(old, group.path)
        assert counter.process.wait(30) == -9
    finally:
        group.remove()
        counter.process.wait()
