"""What goes between a program and its helper, by a stream socket.

A request is a header, with the descriptors of the child, and others to close, beside it (SCM_RIGHTS), and a body in
marshal's format: what the child's plan has in common with others, its template, and what it has for itself. The answer
comes by the child's own socket for messages: its PID, with its pidfd, or an errno below 0 and a text. Both ends are of
one installation and one interpreter, and one started the other.
"""

from __future__ import annotations

import marshal
import os
import struct

from mydocker.cgroups.layout import Hierarchy
from mydocker.linux import rights
from mydocker.plan import DESCRIPTORS, Plan
from mydocker.rootless.ids import IdMaps
from mydocker.seccomp import Filter
from mydocker.spec import Spec, Tmpfs, Volume
from mydocker.user import User
from mydocker.value import Value, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: The kernel passes so many at once (SCM_MAX_FD, unix(7)).
_MOST_DESCRIPTORS = 253

#: What a helper is called, and a child until it executes something.
NAME = b"mydocker-helper"

#: Of a request: the length of the body, the flags of clone3(2), whether the interpreter is to set the child up.
_HEADER = struct.Struct("=QI?")

_PID = struct.Struct("=i")
_CLASSES = {cls.__name__: cls for cls in (Plan, Spec, Volume, Tmpfs, Hierarchy, User, IdMaps, Filter)}


def packed(plan: Plan) -> bytes:
    """A template (`mydocker.plan.template`), for `send_plan`."""
    return marshal.dumps(plain(plan))


def unpacked(data: bytes) -> Plan:
    plan: Plan = _value(marshal.loads(data))
    return plan


class Own(Value):
    """What a plan has for itself: the descriptors by their names, and the staging directory."""

    descriptors: dict[str, int]
    staging: str

    @classmethod
    def of(cls, plan: Plan) -> Own:
        return cls(descriptors={name: getattr(plan, name) for name in DESCRIPTORS}, staging=plan.staging)

    def given_to(self, template: Plan) -> Plan:
        """The plan of the container."""
        return template.replace(staging=self.staging, **self.descriptors)

    def packed(self) -> tuple[bytes, list[int]]:
        """As bytes, and the descriptors, for which these have places."""
        fds: list[int] = []

        def place(fd: int) -> int:
            if fd < 0:
                return -1
            fds.append(fd)
            return len(fds) - 1

        places = [place(self.descriptors[name]) for name in DESCRIPTORS]
        return marshal.dumps((places, self.staging)), fds

    @classmethod
    def unpacked(cls, data: bytes, fds: list[int]) -> Own:
        places, staging = marshal.loads(data)
        descriptors = {
            name: fds[place] if place >= 0 else -1 for name, place in zip(DESCRIPTORS, places, strict=True)
        }
        return cls(descriptors=descriptors, staging=staging)


def send_plan(
    connection: int,
    template: bytes,
    own: Own,
    flags: int,
    *,
    by_interpreter: bool,
    closing: Sequence[int] = (),
) -> None:
    """Ask for a child that does as a plan says, cloned with ``flags``. BrokenPipeError if nobody is there.

    ``by_interpreter``: all of it, also what machine code could do (`mydocker.groundwork`). ``closing``: descriptors of
    which the receiver's copies may be the last.
    """
    data, fds = own.packed()
    body = marshal.dumps((template, data))
    rights.send(connection, _HEADER.pack(len(body), flags, by_interpreter) + body, [*fds, *closing])


class Request(Value):
    """What `receive` gives. The descriptors ``fds`` are the receiver's to close."""

    flags: int
    by_interpreter: bool
    template: bytes
    own: bytes
    fds: list[int]


def receive(connection: int) -> Request | None:
    """The next request; None at the end."""
    head, fds = rights.receive(connection, _HEADER.size, _MOST_DESCRIPTORS)
    if len(head) < _HEADER.size:
        return None
    length, flags, by_interpreter = _HEADER.unpack(head)
    parts = []
    while length:
        part, _ = rights.receive(connection, min(length, 1 << 18), 0)
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    template, own = marshal.loads(b"".join(parts))
    return Request(flags=flags, by_interpreter=by_interpreter, template=template, own=own, fds=fds)


def send_child(connection: int, pid: int, pidfd: int) -> None:
    rights.send(connection, _PID.pack(pid), (pidfd,))


def send_error(connection: int, number: int, text: str) -> None:
    rights.send(connection, _PID.pack(-number) + os.fsencode(text)[:1000], ())


def receive_child(connection: int) -> tuple[int, int]:
    """(PID, pidfd) of the child. OSError if it could not be cloned, EOFError if the helper is gone."""
    data, descriptors = rights.receive(connection, 4096, 1)
    if len(data) < _PID.size:
        raise EOFError
    (pid,) = _PID.unpack_from(data)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid), os.fsdecode(data[_PID.size :]) or None)
    return pid, descriptors[0]


def _value(data: Any) -> Any:
    """The reverse of `mydocker.value.plain`."""
    if type(data) is list:
        cls = _CLASSES[data[0]]
        return cls(**dict(zip(cls._fields, map(_value, data[1:]), strict=True)))
    return tuple(map(_value, data)) if type(data) is tuple else data
