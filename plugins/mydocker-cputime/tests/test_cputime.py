"""A budget of CPU seconds, on imitated hosts with cgroup v1, v2 and both."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

import mydocker_cputime
import pytest

from mydocker import LimitError, UnsupportedLimit
from mydocker.testing import FakeHost, Journey

Start = Callable[..., Journey]


def spend(container: Journey, seconds: float) -> None:
    """Let the container have used so much CPU time."""
    if container.version("cpuacct") == 1:
        container.report("cpuacct.usage", round(seconds * 1e9))
    else:
        container.report("cpu.stat", {"usage_usec": round(seconds * 1e6), "user_usec": 0, "system_usec": 0})


@pytest.fixture
def start(limit_journey: Start) -> Callable[..., Journey]:
    """A container with a budget, on each layout in turn; it has used nothing yet."""

    def begin(cpu_time: str, **options: Any) -> Journey:
        container = limit_journey(mydocker_cputime, cpu_time=cpu_time, **options)
        spend(container, 0)
        return container

    return begin


def test_it_looks_again_when_all_cpus_together_can_have_used_up_the_rest(start: Start) -> None:
    container = start("10s")
    cpus = mydocker_cputime.usable_cpus(container.host.layout)
    assert container.look() == [10 / cpus]
    spend(container, 8)
    assert container.look() == [2 / cpus]


def test_it_stops_the_container_at_its_budget_and_not_before(start: Start) -> None:
    container = start("10s")
    spend(container, 9.999)
    (answer,) = container.look()
    assert isinstance(answer, float) and answer > 0
    spend(container, 10.001)
    (verdict,) = container.look()
    assert (verdict.action, verdict.reason) == ("stop", "cpu-time")  # type: ignore[union-attr]
    assert verdict.text == "the container used 10.001 s of CPU time, its budget was 10 s"  # type: ignore[union-attr]


def test_the_cpus_are_those_that_a_container_may_come_to_have(fake_host: Callable[..., FakeHost]) -> None:
    one_cpu = fake_host("v2", cpus=[0])
    assert mydocker_cputime.usable_cpus(one_cpu.layout) == 1


def test_the_process_enters_the_cgroup_that_counts(start: Start) -> None:
    container = start("1s")
    assert container.attached("cpuacct" if container.version("cpuacct") else "cgroup")


def test_what_was_used_is_reported(start: Start) -> None:
    container = start("1s")
    spend(container, 0.25)
    container.end()
    assert container.usage == {"cpu_seconds": 0.25, "budget_seconds": 1.0, "exceeded": False}


def test_a_command_that_ended_over_its_budget_between_two_looks_is_reported_as_over_it(start: Start) -> None:
    container = start("1s")
    spend(container, 1.01)
    container.end()
    assert container.usage == {"cpu_seconds": 1.01, "budget_seconds": 1.0, "exceeded": True}


def test_an_update_wakes_the_watch_and_moves_the_budget(start: Start) -> None:
    container = start("10s")
    (watch,) = container.watches
    container.look()
    assert select.select([watch.fd], [], [], 0)[0] == []
    spend(container, 3)
    container.update(cpu_time="2s")
    assert select.select([watch.fd], [], [], 0)[0] == [watch.fd]
    (verdict,) = container.look()
    assert verdict.reason == "cpu-time"  # type: ignore[union-attr]
    assert select.select([watch.fd], [], [], 0)[0] == []
    container.update(cpu_time="1m")
    assert isinstance(container.look()[0], float)
    container.end()
    assert container.usage["budget_seconds"] == 60


def test_an_update_that_fails_leaves_the_budget(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    container = start("10s")
    container.update(cpu_time="20s")
    undone: list[Callable[[], object]] = []
    config = container.registry.parse({"cpu_time": "5s"})
    cgroup = container.cgroup
    monkeypatch.setattr(type(cgroup), "on_undo", lambda self, function: undone.append(function))
    mydocker_cputime.mydocker_update(config, container.config, cgroup)
    assert mydocker_cputime.budget_seconds(container.config, cgroup) == 5
    for function in undone:
        function()
    assert mydocker_cputime.budget_seconds(container.config, cgroup) == 20


def test_an_update_of_a_container_that_nobody_watches_is_refused(start: Start) -> None:
    container = start("10s")
    nothing = container.registry.parse({})
    with pytest.raises(LimitError, match="was started without it"):
        mydocker_cputime.mydocker_update(container.config, nothing, container.cgroup)


def test_a_budget_that_is_no_number_stops_the_container(start: Start) -> None:
    container = start("10s")
    path = container.cgroup.controller("cpuacct" if container.version("cpuacct") else "cgroup").path
    container.update(cpu_time="5s")
    (name,) = [name for name in os.listxattr(path) if name in mydocker_cputime.ATTRIBUTES]
    os.setxattr(path, name, b"much")
    with pytest.raises(ValueError, match="much"):
        container.look()
    os.setxattr(path, name, b"nan")
    (verdict,) = container.look()
    assert verdict.action == "stop"  # type: ignore[union-attr]


def test_nothing_of_the_watch_is_left(start: Start) -> None:
    container = start("1s")
    (watch,) = container.watches
    container.end()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(watch.fd)


@pytest.mark.parametrize("text", ["0", "-1s", "many", "", "10 apples"])
def test_a_budget_is_a_duration(limit_journey: Start, text: str) -> None:
    with pytest.raises(LimitError, match=r"^--cpu-time: "):
        limit_journey(mydocker_cputime, cpu_time=text)


def test_a_host_on_which_nothing_counts_is_refused(fake_host: Callable[..., FakeHost]) -> None:
    host = fake_host("v1", controllers=["memory"])
    with pytest.raises(UnsupportedLimit, match="no cgroup hierarchy here counts CPU time"):
        Journey(host, mydocker_cputime, cpu_time="1s")
    assert mydocker_cputime.mydocker_probe(host.layout).problem


def test_it_explains_what_it_would_do(start: Start) -> None:
    container = start("1500ms")
    (line,) = mydocker_cputime.mydocker_explain(container.config, container.host.layout)
    file = "cpuacct.usage" if container.version("cpuacct") else "cpu.stat"
    assert line == f"watch {file} and kill the container when it has used 1.5 s of CPU time"
