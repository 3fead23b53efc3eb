"""The words of ``linux.seccomp`` (config-linux.md, "Seccomp") and what they stand for."""

from __future__ import annotations

from mydocker.linux import seccomp

#: Name to value. ``KILL`` is the old name of ``KILL_THREAD``.
ACTIONS = {
    "SCMP_ACT_ALLOW": seccomp.ALLOW,
    "SCMP_ACT_ERRNO": seccomp.ERRNO,
    "SCMP_ACT_KILL": seccomp.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": seccomp.KILL_THREAD,
    "SCMP_ACT_LOG": seccomp.LOG_AND_ALLOW,
    "SCMP_ACT_NOTIFY": seccomp.NOTIFY,
    "SCMP_ACT_TRACE": seccomp.TRACE,
    "SCMP_ACT_TRAP": seccomp.TRAP,
}

#: Name to libseccomp's number (enum scmp_compare).
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

#: Name to the bit of seccomp(2).
FLAGS = {
    "SECCOMP_FILTER_FLAG_LOG": seccomp.LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": seccomp.SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_TSYNC": seccomp.TSYNC,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": seccomp.WAIT_KILLABLE_RECV,
}

#: Those of the spec. Which of them libseccomp knows depends on its version (`mydocker.seccomp.compiler`).
ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC PARISC64 "
        "PPC PPC64 PPC64LE RISCV64 S390 S390X SH SHEB"
    ).split()
)
