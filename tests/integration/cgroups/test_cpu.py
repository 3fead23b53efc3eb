"""CPU limits by what the kernel does about them."""

from __future__ import annotations

import os
import sys

import pytest

from mydocker import CgroupError
from subsystems import cpu, cpuset

pytestmark = pytest.mark.vm

# For two seconds by the clock, then: seconds of CPU used.
BUSY = (
    sys.executable,
    "-c",
    "import time; end = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(time.process_time())",
)


@pytest.fixture
def limits(limited):
    return limited(cpu)


@pytest.mark.parametrize("texts", [{"cpus": "0.3"}, {"cpu_quota": "15000", "cpu_period": "50000"}])
def test_a_busy_loop_is_throttled(limits, hold, texts):
    config = limits.prepare(**texts)
    busy = hold(*BUSY)
    limits.attach(config, busy)
    status, used = busy.finish()
    assert status == 0
    assert float(used) < 1.2, "two seconds at 0.3 CPUs are 0.6 seconds"
    usage = limits.usage(config)
    assert usage["throttled_periods"] > 0
    assert usage["throttled_seconds"] > 0
    assert usage["periods"] >= usage["throttled_periods"]


def test_a_quota_of_minus_one_is_no_bound(limits, hold):
    config = limits.prepare(cpu_quota="-1", cpu_period="50000")
    busy = hold(*BUSY)
    limits.attach(config, busy)
    assert busy.finish()[0] == 0
    assert limits.usage(config)["throttled_periods"] == 0


def test_shares_divide_a_cpu_that_two_want(layout, new_cgroup, hold):
    first = min(layout.root("cpuset").effective_cpus) if layout.find("cpuset") else 0
    loops = []
    for shares in ("4096", "256"):
        cgroup = new_cgroup()
        plugin = cpu.mydocker_fields()[0]
        config = {"cpu_shares": plugin.value_of(shares)}
        cpu.mydocker_prepare(config, cgroup)
        loops.append(hold(*BUSY))
        os.sched_setaffinity(loops[-1].pid, {first})
        cpu.mydocker_apply(config, cgroup, loops[-1].pid)
    for loop in loops:
        loop.process.stdin.write("\n")
        loop.process.stdin.flush()
    much, little = (float(loop.finish()[1]) for loop in loops)
    assert much > 3 * little, "16 times the shares"


def test_usage_without_a_bound_is_empty(limits):
    assert limits.usage(limits.prepare(cpu_shares="512")) == {}


def test_a_parent_that_has_less(layout, new_cgroup):
    """v1 refuses what exceeds the parent's share; on v2 the parent's bound is in force by itself."""
    parent = new_cgroup()
    cpu.mydocker_prepare({"cpu_quota": 20000}, parent)
    child = new_cgroup(parent.path)
    if layout.version("cpu") == 1:
        with pytest.raises(CgroupError, match=r"allows 0\.2 CPUs, and 0\.5 were asked for"):
            cpu.mydocker_prepare({"cpus": 0.5}, child)
    else:
        cpu.mydocker_prepare({"cpus": 0.5}, child)
        assert child.controller("cpu").max == (50000, 100000)


def test_probe_names_files_that_a_container_really_has(layout, limits):
    limits.prepare(cpu_shares="512")
    probe = cpu.mydocker_probe(layout)
    assert (probe.problem, probe.version) == ("", layout.version("cpu"))
    assert all(limits.cgroup.controller("cpu").has(name) for name in probe.files)


def test_all_limits_of_one_container_are_in_force_together(layout, cgroup, hold):
    first = min(layout.root("cpuset").effective_cpus)
    held = hold(sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))")
    for plugin, config in ((cpu, {"cpus": 0.5, "cpu_shares": 300}), (cpuset, {"cpuset_cpus": (first,)})):
        view = cgroup.for_plugin(plugin.__name__)
        plugin.mydocker_prepare(config, view)
        plugin.mydocker_apply(config, view, held.pid)
    assert held.finish() == (0, f"[{first}]")
