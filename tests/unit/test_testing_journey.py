"""The way of a limit through a run on a host that does not exist."""

from __future__ import annotations

import os
import resource
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mydocker import (
    CgroupError,
    ConflictError,
    LimitError,
    PluginError,
    ResourceField,
    Tmpfs,
    UsageError,
    Verdict,
    Watch,
    hookimpl,
)
from mydocker.amendment import Amendment
from mydocker.resources import parse_integer
from mydocker.testing import Journey


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., types.ModuleType]]:
    """Make a module with one field of its name and these hooks."""

    def make(name: str, **hooks: Any) -> types.ModuleType:
        module = types.ModuleType(f"mydocker_{name}")
        field = ResourceField(name=name, flags=(f"--{name}",), parse=parse_integer, metavar="N", help="A limit.")
        module.mydocker_fields = hookimpl(lambda: [field])  # type: ignore[attr-defined]
        for hook, function in hooks.items():
            setattr(module, f"mydocker_{hook}", hookimpl(function))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    yield make


def test_the_hooks_are_called_in_the_order_of_a_run(limit_journey, plugin):
    called: list[str] = []
    hooks = {
        "validate": lambda config, layout: called.append("validate"),
        "amend": lambda config, spec: called.append("amend"),
        "prepare": lambda config, cgroup: called.append("prepare"),
        "apply": lambda config, cgroup, pid: called.append("apply"),
        "watch": lambda config, cgroup, pid: called.append("watch") or [],
        "usage": lambda config, cgroup: called.append("usage") or {"n": config["ordered"]},
        "remove": lambda cgroup: called.append("remove"),
    }
    with limit_journey(plugin("ordered", **hooks), ordered=7) as container:
        assert called == ["validate", "amend", "prepare", "apply", "watch"]
        assert container.config["ordered"] == 7
    assert called[5:] == ["usage", "remove"]
    assert container.usage == {"n": 7}
    assert container.figures.plugins == {"ordered": {"n": 7}}


def test_the_process_is_a_real_one_that_has_executed_its_program(limit_journey, plugin):
    """Setting RLIMIT_STACK in the midst of execve(2) would have no effect."""

    def apply(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_STACK, (1 << 20, 1 << 20))

    with limit_journey(plugin("stack", apply=apply), stack=1) as container:
        time.sleep(0.02)
        assert resource.prlimit(container.pid, resource.RLIMIT_STACK) == (1 << 20, 1 << 20)
    assert not os.path.exists(f"/proc/{container.pid}")


def test_what_is_written_and_what_the_kernel_made_of_it(limit_journey, plugin):
    def prepare(config: Any, cgroup: Any) -> None:
        memory = cgroup.controller("memory")
        memory.set_property("memory.max" if memory.version == 2 else "memory.limit_in_bytes", config["ram"])

    module = plugin("ram", prepare=prepare, apply=lambda cgroup, pid: cgroup.attach("memory", pid))
    with limit_journey(module, ram=5000) as container:
        name = "memory.max" if container.version("memory") == 2 else "memory.limit_in_bytes"
        assert container.written == {name: "5000"}
        assert container.read(name) == "4096"
        assert container.attached("memory")
        assert container.host.cgroup_of(container.pid, "memory") == "mydocker/test"


@pytest.mark.parametrize("hook", ["validate", "amend", "prepare", "apply", "watch"])
@pytest.mark.cgroup_layout("v2")
def test_a_hook_that_raises_leaves_nothing(limit_journey, cgroup_layout, plugin, hook):
    removed = []

    def fail() -> None:
        raise KeyError("x")

    hooks = {"prepare": lambda cgroup: cgroup.controller("pids"), "remove": lambda: removed.append(1), hook: fail}
    with pytest.raises(PluginError, match=f"plugin bad .* failed in mydocker_{hook}: KeyError: 'x'"):
        limit_journey(plugin("bad", **hooks), bad=1)
    assert not any(path.endswith("/mydocker/test") for path in cgroup_layout.directories)
    assert removed == ([] if hook == "validate" else [1])


@pytest.mark.cgroup_layout("v1")
def test_what_discovery_finds_is_found_here(limit_journey, plugin):
    with pytest.raises(PluginError, match="does not keep the contract of the hooks"):
        limit_journey(plugin("odd", invented=lambda: None), odd=1)
    with pytest.raises(PluginError, match="does not keep the contract of the hooks"):
        limit_journey(plugin("odd", apply=lambda process: None), odd=1)
    with pytest.raises(ConflictError, match="both declare the flag --odd"):
        limit_journey(plugin("odd"), _same_flag(plugin), odd=1)


def _same_flag(plugin: Any) -> types.ModuleType:
    other: types.ModuleType = plugin("even")
    field = ResourceField(name="even", flags=("--odd",), parse=parse_integer, metavar="N", help="A limit.")
    other.mydocker_fields = hookimpl(lambda: [field])  # type: ignore[attr-defined]
    return other


@pytest.mark.cgroup_layout("v1")
def test_errors_name_the_flag(limit_journey, plugin):
    def validate(config: Any) -> None:
        raise LimitError("size", "it is too small")

    with pytest.raises(LimitError, match=r"^--size: it is too small$"):
        limit_journey(plugin("size", validate=validate), size=1)
    with pytest.raises(LimitError, match=r'^--size: "x" is not a whole number$'):
        limit_journey(plugin("size"), size="x")
    with pytest.raises(UsageError, match="other"):
        limit_journey(plugin("size"), other=1)


@pytest.mark.cgroup_layout("v1")
def test_a_plugin_may_be_an_object_or_a_name(limit_journey, plugin):
    class Hooks:
        @hookimpl
        def mydocker_fields(self) -> list[ResourceField]:
            return [ResourceField(name="a", flags=("--a",), parse=parse_integer, metavar="N", help="A limit.")]

    module = plugin("objects")
    module.it = Hooks()
    Hooks.__module__ = module.__name__
    for given in (module.it, "mydocker_objects:it"):
        with limit_journey(given, a=1) as container:
            assert container.config["a"] == 1
    with pytest.raises(TypeError, match="is no plugin"):
        limit_journey(object(), a=1)


def test_watches_are_looked_at_when_the_test_says_so(limit_journey, plugin):
    def watch(cgroup: Any) -> list[Watch]:
        pids = cgroup.controller("pids")
        return [Watch(check=lambda: Verdict.stop("crowd", "too many") if pids.current > 3 else 0.5)]

    module = plugin("crowd", prepare=lambda cgroup: cgroup.controller("pids"), watch=watch)
    with limit_journey(module, crowd=1) as container:
        assert container.look() == [0.5]
        container.report("pids.current", 4)
        assert container.look() == [Verdict.stop("crowd", "too many")]
    container = limit_journey(plugin("odd", watch=lambda: [Watch(check=lambda: "stop")]), odd=1)
    with pytest.raises(PluginError, match="no verdict"):
        container.look()


def test_watches_are_closed_at_the_end(limit_journey, plugin):
    closed: list[int] = []
    module = plugin("crowd", watch=lambda: [Watch(check=lambda: None, close=lambda: closed.append(1))])
    with limit_journey(module, crowd=1):
        assert closed == []
    assert closed == [1]


@pytest.mark.cgroup_layout("v2")
def test_amendments_and_their_conflicts(limit_journey, plugin):
    def amend(config: Any) -> Amendment:
        return Amendment(mounts=(Tmpfs(destination="/data"),), env=(b"A=1",))

    with limit_journey(plugin("one", amend=amend), one=1) as container:
        assert [mount.destination for mount in container.spec.mounts] == ["/data"]
        assert container.amendments["one"].env == (b"A=1",)
    with pytest.raises(ConflictError, match="both mount on /data"):
        limit_journey(plugin("one", amend=amend), plugin("two", amend=amend), one=1, two=1)


@pytest.mark.cgroup_layout("v2")
def test_work_in_the_network_namespace_is_not_done_on_that_of_the_tests(limit_journey, plugin):
    called: list[int] = []
    with limit_journey(plugin("wire", amend=lambda: Amendment(network=called.append)), wire=1) as container:
        assert container.amendments["wire"].network is not None
    assert called == []


def test_an_update_that_fails_puts_back_what_was(limit_journey, plugin):
    def update(config: Any, previous: Any, cgroup: Any) -> None:
        cgroup.controller("pids").max = config["tasks"]
        if config["tasks"] > 100:
            raise CgroupError("refused")

    module = plugin("tasks", prepare=lambda config, cgroup: setattr(cgroup.controller("pids"), "max", 5), update=update)
    with limit_journey(module, tasks=5) as container:
        container.update(tasks=6)
        assert (container.read("pids.max"), container.config["tasks"]) == ("6", 6)
        with pytest.raises(CgroupError, match="refused"):
            container.update(tasks=101)
        assert (container.read("pids.max"), container.config["tasks"]) == ("6", 6)
    with limit_journey(plugin("fixed"), fixed=1) as container:
        with pytest.raises(UsageError, match=r"plugin fixed .* has no mydocker_update"):
            container.update(fixed=2)
        container.update(fixed=1)  # no change


@pytest.mark.cgroup_layout("v1")
def test_a_usage_hook_that_raises_is_told(limit_journey, plugin):
    def usage() -> dict[str, int]:
        raise RuntimeError("nobody counted")

    container = limit_journey(plugin("blind", usage=usage), blind=1)
    with pytest.raises(PluginError, match="nobody counted"):
        container.end()


def test_best_effort_drops_what_this_host_lacks(limit_journey, plugin, fake_host):
    def validate(config: Any, layout: Any) -> None:
        layout.require_for("pids", config, "tasks")

    host = fake_host("v1", controllers=["memory"])
    module = plugin("tasks", validate=validate)
    with limit_journey(module, host=host, tasks=1, limits="best-effort") as container:
        assert "no pids controller" in container.unenforced["tasks"]
        assert "tasks" not in container.config


def test_it_ends_when_the_block_raises(cgroup_v2, plugin):
    module = plugin("tasks", prepare=lambda cgroup: cgroup.controller("pids"))
    with pytest.raises(ZeroDivisionError), Journey(cgroup_v2, module, tasks=1) as container:
        raise ZeroDivisionError
    assert not os.path.exists(f"/proc/{container.pid}")
    assert not any(path.endswith("/mydocker/test") for path in cgroup_v2.directories)


def test_figures_without_a_limit(limit_journey, plugin):
    module = plugin(
        "counted",
        account=lambda cgroup: cgroup.controller("pids"),
        usage=lambda config, cgroup: {"set": "counted" in config, "here": cgroup.has("pids")},
    )
    with limit_journey(module, accounting=True) as container:
        assert container.written == {}
    assert container.usage == {"set": False, "here": True}
