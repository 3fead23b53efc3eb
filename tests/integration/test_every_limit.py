"""Every field of the limits that come with mydocker, on the cgroup versions that this host has: in force, as the
command feels it or else by the kernel's own file, or refused by the name of what is missing, which best effort lists.

A field that is in neither table fails the first test: a new limit comes with a line here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker import plugins
from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

MIB = 1 << 20
BUSY = "import time; end = time.monotonic() + 0.3\nwhile time.monotonic() < end: pass"
HOG = f"bytearray({200 * MIB})"
SCHEDULER = "import os; print(os.sched_getscheduler(0) == os.SCHED_BATCH)"

#: What is read and what is in it: (controller, version) -> (file, a pattern of the shell, and words; others after |).
Files = Mapping[tuple[str, int], tuple[str, str]]

#: What is missing by its name: a controller, a file of one, a device, a scheduler.
MISSING = r"controller|net_cls|net_prio|[a-z]+\.[a-z_.]+|RDMA device|nothing shares"

#: field -> the limits of the run, and what the kernel's files hold then. {disk} is the number of a block device.
BY_FILE: dict[str, tuple[dict[str, Any], Files]] = {
    "memory_swap": (
        {"memory": "100m", "memory_swap": "150m"},
        {
            ("memory", 1): ("memory.memsw.limit_in_bytes", str(150 * MIB)),
            ("memory", 2): ("memory.swap.max", str(50 * MIB)),
        },
    ),
    "memory_swap_max": (
        {"memory": "100m", "memory_swap_max": "30m"},
        {("memory", 2): ("memory.swap.max", str(30 * MIB))},
    ),
    "memory_reservation": (
        {"memory_reservation": "50m"},
        {("memory", 1): ("memory.soft_limit_in_bytes", str(50 * MIB)), ("memory", 2): ("memory.low", str(50 * MIB))},
    ),
    "memory_swappiness": ({"memory_swappiness": "10"}, {("memory", 1): ("memory.swappiness", "10")}),
    "oom_kill_disable": (
        {"memory": "100m", "oom_kill_disable": True},
        {("memory", 1): ("memory.oom_control", "oom_kill_disable 1")},
    ),
    "memory_min": ({"memory_min": "1m"}, {("memory", 2): ("memory.min", str(MIB))}),
    "memory_low": ({"memory_low": "1m"}, {("memory", 2): ("memory.low", str(MIB))}),
    "memory_high": ({"memory_high": "50m"}, {("memory", 2): ("memory.high", str(50 * MIB))}),
    "memory_oom_group": ({"memory_oom_group": True}, {("memory", 2): ("memory.oom.group", "1")}),
    "cpu_shares": ({"cpu_shares": 1024}, {("cpu", 1): ("cpu.shares", "1024"), ("cpu", 2): ("cpu.weight", "100")}),
    "cpu_weight": ({"cpu_weight": 50}, {("cpu", 2): ("cpu.weight", "50")}),
    "cpu_burst": (
        {"cpus": "0.5", "cpu_burst": 10000},
        {("cpu", 1): ("cpu.cfs_burst_us", "10000"), ("cpu", 2): ("cpu.max.burst", "10000")},
    ),
    "cpu_idle": ({"cpu_idle": True}, {("cpu", 1): ("cpu.idle", "1"), ("cpu", 2): ("cpu.idle", "1")}),
    "cpu_rt_runtime": ({"cpu_rt_runtime": 1000}, {("cpu", 1): ("cpu.rt_runtime_us", "1000")}),
    "cpu_rt_period": (
        {"cpu_rt_runtime": 1000, "cpu_rt_period": 100000},
        {("cpu", 1): ("cpu.rt_period_us", "100000")},
    ),
    "cpuset_mems": (
        {"cpuset_mems": "0"},
        {("cpuset", 1): ("cpuset.mems", "0"), ("cpuset", 2): ("cpuset.mems", "0")},
    ),
    "cpuset_partition": (
        {"cpuset_partition": "member"},
        # The ordinary kind, which v1 has no word for: tests/integration/cgroups/test_cpuset.py makes the others.
        {("cpuset", 1): ("cpuset.cpus", ""), ("cpuset", 2): ("cpuset.cpus.partition", "member")},
    ),
    "hugetlb_limit": (
        {"hugetlb_limit": ["2MB=4m"]},
        {
            ("hugetlb", 1): ("hugetlb.2MB.limit_in_bytes", str(4 * MIB)),
            ("hugetlb", 2): ("hugetlb.2MB.max", str(4 * MIB)),
        },
    ),
    "io_weight": ({"io_weight": 200}, {("io", 2): ("io.weight", "default 200")}),
    "io_bfq_weight": (
        {"io_bfq_weight": 200},
        {("blkio", 1): ("blkio.bfq.weight", "200"), ("io", 2): ("io.bfq.weight", "200")},
    ),
    "blkio_weight": (
        {"blkio_weight": 200},
        {("blkio", 1): ("blkio.bfq.weight", "200"), ("io", 2): ("io.*weight", "default 200|default 1920")},
    ),
    "blkio_weight_device": (
        {"blkio_weight_device": ["{disk}:200"]},
        {("blkio", 1): ("blkio.bfq.weight_device", "{disk} 200"), ("io", 2): ("io.bfq.weight", "{disk} 200")},
    ),
    "io_max": (
        {"io_max": ["{disk} wiops=100"]},
        {("blkio", 1): ("blkio.throttle.write_iops_device", "{disk} 100"), ("io", 2): ("io.max", "wiops=100")},
    ),
    **{
        f"device_{way}_{unit}": (
            {f"device_{way}_{unit}": ["{disk}:4096"]},
            {
                ("blkio", 1): (f"blkio.throttle.{way}_{unit}_device", "{disk} 4096"),
                ("io", 2): ("io.max", f"{way[0]}{unit}=4096"),
            },
        )
        for way in ("read", "write")
        for unit in ("bps", "iops")
    },
    "net_cls_classid": ({"net_cls_classid": "10:1"}, {("net_cls", 1): ("net_cls.classid", str(0x100001))}),
    "net_prio": ({"net_prio": ["lo=5"]}, {("net_prio", 1): ("net_prio.ifpriomap", "lo 5")}),
    "rdma": ({"rdma": ["mlx5_0 hca_handle=2"]}, {}),
    "misc": ({"misc": ["sev=2"]}, {}),
    "cgroup_conf": ({"cgroup_conf": ["cgroup.max.depth=3"]}, {("cgroup", 2): ("cgroup.max.depth", "3")}),
}

#: field -> the limits of the run, the command, and what the result has then; "output" is what it printed.
BY_BEHAVIOUR: dict[str, tuple[dict[str, Any], list[str], dict[str, Any]]] = {
    "memory": ({"memory": "20m", "memory_swap": "20m"}, [sys.executable, "-Sc", HOG], {"reason": "oom"}),
    "cpus": ({"cpus": "0.1"}, [sys.executable, "-Sc", BUSY], {"throttled": True}),
    "cpu_quota": ({"cpu_quota": 10000}, [sys.executable, "-Sc", BUSY], {"throttled": True}),
    "cpu_period": ({"cpu_quota": 5000, "cpu_period": 50000}, [sys.executable, "-Sc", BUSY], {"throttled": True}),
    "cpuset_cpus": ({"cpuset_cpus": "{cpu}"}, ["nproc"], {"output": "1"}),
    "pids_limit": ({"pids_limit": 2}, ["sh", "-c", "sleep 9 & sleep 9 & wait"], {"output": "Cannot fork"}),
    "device": ({"device": ["/dev/zero"]}, ["head", "-c1", "/dev/kmsg"], {"output": "not permitted"}),
    "device_cgroup_rule": (
        {"device_cgroup_rule": ["c 1:5 r"]},
        ["head", "-c1", "/dev/kmsg"],
        {"output": "not permitted"},
    ),
    "device_rule": (
        {"device_rule": ["allow a *:* rwm", "deny c 1:11 r"]},
        ["head", "-c1", "/dev/kmsg"],
        {"output": "not permitted"},
    ),
    "ulimit": ({"ulimit": ["nofile=32"]}, ["sh", "-c", "ulimit -n"], {"output": "32"}),
    "oom_score_adj": ({"oom_score_adj": 500}, ["cat", "/proc/self/oom_score_adj"], {"output": "500"}),
    "shm_size": ({"shm_size": "8m"}, ["stat", "-f", "-c", "%b %S", "/dev/shm"], {"output": "2048 4096"}),
    "nice": ({"nice": 7}, ["nice"], {"output": "7"}),
    "sched_policy": ({"sched_policy": "batch"}, [sys.executable, "-Sc", SCHEDULER], {"output": "True"}),
    "io_priority": ({"io_priority": "be:7"}, ["ionice"], {"output": "best-effort: prio 7"}),
    "frozen": ({"frozen": True, "timeout": 0.3}, ["echo", "ran"], {"output": "", "reason": "timeout"}),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """The number of a block device, as in ``7:0``."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(MIB))
    command = ["losetup", "--find", "--show", str(image)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield Path("/sys/block", Path(found).name, "dev").read_text().strip()
    subprocess.run(["losetup", "--detach", found], check=True)


def filled(value: Any, **names: object) -> Any:
    if isinstance(value, list):
        return [filled(entry, **names) for entry in value]
    return value.format(**names) if isinstance(value, str) else value


def test_each_field_has_a_line_here() -> None:
    known = {field.name for plugin in plugins.load().plugins if plugin.dist == "mydocker" for field in plugin.fields}
    assert known == set(BY_FILE) | set(BY_BEHAVIOUR)
    assert set(BY_FILE).isdisjoint(BY_BEHAVIOUR)


@pytest.mark.parametrize("field", BY_BEHAVIOUR)
def test_the_command_feels_it(field: str, layout: Layout) -> None:
    limits, command, expected = BY_BEHAVIOUR[field]
    first = min(layout.root("cpuset").effective_cpus) if field == "cpuset_cpus" else 0
    given = {name: filled(value, cpu=first) for name, value in limits.items()}
    result = mydocker.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **given)
    output = (result.stdout or "").strip()
    assert expected.get("output", "") in output, output
    if not expected.get("output", "-"):
        assert output == ""
    assert result.reason == expected.get("reason", result.reason), output
    if "throttled" in expected:
        assert result.usage.plugins["cpu"]["throttled_periods"] > 0


@pytest.mark.parametrize("field", BY_FILE)
def test_the_kernels_file_has_it(field: str, layout: Layout, disk: str) -> None:
    limits, files = BY_FILE[field]
    given = {name: filled(value, disk=disk) for name, value in limits.items()}
    there = [(name, *place) for (name, version), place in files.items() if layout.version(name) == version]
    controller, file, words = there[0] if there else ("", "", "")
    # What the command sees below the mount point of a hierarchy is its own cgroup.
    path = f"{layout.require(controller).mountpoint}/{file}" if there else "/dev/null"
    try:
        result = mydocker.run(["sh", "-c", f"cat {path}"], capture_output=True, text=True, **given)
    except mydocker.UnsupportedLimit as error:
        refused = error
    else:
        assert there, f"{field} is taken on a host that has no file for it"
        anyone = filled(words, disk=disk).split("|")
        assert any(text in result.stdout for text in anyone), result.stdout + result.stderr
        return
    # Where the controller is on the right version, it is the kernel that lacks the file, or no scheduler goes by it.
    assert not there or "nothing shares" in refused.reason or not _is_there(layout, controller, file), str(refused)
    assert refused.field in given
    assert re.search(MISSING, refused.reason), str(refused)
    result = mydocker.run(["true"], limits="best-effort", **given)
    assert (result.exit_code, result.unenforced[refused.field]) == (0, refused.reason)


def _is_there(layout: Layout, controller: str, file: str) -> bool:
    """Whether a new cgroup has the file."""
    seen = f"{layout.require(controller).mountpoint}/{file}"
    return mydocker.run(["test", "-e", seen], pids_limit=10, accounting=True).exit_code == 0
