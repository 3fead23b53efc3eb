"""CPU sets by where the kernel lets a process run."""

from __future__ import annotations

import os
import sys

import pytest

from mydocker import LimitError, UnsupportedLimit
from subsystems import cpuset

pytestmark = pytest.mark.vm

WHERE = (sys.executable, "-c", "import os; print(*sorted(os.sched_getaffinity(0)))")


@pytest.fixture
def limits(limited):
    return limited(cpuset)


@pytest.fixture
def offered(layout):
    return sorted(layout.root("cpuset").effective_cpus)


def test_a_process_runs_on_the_cpu_that_it_is_given(limits, hold, offered):
    assert limits.run(hold(*WHERE), cpuset_cpus=str(offered[-1])) == (0, str(offered[-1]))


def test_memory_nodes_alone_leave_all_cpus(limits, hold, offered):
    assert limits.run(hold(*WHERE), cpuset_mems="0") == (0, " ".join(map(str, offered)))


def test_a_cpu_that_this_host_does_not_have(limits):
    with pytest.raises(LimitError, match="CPU 4095 is not available: this host offers"):
        limits.prepare(cpuset_cpus="4095")
    assert not limits.cgroup.exists


def test_a_parent_that_does_not_have_the_cpu(new_cgroup, offered):
    """v2 takes the value and quietly lets the process run elsewhere: that is found out."""
    if len(offered) < 2:
        pytest.skip("needs two CPUs")
    parent = new_cgroup()
    cpuset.mydocker_prepare({"cpuset_cpus": (offered[0],)}, parent)
    with pytest.raises(LimitError, match=f"CPU {offered[1]} is not available: the cgroup .* offers {offered[0]}"):
        cpuset.mydocker_prepare({"cpuset_cpus": tuple(offered[:2])}, new_cgroup(parent.path))
    with pytest.raises(LimitError, match=f"CPU {offered[1]} is not available"):
        cpuset.mydocker_prepare({"cpuset_cpus": (offered[1],)}, new_cgroup(parent.path))


def where(held):
    return sorted(os.sched_getaffinity(held.pid))


@pytest.fixture
def two(offered):
    if len(offered) < 2:
        pytest.skip("needs two CPUs")
    return offered[:2]


def test_cpus_are_taken_and_given_while_the_container_runs(limits, hold, two):
    held = hold("sleep", "60")
    config = limits.prepare(cpuset_cpus=f"{two[0]},{two[1]}")
    limits.attach(config, held)
    for cpus in ([two[1]], two, [two[0]], [two[1]]):
        config = limits.update(config, held, cpuset_cpus=",".join(map(str, cpus)))
        assert where(held) == cpus
    limits.update(config, held)
    assert set(where(held)) >= set(two), "all that the cgroup above has"


def test_a_container_without_a_cpuset_gets_one_while_it_runs(limits, hold, offered):
    held = hold("sleep", "60")
    limits.update({}, held, cpuset_cpus=str(offered[-1]), cpuset_mems="0")
    assert where(held) == [offered[-1]]


def test_a_cpu_of_a_cgroup_that_the_container_nested(layout, limits, hold, two):
    """v1 refuses to take it away, and the error says from where; on v2 the nested one is left with the rest."""
    held = hold("sleep", "60")
    config = limits.prepare(cpuset_cpus=f"{two[0]},{two[1]}")
    limits.attach(config, held)
    directory = limits.cgroup.controller("cpuset").path
    os.mkdir(f"{directory}/nested")
    if layout.version("cpuset") == 1:
        for file, text in (("cpuset.mems", "0"), ("cpuset.cpus", str(two[0]))):
            with open(f"{directory}/nested/{file}", "w") as f:
                f.write(text)
        with pytest.raises(LimitError, match=f"the container's own cgroup .*/nested has CPU {two[0]}"):
            limits.update(config, held, cpuset_cpus=str(two[1]))
        assert where(held) == two
    else:
        limits.update(config, held, cpuset_cpus=str(two[1]))
        assert where(held) == [two[1]]


@pytest.fixture
def partitioned(layout, limits, two):
    """Makes the parent of this test's container a partition, as an administrator may: Linux before 6.7 demands it."""
    parent = limits.cgroup.controller("cpuset").parent()
    if layout.version("cpuset") == 1:
        pytest.skip("cpuset.cpus.partition exists on v2 only; the refusal is tested below")
    parent.cpus = {two[1]}
    parent.partition = "root"
    assert parent.partition == "root"
    yield parent
    parent.partition = "member"  # it is removed after the last container in it


@pytest.mark.parametrize("kind", ["root", "isolated"])
def test_a_partition_has_its_cpus_for_itself(layout, limits, hold, two, partitioned, kind):
    config = limits.prepare(cpuset_cpus=str(two[1]), cpuset_partition=kind)
    held = hold("sleep", "60")
    limits.attach(config, held)
    assert where(held) == [two[1]]
    assert two[1] not in layout.root("cpuset").effective_cpus, "taken from everybody else"
    assert limits.cgroup.controller("cpuset").partition == kind
    config = limits.update(config, held, cpuset_cpus=str(two[1]), cpuset_partition="member")
    assert limits.cgroup.controller("cpuset").partition == "member"
    limits.update(config, held, cpuset_cpus=str(two[1]), cpuset_partition=kind)
    assert limits.cgroup.controller("cpuset").partition == kind


def test_a_partition_that_the_kernel_does_not_make_is_refused_with_its_reason(layout, limits, two):
    """The kernel takes the word, and says only in the same file that it is not in force."""
    cpus = str(two[1])
    if layout.version("cpuset") == 1:
        with pytest.raises(UnsupportedLimit, match=r"cpuset\.cpus\.partition exists on cgroup v2 only"):
            limits.prepare(cpuset_cpus=cpus, cpuset_partition="root")
        assert not limits.cgroup.exists
    elif limits.cgroup.controller("cpuset").has("cpuset.cpus.exclusive"):
        limits.prepare(cpuset_cpus=cpus, cpuset_partition="root")
        assert limits.cgroup.controller("cpuset").partition == "root"
        limits.remove()
        assert two[1] in layout.root("cpuset").effective_cpus
    else:
        with pytest.raises(UnsupportedLimit, match=r"Parent is not a partition root.* no cpuset\.cpus\.exclusive"):
            limits.prepare(cpuset_cpus=cpus, cpuset_partition="root")


def test_probe(layout):
    probe = cpuset.mydocker_probe(layout)
    assert (probe.problem, probe.version) == ("", layout.version("cpuset"))
