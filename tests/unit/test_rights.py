"""Descriptors by a socket: what is borrowed stays open, whatever happens in between."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from mydocker.linux import rights


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    pair = rights.pair()
    yield pair
    for fd in pair:
        os.close(fd)


def test_descriptors_arrive_with_the_bytes(ends: tuple[int, int]) -> None:
    one, other = ends
    with open("/dev/null", "rb") as null:
        rights.send(one, b"word", [null.fileno()])
        data, descriptors = rights.receive(other, 100, 1)
        assert data == b"word"
        assert os.path.sameopenfile(descriptors[0], null.fileno())
    os.close(descriptors[0])


def test_a_program_s_default_timeout_is_for_its_own(ends: tuple[int, int]) -> None:
    one, other = ends
    rights._known.clear()
    socket.setdefaulttimeout(0.001)
    try:
        timer = threading.Timer(0.1, lambda: os.write(one, b"late"))
        timer.start()
        assert rights.receive(other, 100, 1) == (b"late", [])
        timer.join()
    finally:
        socket.setdefaulttimeout(None)
    assert os.get_blocking(other)


def test_another_socket_may_have_the_number() -> None:
    for _ in range(3):
        one, other = rights.pair()
        rights.send(one, b"x", [])
        assert rights.receive(other, 100, 1) == (b"x", [])
        os.close(one)
        os.close(other)
        with pytest.raises(OSError, match="Bad file"):
            rights.send(one, b"x", [])


def test_interrupts_leave_both_ends_open(
    ends: tuple[int, int], interrupted: Callable[[Callable[[int], object]], None]
) -> None:
    """Python raises them between any two instructions, and another descriptor may have the number afterwards."""
    one, other = ends

    def exchange(_: int) -> None:
        for _ in range(50):
            rights.send(one, b"x", [])
            rights.receive(other, 10, 1)

    interrupted(exchange)
    rights.send(one, b"y", [])
    assert rights.receive(other, 100_000, 1)[0].strip(b"x") == b"y"
