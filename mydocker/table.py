"""The table of all that a child of one kind does up to its command, in memory: it was worked out by `mydocker.waiting`.

What differs from child to child is in slots, and in two structures. So a table serves for any number of children, and
for another process that has it at the same address.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise

from mydocker.linux import batch, empty_file, machine, process
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Self

    from mydocker.cgroup_view import CgroupView
    from mydocker.plan import Plan

    Pair = tuple[int, int]

#: Bytes of the table and of what belongs to it: what the CPUs of a large host take, of which each has its own path to
#: hide; and those that a child has for its command. The kernel takes no more than 6 MiB (3/4 of _STK_LIM, fs/exec.c).
TABLES = 2 << 20
ROOM = 8 << 20
SIZE = TABLES + ROOM

#: Parts of a process's memory, of which none is of use to the child, that are kept apart by those that are.
MOST_GAPS = 8

#: struct pollfd (poll(2)).
_POLLFD = struct.Struct("=ihh")
POLLFD_SIZE = _POLLFD.size
_POLLIN = 1

_NONE = (1, 0)
_SLOTS = struct.Struct(f"={batch.MOST_SLOTS}Q")
_MASK = (1 << 64) - 1


def may_be_used() -> bool:
    """Whether this machine, and this process, can have a child work one off."""
    return batch.code_page() != 0 and not machine.has_shadow_stack()


class Places(Value):
    """Where all is: addresses, numbers of records, and slots.

    ``begin``, ``used``         the memory's address, and how many of its bytes were filled.
    ``table``, ``count``        address and number of the records; the first ``length`` lead to the command.
    ``groundwork``              how many of these come before the child has cgroups; 0 if the interpreter must do that.
    ``stuck_from``              the record from which on a child that is stuck goes on.
    ``slots``, ``room``         addresses of the slots, and of the place for the command.
    ``pollfd``, ``executable``  addresses of a struct pollfd of the runtime's pidfd, and of what `empty_file` describes.

    The others are slots: of descriptors (``into`` and ``reserved`` are those of `mydocker.cgroup_view.CgroupView`,
    ``gaps`` first and last of those to be closed, ``nothing`` is an empty file), of a table's address and number of
    records (``way``, ``stuck``), of an address and a size (``unmap``), and of whether the interpreter has done the
    groundwork, or a helper what makes a process blank.
    """

    begin: int
    used: int
    table: int
    count: int
    length: int
    groundwork: int
    stuck_from: int
    slots: int
    room: int
    pollfd: int
    executable: int
    commands: int
    reports: int
    messages: int
    nothing: int
    reserved: Pair
    gaps: tuple[Pair, ...]
    way: Pair
    stuck: Pair
    unmap: tuple[Pair, ...]
    into: tuple[int, ...]
    is_set_up: int
    is_blank: int


class Table:
    """In the memory of this process, and of those that are forked from it."""

    def __init__(self, places: Places) -> None:
        self.places = places
        page = batch.code_page()
        here = (places.begin, places.begin + SIZE)
        #: begin and end of what a child has a use for
        self._kept = [here, (page, page + machine.PAGE), *machine.needed_by_kernel()]
        self._gaps = machine.gaps(self._kept)
        assert len(self._gaps) <= MOST_GAPS

    @classmethod
    def restored(cls, places: Places, image: bytes) -> Self:
        """From `image`. OSError: EEXIST if something else is there."""
        address = machine.new_memory(SIZE, later=True, at=places.begin)
        machine.put(address, image)
        return cls(places)

    def image(self) -> bytes:
        """What is at the beginning of its memory; the rest is zero."""
        return machine.content(self.places.begin, self.places.used)

    @property
    def groundwork(self) -> int:
        return self.places.groundwork

    def close(self) -> None:
        """Give its memory back."""
        machine.give_back(self.places.begin, SIZE)

    def go_on(self, plan: Plan, view: CgroupView) -> NoReturn:
        """Do it, in a child that the interpreter has set up."""
        places = self.places
        given = {places.is_set_up: 1, **_both(places.reserved, view.reserved)}
        given.update(zip(places.into, view.places, strict=True))
        batch.work_off(*self._begin(plan, given))
        os._exit(125)  # it does not come back

    def clone(self, plan: Plan, namespaces: int, forks: machine.ForkedMemory) -> tuple[int, int]:
        """`process.clone`, in the parent, of a child that does it all, the groundwork too. OSError."""
        places = self.places
        given = dict.fromkeys((*places.reserved, *places.into), -1)
        given[places.is_blank] = int(plan.blank)
        if not plan.blank:
            given[places.nothing] = plan.executable
            machine.put(places.executable, empty_file.description_of_nothing(places.begin, plan.executable))
        forks.keep_only(self._kept)
        return process.clone_to_work_off(namespaces, *self._begin(plan, given))

    def _begin(self, plan: Plan, given: dict[int, int]) -> tuple[int, int, int]:
        """Fill the slots; what `batch.work_off` is to be given."""
        places, size = self.places, batch.RECORD_SIZE
        given.update({places.commands: plan.commands, places.reports: plan.reports, places.messages: plan.messages})
        own = (plan.commands, plan.reports, plan.messages, plan.runtime, plan.executable)
        stay = (2, *sorted(fd for fd in own if fd >= 0), 1 << 31)
        closed = [(before + 1, after - 1) for before, after in pairwise(stay)]
        for slots, ends in zip(places.gaps, (*closed, _NONE), strict=False):
            given.update(_both(slots, ends))
        for slots, gap in zip(places.unmap, self._gaps, strict=False):
            given.update(_both(slots, gap))
        rest = places.count - places.length
        given.update(_both(places.way, (places.table, places.length)))
        given.update(_both(places.stuck, (places.table + places.stuck_from * size, places.count - places.stuck_from)))
        machine.put(places.pollfd, _POLLFD.pack(plan.runtime, _POLLIN, 0))
        values = [0] * batch.MOST_SLOTS
        for slot, value in given.items():
            values[slot] = value & _MASK
        machine.put(places.slots, _SLOTS.pack(*values))
        return places.table + places.length * size, rest, places.slots


def _both(slots: Pair, values: Pair) -> dict[int, int]:
    return dict(zip(slots, values, strict=True))
