"""System calls one after another, in one call: a container takes hundreds, and between two the interpreter takes longer
than the kernel takes for one.

A `Batch` is a table of calls. What one gives, such as a descriptor, goes into a slot, which later ones may name as an
argument. It stops at the first that fails, but for those of which it is told what to pass over then. Some records are
no calls: they look at what a call has brought, or go on with another table that came by one. A few instructions
of machine code work the table off; on machines for which there are none, a loop of Python does the same.
"""

from __future__ import annotations

import os
import struct

from mydocker.linux import machine
from mydocker.linux.libc import (
    addressof,
    architecture_number,
    c_char,
    c_char_p,
    c_long,
    c_size_t,
    c_uint64,
    c_void_p,
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
_EINTR = 4
#: No more to read.
ENODATA = 61
#: For ``failing``: whatever the error is.
ANY_ERROR = 255
_MAX_TRIES = 1000
MOST_SLOTS = 256
_MASK = (1 << 64) - 1

#: The records that are no calls, by their numbers.
_PASS_OVER, _LOAD, _EXPECT, _READ_ALL, _GO_TO, _CALL = -1, -2, -3, -4, -5, -6

#: The number of the system call, or one of those, six arguments, which of the first three are slots, the slot for the
#: result, how many to pass over if it fails with the error that comes next.
_FIELDS = "7Q4B4x"
_RECORD = struct.Struct("=" + _FIELDS)
_NO_ARGUMENTS = (0,) * 6
#: How many values a record has.
_VALUES = len(_NO_ARGUMENTS) + 5

_RUN = {
    # rdi: the records, rsi: their number, rdx: the slots. The result: 0, or the number of the record that has failed,
    # from 1, shifted by 16, and the error's number.
    "x86_64": bytes.fromhex(
        "53554154415541564889fb4989fd4989d44889f548c1e5064801fd"  # rbx: record, r13: first, r12: slots, rbp: end
        "4839eb0f831d0100004c8b7338488b03"  # next: at the end: all_done; r14: what is a slot; rax: number
        "488b7b0841f6c6017404498b3cfc"  # rdi: argument 1, or what is in that slot
        "488b731041f6c6027404498b34f4"  # rsi: argument 2
        "488b531841f6c6047404498b14d4"  # rdx: argument 3
        "4c8b53204c8b43284c8b4b30"  # r10, r8, r9: arguments 4 to 6
        "4885c0783e0f05"  # a number below 0: special; else syscall
        "483d01f0ffff7316"  # stored: an error: error
        "0fb64b39498904cc"  # kept: the slot takes the result
        "31ff"  # one_on: rdi is 0
        "48ffc748c1e7064801fbeb95"  # pass_over: rdi records and this one; to next
        # error: what is provided for, or all are: passing; else failed
        "89c1f7d90fb67b3b81ffff000000740839cf0f858e000000"
        "0fb67b3aebd6"  # passing: rdi; to pass_over
        "48ffc074d148ffc0743748ffc0743a48ffc0744248ffc0740a"  # special: pass_over, load, expect, read_all, go_to or
        "4c89e2e83bffffffeba9"  # call_table: the whole for another table, with these slots; to kept
        # go_to: r13 so that a number from there on counts on; to next
        "4889d94c29e94889fb4989fd4929cd48c1e6064889f54801fde936ffffff"
        "488b074821f0eb83"  # load: what is at rdi, masked by rsi; to kept
        "4839f774864889d048f7d8eb8c"  # expect: rdi is rsi: one_on; else the error rdx
        # read_all: once more after EINTR, and until there is no more to read
        "4885d20f8475ffffff31c00f054883f8fc74ed4885c00f8870ffffff74084801c64829c2ebda"
        "48c7c0c3ffffffe95affffff"  # at_end: ENODATA
        "89c84c29eb48c1eb0648ffc348c1e3104809d8eb02"  # failed
        "31c0"  # all_done
        "415e415d415c5d5bc3"  # out
    ),
}

#: As C would have it: ``long clone_to_work_off(args, size, records, number, slots)``. clone3(2) with the first two; the
#: child calls what is in `_RUN` with the others and exits with 125. It touches no memory but its stack and the calls'.
_CLONE = {
    "x86_64": (
        bytes.fromhex(
            "5341544155"  # rbx, r12 and r13 are the caller's
            "4889d34989cc4d89c5"  # rbx: records, r12: their number, r13: slots
            "b8b30100000f05"  # clone3
            "4885c07406415d415c5bc3"  # not 0: out, with the PID or an error below 0
            "4889df4c89e64c89eae8"  # the child: these are the arguments; call what is as far away as comes next
        ),
        bytes.fromhex("bf7d000000b8e70000000f05"),  # exit_group(125)
    ),
}

_READ = architecture_number(0, 63)

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
        self._slots = self._most = 1  # that of results that nobody wants
        self._table: Any = None
        self._new_slots: Any = None

    def __len__(self) -> int:
        return len(self._names)

    def slot(self) -> Slot:
        if self._slots == MOST_SLOTS:
            raise ValueError("a batch has no more slots than that")
        self._slots += 1
        self._most = max(self._most, self._slots)
        return Slot(self._slots - 1)

    @property
    def slots_in_use(self) -> int:
        return self._slots

    def free_slots(self, in_use: int) -> None:
        """The slots that were made when no more than so many were in use are for others from now on."""
        self._slots = in_use

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
        self.call(_PASS_OVER, count)

    def set_pass_over(self, index: int, count: int) -> None:
        """Of the `pass_over` with that number: how many."""
        self._values[index * _VALUES + 1] = count

    def load(self, address: int, size: int, to: Slot | None = None, *, mask: int = _MASK) -> Slot:
        """A slot, ``to`` or a new one, with the number that is in the ``size`` bytes, up to 8, at ``address``.

        ``mask``: its bits that count.
        """
        slot = self.slot() if to is None else to
        self.call(_LOAD, address, (1 << 8 * size) - 1 & mask, to=slot)
        return slot

    def expect(self, slot: Slot, value: int, error: int, *, failing: int = 0, over: int = 0, name: str = "") -> None:
        """Fail with ``error`` unless the slot has this value."""
        self.call(_EXPECT, slot, value, error, failing=failing, over=over, name=name)

    def read_all(self, descriptor: Slot, address: int, size: Slot | int, *, name: str = "") -> None:
        """Read so many bytes, however they come. ENODATA if they end before."""
        self.call(_READ_ALL, descriptor, address, size, name=name)

    def go_to(self, address: Slot | int, count: Slot | int) -> None:
        """Go on with the table of ``count`` records (`record`) at ``address``, and do not come back."""
        self.call(_GO_TO, address, count)

    def call_table(self, address: Slot | int, count: Slot | int, to: Slot) -> None:
        """Work that table off, with these slots, and come back: 0, or as `outcome_of` has it."""
        self.call(_CALL, address, count, to=to)

    def optional(self, first: int) -> None:
        """The calls from number ``first`` on belong together: where one fails, go on behind the last."""
        for index in range(first, len(self._names)):
            self.go_on_from_here(index, ANY_ERROR)

    def go_on_from_here(self, index: int, failing: int) -> None:
        """If the call of that number, up to 255 before this, fails with this error, go on with what is added next."""
        end = (index + 1) * _VALUES
        self._values[end - 2 : end] = (len(self._names) - index - 1, failing)

    def name_of(self, index: int) -> str:
        """What the call, or the last one before it that has a name, is for."""
        return next((name for name in reversed(self._names[: index + 1]) if name), "")

    @property
    def size(self) -> int:
        """Bytes that the table takes with its strings."""
        return len(self._names) * _RECORD.size + len(self._pool)

    def freeze(self, address: int = 0) -> None:
        """No call is added any more: what `run` does first, if nobody has. ``address``: of memory for `size` bytes."""
        _runner()  # a child finds it there
        size = len(self._names) * _RECORD.size
        where: Any = c_char * (size + len(self._pool))
        table = where.from_address(address) if address else where()
        begin = addressof(table) + size
        values = self._values
        for index in self._strings:
            values[index] += begin
        struct.pack_into("=" + _FIELDS * len(self._names), table, 0, *values)
        memmove(begin, bytes(self._pool), len(self._pool))
        self._table = table
        self._new_slots = c_uint64 * self._most  # to make the type takes as long as twenty calls

    def run(self, given: Mapping[Slot, int], tries: int = _MAX_TRIES) -> Any:
        """Make the calls; the slots as they are then, of which ``given`` fills some before. `BatchError`.

        One that fails with EAGAIN is tried again, from there on: openat2(2) asks for that. Not so with `go_to`, after
        which a failure has a number past its own: then ``tries`` is to be 1.
        """
        if self._table is None:
            self.freeze()
        slots = self._new_slots()
        for slot, value in given.items():
            slots[slot] = value & _MASK
        begin, count = 0, len(self._names)
        for _ in range(tries):
            address = addressof(self._table) + begin * _RECORD.size
            outcome = work_off(address, count - begin, addressof(slots))
            if not outcome:
                return slots
            number, index = outcome_of(outcome)
            begin += index
            if number != _EAGAIN:
                break
        error = BatchError(number, os.strerror(number))
        error.index, error.slots = begin, slots
        raise error


def work_off(address: int, count: int, slots: int) -> int:
    """Make the calls of the ``count`` records at ``address``, with slots at ``slots``: 0, or as `outcome_of` has it."""
    return _runner()(address, count, slots)


def outcome_of(outcome: int) -> tuple[int, int]:
    """What came of a table that has failed: the error's number, and that of the call, from 0."""
    return outcome & 0xFFFF, (outcome >> 16) - 1


def record(number: int, *args: int, failing: int = 0, over: int = 0) -> bytes:
    """One call by itself, of plain numbers: of a table that another process works off (`Batch.go_to`)."""
    return _RECORD.pack(number, *(arg & _MASK for arg in args), *_NO_ARGUMENTS[len(args) :], 0, 0, over, failing)


#: Bytes of a `record`.
RECORD_SIZE = _RECORD.size


_pages: list[machine.Code] = []
_runners: list[Callable[[int, int, int], int]] = []
_cloners: list[Callable[[bytes, int, int, int, int], int]] = []


def _runner() -> Callable[[int, int, int], int]:
    """What works a table off: found out once in a process."""
    if not _runners:
        _runners.append(_native() or _run_by_python)
    return _runners[0]


def _native() -> Callable[[int, int, int], int] | None:
    kind = os.uname().machine
    run = _RUN.get(kind)
    if run is None or struct.calcsize("P") != 8:
        return None
    clone, end = _CLONE[kind]
    distance = struct.pack("=i", -len(run + clone) - 4)
    try:
        page = machine.Code(run + clone + distance + end)
    except OSError:
        return None
    _pages.append(page)
    return page.function(c_void_p, c_size_t, c_void_p)


def code_page() -> int:
    """The address of the page (`machine.PAGE`) with the machine code that works the tables off; 0 if none does."""
    return _pages[-1].address if _runner() is not _run_by_python else 0


def clone_to_work_off(arguments: bytes, address: int, count: int, slots: int) -> int:
    """clone3(2) with these arguments: the PID of a child that works a table off, as `work_off` does, and ends.

    It uses the page of `code_page`, its stack, and nothing of libc or the interpreter. OSError.
    """
    if not _cloners:
        at = len(_RUN[os.uname().machine])
        _cloners.append(_pages[-1].function(c_char_p, c_size_t, c_void_p, c_size_t, c_void_p, at=at))
    pid = _cloners[0](arguments, len(arguments), address, count, slots)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid


def _run_by_python(address: int, count: int, slots: int) -> int:
    values = (c_uint64 * MOST_SLOTS).from_address(slots)
    table, index, passed = _records(address, count), 0, 0
    while index < len(table):
        number, *args, which, to, over, failing = table[index]
        args = [values[arg] if which >> position & 1 else arg for position, arg in enumerate(args)]
        if number == _GO_TO & _MASK:
            table, passed, index = _records(args[0], args[1]), passed + index, 0
            continue
        error = 0
        if number == _PASS_OVER & _MASK:
            index += args[0]
        elif number == _LOAD & _MASK:
            values[to] = c_uint64.from_address(args[0]).value & args[1]
        elif number == _CALL & _MASK:
            values[to] = _run_by_python(args[0], args[1], slots)
        elif number == _EXPECT & _MASK:
            error = args[2] if args[0] != args[1] else 0
        elif number == _READ_ALL & _MASK:
            error = _read_all(*args[:3])
        else:
            result = _syscall(number, *args)
            error = get_errno() if result == -1 else 0
            values[to] = result & _MASK if not error else values[to]
        if error and failing not in (error, ANY_ERROR):
            return (passed + index + 1) << 16 | error
        index += over + 1 if error else 1
    return 0


def _records(address: int, count: int) -> list[tuple[int, ...]]:
    if not count:
        return []
    return list(_RECORD.iter_unpack((c_char * (count * _RECORD.size)).from_address(address).raw))


def _read_all(descriptor: int, address: int, size: int) -> int:
    while size:
        result = _syscall(_READ, descriptor, address, size, 0, 0, 0)
        if result == 0:
            return ENODATA
        if result == -1:
            if get_errno() != _EINTR:
                return get_errno()
            continue
        address, size = address + result, size - result
    return 0
