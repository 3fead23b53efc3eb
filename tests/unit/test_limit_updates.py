"""Limits change in every order on imitated hosts: in force as a whole, or refused in words with all as it was.

The same on the real kernel is in tests/integration/cgroups. Here a container also has memory in use, and swap.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig
from mydocker.cgroups.group import ContainerCgroup
from mydocker.testing import FakeHost
from subsystems import cpu, cpuset, memory, pids

MIB = 1 << 20
V1_UNLIMITED = 9223372036854771712
FILES = {
    "v1": (
        *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.oom_control"),
        "memory.swappiness",
        *("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.idle"),
        *("cpuset.cpus", "cpuset.mems", "pids.max"),
    ),
    "v2": (
        *("memory.max", "memory.swap.max", "memory.high", "memory.low", "memory.min", "memory.oom.group"),
        *("cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle", "cpuset.cpus", "cpuset.mems", "pids.max"),
    ),
}
PROPERTY = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Running:
    """A container that runs on an imitated host, and whose limits change."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.host = FakeHost.of_kind(kind, path)  # type: ignore[arg-type]
        self.previous = ResourceConfig({})
        self.cgroup = self.host.cgroup()
        for name in ("memory", "cpu", "cpuset", "pids"):
            self.cgroup.controller(name)
        self.pid = self.host.new_process()
        self.cgroup.runs(self.pid)

    def files(self) -> dict[str, str]:
        return {name: self.host.read(f"mydocker/test/{name}") for name in FILES[self.kind]}

    def uses(self, used: int, swapped: int) -> None:
        """It holds so many bytes, of which nothing can be freed, and has so many in swap; or as many as it may."""
        limit, total = found(self)
        used = used if limit is None else min(used, limit)
        swapped = swapped if total is None else min(swapped, total - used)
        figures = {
            "v1": {"memory.usage_in_bytes": used, "memory.memsw.usage_in_bytes": used + swapped},
            "v2": {"memory.current": used, "memory.swap.current": swapped},
        }
        for name, value in figures[self.kind].items():
            self.host.report(f"mydocker/test/{name}", value)

    def update(self, config: ResourceConfig, later_fails: bool = False) -> None:
        """All plugins, as ``mydocker update`` calls them; ``later_fails``: a plugin that comes after them does."""
        opened = ContainerCgroup.opened(self.host.layout, self.cgroup.path, self.pid)
        opened.begin_update()
        try:
            for plugin in (cpu, cpuset, memory, pids):
                plugin.mydocker_validate(config, self.host.layout)
            for plugin in (cpu, cpuset, memory, pids):
                view = opened.for_plugin(plugin.__name__)
                plugin.mydocker_update(config, self.previous, view, self.pid)
            if later_fails:
                raise LimitError("other", "cannot be")
        except LimitError:
            assert opened.undo() == []
            raise
        self.previous = config


@pytest.fixture(params=["v1", "v2"])
def running(request: pytest.FixtureRequest, tmp_path: Path):
    container = Running(request.param, tmp_path / "cgroup")
    yield container
    container.host.close()


sizes = st.sampled_from([size * MIB for size in (1, 10, 20, 50, 100, 1000)])


@st.composite
def limits_of_memory(draw):
    size = draw(st.one_of(st.none(), st.just(-1), sizes))
    if size is None:
        return {}
    swaps = [None, -1] if size == -1 else [None, -1, size, size + MIB, size + 100 * MIB]
    swap = draw(st.sampled_from(swaps))
    return {"memory": size} if swap is None else {"memory": size, "memory_swap": swap}


@PROPERTY
@given(
    steps=st.lists(
        st.tuples(limits_of_memory(), sizes, st.sampled_from([0, MIB, 30 * MIB]), st.booleans()), min_size=2, max_size=8
    )
)
def test_memory_with_swap(running, steps):
    """Never EINVAL, whatever the order; below what is in use it is refused, on v2 as on v1."""
    running.uses(0, 0)
    running.update(ResourceConfig({}))
    for values, used, swapped, later_fails in steps:
        config = ResourceConfig(values)
        before = running.files()
        running.uses(used, swapped)
        try:
            running.update(config, later_fails)
        except LimitError as error:
            assert later_fails or "in use" in error.reason, error
            assert running.files() == before
        else:
            assert found(running) == in_bytes(values)


def in_bytes(values):
    """Memory, and both together; None for no limit."""
    size, swap = values.get("memory", -1), values.get("memory_swap")
    total = -1 if size == -1 else 2 * size if swap is None else swap
    return tuple(None if limit == -1 else limit for limit in (size, total))


def found(running):
    files = running.files()
    if running.kind == "v1":
        limits = (int(files["memory.limit_in_bytes"]), int(files["memory.memsw.limit_in_bytes"]))
        return tuple(None if limit == V1_UNLIMITED else limit for limit in limits)
    size, swap = (None if files[name] == "max" else int(files[name]) for name in ("memory.max", "memory.swap.max"))
    return size, None if size is None or swap is None else size + swap


@st.composite
def limits_of_all(draw):
    values = draw(limits_of_memory())
    for name, choices in {
        "pids_limit": [-1, 5, 100],
        "cpu_period": [1000, 100000, 1000000],
        "cpu_quota": [-1, 1000, 50000, 200000],
        "cpuset_cpus": [(0,), (1, 3), (0, 1, 2, 3)],
        "cpuset_mems": [(0,)],
    }.items():
        if draw(st.booleans()):
            values[name] = draw(st.sampled_from(choices))
    if values.get("cpu_quota", -1) > 0 and draw(st.booleans()):
        values["cpu_burst"] = draw(st.sampled_from([0, values["cpu_quota"] // 2, values["cpu_quota"]]))
    if draw(st.booleans()):
        values.update(draw(st.sampled_from([{"cpu_shares": 2}, {"cpu_shares": 1024}, {"cpu_idle": True}])))
    return values


ONE_VERSION = {
    "v1": [{}, {"memory_swappiness": 5}, {"memory": 2000 * MIB, "memory_swap": -1, "oom_kill_disable": True}],
    "v2": [{}, {"memory_high": 50 * MIB}, {"memory_low": MIB, "memory_min": MIB}, {"memory_oom_group": True}],
}


@PROPERTY
@given(steps=st.lists(st.tuples(limits_of_all(), st.integers(0, 3), st.booleans()), min_size=2, max_size=6))
def test_all_limits_together(running, steps):
    running.update(ResourceConfig({}))
    nothing = running.files()
    for values, number, later_fails in steps:
        choices = ONE_VERSION[running.kind]
        config = ResourceConfig({**values, **choices[number % len(choices)]})
        before = running.files()
        if later_fails:
            with pytest.raises(LimitError, match="cannot be"):
                running.update(config, later_fails=True)
            assert running.files() == before
        else:
            running.update(config)
    running.update(ResourceConfig({}))
    assert running.files() == nothing


def test_1024_shares_are_the_weight_100(running):
    running.update(ResourceConfig({"cpu_shares": 512}))
    running.update(ResourceConfig({"cpu_shares": 1024}))
    if running.kind == "v2":
        assert running.files()["cpu.weight"] == "100"
    else:
        assert running.files()["cpu.shares"] == "1024"


@pytest.mark.parametrize("running", ["v1"], indirect=True)
@pytest.mark.parametrize("first", [(50000, 100000), (500000, 1000000), (5000, 10000)])
@pytest.mark.parametrize("second", [(50000, 100000), (500000, 1000000), (5000, 10000), (20000, 100000)])
def test_from_one_bound_to_another_there_is_always_one(running, first, second):
    """Quota and period are two files on v1; in between, a parent with little more allows only one of the orders."""
    parent = running.cgroup.controller("cpu").parent()
    parent.cfs_quota_us = 60000
    running.update(ResourceConfig({"cpu_quota": first[0], "cpu_period": first[1]}))
    running.host.writes.clear()
    running.update(ResourceConfig({"cpu_quota": second[0], "cpu_period": second[1]}))
    assert [write.value for write in running.host.writes if write.name == "cpu.cfs_quota_us"] in ([str(second[0])], [])


def test_swap_in_use_is_not_made_unlawful(running):
    running.uses(50 * MIB, 30 * MIB)
    running.update(ResourceConfig({"memory": 100 * MIB}))
    with pytest.raises(LimitError, match="80 MiB of memory and swap in use") as caught:
        running.update(ResourceConfig({"memory": 60 * MIB, "memory_swap": 60 * MIB}))
    assert caught.value.field == "memory_swap"
    assert found(running) == (100 * MIB, 200 * MIB)
