"""Limits from packages that are no part of mydocker, built and installed from their own folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mydocker.state import default_root

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PROJECTS = Path(__file__).parent / "plugin_projects"
#: More than fs.nr_open can be: the kernel refuses it.
REFUSED = str(1 << 40)


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], None]:
    """Install a project into a directory. Each is built and installed by pip once, and then copied."""
    built: dict[str, Path] = {}

    def pip(*arguments: str | Path) -> None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr

    def install_into(target: Path, name: str) -> None:
        if name not in built:
            copy = tmp_path_factory.mktemp(name)
            shutil.copytree(PROJECTS / name, copy / "project")
            pip("wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", copy, copy / "project")
            pip("install", "-q", "--no-deps", "--no-index", "--target", copy / "site", *copy.glob("*.whl"))
            built[name] = copy / "site"
        shutil.copytree(built[name], target, dirs_exist_ok=True)

    return install_into


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that mydocker finds packages in, and a plugin cache for this test alone."""
    target, cache = tmp_path / "site", tmp_path / "cache"
    for folder in (target, cache):
        folder.mkdir()
    paths = [str(target), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return target


@pytest.fixture
def plugins(site: Path, install: Callable[[Path, str], None]) -> Path:
    """The plugins nofile and scratch are installed."""
    install(site, "nofile")
    install(site, "scratch")
    return site


def mydocker(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "mydocker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_it_adds_a_flag(plugins: Path) -> None:
    text = mydocker("run", "--help")
    assert "Limits: nofile:" in text
    assert "-nofile, --nofile NUMBER  How many files each process may have open." in text


def test_it_is_listed_with_its_package(plugins: Path) -> None:
    table = mydocker("subsystems").splitlines()
    assert any(line.split()[:5] == ["nofile", "mydocker-nofile", "1.2", "--nofile,", "-nofile"] for line in table)
    listed = {row["name"]: row for row in json.loads(mydocker("subsystems", "--format", "json"))}
    assert (listed["nofile"]["package"], listed["nofile"]["version"]) == ("mydocker-nofile", "1.2")
    assert (listed["nofile"]["works"], listed["scratch"]["works"]) == (True, None)


@pytest.mark.parametrize("spelling", [["--nofile", "64"], ["-nofile=64"]])
def test_it_is_applied_before_the_command_runs(plugins: Path, run: Run, spelling: list[str]) -> None:
    done = run(*spelling, "sh", "-c", "ulimit -n; ulimit -Hn")
    assert (done.returncode, done.stdout, done.stderr) == (0, "64\n64\n", "")


def test_it_is_not_applied_unless_it_is_asked_for(plugins: Path, run: Run) -> None:
    assert run("sh", "-c", "ulimit -n").stdout != "64\n"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("2", "-nofile: 2 is not enough for stdin, stdout and stderr"),
        ("many", '-nofile: "many" is not a whole number'),
    ],
)
def test_it_is_validated_and_the_error_names_the_flag(plugins: Path, run: Run, value: str, sentence: str) -> None:
    done = run("-nofile", value, "echo", "ran")
    assert (done.returncode, done.stdout, done.stderr) == (125, "", f"mydocker: {sentence}\n")


def test_it_reports_what_was_used(plugins: Path, run: Run, tmp_path: Path) -> None:
    run("--nofile", "64", "--result", tmp_path / "result", "true")
    result = json.loads((tmp_path / "result").read_text())
    assert (result["limits"], result["usage"]["nofile"]) == ({"nofile": 64}, {"allowed_files": 64})


def test_it_is_a_keyword_of_the_api(plugins: Path) -> None:
    program = (
        "import mydocker; r = mydocker.run(['sh', '-c', 'ulimit -n'], nofile=65, capture_output=True, text=True)\n"
        "print(r.stdout, r.limits)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "65\n {'nofile': 65}\n"


def test_a_plugin_that_fails_stops_the_run_and_leaves_nothing(plugins: Path, run: Run, tmp_path: Path) -> None:
    """The kernel refuses what nofile asks for, when scratch has already been applied."""
    limits = ("--nofile", REFUSED, "--scratch", tmp_path / "scratch")
    done = run("--name", "fails-closed", *limits, "touch", tmp_path / "ran")
    assert done.returncode == 125
    assert done.stderr.startswith("mydocker: plugin nofile (mydocker-nofile 1.2) failed in mydocker_apply: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "scratch").exists()
    assert not os.path.exists(f"{default_root()}/fails-closed")
    assert not list(Path("/sys/fs/cgroup").glob("**/mydocker/fails-closed"))


def test_what_a_plugin_made_is_there_for_the_command_and_removed_after_it(
    plugins: Path, run: Run, tmp_path: Path
) -> None:
    done = run("--scratch", tmp_path / "scratch", "cat", tmp_path / "scratch" / "pid")
    assert done.returncode == 0
    assert int(done.stdout) > 1
    assert not (tmp_path / "scratch").exists()


def test_a_report_that_fails_does_not_undo_the_run(plugins: Path, run: Run, tmp_path: Path) -> None:
    done = run("--scratch", tmp_path / "scratch", "--result", tmp_path / "result", "sh", "-c", "exit 7")
    assert done.returncode == 7
    error = json.loads((tmp_path / "result").read_text())["usage"]["scratch"]["error"]
    assert error == (
        "plugin scratch (mydocker-scratch 0.3) failed in mydocker_usage: RuntimeError: nobody measured"
    )


def test_plugins_run_in_the_order_that_pluggy_decides(plugins: Path, run: Run, tmp_path: Path) -> None:
    """scratch is applied first, against the alphabet: nofile's failure finds what it has written."""
    order = "import mydocker.plugins as p; r = p.load(); c = r.parse({'nofile': 9, 'scratch': '/x'})\n"
    order += "print([[q.name for q in r.owners(c, h)] for h in ('mydocker_apply', 'mydocker_validate')])"
    done = subprocess.run([sys.executable, "-c", order], capture_output=True, text=True, check=True)
    assert done.stdout == "[['scratch', 'nofile'], ['nofile', 'scratch']]\n"


def test_two_plugins_that_claim_one_flag_conflict_until_one_is_gone(
    plugins: Path, install: Callable[[Path, str], None], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("true").returncode == 0
    install(plugins, "nofile_again")
    done = run("true")
    assert done.returncode == 125
    first, second = "plugin files (mydocker-nofile-again 7.0)", "plugin nofile (mydocker-nofile 1.2)"
    assert done.stderr.startswith(f"mydocker: {first} and {second} both declare the flag --nofile; ")
    with monkeypatch.context() as patch:
        patch.setenv("MYDOCKER_DISABLE_PLUGINS", "files")
        assert run("--nofile", "66", "sh", "-c", "ulimit -n").stdout == "66\n"
    for path in plugins.glob("mydocker_nofile_again*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run("--nofile", "67", "sh", "-c", "ulimit -n").stdout == "67\n"


def test_what_is_installed_and_removed_is_seen_at_once(
    site: Path, install: Callable[[Path, str], None], run: Run
) -> None:
    unknown = "mydocker: there is no option --nofile"
    assert run("--nofile", "64", "true").stderr.startswith(unknown)
    install(site, "nofile")
    assert run("--nofile", "64", "true").returncode == 0
    for path in site.glob("mydocker_nofile*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run("--nofile", "64", "true").stderr.startswith(unknown)
