"""The CPU flags: what is a value, what they mean together, and weights on v2."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig
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
    ],
)
def test_what_is_allowed(texts):
    cpu.mydocker_validate(config(**texts), ELSEWHERE)


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
    ],
)
def test_flags_become_quota_and_period(texts, bandwidth):
    assert cpu._bandwidth(config(**texts)) == bandwidth


def test_a_kernel_without_bandwidth_control_is_found_out(tmp_path):
    (tmp_path / "cpu.shares").write_text("1024\n")
    found = Hierarchy(version=1, mountpoint=str(tmp_path), controllers=("cpu",), own="/", base=str(tmp_path))
    probe = cpu.mydocker_probe(Layout.of([found]))
    assert probe.files == ("cpu.shares",)
    assert "CONFIG_CFS_BANDWIDTH" in probe.problem


def test_a_host_without_the_controller():
    assert "no cpu controller" in cpu.mydocker_probe(Layout.of([])).problem
    with pytest.raises(Exception, match="no cpu controller"):
        cpu.mydocker_validate(config(cpus="0.5"), Layout.of([]))
