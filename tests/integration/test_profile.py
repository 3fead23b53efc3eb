"""``mydocker run --profile``: a picture of a real run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

import mydocker
from mydocker.cgroups.layout import Layout

Run = Callable[..., subprocess.CompletedProcess[str]]

#: Takes memory in steps of a megabyte, for some tenths of a second.
GROW = "x=; while :; do x=$x$(head -c 1000000 /dev/zero | tr '\\0' x); sleep 0.02; done"


def words(file: Path) -> list[str]:
    """The texts in the picture."""
    root = ElementTree.fromstring(file.read_text())
    return [" ".join("".join(text.itertext()).split()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.vm
def test_a_run_that_runs_out_of_memory(run: Run, tmp_path: Path) -> None:
    picture, result = tmp_path / "usage.svg", tmp_path / "result.json"
    limits = ("-m", "20m", "--memory-swap", "20m", "--cpus", "0.8", "--pids-limit", "20")
    done = run(*limits, "--profile", picture, "--profile-interval", "20ms", "--result", result, "sh", "-c", GROW)
    said = "the command was killed because the container ran out of memory, of which it may have 20m"
    assert (done.returncode, done.stderr) == (137, f"mydocker: warning: {said}\n")
    assert json.loads(result.read_text())["reason"] == "oom"
    found = words(picture)
    assert {"Memory", "CPUs", "Tasks", "limit 20 MiB", "peak 20 MiB", "limit 0.8", "out of memory ▾"} <= set(found)
    assert any(word.startswith("exit code 137 (out of memory) · ") for word in found)


def test_a_run_without_limits(run: Run, tmp_path: Path) -> None:
    """It gets the cgroups that count, and the command's exit code is the command's."""
    done = run("--profile", tmp_path / "usage.svg", "sh", "-c", "sleep 0.3; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    found = words(tmp_path / "usage.svg")
    assert {"Memory", "Tasks"} <= set(found)
    assert any(word.startswith("exit code 7 · ") for word in found)
    assert not any(word.startswith("limit") for word in found)


@pytest.mark.vm
def test_pressure_wherever_the_kernel_can_keep_it(run: Run, tmp_path: Path, layout: Layout) -> None:
    """On a hybrid host too, in a v2 cgroup without controllers."""
    busy = " & ".join(["while :; do :; done"] * 4)
    run("--profile", tmp_path / "usage.svg", "--timeout", "1s", "sh", "-c", f"{busy} & wait")
    kept = os.path.exists("/proc/pressure/cpu") and layout.kind in ("v2", "hybrid")
    assert ({"Pressure", "waiting for cpu"} <= set(words(tmp_path / "usage.svg"))) == kept


def test_an_update_is_a_step_of_the_limit(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    keep = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ready; read word; sleep 0.3"
    process = start(
        *("-i", "--name", "job", "-m", "100m", "--profile", tmp_path / "usage.svg", "sh", "-c", keep),
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    mydocker.update("job", memory="120m")
    process.communicate("\n", timeout=120)
    assert {"limit 100 MiB", "limit 120 MiB"} <= set(words(tmp_path / "usage.svg"))


def test_nothing_is_run_when_the_picture_cannot_be_written(run: Run, tmp_path: Path) -> None:
    done = run("--profile", tmp_path / "nowhere/usage.svg", "touch", tmp_path / "ran")
    assert done.returncode == 125
    assert done.stderr.startswith("mydocker: --profile: cannot write ")
    done = run("--profile-interval", "1s", "touch", tmp_path / "ran")
    assert done.stderr.startswith("mydocker: --profile-interval: it says how often --profile looks")
    assert not (tmp_path / "ran").exists()


def test_no_picture_of_a_command_that_was_not_run(run: Run, tmp_path: Path) -> None:
    assert run("--profile", tmp_path / "usage.svg", "no-such-command").returncode == 127
    assert list(tmp_path.glob("usage*")) == []


def test_a_plugin_whose_figures_fail_does_not_end_the_run(run: Run, site: object, tmp_path: Path) -> None:
    site.add(  # type: ignore[attr-defined]
        "bad",
        """
from mydocker import ResourceField, hookimpl

@hookimpl
def mydocker_fields():
    return [ResourceField(name="bad", flags=("--bad",), parse=str, metavar="N", help="A limit.")]

@hookimpl
def mydocker_usage():
    raise KeyError("x")
""",
    )
    done = run("--bad", "1", "--profile", tmp_path / "usage.svg", "sleep", "0.3")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()  # said once, at the end, and not at each moment
    assert "plugin bad (bad-dist 1.0) failed in mydocker_usage: KeyError: 'x'" in line


def test_a_user_without_a_home_directory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawing library wants a directory for itself: nothing is said about it, and nothing left of it."""
    (tmp_path / "tmp").mkdir()
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    done = run("--profile", tmp_path / "usage.svg", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "usage.svg").exists()
    assert list((tmp_path / "tmp").iterdir()) == []
