"""The fake host of `mydocker.testing` answers each write as the kernel of this machine does."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker import CgroupError
from mydocker.cgroups import files
from mydocker.cgroups.controllers import Controller
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout
from mydocker.testing import FakeHost

pytestmark = pytest.mark.vm

#: Controller and version to what is written, in this order: file and text.
WRITES: dict[tuple[str, int], list[tuple[str, str]]] = {
    ("memory", 1): [
        ("memory.limit_in_bytes", "100m"),
        ("memory.limit_in_bytes", "8191"),
        ("memory.limit_in_bytes", "1x"),
        ("memory.limit_in_bytes", "max"),
        ("memory.limit_in_bytes", "-2"),
        ("memory.memsw.limit_in_bytes", "4096"),
        ("memory.memsw.limit_in_bytes", "200m"),
        ("memory.limit_in_bytes", "300m"),
        ("memory.memsw.limit_in_bytes", "100m"),
        ("memory.limit_in_bytes", "-1"),
        ("memory.memsw.limit_in_bytes", "-1"),
        ("memory.limit_in_bytes", "-1"),
        ("memory.soft_limit_in_bytes", "5000000"),
        ("memory.swappiness", "200"),
        ("memory.swappiness", "201"),
        ("memory.swappiness", "-1"),
        ("memory.swappiness", "many"),
        ("memory.oom_control", "1"),
        ("memory.oom_control", "2"),
        ("memory.oom_control", "0"),
        ("memory.use_hierarchy", "1"),
        ("memory.usage_in_bytes", "1"),
        ("memory.kmem.tcp.limit_in_bytes", "5000"),
        ("memory.failcnt", "7"),
        ("memory.absent", "1"),
    ],
    ("cpu", 1): [
        ("cpu.shares", "512"),
        ("cpu.shares", "1"),
        ("cpu.shares", "300000"),
        ("cpu.shares", "-1"),
        ("cpu.shares", "0x10"),
        ("cpu.shares", "010"),
        ("cpu.cfs_quota_us", "999"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_period_us", "999"),
        ("cpu.cfs_period_us", "1000001"),
        ("cpu.cfs_period_us", "50000"),
        ("cpu.cfs_burst_us", "50001"),
        ("cpu.cfs_burst_us", "1000"),
        ("cpu.cfs_quota_us", "-1"),
        ("cpu.idle", "2"),
        ("cpu.idle", "1"),
        ("cpu.shares", "512"),
        ("cpu.idle", "0"),
        ("cpu.stat", "1"),
    ],
    ("cpuset", 1): [
        ("cpuset.cpus", "0"),
        ("cpuset.cpus", "0-x"),
        ("cpuset.cpus", "9999"),
        ("cpuset.mems", "0"),
        ("cpuset.mems", "63"),
        ("cpuset.cpu_exclusive", "yes"),
        ("cpuset.memory_migrate", "1"),
        ("cpuset.sched_relax_domain_level", "1"),
        ("cpuset.sched_relax_domain_level", "-2"),
        ("cpuset.cpus", ""),
    ],
    ("freezer", 1): [
        ("freezer.state", "FROZEN"),
        ("freezer.state", "COLD"),
        ("freezer.state", "THAWED"),
    ],
    ("devices", 1): [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rwm"),
        ("devices.allow", "c 1:5 r"),
        ("devices.allow", "c 1:5 w"),
        ("devices.deny", "c 1:3 w"),
        ("devices.allow", "x 1:3 rwm"),
        ("devices.allow", "c 1 rwm"),
        ("devices.allow", "b *:* m"),
        ("devices.allow", "a"),
    ],
    ("blkio", 1): [
        ("blkio.throttle.read_bps_device", "4095:7 1000"),
        ("blkio.throttle.read_bps_device", "many"),
        ("blkio.bfq.weight", "1000"),
        ("blkio.bfq.weight", "1001"),
        ("blkio.bfq.weight", "0"),
    ],
    ("memory", 2): [
        ("memory.max", "100m"),
        ("memory.max", "8191"),
        ("memory.max", "1x"),
        ("memory.max", "-1"),
        ("memory.max", "max"),
        ("memory.high", "64k"),
        ("memory.low", "5000000"),
        ("memory.min", "max"),
        ("memory.swap.max", "1g"),
        ("memory.swap.max", "unlimited"),
        ("memory.oom.group", "1"),
        ("memory.oom.group", "2"),
        ("memory.events", "1"),
        ("memory.absent", "1"),
    ],
    ("cpu", 2): [
        ("cpu.weight", "1"),
        ("cpu.weight", "0"),
        ("cpu.weight", "10001"),
        ("cpu.weight", "many"),
        ("cpu.weight", "10000"),
        ("cpu.max", "50000 50000"),
        ("cpu.max", "25000"),
        ("cpu.max", "999 50000"),
        ("cpu.max", "max"),
        ("cpu.max", "max 999"),
        ("cpu.max", "many"),
        ("cpu.max.burst", "1000"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "50001"),
        ("cpu.idle", "1"),
        ("cpu.weight", "50"),
        ("cpu.idle", "0"),
        ("cpu.weight.nice", "5"),
        ("cpu.weight.nice", "20"),
    ],
    ("cpuset", 2): [
        ("cpuset.cpus", "0"),
        ("cpuset.cpus", "0-x"),
        ("cpuset.cpus", "9999"),
        ("cpuset.mems", "0"),
        ("cpuset.cpus", ""),
        ("cpuset.cpus.partition", "large"),
        ("cpuset.cpus.partition", "member"),
        ("cpuset.cpus.exclusive", "9999"),
    ],
    ("io", 2): [
        ("io.max", "4095:7 rbps=1000"),
        ("io.max", "many"),
        ("io.bfq.weight", "default 200"),
        ("io.bfq.weight", "1001"),
        ("io.prio.class", "restrict-to-be"),
        ("io.prio.class", "none-to-rt"),
        ("io.prio.class", "first"),
    ],
    ("cgroup", 2): [
        ("cgroup.freeze", "1"),
        ("cgroup.freeze", "2"),
        ("cgroup.freeze", "0"),
        ("cgroup.max.depth", "3"),
        ("cgroup.max.depth", "-1"),
        ("cgroup.max.descendants", "many"),
        ("cgroup.kill", "0"),
        ("cgroup.kill", "1"),
        ("cgroup.subtree_control", "+nothing"),
        ("cgroup.controllers", "1"),
        ("cgroup.pressure", "2"),
    ],
    **{
        ("pids", version): [
            ("pids.max", "5"),
            ("pids.max", "0"),
            ("pids.max", "-1"),
            ("pids.max", "4194304"),
            ("pids.max", "4194305"),
            ("pids.max", "many"),
            ("pids.max", "max"),
            ("pids.current", "1"),
        ]
        for version in (1, 2)
    },
    ("hugetlb", 1): [("hugetlb.2MB.limit_in_bytes", "5m"), ("hugetlb.2MB.limit_in_bytes", "max")],
    ("hugetlb", 2): [("hugetlb.2MB.max", "5m"), ("hugetlb.2MB.max", "many"), ("hugetlb.2MB.max", "max")],
}


@pytest.fixture
def imitated(tmp_path: Path, layout: Layout) -> Iterator[Callable[[int], ContainerCgroup]]:
    """A container's cgroup on a fake host of that cgroup version, with the CPUs that this machine has."""
    cpus = sorted(layout.root("cpuset").get_content("effective_cpus")) if layout.find("cpuset") else [0, 1]
    made: list[FakeHost] = []

    def make(version: int) -> ContainerCgroup:
        made.append(FakeHost.of_kind(f"v{version}", tmp_path / "imitation", cpus=cpus))
        return made[-1].cgroup()

    yield make
    for host in made:
        host.close()


def answer(controller: Controller, file: str, text: str) -> str:
    """What becomes of a write: the name of the errno, or what the file then holds."""
    try:
        controller.set_property(file, text)
    except CgroupError as error:
        return errno.errorcode[error.errno]
    if file.startswith("devices."):  # what is written there shows in another file
        file = "devices.list"
    return "" if file == "cgroup.kill" else controller.get_property(file)


@pytest.mark.parametrize(("name", "version"), WRITES, ids=str)
def test_writes(
    name: str, version: int, cgroup: ContainerCgroup, imitated: Callable[[int], ContainerCgroup]
) -> None:
    if cgroup.layout.version(name) != version:
        assert cgroup.layout.version(name) in (None, 3 - version)  # there the case of the other version is compared
        return
    real, fake = cgroup.controller(name), imitated(version).controller(name)
    known = [(file, text) for file, text in WRITES[name, version] if real.has(file) or file.endswith(".absent")]
    assert known
    expected = [(file, text, answer(real, file, text)) for file, text in known]
    assert [(file, text, answer(fake, file, text)) for file, text in known] == expected


_DIFFERENT = (".kill", ".allow", ".deny", ".stat", ".controllers", "B.max")


@pytest.mark.parametrize("name", sorted({name for name, _ in WRITES}))
def test_files_that_a_new_cgroup_has(
    name: str, cgroup: ContainerCgroup, imitated: Callable[[int], ContainerCgroup]
) -> None:
    """What both have holds the same. Linux 6.18 shows "no limit" of huge pages, not yet written, as a number."""
    version = cgroup.layout.version(name)
    if version is None:
        with pytest.raises(CgroupError, match=f"no {name} controller"):
            cgroup.controller(name)
        return
    real, fake = cgroup.controller(name), imitated(version).controller(name)
    wanted = {file for known, v in WRITES if (known, v) == (name, version) for file, _ in WRITES[known, v]}
    there = {file for file in wanted if real.has(file) and not file.endswith(_DIFFERENT)}
    assert {file: fake.get_property(file) for file in there} == {file: real.get_property(file) for file in there}


@pytest.mark.parametrize("name", ["memory", "pids", "cpuset", "cgroup"])
def test_a_process_moves_in_and_keeps_its_cgroup_busy(
    name: str,
    cgroup: ContainerCgroup,
    imitated: Callable[[int], ContainerCgroup],
    sleeper: Any,
) -> None:
    version = cgroup.layout.version(name)
    if version is None:
        assert cgroup.layout.find(name) is None
        return
    both = cgroup, imitated(version)
    for one in both:
        one.controller(name)
        one.attach(name, sleeper.pid)
        assert one.pids() == [sleeper.pid]
        with pytest.raises(OSError, match="busy"):
            files.remove_directory(one.dirs[0])
    refusals = [
        [answer(one.controller(name), "cgroup.procs", text) for text in ("4194305", "many", "-1")] for one in both
    ]
    assert refusals[0] == refusals[1]
    sleeper.finish()
    both[1].remove()
    assert both[1].dirs == ()


def test_a_v2_cgroup_with_processes_gives_no_controllers_to_its_children(
    cgroup: ContainerCgroup, imitated: Callable[[int], ContainerCgroup], sleeper: Any
) -> None:
    unified = cgroup.layout.find("cgroup")
    if unified is None:
        assert cgroup.layout.kind == "v1"
        return
    names = [name for name in ("memory", "hugetlb", "pids") if name in unified.controllers]
    if not names:
        assert cgroup.layout.kind == "hybrid"
        return
    outcomes = []
    for one in (cgroup, imitated(2)):
        for name in names:
            one.controller(name)
        one.attach("cgroup", sleeper.pid)
        core = one.controller("cgroup")
        outcomes.append({name: answer(core, "cgroup.subtree_control", f"+{name}") for name in names})
    sleeper.finish()
    assert outcomes[0] == outcomes[1] != {}
