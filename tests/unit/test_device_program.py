"""The eBPF program that decides on devices: interpreted here, and compared with what the rules say."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st

from mydocker.linux import bpf

MASK = (1 << 64) - 1


def interpret(program: bytes, kind: int, major: int, minor: int, access: int) -> int:
    """Run a program on one access, as the kernel does: 1 allows it.

    It stops at what the kernel's verifier refuses: a register that is read and was not written, a jump out of the
    program or backwards, an access beyond the context, an end without an exit.
    """
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers: dict[int, int] = {1: 0}  # r1 points at the context, while it is not written
    pointers = {1}
    position = 0
    code = [struct.unpack_from("=BBhi", program, at) for at in range(0, len(program), 8)]
    while True:
        opcode, both, offset, immediate = code[position]
        target, source = both & 15, both >> 4
        position += 1
        if opcode == 0x61:  # target = *(u32 *)(source + offset)
            assert source in pointers and offset in (0, 4, 8)
            (registers[target],) = struct.unpack_from("=I", context, offset)
            pointers.discard(target)
        elif opcode == 0xB7:  # target = immediate
            registers[target] = immediate & MASK
            pointers.discard(target)
        elif opcode == 0xBF:  # target = source
            registers[target] = registers[source]
            assert source not in pointers
            pointers.discard(target)
        elif opcode == 0x57:  # target &= immediate
            assert target not in pointers
            registers[target] &= immediate & MASK
        elif opcode == 0x77:  # target >>= immediate
            assert target not in pointers
            registers[target] >>= immediate
        elif opcode in (0x55, 0x15):  # if target != immediate, or if target == immediate, jump
            assert target not in pointers and offset >= 0
            if (registers[target] != immediate & MASK) == (opcode == 0x55):
                position += offset
        else:
            assert opcode == 0x95  # exit
            return registers[0]


def allowed(rules, kind, major, minor, access) -> bool:
    """Some rule covers the whole access: cgroup-v1/devices.rst."""
    return any(
        kind == rule_kind and rule_major in (None, major) and rule_minor in (None, minor) and access & ~rule_access == 0
        for rule_kind, rule_major, rule_minor, rule_access in rules
    )


KINDS = st.sampled_from([bpf.BLOCK, bpf.CHARACTER])
# Few numbers, so that rules and devices meet; and the largest.
MAJORS = st.sampled_from([0, 1, 2, 5, 136, 4095])
MINORS = st.sampled_from([0, 1, 3, 255, (1 << 20) - 1])
ACCESSES = st.integers(1, bpf.EVERY_ACCESS)
RULES = st.lists(st.tuples(KINDS, st.none() | MAJORS, st.none() | MINORS, ACCESSES), max_size=12)


@given(rules=RULES, kind=KINDS, major=MAJORS, minor=MINORS, access=ACCESSES)
@example(rules=[], kind=bpf.BLOCK, major=8, minor=0, access=bpf.READ)
@example(rules=[(bpf.CHARACTER, 1, 3, 2), (bpf.CHARACTER, 1, 3, 4)], kind=bpf.CHARACTER, major=1, minor=3, access=6)
@example(rules=[(bpf.CHARACTER, None, None, 1)], kind=bpf.CHARACTER, major=1, minor=1, access=bpf.MKNOD)
def test_the_program_decides_as_the_rules_say(rules, kind, major, minor, access):
    decision = interpret(bpf.device_program(rules), kind, major, minor, access)
    assert decision == (1 if allowed(rules, kind, major, minor, access) else 0)


def named(rules, kind, major, minor, access) -> bool:
    """Some rule has a part of the access."""
    return any(
        kind == rule_kind and rule_major in (None, major) and rule_minor in (None, minor) and access & rule_access
        for rule_kind, rule_major, rule_minor, rule_access in rules
    )


@given(rules=RULES, kind=KINDS, major=MAJORS, minor=MINORS, access=ACCESSES)
@example(rules=[(bpf.CHARACTER, 1, 3, 4)], kind=bpf.CHARACTER, major=1, minor=3, access=6)
def test_a_program_that_allows_the_others_refuses_what_a_rule_names(rules, kind, major, minor, access):
    decision = interpret(bpf.device_program(rules, others=True), kind, major, minor, access)
    assert decision == (0 if named(rules, kind, major, minor, access) else 1)


@given(rules=RULES, others=st.booleans())
def test_every_instruction_can_be_reached(rules, others):
    """The verifier refuses a program with others."""
    program = bpf.device_program(rules, others=others)
    code = [struct.unpack_from("=BBhi", program, at) for at in range(0, len(program), 8)]
    reached, to_do = set(), [0]
    while to_do:
        position = to_do.pop()
        if position in reached:
            continue
        reached.add(position)
        opcode, _, offset, _ = code[position]
        if opcode != 0x95:
            to_do.append(position + 1)
        if opcode in (0x55, 0x15):
            to_do.append(position + 1 + offset)
    assert reached == set(range(len(code)))
