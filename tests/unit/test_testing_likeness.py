"""A host that is like another one: here the other one is an imitation too, so that no root is needed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mydocker import CgroupError
from mydocker.cgroups import files
from mydocker.cgroups.layout import Layout
from mydocker.testing import FakeHost


@pytest.fixture
def like(tmp_path: Path) -> Iterator[Callable[..., FakeHost]]:
    """Make a host like the given one, for a container of this cgroup."""
    made: list[FakeHost] = []

    def make(host: FakeHost, path: str = "mydocker/box", layout: Layout | None = None) -> FakeHost:
        made.append(FakeHost.like(layout or host.layout, tmp_path / f"like{len(made)}", path))
        return made[-1]

    yield make
    for host in made:
        host.close()


def contents(host: FakeHost) -> dict[str, str]:
    """Every file below the host's directory."""
    return {str(path): path.read_text() for path in Path(host.path).rglob("*") if path.is_file()}


def test_a_container_on_the_likeness_changes_nothing_of_the_original(cgroup_layout, like):
    original = cgroup_layout
    original.cgroup("mydocker/other").controller("pids").max = 7
    before = contents(original)
    host = like(original)
    assert (host.layout.kind, host.writes, host.made) == (original.layout.kind, [], [])
    cgroup = host.cgroup("mydocker/box")
    cgroup.controller("pids").max = 5
    cgroup.attach("pids", host.new_process())
    real = original.layout.require("pids").mountpoint
    assert host.real_path(host.made[-1]) == f"{real}/mydocker/box"
    text = f"cannot write {host.writes[-1].path}: no"
    assert host.real_path(text) == f"cannot write {real}/mydocker/box/cgroup.procs: no"
    cgroup.remove()
    assert contents(original) == before


def test_what_the_originals_files_hold_bounds_a_container_here(cgroup_v1, like):
    cgroup_v1.cgroup("mydocker/other").controller("cpuset")
    cgroup_v1.report("mydocker/cpuset.cpus", "0")
    cpuset = like(cgroup_v1).cgroup("mydocker/box").controller("cpuset")
    assert cpuset.cpus == {0}
    with pytest.raises(CgroupError) as caught:
        cpuset.cpus = (1,)
    assert caught.value.errno in (errno.EACCES, errno.ERANGE)  # ERANGE: this machine has but one CPU


def test_files_are_those_that_the_originals_cgroups_have(fake_host, like):
    original = fake_host("v2", without=["memory.swap.*"])
    memory = original.cgroup("mydocker/other").controller("memory")
    above = os.path.dirname(memory.path)
    Path(above, "memory.new").write_text("0\n")  # of a kernel that is newer than the tables
    there = like(original).cgroup("mydocker/box").controller("memory")
    assert not there.has("memory.swap.max")
    assert there.has("memory.max")
    there.set_property("memory.new", "whatever")
    assert there.get_property("memory.new") == "whatever"


def test_a_name_that_is_in_use_is_in_use_here_too(cgroup_layout, like):
    cgroup_layout.cgroup("mydocker/box").controller("pids")
    with pytest.raises(CgroupError, match="exists already"):
        like(cgroup_layout).cgroup("mydocker/box").controller("pids")


def test_a_delegated_subtree_of_v2(cgroup_v2, like):
    """Containers are made below its top, whose own processes have to make room."""
    unified = cgroup_v2.layout.require("memory")
    above, base = f"{unified.mountpoint}/user.slice", f"{unified.mountpoint}/user.slice/me"
    for directory in (above, base):
        files.make_directory(directory)
        files.write(f"{os.path.dirname(directory)}/cgroup.subtree_control", "+memory")
    files.write(f"{base}/cgroup.procs", str(os.getpid()))
    layout = Layout.of([unified.replace(base=base, own="/user.slice/me", controllers=("memory",))])
    host = like(cgroup_v2, layout=layout)
    host.cgroup("mydocker/box").controller("memory").max = 4096
    told = [(host.real_path(write.path).removeprefix(f"{base}/"), write.value) for write in host.writes]
    assert told == [
        ("mydocker-host/cgroup.procs", str(os.getpid())),
        ("cgroup.subtree_control", "+memory"),
        ("mydocker/cgroup.subtree_control", "+memory"),
        ("mydocker/box/memory.max", "4096"),
    ]
    assert cgroup_v2.cgroup_of(os.getpid(), "memory") == "user.slice/me"


def test_inside_of_a_container_nothing_is_taken_for_the_kernels_root(cgroup_v2, like):
    cgroup_v2.cgroup("outer/inner").controller("memory")
    unified = cgroup_v2.layout.require("memory")
    layout = Layout.of([unified.replace(mountpoint=f"{unified.mountpoint}/outer", base=f"{unified.mountpoint}/outer")])
    assert layout.in_container
    host = like(cgroup_v2, layout=layout)
    assert host.layout.in_container
    assert host.layout.root("memory").has("memory.max")
    host.cgroup("mydocker/box").controller("memory").max = 4096
    assert host.read("mydocker/box/memory.max") == "4096"
