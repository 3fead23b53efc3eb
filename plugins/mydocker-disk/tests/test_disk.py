"""Values, refusals and the file systems themselves, without containers."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mydocker_disk
import pytest
from mydocker_disk import backing

from mydocker import LimitError, UnsupportedLimit
from mydocker.testing import Journey

Start = Callable[..., Journey]

needs_images = pytest.mark.skipif(
    os.geteuid() != 0 or bool(backing.image_problem()), reason=backing.image_problem() or "mounts take root"
)


@pytest.mark.parametrize("text", ["", "0", "1023k", "-1", "ten", "100t"])
def test_a_size_is_at_least_1m(limit_journey: Start, text: str) -> None:
    with pytest.raises(LimitError, match=r"^--disk: "):
        limit_journey(mydocker_disk, disk=text, overlay=True)


def test_a_backing_is_one_of_three(limit_journey: Start) -> None:
    with pytest.raises(LimitError, match=r'^--disk-backing: "floppy" is none of image, tmpfs, auto'):
        limit_journey(mydocker_disk, disk="1m", disk_backing="floppy", overlay=True)


def test_without_an_overlay_it_is_refused(limit_journey: Start) -> None:
    with pytest.raises(LimitError, match=r"^--disk: it needs --overlay"):
        limit_journey(mydocker_disk, disk="1m", disk_backing="auto")


def test_a_backing_alone_is_refused(limit_journey: Start) -> None:
    with pytest.raises(LimitError, match="give that too"):
        limit_journey(mydocker_disk, disk_backing="tmpfs", overlay=True)


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MYDOCKER_DISK_DIR", str(tmp_path / "nothing"))


@pytest.mark.usefixtures("no_images")
@pytest.mark.cgroup_layout("v2")
class TestAHostThatCannotMakeImages:
    def test_it_says_what_is_missing_and_what_else_there_is(self, limit_journey: Start, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedLimit) as caught:
            limit_journey(mydocker_disk, disk="1m", overlay=True)
        assert str(caught.value) == (
            f"--disk: {tmp_path}/nothing, where the image is to be, is no directory: set MYDOCKER_DISK_DIR to one; "
            "--disk-backing tmpfs keeps it in memory instead"
        )

    @pytest.mark.parametrize("values", [{}, {"disk_backing": "image"}])
    def test_best_effort_limits_drop_it(self, limit_journey: Start, values: dict[str, str]) -> None:
        container = limit_journey(mydocker_disk, disk="1m", limits="best-effort", overlay=True, **values)
        assert set(container.unenforced) == {"disk", *values}

    def test_auto_explains_that_it_takes_memory(self, limit_journey: Start) -> None:
        container = limit_journey(mydocker_disk)
        config = container.registry.parse({"disk": "1m", "disk_backing": "auto"})
        lines = mydocker_disk.mydocker_explain(config, container.host.layout)
        assert lines == ("mount a tmpfs of 1m as the upper layer of the overlay",)


@pytest.fixture(params=["image", "tmpfs"])
def mounted(request: pytest.FixtureRequest) -> Iterator[Callable[[int], int]]:
    """Mount a file system of a size, of each kind in turn; the descriptor of its mount."""
    if os.geteuid() != 0:
        pytest.skip("mounts take root")
    if request.param == "image" and backing.image_problem():
        pytest.skip(backing.image_problem())
    made: list[int] = []

    def mount(size: int) -> int:
        made.append(backing.mount_image(size) if request.param == "image" else backing.mount_tmpfs(size))
        return made[-1]

    yield mount
    for fd in made:
        os.close(fd)


def fill(directory: int, name: str = "file") -> int:
    """Write until the kernel refuses; how many bytes it took."""
    file = os.open(name, os.O_RDWR | os.O_CREAT, dir_fd=directory)
    written = 0
    try:
        while True:
            written += os.write(file, b"\xff" * 4096)
    except OSError as e:
        assert e.errno == errno.ENOSPC
    finally:
        os.close(file)
    return written


@pytest.mark.parametrize("size", [1 << 20, 5 << 20, 33 << 20])
def test_it_takes_so_many_bytes_and_no_more(mounted: Callable[[int], int], size: int) -> None:
    assert size - 4 * 4096 <= fill(mounted(size)) <= size


def test_it_takes_as_many_small_files_as_there_is_room_for(mounted: Callable[[int], int]) -> None:
    directory = mounted(4 << 20)
    count = 0
    with pytest.raises(OSError, match="No space left on device"):
        while True:
            file = os.open(f"f{count}", os.O_WRONLY | os.O_CREAT, dir_fd=directory)
            try:
                os.write(file, b"x" * 100)
            finally:
                os.close(file)
            count += 1
    assert count > (4 << 20) // 4096 * 0.9


def test_what_is_removed_makes_room(mounted: Callable[[int], int]) -> None:
    directory = mounted(2 << 20)
    first = fill(directory)
    os.unlink("file", dir_fd=directory)
    os.sync()
    assert fill(directory) == first


@needs_images
def test_an_image_has_no_name_and_goes_with_its_last_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., object]
) -> None:
    monkeypatch.setenv("MYDOCKER_DISK_DIR", str(tmp_path))
    directory = backing.mount_image(3 << 20)
    assert os.listdir(tmp_path) == []
    assert any(str(tmp_path) in file for file in loop_files())
    os.close(directory)
    eventually(lambda: not any(str(tmp_path) in file for file in loop_files()))


@needs_images
def test_an_image_takes_only_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYDOCKER_DISK_DIR", str(tmp_path))
    free = os.statvfs(tmp_path).f_bfree * os.statvfs(tmp_path).f_frsize
    directory = backing.mount_image(free)  # as much as there is on the host's whole disk
    try:
        assert os.fstatvfs(directory).f_bavail * 4096 > free - (1 << 20)
    finally:
        os.close(directory)


def loop_files() -> list[str]:
    """The files behind the loop devices of this host."""
    return [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]


@needs_images
def test_a_file_system_that_has_no_unnamed_files_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYDOCKER_DISK_DIR", str(tmp_path))
    real = os.open

    def without(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", without)
    directory = backing.mount_image(1 << 20)
    os.close(directory)
    assert os.listdir(tmp_path) == []


@needs_images
def test_what_mkfs_complains_of_is_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mkfs.ext4"
    program.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(OSError, match=r"mkfs\.ext4 failed: no such luck"):
        backing.mount_image(1 << 20)
