"""The flags for the marks of packets: values, what config.json says, and what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Layout
from subsystems import network

CLASS, PRIORITY = network.mydocker_fields()


@pytest.mark.parametrize(
    ("text", "value"), [("0x100001", 0x100001), ("10:1", 0x100001), ("1048577", 0x100001), (":3", None), ("0", 0)]
)
def test_values_of_a_class(text, value):
    if value is None:
        with pytest.raises(ValueError, match="is not a class"):
            network.parse_class(text)
    else:
        assert network.parse_class(text) == value


@pytest.mark.parametrize("text", ["", "10:", "ffff:10000", "0xg", "1:2:3", "-1", "0x100000000", "eth0"])
def test_what_is_no_class(text):
    with pytest.raises(ValueError, match="is not"):
        network.parse_class(text)


@pytest.mark.parametrize(("text", "value"), [("eth0=5", ("eth0", 5)), (" lo=0", ("lo", 0))])
def test_values_of_a_priority(text, value):
    assert network.parse_priority(text) == value


@pytest.mark.parametrize("text", ["", "eth0", "=5", "eth0=", "eth0=many", "eth0=-1", "e/0=1", "e 0=1", f"{'x' * 16}=1"])
def test_what_is_no_priority(text):
    with pytest.raises(ValueError, match="is not"):
        network.parse_priority(text)


@given(text=st.text())
@pytest.mark.parametrize("field", [CLASS, PRIORITY], ids=["class", "priority"])
def test_any_text_is_a_value_or_refused_with_a_reason(field, text):
    try:
        field.value_of(text)
    except LimitError as error:
        assert error.reason


def test_what_an_engine_sends():
    assert CLASS.from_oci(0) is None
    assert CLASS.value_of(CLASS.from_oci(0x100001)) == 0x100001
    texts = PRIORITY.from_oci([{"name": "lo", "priority": 3}, {"name": "eth0", "priority": 0}])
    assert PRIORITY.value_of(texts) == (("lo", 3), ("eth0", 0))


@pytest.mark.cgroup_layout("v1")
def test_what_is_written(limit_journey):
    container = limit_journey(network, net_cls_classid="10:1", net_prio=["lo=3"])
    assert container.read("net_cls.classid") == str(0x100001)
    assert "lo 3" in container.read("net_prio.ifpriomap").splitlines()
    assert container.attached("net_cls")
    assert container.attached("net_prio")
    container.update(net_cls_classid="20:2", net_prio=["lo=4"])
    assert container.read("net_cls.classid") == str(0x200002)
    assert "lo 4" in container.read("net_prio.ifpriomap").splitlines()


@pytest.mark.cgroup_layout("v1")
def test_one_alone_makes_no_cgroup_for_the_other(limit_journey):
    container = limit_journey(network, net_prio=["lo=3"])
    assert container.read("net_cls.classid") == "0"  # mounted together here


@pytest.mark.cgroup_layout("v2")
def test_cgroup_v2_has_none_of_them(cgroup_layout):
    for field in (CLASS, PRIORITY):
        config = ResourceConfig({field.name: field.value_of("1:1" if field is CLASS else "lo=1")})
        with pytest.raises(UnsupportedLimit, match="cgroup v2, which this host has, has no net_") as caught:
            network.mydocker_validate(config, cgroup_layout.layout)
        assert caught.value.field == field.name
    assert "has no net_cls" in network.mydocker_probe(cgroup_layout.layout).problem


def test_a_host_without_cgroups_is_told():
    assert network.mydocker_probe(Layout.of([])).version is None


@pytest.mark.cgroup_layout("v1")
def test_an_interface_that_is_not_there(cgroup_layout):
    with pytest.raises(LimitError, match="this host has no interface none0; it has"):
        network.mydocker_validate(ResourceConfig({"net_prio": (("none0", 1),)}), cgroup_layout.layout)
