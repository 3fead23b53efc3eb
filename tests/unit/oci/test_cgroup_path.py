"""A container's cgroup in every hierarchy, on imitated hosts of each layout."""

from __future__ import annotations

import os

import pytest

from mydocker.cgroups import contents
from mydocker.cgroups.group import ContainerCgroup
from mydocker.errors import CgroupError
from mydocker.oci.cgroup_path import Place, begun


def places(host, path: str) -> list[str]:
    return [f"{hierarchy.base}/{path}" for hierarchy in host.layout.hierarchies]


def test_it_is_made_everywhere_and_goes_with_its_parents(cgroup_layout):
    group = ContainerCgroup(cgroup_layout.layout, "engine/a/b")
    group.make_everywhere()
    assert all(os.path.isdir(place) for place in places(cgroup_layout, "engine/a/b"))
    assert set(group.dirs) == set(places(cgroup_layout, "engine/a/b"))
    group.remove()
    assert not any(os.path.exists(place) for place in places(cgroup_layout, "engine/a/b"))


def test_every_controller_of_v2_is_there(cgroup_layout):
    unified = cgroup_layout.layout.find("cgroup")
    group = ContainerCgroup(cgroup_layout.layout, "engine/a")
    group.make_everywhere()
    if unified is not None:
        for controller in unified.controllers:
            assert group.has(controller), controller
    group.remove()


def test_a_cpuset_of_v1_takes_processes(cgroup_layout):
    hierarchy = cgroup_layout.layout.find("cpuset")
    if hierarchy is None or hierarchy.version == 2:
        return
    group = ContainerCgroup(cgroup_layout.layout, "engine/a")
    group.make_everywhere()
    for name in ("cpuset.cpus", "cpuset.mems"):
        with open(f"{hierarchy.base}/engine/a/{name}") as file:
            assert file.read().strip()
    group.remove()


def test_what_is_there_already_is_taken_and_what_holds_it_stays(cgroup_layout):
    parents = places(cgroup_layout, "engine")
    first = ContainerCgroup(cgroup_layout.layout, "engine/other")
    first.make_everywhere()
    group = ContainerCgroup(cgroup_layout.layout, "engine/a")
    group.make_everywhere()
    again = ContainerCgroup(cgroup_layout.layout, "engine/a")
    again.make_everywhere()
    assert set(again.dirs) == set(group.dirs)
    again.remove()
    assert all(os.path.isdir(parent) for parent in parents), "another container is in them"
    first.remove()


def test_one_with_processes_is_refused_and_nothing_is_left(cgroup_layout, monkeypatch):
    *_, last = places(cgroup_layout, "engine/a")
    real = contents.pids
    first = ContainerCgroup(cgroup_layout.layout, "engine/a")
    first.make_everywhere()
    monkeypatch.setattr(contents, "pids", lambda path: [7] if path == last else real(path))
    with pytest.raises(CgroupError, match=r"container's cgroup is not empty: 1 process\(es\) found"):
        ContainerCgroup(cgroup_layout.layout, "engine/a").make_everywhere()
    assert os.path.isdir(last)
    monkeypatch.undo()
    first.remove()


def test_one_that_is_made_in_two_steps(cgroup_layout, monkeypatch):
    """v2 first. What was there before is there afterwards, if the second step finds that something runs in another."""
    place = Place(path="engine/a")
    newer = [hierarchy for hierarchy in cgroup_layout.layout.hierarchies if hierarchy.version == 2]
    group = begun(place, cgroup_layout.layout)
    assert set(group.dirs) == {f"{hierarchy.base}/engine/a" for hierarchy in newer}
    group.make_everywhere()
    assert set(group.dirs) == set(places(cgroup_layout, "engine/a"))
    group.remove()
    if cgroup_layout.layout.kind != "hybrid":
        return
    (older, *_) = (hierarchy for hierarchy in cgroup_layout.layout.hierarchies if hierarchy.version == 1)
    first = ContainerCgroup(cgroup_layout.layout, "engine/a")
    first.make_everywhere()
    last = f"{older.base}/engine/a"
    real = contents.pids
    group = begun(place, cgroup_layout.layout)
    monkeypatch.setattr(contents, "pids", lambda path: [7] if path == last else real(path))
    with pytest.raises(CgroupError, match="not empty"):
        group.make_everywhere()
    group.remove()
    assert all(os.path.isdir(there) for there in places(cgroup_layout, "engine/a"))
    monkeypatch.undo()
    first.remove()
