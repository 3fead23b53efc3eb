"""Where a plain user's containers keep their state."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def in_tmp(stranger: Any) -> Iterator[Path]:
    """Where the state is without XDG_RUNTIME_DIR; removed at the end."""
    path = Path(f"/tmp/mydocker-{stranger.uid}")
    assert not os.path.lexists(path)
    del stranger.environment["XDG_RUNTIME_DIR"]
    yield path
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def test_it_is_in_tmp_for_the_user_alone(stranger: Any, in_tmp: Path) -> None:
    assert stranger.run("true").returncode == 0
    status = in_tmp.lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, stranger.uid)
    assert os.listdir(in_tmp) == []
    assert stranger.run("true").returncode == 0


def test_the_runtime_directory_of_another_user_is_not_used(stranger: Any, in_tmp: Path, tmp_path: Path) -> None:
    """As after su, which leaves the variable in place."""
    assert stranger.run("true", env={"XDG_RUNTIME_DIR": "/run"}).returncode == 0
    assert in_tmp.exists()


@pytest.mark.parametrize("trap", ["a link", "another user's", "open to others", "a file"])
def test_what_somebody_else_put_there_is_not_used(stranger: Any, in_tmp: Path, trap: str) -> None:
    if trap == "a link":
        in_tmp.symlink_to(stranger.runtime)
    elif trap == "a file":
        in_tmp.touch(0o700)
        os.chown(in_tmp, stranger.uid, stranger.gid)
    else:
        in_tmp.mkdir(0o700)
        if trap == "open to others":
            in_tmp.chmod(0o770)
            os.chown(in_tmp, stranger.uid, stranger.gid)
    result = stranger.run("true")
    assert result.returncode == 125
    assert "is not a directory that only this user may enter" in result.stderr
    assert os.listdir(stranger.runtime) == []


def test_a_named_place_is_used_as_it_is(stranger: Any) -> None:
    place = stranger.home / "named"
    assert stranger.run("true", env={"MYDOCKER_STATE_DIR": str(place)}).returncode == 0
    result = stranger.run("true", env={"MYDOCKER_STATE_DIR": "/etc/mydocker-test"})
    assert (result.returncode, "cannot keep the containers' state" in result.stderr) == (125, True)


def test_the_table_of_plugins_is_kept_in_the_users_cache(stranger: Any) -> None:
    stranger.run("-m", "1", "true")  # a limit that is refused, after the plugins were looked up
    kept = list((stranger.home / ".cache/mydocker").iterdir())
    assert all(path.stat().st_uid == stranger.uid for path in kept)


def test_root_of_a_users_namespace_is_that_user(tmp_path: Path) -> None:
    """Podman calls its runtime so for a plain user. Root of the host has such a variable in his session, too."""
    tmp_path.chmod(0o700)
    script = [sys.executable, "-c", "from mydocker import state; print(state.default_root())"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("MYDOCKER_STATE_DIR", None)
    places = [
        subprocess.check_output([*prefix, *script], env=environment, text=True).strip()
        for prefix in ([], ["unshare", "--user", "--map-root-user"])
    ]
    assert places == ["/run/mydocker", f"{tmp_path}/mydocker"]
