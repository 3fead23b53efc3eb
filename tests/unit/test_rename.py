from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mydocker.linux import rename


@pytest.mark.parametrize("number", [0, errno.EINVAL, errno.ENOSYS])
@pytest.mark.parametrize("old", ["an older text", None])
def test_the_new_one_alone_is_there(
    number: int, old: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number:

        def refuse(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(rename, "_renameat2", refuse)
    path, new = tmp_path / "it", tmp_path / "it.new"
    if old is not None:
        path.write_text(old)
    new.write_text("new")
    inode = new.stat().st_ino
    rename.replace(str(path), str(new))
    assert (path.read_text(), path.stat().st_ino) == ("new", inode)
    assert os.listdir(tmp_path) == ["it"]


def test_what_is_not_there_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("old")
    with pytest.raises(FileNotFoundError):
        rename.replace(str(tmp_path / "it"), str(tmp_path / "it.new"))
    assert (tmp_path / "it").read_text() == "old"
