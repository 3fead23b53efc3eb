"""The memory flags: what is a value, and what they mean together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Hierarchy, Layout
from subsystems import memory

ELSEWHERE = Layout.of([Hierarchy(version=2, mountpoint="/nowhere", controllers=("memory",), own="/", base="/nowhere")])
FIELDS = {field.name: field for field in memory.mydocker_fields()}


def validate(**texts: str) -> None:
    flags = {name: "--" + name.replace("_", "-") for name in texts}
    config = ResourceConfig({name: FIELDS[name].value_of(text) for name, text in texts.items()}, flags)
    memory.mydocker_validate(config, ELSEWHERE)


@pytest.mark.parametrize(
    "texts",
    [
        {"memory": "512k"},
        {"memory": "100m", "memory_swap": "100m"},
        {"memory": "100m", "memory_swap": "-1"},
        {"memory": "100m", "memory_swap": "1g", "memory_reservation": "100m"},
        {"memory_reservation": "50m"},
        {"memory": "-1"},
        {"memory": "unlimited", "memory_swap": "-1", "memory_reservation": "1g"},
        {"memory_min": "1m", "memory_low": "0", "memory_high": "50m", "memory": "100m", "memory_oom_group": "true"},
        {"memory_high": "-1"},
        {"oom_kill_disable": "false", "memory_swappiness": "-1"},
    ],
)
def test_what_is_allowed(texts):
    validate(**texts)


@pytest.mark.parametrize(
    ("texts", "field", "words"),
    [
        ({"memory": "100"}, "memory", "100 bytes is less than the minimum, 512k; did you mean 100m?"),
        ({"memory": "511k"}, "memory", "523264 bytes is less than the minimum, 512k"),
        ({"memory": "12x"}, "memory", '"12x" is not a size'),
        ({"memory": "-2"}, "memory", '"-2" is not a size'),
        ({"memory": "0"}, "memory", "0 bytes is less than the minimum, 512k; -1 is no limit"),
        ({"memory": "100m", "memory_swap": "99m"}, "memory_swap", "99m is less than --memory 100m"),
        ({"memory": "100m", "memory_swap": "0"}, "memory_swap", "is less than --memory 100m"),
        ({"memory_swap": "100m"}, "memory_swap", "it needs --memory too"),
        ({"memory": "-1", "memory_swap": "1g"}, "memory_swap", "it includes --memory, which has no limit"),
        ({"memory_high": "1"}, "memory_high", "less than the minimum"),
        (
            {"memory_low": "1m", "memory_reservation": "1m"},
            "memory_low",
            "cannot be combined with --memory-reservation",
        ),
        ({"memory_swappiness": "101"}, "memory_swappiness", "101 is not between 0 and 100"),
        ({"memory_swappiness": "0"}, "memory_swappiness", "memory.swappiness exists on cgroup v1 only"),
        (
            {"memory": "1g", "oom_kill_disable": "true"},
            "oom_kill_disable",
            "memory.oom_control exists on cgroup v1 only",
        ),
        ({"memory_oom_group": "yes"}, "memory_oom_group", "neither true nor false"),
        ({"memory": "100m", "memory_reservation": "101m"}, "memory_reservation", "101m is more than --memory 100m"),
        ({"memory_reservation": "1"}, "memory_reservation", "less than the minimum"),
    ],
)
def test_what_is_refused(texts, field, words):
    with pytest.raises(LimitError) as caught:
        validate(**texts)
    assert caught.value.field == field
    assert words in caught.value.reason


@given(size=st.integers(0, memory.MINIMUM - 1))
def test_too_little_is_never_a_value(size):
    with pytest.raises(ValueError, match="less than the minimum"):
        memory.parse_memory(f"{size}b")


def test_the_flags_of_the_tutorial_and_of_docker():
    assert set(FIELDS["memory"].flags) == {"-m", "--memory", "-mem"}
    assert {field.oci.split()[0] for field in FIELDS.values()} == {
        f"linux.resources.{name}"
        for name in (
            *("memory.limit", "memory.swap", "memory.reservation", "memory.swappiness", "memory.disableOOMKiller"),
            *("unified.memory.min", "unified.memory.low", "unified.memory.high", "unified.memory.oom.group"),
            "unified.memory.swap.max",
        )
    }


def test_a_host_without_the_controller_is_told_before_anything_is_made():
    nothing = Layout.of([])
    assert "no memory controller" in memory.mydocker_probe(nothing).problem
    for field in FIELDS:
        with pytest.raises(UnsupportedLimit, match="no memory controller") as caught:
            memory.mydocker_validate(ResourceConfig({field: 1 << 30}), nothing)
        assert caught.value.field == field


def v1_host(base: str) -> Layout:
    return Layout.of([Hierarchy(version=1, mountpoint=base, controllers=("memory",), own="/", base=base)])


@pytest.mark.parametrize(
    ("values", "file"),
    [
        ({"memory_min": 1}, "memory.min"),
        ({"memory_low": 1}, "memory.low"),
        ({"memory_high": 1 << 20}, "memory.high"),
        ({"memory_oom_group": True}, "memory.oom.group"),
        ({"memory_swappiness": 0}, "memory.swappiness"),
        ({"memory": 1 << 30, "oom_kill_disable": True}, "memory.oom_control"),
    ],
)
def test_what_a_v1_host_lacks_is_named_with_its_file(tmp_path, values, file):
    with pytest.raises(UnsupportedLimit, match=file) as caught:
        memory.mydocker_validate(ResourceConfig(values), v1_host(str(tmp_path)))
    assert caught.value.field == list(values)[-1]


@pytest.mark.parametrize("memory_", [None, -1])
def test_the_killer_is_not_disabled_without_a_limit(tmp_path, memory_):
    (tmp_path / "memory.oom_control").touch()
    config = ResourceConfig({"oom_kill_disable": True, **({} if memory_ is None else {"memory": memory_})})
    with pytest.raises(LimitError, match="it needs --memory too"):
        memory.mydocker_validate(config, v1_host(str(tmp_path)))


def test_a_v1_host_without_swap_accounting_is_found_out_before_anything_is_made(tmp_path):
    base = str(tmp_path)
    host = v1_host(base)
    config = ResourceConfig({"memory": 1 << 30, "memory_swap": 1 << 30})
    with pytest.raises(UnsupportedLimit, match=r"no memory\.memsw\.limit_in_bytes .* does not account for swap"):
        memory.mydocker_validate(config, host)
    (tmp_path / "memory.memsw.limit_in_bytes").touch()
    memory.mydocker_validate(config, host)


@pytest.mark.parametrize("missing", ["memory.memsw.limit_in_bytes", "memory.swap.max"])
def test_swap_that_cannot_be_limited_is_an_error_only_if_it_was_asked_for(tmp_path, missing):
    from mydocker.cgroups.plain import Directory, controller_at

    version, set_limits = (1, memory._set_limits_v1) if "memsw" in missing else (2, memory._set_limits_v2)
    for name in ("memory.limit_in_bytes", "memory.max"):
        (tmp_path / name).touch()
    (tmp_path / "memory.use_hierarchy").write_text("1")
    (tmp_path / "memory.current").write_text("0")
    controller = controller_at("memory", version, Directory(str(tmp_path)))
    set_limits(controller, 100 << 20, None)
    with pytest.raises(LimitError, match="does not account for swap"):
        set_limits(controller, 100 << 20, 200 << 20)
    assert not (tmp_path / missing).exists()


@pytest.mark.cgroup_layout("v2")
def test_swap_by_itself(limit_journey):
    container = limit_journey(memory, memory="100m", memory_swap_max="30m")
    assert (container.read("memory.max"), container.read("memory.swap.max")) == (str(100 << 20), str(30 << 20))
    container.update(memory_swap_max="0")
    assert (container.read("memory.max"), container.read("memory.swap.max")) == (str(100 << 20), "0")
    container.update(memory_swap_max="-1")
    assert container.read("memory.swap.max") == "max"
    with pytest.raises(LimitError, match="it cannot be combined with"):
        container.update(memory_swap="200m")


@pytest.mark.cgroup_layout("v1")
def test_swap_by_itself_is_not_on_v1(limit_journey):
    with pytest.raises(UnsupportedLimit, match=r"memory\.swap\.max exists on cgroup v2 only"):
        limit_journey(memory, memory_swap_max="30m")


@pytest.mark.cgroup_layout("v2")
def test_all_memory_is_protected(limit_journey):
    container = limit_journey(memory, memory_min="max")
    assert container.read("memory.min") == "max"
