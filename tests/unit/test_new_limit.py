"""The folder that ``mydocker subsystems new`` makes: its name, its files, and that it overwrites nothing."""

from __future__ import annotations

import ast
import configparser
import os
from pathlib import Path

import pytest

from mydocker.cli import new_limit
from mydocker.errors import UsageError
from mydocker.plugins import Registry, load


@pytest.fixture
def nobody_s() -> Registry:
    """No plugin is installed."""
    return Registry(())


def test_a_name_that_begins_as_packages_do(tmp_path: Path, nobody_s: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_limit.make("mydocker-open-files", None, nobody_s) == "mydocker-open-files"
    assert (tmp_path / "mydocker-open-files/mydocker_open_files.py").exists()


def test_a_word_of_python_is_no_name(tmp_path: Path, nobody_s: Registry) -> None:
    with pytest.raises(UsageError, match="class: it is a word of Python's own"):
        new_limit.make("class", str(tmp_path / "new"), nobody_s)


def test_the_files_of_a_limit(tmp_path: Path, nobody_s: Registry) -> None:
    folder = Path(new_limit.make("open-files", str(tmp_path / "new"), nobody_s))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *("setup.cfg", "pyproject.toml", "README.md", ".gitignore", "mydocker_open_files.py"),
        *("tests/conftest.py", "tests/test_open_files.py"),
    }
    settings = configparser.ConfigParser()
    settings.read(folder / "setup.cfg")
    assert settings["metadata"]["name"] == "mydocker-open-files"
    assert settings["options.entry_points"]["mydocker.subsystems"].strip() == "open-files = mydocker_open_files"
    text = "".join((folder / name).read_text() for name in files)
    assert "@" not in text.replace("@hookimpl", "").replace("@pytest", "")
    for name in files:
        if name.endswith(".py"):
            ast.parse((folder / name).read_text())


@pytest.mark.parametrize(
    "name", ["", "-x", "x-", "a--b", "Tasks", "a_b", "a b", "a/b", "../x", "9lives", "é", "x" * 41, "a\n"]
)
def test_what_is_no_name(tmp_path: Path, nobody_s: Registry, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a limit's name"):
        new_limit.make(name, str(tmp_path / "new"), nobody_s)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["rootfs", "timeout", "help", "stdin", "cap-add"])
def test_what_mydocker_has_itself(tmp_path: Path, nobody_s: Registry, name: str) -> None:
    with pytest.raises(UsageError, match="mydocker itself has"):
        new_limit.make(name, str(tmp_path / "new"), nobody_s)


@pytest.mark.parametrize("name", ["memory", "memory-swap", "cpus", "ulimit"])
def test_what_a_plugin_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: plugin .* has that name or that flag"):
        new_limit.make(name, str(tmp_path / "new"), load())


def test_nothing_is_overwritten(tmp_path: Path, nobody_s: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_limit.make("tasks", None, nobody_s) == "mydocker-tasks"
    Path("mydocker-tasks/mydocker_tasks.py").write_text("mine")
    with pytest.raises(UsageError, match="mydocker-tasks exists already"):
        new_limit.make("tasks", None, nobody_s)
    assert Path("mydocker-tasks/mydocker_tasks.py").read_text() == "mine"
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    for taken in ("file", "link"):
        with pytest.raises(UsageError, match=f"{taken} exists already"):
            new_limit.make("tasks", taken, nobody_s)
    os.mkdir("empty")
    assert new_limit.make("tasks", "empty", nobody_s) == "empty"
    with pytest.raises(UsageError, match="cannot write"):
        new_limit.make("tasks", "/proc/nowhere", nobody_s)
