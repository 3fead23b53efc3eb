"""The figures of a run from Python are worked out when somebody looks at them, by what was in the files at its end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker import api, state
from mydocker.cgroups.layout import Layout
from mydocker.cgroups.read_ahead import ReadAhead
from mydocker.linux import batch
from mydocker.result import UsageLater

BUSY = ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; true & wait"]

pytestmark = pytest.mark.skipif(not batch.code_page(), reason="there is no machine code, by which all is read at once")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kind of container was there before."""
    api.means().layout()
    monkeypatch.setattr(api.means(), "_read_ahead", ReadAhead())


def is_put_off(result: mydocker.Result) -> bool:
    return type(result.__dict__["usage"]) is UsageLater


def names_of(usage: mydocker.Usage) -> dict[str, set[str]]:
    return {plugin: set(figures) for plugin, figures in usage.plugins.items()}


@pytest.mark.vm
def test_they_are_what_they_were(layout: Layout) -> None:
    """Also where the kernel has files by which not all can be put off."""
    limits: dict[str, Any] = {"memory": "64m", "cpus": 1.0, "pids_limit": 20}
    at_once, *others = [mydocker.run(BUSY, **limits) for _ in range(3)]
    assert not is_put_off(at_once)
    for result in others:
        usage = result.usage
        assert names_of(usage) == names_of(at_once.usage)
        assert (usage.memory_limit, usage.cpu_limit, usage.pids_limit) == (64 << 20, 1.0, 20)
        assert usage.memory_kinds.keys() == at_once.usage.memory_kinds.keys()
        assert usage.memory_peak is None or usage.memory_peak > 100_000
        assert usage.pids_peak is None or usage.pids_peak >= 2
        assert usage.cpu_user + usage.cpu_system > 0
        assert not is_put_off(result)


@pytest.mark.vm
@pytest.mark.parametrize("first", ["busy", "idle"])
def test_of_what_was_before_nothing_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    """All figures that there are, of a container that was not as the one before."""
    (tmp_path / "data").write_bytes(os.urandom(1 << 20))
    script = f'{BUSY[2]}; x=$(head -c 1000000 /dev/zero | tr "\\0" x); dd if="$0" of="$0.copy" bs=64k oflag=direct'
    commands = {"busy": ["sh", "-c", script, str(tmp_path / "data")], "idle": ["true"]}
    second = commands["idle" if first == "busy" else "busy"]
    alone = mydocker.run(second, accounting=True, stderr=subprocess.DEVNULL)
    monkeypatch.setattr(api.means(), "_read_ahead", ReadAhead())
    mydocker.run(commands[first], accounting=True, stderr=subprocess.DEVNULL)
    after = mydocker.run(second, accounting=True, stderr=subprocess.DEVNULL)
    api.close()  # with the helper goes the common parent of their cgroups
    assert alone.usage.plugins
    assert names_of(after.usage) == names_of(alone.usage)
    assert not [figures for figures in after.usage.plugins.values() if "error" in figures]


@pytest.mark.vm
@pytest.mark.parametrize("accounting", [False, True])
def test_threads_may_look_together(accounting: bool) -> None:
    """At what is put off for certain; and at all figures, typed files among them, which v1 does not put off."""
    limits: dict[str, Any] = {"pids_limit": 20}
    if accounting:
        limits.update(memory="64m", accounting=True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        mydocker.run(["true"], **limits)
        for _ in range(20):
            result = mydocker.run(["true"], **limits)
            assert accounting or is_put_off(result)
            seen: list[mydocker.Usage] = []
            threads = [threading.Thread(target=lambda: seen.append(result.usage)) for _ in range(4)]  # noqa: B023
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [names_of(usage) for usage in seen] == [names_of(result.usage)] * 4
            assert not [figures for figures in result.usage.plugins.values() if "error" in figures]
    finally:
        sys.setswitchinterval(before)


@pytest.mark.vm
def test_one_that_nobody_looks_at_holds_nothing_of_the_program() -> None:
    """But what it takes to work them out: neither its helper and threads nor what the command was given."""
    results = [mydocker.run(["true"], pids_limit=20, env={"X": "x" * 100_000}) for _ in range(3)]
    assert is_put_off(results[-1])
    reached: list[object] = [results[-1]]
    known = {id(results[-1])}
    for found in reached:
        for other in gc.get_referents(found):
            if id(other) not in known and not isinstance(other, (type, types.ModuleType)) and other is not globals():
                known.add(id(other))
                if not isinstance(other, types.FunctionType):
                    reached.append(other)
                else:
                    reached.extend(cell.cell_contents for cell in other.__closure__ or ())
    kinds = {type(found).__name__ for found in reached}
    assert not kinds & {"SharedMeans", "Helper", "Crew", "Spec", "Container", "Child"}, kinds


@pytest.mark.vm
def test_a_later_container_of_the_same_name_is_another(
    name: str, start: Callable[..., Any], eventually: Callable[..., Any], state_dir: Path
) -> None:
    results = [mydocker.run(["true"], name=name, pids_limit=limit) for limit in (20, 30, 40)]
    assert [is_put_off(result) for result in results] == [False, True, True]
    process = start("--name", name, "--pids-limit", "50", "sleep", "1000")
    eventually(lambda: getattr(state.read(str(state_dir / name)), "pid", 0))
    assert [result.usage.pids_limit for result in results] == [20, 30, 40]
    assert [result.usage.pids_current for result in results] == [0, 0, 0]
    assert process.poll() is None
    process.kill()
    process.wait()
    mydocker.run(["true"])  # removes what it has left


@pytest.mark.vm
def test_one_that_was_killed_for_memory_says_so_at_once() -> None:
    eat = ["sh", "-c", 'x=x; while :; do x="$x$x"; done']
    results = [mydocker.run(eat, memory="20m", memory_swap="20m") for _ in range(3)]
    assert [result.reason for result in results] == ["oom"] * 3
    assert not any(is_put_off(result) for result in results)
    assert all(result.oom_kills for result in results)


@pytest.mark.vm
def test_what_the_container_has_nested_counts(layout: Layout) -> None:
    """It is gone when somebody looks."""
    if layout.version("memory") != 1:
        pytest.skip("the figures of a v2 cgroup are those of all that are nested in it")
    nest = ["mkdir", f"{layout.require('memory').mountpoint}/nested"]
    for _ in range(2):
        mydocker.run(["true"], memory="50m")
    result = mydocker.run(nest, memory="50m", privileged=True)
    again = mydocker.run(["true"], memory="50m")
    assert result.exit_code == 0
    assert (is_put_off(result), is_put_off(again)) == (False, True)
    assert again.usage.memory_limit == 50 << 20


def test_a_plugin_of_others_is_asked_while_the_cgroup_is_there(plugin: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    plugin(
        "asked",
        f"""
        @hookimpl
        def mydocker_usage(cgroup):
            with open({str(seen)!r}, "a") as f:
                print(all(map(os.path.isdir, cgroup.dirs)), len(cgroup.dirs), file=f)
            return {{"x": 1}}
        """,
    )
    results = [mydocker.run(["true"], asked=1, pids_limit=20) for _ in range(3)]
    assert seen.read_text() == "True 1\n" * 3
    assert not any(is_put_off(result) for result in results)
    assert [result.usage.plugins["asked"] for result in results] == [{"x": 1}] * 3
