"""Classic BPF as seccomp(2) has it: linux/filter.h, linux/bpf_common.h, linux/seccomp.h."""

from __future__ import annotations

import struct

#: Operations. `LOAD` takes 4 bytes of struct seccomp_data from an offset on.
LOAD, AND, JUMP, RETURN = 0x20, 0x54, 0x05, 0x06
EQUAL, GREATER, AT_LEAST, BITS = 0x15, 0x25, 0x35, 0x45

#: An operation, how many instructions to go over if a comparison holds and if not, and the operand.
INSTRUCTION = struct.Struct("=HBBI")

#: Offsets in struct seccomp_data: of the system call's number, of the architecture, of the first argument.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

#: Numbers of the x32 ABI have this bit (``__X32_SYSCALL_BIT``); its architecture is that of x86_64.
X32_BIT = 0x40000000
