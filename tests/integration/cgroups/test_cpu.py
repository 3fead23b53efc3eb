"""CPU limits by what the kernel does about them."""

from __future__ import annotations

import os
import sys

import pytest

from mydocker import CgroupError
from subsystems import cpu, cpuset

pytestmark = pytest.mark.vm

# Says that it is up, waits for a line, is busy for two seconds by the clock, says what part of a CPU it got.
BUSY = """
import time
print("up", flush=True)
input()
began, used = time.monotonic(), time.process_time()
while time.monotonic() < began + 2:
    pass
print((time.process_time() - used) / (time.monotonic() - began))
"""


def bring_up(busy):
    busy.process.stdin.write("\n")
    busy.process.stdin.flush()
    assert busy.process.stdout.readline() == "up\n"


def part_of_a_cpu(*loops):
    """Let all of them loop at once; what each of them got."""
    for busy in loops:
        busy.process.stdin.write("\n")
        busy.process.stdin.flush()
    return [float(busy.finish()[1]) for busy in loops]


@pytest.fixture
def busy(hold):
    return hold(sys.executable, "-c", BUSY)


@pytest.fixture
def limits(limited):
    return limited(cpu)


@pytest.mark.parametrize("texts", [{"cpus": "0.3"}, {"cpu_quota": "15000", "cpu_period": "50000"}])
def test_a_busy_loop_is_throttled(limits, busy, texts):
    config = limits.prepare(**texts)
    limits.attach(config, busy)
    bring_up(busy)
    (part,) = part_of_a_cpu(busy)
    assert part < 0.45, "0.3 were allowed"
    usage = limits.usage(config)
    assert usage["throttled_periods"] > 0
    assert usage["throttled_seconds"] > 0
    assert usage["periods"] >= usage["throttled_periods"]


def test_a_quota_of_minus_one_is_no_bound(limits, busy):
    config = limits.prepare(cpu_quota="-1", cpu_period="50000")
    limits.attach(config, busy)
    bring_up(busy)
    part_of_a_cpu(busy)
    assert limits.usage(config)["throttled_periods"] == 0


def test_shares_divide_a_cpu_that_two_want(layout, new_cgroup, hold):
    first = min(layout.root("cpuset").effective_cpus) if layout.find("cpuset") else 0
    loops = []
    for shares in (8192, 64):
        cgroup = new_cgroup()
        config = {"cpu_shares": shares}
        cpu.mydocker_prepare(config, cgroup)
        loops.append(hold(sys.executable, "-c", BUSY))
        cpu.mydocker_apply(config, cgroup, loops[-1].pid)
        os.sched_setaffinity(loops[-1].pid, {first})  # after the move: a v2 cgroup with a cpuset resets it
        bring_up(loops[-1])
    much, little = part_of_a_cpu(*loops)
    assert much > 2 * little, "128 times the shares, on a machine that may have other work"


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
