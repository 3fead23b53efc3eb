"""``--nice``, ``--sched-policy`` and ``--io-priority``: what is written, and what goes together."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig, UnsupportedLimit
from mydocker.linux import scheduling as linux
from mydocker.spec import Spec
from subsystems import io_priority, scheduling


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("other", ("other",)),
        ("batch", ("batch",)),
        ("idle", ("idle",)),
        ("fifo:1", ("fifo", 1)),
        ("rr:99", ("rr", 99)),
        ("SCHED_RR:5", ("rr", 5)),
        ("deadline:10ms/30ms/0.1s", ("deadline", 10_000_000, 30_000_000, 100_000_000)),
    ],
)
def test_policies(text: str, value: tuple[int | str, ...]) -> None:
    assert scheduling.parse_sched_policy(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a scheduling policy: write other, batch"),
        ("FIFO:1", "not a scheduling policy"),
        ("fifo", "fifo needs a priority between 1 and 99"),
        ("rr:0", "rr needs a priority between 1 and 99"),
        ("rr:100", "rr needs a priority"),
        ("fifo:x", "not a whole number"),
        ("batch:3", "batch takes nothing after it"),
        ("deadline", "not RUNTIME/DEADLINE/PERIOD"),
        ("deadline:1ms/2ms", "not RUNTIME/DEADLINE/PERIOD"),
        ("deadline:x/2ms/3ms", "not a duration"),
        ("deadline:3ms/2ms/4ms", "the deadline no less than it"),
        ("deadline:1ms/3ms/2ms", "the period no less"),
        ("deadline:1us/2ms/3ms", "2us or more"),
    ],
)
def test_policies_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        scheduling.parse_sched_policy(text)


@pytest.mark.parametrize("text", ["-21", "20", "x", "", "1.5"])
def test_nice_values_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"between -20|whole number"):
        scheduling.parse_nice(text)


PARSERS = (scheduling.parse_sched_policy, scheduling.parse_nice, io_priority.parse_io_priority)


@given(st.sampled_from(PARSERS), st.text())
def test_any_text_is_a_value_or_refused_with_a_reason(parse: object, text: str) -> None:
    assert callable(parse)
    try:
        parse(text)
    except ValueError as e:
        assert str(e)


@pytest.mark.parametrize("policy", ["idle", "fifo:1", "deadline:1ms/2ms/3ms"])
def test_nice_has_no_meaning_for_some_policies(policy: str) -> None:
    config = ResourceConfig({"nice": 5, "sched_policy": scheduling.parse_sched_policy(policy)})
    with pytest.raises(LimitError, match="has no meaning for"):
        scheduling.mydocker_validate(config)
    scheduling.mydocker_validate(ResourceConfig({"nice": 5, "sched_policy": ("batch",)}))


def test_deadline_cannot_have_a_reaper() -> None:
    config = ResourceConfig({"sched_policy": ("deadline", 1, 2, 3)})
    with pytest.raises(LimitError, match="cannot be combined with --init"):
        scheduling.mydocker_amend(config, Spec(args=(b"true",), init=True))
    assert scheduling.mydocker_amend(config, Spec(args=(b"true",))) is None


def test_what_is_not_set_stays() -> None:
    present = linux.SchedAttr(policy=linux.SCHED_BATCH, nice=3, runtime=1_400_000)
    assert scheduling._attributes(ResourceConfig({"nice": 7}), present) == linux.SchedAttr(
        policy=linux.SCHED_BATCH, nice=7
    )
    assert scheduling._attributes(ResourceConfig({"sched_policy": ("other",)}), present) == linux.SchedAttr(nice=3)


def test_explained() -> None:
    config = ResourceConfig({"nice": 5, "sched_policy": ("fifo", 3), "io_priority": ("be", 7)})
    assert scheduling.mydocker_explain(config) == ["sched_setattr: policy fifo, priority 3", "sched_setattr: nice 5"]
    assert io_priority.mydocker_explain(config) == ("ioprio_set: class be, level 7",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rt", ("rt", 4)),
        ("rt:0", ("rt", 0)),
        ("be:7", ("be", 7)),
        ("best-effort", ("be", 4)),
        ("realtime:1", ("rt", 1)),
        ("idle", ("idle", 0)),
        ("idle:0", ("idle", 0)),
        ("IOPRIO_CLASS_BE:2", ("be", 2)),
    ],
)
def test_io_priorities(text: str, value: tuple[str, int]) -> None:
    assert io_priority.parse_io_priority(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a class of io priority"),
        ("none", "not a class of io priority"),
        ("BE", "not a class of io priority"),
        ("be:8", "8 is not a level between 0"),
        ("be:-1", "not a level"),
        ("be:", "not a whole number"),
        ("idle:3", "idle has no levels"),
    ],
)
def test_io_priorities_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        io_priority.parse_io_priority(text)


def test_a_kernel_without_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_thread: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(linux, "ioprio_get", missing)
    monkeypatch.setattr(linux, "sched_getattr", missing)
    with pytest.raises(UnsupportedLimit, match="this kernel has no io priorities"):
        io_priority.mydocker_validate(ResourceConfig({"io_priority": ("be", 4)}))
    assert "CONFIG_BLOCK" in io_priority.mydocker_probe().problem
    with pytest.raises(UnsupportedLimit, match="this kernel does not have the policy rr"):
        scheduling.mydocker_validate(ResourceConfig({"sched_policy": ("rr", 4)}))
