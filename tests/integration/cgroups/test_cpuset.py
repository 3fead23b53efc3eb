"""CPU sets by where the kernel lets a process run."""

from __future__ import annotations

import sys

import pytest

from mydocker import LimitError
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


def test_probe(layout):
    probe = cpuset.mydocker_probe(layout)
    assert (probe.problem, probe.version) == ("", layout.version("cpuset"))
