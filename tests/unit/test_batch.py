"""Batches of system calls: the machine code and the loop of Python do the same."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mydocker.linux import batch, libc, machine
from mydocker.linux.batch import Batch, BatchError

OPENAT, READ, WRITE, CLOSE, MKDIRAT = (
    libc.architecture_number(*numbers) for numbers in ((257, 56), (0, 63), (1, 64), (3, 57), (258, 34))
)
AT_FDCWD = -100


@pytest.fixture(params=["machine code", "python"], autouse=True)
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test runs by both."""
    found: Callable[[int, int, int], int] | None = batch._run_by_python
    if request.param == "machine code":
        found = batch._native()
        if found is None:
            pytest.skip("there is no machine code for this machine, or it may not be executed")
    monkeypatch.setattr(batch, "_runners", [found])
    yield


def test_what_a_call_gives_is_an_argument_of_later_ones(tmp_path: Path) -> None:
    calls = Batch()
    directory, file = calls.slot(), calls.slot()
    calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "d"), 0o700)
    calls.call(OPENAT, AT_FDCWD, os.fsencode(tmp_path / "d"), os.O_RDONLY | os.O_DIRECTORY, to=directory)
    calls.call(OPENAT, directory, b"f", os.O_WRONLY | os.O_CREAT, 0o600, to=file)
    calls.call(WRITE, file, b"hello", 5)
    calls.call(CLOSE, file)
    calls.call(CLOSE, directory)
    slots = calls.run({})
    assert (tmp_path / "d/f").read_text() == "hello"
    for fd in (slots[directory], slots[file]):
        with pytest.raises(OSError):
            os.fstat(fd)


def test_slots_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with open(tmp_path / "f", "r+b") as file:
        calls = Batch()
        into = calls.slot()
        calls.call(WRITE, into, b"abc", 3)
        calls.run({into: file.fileno()})
        calls.run({into: file.fileno()})
    assert (tmp_path / "f").read_bytes() == b"abcabc"


def test_it_stops_at_the_first_that_fails_and_says_which(tmp_path: Path) -> None:
    calls = Batch()
    calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "a"), 0o700, name="make the first")
    calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "none/b"), 0o700)
    calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "c"), 0o700, name="make the third")
    with pytest.raises(BatchError) as caught:
        calls.run({})
    assert (caught.value.errno, caught.value.index) == (errno.ENOENT, 1)
    assert calls.name_of(caught.value.index) == "make the first"
    assert sorted(os.listdir(tmp_path)) == ["a"]


@pytest.mark.parametrize("failing", [errno.ENOENT, errno.EPERM])
def test_one_error_may_be_provided_for_and_no_other(tmp_path: Path, failing: int) -> None:
    calls = Batch()
    calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "none/a"), 0o700, failing=failing, over=2)
    for name in "bcd":
        calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / name), 0o700)
    if failing == errno.ENOENT:
        calls.run({})
        assert os.listdir(tmp_path) == ["d"]
    else:
        with pytest.raises(BatchError):
            calls.run({})
        assert os.listdir(tmp_path) == []


def test_calls_can_be_passed_over(tmp_path: Path) -> None:
    calls = Batch()
    calls.pass_over(2)
    for name in "abc":
        calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / name), 0o700)
    calls.run({})
    assert os.listdir(tmp_path) == ["c"]


def test_one_that_is_to_be_tried_again_is_tried_from_there_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        calls = Batch()
        calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "once"), 0o700)
        calls.call(READ, reader, bytes(8), 8)
        with pytest.raises(BatchError) as caught:
            calls.run({})
        assert (caught.value.errno, caught.value.index) == (errno.EAGAIN, 1)  # and not EEXIST
        os.write(writer, b"x")
    finally:
        os.close(reader)
        os.close(writer)


def test_strings_with_a_nul_or_none_pass_as_they_are(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        calls = Batch()
        calls.call(WRITE, fd, b"a\0b", 4)
        calls.run({})
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"a\0b\0"


def test_what_a_call_has_brought_can_be_looked_at_and_expected() -> None:
    memory = machine.new_memory(machine.PAGE)
    reader, writer = os.pipe()
    try:
        calls = Batch()
        calls.call(READ, reader, memory, 16)
        first, rest, whole = calls.load(memory, 1), calls.load(memory + 4, 4), calls.load(memory + 8, 8)
        calls.expect(first, ord("A"), errno.EPROTO, name="see what came")
        os.write(writer, b"Abc-" + b"1234" + b"\xff" * 8)
        slots = calls.run({})
        assert slots[first] == ord("A")
        assert slots[rest] == int.from_bytes(b"1234", sys.byteorder)
        assert slots[whole] == (1 << 64) - 1
        os.write(writer, b"B")
        with pytest.raises(BatchError) as caught:
            calls.run({})
        assert caught.value.errno == errno.EPROTO
        assert calls.name_of(caught.value.index) == "see what came"
    finally:
        os.close(reader)
        os.close(writer)


def test_all_of_a_pipe_however_it_comes_and_no_less() -> None:
    memory = machine.new_memory(4 * machine.PAGE)
    reader, writer = os.pipe()
    text = os.urandom(10_000)

    def write() -> None:
        for at in range(0, len(text), 1000):
            os.write(writer, text[at : at + 1000])
            time.sleep(0.001)
        os.close(writer)

    thread = threading.Thread(target=write)
    calls = Batch()
    pipe = calls.slot()
    calls.read_all(pipe, memory, 9000)
    calls.read_all(pipe, memory + 9000, 1000)
    calls.read_all(pipe, memory + 10_000, 0)
    calls.read_all(pipe, memory + 10_000, 1)
    try:
        # A thread that waits in a batch keeps the interpreter, so another process does it.
        child = os.fork()
        if child == 0:
            try:
                os.close(writer)
                calls.run({pipe: reader})
            except BatchError as e:
                came = (libc.c_char * len(text)).from_address(memory).raw
                os._exit(0 if (e.errno, e.index, came == text) == (batch.ENODATA, 3, True) else 1)
            os._exit(2)
        thread.start()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        os.close(reader)


def test_it_goes_on_with_another_table_and_counts_on(tmp_path: Path) -> None:
    names = [libc.create_string_buffer(os.fsencode(tmp_path / name)) for name in "abc"]

    def made(name: object, **more: int) -> bytes:
        return batch.record(MKDIRAT, AT_FDCWD, libc.addressof(name), 0o700, **more)

    other = made(names[0]) + made(names[0], failing=errno.EEXIST, over=1) + made(names[1]) + made(names[2])
    there = libc.create_string_buffer(other, len(other))
    calls = Batch()
    table, count = calls.slot(), calls.slot()
    calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "first"), 0o700)
    calls.go_to(table, count)
    calls.run({table: libc.addressof(there), count: 4}, 1)
    assert sorted(os.listdir(tmp_path)) == ["a", "c", "first"]
    (tmp_path / "first").rmdir()
    with pytest.raises(BatchError) as caught:
        calls.run({table: libc.addressof(there), count: 4}, 1)
    assert (caught.value.errno, caught.value.index) == (errno.EEXIST, 1)
    os.rmdir(tmp_path / "first")
    calls.run({table: 0, count: 0}, 1)
    assert len(other) == 4 * batch.RECORD_SIZE


def test_calls_that_belong_together_are_left_at_the_first_that_fails(tmp_path: Path) -> None:
    calls = Batch()
    first = len(calls)
    for name in ("a", "none/b", "c"):
        calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / name), 0o700)
    calls.optional(first)
    calls.call(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "d"), 0o700)
    calls.run({})
    assert sorted(os.listdir(tmp_path)) == ["a", "d"]
