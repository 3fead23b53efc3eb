"""The content of a directory copied for ``tmpcopyup``."""

from __future__ import annotations

import os
from pathlib import Path

from mydocker.oci import copy_up


def copied(source: Path, target: Path) -> None:
    target.mkdir()
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    try:
        copy_up.copy_content(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def test_holes_are_not_written(tmp_path: Path) -> None:
    """A file of a root is as large as its maker likes: a tmpfs would be full of zeros."""
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"data")
    (source / "empty").touch()
    (source / "full").write_bytes(os.urandom(3 << 20))
    (source / "hole").touch()
    os.truncate(source / "hole", 1 << 40)
    copied(source, tmp_path / "target")
    found = tmp_path / "target/sparse"
    assert found.stat().st_size == 1 << 40
    assert found.stat().st_blocks * 512 < 1 << 20
    with found.open("rb") as file:
        file.seek((1 << 30) - 1)
        assert file.read(6) == b"\0data\0"
    assert (tmp_path / "target/full").read_bytes() == (source / "full").read_bytes()
    assert (tmp_path / "target/empty").stat().st_size == 0
    assert (tmp_path / "target/hole").stat().st_blocks == 0
