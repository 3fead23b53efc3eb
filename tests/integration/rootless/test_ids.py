"""The ids of a plain user's container: subordinate ones, or one only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def subordinate(file: str, name: str) -> tuple[int, int]:
    """(first, count) of the user's line."""
    row = next(line.split(":") for line in Path(file).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(row[1]), int(row[2])


def test_subordinate_ids_follow_the_callers_own(alice: Any) -> None:
    result = alice.run("cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups")
    (uid, uids), (gid, gids) = subordinate("/etc/subuid", alice.name), subordinate("/etc/subgid", alice.name)
    expected = [0, alice.uid, 1, 1, uid, uids, 0, alice.gid, 1, 1, gid, gids]
    assert result.stdout.split() == [*map(str, expected), "allow"], result.stderr


def test_without_them_there_is_one_id(stranger: Any) -> None:
    result = stranger.run("cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups")
    assert result.stdout.split() == ["0", str(stranger.uid), "1", "0", str(stranger.gid), "1", "deny"]


@pytest.mark.vm
def test_other_users_of_the_container_have_subordinate_ids_outside(alice: Any) -> None:
    alice.home.chmod(0o777)
    result = alice.run("--user", "1000:5", "sh", "-c", f"id -u; id -g; id -G; touch {alice.home}/made")
    assert (result.stdout, result.returncode) == ("1000\n5\n5\n", 0), result.stderr
    status = (alice.home / "made").stat()
    assert status.st_uid == subordinate("/etc/subuid", alice.name)[0] + 999
    assert status.st_gid == subordinate("/etc/subgid", alice.name)[0] + 4


def test_with_one_id_the_caller_is_whoever_was_asked_for(stranger: Any) -> None:
    result = stranger.run("--user", "1000:5", "sh", "-c", "id -u; id -g; touch made; grep CapEff /proc/self/status")
    assert result.stdout == f"1000\n5\nCapEff:\t{'0' * 16}\n", result.stderr
    status = (stranger.home / "made").stat()
    assert (status.st_uid, status.st_gid) == (stranger.uid, stranger.gid)


@pytest.mark.vm
def test_a_terminal_and_a_reaper_serve_another_id_too(user: Any) -> None:
    code = (
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
        *(user.python, "-m", "mydocker", "run", "-t", "--init", "-u", "77"),
        *("sh", "-c", "id -u; tty; test -w /dev/tty"),
    )
    result = user.call(user.python, "-c", *code)
    assert (result.stdout.split(), result.returncode) == (["77", "/dev/pts/0"], 0)


@pytest.mark.parametrize("wanted", ["4000000000", "0:4000000000"])
def test_ids_beyond_the_subordinate_ones_are_refused(alice: Any, wanted: str) -> None:
    result = alice.run("--user", wanted, "true")
    assert result.returncode == 125
    assert "4000000000 is not in the container of this user, whose subordinate ids end at" in result.stderr


def test_chown_reaches_as_far_as_the_ids(alice: Any, stranger: Any) -> None:
    script = "touch f && chown 1000 f && stat -c %u f"
    assert alice.run("-w", alice.home, "sh", "-c", script).stdout == "1000\n"
    assert "Invalid argument" in stranger.run("-w", stranger.home, "sh", "-c", script).stderr


@pytest.mark.vm
def test_groups_of_a_named_user(user: Any, users_rootfs: Path) -> None:
    """alice of the rootfs is in audio, 29. Groups cannot be set where there is one id."""
    result = user.run("--rootfs", users_rootfs, "--user", "alice", "id", "-G")
    assert result.returncode == 0, result.stderr
    assert ("29" in result.stdout.split()) == (user.name != str(user.uid))


def test_groups_of_the_caller_cannot_be_left_where_setgroups_is_denied(stranger: Any) -> None:
    code = "import os; os.setgroups([])"
    result = stranger.run(stranger.python, "-c", code)
    assert "PermissionError" in result.stderr


def test_under_no_new_privs_there_is_one_id(alice: Any) -> None:
    result = alice.call("setpriv", "--no-new-privs", alice.python, "-m", "mydocker", "run", "cat", "/proc/self/uid_map")
    assert result.stdout.split() == ["0", str(alice.uid), "1"], result.stderr


def test_what_newuidmap_refuses_is_told_in_its_words(alice: Any) -> None:
    tools = alice.home / "bin"
    tools.mkdir()
    for name in ("newuidmap", "newgidmap"):
        (tools / name).write_text("#!/bin/sh\necho no luck today >&2\nexit 1\n")
        (tools / name).chmod(0o755)
    result = alice.run("true", env={"PATH": f"{tools}:{alice.environment['PATH']}"})
    assert result.returncode == 125
    assert "newuidmap did not map the uids of the container: no luck today" in result.stderr
