"""``--frozen`` on imitated hosts: which hierarchy freezes, and what is written there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mydocker import ResourceConfig, UnsupportedLimit
from mydocker.cgroups import freezing
from mydocker.cgroups.layout import Layout
from mydocker.testing import FakeHost, Journey
from subsystems import freezer


@pytest.mark.parametrize(
    ("kind", "controller", "file", "value"),
    [
        ("v1", "freezer", "freezer.state", "FROZEN"),
        ("v2", "cgroup", "cgroup.freeze", "1"),
        ("hybrid", "cgroup", "cgroup.freeze", "1"),
    ],
)
def test_what_is_frozen_where(
    fake_host: Callable[..., FakeHost], kind: str, controller: str, file: str, value: str
) -> None:
    with Journey(fake_host(kind), freezer, frozen=True) as container:
        assert container.written == {file: value}
        assert container.attached(controller)
        assert freezing.is_frozen(container.cgroup)
        freezing.thaw(container.cgroup)
        assert not freezing.is_frozen(container.cgroup)


def test_not_frozen_is_as_not_given(cgroup_layout: FakeHost) -> None:
    with Journey(cgroup_layout, freezer, frozen=False) as container:
        assert container.written == {}
        assert not container.cgroup.exists


def test_a_host_that_cannot(fake_host: Callable[..., FakeHost]) -> None:
    config = ResourceConfig({"frozen": True})
    with pytest.raises(UnsupportedLimit, match="nothing can freeze a container here: mount cgroup2"):
        freezer.mydocker_validate(config, Layout.of([]))
    freezer.mydocker_validate(ResourceConfig({"frozen": False}), Layout.of([]))
    assert "mount cgroup2" in freezer.mydocker_probe(Layout.of([])).problem


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("v1", "write FROZEN to freezer.state"),
        ("v2", "write 1 to cgroup.freeze"),
        ("hybrid", "write 1 to cgroup.freeze"),
    ],
)
def test_explained(fake_host: Callable[..., FakeHost], kind: str, line: str) -> None:
    (said,) = freezer.mydocker_explain(ResourceConfig({"frozen": True}), fake_host(kind).layout)
    assert said == f"{line} before the command starts"
