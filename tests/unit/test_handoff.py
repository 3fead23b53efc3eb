"""The frame that carries the command: exact, complete or refused."""

from __future__ import annotations

import os
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import handoff
from mydocker.errors import HandoffError

HEADER = 13  # magic, version, length
STRINGS = st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"")), max_size=8)
EXAMPLE = handoff.encode([b"sh", b"-c", b"rm -rf \xff\n", b"", b"a  b"], [b"PATH=/bin", b"EMPTY="])


def received(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """What `receive` makes of ``data`` followed by the end of the pipe."""
    reader, writer = os.pipe()
    feeder = threading.Thread(target=_feed, args=(writer, data))
    feeder.start()
    try:
        return handoff.receive(reader)
    finally:
        os.close(reader)
        feeder.join()


def _feed(writer: int, data: bytes) -> None:
    try:
        handoff.send(writer, data)
    except BrokenPipeError:
        pass
    finally:
        os.close(writer)


@given(STRINGS, STRINGS)
def test_what_is_sent_is_received(argv: list[bytes], env: list[bytes]) -> None:
    assert received(handoff.encode(argv, env)) == (argv, env)


@given(STRINGS, STRINGS)
def test_payload_decodes_to_what_was_encoded(argv: list[bytes], env: list[bytes]) -> None:
    assert handoff.decode(handoff.encode(argv, env)[HEADER:]) == (argv, env)


def test_arguments_keep_blanks_quotes_newlines_and_bytes_that_are_no_text() -> None:
    argv = [b"a  b", b"", b"line\nbreak", b"$HOME", b"'\"\\", b"\xff\xfe", bytes(range(1, 256))]
    assert received(handoff.encode(argv, []))[0] == argv


@pytest.mark.parametrize("length", range(len(EXAMPLE)))
def test_every_strict_prefix_of_a_frame_is_refused(length: int) -> None:
    with pytest.raises(HandoffError):
        received(EXAMPLE[:length])


@given(STRINGS, STRINGS, st.data())
def test_a_prefix_of_any_frame_is_refused(argv: list[bytes], env: list[bytes], data: st.DataObject) -> None:
    frame = handoff.encode(argv, env)
    with pytest.raises(HandoffError):
        received(frame[: data.draw(st.integers(0, len(frame) - 1))])


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(HandoffError):
        received(data)


@given(st.binary(max_size=60))
def test_a_payload_is_refused_or_the_one_encoding_of_what_it_decodes_to(payload: bytes) -> None:
    try:
        argv, env = handoff.decode(payload)
    except HandoffError:
        return
    if not any(b"\0" in string for string in (*argv, *env)):
        assert handoff.encode(argv, env)[HEADER:] == payload


@given(st.binary(min_size=1, max_size=9))
def test_bytes_after_the_last_string_are_refused(extra: bytes) -> None:
    payload = EXAMPLE[HEADER:] + extra
    with pytest.raises(HandoffError):
        received(b"MYDK\x01" + struct.pack("<Q", len(payload)) + payload)


def test_another_version_is_refused() -> None:
    with pytest.raises(HandoffError):
        received(b"MYDK\x02" + EXAMPLE[5:])


def test_a_length_that_no_command_has_is_refused_without_reading_it() -> None:
    with pytest.raises(HandoffError):
        received(b"MYDK\x01" + struct.pack("<Q", handoff.MAX_PAYLOAD + 1))


@pytest.mark.parametrize(("argv", "env"), [([b"a\0b"], []), ([b"a"], [b"K=\0"])])
def test_nul_cannot_be_encoded(argv: list[bytes], env: list[bytes]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        handoff.encode(argv, env)


def test_a_frame_larger_than_the_pipe_passes() -> None:
    argv = [b"x" * 131_071] * 40
    assert received(handoff.encode(argv, []))[0] == argv


def test_a_hundred_thousand_arguments_pass() -> None:
    argv = [b"%d" % number for number in range(100_000)]
    assert received(handoff.encode(argv, []))[0] == argv


def test_what_the_kernel_takes_at_most_fits_a_frame() -> None:
    """6 MiB of strings and pointers (execve(2)): the most of framing is with empty strings."""
    count = (6 << 20) // 9  # a NUL and a pointer for each
    assert len(handoff.encode([b""] * count, [])) < handoff.MAX_PAYLOAD


def test_a_reader_that_is_gone_is_noticed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(BrokenPipeError):
            handoff.send(writer, EXAMPLE)
    finally:
        os.close(writer)


def reports(data: bytes) -> list[object]:
    """What the runtime reads when the child wrote ``data`` and ended."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    found: list[object] = []
    try:
        while (report := handoff.read_report(reader)) is not None:
            found.append(report)
    finally:
        os.close(reader)
    return found


def written(report: object) -> bytes:
    reader, writer = os.pipe()
    if isinstance(report, handoff.Failure):
        handoff.report_failure(writer, report)
    else:
        assert isinstance(report, int)
        handoff.report_ready(writer, report)
    os.close(writer)
    with open(reader, "rb") as f:
        return f.read()


@given(st.integers(-1, 1 << 20))
def test_ready_carries_the_terminals_descriptor(terminal: int) -> None:
    assert reports(written(terminal)) == [terminal]


@given(st.sampled_from(["setup", "exec"]), st.integers(0, 133), st.binary(max_size=300))
def test_a_failure_arrives_as_it_was_reported(stage: str, number: int, text: bytes) -> None:
    failure = handoff.Failure(stage=stage, errno=number, text=os.fsdecode(text))
    assert reports(written(7) + written(failure)) == [7, failure]


def test_a_report_is_one_atomic_write_however_long_its_text() -> None:
    data = written(handoff.Failure(stage="setup", errno=2, text="x" * 100_000))
    assert len(data) <= 4096  # PIPE_BUF
    (report,) = reports(data)
    assert isinstance(report, handoff.Failure)
    assert report.text.startswith("xxx")


@pytest.mark.parametrize("whole", [written(3), written(handoff.Failure(stage="exec", errno=2, text="cannot"))])
def test_a_report_cut_short_is_no_report(whole: bytes) -> None:
    for length in range(len(whole)):
        assert reports(whole[:length]) == []
