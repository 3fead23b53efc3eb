"""The figures of ``events`` in runc's shape, on imitated hosts of each layout."""

from __future__ import annotations

import pytest

from mydocker.cgroups.group import ContainerCgroup
from mydocker.oci.figures import figures_of

NO_LIMIT = (1 << 64) - 1


@pytest.fixture
def group(cgroup_layout):
    made = ContainerCgroup(cgroup_layout.layout, "engine/a")
    made.make_everywhere()
    yield made
    made.remove()


def test_every_name_is_there_in_every_layout(group):
    found = figures_of(group)
    names = {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"}
    assert set(found) == names
    assert {"usage", "throttling"} <= set(found["cpu"])
    assert {"kernel", "user"} <= set(found["cpu"]["usage"])
    for name in ("usage", "swap", "kernel", "kernelTCP"):
        assert {"limit", "failcnt"} <= set(found["memory"][name])
    assert "limit" not in found["pids"]


def test_a_container_without_cgroups_has_no_figures(cgroup_layout):
    found = figures_of(ContainerCgroup(cgroup_layout.layout, "engine/none"))
    assert found["cpu"]["usage"] == {"kernel": 0, "user": 0}
    assert found["pids"] == {}


@pytest.mark.cgroup_layout("v2")
def test_what_v2_says(group, cgroup_layout):
    def report(name: str, text: str) -> None:
        cgroup_layout.report(f"{group.dirs[0]}/{name}", text)

    report("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 3\nnr_throttled 2\nthrottled_usec 5")
    report("memory.current", "4096")
    report("memory.swap.current", "100")
    report("memory.stat", "anon 1\nfile 4096\nkernel 77")
    report("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 ")
    report("pids.current", "5")
    cgroup_layout.write(f"{group.dirs[0]}/memory.max", "8192")
    cgroup_layout.write(f"{group.dirs[0]}/memory.swap.max", "1048576")
    cgroup_layout.write(f"{group.dirs[0]}/pids.max", "9")
    found = figures_of(group)
    assert found["cpu"]["usage"] == {"total": 30000, "kernel": 10000, "user": 20000}
    assert found["cpu"]["throttling"] == {"periods": 3, "throttledPeriods": 2, "throttledTime": 5000}
    assert found["memory"]["cache"] == 4096
    assert found["memory"]["usage"]["limit"] == 8192
    assert found["memory"]["swap"]["limit"] == 8192 + 1048576
    assert found["memory"]["swap"]["usage"] == 4196
    assert found["memory"]["kernel"]["usage"] == 77
    assert found["pids"] == {"current": 5, "limit": 9}
    assert found["blkio"]["ioServiceBytesRecursive"][:2] == [
        {"major": 8, "op": "Read", "value": 1},
        {"major": 8, "op": "Write", "value": 2},
    ]
    assert [one["value"] for one in found["blkio"]["ioServicedRecursive"][:2]] == [3, 4]


@pytest.mark.cgroup_layout("v2")
def test_no_limit_is_the_largest_number(group):
    assert figures_of(group)["memory"]["usage"]["limit"] == NO_LIMIT
    assert figures_of(group)["memory"]["swap"]["limit"] == NO_LIMIT
