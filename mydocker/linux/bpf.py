"""eBPF programs that decide which devices the processes of a cgroup v2 may use (bpf(2)).

A program of the type BPF_PROG_TYPE_CGROUP_DEVICE is asked at each mknod(2) and open(2) of a device. It may be attached
to a cgroup beside others, from which it differs by its name; all of them, up to the root, must allow the access.
The program goes with the cgroup. Kernel documentation: bpf/prog_cgroup_device (docs.ebpf.io), bpf/standardization/.
"""

from __future__ import annotations

import errno
import os
import struct

from mydocker.linux.libc import (
    addressof,
    architecture_number,
    c_char_p,
    c_int,
    c_uint,
    create_string_buffer,
    system_call,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: enum values of include/uapi/linux/bpf.h (``BPF_DEVCG_ACC_*`` and ``BPF_DEVCG_DEV_*``).
MKNOD, READ, WRITE = 1, 2, 4
BLOCK, CHARACTER = 1, 2
EVERY_ACCESS = MKNOD | READ | WRITE

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 13, 15, 16
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_F_ALLOW_MULTI, _F_REPLACE = 2, 4
_NAME_OFFSET = 64  # of name in struct bpf_prog_info
_MOST_PROGRAMS = 64  # that the kernel attaches to one cgroup (BPF_CGROUP_MAX_PROGS)

# Instructions (Documentation/bpf/standardization/instruction-set.rst).
_LOAD_WORD = 0x61
_MOVE, _MOVE_REGISTER = 0xB7, 0xBF
_AND, _SHIFT_RIGHT = 0x57, 0x77
_JUMP_IF_NOT = 0x55
_JUMP_IF = 0x15
_EXIT = 0x95

_bpf = system_call(architecture_number(321, 280), c_int, c_char_p, c_uint)


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, immediate)


def device_program(rules: Iterable[tuple[int, int | None, int | None, int]], *, others: bool = False) -> bytes:
    """The instructions that allow what one of ``rules`` allows in full, and refuse the rest.

    A rule is (`BLOCK` or `CHARACTER`, major or None for all, minor or None for all, mask of `MKNOD`, `READ`, `WRITE`).
    An open for reading and writing needs a rule that has both, as on cgroup v1. With ``others`` it is the other way
    round: what one of the rules names in part is refused, and the rest is allowed.
    """
    # r1: struct bpf_cgroup_dev_ctx {access << 16 | type, major, minor}. r2: access. r3: type. r4: major. r5: minor.
    program = [
        _instruction(_LOAD_WORD, 2, 1, 0),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
        _instruction(_MOVE_REGISTER, 3, 2),
        _instruction(_AND, 3, immediate=0xFFFF),
        _instruction(_SHIFT_RIGHT, 2, immediate=16),
        _instruction(_MOVE, 0, immediate=0 if others else 1),
    ]
    for kind, major, minor, access in rules:
        program += _rule(kind, major, minor, access, in_part=others)
    program += [_instruction(_MOVE, 0, immediate=1 if others else 0), _instruction(_EXIT)]
    return b"".join(program)


def _rule(kind: int, major: int | None, minor: int | None, access: int, *, in_part: bool) -> list[bytes]:
    """Leave with what r0 holds if the rule matches the access, all of it or a part, else go on behind it."""
    tests = [(_JUMP_IF_NOT, 3, kind)]
    before = []
    if access != EVERY_ACCESS:
        mask = access if in_part else EVERY_ACCESS & ~access
        before = [_instruction(_MOVE_REGISTER, 1, 2), _instruction(_AND, 1, immediate=mask)]
        tests.append((_JUMP_IF if in_part else _JUMP_IF_NOT, 1, 0))
    if major is not None:
        tests.append((_JUMP_IF_NOT, 4, major))
    if minor is not None:
        tests.append((_JUMP_IF_NOT, 5, minor))
    left = len(tests)
    code = list(before)
    for jump, register, value in tests:
        code.append(_instruction(jump, register, offset=left, immediate=value))
        left -= 1
    return [*code, _instruction(_EXIT)]


def _call(command: int, attributes: bytes) -> int:
    return _bpf(command, attributes, len(attributes))


def load_device_program(instructions: bytes, name: bytes) -> int:
    """Have the kernel verify the program: its descriptor. ``name`` has at most 15 bytes.

    OSError EINVAL: this kernel has no such programs. EPERM: it takes CAP_BPF, or CAP_SYS_ADMIN. E2BIG: too many rules.
    """
    code = create_string_buffer(instructions, len(instructions))
    licence = create_string_buffer(b"")  # only a program that calls kernel functions needs one
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        *(_TYPE_CGROUP_DEVICE, len(instructions) // 8, addressof(code), addressof(licence)),
        *(0, 0, 0, 0, 0, name, 0, _ATTACH_CGROUP_DEVICE),
    )
    return _call(_PROG_LOAD, attributes)


def attach_device_program(cgroup: int, program: int) -> None:
    """Attach the program to the cgroup behind the descriptor; one of the same name is replaced at once.

    OSError EPERM: a cgroup above has a program that allows none below it.
    """
    name = _name(program)
    former = next((fd for fd in _attached(cgroup) if _name(fd) == name), -1)
    if former < 0:
        _attach(cgroup, program, 0, 0)
        return
    try:
        _attach(cgroup, program, _F_REPLACE, former)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        # Before Linux 5.6: both for a moment, and what both allow.
        _attach(cgroup, program, 0, 0)
        _call(_PROG_DETACH, struct.pack("=III", cgroup, former, _ATTACH_CGROUP_DEVICE))
    finally:
        os.close(former)


def detach_device_program(cgroup: int, name: bytes) -> None:
    """Detach the programs of that name from the cgroup behind the descriptor."""
    for fd in _attached(cgroup):
        if _name(fd) == name:
            _call(_PROG_DETACH, struct.pack("=III", cgroup, fd, _ATTACH_CGROUP_DEVICE))
        os.close(fd)


def _attach(cgroup: int, program: int, flags: int, former: int) -> None:
    attributes = struct.pack("=IIII", cgroup, program, _ATTACH_CGROUP_DEVICE, _F_ALLOW_MULTI | flags)
    _call(_PROG_ATTACH, attributes + (struct.pack("=I", former) if flags else b""))


def _attached(cgroup: int) -> list[int]:
    """Descriptors of the programs that are attached to this very cgroup, for the caller to close."""
    numbers = create_string_buffer(4 * _MOST_PROGRAMS)
    query = create_string_buffer(
        struct.pack("=IIIIQI", cgroup, _ATTACH_CGROUP_DEVICE, 0, 0, addressof(numbers), _MOST_PROGRAMS)
    )
    _bpf(_PROG_QUERY, query, 28)
    (count,) = struct.unpack_from("=I", query, 24)
    found = []
    for number in struct.unpack_from(f"={count}I", numbers):
        try:
            found.append(_call(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0)))
        except OSError:
            continue  # detached meanwhile
    return found


def _name(program: int) -> bytes:
    info = create_string_buffer(_NAME_OFFSET + 16)
    _call(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, len(info), addressof(info)))
    return info.raw[_NAME_OFFSET:].partition(b"\0")[0]
