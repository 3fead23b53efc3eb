"""Memory limits of a running container are raised, lowered and taken away in every order.

An update is in force as a whole, or is refused in words and leaves all as it was.
"""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig
from mydocker.cgroups.group import ContainerCgroup
from subsystems import memory

pytestmark = pytest.mark.vm

MIB = 1 << 20
V1_UNLIMITED = 9223372036854771712
HELD = 60 * MIB
KEEP = """
import sys
kept = b"x" * int(sys.argv[1])
print("there", flush=True)
sys.stdin.readline()
"""

memories = st.sampled_from([None, -1, *(size * MIB for size in (100, 150, 200, 300, 1000))])


@st.composite
def limits_of_memory(draw):
    """Values of --memory and --memory-swap that may stand together, or neither."""
    size = draw(memories)
    if size is None:
        return ResourceConfig({})
    swaps = [None, -1] if size == -1 else [None, -1, size, size + 50 * MIB, 2000 * MIB]
    swap = draw(st.sampled_from(swaps))
    return ResourceConfig({"memory": size} if swap is None else {"memory": size, "memory_swap": swap})


@pytest.fixture
def keeper(cgroup, hold):
    """A process in the container that has 60 MiB of its own, and no memory limit yet."""
    memory.mydocker_account(cgroup)
    held = hold(sys.executable, "-Sc", KEEP, str(HELD))
    memory.mydocker_apply({}, cgroup, held.pid)
    held.process.stdin.write("\n")
    held.process.stdin.flush()
    assert held.process.stdout.readline() == "there\n"
    return held


def in_force(cgroup):
    """Memory, and memory with swap, each None for no limit."""
    controller = cgroup.controller("memory")
    if controller.version == 2:
        size = controller.max
        swap = controller.swap_max if controller.has("memory.swap.max") else None
        return size, None if size is None or swap is None else size + swap
    found = [controller.limit_in_bytes]
    found.append(controller.memsw_limit_in_bytes if controller.has("memory.memsw.limit_in_bytes") else V1_UNLIMITED)
    return tuple(None if limit == V1_UNLIMITED else limit for limit in found)


def wanted(config, cgroup):
    size, swap = config.get("memory", -1), config.get("memory_swap")
    if size == -1:
        return None, None
    total = 2 * size if swap is None else None if swap == -1 else swap
    controller = cgroup.controller("memory")
    counted = controller.has("memory.memsw.limit_in_bytes") or controller.has("memory.swap.max")
    return size, total if counted else None


def update(layout, cgroup, config, previous, pid):
    """As ``mydocker update`` does it; what takes it back."""
    opened = ContainerCgroup.opened(layout, cgroup.path, pid)
    opened.begin_update()
    try:
        memory.mydocker_update(config, previous, opened.for_plugin("memory"), pid)
    except Exception:
        assert opened.undo() == []
        raise
    return opened.undo


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(limits_of_memory(), st.booleans()), min_size=2, max_size=6))
def test_every_order_of_updates_is_taken_and_can_be_taken_back(layout, cgroup, keeper, steps):
    previous = ResourceConfig({})
    update(layout, cgroup, previous, ResourceConfig({"memory": 1}), keeper.pid)
    for config, stays in steps:
        memory.mydocker_validate(config, layout)
        before = in_force(cgroup)
        undo = update(layout, cgroup, config, previous, keeper.pid)
        assert in_force(cgroup) == wanted(config, cgroup)
        if stays:
            previous = config
        else:
            assert undo() == []
            assert in_force(cgroup) == before
    assert keeper.process.poll() is None


@pytest.mark.parametrize(
    "previous",
    [{}, {"memory": 100 * MIB}, {"memory": 100 * MIB, "memory_swap": 100 * MIB}, {"memory": -1, "memory_swap": -1}],
    ids=["no limit", "memory", "no swap", "unlimited"],
)
@pytest.mark.parametrize("values", [{"memory": 20 * MIB, "memory_swap": 20 * MIB}, {"memory": 20 * MIB}])
def test_a_limit_below_what_cannot_be_freed_is_refused_and_kills_nobody(layout, cgroup, keeper, previous, values):
    with open("/proc/swaps") as swaps:
        if len(swaps.readlines()) > 1 and "memory_swap" not in values:
            pytest.skip("this host has swap, to which the kernel moves what is too much")
    previous, config = ResourceConfig(previous), ResourceConfig(values)
    update(layout, cgroup, previous, ResourceConfig({}), keeper.pid)
    before = in_force(cgroup)
    with pytest.raises(
        LimitError, match=r"the container has \d+ MiB of .* in use, and the kernel cannot free"
    ) as caught:
        update(layout, cgroup, config, previous, keeper.pid)
    assert caught.value.field in values
    assert in_force(cgroup) == before
    if cgroup.controller("memory").version == 2:
        assert cgroup.controller("memory").high is None
    assert keeper.finish()[0] == 0
    assert memory.mydocker_usage({}, cgroup)["oom_kills"] == 0


CACHE = """
import os, sys, tempfile
with tempfile.TemporaryFile(dir=sys.argv[1]) as file:
    file.write(bytes(80 << 20))
    file.flush()
    os.fsync(file.fileno())
    print("there", flush=True)
    sys.stdin.readline()
"""


def test_a_limit_below_what_can_be_freed_is_in_force(layout, cgroup, hold, request):
    """Page cache goes, and nobody is killed for it."""
    directory = request.config.rootpath / ".pytest_cache"
    directory.mkdir(exist_ok=True)
    memory.mydocker_account(cgroup)
    reader = hold(sys.executable, "-Sc", CACHE, str(directory))
    memory.mydocker_apply({}, cgroup, reader.pid)
    reader.process.stdin.write("\n")
    reader.process.stdin.flush()
    assert reader.process.stdout.readline() == "there\n"
    assert memory.mydocker_usage({}, cgroup)["current_bytes"] > 60 * MIB
    update(layout, cgroup, ResourceConfig({"memory": 30 * MIB}), ResourceConfig({}), reader.pid)
    usage = memory.mydocker_usage({}, cgroup)
    assert usage["current_bytes"] <= 30 * MIB
    assert reader.finish()[0] == 0
    assert usage["oom_kills"] == 0


@pytest.mark.parametrize("others", [("memory_reservation",), ("memory_high", "memory_min", "memory_low")])
def test_what_else_there_is_changes_and_is_taken_back(layout, cgroup, keeper, others):
    names = {
        1: {"memory_reservation": "soft_limit_in_bytes"},
        2: {"memory_reservation": "low", "memory_high": "high", "memory_min": "min", "memory_low": "low"},
    }[layout.version("memory")]
    if not set(others) <= set(names):
        pytest.skip("v1 has none of these files")
    controller = cgroup.controller("memory")

    def files():
        return [getattr(controller, names[field]) for field in others]

    before = files()
    config = ResourceConfig({field: (200 + number) * MIB for number, field in enumerate(others)})
    undo = update(layout, cgroup, config, ResourceConfig({}), keeper.pid)
    assert files() == [config[field] for field in others]
    assert undo() == []
    assert files() == before
    update(layout, cgroup, config, ResourceConfig({}), keeper.pid)
    update(layout, cgroup, ResourceConfig({}), config, keeper.pid)
    assert files() == before


def test_a_container_without_a_limit_gets_one_while_it_runs(layout, new_cgroup, hold):
    cgroup = new_cgroup()
    greedy = hold(sys.executable, "-Sc", KEEP, str(200 * MIB))
    update(
        layout, cgroup, ResourceConfig({"memory": 50 * MIB, "memory_swap": 50 * MIB}), ResourceConfig({}), greedy.pid
    )
    cgroup.adopt()
    assert greedy.finish()[0] == -9
