"""``--user`` against the container's own /etc/passwd and /etc/group."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker.errors import UsageError
from mydocker.user import User, resolve

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
alice:x:1000:1001:Alice:/home/alice:/bin/sh
nohome:x:1002:1002:::
short:x:1003
# a comment
3000:x:1004:1004::/home/digits:/bin/sh
broken:x:abc:1:::
"""
GROUP = b"""root:x:0:
alice:x:1001:
audio:x:29:alice,bob
video:x:44:bob,alice
malice:x:66:malice
alicesown:x:77:alice2
"""


def test_nobody_named_is_root() -> None:
    assert resolve("", b"", b"") == User(uid=0, gid=0, groups=(0,), home=b"/root")


def test_name_gives_ids_home_and_the_groups_that_list_it() -> None:
    assert resolve("alice", PASSWD, GROUP) == User(uid=1000, gid=1001, groups=(1001, 29, 44), home=b"/home/alice")


def test_number_of_a_known_user_is_that_user() -> None:
    assert resolve("1000", PASSWD, GROUP) == resolve("alice", PASSWD, GROUP)


def test_number_need_not_be_known() -> None:
    assert resolve("4242", PASSWD, GROUP) == User(uid=4242, gid=0, groups=(0,), home=b"/")


def test_given_group_replaces_all_others() -> None:
    assert resolve("alice:audio", PASSWD, GROUP) == User(uid=1000, gid=29, groups=(29,), home=b"/home/alice")
    assert resolve("1000:7", PASSWD, GROUP).groups == (7,)
    assert resolve("0:1001", PASSWD, GROUP) == User(uid=0, gid=1001, groups=(1001,), home=b"/root")


def test_home_that_is_empty_is_the_root_directory() -> None:
    assert resolve("nohome", PASSWD, GROUP).home == b"/"


def test_digits_are_a_number_before_they_are_a_name() -> None:
    assert resolve("3000", PASSWD, GROUP).uid == 3000


@pytest.mark.parametrize("user", ["mallory", "short", "alic", "Alice", "#", "-1", "+1", "1.0", "\uff11"])
def test_unknown_user_is_named(user: str) -> None:
    with pytest.raises(UsageError, match="--user"):
        resolve(user, PASSWD, GROUP)


@pytest.mark.parametrize("user", ["alice:nogroup", "alice:", "alice:a:b"])
def test_unknown_group_is_named(user: str) -> None:
    with pytest.raises(UsageError, match="--user"):
        resolve(user, PASSWD, GROUP)


@pytest.mark.parametrize("user", ["4294967295", "99999999999999999999", "1:4294967295"])
def test_ids_that_the_kernel_does_not_have_are_refused(user: str) -> None:
    """The largest 32-bit number means "no change" to setresuid(2): it would leave the command root."""
    with pytest.raises(UsageError, match="4294967294"):
        resolve(user, b"", b"")


@given(st.binary(max_size=300), st.binary(max_size=200), st.text(max_size=12))
def test_no_file_and_no_text_makes_it_fail_otherwise(passwd: bytes, group: bytes, text: str) -> None:
    try:
        user = resolve(text, passwd, group)
    except UsageError:
        return
    assert 0 <= user.uid < 1 << 32
    assert 0 <= user.gid < 1 << 32
