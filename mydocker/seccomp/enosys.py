"""What a filter answers to system calls that are newer than its profile: ENOSYS, "there is no such call".

A profile that refuses by default answers EPERM to a call that nobody knew when it was written. A libc that tries the
newest call first takes EPERM for the truth, where ENOSYS would make it try the older one; programs broke so with
clone3, faccessat2 and others. So a program is put in front that answers ENOSYS to every number above the highest one
that the profile names, for each architecture, as in runc (libcontainer/seccomp/patchbpf); crun leaves it to
defaultErrnoRet of the profile. Numbers have been given in one row for all architectures since Linux 5.1, so a higher
one is a newer one. Not for profiles that allow, log or trace by default: those let new calls through.
"""

from __future__ import annotations

from mydocker.linux import libseccomp, seccomp
from mydocker.seccomp import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_ENOSYS = 38

_X32, _X86_64 = 0x4000003E, 0xC000003E

#: On s390 number 0 stands for one that does not fit into the instruction, and stays 0 if the kernel does not know it.
_S390 = (0x80000016, 0x16)


def stub(architectures: Iterable[int], names: Collection[str]) -> bytes:
    """The instructions to put in front of a program, which they fall through to. Empty if the profile names nothing."""
    highest = {token: _highest(token, names) for token in architectures}
    if highest.get(_X32):
        # libseccomp has a token of its own for x32, the kernel has not.
        highest.setdefault(_X86_64, 0)
    sections = [
        _section(token, bounds)
        for token, bounds in (
            (token, (number, highest.get(_X32, 0) if token == _X86_64 else 0))
            for token, number in highest.items()
            if token != _X32
        )
        if any(bounds)
    ]
    if not sections:
        return b""
    return _assemble([("load", bpf.ARCHITECTURE, "", ""), *(line for section in sections for line in section)])


def _highest(token: int, names: Collection[str]) -> int:
    return max((libseccomp.resolve(name, token) for name in names), default=0)


def _section(token: int, bounds: tuple[int, int]) -> list[tuple[str, int, str, str]]:
    """Lines of (operation, operand, where to if so, where to if not) for one architecture; "" is the next line.

    A section is entered with the architecture loaded, and left for the next one with it, or for the filter.
    """
    own, x32 = bounds
    skip = f"after {token}"
    lines = [("equal", token, "", skip), ("load", bpf.NUMBER, "", "")]
    if token in _S390:
        lines.append(("equal", 0, "refuse", ""))
    if token == _X86_64:
        lines.append(("set", bpf.X32_BIT, f"x32 {token}", ""))
    lines.append(("greater", own, "refuse", "filter") if own > 0 else ("jump", 0, "filter", "filter"))
    if token == _X86_64:
        lines.append(("label", 0, f"x32 {token}", ""))
        lines.append(("greater", x32, "refuse", "filter") if x32 > 0 else ("jump", 0, "filter", "filter"))
    return [*lines, ("label", 0, skip, "")]


def _assemble(lines: list[tuple[str, int, str, str]]) -> bytes:
    """Instructions for the lines, an answer of ENOSYS behind them, and then the filter."""
    lines = [*lines, ("jump", 0, "filter", "filter"), ("label", 0, "refuse", ""), ("return", 0, "", "")]
    places: dict[str, int] = {}
    count = 0
    for operation, _, name, _ in lines:
        if operation == "label":
            places[name] = count
        else:
            count += 1
    places["filter"] = count
    codes = {"equal": bpf.EQUAL, "greater": bpf.GREATER, "set": bpf.BITS}
    program: list[bytes] = []
    for operation, operand, yes, no in lines:
        if operation == "label":
            continue
        here = len(program) + 1
        if operation == "load":
            program.append(bpf.INSTRUCTION.pack(bpf.LOAD, 0, 0, operand))
        elif operation == "return":
            program.append(bpf.INSTRUCTION.pack(bpf.RETURN, 0, 0, seccomp.ERRNO | _ENOSYS))
        elif operation == "jump":
            program.append(bpf.INSTRUCTION.pack(bpf.JUMP, 0, 0, places[yes] - here))
        else:
            forward = [places[place] - here if place else 0 for place in (yes, no)]
            program.append(bpf.INSTRUCTION.pack(codes[operation], *forward, operand))
    return b"".join(program)
