"""A BPF program that answers as another one does, in fewer instructions.

The kernel translates the program of each container anew, and that takes a good part of the time in which a container is
started: some 0.2 µs for an instruction. libseccomp makes a comparison for each system call. Most calls that are
answered alike have numbers side by side, so that a search among the bounds of those ranges takes a third of that.

The answer of the given program is worked out for every architecture that it tells apart and for each range of numbers
within which none of its comparisons can come out in two ways; where it depends on the call's arguments, by following
both ways. What the answers need is then put together anew. All of a classic program's jumps lead forward
(Documentation/networking/filter.rst), so that this ends.
"""

from __future__ import annotations

from mydocker.seccomp import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    #: what is in the accumulator: a number that is known, or None for something of the arguments
    State = int | None

_CONDITIONS: dict[int, Callable[[int, int], bool]] = {
    bpf.EQUAL: lambda a, k: a == k,
    bpf.GREATER: lambda a, k: a > k,
    bpf.AT_LEAST: lambda a, k: a >= k,
    bpf.BITS: lambda a, k: a & k != 0,
}

_ALL = 1 << 32
_FURTHEST = 255

#: How many instructions are followed: half a second. Docker's profile takes a tenth of it.
_MOST_STEPS = 500_000


class _Unknown(Exception):
    """The program does something of which nothing is known here, or has too many ways."""


def shrunk(program: bytes) -> bytes:
    """A program that gives the same answers: the given one, if no shorter one is found."""
    try:
        made = _Shrinking([*bpf.INSTRUCTION.iter_unpack(program)]).made()
    except (_Unknown, RecursionError):
        return program
    return made if len(made) < len(program) else program


class _Parts:
    """What a program is put together of, each once and by its number: an operation, its operand, and the parts to which
    it leads.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, ...], int] = {}
        self._parts: list[tuple[int, ...]] = []

    def __getitem__(self, part: int) -> tuple[int, ...]:
        return self._parts[part]

    def add(self, code: int, operand: int, *further: int) -> int:
        key = (code, operand, *further)
        part = self._numbers.setdefault(key, len(self._parts))
        if part == len(self._parts):
            self._parts.append(key)
        return part


class _Shrinking:
    def __init__(self, given: list[tuple[int, int, int, int]]) -> None:
        self._given = given
        self._parts = _Parts()
        self._steps = 0
        self._architectures: set[int] = set()
        self._bounds = {0}
        self._look_through()

    def made(self) -> bytes:
        part = self._of_architecture(-1)
        for architecture in sorted(self._architectures, reverse=True):
            own = self._of_architecture(architecture)
            if own != part:
                part = self._parts.add(bpf.EQUAL, architecture, own, part)
        if self._parts[part][0] != bpf.RETURN:
            part = self._parts.add(bpf.LOAD, bpf.ARCHITECTURE, part)
        return _Assembly(self._parts).of(part)

    def _look_through(self) -> None:
        """Find what the architecture and the number are compared with."""
        waiting: list[tuple[int, int]] = [(0, -1)]
        seen = set(waiting)
        while waiting:
            at, loaded = waiting.pop()
            code, yes, no, k = self._at(at)
            following: list[tuple[int, int]] = []
            if code == bpf.LOAD:
                if k not in (bpf.NUMBER, bpf.ARCHITECTURE) and (k < bpf.ARGUMENTS or k % 4):
                    raise _Unknown
                following = [(at + 1, k)]
            elif code == bpf.AND and loaded >= bpf.ARGUMENTS:
                following = [(at + 1, loaded)]
            elif code == bpf.JUMP:
                following = [(at + 1 + k, loaded)]
            elif code in _CONDITIONS and loaded >= 0:
                self._note(code, k, loaded)
                following = [(at + 1 + yes, loaded), (at + 1 + no, loaded)]
            elif code != bpf.RETURN:
                raise _Unknown
            for place in following:
                if place not in seen:
                    seen.add(place)
                    waiting.append(place)

    def _note(self, code: int, k: int, loaded: int) -> None:
        if loaded == bpf.ARCHITECTURE:
            if code != bpf.EQUAL:
                raise _Unknown
            self._architectures.add(k)
        elif loaded == bpf.NUMBER:
            if code == bpf.BITS:
                if k != bpf.X32_BIT:  # for no other are the numbers that have one of its bits in few ranges
                    raise _Unknown
                self._bounds.update(range(0, _ALL, bpf.X32_BIT))
            else:
                self._bounds.update((k, k + 1))

    def _at(self, at: int) -> tuple[int, int, int, int]:
        try:
            return self._given[at]
        except IndexError:
            raise _Unknown from None

    def _of_architecture(self, architecture: int) -> int:
        """The part for one, or for all others (-1). The architecture is loaded when it begins."""
        ranges: list[tuple[int, int]] = []  # where each begins, and its part
        for bound in sorted(self._bounds):
            if bound < _ALL:
                part = self._part(0, None, architecture, bound, {})
                if not ranges or ranges[-1][1] != part:
                    ranges.append((bound, part))
        if len(ranges) == 1:
            return ranges[0][1]
        return self._parts.add(bpf.LOAD, bpf.NUMBER, self._search(ranges))

    def _part(
        self, at: int, state: State, architecture: int, number: int, known: dict[tuple[int, State], int]
    ) -> int:
        """What the given program does from there on, for one architecture and one number."""
        key = (at, state)
        if key not in known:
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise _Unknown
            code, yes, no, k = self._at(at)
            if code == bpf.RETURN:
                part = self._parts.add(bpf.RETURN, k)
            elif code == bpf.JUMP:
                part = self._part(at + 1 + k, state, architecture, number, known)
            elif code == bpf.LOAD and k < bpf.ARGUMENTS:
                loaded = number if k == bpf.NUMBER else architecture
                part = self._part(at + 1, loaded, architecture, number, known)
            elif code in (bpf.LOAD, bpf.AND):
                part = self._parts.add(code, k, self._part(at + 1, None, architecture, number, known))
            elif state is not None:
                way = yes if _CONDITIONS[code](state, k) else no
                part = self._part(at + 1 + way, state, architecture, number, known)
            else:
                both = [self._part(at + 1 + way, state, architecture, number, known) for way in (yes, no)]
                part = both[0] if both[0] == both[1] else self._parts.add(code, k, *both)
            known[key] = part
        return known[key]

    def _search(self, ranges: list[tuple[int, int]]) -> int:
        """The part that finds the range of the number that is loaded."""
        if len(ranges) == 1:
            return ranges[0][1]
        if len(ranges) == 3 and ranges[0][1] == ranges[2][1] and ranges[1][0] + 1 == ranges[2][0]:
            return self._parts.add(bpf.EQUAL, ranges[1][0], ranges[1][1], ranges[0][1])
        middle = len(ranges) // 2
        halves = self._search(ranges[middle:]), self._search(ranges[:middle])
        return self._parts.add(bpf.AT_LEAST, ranges[middle][0], *halves)


class _Assembly:
    """Instructions for parts, made from the last one on: a jump leads to what is there already."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._reversed: list[bytes] = []
        #: part to the number of instructions from its first one to the end
        self._places: dict[int, int] = {}

    def of(self, part: int) -> bytes:
        self._place(part)
        return b"".join(reversed(self._reversed))

    def _place(self, part: int) -> None:
        if part in self._places:
            return
        code, k, *further = self._parts[part]
        if code in _CONDITIONS:
            yes, no = further
            self._place(yes)
            self._place(no)
            # The first of the two may add an instruction between here and the other.
            self._within(yes, _FURTHEST - 1)
            self._within(no, _FURTHEST)
            self._append(part, code, len(self._reversed) - self._places[yes], len(self._reversed) - self._places[no], k)
        elif code == bpf.RETURN:
            self._append(part, code, 0, 0, k)
        else:
            self._place(further[0])
            self._within(further[0], 0)
            self._append(part, code, 0, 0, k)

    def _within(self, part: int, furthest: int) -> None:
        """See that no more instructions are between here and the part: what is too far is repeated, or jumped to."""
        distance = len(self._reversed) - self._places[part]
        if distance > furthest:
            code, k, *_ = self._parts[part]
            if code == bpf.RETURN:
                self._append(part, bpf.RETURN, 0, 0, k)
            else:
                self._append(part, bpf.JUMP, 0, 0, distance)

    def _append(self, part: int, code: int, yes: int, no: int, k: int) -> None:
        self._reversed.append(bpf.INSTRUCTION.pack(code, yes, no, k))
        self._places[part] = len(self._reversed)
