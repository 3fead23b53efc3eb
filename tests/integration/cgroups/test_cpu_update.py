"""CPU limits of a running container change in every order, and are taken back when something else fails."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mydocker import CgroupError, ResourceConfig
from mydocker.cgroups.group import ContainerCgroup
from subsystems import cpu

pytestmark = pytest.mark.vm


@pytest.fixture
def sleeping(cgroup, hold):
    """A process in the container, which has no CPU limit yet."""
    cpu.mydocker_account(cgroup)
    held = hold("sleep", "600")
    cpu.mydocker_apply({}, cgroup, held.pid)
    return held


FILES = {
    1: ("shares", "cfs_quota_us", "cfs_period_us", "cfs_burst_us", "idle"),
    2: ("weight", "max", "max_burst", "idle"),
}


def in_force(controller):
    names = FILES[controller.version]
    return {name: getattr(controller, name) for name in names if controller.has(file_of(controller, name))}


def file_of(controller, name):
    return os.fsdecode(type(controller).__dict__.get(name, controller.get_interface(name)).filename)


def wanted(config, controller):
    quota, period = cpu._bandwidth(config) or (None, 100000)
    idle = config.get("cpu_idle", False)
    shares = config.get("cpu_shares", 1024)
    burst = config.get("cpu_burst", 0)
    if controller.version == 1:
        all_of_them = {
            "shares": 3 if idle else shares,
            "cfs_quota_us": quota,
            "cfs_period_us": period,
            "cfs_burst_us": burst,
            "idle": idle,
        }
    else:
        weight = cpu.weight_of(shares)
        all_of_them = {"weight": weight, "max": (quota, period), "max_burst": burst, "idle": idle}
        if idle:
            del all_of_them["weight"]
    return {name: value for name, value in all_of_them.items() if controller.has(file_of(controller, name))}


def update(layout, cgroup, config, previous, pid):
    """As ``mydocker update`` does it; what takes it back."""
    opened = ContainerCgroup.opened(layout, cgroup.path, pid)
    opened.begin_update()
    try:
        cpu.mydocker_update(config, previous, opened.for_plugin("cpu"), pid)
    except Exception:
        assert opened.undo() == []
        raise
    return opened.undo


PERIODS = (1000, 5000, 50000, 100000, 1000000)


@st.composite
def limits_of_cpu(draw):
    values = {}
    how = draw(st.sampled_from(["nothing", "cpus", "quota", "period", "both"]))
    if how == "cpus":
        values["cpus"] = draw(st.sampled_from([0.01, 0.5, 1.0, -1]))
    if how in ("quota", "both"):
        values["cpu_quota"] = draw(st.sampled_from([-1, 1000, 20000, 100000, 900000]))
    if how in ("period", "both"):
        values["cpu_period"] = draw(st.sampled_from(PERIODS))
    quota, _ = cpu._bandwidth(values) or (None, 0)
    if quota is not None and draw(st.booleans()):
        values["cpu_burst"] = draw(st.sampled_from([0, 500, quota]))
    if draw(st.booleans()):
        values.update(draw(st.sampled_from([{"cpu_idle": True}, {"cpu_shares": 2}, {"cpu_shares": 2048}])))
    return ResourceConfig(values)


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(limits_of_cpu(), st.booleans()), min_size=2, max_size=6))
def test_every_order_of_updates_is_taken_and_can_be_taken_back(layout, cgroup, sleeping, steps):
    controller = cgroup.controller("cpu")
    everything = ResourceConfig(dict.fromkeys(("cpu_shares", "cpu_idle", "cpu_quota", "cpu_burst"), 1))
    previous = ResourceConfig({})
    update(layout, cgroup, previous, everything, sleeping.pid)
    for config, stays in steps:
        cpu.mydocker_validate(config, layout)
        before = in_force(controller)
        undo = update(layout, cgroup, config, previous, sleeping.pid)
        expected = wanted(config, controller)
        assert {name: value for name, value in in_force(controller).items() if name in expected} == expected
        if stays:
            previous = config
        else:
            assert undo() == []
            assert in_force(controller) == before


@pytest.fixture
def nested(cgroup, sleeping):
    """A cgroup that the container made in its own, with half a CPU of its own."""
    controller = cgroup.controller("cpu")
    if controller.version == 2:
        pytest.skip("v1 only: on v2 a cgroup is bounded by those above it, whatever it is given")
    os.mkdir(f"{controller.path}/nested")
    inner = type(controller)(type("Node", (), {"full_path": f"{controller.path}/nested"}))
    inner.cfs_quota_us = 50000
    return inner


def test_quota_and_period_change_around_a_nested_quota(layout, cgroup, sleeping, nested):
    """Either file first would be refused in one of these: a tenth of the CPUs in between is too little."""
    controller = cgroup.controller("cpu")
    previous = ResourceConfig({})
    for quota, period in ((60000, 100000), (600000, 1000000), (6000, 10000), (60000, 100000)):
        config = ResourceConfig({"cpu_quota": quota, "cpu_period": period})
        undo = update(layout, cgroup, config, previous, sleeping.pid)
        assert (controller.cfs_quota_us, controller.cfs_period_us) == (quota, period)
        assert undo() == []
        update(layout, cgroup, config, previous, sleeping.pid)
        previous = config


def test_less_than_a_nested_cgroup_has_is_refused_with_its_name_and_changes_nothing(layout, cgroup, sleeping, nested):
    controller = cgroup.controller("cpu")
    former = ResourceConfig({"cpu_quota": 60000, "cpu_period": 100000})
    update(layout, cgroup, former, ResourceConfig({}), sleeping.pid)
    for quota, period in ((40000, 100000), (400000, 1000000), (4000, 10000)):
        config = ResourceConfig({"cpu_quota": quota, "cpu_period": period})
        with pytest.raises(CgroupError, match=r"the container's own cgroup .*/nested allows 0\.5 CPUs"):
            update(layout, cgroup, config, former, sleeping.pid)
        assert (controller.cfs_quota_us, controller.cfs_period_us) == (60000, 100000)


def test_a_container_without_a_limit_gets_one_while_it_runs(layout, new_cgroup, hold):
    cgroup = new_cgroup()
    held = hold("sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done")
    update(layout, cgroup, ResourceConfig({"cpus": 0.1}), ResourceConfig({}), held.pid)
    cgroup.adopt()
    assert held.finish()[0] == 0
    assert cpu.mydocker_usage({}, cgroup)["throttled_periods"] > 0
