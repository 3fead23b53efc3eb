"""Cgroups of the kernel that the tests run on, processes to put into them, and the hooks of one plugin."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest

from mydocker import ResourceConfig
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout


@pytest.fixture(autouse=True)
def _needs_cgroups(layout: Layout) -> None:
    if os.geteuid() != 0 or layout.kind == "none":
        pytest.skip("needs root and cgroups")


@pytest.fixture
def new_cgroup(layout: Layout) -> Iterator[Callable[..., ContainerCgroup]]:
    """Makes container cgroups with names of their own, and removes them at the end."""
    made: list[ContainerCgroup] = []

    def make(parent: str = "mydocker") -> ContainerCgroup:
        made.append(ContainerCgroup(layout, f"{parent}/test-{uuid.uuid4().hex[:12]}"))
        return made[-1]

    yield make
    for cgroup in made:
        cgroup.remove()


@pytest.fixture
def cgroup(new_cgroup: Callable[..., ContainerCgroup]) -> ContainerCgroup:
    return new_cgroup()


class Held:
    """A command that runs once `finish` is called, so that limits can be put on it first."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(
            ["sh", "-c", 'read go; exec "$@"', "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def finish(self) -> tuple[int, str]:
        """Let it run: (its exit status as `subprocess` has it, its output)."""
        output, _ = self.process.communicate("\n", timeout=120)
        return self.process.returncode, output.strip()

    @property
    def cgroups(self) -> str:
        with open(f"/proc/{self.pid}/cgroup") as file:
            return file.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def hold() -> Iterator[Callable[..., Held]]:
    """Starts a command and holds it. What the test leaves of it is killed."""
    held: list[Held] = []

    def start(*argv: str) -> Held:
        held.append(Held(*argv))
        return held[-1]

    yield start
    for process in held:
        process.close()


@pytest.fixture
def sleeper(hold: Callable[..., Held]) -> Held:
    """A process that only waits."""
    return hold("true")


class Limited:
    """Calls the hooks of one plugin for one container, as the runner does."""

    def __init__(self, plugin: ModuleType, layout: Layout, cgroup: ContainerCgroup) -> None:
        self._plugin: Any = plugin
        self._layout = layout
        self.cgroup = cgroup

    def _parsed(self, texts: Mapping[str, str]) -> ResourceConfig:
        fields = {field.name: field for field in self._plugin.mydocker_fields()}
        return ResourceConfig({name: fields[name].value_of(text) for name, text in texts.items()})

    def prepare(self, **texts: str) -> ResourceConfig:
        """Parse, validate, prepare: the limits that are in force for whatever is attached."""
        config = self._parsed(texts)
        self._plugin.mydocker_validate(config, self._layout)
        self._plugin.mydocker_prepare(config, self.cgroup)
        return config

    def update(self, previous: ResourceConfig, held: Held, **texts: str) -> ResourceConfig:
        """Change the limits of what is attached, as ``mydocker update`` does: in force as a whole, or not at all."""
        config = self._parsed(texts)
        self._plugin.mydocker_validate(config, self._layout)
        opened = ContainerCgroup.opened(self._layout, self.cgroup.path, held.pid)
        opened.begin_update()
        try:
            self._plugin.mydocker_update(config, previous, opened.for_plugin(self._plugin.__name__), held.pid)
        except Exception:
            assert opened.undo() == []
            raise
        self.cgroup.adopt()
        return config

    def attach(self, config: ResourceConfig, held: Held) -> None:
        self._plugin.mydocker_apply(config, self.cgroup, held.pid)
        self.cgroup.runs(held.pid)

    def usage(self, config: ResourceConfig) -> Mapping[str, Any]:
        usage: Mapping[str, Any] = self._plugin.mydocker_usage(config, self.cgroup)
        return usage

    def account(self) -> None:
        """The cgroups that figures need, and no limit."""
        self._plugin.mydocker_account(self.cgroup)

    def remove(self) -> None:
        """What the core calls when the container has ended."""
        self.cgroup.kill()
        self._plugin.mydocker_remove(self.cgroup)
        self.cgroup.remove()

    def run(self, held: Held, **texts: str) -> tuple[int, str]:
        """(exit status, output) of the command under these limits."""
        self.attach(self.prepare(**texts), held)
        return held.finish()


@pytest.fixture
def limited(layout: Layout, cgroup: ContainerCgroup) -> Callable[[ModuleType], Limited]:
    """The hooks of a plugin, for the cgroup of this test."""
    return lambda plugin: Limited(plugin, layout, cgroup)
