"""CPU limits by what the kernel does about them."""

from __future__ import annotations

import os
import sys
import time

import pytest

from mydocker import CgroupError, LimitError, UnsupportedLimit
from subsystems import cpu, cpuset

pytestmark = pytest.mark.vm

# Says that it is up, reads a time, is busy for two seconds by the clock from then on, says what part of a CPU it got.
# The time is the same for all that compete: one that gets no CPU at all would else begin when the others have ended.
BUSY = """
import time
print("up", flush=True)
began = float(input())
time.sleep(max(0, began - time.monotonic()))
used = time.process_time()
while time.monotonic() < began + 2:
    pass
print((time.process_time() - used) / max(2, time.monotonic() - began))
"""


def bring_up(busy):
    busy.process.stdin.write("\n")
    busy.process.stdin.flush()
    assert busy.process.stdout.readline() == "up\n"


def part_of_a_cpu(*loops):
    """Let all of them loop at once; what each of them got."""
    began = time.monotonic() + 0.2
    for busy in loops:
        busy.process.stdin.write(f"{began}\n")
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


def test_an_idle_container_runs_when_nobody_else_wants_to(layout, new_cgroup, hold):
    first = min(layout.root("cpuset").effective_cpus) if layout.find("cpuset") else 0
    loops = []
    for config in ({"cpu_shares": 1024}, {"cpu_idle": True}):
        cgroup = new_cgroup()
        try:
            cpu.mydocker_prepare(config, cgroup)
        except UnsupportedLimit as e:
            assert "this kernel has no cpu.idle" in e.reason
            return
        loops.append(hold(sys.executable, "-c", BUSY))
        cpu.mydocker_apply(config, cgroup, loops[-1].pid)
        os.sched_setaffinity(loops[-1].pid, {first})  # after the move: a v2 cgroup with a cpuset resets it
        bring_up(loops[-1])
    normal, idle = part_of_a_cpu(*loops)
    assert normal > 8 * idle, "1024 to 3"


def test_a_burst_is_saved_up(limits):
    """By the kernel's file: what it saves up depends on what else runs here."""
    config = limits.prepare(cpus="0.5", cpu_burst="20000")
    controller = limits.cgroup.controller("cpu")
    assert (controller.cfs_burst_us if controller.version == 1 else controller.max_burst) == 20000
    assert "throttled_seconds" in limits.usage(config)


# Says whether it may be a realtime task.
REALTIME = """
import os
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print("realtime")
except PermissionError:
    print("refused")
"""


@pytest.fixture
def realtime(layout):
    """Skips where realtime is not divided between cgroups; what is refused then is tested below."""
    if layout.version("cpu") != 1 or not layout.root("cpu").has("cpu.rt_runtime_us"):
        pytest.skip("this kernel has no cpu.rt_runtime_us")


@pytest.mark.parametrize(("texts", "told"), [({"cpu_rt_runtime": "5000"}, "realtime"), ({}, "refused")])
def test_realtime_tasks_need_a_runtime(limits, hold, realtime, texts, told):
    assert limits.run(hold(sys.executable, "-c", REALTIME), cpu_shares="512", **texts) == (0, told)


def test_parents_have_the_realtime_of_their_containers(new_cgroup, realtime):
    """And no more than that, so that the rest is there for others. What is asked for in vain is said."""
    parent = new_cgroup("mydocker/rt").path
    containers = [new_cgroup(f"{parent}/inner") for _ in range(3)]
    for container, runtime in zip(containers, (10000, 20000), strict=False):
        cpu.mydocker_prepare({"cpu_rt_runtime": runtime, "cpu_rt_period": 100000}, container)
    above = containers[0].parents("cpu")
    assert [controller.rt_runtime_us for controller in above] == [300000] * 4
    cpu.mydocker_update({"cpu_rt_runtime": 30000, "cpu_rt_period": 50000}, {"cpu_rt_runtime": 20000}, containers[1], 0)
    assert [controller.rt_runtime_us for controller in above] == [700000] * 4
    with pytest.raises(LimitError, match="do not have 90000 µs in 100000 µs left for it"):
        cpu.mydocker_prepare({"cpu_rt_runtime": 90000, "cpu_rt_period": 100000}, containers[2])
    for container in containers:
        cpu.mydocker_remove(container)
    assert [controller.rt_runtime_us for controller in above] == [0] * 4


@pytest.mark.parametrize("field", ["cpu_rt_runtime", "cpu_rt_period"])
def test_realtime_that_the_kernel_does_not_divide_is_refused_by_the_name_of_its_file(limits, layout, field):
    if layout.version("cpu") == 1 and layout.root("cpu").has("cpu.rt_runtime_us"):
        limits.prepare(**{field: "100000"})
    else:
        with pytest.raises(UnsupportedLimit, match=r"cpu\.rt_(runtime|period)_us") as caught:
            limits.prepare(**{field: "100000"})
        assert caught.value.field == field
        assert not limits.cgroup.exists


def test_figures_are_the_same_on_v1_and_v2(limits, busy):
    limits.account()
    limits.attach({}, busy)
    bring_up(busy)
    (part,) = part_of_a_cpu(busy)
    usage = limits.usage({})
    assert {"user_seconds", "system_seconds", "periods", "throttled_periods", "throttled_seconds"} <= set(usage)
    assert part * 2 * 0.5 < usage["user_seconds"] + usage["system_seconds"] < 60
    assert usage["user_seconds"] > 0.01
    assert (usage["throttled_periods"], usage["throttled_seconds"]) == (0, 0)


def test_time_of_all_processes_is_counted_also_of_those_that_nobody_waits_for(limits, hold):
    limits.account()
    script = "import time\nwhile time.process_time() < 0.5: pass\nprint()"
    orphan = hold("sh", "-c", f"{sys.executable} -Sc '{script}' & exec 1>&-; kill -9 $$")
    limits.attach({}, orphan)
    orphan.process.stdin.write("\n")
    orphan.process.stdin.flush()
    assert orphan.process.stdout.readline() == "\n"
    assert limits.usage({})["user_seconds"] + limits.usage({})["system_seconds"] > 0.4


def test_waiting_for_the_cpu_is_counted_where_the_kernel_does(layout, limits, busy):
    config = limits.prepare(cpus="0.1")
    limits.attach(config, busy)
    bring_up(busy)
    part_of_a_cpu(busy)
    usage = limits.usage(config)
    if layout.version("cpu") == 2 and limits.cgroup.controller("cpu").has("cpu.pressure"):
        assert usage["pressure"]["some_seconds"] > 0.5, "most of two seconds"
    else:
        assert "pressure" not in usage


def test_figures_of_a_container_that_has_no_such_cgroup(limits):
    assert limits.usage({}) == {}
    assert not limits.cgroup.exists


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
