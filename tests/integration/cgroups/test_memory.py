"""Memory limits by what the kernel does about them."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from mydocker import UnsupportedLimit
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


@pytest.fixture
def version(layout):
    return layout.version("memory")


@pytest.fixture
def v1_only(version):
    if version != 1:
        pytest.skip("v1 only: the test of refusals has v2")


@pytest.fixture
def v2_only(version):
    if version != 2:
        pytest.skip("v2 only: the test of refusals has v1")


@pytest.mark.parametrize(
    ("only", "file", "texts"),
    [
        (1, "memory.swappiness", {"memory_swappiness": "10"}),
        (1, "memory.oom_control", {"memory": "60m", "oom_kill_disable": "true"}),
        (2, "memory.min", {"memory_min": "10m"}),
        (2, "memory.low", {"memory_low": "10m"}),
        (2, "memory.high", {"memory_high": "10m"}),
        (2, "memory.oom.group", {"memory_oom_group": "true"}),
    ],
)
def test_what_the_other_version_has_is_refused_by_the_name_of_its_file(limits, version, only, file, texts):
    if version == only:
        limits.prepare(**texts)
    else:
        with pytest.raises(UnsupportedLimit, match=f"{file} exists on cgroup v{only} only") as caught:
            limits.prepare(**texts)
        assert caught.value.field == list(texts)[-1]
        assert not limits.cgroup.exists


def test_swappiness(limits, v1_only):
    controller = limits.cgroup.controller("memory")
    inherited = controller.swappiness
    limits.prepare(memory_swappiness="7")
    assert controller.swappiness == 7
    limits.prepare(memory_swappiness="-1")
    assert controller.swappiness == inherited


def test_without_the_killer_who_takes_too_much_stands_still(limits, hold, eventually, v1_only):
    config = limits.prepare(memory="60m", memory_swap="60m", oom_kill_disable="true")
    greedy = hold(*GREEDY)
    limits.attach(config, greedy)
    greedy.process.stdin.write("\n")
    greedy.process.stdin.flush()
    eventually(lambda: limits.cgroup.controller("memory").oom_control["under_oom"] == 1)
    assert greedy.process.poll() is None
    assert limits.usage(config)["oom_kills"] == 0
    limits.update(config, greedy, memory="60m", memory_swap="60m", oom_kill_disable="false")
    assert greedy.process.wait(60) == -signal.SIGKILL, "the killer is back"


def test_of_a_group_all_are_killed(limits, hold, v2_only):
    config = limits.prepare(memory="60m", memory_swap="60m", memory_oom_group="true")
    shell = hold("sh", "-c", 'sleep 600 & "$@"; echo "went on"', "sh", *GREEDY)
    limits.attach(config, shell)
    assert shell.finish() == (-signal.SIGKILL, "")
    assert limits.usage(config)["oom_kills"] >= 3, "the greedy one, the sleeper and the shell"


def test_without_a_group_one_is_killed(limits, hold):
    """Shows that the test above can fail."""
    config = limits.prepare(memory="60m", memory_swap="60m")
    shell = hold("sh", "-c", '"$@"; echo "went on"', "sh", *GREEDY)
    limits.attach(config, shell)
    assert shell.finish() == (0, "went on")
    assert limits.usage(config)["oom_kills"] == 1


#: Writes so many bytes to a file and reads them: page cache, which the kernel can take back.
CACHE = """
import os, sys, tempfile
with tempfile.TemporaryFile(dir=sys.argv[2]) as file:
    for _ in range(int(sys.argv[1]) >> 20):
        file.write(bytes(1 << 20))
    file.flush()
    os.fsync(file.fileno())
    print("there", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def on_disk(request):
    """A directory of a file system that has page cache, which can be taken back: not of a tmpfs."""
    return str(request.config.rootpath / ".pytest_cache")


def cached(hold, amount, on_disk):
    os.makedirs(on_disk, exist_ok=True)
    return hold(sys.executable, "-Sc", CACHE, str(amount), on_disk)


def fill(held):
    held.process.stdin.write("\n")
    held.process.stdin.flush()
    assert held.process.stdout.readline() == "there\n"


def test_above_high_memory_is_taken_back_and_nobody_is_killed(limits, hold, on_disk, v2_only):
    config = limits.prepare(memory_high="30m")
    reader = cached(hold, 100 << 20, on_disk)
    limits.attach(config, reader)
    fill(reader)
    usage = limits.usage(config)
    assert 0 < usage["current_bytes"] < 40 << 20
    assert usage["oom_kills"] == 0
    assert limits.cgroup.controller("memory").events["high"] > 0
    assert reader.finish()[0] == 0


@pytest.mark.parametrize("field", ["memory_reservation", "memory_low", "memory_min"])
def test_protected_memory_stays_when_others_are_hungry(layout, new_cgroup, hold, on_disk, v2_only, field):
    """The parents of a container protect nothing by themselves, and are given what it needs.

    The one above both, which is full, is where the kernel looks for memory: what counts is what is below it.
    """
    outer = new_cgroup().path
    left = {}
    for protection in (30 << 20, 0):
        quiet = new_cgroup(f"{outer}/inner")
        config = {field: protection}
        memory.mydocker_prepare(config, quiet)
        quiet.parents("memory")[1].max = 100 << 20
        keeper = cached(hold, 40 << 20, on_disk)
        memory.mydocker_apply(config, quiet, keeper.pid)
        fill(keeper)
        hungry = new_cgroup(outer)
        eater = cached(hold, 150 << 20, on_disk)
        memory.mydocker_apply({}, hungry, eater.pid)
        fill(eater)
        left[protection] = quiet.controller("memory").current
        for held in (keeper, eater):
            held.close()
        memory.mydocker_remove(quiet)
        parent = quiet.controller("memory").parent()
        assert (parent.low, parent.min) == (0, 0), "given back"
        for cgroup in (quiet, hungry):
            cgroup.remove()
    assert left[30 << 20] >= 28 << 20
    assert left[0] < left[30 << 20]


def test_what_the_containers_of_a_parent_protect_adds_up(new_cgroup, v2_only):
    parent = new_cgroup().path
    first, second = new_cgroup(parent), new_cgroup(parent)
    memory.mydocker_prepare({"memory_low": 10 << 20, "memory_min": 1 << 20}, first)
    memory.mydocker_prepare({"memory_reservation": 5 << 20}, second)
    above = first.controller("memory").parent()
    assert (above.low, above.min) == (15 << 20, 1 << 20)
    memory.mydocker_remove(first)
    assert (above.low, above.min) == (5 << 20, 0)


#: Memory of its own, of a file and shared.
HOLD_KINDS = """
import mmap, sys
own = b"x" * (40 << 20)
shared = mmap.mmap(-1, 20 << 20)
shared.write(bytes(20 << 20))
print("there", flush=True)
sys.stdin.readline()
"""
FIGURES = {"current_bytes", "peak_bytes", "swap_bytes", "kinds", "oom_kills", "limit_hits"}


def test_figures_are_the_same_on_v1_and_v2(limits, hold, version):
    limits.account()
    holder = hold(sys.executable, "-Sc", HOLD_KINDS)
    limits.attach({}, holder)
    fill(holder)
    usage = limits.usage({})
    missing = FIGURES - set(usage)
    assert missing <= {"swap_bytes"} if version == 1 else missing <= {"peak_bytes", "swap_bytes"}, "an older kernel"
    assert 60 << 20 < usage["current_bytes"] <= usage.get("peak_bytes", 1 << 40) < 120 << 20
    kinds = usage["kinds"]
    assert 40 << 20 < kinds["anon"] < 60 << 20
    assert 20 << 20 <= kinds["shmem"] < 22 << 20
    assert kinds["file"] >= kinds["shmem"], "a file too, of tmpfs"
    assert kinds["file_mapped"] >= 20 << 20
    assert 0 < kinds["kernel"] < 10 << 20
    assert kinds["anon"] + kinds["file"] + kinds["kernel"] <= usage["current_bytes"] + (4 << 20)
    assert (usage["oom_kills"], usage["limit_hits"], usage.get("swap_bytes", 0)) == (0, 0, 0)
    assert holder.finish()[0] == 0
    assert limits.usage({})["kinds"]["anon"] == 0


def test_waiting_for_memory_is_counted_where_the_kernel_does(limits, hold, on_disk, version):
    config = limits.prepare(memory="20m")
    reader = cached(hold, 60 << 20, on_disk)
    limits.attach(config, reader)
    fill(reader)
    usage = limits.usage(config)
    if version == 2 and limits.cgroup.controller("memory").has("memory.pressure"):
        assert set(usage["pressure"]) == {"some_seconds", "full_seconds"}
        assert 0 <= usage["pressure"]["full_seconds"] <= usage["pressure"]["some_seconds"] < 600
    else:
        assert "pressure" not in usage
    assert usage["limit_hits"] > 0


def test_figures_of_a_container_that_has_no_such_cgroup(limits):
    assert limits.usage({}) == {}
    assert not limits.cgroup.exists


def test_no_limit_is_none(limits, hold):
    assert limits.run(hold(*GREEDY), memory="-1") == (0, "")
    assert "limit_bytes" not in limits.usage({})


def test_probe_names_files_that_a_container_really_has(layout, limits):
    limits.prepare(memory="60m")
    probe = memory.mydocker_probe(layout)
    assert (probe.problem, probe.version) == ("", layout.version("memory"))
    assert all(limits.cgroup.controller("memory").has(name) for name in probe.files)
