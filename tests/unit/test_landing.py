"""The frame of a command is what execve(2) takes at the place where it lands."""

from __future__ import annotations

import struct

import pytest

from mydocker import landing
from mydocker.landing import HEADER, MAGIC, Command
from mydocker.linux import batch
from mydocker.table import ROOM

AT = 0x7F0012340000
ENV = [b"PATH=/bin:/usr/bin", b"HOME=/", b"HOSTNAME=one"]


def strings_of(frame: bytes, at: int, argc: int, envc: int) -> tuple[list[bytes], list[bytes], int]:
    """Argv and environment by their pointers, and how many records follow."""
    magic, size, table, count = HEADER.unpack_from(frame)
    memory = frame[HEADER.size :]
    assert (magic, size) == (MAGIC, len(memory))
    pointers = struct.unpack_from(f"={argc + envc + 2}Q", memory)
    assert pointers[argc] == pointers[-1] == 0
    found = [memory[pointer - at :].partition(b"\0")[0] for pointer in pointers if pointer]
    assert table - at == 8 * (argc + envc + 2)
    return found[:argc], found[argc:], count


@pytest.mark.parametrize("argv", [[b"true"], [b"/bin/true"], [b"sh", b"-c", b""], [b""], [b"x" * 100] * 50])
def test_each_string_is_where_its_pointer_says(argv: list[bytes]) -> None:
    frame = Command(argv, ENV, AT).frame
    assert strings_of(frame, AT, len(argv), len(ENV))[:2] == (argv, ENV)


def test_two_of_one_shape_have_their_own_strings_and_places() -> None:
    landing._shapes.clear()
    for at in (AT, AT + (1 << 20)):
        for argv, host in (([b"sh", b"-c"], b"one"), ([b"ls", b"-l"], b"two")):
            env = [*ENV[:2], b"HOSTNAME=" + host]
            assert strings_of(Command(argv, env, at).frame, at, 2, 3)[:2] == (argv, env)
    assert len(landing._shapes) == 2


def test_one_more_argument_and_one_less_variable_are_another_shape() -> None:
    """The strings are as many and as long, all together."""
    for argv, env in (([b"a", b"bcd"], [b"PATH=/"]), ([b"a"], [b"bcd", b"PATH=/"])):
        assert strings_of(Command(argv, env, AT).frame, AT, len(argv), len(env))[:2] == (argv, env)


def test_a_path_is_tried_at_once_and_a_name_looked_for() -> None:
    """A failed execve(2) has copied all the arguments before."""
    counts = [
        strings_of(Command([name], env, AT).frame, AT, 1, len(env))[2]
        for name, env in ((b"/bin/true", ENV), (b"true", ENV), (b"true", [b"PATH=/bin"]))
    ]
    assert counts == [1, 4, 1]


def test_what_has_no_place_is_its_paths_alone() -> None:
    frame = Command([b"true", b"x" * ROOM], ENV, AT).frame
    assert HEADER.unpack_from(frame) == (MAGIC, len(frame) - HEADER.size, 0, 0)
    assert frame[HEADER.size :] == b"/bin/true\0/usr/bin/true\0"


def test_what_has_very_many_strings_is_not_kept() -> None:
    landing._shapes.clear()
    argv = [b"x"] * 1000
    assert strings_of(Command(argv, ENV, AT).frame, AT, len(argv), len(ENV))[:2] == (argv, ENV)
    assert not landing._shapes


def test_the_last_shapes_are_kept_and_no_more() -> None:
    for size in range(3 * landing._MOST_SHAPES):
        Command([b"x" * (size + 1)], ENV, AT)
    assert len(landing._shapes) <= landing._MOST_SHAPES


def test_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        Command([b"a\0b"], ENV, AT)


def test_a_record_has_the_size_that_the_table_is_laid_out_for() -> None:
    assert len(batch.record(0)) == batch.RECORD_SIZE
