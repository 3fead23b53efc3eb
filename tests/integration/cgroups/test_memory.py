"""Memory limits by what the kernel does about them."""

from __future__ import annotations

import sys

import pytest

from subsystems import memory

pytestmark = pytest.mark.vm

GREEDY = (sys.executable, "-c", "b'x' * 200_000_000")
MODEST = (sys.executable, "-c", "b'x' * 20_000_000; print('fine')")
LIMIT = 60 << 20


@pytest.fixture
def limits(limited):
    return limited(memory)


def test_who_takes_too_much_is_killed_and_it_is_reported(limits, hold):
    config = limits.prepare(memory="60m")
    greedy = hold(*GREEDY)
    limits.attach(config, greedy)
    status, _ = greedy.finish()
    usage = limits.usage(config)
    assert status == -9
    assert usage["oom_kills"] == 1
    assert usage["limit_hits"] > 0
    assert 0.9 * LIMIT < usage["peak_bytes"] <= LIMIT


def test_who_takes_less_is_not_bothered(limits, hold):
    config = limits.prepare(memory="60m")
    modest = hold(*MODEST)
    limits.attach(config, modest)
    assert modest.finish() == (0, "fine")
    usage = limits.usage(config)
    assert usage["oom_kills"] == 0
    assert 20_000_000 < usage["peak_bytes"] < LIMIT


def test_the_smallest_limit_starts_a_command(limits, hold):
    assert limits.run(hold("true"), memory="512k") == (0, "")


def test_a_kill_in_a_cgroup_that_the_container_nested_is_counted(limits, hold):
    config = limits.prepare(memory="60m", memory_swap="60m")
    own = limits.cgroup.dirs[0]
    enter = f"mkdir {own}/nested && echo $$ > {own}/nested/cgroup.procs"
    if limits.cgroup.controller("memory").version == 2:
        enter += f" && echo +memory > {own}/cgroup.subtree_control"  # else the nested one counts for its parent
    greedy = hold("sh", "-c", f'{enter} && exec "$@"', "sh", *GREEDY)
    limits.attach(config, greedy)
    assert greedy.finish()[0] == -9
    assert limits.usage(config)["oom_kills"] == 1


def read(controller, v1_name, v2_name):
    return getattr(controller, v1_name if controller.version == 1 else v2_name)


@pytest.mark.parametrize(
    ("swap", "total"),
    [(None, 200 << 20), ("100m", 100 << 20), ("150m", 150 << 20), ("-1", None)],
    ids=["twice by default", "no swap", "some", "unlimited"],
)
def test_memory_and_swap_together(limits, swap, total):
    limits.prepare(memory="100m", **({"memory_swap": swap} if swap else {}))
    controller = limits.cgroup.controller("memory")
    swap_file = "memory.memsw.limit_in_bytes" if controller.version == 1 else "memory.swap.max"
    if not controller.has(swap_file):
        pytest.skip("this kernel does not account for swap")
    if controller.version == 2:
        assert controller.swap_max == (None if total is None else total - (100 << 20))
    else:
        assert controller.memsw_limit_in_bytes == (9223372036854771712 if total is None else total)


def test_limits_can_grow_and_shrink_afterwards(limits):
    """On v1 the order of the two writes matters, and one order fits neither both ways."""
    for size in ("100m", "400m", "50m", "50m", "1g", "10m"):
        limits.prepare(memory=size, memory_swap=size)
        limits.prepare(memory=size)
    controller = limits.cgroup.controller("memory")
    assert read(controller, "limit_in_bytes", "max") == 10 << 20


def test_reservation(limits):
    limits.prepare(memory_reservation="30m")
    controller = limits.cgroup.controller("memory")
    assert read(controller, "soft_limit_in_bytes", "low") == 30 << 20


def test_probe_names_files_that_a_container_really_has(layout, limits):
    limits.prepare(memory="60m")
    probe = memory.mydocker_probe(layout)
    assert (probe.problem, probe.version) == ("", layout.version("memory"))
    assert all(limits.cgroup.controller("memory").has(name) for name in probe.files)
