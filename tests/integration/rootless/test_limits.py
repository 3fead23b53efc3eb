"""Limits of a plain user: in a cgroup that root has prepared, and what is said where there is none."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups.layout import Hierarchy, Layout

pytestmark = pytest.mark.vm

HOG = "import sys; x = bytearray(200 << 20); print(len(x))"


def inside(hierarchy: Hierarchy, place: Path, leaf: str = "shell") -> dict[str, Any]:
    """Options with which a process starts inside of the prepared cgroup: v2 demands it, on v1 it does not matter."""
    if hierarchy.version == 1:
        return {}
    cgroup = place / leaf
    cgroup.mkdir(exist_ok=True)
    return {"preexec_fn": lambda: (cgroup / "cgroup.procs").write_text("0")}


def test_without_a_prepared_cgroup_one_sentence_says_how_to_get_one(user: Any, layout: Layout) -> None:
    result = user.run("-m", "50m", "true")
    assert (result.returncode, result.stderr.count("\n")) == (125, 1)
    assert "mydocker-" in result.stderr and "docs/rootless.md" in result.stderr
    if layout.require("memory").version == 1:
        assert f"mkdir {layout.require('memory').base}/mydocker-{user.uid} && chown {user.uid}" in result.stderr
    assert user.run("true").returncode == 0


def test_with_best_effort_the_command_runs_without_what_needs_one(user: Any, layout: Layout) -> None:
    arguments = ("-m", "50m", "--pids-limit", "9", "--ulimit", "nofile=30", "--result", "/dev/stdout", "true")
    result = user.run("--limits", "best-effort", *arguments)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["limits"], sorted(told["unenforced"])) == ({"ulimit": [["nofile", 30, 30]]}, ["memory", "pids_limit"])
    assert result.stderr.count("the command runs without this limit\n") == 2
    assert "mydocker: warning: -m: cannot make the cgroup" in result.stderr


def test_memory(user: Any, prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]) -> None:
    hierarchy, place = prepare_cgroup(user, "memory")
    options = inside(hierarchy, place)
    hog = ("-m", "50m", "--memory-swap", "50m", "--result", "/dev/stdout", user.python, "-c", HOG)
    result = user.run(*hog, **options)
    assert result.returncode == 137, result.stderr
    assert json.loads(result.stdout)["reason"] == "oom"
    assert user.run("-m", "500m", user.python, "-c", HOG, **options).returncode == 0
    assert not (place / "mydocker").exists()


def test_a_shell_at_the_top_of_the_delegated_subtree_is_moved_out_of_the_way(
    stranger: Any, prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]
) -> None:
    hierarchy, place = prepare_cgroup(stranger, "memory")
    assert stranger.run("-m", "50m", "true", **inside(hierarchy, place, leaf="")).returncode == 0
    assert (place / "mydocker-host").exists() == (hierarchy.version == 2)
    again = inside(hierarchy, place, leaf="mydocker-host")
    assert stranger.run("-m", "50m", "true", **again).returncode == 0


def test_the_container_sees_its_own_cgroup_as_the_root(
    user: Any, prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]
) -> None:
    hierarchy, place = prepare_cgroup(user, "memory")
    result = user.run("-m", "50m", "cat", "/proc/self/cgroup", **inside(hierarchy, place))
    line = next(row for row in result.stdout.splitlines() if ":memory:" in row or row.startswith("0::"))
    assert line.endswith(":/"), result.stdout


def test_as_another_id_of_the_container(alice: Any, prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]) -> None:
    hierarchy, place = prepare_cgroup(alice, "memory")
    result = alice.run("-m", "50m", "-u", "1000", "id", "-u", **inside(hierarchy, place))
    assert (result.stdout, result.returncode) == ("1000\n", 0), result.stderr


def test_a_cgroup_parent_that_root_has_prepared(
    stranger: Any, prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]
) -> None:
    hierarchy, place = prepare_cgroup(stranger, "memory")
    options = inside(hierarchy, place)
    result = stranger.run("-m", "50m", "--cgroup-parent", "mine", "cat", "/proc/self/cgroup", **options)
    assert result.returncode == 0, result.stderr
    assert not (place / "mine").exists()


def test_from_outside_of_a_prepared_v1_cgroup(
    stranger: Any, layout: Layout, prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]
) -> None:
    if layout.version("memory") != 1:
        pytest.skip("memory is not on cgroup v1 here")
    prepare_cgroup(stranger, "memory")
    assert stranger.run("-m", "50m", "true").returncode == 0


@pytest.fixture
def on_v2(layout: Layout) -> tuple[str, tuple[str, ...]]:
    """A controller that is on v2 here, which on a hybrid host most are not, and a limit of it."""
    for controller, limit in (("memory", ("-m", "50m")), ("hugetlb", ("--hugetlb-limit", "2MB=2m"))):
        if layout.version(controller) == 2:
            return controller, limit
    pytest.skip("neither memory nor hugetlb is on cgroup v2 here")


def test_from_inside_of_a_prepared_v2_cgroup(
    user: Any, on_v2: tuple[str, tuple[str, ...]], prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]
) -> None:
    controller, limit = on_v2
    hierarchy, place = prepare_cgroup(user, controller)
    result = user.run(*limit, "cat", "/proc/self/cgroup", **inside(hierarchy, place))
    assert "0::/\n" in result.stdout, result.stderr
    assert not (place / "mydocker").exists()


def test_from_outside_of_a_prepared_v2_cgroup(
    stranger: Any, on_v2: tuple[str, tuple[str, ...]], prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]
) -> None:
    """Delegation containment (cgroup-v2.rst): not even the user's own process comes in from there."""
    controller, limit = on_v2
    _, place = prepare_cgroup(stranger, controller)
    result = stranger.run(*limit, "true")
    assert (result.returncode, result.stderr.count("\n")) == (125, 1)
    assert "move processes only within one subtree that is delegated" in result.stderr
    assert not (place / "mydocker").exists()
    result = stranger.run("--limits", "best-effort", *limit, "true")
    assert result.returncode == 0, result.stderr
    assert "delegated" in result.stderr and "the command runs without this limit\n" in result.stderr
    assert not (place / "mydocker").exists()


def test_what_a_killed_runtime_leaves_is_removed_by_the_users_next_run(
    alice: Any, prepare_cgroup: Callable[..., tuple[Hierarchy, Path]], eventually: Callable[..., object]
) -> None:
    hierarchy, place = prepare_cgroup(alice, "memory")
    options = inside(hierarchy, place)
    process = alice.start("-m", "50m", "-u", "1000", "sh", "-c", "echo ready; sleep 1000", **options)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert (place / "mydocker").exists()
    assert alice.run("true", **options).returncode == 0
    eventually(lambda: not (place / "mydocker").exists(), "the removal of the cgroup")


NETWORK_PLUGIN = """
from mydocker import Amendment, ResourceField, hookimpl

@hookimpl
def mydocker_fields():
    return [ResourceField(name="shape", flags=("--shape",), parse=str, metavar="X", help="Shape the network.")]

@hookimpl
def mydocker_amend(config, spec, layout):
    return Amendment(network=lambda pid: None)
"""


def test_a_plugin_that_works_in_the_containers_network_is_refused(stranger: Any) -> None:
    site = stranger.home / "site"
    metadata = site / "shape-1.dist-info"
    metadata.mkdir(parents=True)
    (site / "shape_plugin.py").write_text(NETWORK_PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shape\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[mydocker.subsystems]\nshape = shape_plugin\n")
    path = f"{stranger.environment['PYTHONPATH']}:{site}"
    result = stranger.run("--shape", "x", "true", env={"PYTHONPATH": path})
    assert (result.returncode, result.stderr.count("\n")) == (125, 1), result.stderr
    assert "which takes root: run mydocker as root" in result.stderr


def test_a_container_of_roots_with_the_same_name_is_not_touched(
    stranger: Any, layout: Layout, start: Callable[..., Any]
) -> None:
    process = start("-i", "--name", "same", "-m", "50m", "sh", "-c", "echo ready; read end", stdin=subprocess.PIPE)
    theirs = Path(layout.require("memory").base, "mydocker/same/cgroup.procs")
    assert process.stdout.readline() == "ready\n"
    result = stranger.run("--name", "same", "true")
    assert (result.stderr, result.returncode) == ("", 0)
    assert theirs.read_text() != ""
    process.communicate("end\n")
    assert process.returncode == 0
