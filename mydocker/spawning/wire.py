"""What goes between a program and its helper, by a stream socket.

A request is a header (kind, length), with the descriptors of the child beside it (SCM_RIGHTS), and a body in marshal's
format. The answer comes by the child's own socket for messages: its PID, with its pidfd, or an errno below 0 and a
text. Both ends are of one installation and one interpreter, and one started the other.
"""

from __future__ import annotations

import marshal
import os
import struct

from mydocker import init
from mydocker.cgroups.layout import Hierarchy
from mydocker.linux import rights
from mydocker.rootless.ids import IdMaps
from mydocker.seccomp import Filter
from mydocker.spec import Spec, Tmpfs, Volume
from mydocker.user import User
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The kernel passes so many at once (SCM_MAX_FD, unix(7)).
_MOST_DESCRIPTORS = 253

_HEADER = struct.Struct("=QI")
_ANSWER = struct.Struct("=i")
_CLASSES = (init.Plan, Spec, Volume, Tmpfs, Hierarchy, User, IdMaps, Filter)
_NUMBERS = {cls: number for number, cls in enumerate(_CLASSES)}

#: The fields of a plan that are descriptors.
_SINGLE = ("commands", "reports", "messages", "status", "upper")


def send_plan(connection: int, plan: init.Plan, flags: int) -> None:
    """Ask for a child that does as ``plan`` says, cloned with ``flags``. BrokenPipeError if nobody is there."""
    descriptors: list[int] = []

    def place(fd: int) -> int:
        if fd < 0:
            return -1
        descriptors.append(fd)
        return len(descriptors) - 1

    changes: dict[str, Any] = {name: place(getattr(plan, name)) for name in _SINGLE}
    changes["stdio"] = None if plan.stdio is None else tuple(map(place, plan.stdio))
    # The command goes by its own way, and the filter is compiled.
    changes["spec"] = plan.spec.replace(args=(), env=None, extra_env=(), seccomp="")
    body = marshal.dumps(_plain(plan.replace(**changes)))
    rights.send(connection, _HEADER.pack(len(body), flags) + body, descriptors)


def receive_plan(connection: int) -> tuple[init.Plan, int, list[int]] | None:
    """The plan, the flags, and the descriptors, which the caller is to close; None at the end."""
    head, descriptors = rights.receive(connection, _HEADER.size, _MOST_DESCRIPTORS)
    if len(head) < _HEADER.size:
        return None
    length, flags = _HEADER.unpack(head)
    parts = []
    while length:
        part, _ = rights.receive(connection, min(length, 1 << 18), 0)
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    plan = _value(marshal.loads(b"".join(parts)))
    changes: dict[str, Any] = {}
    for name in _SINGLE:
        index = getattr(plan, name)
        changes[name] = descriptors[index] if index >= 0 else -1
    if plan.stdio is not None:
        changes["stdio"] = tuple(descriptors[index] for index in plan.stdio)
    return plan.replace(**changes), flags, descriptors


def send_child(connection: int, pid: int, pidfd: int) -> None:
    rights.send(connection, _ANSWER.pack(pid), (pidfd,))


def send_error(connection: int, number: int, text: str) -> None:
    rights.send(connection, _ANSWER.pack(-number) + os.fsencode(text)[:1000], ())


def receive_child(connection: int) -> tuple[int, int]:
    """(PID, pidfd) of the child. OSError if it could not be cloned, EOFError if the helper is gone."""
    data, descriptors = rights.receive(connection, 1024, 1)
    if len(data) < _ANSWER.size:
        raise EOFError
    (pid,) = _ANSWER.unpack_from(data)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid), os.fsdecode(data[_ANSWER.size :]) or None)
    return pid, descriptors[0]


def _plain(value: Any) -> Any:
    """The same, of what marshal knows: a value is a list that begins with the number of its class."""
    if isinstance(value, Value):
        return [_NUMBERS[type(value)], *(_plain(getattr(value, name)) for name in value._fields)]
    return tuple(map(_plain, value)) if type(value) is tuple else value


def _value(plain: Any) -> Any:
    if type(plain) is list:
        cls = _CLASSES[plain[0]]
        return cls(**dict(zip(cls._fields, map(_value, plain[1:]), strict=True)))
    return tuple(map(_value, plain)) if type(plain) is tuple else plain
