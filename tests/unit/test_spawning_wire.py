"""What goes between a program and its helper arrives as it was."""

from __future__ import annotations

import enum
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker.cgroups.layout import Hierarchy
from mydocker.linux import rights
from mydocker.plan import Plan, template
from mydocker.rootless.ids import IdMaps
from mydocker.seccomp import Filter
from mydocker.spawning import wire
from mydocker.spec import Spec, Tmpfs, Volume
from mydocker.user import User

#: Paths of the file system decoder: what is not UTF-8 comes as surrogates.
paths = st.binary(max_size=30).map(os.fsdecode)
numbers = st.integers(0, (1 << 64) - 1)


def tuples(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=3).map(tuple)


ranges = tuples(st.tuples(numbers, numbers, numbers))
volumes = st.builds(Volume, source=paths, destination=paths, readonly=st.booleans())
tmpfs = st.builds(Tmpfs, destination=paths, size=st.none() | numbers)
specs = st.builds(
    Spec,
    args=st.just(()),
    rootfs=st.none() | paths,
    cwd=st.none() | paths,
    mounts=tuples(volumes | tmpfs),
    hostname=st.none() | paths,
    init=st.booleans(),
    privileged=st.booleans(),
)
plans = st.builds(
    Plan,
    spec=specs,
    staging=paths,
    hierarchies=tuples(
        st.builds(Hierarchy, version=numbers, mountpoint=paths, controllers=tuples(paths), own=paths, base=paths)
    ),
    user=st.builds(
        User,
        uid=numbers,
        gid=numbers,
        groups=tuples(numbers),
        maps=st.none() | st.builds(IdMaps, uids=ranges, gids=ranges, tools=tuples(paths)),
    ),
    capabilities=numbers,
    cwd=paths,
    filter=st.none() | st.builds(Filter, program=st.binary(max_size=99), flags=numbers, listener_path=paths),
    cgroups=st.booleans(),
    ahead=st.booleans(),
)


@given(plans)
def test_a_template_arrives_as_it_was(plan: Plan) -> None:
    kind = template(plan)
    assert wire.unpacked(wire.packed(kind)) == kind


@given(plans, st.lists(st.booleans(), min_size=5, max_size=5), st.booleans())
def test_a_request_arrives_with_its_descriptors(plan: Plan, given_: list[bool], by_interpreter: bool) -> None:
    ours, theirs = rights.pair()
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    received: list[int] = []
    try:
        names = ("commands", "reports", "messages", "status", "upper")
        descriptors = {name: fd if there else -1 for name, fd, there in zip(names, opened, given_, strict=False)}
        plan = plan.replace(**descriptors)
        packed, own = wire.packed(template(plan)), wire.Own.of(plan)
        wire.send_plan(ours, packed, own, 77, by_interpreter=by_interpreter)
        request = wire.receive(theirs)
        assert request is not None
        received = request.fds
        found = wire.Own.unpacked(request.own, received).given_to(wire.unpacked(request.template))
        assert (request.flags, request.by_interpreter) == (77, by_interpreter)
        bare = plan.replace(**dict.fromkeys(names, -1))
        assert found.replace(**dict.fromkeys(names, -1)) == wire.Own.of(bare).given_to(template(plan))
        assert [getattr(found, name) >= 0 for name in names] == given_
        assert len(received) == sum(given_)
        assert not any(map(os.get_inheritable, received))
    finally:
        for fd in (ours, theirs, *opened, *received):
            os.close(fd)


class _Text(str):
    __slots__ = ()


class _Number(enum.IntEnum):
    SEVEN = 7


def test_what_is_a_text_or_a_number_by_inheritance() -> None:
    spec = Spec(args=(), cwd=_Text("/x"), mounts=(Tmpfs(destination=_Text("/y"), size=_Number.SEVEN),))
    plan = Plan(spec=spec, staging="", hierarchies=(), user=User(), capabilities=_Number.SEVEN, cwd=_Text("/x"))
    kind = template(plan)
    assert wire.unpacked(wire.packed(kind)) == kind


def test_the_end_of_the_connection_is_none_and_half_a_request_too() -> None:
    for data in (b"", b"c", bytes(11), (99).to_bytes(8, "little") + bytes(4) + b"half"):
        ours, theirs = rights.pair()
        if data:
            rights.send(ours, data, ())
        os.close(ours)
        assert wire.receive(theirs) is None
        os.close(theirs)


class TestRights:
    def test_lost_descriptors_are_an_error_and_those_that_came_are_closed(self) -> None:
        ours, theirs = rights.pair()
        try:
            rights.send(ours, b"x", (ours, theirs, ours))
            before = os.listdir("/proc/self/fd")
            with pytest.raises(OSError, match="Too many open files"):
                rights.receive(theirs, 1, 1)
            assert os.listdir("/proc/self/fd") == before
        finally:
            os.close(ours)
            os.close(theirs)

    def test_more_than_the_buffer_holds_arrives_whole(self) -> None:
        import threading

        ours, theirs = rights.pair()
        data = os.urandom(3 << 20)
        sender = threading.Thread(target=rights.send, args=(ours, data, (ours,)))
        sender.start()
        part, fds = rights.receive(theirs, 1 << 16, 1)
        parts = [part]
        while sum(map(len, parts)) < len(data):
            parts.append(rights.receive(theirs, 1 << 16, 0)[0])
        sender.join()
        for fd in (ours, theirs, *fds):
            os.close(fd)
        assert b"".join(parts) == data
        assert len(fds) == 1

    def test_nobody_there_is_an_error_and_no_signal(self) -> None:
        ours, theirs = rights.pair()
        os.close(theirs)
        with pytest.raises(BrokenPipeError):
            rights.send(ours, b"x", ())
        os.close(ours)
