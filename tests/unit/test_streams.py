"""The streams that the Python API passes, without a container: the other ends are held here."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

import pytest

from mydocker.streams import CapturedStreams, Streams

PIPE, STDOUT = CapturedStreams.PIPE, CapturedStreams.STDOUT


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def serve(streams: CapturedStreams, command: Callable[[int, int, int], None]) -> None:
    """Run ``command`` with copies of the child's descriptors, in a thread, and serve until it has returned."""
    copies = [os.dup(fd) for fd in streams.for_child()]
    ended, end = os.pipe()

    def run() -> None:
        try:
            command(*copies)
        finally:
            for fd in copies:
                os.close(fd)
            os.close(end)

    thread = threading.Thread(target=run)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    streams.started(-1, poll)
    thread.start()
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if ended in ready:
            break
        for fd in ready:
            streams.serve(fd, poll)
    thread.join()
    os.close(ended)
    streams.finish()


def copy_all(stdin: int, stdout: int, _stderr: int) -> None:
    while data := os.read(stdin, 1 << 16):
        view = memoryview(data)
        while view:
            view = view[os.write(stdout, view) :]


@pytest.fixture
def null() -> int:
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd  # type: ignore[misc]
    os.close(fd)


def test_descriptors_pass_as_they_are() -> None:
    assert Streams(7, 8, 9).for_child() == (7, 8, 9)
    assert CapturedStreams(7, 8, 9).for_child() == (7, 8, 9)


def test_input_and_output_larger_than_a_pipe_pass_at_the_same_time() -> None:
    before = descriptors()
    data = os.urandom(3 << 20)
    streams = CapturedStreams(PIPE, PIPE, PIPE, data)
    serve(streams, copy_all)
    streams.close()
    assert streams.output("stdout") == data
    assert streams.output("stderr") == b""
    assert descriptors() == before


def test_stderr_can_go_where_stdout_goes(null: int) -> None:
    streams = CapturedStreams(null, PIPE, STDOUT)

    def command(_stdin: int, stdout: int, stderr: int) -> None:
        os.write(stdout, b"1")
        os.write(stderr, b"2")
        os.write(stdout, b"3")

    serve(streams, command)
    streams.close()
    assert streams.output("stdout") == b"123"
    assert streams.output("stderr") is None


def test_what_is_not_captured_is_none(null: int) -> None:
    streams = CapturedStreams(null, null, null)
    streams.close()
    assert streams.output("stdout") is None


def test_a_command_that_does_not_read_its_input_is_no_error() -> None:
    streams = CapturedStreams(PIPE, PIPE, PIPE, b"x" * (1 << 20))
    serve(streams, lambda _stdin, stdout, _stderr: os.write(stdout, b"done") and None)
    streams.close()
    assert streams.output("stdout") == b"done"


def test_input_that_is_empty_ends_at_once() -> None:
    streams = CapturedStreams(PIPE, PIPE, PIPE, b"")
    serve(streams, copy_all)
    streams.close()
    assert streams.output("stdout") == b""


@pytest.mark.parametrize("serve_first", [False, True])
def test_close_gives_everything_back_at_any_time_and_twice(serve_first: bool) -> None:
    before = descriptors()
    streams = CapturedStreams(PIPE, PIPE, PIPE, b"data")
    if serve_first:
        serve(streams, copy_all)
    streams.close()
    streams.close()
    assert descriptors() == before


def test_the_childs_ends_do_not_survive_exec() -> None:
    streams = CapturedStreams(PIPE, PIPE, PIPE, b"data")
    assert not any(os.get_inheritable(fd) for fd in streams.for_child())
    streams.close()
