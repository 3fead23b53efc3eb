from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from mydocker import cache_file, plugin_cache
from mydocker.config import NONE
from mydocker.plugin_discovery import discover
from mydocker.plugins import Selection

LONG_AGO = 1_000_000_000


@pytest.fixture
def filled(site: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A site with one plugin, whose files are old, and a cache that knows it."""
    monkeypatch.setattr(cache_file, "SETTLED", 0.0)
    site.add_simple("nofile")
    age(site.path)
    remember()
    assert "nofile" in cached()
    return site


def age(folder: Path) -> None:
    """Make everything in a folder old, so that its times are trusted."""
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (LONG_AGO, LONG_AGO))


def selection() -> Selection:
    """What the environment turns off."""
    return Selection.of(NONE)


def remember() -> Any:
    return plugin_cache.remember(selection(), lambda: discover(selection()))


def cached() -> dict[str, str]:
    """Plugin to version of what the cache holds; empty if it is not believed."""
    return {row[0]: row[2] for row in plugin_cache.read(selection()) or ()}


def the_file() -> Path:
    (file,) = Path(cache_file.directory() or "").iterdir()
    return file


def test_what_was_discovered_is_remembered(filled: Any) -> None:
    assert plugin_cache.read(selection()) == discover(selection())


def test_a_package_that_is_installed_is_seen(filled: Any) -> None:
    filled.add_simple("another")
    assert cached() == {}
    remember()
    assert {"nofile", "another"} <= set(cached())


def test_a_package_that_is_removed_is_seen(filled: Any) -> None:
    shutil.rmtree(filled.path / "nofile_dist-1.0.dist-info")
    assert cached() == {}


def test_a_package_that_is_upgraded_is_seen(filled: Any) -> None:
    shutil.rmtree(filled.path / "nofile_dist-1.0.dist-info")
    filled.add_simple("nofile", version="1.1")
    assert cached() == {}
    assert "1.1" in {row[2] for row in remember()}


def test_a_package_that_is_installed_again_in_the_same_version_is_seen(filled: Any) -> None:
    shutil.rmtree(filled.path / "nofile_dist-1.0.dist-info")
    filled.add_simple("nofile", field="other")
    assert cached() == {}


def test_an_edited_module_is_seen_whatever_its_time(filled: Any) -> None:
    module = filled.path / "nofile_module.py"
    module.write_text(module.read_text() + "\n# edited\n")
    os.utime(module, (LONG_AGO, LONG_AGO))
    assert cached() == {}


def test_an_edited_module_that_the_plugin_imports_is_seen(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_file, "SETTLED", 0.0)
    module = site.add_simple("nofile")
    (site.path / "pack").mkdir()
    (site.path / "pack" / "__init__.py").write_text("from pack.flags import FLAG\n")
    (site.path / "pack" / "flags.py").write_text("FLAG = '--one'\n")
    (site.path / "pack" / "limits.py").write_text(
        module.read_text().replace('"--nofile",', "FLAG,") + "\nfrom pack import FLAG\n"
    )
    points = site.path / "nofile_dist-1.0.dist-info" / "entry_points.txt"
    points.write_text("[mydocker.subsystems]\nnofile = pack.limits\n")
    age(site.path)
    remember()
    assert "nofile" in cached()
    (site.path / "pack" / "flags.py").write_text("FLAG = '--two'\n")
    assert cached() == {}


def test_an_edited_entry_point_is_seen(filled: Any) -> None:
    points = filled.path / "nofile_dist-1.0.dist-info" / "entry_points.txt"
    points.write_text("[mydocker.subsystems]\nrenamed = nofile_module\n")
    assert cached() == {}


def test_a_disabled_plugin_is_another_answer(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYDOCKER_DISABLE_PLUGINS", "nofile")
    assert cached() == {}
    remember()
    assert plugin_cache.read(selection()) is not None
    assert "nofile" not in cached()
    monkeypatch.delenv("MYDOCKER_DISABLE_PLUGINS")
    assert "nofile" in cached()


def test_another_search_path_is_another_answer(filled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    assert cached() == {}
    monkeypatch.setattr(sys, "path", sys.path[1:])
    assert "nofile" in cached()


def test_a_directory_that_changes_for_other_reasons_keeps_the_cache(filled: Any) -> None:
    """A script's own directory is on sys.path, and a job writes its output there."""
    (filled.path / "output.txt").write_text("result")
    assert "nofile" in cached()


def test_a_directory_that_was_just_changed_is_told_by_its_time_later(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_simple("nofile")
    age(site.path)
    os.utime(site.path)
    remember()
    looks: list[str] = []
    metadata = plugin_cache._metadata

    def look(path: str, packages: Any) -> Any:
        looks.append(path)
        return metadata(path, packages)

    monkeypatch.setattr(plugin_cache, "_metadata", look)
    for _ in range(2):
        assert "nofile" in cached()
    assert looks.count(str(site.path)) == 2
    monkeypatch.setattr(cache_file, "SETTLED", 0.0)  # as if that time had passed
    for _ in range(3):
        assert "nofile" in cached()
    assert looks.count(str(site.path)) == 3
    shutil.rmtree(site.path / "nofile_dist-1.0.dist-info")
    assert cached() == {}


def test_a_module_that_hides_a_plugins_is_seen(filled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tmp_path / "first"
    first.mkdir()
    monkeypatch.syspath_prepend(str(first))
    remember()
    assert "nofile" in cached()
    (first / "nofile_module.py").write_text("")
    assert cached() == {}


def test_what_has_just_changed_is_not_remembered(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change could leave the same time, size and inode."""
    monkeypatch.setattr(cache_file, "SETTLED", 3600.0)
    site.add_simple("nofile")
    assert "nofile" in {row[0] for row in remember()}
    assert cached() == {}


def test_a_file_that_others_can_write_is_not_believed(filled: Any) -> None:
    the_file().chmod(0o620)
    assert cached() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_not_believed(filled: Any) -> None:
    os.chown(the_file(), 65534, -1)
    assert cached() == {}


def test_a_symbolic_link_is_not_followed(filled: Any, tmp_path: Path) -> None:
    file = the_file()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert cached() == {}


@pytest.mark.parametrize("part", ["half", "flipped", "empty", "noise"])
def test_a_corrupt_file_is_discovered_anew(filled: Any, part: str) -> None:
    file = the_file()
    content = bytearray(file.read_bytes())
    if part == "flipped":
        content[len(content) // 2] ^= 1
    file.write_bytes({"half": content[: len(content) // 2], "empty": b"", "noise": b"x" * 100}.get(part, content))
    assert cached() == {}
    remember()
    assert "nofile" in cached()


def test_a_cache_that_cannot_be_written_is_no_error(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_file, "SETTLED", 0.0)
    site.add_simple("nofile")
    age(site.path)
    for place in ("/proc/none", "/dev/null/none"):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        assert "nofile" in {row[0] for row in remember()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_root_leaves_no_directory_in_the_cache_of_a_user(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_file, "SETTLED", 0.0)
    site.add_simple("nofile")
    age(site.path)
    os.chown(tmp_path / "cache", 65534, -1)
    remember()
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_unfinished_file_is_left_and_old_ones_are_pruned(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(cache_file.directory() or "")
    monkeypatch.setattr(cache_file, "KEPT_FILES", 3)
    for number in range(5):
        (folder / f"plugins-{number}").write_text("old")
        os.utime(folder / f"plugins-{number}", (LONG_AGO + number, LONG_AGO + number))
    remember()
    assert len(list(folder.iterdir())) == 3
    assert {"plugins-3", "plugins-4"} < {file.name for file in folder.iterdir()}
    assert "nofile" in cached()


@pytest.mark.parametrize(
    ("xdg", "home", "expected"),
    [
        ("/somewhere", "/home/a", "/somewhere/mydocker"),
        ("relative", "/home/a", "/home/a/.cache/mydocker"),
        ("", "/home/a", "/home/a/.cache/mydocker"),
        ("", "", None),
    ],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, xdg: str, home: str, expected: str | None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cache_file.directory() == expected
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache_file.directory() == (expected if xdg == "/somewhere" else "/var/cache/mydocker")
