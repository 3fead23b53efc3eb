"""``mydocker subsystems --explain -- run …``: what it tells is what a run does, and telling it changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

PLUGIN = """
from mydocker import Amendment, ResourceField, Tmpfs, Watch, hookimpl
from mydocker.resources import parse_integer

@hookimpl
def mydocker_fields():
    return [ResourceField(name="{name}", flags=("--{name}",), parse=parse_integer, metavar="N", help="A limit.")]

def refuse():
    raise AssertionError("this must not be called")

@hookimpl
def mydocker_amend():
    refuse()

@hookimpl
def mydocker_apply():
    refuse()

@hookimpl
def mydocker_watch():
    refuse()
"""


def explain(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mydocker", "subsystems", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def explained(*arguments: str) -> dict[str, Any]:
    done = explain("--explain", "--format", "json", "--", "run", *arguments, "true")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tree(layout: Layout) -> set[str]:
    """Every cgroup of this host."""
    return {path for hierarchy in layout.hierarchies for path, _, _ in os.walk(hierarchy.mountpoint)}


def test_every_file_that_is_named_holds_that_value_in_a_run(layout: Layout, run: Any) -> None:
    """The run looks at its own cgroup's files, at the places and for the values that were told before."""
    limits = ["--name", f"explained-{os.getpid()}"]
    flags = {"memory": ["-m", "64m"], "cpu": ["--cpu-shares", "300"], "pids": ["--pids-limit", "50"]}
    limits += [word for controller in flags if layout.find(controller) for word in flags[controller]]
    told = explained(*limits)
    steps = [step for plugin in told["plugins"] for step in plugin["steps"]]
    writes = {step["path"]: step["value"] for step in steps if step["action"] == "write"}
    own = {path: value for path, value in writes.items() if os.path.dirname(path) in told["cgroups"]}
    assert own
    assert {os.path.dirname(path) for path in own} <= {step["path"] for step in steps if step["action"] == "make"}
    assert not any(os.path.exists(path) for path in told["cgroups"])
    files = " ".join(own)
    # The host's /sys is masked inside: a volume shows it.
    script = f"for f in {files}; do echo $f $(cat /mnt$f); done"
    done = run("-v", "/sys/fs/cgroup:/mnt/sys/fs/cgroup", "--overlay", *limits, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    held = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert held == own


def test_nothing_is_made(layout: Layout, tmp_path: Path) -> None:
    before = tree(layout)
    limits = ["-m", "64m"] if layout.find("memory") else []
    told = explained("--name", "never-made", "--cgroup-parent", "mydocker/x", *limits)
    assert all("/mydocker/x/never-made" in path for path in told["cgroups"])
    assert {path for path in tree(layout) - before if "never-made" in path or path.endswith("/mydocker/x")} == set()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "1", "true"], "-m: 1 byte is less than the minimum, 512k; did you mean 1m?"),
        (["--memory", "64m", "--memory-swap", "1m", "true"], "--memory-swap: 1m is less than --memory 64m"),
        (["-m", "64m"], "there is no command to run; write mydocker run [OPTIONS] COMMAND [ARG...]"),
        (["--no-such-limit", "true"], "there is no option --no-such-limit"),
    ],
)
def test_what_a_run_would_say_is_said(arguments: list[str], sentence: str) -> None:
    done = explain("--explain", "--", "run", *arguments)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"mydocker: {sentence}")


def test_what_is_no_run() -> None:
    for words in ([], ["ls"], ["stats"]):
        done = explain("--explain", *words)
        assert done.returncode == 125
        assert "a command line follows it" in done.stderr


def test_the_two_dashes_may_be_left_out(layout: Layout) -> None:
    if layout.find("memory") is None:
        assert "no memory controller" in explain("--explain", "run", "-m", "64m", "true").stderr
        return
    with_them = explain("--explain", "--", "run", "-m", "64m", "true").stdout
    assert explain("--explain", "run", "-m", "64m", "true").stdout.splitlines()[-2:] == with_them.splitlines()[-2:]


def test_amend_apply_and_watch_are_not_called_and_the_plugin_s_own_lines_are_shown(site: Any) -> None:
    lines = '\n@hookimpl\ndef mydocker_explain(config):\n    return ["first", f"second {config[\'told\']}"]\n'
    site.add("told", PLUGIN.format(name="told") + lines)
    site.add("untold", PLUGIN.format(name="untold"))
    done = explain("--explain", "--", "run", "--told", "5", "--untold", "6", "true", env=_environment(site))
    assert done.stderr == ""
    assert "told (told-dist 1.0): told 5\n  first\n  second 5\n" in done.stdout
    assert "  watches the container while it runs (mydocker_watch); it does not tell how\n" in done.stdout


def test_what_prepare_made_elsewhere_is_undone(site: Any, tmp_path: Path) -> None:
    hooks = f"""
import os
@hookimpl
def mydocker_prepare():
    os.mkdir({str(tmp_path / "made")!r})
@hookimpl
def mydocker_remove():
    os.rmdir({str(tmp_path / "made")!r})
    open({str(tmp_path / "undone")!r}, "x")
"""
    site.add("maker", PLUGIN.format(name="maker") + hooks)
    assert explain("--explain", "--", "run", "--maker", "5", "true", env=_environment(site)).returncode == 0
    assert (tmp_path / "undone").exists()
    assert not (tmp_path / "made").exists()


def test_paths_in_errors_are_those_of_this_host(layout: Layout, site: Any) -> None:
    hook = """
@hookimpl
def mydocker_prepare(cgroup):
    cgroup.controller("cgroup" if cgroup.layout.find("cgroup") else "memory").set_property("no.such.file", 1)
"""
    site.add("odd", PLUGIN.format(name="odd") + hook)
    done = explain("--explain", "--", "run", "--name", "box", "--odd", "5", "true", env=_environment(site))
    hierarchy = layout.find("cgroup") or layout.require("memory")
    assert f'cannot write "1" to {hierarchy.base}/mydocker/box/no.such.file: No such file' in done.stderr


def test_best_effort_lists_what_is_not_in_force(site: Any) -> None:
    hook = """
from mydocker import UnsupportedLimit
@hookimpl
def mydocker_prepare(config):
    raise UnsupportedLimit("gone", "this kernel has no such thing")
"""
    site.add("gone", PLUGIN.format(name="gone") + hook)
    strict = explain("--explain", "--", "run", "--gone", "5", "true", env=_environment(site))
    assert strict.stderr == "mydocker: --gone: this kernel has no such thing\n"
    arguments = ["--limits", "best-effort", "--gone", "5", "true"]
    lenient = explain("--explain", "--", "run", *arguments, env=_environment(site))
    assert "not in force: gone: this kernel has no such thing\n" in lenient.stdout


def test_without_a_limit_it_tells_of_the_namespaces() -> None:
    assert explained("--network", "host") == {
        "namespaces": ["mount", "uts", "ipc", "pid", "cgroup"],
        "cgroups": [],
        "plugins": [],
        "unenforced": {},
        "notes": [],
    }


def test_the_list_still_works_without_a_subcommand() -> None:
    names = {row["name"] for row in json.loads(explain("--format", "json").stdout)}
    assert {"memory", "cpu", "pids"} <= names
    assert explain().stdout.startswith("NAME ")


def _environment(site: Any) -> dict[str, str]:
    paths = [str(site.path), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
