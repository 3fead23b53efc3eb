"""The cpuset flags against what a host offers."""

from __future__ import annotations

import pytest

from mydocker import LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Hierarchy, Layout
from mydocker.testing import FakeHost
from subsystems import cpuset

FIELDS = {field.name: field for field in cpuset.mydocker_fields()}


@pytest.fixture(params=[1, 2])
def host(request, tmp_path):
    """A host with the CPUs 0-3 and 8 and the memory node 0, on either version."""
    cpus, mems = {1: ("effective_cpus", "effective_mems"), 2: ("cpus.effective", "mems.effective")}[request.param]
    (tmp_path / f"cpuset.{cpus}").write_text("0-3,8\n")
    (tmp_path / f"cpuset.{mems}").write_text("0\n")
    base = str(tmp_path)
    return Layout.of([Hierarchy(version=request.param, mountpoint=base, controllers=("cpuset",), own="/", base=base)])


def validate(host: Layout, **texts: str) -> None:
    cpuset.mydocker_validate(ResourceConfig({name: FIELDS[name].value_of(text) for name, text in texts.items()}), host)


@pytest.mark.parametrize("texts", [{"cpuset_cpus": "0"}, {"cpuset_cpus": "8,0-3"}, {"cpuset_mems": "0"}])
def test_what_the_host_has_is_allowed(host, texts):
    validate(host, **texts)


@pytest.mark.parametrize(
    ("texts", "field", "words"),
    [
        ({"cpuset_cpus": "99"}, "cpuset_cpus", "CPU 99 is not available: this host offers 0-3,8"),
        ({"cpuset_cpus": "2-5"}, "cpuset_cpus", "CPUs 4-5 are not available: this host offers 0-3,8"),
        ({"cpuset_mems": "1"}, "cpuset_mems", "memory node 1 is not available: this host offers 0"),
        ({"cpuset_cpus": "0", "cpuset_mems": "0-1"}, "cpuset_mems", "memory node 1 is not available"),
        ({"cpuset_cpus": "x"}, "cpuset_cpus", "is not a list"),
        ({"cpuset_cpus": "0", "cpuset_partition": "alone"}, "cpuset_partition", "write root, isolated or member"),
    ],
)
def test_what_it_has_not_is_refused(host, texts, field, words):
    with pytest.raises(LimitError) as caught:
        validate(host, **texts)
    assert caught.value.field == field
    assert words in caught.value.reason


def test_an_old_v1_kernel_that_does_not_say_what_is_effective(tmp_path):
    (tmp_path / "cpuset.cpus").write_text("0-1\n")
    found = Hierarchy(version=1, mountpoint=str(tmp_path), controllers=("cpuset",), own="/", base=str(tmp_path))
    with pytest.raises(LimitError, match="this host offers 0-1"):
        validate(Layout.of([found]), cpuset_cpus="2")


def test_a_partition_takes_cpus_that_are_named_and_exists_on_v2(host):
    validate(host, cpuset_partition="member")
    if host.kind == "v1":
        with pytest.raises(UnsupportedLimit, match=r"cpuset\.cpus\.partition exists on cgroup v2 only"):
            validate(host, cpuset_cpus="0", cpuset_partition="root")
    else:
        validate(host, cpuset_cpus="0", cpuset_partition="isolated")
        with pytest.raises(LimitError, match="it needs --cpuset-cpus too"):
            validate(host, cpuset_mems="0", cpuset_partition="root")


def test_a_host_without_the_controller():
    for field in FIELDS:
        with pytest.raises(UnsupportedLimit, match="no cpuset controller"):
            cpuset.mydocker_validate(ResourceConfig({field: (0,)}), Layout.of([]))
    assert "no cpuset controller" in cpuset.mydocker_probe(Layout.of([])).problem
    with pytest.raises(Exception, match="no cpuset controller"):
        validate(Layout.of([]), cpuset_cpus="0")


@pytest.fixture
def container(tmp_path):
    """The cgroup of a container on an imitated v2 host of four CPUs, before Linux 6.7."""
    with FakeHost.v2(tmp_path / "cgroup", without=["cpuset.cpus.exclusive*"]) as imitated:
        yield imitated.cgroup()


def test_a_partition_that_the_kernel_does_not_make_is_refused_with_its_reason(container):
    config = ResourceConfig({"cpuset_cpus": (1, 2), "cpuset_partition": "isolated"})
    with pytest.raises(UnsupportedLimit, match=r"CPUs 1-2 one: Parent is not a partition root; this kernel has no"):
        cpuset.mydocker_prepare(config, container)


def test_a_partition_ends_before_its_cpus_change_and_is_taken_back_whole(container):
    controller = container.controller("cpuset")
    above = controller.parent()
    above.cpus, above.partition = {1, 2, 3}, "root"
    first = ResourceConfig({"cpuset_cpus": (1, 2), "cpuset_partition": "root"})
    second = ResourceConfig({"cpuset_cpus": (3,), "cpuset_partition": "isolated"})
    cpuset.mydocker_prepare(first, container)
    assert (controller.cpus, controller.partition) == ({1, 2}, "root")
    for config in (second, ResourceConfig({"cpuset_cpus": (3,)}), ResourceConfig({})):
        container.begin_update()
        cpuset.mydocker_update(config, first, container, 0)
        assert controller.partition == config.get("cpuset_partition", "member")
        assert tuple(controller.cpus) == config.get("cpuset_cpus", ())
        assert container.undo() == []
        assert (controller.cpus, controller.partition) == ({1, 2}, "root")
