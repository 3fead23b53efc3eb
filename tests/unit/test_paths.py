"""Paths inside a root that is not trusted: nothing leads out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker.linux.paths import make_directory_in_root, make_file_in_root, open_in_root, read_in_root


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory with a secret next to ``root``."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("inside")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("outside")
    return tmp_path


@pytest.fixture
def root(host: Path) -> Iterator[int]:
    fd = os.open(host / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def contents(root: int, path: bytes) -> str:
    with open(open_in_root(root, path, os.O_RDONLY)) as f:
        return f.read()


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../etc/passwd", "/../etc/passwd", "/../../etc/passwd", "etc/passwd"]
)
def test_links_stay_below_the_root(host: Path, root: int, target: str) -> None:
    (host / "root/link").symlink_to(target)
    assert contents(root, b"link") == "inside"


@pytest.mark.parametrize("path", [b"/etc/passwd", b"../etc/passwd", b"/etc/../../../etc/passwd"])
def test_dots_and_a_leading_slash_stay_below_the_root(root: int, path: bytes) -> None:
    assert contents(root, path) == "inside"


def test_a_link_to_an_absolute_host_path_does_not_reach_it(host: Path, root: int) -> None:
    (host / "root/link").symlink_to(host / "etc")
    with pytest.raises(FileNotFoundError):
        open_in_root(root, b"link/passwd")


def test_links_can_be_refused(host: Path, root: int) -> None:
    (host / "root/dir").symlink_to("etc")
    with pytest.raises(OSError, match="symbolic links"):
        open_in_root(root, b"dir", links=False)
    with pytest.raises(OSError, match="symbolic links"):
        open_in_root(root, b"dir/passwd", links=False)


def test_magic_links_are_refused() -> None:
    slash = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError, match="symbolic links"):
            open_in_root(slash, b"proc/self/root/etc")
    finally:
        os.close(slash)


def test_descriptors_do_not_survive_exec(root: int) -> None:
    fd = open_in_root(root, b"etc")
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_directories_are_made_with_their_parents(host: Path, root: int) -> None:
    os.close(make_directory_in_root(root, b"/a/b//c/"))
    assert (host / "root/a/b/c").is_dir()


def test_a_directory_is_made_where_a_link_leads_inside(host: Path, root: int) -> None:
    (host / "root/var").symlink_to("/etc")
    os.close(make_directory_in_root(root, b"var/lib/x"))
    assert (host / "root/etc/lib/x").is_dir()
    assert not (host / "etc/lib").exists()


@pytest.mark.parametrize("make", [make_directory_in_root, make_file_in_root])
def test_nothing_is_made_outside_through_a_link(host: Path, root: int, make: object) -> None:
    (host / "root/up").symlink_to("../..")
    (host / "root/out").symlink_to(host)
    before = sorted(os.listdir(host))
    for path in (b"up/new", b"out/new", b"../new", b"dangling"):
        if path == b"dangling":
            (host / "root/dangling").symlink_to(host / "made")
        try:
            os.close(make(root, path))  # type: ignore[operator]
        except OSError:
            pass
    assert sorted(os.listdir(host)) == before


def test_files_are_made_empty_with_their_parents_and_left_alone_if_there(host: Path, root: int) -> None:
    os.close(make_file_in_root(root, b"/run/lock/file"))
    assert (host / "root/run/lock/file").read_bytes() == b""
    os.close(make_file_in_root(root, b"/etc/passwd"))
    assert (host / "root/etc/passwd").read_text() == "inside"


def test_reading_gives_the_contents_or_nothing(host: Path, root: int) -> None:
    assert read_in_root(root, b"etc/passwd") == b"inside"
    assert read_in_root(root, b"etc/passwd", limit=2) == b"in"
    assert read_in_root(root, b"etc/shadow") == b""
    assert read_in_root(root, b"etc/passwd/x") == b""
    (host / "root/link").symlink_to(host / "etc/passwd")
    assert read_in_root(root, b"link") == b""


def test_a_fifo_in_the_place_of_a_file_does_not_block(host: Path, root: int) -> None:
    os.mkfifo(host / "root/etc/group")
    assert read_in_root(root, b"etc/group") == b""


@pytest.mark.parametrize("make", [make_directory_in_root, make_file_in_root])
@pytest.mark.parametrize("target", ["/run/new/name", "../run/new/name", "../../../../run/new/name", "/etc/next"])
def test_what_a_link_that_leads_nowhere_points_to_is_made(host: Path, root: int, make: Any, target: str) -> None:
    (host / "root/etc/link").symlink_to(target)
    (host / "root/etc/next").symlink_to("/run/new/name")
    os.close(make(root, b"/etc/link"))
    assert (host / "root/run/new/name").exists()
    assert sorted(os.listdir(host)) == ["etc", "root"]


@pytest.mark.parametrize("make", [make_directory_in_root, make_file_in_root])
def test_links_in_a_circle_are_refused(host: Path, root: int, make: Any) -> None:
    (host / "root/a").symlink_to("b")
    (host / "root/b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        make(root, b"a/name")


@pytest.mark.parametrize("make", [make_directory_in_root, make_file_in_root])
def test_nothing_is_made_through_a_link_where_links_are_refused(host: Path, root: int, make: Any) -> None:
    (host / "root/link").symlink_to("/run")
    for path in (b"link", b"link/name"):
        with pytest.raises(OSError, match="symbolic links"):
            make(root, path, links=False)
    assert os.listdir(host / "root") in (["etc", "link"], ["link", "etc"])
