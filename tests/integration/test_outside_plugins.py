"""The limits in plugins/: each is installed from its folder, shows up in mydocker, and passes its own tests."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
NAMES = sorted(path.name for path in PLUGINS.iterdir() if (path / "setup.cfg").exists())


@pytest.fixture(scope="session")
def outside_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which pip has installed all of them, with what they need beside mydocker."""
    site = tmp_path_factory.mktemp("site")
    for name in NAMES:
        copy = tmp_path_factory.mktemp(name)
        shutil.copytree(PLUGINS / name, copy / "project", ignore=shutil.ignore_patterns("__pycache__", ".*"))
        pip("wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", copy, copy / "project")
        pip("install", "-q", "--no-deps", "--no-index", "--target", site, *copy.glob("*.whl"))
    needed = {
        requirement
        for distribution in importlib.metadata.distributions(path=[str(site)])
        for requirement in distribution.requires or ()
        if "extra ==" not in requirement and requirement != "mydocker"
    }
    missing = [one for one in needed if importlib.util.find_spec(one.split(">")[0].split("<")[0].strip()) is None]
    if missing:
        pip("install", "-q", "--target", site, *missing)
    return site


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def installed(outside_plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mydocker finds them, and keeps a plugin cache for this test alone."""
    paths = [str(outside_plugins), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def mydocker(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "mydocker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_their_flags_are_in_the_help() -> None:
    text = mydocker("run", "--help")
    for flag in ("--cpu-time DURATION", "--disk SIZE", "--disk-backing KIND", "--net-rate RATE", "--net-burst SIZE"):
        assert f" {flag} " in text


def test_they_are_listed_with_their_packages() -> None:
    listed = {row["package"]: row for row in json.loads(mydocker("subsystems", "--format", "json"))}
    assert set(NAMES) <= set(listed)
    assert all(listed[name]["version"] == "1.0" for name in NAMES)


def test_they_are_not_imported_by_a_run_without_them() -> None:
    program = "import mydocker, sys; mydocker.run(['true'])\n"
    program += "print([name for name in sys.modules if name.startswith('mydocker_') or name == 'pyroute2'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_of_them_in_one_container(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    limits = ("--cpu-time", "1m", "--net-rate", "10mbit", "--overlay", "--disk", "8m", "--disk-backing", "auto")
    done = run(*limits, "--result", tmp_path / "result", "echo", "runs")
    if "cannot" in done.stderr and "this kernel lacks" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stdout, done.stderr) == (0, "runs\n", "")
    usage = json.loads((tmp_path / "result").read_text())["usage"]
    assert usage["cputime"]["cpu_seconds"] > 0
    assert usage["disk"]["disk_limit_bytes"] == 8 << 20
    assert usage["bandwidth"]["sent_bytes"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_each_passes_its_own_tests(name: str, tmp_path: Path) -> None:
    project = tmp_path / name
    shutil.copytree(PLUGINS / name, project, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    # -P: what is tested is what was installed, and not the folder.
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "temp"]
    done = subprocess.run([*command, project], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
