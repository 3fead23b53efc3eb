"""The fixtures of `mydocker.testing`. A ``conftest.py`` asks for them::

    pytest_plugins = ["mydocker.testing.pytest_plugin"]

There is no entry point for pytest: tests that have nothing to do with limits do not load this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from mydocker.testing.host import FakeHost
from mydocker.testing.journey import Journey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mydocker import Result

LAYOUTS = ("v1", "v2", "hybrid")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cgroup_layout(kind, ...): run with the fixture cgroup_layout for these of v1, v2 and hybrid only"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cgroup_layout" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("cgroup_layout")
        metafunc.parametrize("cgroup_layout", marker.args if marker is not None else LAYOUTS, indirect=True)


@pytest.fixture
def fake_host(tmp_path: Path) -> Iterator[Callable[..., FakeHost]]:
    """Make a `FakeHost`: ``fake_host("v2", without=["memory.swap.*"])``. All are closed at the end of the test."""
    made: list[FakeHost] = []

    def make(kind: Any, **options: Any) -> FakeHost:
        made.append(FakeHost.of_kind(kind, tmp_path / f"cgroup{len(made)}", **options))
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture
def cgroup_v1(fake_host: Callable[..., FakeHost]) -> FakeHost:
    """A `FakeHost` with cgroup v1."""
    return fake_host("v1")


@pytest.fixture
def cgroup_v2(fake_host: Callable[..., FakeHost]) -> FakeHost:
    """A `FakeHost` with cgroup v2."""
    return fake_host("v2")


@pytest.fixture
def cgroup_hybrid(fake_host: Callable[..., FakeHost]) -> FakeHost:
    """A `FakeHost` with both: hugetlb, rdma and misc on v2, the others on v1."""
    return fake_host("hybrid")


@pytest.fixture
def cgroup_layout(request: pytest.FixtureRequest, fake_host: Callable[..., FakeHost]) -> FakeHost:
    """A `FakeHost` of each kind in turn: the test runs three times.

    ``@pytest.mark.cgroup_layout("v2")`` restricts it to some.
    """
    return fake_host(request.param)


@pytest.fixture
def limit_journey(request: pytest.FixtureRequest, cgroup_layout: FakeHost) -> Iterator[Callable[..., Journey]]:
    """Start a `Journey` on a host of each layout in turn: ``limit_journey(mydocker_tasks, tasks="5")``.

    ``host=`` takes it to another `FakeHost`. What is not ended by the test ends with it.
    """
    started: list[Journey] = []

    def start(*plugins: Any, host: FakeHost | None = None, **values: Any) -> Journey:
        started.append(Journey(host or cgroup_layout, *plugins, **values))
        return started[-1]

    yield start
    for journey in started:
        journey.end()


@pytest.fixture
def run_container() -> Callable[..., Result]:
    """`mydocker.run` with its output captured as text. The plugin must be installed.

    Where this machine cannot run a container, or lacks what a limit needs, the test is skipped with the reason.
    """
    import mydocker

    def run(argv: list[str], **keywords: Any) -> Result:
        if "capture_output" not in keywords and not keywords.keys() & {"stdout", "stderr"}:
            keywords["capture_output"] = True
        try:
            return mydocker.run(argv, **{"text": True, **keywords})
        except mydocker.UnsupportedLimit as error:
            pytest.skip(f"this machine lacks what the limit needs: {error}")
        except mydocker.MydockerError:
            reason = _no_containers()
            if reason:
                pytest.skip(reason)
            raise

    return run


def _no_containers() -> str:
    """Why not even a container without limits runs here, or empty."""
    import mydocker

    try:
        mydocker.run([os.path.realpath("/bin/true")])
    except mydocker.MydockerError as error:
        return f"no container can be run here: {error}"
    return ""
