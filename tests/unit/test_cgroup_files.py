"""A cgroup's file is read to its end, in however many parts the kernel gives it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mydocker.cgroups import files
from mydocker.errors import CgroupError


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 4096, 65536, 200_000])
def test_of_any_size(size: int, tmp_path: Path) -> None:
    text = "".join(chr(48 + number % 70) for number in range(size))
    (tmp_path / "it").write_text(f"{text}\n" if size else "")
    assert files.read(str(tmp_path / "it")) == text


def test_by_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends where the next record does not fit (seq_file.rst), as with the processes of a large cgroup."""
    records = [b"%d\n" % number for number in range(7, 9999)]
    pages: list[bytes] = [b""]
    for record in records:
        if len(pages[-1] + record) > 4096:
            pages.append(b"")
        pages[-1] += record
    (tmp_path / "it").touch()
    read = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: (pages.pop(0) if pages else b"") + read(fd, 0))
    assert files.read(str(tmp_path / "it")) == b"".join(records).decode().strip()


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match=r"cannot read .*none: No such file or directory"):
        files.read(str(tmp_path / "none"))
