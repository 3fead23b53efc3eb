"""The CPU flags: what is a value, what they mean together, and weights on v2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Hierarchy, Layout
from subsystems import cpu

ELSEWHERE = Layout.of([Hierarchy(version=2, mountpoint="/nowhere", controllers=("cpu",), own="/", base="/nowhere")])
FIELDS = {field.name: field for field in cpu.mydocker_fields()}


def config(**texts: str) -> ResourceConfig:
    flags = {name: "--" + name.replace("_", "-") for name in texts}
    return ResourceConfig({name: FIELDS[name].value_of(text) for name, text in texts.items()}, flags)


@pytest.mark.parametrize(
    "texts",
    [
        {"cpu_shares": "2"},
        {"cpu_shares": "262144"},
        {"cpus": "0.01"},
        {"cpus": str(os.cpu_count())},
        {"cpu_quota": "1000"},
        {"cpu_quota": "-1"},
        {"cpu_quota": "50000", "cpu_period": "1000000"},
        {"cpu_period": "1000"},
        {"cpus": "unlimited", "cpu_shares": "512"},
        {"cpus": "unlimited", "cpu_quota": "20000", "cpu_period": "50000"},
        {"cpus": "0.5", "cpu_quota": "-1", "cpu_period": "50000"},
        {"cpus": "0.5", "cpu_burst": "50000"},
        {"cpu_quota": "20000", "cpu_burst": "0"},
        {"cpu_burst": "0"},
        {"cpu_idle": "true"},
        {"cpu_idle": "false", "cpu_shares": "512"},
    ],
)
def test_what_is_allowed(texts):
    cpu.mydocker_validate(config(**texts), ELSEWHERE)


@pytest.mark.parametrize(("field", "value"), [("cpu_idle", True), ("cpu_weight", 16)])
def test_shares_from_before_give_way(field: str, value: object) -> None:
    """An update names the one alone; and the next one names neither."""
    values = {field: value, "cpu_shares": 512}
    for flags in ({field: "--it"}, {}):
        cpu.mydocker_validate(ResourceConfig(values, flags), ELSEWHERE)
    for flags in ({"cpu_shares": "--cpu-shares"}, {field: "--it", "cpu_shares": "--cpu-shares"}):
        with pytest.raises(LimitError, match="cannot be combined with --cpu-shares"):
            cpu.mydocker_validate(ResourceConfig(values, flags), ELSEWHERE)


@pytest.mark.parametrize(
    ("texts", "field", "words"),
    [
        ({"cpu_shares": "1"}, "cpu_shares", "1 is not between 2 and 262144"),
        ({"cpu_shares": "262145"}, "cpu_shares", "is not between 2 and 262144"),
        ({"cpu_shares": "half"}, "cpu_shares", "is not a whole number"),
        ({"cpus": "0.009"}, "cpus", "0.009 CPUs is less than the minimum, 0.01"),
        ({"cpus": "0"}, "cpus", "is not a number of CPUs"),
        ({"cpus": "100000"}, "cpus", f"100000 is more than this host has, {os.cpu_count()}"),
        ({"cpu_quota": "999"}, "cpu_quota", "999 µs is less than the minimum, 1000 µs"),
        ({"cpu_quota": "-2"}, "cpu_quota", "less than the minimum"),
        ({"cpu_period": "999"}, "cpu_period", "is not between 1000 and 1000000 µs"),
        ({"cpu_period": "1000001"}, "cpu_period", "is not between 1000 and 1000000 µs"),
        ({"cpus": "1", "cpu_quota": "5000"}, "cpus", "cannot be combined with --cpu-quota"),
        ({"cpus": "1", "cpu_period": "5000"}, "cpus", "cannot be combined with --cpu-period"),
        ({"cpus": "-1"}, "cpus", "is not a number of CPUs"),
        ({"cpu_burst": "1000"}, "cpu_burst", "it needs --cpus or --cpu-quota too"),
        ({"cpu_burst": "1000", "cpu_quota": "-1"}, "cpu_burst", "it needs --cpus or --cpu-quota too"),
        (
            {"cpu_burst": "50001", "cpus": "0.5"},
            "cpu_burst",
            "50001 µs is more than the quota of each period, 50000 µs",
        ),
        ({"cpu_burst": "-1"}, "cpu_burst", "is not a time"),
        ({"cpu_idle": "true", "cpu_shares": "2"}, "cpu_idle", "cannot be combined with --cpu-shares"),
        ({"cpu_idle": "1"}, "cpu_idle", "neither true nor false"),
        ({"cpu_rt_runtime": "1000"}, "cpu_rt_runtime", "cpu.rt_runtime_us exists on cgroup v1 only"),
        ({"cpu_rt_period": "1000"}, "cpu_rt_period", "cpu.rt_period_us exists on cgroup v1 only"),
        ({"cpu_rt_period": "0"}, "cpu_rt_period", "at least 1 µs"),
    ],
)
def test_what_is_refused(texts, field, words):
    with pytest.raises(LimitError) as caught:
        cpu.mydocker_validate(config(**texts), ELSEWHERE)
    assert caught.value.field == field
    assert words in caught.value.reason


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (100, 17), (512, 59), (1024, 100), (2048, 174), (4096, 303), (262144, 10000)]
)
def test_weights_of_known_shares(shares, weight):
    assert cpu.weight_of(shares) == weight


@given(shares=st.integers(2, 262143))
def test_more_shares_never_weigh_less(shares):
    assert 1 <= cpu.weight_of(shares) <= cpu.weight_of(shares + 1) <= 10000


@pytest.mark.parametrize(
    ("texts", "bandwidth"),
    [
        ({"cpus": "0.5"}, (50000, 100000)),
        ({"cpus": "0.01"}, (1000, 100000)),
        ({"cpus": "1.005"}, (100500, 100000)),
        ({"cpu_quota": "20000"}, (20000, 100000)),
        ({"cpu_quota": "20000", "cpu_period": "50000"}, (20000, 50000)),
        ({"cpu_quota": "-1"}, (None, 100000)),
        ({"cpu_period": "50000"}, (None, 50000)),
        ({"cpu_shares": "512"}, None),
        ({"cpus": "unlimited"}, (None, 100000)),
        ({"cpus": "unlimited", "cpu_quota": "20000", "cpu_period": "50000"}, (20000, 50000)),
        ({"cpus": "0.5", "cpu_quota": "-1", "cpu_period": "50000"}, (50000, 100000)),
    ],
)
def test_flags_become_quota_and_period(texts, bandwidth):
    assert cpu._bandwidth(config(**texts)) == bandwidth


def v1_host(base: Path) -> Layout:
    found = Hierarchy(version=1, mountpoint=str(base), controllers=("cpu",), own="/", base=str(base))
    return Layout.of([found])


def test_a_kernel_without_bandwidth_control_is_found_out(tmp_path):
    (tmp_path / "cpu.shares").write_text("1024\n")
    probe = cpu.mydocker_probe(v1_host(tmp_path))
    assert probe.files == ("cpu.shares",)
    assert "CONFIG_CFS_BANDWIDTH" in probe.problem


def test_a_host_without_the_controller():
    assert "no cpu controller" in cpu.mydocker_probe(Layout.of([])).problem
    for field in FIELDS:
        with pytest.raises(UnsupportedLimit, match="no cpu controller") as caught:
            cpu.mydocker_validate(ResourceConfig({field: 1}), Layout.of([]))
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("texts", "file"),
    [
        ({"cpus": "0.5"}, "cpu.cfs_quota_us"),
        ({"cpu_quota": "5000"}, "cpu.cfs_quota_us"),
        ({"cpu_burst": "1000"}, "cpu.cfs_burst_us"),
        ({"cpu_idle": "true"}, "cpu.idle"),
        ({"cpu_rt_runtime": "1000"}, "cpu.rt_runtime_us"),
        ({"cpu_rt_period": "1000"}, "cpu.rt_runtime_us"),
    ],
)
def test_what_an_old_v1_kernel_lacks_is_named_with_its_file(tmp_path, texts, file):
    (tmp_path / "cpu.shares").write_text("1024\n")
    with pytest.raises(UnsupportedLimit, match=file) as caught:
        cpu.mydocker_validate(config(**texts), v1_host(tmp_path))
    assert caught.value.field == next(iter(texts))
    cpu.mydocker_validate(config(cpu_shares="512", cpu_idle="false"), v1_host(tmp_path))


def test_realtime_has_no_more_than_its_period(tmp_path):
    for file in ("cpu.rt_runtime_us", "cpu.rt_period_us"):
        (tmp_path / file).touch()
    cpu.mydocker_validate(config(cpu_rt_runtime="1000", cpu_rt_period="1000"), v1_host(tmp_path))
    with pytest.raises(LimitError, match="1001 µs is more than the period, 1000 µs"):
        cpu.mydocker_validate(config(cpu_rt_runtime="1001", cpu_rt_period="1000"), v1_host(tmp_path))


@pytest.mark.cgroup_layout("v2")
def test_the_weight_of_v2(limit_journey):
    container = limit_journey(cpu, cpu_weight="42")
    assert container.read("cpu.weight") == "42"
    container.update(cpu_weight="10000")
    assert container.read("cpu.weight") == "10000"
    with pytest.raises(LimitError, match="it cannot be combined with"):
        container.update(cpu_shares="512")
    with pytest.raises(LimitError, match="0 is not between 1 and 10000"):
        container.update(cpu_weight="0")


@pytest.mark.cgroup_layout("v1")
def test_the_weight_of_v2_is_not_on_v1(limit_journey):
    with pytest.raises(UnsupportedLimit, match="use --cpu-shares"):
        limit_journey(cpu, cpu_weight="42")
