"""Which ids a plain user's container gets."""

from __future__ import annotations

import itertools
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker.errors import UsageError
from mydocker.linux import process
from mydocker.rootless import ids
from mydocker.user import User

UID, GID = 4711, 4712
LINES = "# a comment\nbob:1:2\nalice:100000:65536\nalice:bad:1\nalice:5:0\n4711:300000:10\n4711x:1:1\nalice:400000:1 \n"


def test_ranges_are_found_by_name_and_by_number(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text(LINES)
    assert ids._subordinate(str(file), ("alice", "4711")) == [(100000, 65536), (300000, 10), (400000, 1)]
    assert ids._subordinate(str(file), ("carol",)) == []
    assert ids._subordinate(str(tmp_path / "missing"), ("alice",)) == []


@given(st.lists(st.tuples(st.integers(1, 1 << 31), st.integers(1, 1 << 20)), max_size=20))
def test_the_ids_in_the_container_have_no_gap(subordinate: list[tuple[int, int]]) -> None:
    ranges = ids._laid_out(UID, subordinate)
    assert ranges[0] == (0, UID, 1)
    assert [(first, count) for _, first, count in ranges[1:]] == subordinate
    for (inside, _, count), (following, _, _) in itertools.pairwise(ranges):
        assert inside + count == following


@pytest.fixture
def plain_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Makes this process look like one of alice, who has everything that subordinate ids need, but for what is said."""
    for name, number in (("getuid", UID), ("geteuid", UID), ("getgid", GID), ("getegid", GID)):
        monkeypatch.setattr(os, name, lambda number=number: number)

    def make(*, ranges: bool = True, tools: bool = True, gid: int = GID, no_new_privs: int = 0) -> None:
        entry = pwd.struct_passwd(("alice", "x", UID, gid, "", "/", "/bin/sh"))
        monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)
        monkeypatch.setattr(ids, "_subordinate", lambda *_: [(100000, 1000)] if ranges else [])
        monkeypatch.setattr(ids, "_find", lambda name: f"/bin/{name}" if tools else None)
        monkeypatch.setattr(process, "prctl", lambda *_: no_new_privs)

    return make


def test_with_subordinate_ids_the_caller_is_root(plain_user: Callable[..., None]) -> None:
    plain_user()
    maps = ids.map_user(User()).maps
    assert maps is not None and maps.setgroups
    assert (maps.uids, maps.gids) == (((0, UID, 1), (1, 100000, 1000)), ((0, GID, 1), (1, 100000, 1000)))


@pytest.mark.parametrize("lack", [{"ranges": False}, {"tools": False}, {"gid": 1}, {"no_new_privs": 1}])
def test_without_any_one_of_the_conditions_there_is_one_id(
    plain_user: Callable[..., None], lack: dict[str, bool | int]
) -> None:
    plain_user(**lack)
    user = ids.map_user(User(uid=7, gid=8, groups=(8, 9)))
    assert user.maps == ids.IdMaps(uids=((7, UID, 1),), gids=((8, GID, 1),))
    assert user.groups == ()  # setgroups(2) is denied


def test_groups_that_the_container_does_not_have_are_left_out(plain_user: Callable[..., None]) -> None:
    plain_user()
    assert ids.map_user(User(uid=7, gid=1000, groups=(1000, 1001, 29))).groups == (1000, 29)


@pytest.mark.parametrize(("uid", "gid", "kind"), [(1001, 0, "user"), (0, 1001, "group")])
def test_an_id_that_the_container_does_not_have_is_an_error(
    plain_user: Callable[..., None], uid: int, gid: int, kind: str
) -> None:
    plain_user()
    with pytest.raises(UsageError, match=f"--user: the {kind} id 1001 is not .* end at 1000: .* /etc/sub{kind[0]}id"):
        ids.map_user(User(uid=uid, gid=gid))
