"""System calls one after another, in one call: a container takes hundreds, and between two the interpreter takes longer
than the kernel takes for one.

A `Batch` is a table of calls. What one gives, such as a descriptor, goes into a slot, which later ones may name as an
argument. It stops at the first that fails, but for those of which it is told what to pass over then. A few
instructions of machine code work the table off; on machines for which there are none, a loop of Python does the same.
"""

from __future__ import annotations

import os
import struct

from mydocker.linux import machine
from mydocker.linux.libc import (
    addressof,
    c_char,
    c_long,
    c_size_t,
    c_uint64,
    c_void_p,
    create_string_buffer,
    foreign,
    get_errno,
    memmove,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Arg = int | bytes | None

_EAGAIN = 11
_MAX_TRIES = 1000
_MOST_SLOTS = 256
_MASK = (1 << 64) - 1

#: The number of the system call (-1: none, pass over as many as the first argument says), six arguments, which of the
#: first three are slots, the slot for the result, how many to pass over if it fails with the error that comes next.
_FIELDS = "7Q4B4x"
_RECORD = struct.Struct("=" + _FIELDS)
_NO_ARGUMENTS = (0,) * 6

_RUN = {
    # rdi: the records, rsi: their number, rdx: the slots. The result: 0, or the number of the record that has failed,
    # from 1, shifted by 16, and the error's number.
    "x86_64": bytes.fromhex(
        "53554154415541564889fb4989fd4989d44889f548c1e5064801fd"  # rbx: record, r13: first, r12: slots, rbp: end
        "4839eb0f83880000004c8b7338488b03"  # next: at the end: all_done; r14: what is a slot; rax: number
        "488b7b0841f6c6017404498b3cfc"  # rdi: argument 1, or what is in that slot
        "488b731041f6c6027404498b34f4"  # rsi: argument 2
        "488b531841f6c6047404498b14d4"  # rdx: argument 3
        "4c8b53204c8b43284c8b4b30"  # r10, r8, r9: arguments 4 to 6
        "4883f8ff74140f05"  # number -1: pass_over; else syscall
        "483d01f0ffff73160fb64b39498904cc31ff"  # an error: look; else the slot takes the result, and rdi is 0
        "48ffc748c1e7064801fbeb94"  # pass_over: rdi records and this one; to next
        "89c1f7d93a4b3b75060fb67b3aebe5"  # look: not the error that is provided for: failed; rdi; to pass_over
        "48f7d84c29eb48c1eb0648ffc348c1e3104809d8eb02"  # failed
        "31c0415e415d415c5d5bc3"  # all_done
    ),
}

_syscall = foreign("syscall", c_long, c_long, *(c_void_p,) * 6)


class Slot(int):
    """Where the result of a call is kept."""


class BatchError(OSError):
    """A call of a batch has failed. ``index`` is its number, ``slots`` what those before it gave."""

    index: int
    slots: Any


class Batch:
    """Calls, added in their order, and then run, as often as one likes."""

    def __init__(self) -> None:
        self._values: list[int] = []  # of all records, in the order of _FIELDS
        self._pool = bytearray()  # the strings
        self._offsets: dict[bytes, int] = {}
        self._strings: list[int] = []  # where among the values the place of a string in the pool stands
        self._names: list[str] = []
        self._slots = 1  # that of results that nobody wants
        self._table: Any = None
        self._new_slots: Any = None

    def __len__(self) -> int:
        return len(self._names)

    def slot(self) -> Slot:
        if self._slots == _MOST_SLOTS:
            raise ValueError("a batch has no more slots than that")
        self._slots += 1
        return Slot(self._slots - 1)

    def call(
        self, number: int, *args: Arg, to: int = 0, failing: int = 0, over: int = 0, name: str = ""
    ) -> None:
        """Add a system call. Strings end with the NUL that is put there; the first three arguments may be slots.

        ``to`` is the slot that takes the result. ``failing``: if it fails with this error, pass over ``over`` of the
        following calls and go on. ``name``: what it is for, which `name_of` tells.
        """
        values, slots = self._values, 0
        values.append(number & _MASK)
        for position, arg in enumerate(args):
            kind = type(arg)
            if kind is Slot:
                slots |= 1 << position
            elif kind is bytes:
                self._strings.append(len(values))
                arg = self._offset(arg)  # type: ignore[arg-type]
            elif arg is None:
                arg = 0
            values.append(arg & _MASK)  # type: ignore[operator]
        values += _NO_ARGUMENTS[len(args) :]
        values += (slots, to, over, failing)
        self._names.append(name)

    def _offset(self, string: bytes) -> int:
        offset = self._offsets.get(string)
        if offset is None:
            offset = self._offsets[string] = len(self._pool)
            self._pool += string
            self._pool += b"\0"
        return offset

    def pass_over(self, count: int) -> None:
        """Go on behind the ``count`` calls that follow."""
        self.call(-1, count)

    def name_of(self, index: int) -> str:
        """What the call, or the last one before it that has a name, is for."""
        return next((name for name in reversed(self._names[: index + 1]) if name), "")

    def freeze(self) -> None:
        """No call is added any more: what `run` does first, if nobody has."""
        _runner()  # a child finds it there
        size = len(self._names) * _RECORD.size
        table = create_string_buffer(size + len(self._pool))
        begin = addressof(table) + size
        values = self._values
        for index in self._strings:
            values[index] += begin
        struct.pack_into("=" + _FIELDS * len(self._names), table, 0, *values)
        memmove(begin, bytes(self._pool), len(self._pool))
        self._table = table
        self._new_slots = c_uint64 * self._slots  # to make the type takes as long as twenty calls

    def run(self, given: Mapping[Slot, int]) -> Any:
        """Make the calls; the slots as they are then, of which ``given`` fills some before. `BatchError`.

        One that fails with EAGAIN is tried again, from there on: openat2(2) asks for that.
        """
        if self._table is None:
            self.freeze()
        slots = self._new_slots()
        for slot, value in given.items():
            slots[slot] = value & _MASK
        begin, count = 0, len(self._names)
        for _ in range(_MAX_TRIES):
            address = addressof(self._table) + begin * _RECORD.size
            outcome = _runner()(address, count - begin, addressof(slots))
            if not outcome:
                return slots
            begin += (outcome >> 16) - 1
            number = outcome & 0xFFFF
            if number != _EAGAIN:
                break
        error = BatchError(number, os.strerror(number))
        error.index, error.slots = begin, slots
        raise error


_runners: list[Callable[[int, int, int], int]] = []


def _runner() -> Callable[[int, int, int], int]:
    """What works a table off: found out once in a process."""
    if not _runners:
        _runners.append(_native() or _run_by_python)
    return _runners[0]


def _native() -> Callable[[int, int, int], int] | None:
    code = _RUN.get(os.uname().machine)
    if code is None or struct.calcsize("P") != 8:
        return None
    try:
        return machine.Code(code).function(c_void_p, c_size_t, c_void_p)
    except OSError:
        return None


def _run_by_python(address: int, count: int, slots: int) -> int:
    table = (c_char * (count * _RECORD.size)).from_address(address).raw
    values = (c_uint64 * _MOST_SLOTS).from_address(slots)
    index = 0
    while index < count:
        number, *args, which, to, over, failing = _RECORD.unpack_from(table, index * _RECORD.size)
        args = [values[arg] if which >> position & 1 else arg for position, arg in enumerate(args)]
        if number == _MASK:
            index += args[0] + 1
            continue
        result = _syscall(number, *args)
        if result != -1:
            values[to] = result & _MASK
            index += 1
            continue
        error = get_errno()
        if error != failing:
            return (index + 1) << 16 | error
        index += over + 1
    return 0
