"""The memory flags: what is a value, and what they mean together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig
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
        ({"memory": "-1"}, "memory", '"-1" is not a size'),
        ({"memory": "0"}, "memory", "less than the minimum"),
        ({"memory": "100m", "memory_swap": "99m"}, "memory_swap", "99m is less than --memory 100m"),
        ({"memory": "100m", "memory_swap": "0"}, "memory_swap", "is less than --memory 100m"),
        ({"memory_swap": "100m"}, "memory_swap", "it needs --memory too"),
        ({"memory_swap": "-1"}, "memory_swap", "it needs --memory too"),
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
    assert {field.oci for field in FIELDS.values()} == {
        f"linux.resources.memory.{name}" for name in ("limit", "swap", "reservation")
    }


def test_a_host_without_the_controller_is_told_before_anything_is_made():
    nothing = Layout.of([])
    assert "no memory controller" in memory.mydocker_probe(nothing).problem
    with pytest.raises(Exception, match="no memory controller"):
        memory.mydocker_validate(ResourceConfig({"memory": 1 << 30}), nothing)


def test_a_v1_host_without_swap_accounting_is_found_out_before_anything_is_made(tmp_path):
    base = str(tmp_path)
    host = Layout.of([Hierarchy(version=1, mountpoint=base, controllers=("memory",), own="/", base=base)])
    config = ResourceConfig({"memory": 1 << 30, "memory_swap": 1 << 30})
    with pytest.raises(LimitError, match="does not account for swap"):
        memory.mydocker_validate(config, host)
    (tmp_path / "memory.memsw.limit_in_bytes").touch()
    memory.mydocker_validate(config, host)


@pytest.mark.parametrize("missing", ["memory.memsw.limit_in_bytes", "memory.swap.max"])
def test_swap_that_cannot_be_limited_is_an_error_only_if_it_was_asked_for(tmp_path, missing):
    from mydocker.cgroups.controllers import Directory, controller_at

    version, set_limits = (1, memory._set_limits_v1) if "memsw" in missing else (2, memory._set_limits_v2)
    for name in ("memory.limit_in_bytes", "memory.max"):
        (tmp_path / name).touch()
    (tmp_path / "memory.use_hierarchy").write_text("1")
    controller = controller_at("memory", version, Directory(str(tmp_path)))
    set_limits(controller, 100 << 20, None)
    with pytest.raises(LimitError, match="does not account for swap"):
        set_limits(controller, 100 << 20, 200 << 20)
    assert not (tmp_path / missing).exists()
