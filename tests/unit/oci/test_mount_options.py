"""The options of a mount in config.json, sorted by whom they are for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker.linux import mount
from mydocker.oci.mount_options import KNOWN, parse

RO, NOSUID = mount.MOUNT_ATTR_RDONLY, mount.MOUNT_ATTR_NOSUID

WORDS = sorted(KNOWN)


def test_no_options() -> None:
    options = parse([], "tmpfs")
    assert (options.attributes, options.changes, options.bind, options.data) == (0, False, False, ())


@pytest.mark.parametrize(("words", "fstype"), [(["bind"], ""), (["rbind"], "none"), ([], "bind")])
def test_what_makes_a_bind(words: list[str], fstype: str) -> None:
    options = parse(words, fstype)
    assert options.bind
    assert options.recursive == ("rbind" in words)
    assert not options.changes


def test_the_last_word_wins() -> None:
    options = parse(["ro", "nosuid", "rw"], "tmpfs")
    assert (options.attributes, options.cleared) == (NOSUID, RO)
    assert parse(["rw", "ro"], "tmpfs").readonly


@pytest.mark.parametrize(
    ("words", "bits", "stated"),
    [
        ([], 0, False),
        (["noatime"], mount.MOUNT_ATTR_NOATIME, True),
        (["noatime", "atime"], 0, False),
        (["strictatime", "noatime"], mount.MOUNT_ATTR_STRICTATIME, True),
        (["relatime"], 0, True),
        (["norelatime"], 0, False),
        (["nodiratime"], mount.MOUNT_ATTR_NODIRATIME, True),
        (["diratime"], 0, False),
    ],
)
def test_times_of_access(words: list[str], bits: int, stated: bool) -> None:
    options = parse(words, "bind")
    assert (options.attributes, options.atime) == (bits, stated)


def test_recursive_times_of_access_clear_all_their_bits_first() -> None:
    """mount_setattr(2): a part of them is EINVAL."""
    for word in ("rnoatime", "ratime", "rrelatime", "rnorelatime", "rstrictatime", "rnostrictatime"):
        options = parse([word], "bind")
        assert options.clear_below & mount.MOUNT_ATTR__ATIME == mount.MOUNT_ATTR__ATIME
        assert options.set_below & ~mount.MOUNT_ATTR__ATIME == 0


def test_flags_of_the_file_system() -> None:
    assert parse(["sync", "ro"], "tmpfs").superblock == ((b"sync", None), (b"ro", None))
    assert parse(["sync", "async"], "tmpfs").superblock == ((b"async", None),)


def test_propagation_in_order() -> None:
    assert parse(["rslave", "shared"], "bind").propagation == ((mount.MS_SLAVE, True), (mount.MS_SHARED, False))


def test_the_rest_is_for_the_file_system() -> None:
    options = parse(["size=1m,mode=755", "", "huge", "context=a=b", "ro"], "tmpfs")
    assert options.data == ((b"size", b"1m"), (b"mode", b"755"), (b"huge", None), (b"context", b"a=b"))


def test_a_comma_in_a_path_of_overlay() -> None:
    assert parse([r"lowerdir=/a\,b:/c", "upperdir=/d\\\\,x"], "overlay").data == (
        (b"lowerdir", rb"/a\,b:/c"),
        (b"upperdir", rb"/d\\"),
        (b"x", None),
    )
    assert parse([r"a=1\,b=2"], "tmpfs").data == ((b"a", b"1\\"), (b"b", b"2"))


def test_bytes_that_are_no_text() -> None:
    assert parse(["lowerdir=/\udcff"], "overlay").data == ((b"lowerdir", b"/\xff"),)


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        parse(["size=1\0"], "tmpfs")


@given(st.lists(st.sampled_from(WORDS)))
def test_no_known_word_reaches_the_file_system_as_data(words: list[str]) -> None:
    options = parse(words, "ext4")
    assert options.data == ()
    assert options.set_below & options.clear_below & ~mount.MOUNT_ATTR__ATIME == 0
    assert options.attributes & options.cleared == 0


@given(st.lists(st.text(st.characters(exclude_characters=",\\\0", exclude_categories=("Cs",)), min_size=1)))
def test_unknown_words_come_through_in_order(words: list[str]) -> None:
    words = [f"x-{word}" for word in words]
    joined = [key if value is None else key + b"=" + value for key, value in parse(words, "fuse").data]
    assert joined == [word.encode() for word in words]
