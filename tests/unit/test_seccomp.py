"""Seccomp profiles: what the compiled program answers, what is refused, when a kept program is used."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import cache_file, seccomp
from mydocker.errors import OciError, SetupError, UsageError
from mydocker.linux import capabilities, libseccomp
from mydocker.linux import seccomp as kernel
from mydocker.seccomp import compiler, default, profile, shrinking
from mydocker.seccomp.names import ACTIONS, OPERATORS
from mydocker.spec import DEFAULT_CAPABILITIES

X86_64, I386 = 0xC000003E, 0x40000003
X32_BIT = 0x40000000
LONG_AGO = 1_000_000_000
U64 = st.integers(0, (1 << 64) - 1)

on_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")

Answer = Callable[..., tuple[str, int]]


def interpret(program: bytes, architecture: int, number: int, arguments: tuple[int, ...]) -> int:
    """What the kernel would do with a classic BPF program of libseccomp's kind (linux/bpf_common.h)."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *(value & (1 << 64) - 1 for value in padded))
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, yes, no, operand = instructions[at]
        at += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x05:
            at += operand
        else:
            holds = {
                0x15: accumulator == operand,
                0x25: accumulator > operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[code]
            at += yes if holds else no


def answers(compiled: bytes) -> Answer:
    """A system call by name or number, and its arguments, to (action, number that it carries)."""

    def answer(call: str | int, *arguments: int, architecture: int = X86_64) -> tuple[str, int]:
        token = {X86_64: libseccomp.architecture("x86_64"), I386: libseccomp.architecture("x86")}[architecture]
        number = call if isinstance(call, int) else libseccomp.resolve(call, token)
        value = interpret(compiled, architecture, number, arguments)
        names = {action: name.removeprefix("SCMP_ACT_") for name, action in ACTIONS.items()}
        return names[value & kernel.ACTION], value & 0xFFFF

    return answer


def of(default_action: str, *rules: dict[str, Any], **others: Any) -> Answer:
    return answers(compiler.compile_filter({"defaultAction": default_action, "syscalls": list(rules), **others})[0])


def rule(names: str, action: str, *conditions: tuple[Any, ...], **others: Any) -> dict[str, Any]:
    """Conditions are (index, operator, value) or (index, operator, value, second value)."""
    keys = ("index", "op", "value", "valueTwo")
    args = [dict(zip(keys, condition, strict=False)) for condition in conditions]
    args = [{**arg, "op": f"SCMP_CMP_{arg['op']}"} for arg in args]
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", "args": args, **others}


ALLOWED, REFUSED, ABSENT = ("ALLOW", 0), ("ERRNO", errno.EPERM), ("ERRNO", errno.ENOSYS)


def of_capabilities(*added: str, release: str = "6.1.0") -> Answer:
    """Docker's profile for a container that has these besides the default ones."""
    resolved = profile.resolve(default.profile(), (*DEFAULT_CAPABILITIES, *added), "x86_64", release)
    assert resolved is not None
    return answers(compiler.compile_filter(resolved)[0])


@pytest.fixture(scope="module")
def usual() -> Answer:
    return of_capabilities()


@on_x86_64
@pytest.mark.parametrize("call", "read openat clone execve futex io_submit ptrace memfd_create mlock2".split())
def test_dockers_profile_allows_what_programs_need(usual: Answer, call: str) -> None:
    assert usual(call) == usual(call, architecture=I386) == ALLOWED


@on_x86_64
@pytest.mark.parametrize(
    "call",
    "acct add_key bpf clock_settime create_module delete_module finit_module init_module get_mempolicy ioperm iopl "
    "kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount move_mount nfsservctl open_by_handle_at "
    "open_tree perf_event_open pivot_root process_madvise quotactl reboot request_key set_mempolicy setns settimeofday "
    "swapoff swapon _sysctl sysfs umount2 unshare uselib userfaultfd ustat vhangup syslog io_uring_setup "
    "io_uring_enter io_uring_register pidfd_getfd fsopen fsmount fanotify_init migrate_pages move_pages".split(),
)
def test_dockers_profile_refuses_what_reaches_beyond_the_container(usual: Answer, call: str) -> None:
    assert usual(call) == REFUSED


@on_x86_64
@pytest.mark.parametrize(
    ("capability", "calls"),
    [
        ("CAP_SYS_ADMIN", "bpf clone3 fsopen mount perf_event_open pidfd_open setns syslog umount2 unshare"),
        ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
        ("CAP_SYS_TIME", "clock_settime settimeofday"),
        ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_NICE", "mbind set_mempolicy get_mempolicy"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_RAWIO", "iopl ioperm"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_a_capability_brings_its_system_calls(usual: Answer, capability: str, calls: str) -> None:
    with_it = of_capabilities(capability)
    for call in calls.split():
        assert with_it(call) == ALLOWED
    assert {usual(call) for call in calls.split()} <= {REFUSED, ABSENT, ALLOWED}
    assert usual(calls.split()[0]) == REFUSED
    assert with_it("keyctl") == REFUSED


@on_x86_64
def test_a_dropped_capability_takes_its_system_calls_along() -> None:
    kept = tuple(name for name in DEFAULT_CAPABILITIES if name != "CAP_SYS_CHROOT")
    resolved = profile.resolve(default.profile(), kept, "x86_64", "6.1")
    assert resolved is not None
    assert answers(compiler.compile_filter(resolved)[0])("chroot") == REFUSED
    assert of_capabilities()("chroot") == ALLOWED


@on_x86_64
def test_clone_makes_threads_and_processes_and_no_namespaces(usual: Answer) -> None:
    sigchld, threads = 17, 0x3D0F00
    for flags in (sigchld, threads, 0):
        assert usual("clone", flags) == ALLOWED
    for new in (0x10000000, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000):
        assert usual("clone", new | sigchld) == REFUSED
        assert of_capabilities("CAP_SYS_ADMIN")("clone", new | sigchld) == ALLOWED


@on_x86_64
def test_clone3_is_said_not_to_exist_so_that_libc_takes_clone(usual: Answer) -> None:
    assert usual("clone3") == ABSENT


@on_x86_64
def test_personalities_and_socket_families(usual: Answer) -> None:
    for persona in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert usual("personality", persona) == ALLOWED
    for persona in (0x40000, 4, 0x0400000, 9):  # ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC among them
        assert usual("personality", persona) == REFUSED
    for family in (1, 2, 10, 16, 17, 29):
        assert usual("socket", family) == ALLOWED
    for family in (38, 40, 12, 46, 1000):  # AF_ALG, AF_VSOCK
        assert usual("socket", family) == REFUSED


@on_x86_64
def test_ptrace_is_refused_on_kernels_where_it_gets_past_a_filter() -> None:
    old = of_capabilities(release="4.4.0-210-generic")
    assert (old("ptrace"), old("process_vm_readv")) == (REFUSED, REFUSED)
    assert of_capabilities("CAP_SYS_PTRACE", release="4.4.0")("ptrace") == ALLOWED
    assert of_capabilities(release="4.8.0")("ptrace") == ALLOWED


@on_x86_64
@pytest.mark.parametrize("call", [600, 500])
def test_a_system_call_that_is_newer_than_the_profile_does_not_exist(usual: Answer, call: int) -> None:
    """A libc that tries it first then falls back; EPERM it would take for the truth."""
    assert usual(call) == ABSENT
    assert usual(call, architecture=I386) == ABSENT
    if call > 547:  # up to there x32 has some numbers of its own
        assert usual(call | X32_BIT) == ABSENT


@on_x86_64
def test_only_what_is_above_the_highest_number_of_the_profile_does_not_exist() -> None:
    answer = of("SCMP_ACT_ERRNO", rule("openat2", "ALLOW"), defaultErrnoRet=errno.EACCES)
    highest = libseccomp.resolve("openat2")
    assert [answer(number)[1] for number in (highest - 1, highest, highest + 1)] == [errno.EACCES, 0, errno.ENOSYS]
    assert answer(highest + 1, architecture=X86_64) == ABSENT


@on_x86_64
def test_the_highest_number_counts_whatever_the_rule_says_of_it() -> None:
    """Also one that repeats the default action, for which there is no rule."""
    answer = of("SCMP_ACT_ERRNO", rule("read", "ALLOW"), rule("close_range", "ERRNO"))
    assert (answer("close_range"), answer(libseccomp.resolve("close_range") + 1)) == (REFUSED, ABSENT)


@on_x86_64
@pytest.mark.parametrize("action", ["ALLOW", "LOG"])
def test_a_profile_that_lets_through_what_it_does_not_name_does_so_with_new_calls(action: str) -> None:
    assert of(f"SCMP_ACT_{action}", rule("mount", "ERRNO"))(600)[0] == action


@on_x86_64
def test_x32_is_told_from_x86_64_by_its_numbers() -> None:
    both = of("SCMP_ACT_ERRNO", rule("read write", "ALLOW"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"])
    assert both(libseccomp.resolve("read") | X32_BIT) == ALLOWED
    assert both(400 | X32_BIT) == ABSENT
    alone = of("SCMP_ACT_ERRNO", rule("read write", "ALLOW"))
    assert alone(libseccomp.resolve("read") | X32_BIT)[0].startswith("KILL")
    assert alone(libseccomp.resolve("read"), architecture=I386)[0].startswith("KILL")


def test_the_native_architecture_is_always_filtered() -> None:
    program, _ = compiler.compile_filter(
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ARM"], "syscalls": [rule("mount", "ERRNO")]}
    )
    if os.uname().machine == "x86_64":
        assert answers(program)("mount") == REFUSED
    assert len(program) > 8


@on_x86_64
@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_every_action(name: str) -> None:
    """By a rule, and but for NOTIFY by default."""
    action = name.removeprefix("SCMP_ACT_")
    expected = {"KILL": "KILL_THREAD"}.get(action, action)
    assert of("SCMP_ACT_ALLOW", rule("mkdir", action))("mkdir")[0] == ("ALLOW" if action == "ALLOW" else expected)
    if action == "NOTIFY":
        with pytest.raises(ValueError, match="SCMP_ACT_NOTIFY cannot be used as default action"):
            of(name, rule("mkdir", "ALLOW"))
    else:
        assert of(name, rule("mount", "ALLOW" if action == "ERRNO" else "ERRNO"))("mkdir")[0] == expected


@on_x86_64
def test_errnos_of_rules_and_of_the_default() -> None:
    answer = of(
        "SCMP_ACT_ERRNO",
        rule("mkdir", "ERRNO", errnoRet=errno.ENOSPC),
        rule("rmdir", "TRACE", errnoRet=7),
        rule("chdir", "TRACE"),
        rule("openat2", "ALLOW"),
        defaultErrnoRet=errno.EXDEV,
    )
    assert answer("mkdir") == ("ERRNO", errno.ENOSPC)
    assert answer("rmdir") == ("TRACE", 7)
    assert answer("chdir") == ("TRACE", errno.EPERM)
    assert answer("read") == ("ERRNO", errno.EXDEV)


HOLDS: dict[str, Callable[[int, int, int], bool]] = {
    "NE": lambda argument, value, _: argument != value,
    "LT": lambda argument, value, _: argument < value,
    "LE": lambda argument, value, _: argument <= value,
    "EQ": lambda argument, value, _: argument == value,
    "GE": lambda argument, value, _: argument >= value,
    "GT": lambda argument, value, _: argument > value,
    "MASKED_EQ": lambda argument, mask, value: argument & mask == value & mask,
}


@on_x86_64
@pytest.mark.parametrize("operator", sorted(name.removeprefix("SCMP_CMP_") for name in OPERATORS))
@given(value=U64, second=U64, argument=U64, index=st.integers(0, 5), near=st.integers(-1, 1))
def test_every_operator(operator: str, value: int, second: int, argument: int, index: int, near: int) -> None:
    answer = of("SCMP_ACT_ALLOW", rule("ioctl", "ERRNO", (index, operator, value, second)))
    for candidate in {argument, (value + near) % (1 << 64), value & second, (second & value) | (argument & ~value)}:
        arguments = [0] * 6
        arguments[index] = candidate
        expected = REFUSED if HOLDS[operator](candidate, value, second) else ALLOWED
        assert answer("ioctl", *arguments) == expected


@on_x86_64
def test_conditions_on_several_arguments_must_all_hold() -> None:
    answer = of("SCMP_ACT_ALLOW", rule("ioctl", "ERRNO", (0, "EQ", 1), (1, "EQ", 2)))
    assert [answer("ioctl", *two) for two in ((1, 2), (1, 3), (0, 2))] == [REFUSED, ALLOWED, ALLOWED]


@on_x86_64
def test_of_several_conditions_on_one_argument_one_is_enough() -> None:
    answer = of("SCMP_ACT_ALLOW", rule("ioctl", "ERRNO", (0, "EQ", 1), (0, "EQ", 5), (1, "EQ", 2)))
    assert [answer("ioctl", *two) for two in ((1, 0), (5, 0), (9, 2), (9, 9))] == [REFUSED, REFUSED, REFUSED, ALLOWED]


@on_x86_64
def test_unknown_system_calls_are_passed_over() -> None:
    answer = of("SCMP_ACT_ALLOW", rule("no_such_call mkdir", "ERRNO"), rule("nor_this", "KILL"))
    assert (answer("mkdir"), answer("rmdir")) == (REFUSED, ALLOWED)


@on_x86_64
def test_a_profile_without_rules() -> None:
    assert of("SCMP_ACT_ALLOW")("mount") == ALLOWED
    assert of("SCMP_ACT_ERRNO", *(rule(name, "ERRNO") for name in ["mkdir"] * 40))("mkdir") == REFUSED


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"defaultAction": "SCMP_ACT_FORBID"}, 'unknown action "SCMP_ACT_FORBID": use one of SCMP_ACT_ALLOW'),
        ({"defaultAction": None}, 'unknown action "None"'),
        ({"syscalls": [rule("mkdir", "NONE")]}, 'unknown action "SCMP_ACT_NONE"'),
        ({"syscalls": [{"action": "SCMP_ACT_ALLOW", "names": []}]}, "an entry of syscalls has no names"),
        ({"syscalls": [rule("mkdir", "KILL", errnoRet=1)]}, "SCMP_ACT_KILL takes no errno, and 1 is given"),
        ({"defaultErrnoRet": 1}, "SCMP_ACT_ALLOW takes no errno, and 1 is given"),
        ({"syscalls": [rule("mkdir", "ERRNO", errnoRet=-1)]}, "-1 is not an errno for SCMP_ACT_ERRNO"),
        ({"syscalls": [rule("mkdir", "ERRNO", (0, "NEAR", 1))]}, 'unknown operator "SCMP_CMP_NEAR" for mkdir'),
        ({"syscalls": [rule("mkdir", "ERRNO", (6, "EQ", 1))]}, "6 is not the index of an argument of mkdir"),
        ({"syscalls": [rule("mkdir", "ERRNO", (0, "EQ", 1 << 64))]}, "18446744073709551616 is not a value"),
        ({"syscalls": [rule("read write", "NOTIFY")]}, "SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        ({"architectures": ["SCMP_ARCH_VAX"]}, 'unknown architecture "SCMP_ARCH_VAX": use one of SCMP_ARCH_X86'),
        ({"flags": ["SECCOMP_FILTER_FLAG_FAST"]}, 'unknown flag "SECCOMP_FILTER_FLAG_FAST"'),
        (
            {"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]},
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is about SCMP_ACT_NOTIFY, and no rule has that",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        compiler.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", **changed})


def test_a_program_that_the_kernel_would_not_take_is_refused() -> None:
    many = [rule("ioctl", "ERRNO", (0, "EQ", number), (1, "EQ", number)) for number in range(1000)]
    with pytest.raises(ValueError, match="instructions, and the kernel takes no more than 4096: give it fewer rules"):
        compiler.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many})


@pytest.mark.parametrize(
    ("flags", "listens", "expected"),
    [
        (None, False, kernel.SPEC_ALLOW),
        (None, True, kernel.SPEC_ALLOW | kernel.NEW_LISTENER),
        ([], False, 0),
        (["LOG", "SPEC_ALLOW"], False, kernel.LOG | kernel.SPEC_ALLOW),
        (["TSYNC"], False, kernel.TSYNC),
        (["TSYNC"], True, kernel.TSYNC | kernel.TSYNC_ESRCH | kernel.NEW_LISTENER),
        (["WAIT_KILLABLE_RECV"], True, kernel.WAIT_KILLABLE_RECV | kernel.NEW_LISTENER),
    ],
)
def test_flags(flags: list[str] | None, listens: bool, expected: int) -> None:
    entry = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("mkdir", "NOTIFY" if listens else "ERRNO")]}
    if flags is not None:
        entry["flags"] = [f"SECCOMP_FILTER_FLAG_{name}" for name in flags]
    assert compiler.compile_filter(entry)[1] == expected
    assert kernel.knows_flags(expected)


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({}, True),
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_BPF"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF", "CAP_CHOWN"]}}, False),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.10"}}, False),
        ({"excludes": {"minKernel": "5.0"}}, False),
        ({"includes": {"caps": ["CAP_CHOWN"], "arches": ["arm64"]}}, False),
    ],
)
def test_conditions_of_dockers_form(conditions: dict[str, Any], applies: bool) -> None:
    written = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{**rule("mkdir", "ALLOW"), **conditions}]}
    resolved = profile.resolve(written, ["CAP_CHOWN"], "x86_64", "6.9.3-1-amd64")
    assert resolved is not None
    assert bool(resolved["syscalls"]) == applies


def test_dockers_map_of_architectures_and_its_old_form_of_a_rule() -> None:
    written = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        ],
        "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_ALLOW", "args": None, "comment": "why"}],
    }
    resolved = profile.resolve(written, [], "x86_64", "6.1")
    assert resolved is not None
    assert resolved["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert resolved["syscalls"] == [{"action": "SCMP_ACT_ALLOW", "names": ["mkdir"]}]
    assert profile.resolve({}, [], "x86_64", "6.1") is None
    with pytest.raises(ValueError, match="it has both architectures and archMap"):
        profile.resolve({**written, "architectures": ["SCMP_ARCH_X86"]}, [], "x86_64", "6.1")
    for wrong in ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"includes": {"minKernel": "new"}}]}, []):
        with pytest.raises(ValueError):
            profile.resolve(wrong, [], "x86_64", "6.1")  # type: ignore[arg-type]


MASK = capabilities.mask(DEFAULT_CAPABILITIES)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place for compiled filters, in which what is compiled is kept at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache_file, "SETTLED", 0.0)
    yield tmp_path / "mydocker"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each filter that is compiled."""
    seen: list[Any] = []
    compile_filter = compiler.compile_filter
    monkeypatch.setattr(compiler, "compile_filter", lambda entry: (seen.append(entry), compile_filter(entry))[1])
    return seen


def test_a_filter_is_compiled_once(cache: Path, compilations: list[Any]) -> None:
    first = seccomp.of_run("default", MASK)
    assert seccomp.of_run("default", MASK) == first
    assert (len(compilations), len(list(cache.iterdir()))) == (1, 1)
    assert next(cache.iterdir()).stat().st_mode & 0o777 == 0o600


def test_other_capabilities_and_another_profile_are_compiled_anew(cache: Path, compilations: list[Any]) -> None:
    filters = [seccomp.of_run("default", MASK), seccomp.of_run("default", MASK | 1 << 21)]
    written = cache.parent / "profile.json"
    for names in ("mkdir", "rmdir"):
        written.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(names, "ERRNO")]}))
        filters.append(seccomp.of_run(str(written), MASK))
    assert len(compilations) == len({repr(one) for one in filters}) == 4


def test_another_libseccomp_makes_another_filter(
    cache: Path, compilations: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = cache.parent / "libseccomp.so.2.5.4"
    library.write_text("one")
    monkeypatch.setattr(libseccomp, "path", lambda: str(library))
    os.utime(library, (LONG_AGO, LONG_AGO))
    for _ in range(2):
        seccomp.of_run("default", MASK)
    assert len(compilations) == 1
    os.utime(library, (LONG_AGO + 1, LONG_AGO + 1))
    seccomp.of_run("default", MASK)
    assert len(compilations) == 2
    library.unlink()
    monkeypatch.setattr(libseccomp, "LIBRARY", "libseccomp.so.none")
    assert seccomp.of_run("default", MASK) is not None
    assert len(compilations) == 2


def test_another_kernel_makes_another_filter(
    cache: Path, compilations: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seccomp.of_run("default", MASK)
    host = os.uname()
    newer = os.uname_result((host.sysname, host.nodename, "99.1.0", host.version, host.machine))
    monkeypatch.setattr(os, "uname", lambda: newer)
    seccomp.of_run("default", MASK)
    assert len(compilations) == 2


@pytest.mark.parametrize("how", ["writable", "link", "somebody else's", "torn", "of another filter"])
def test_a_kept_filter_that_another_could_have_written_is_not_used(
    cache: Path, compilations: list[Any], how: str
) -> None:
    wanted = seccomp.of_run("default", MASK)
    (file,) = cache.iterdir()
    if how == "writable":
        file.chmod(0o622)
    elif how == "link":
        file.rename(cache.parent / "elsewhere")
        file.symlink_to(cache.parent / "elsewhere")
    elif how == "somebody else's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(file, 65534, -1)
    elif how == "torn":
        file.write_bytes(file.read_bytes()[:-8])
    else:
        seccomp.of_run({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("mkdir", "ERRNO")]}, MASK)
        (other,) = set(cache.iterdir()) - {file}
        other.rename(file)
        compilations.clear()
        compilations.append("the first")
    assert seccomp.of_run("default", MASK) == wanted
    assert len(compilations) == 2


def test_a_run_with_a_kept_filter_loads_no_library(cache: Path) -> None:
    program = (
        "import sys\n"
        "from mydocker import cache_file, seccomp\n"
        "cache_file.SETTLED = 0.0\n"
        "made = seccomp.of_run('default', int(sys.argv[1]))\n"
        "loaded = 'libseccomp.so' in open('/proc/self/maps').read()\n"
        "print(len(made.program) > 1000, loaded, *sorted(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, str(MASK)]
    outputs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in (1, 2)]
    first, second = (output.stdout.split() for output in outputs)
    assert (first[:2], second[:2]) == (["True", "True"], ["True", "False"])
    assert not {"json", "re", "typing", "mydocker.plain_json", "mydocker.linux.libseccomp"} & set(second)


def test_without_libseccomp_nothing_runs_unfiltered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libseccomp, "LIBRARY", "libseccomp.so.none")
    sentence = "the seccomp filter cannot be made, since this host has no libseccomp.so.2: install the package libsecc"
    way_out = "or run without a filter by --security-opt seccomp=unconfined"
    with pytest.raises(SetupError, match=f"^{sentence}omp2 .*, {way_out}$"):
        seccomp.of_run("default", MASK)
    with pytest.raises(SetupError, match=f"^{sentence}omp2 \\(apt-get install libseccomp2\\)$"):
        seccomp.prepare({"defaultAction": "SCMP_ACT_ALLOW"})
    assert seccomp.of_run("unconfined", MASK) is None
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    monkeypatch.setattr(cache_file, "SETTLED", 0.0)
    made = seccomp.of_run("default", MASK)
    monkeypatch.setattr(libseccomp, "LIBRARY", "libseccomp.so.none")
    assert seccomp.of_run("default", MASK) == made  # that was kept


def test_what_takes_no_filter(cache: Path) -> None:
    assert seccomp.of_run("default", MASK, privileged=True) is None
    assert seccomp.of_run("unconfined", MASK) is None
    assert seccomp.of_run({}, MASK) is None
    assert seccomp.prepare(None) is None
    explicit = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("mkdir", "ERRNO")]}
    assert seccomp.of_run(explicit, MASK, privileged=True) is not None


NOTIFIES = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("mkdir", "NOTIFY")]}


def test_profiles_that_cannot_be_read(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    with pytest.raises(UsageError, match=f"^cannot read the seccomp profile {file}: No such file or directory$"):
        seccomp.of_run(str(file), MASK)
    for content, message in (
        ("{", "it is not JSON: "),
        ("[]", "it is not a JSON object"),
        ('{"defaultAction": "x"}', 'unknown action "x"'),
        (json.dumps(NOTIFIES), "SCMP_ACT_NOTIFY needs an agent"),
    ):
        file.write_text(content)
        with pytest.raises(UsageError, match=f"^the seccomp profile {file}: {message}"):
            seccomp.of_run(str(file), MASK)


def test_the_listener_of_config_json(cache: Path) -> None:
    with pytest.raises(OciError, match=r"^linux\.seccomp: SCMP_ACT_NOTIFY is used and listenerPath is not set"):
        seccomp.prepare(NOTIFIES)
    with pytest.raises(OciError, match=r"^linux\.seccomp: listenerMetadata is set and listenerPath is not"):
        seccomp.prepare({**NOTIFIES, "listenerMetadata": "x"})
    with pytest.raises(OciError, match=r'^linux\.seccomp: unknown action "x"'):
        seccomp.prepare({"defaultAction": "x"})
    made = seccomp.prepare({**NOTIFIES, "listenerPath": "/run/agent", "listenerMetadata": "x"})
    assert made is not None
    assert (made.listens, made.listener_path, made.listener_metadata) == (True, "/run/agent", "x")
    unused = seccomp.prepare({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent"})
    assert unused is not None
    assert (unused.listens, unused.listener_path) == (False, "")


ARCHITECTURES_TOLD_APART = (X86_64, I386, 0xC00000B7)
U32 = st.integers(0, (1 << 32) - 1)

LOAD, AND, JUMP, RETURN = 0x20, 0x54, 0x05, 0x06
JUMPS = (0x15, 0x25, 0x35, 0x45)


def unshrunk(monkeypatch: pytest.MonkeyPatch, rules: dict[str, Any]) -> tuple[bytes, bytes]:
    """The program as libseccomp has made it, and the shorter one."""
    given_: list[bytes] = []
    shrunk = shrinking.shrunk
    with monkeypatch.context() as patch:
        patch.setattr(shrinking, "shrunk", lambda program: given_.append(program) or shrunk(program))
        made, _ = compiler.compile_filter(rules)
    return given_[0], made


@pytest.mark.parametrize("capabilities", [DEFAULT_CAPABILITIES, (), ("CAP_SYS_ADMIN", "CAP_BPF")], ids=len)
def test_a_shorter_program_for_dockers_profile(capabilities: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rules = profile.resolve(default.profile(), list(capabilities), os.uname().machine, "6.1.0")
    assert rules is not None
    whole, short = unshrunk(monkeypatch, rules)
    assert len(short) < len(whole) / 2
    numbers = [*range(600), *range(X32_BIT, X32_BIT + 700), X32_BIT - 1, 2 * X32_BIT, 3 * X32_BIT + 5, (1 << 32) - 1]
    some = (0, 1, 2, 8, 16, 38, 40, 0x20000, 0x20008, 0x7E020000, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1)
    for architecture in ARCHITECTURES_TOLD_APART:
        for number in numbers:
            for value in some if number % X32_BIT in (16, 29, 41, 56, 97, 102, 120, 135, 136) else some[:2]:
                arguments = (value,) * 6
                expected = interpret(whole, architecture, number, arguments)
                assert interpret(short, architecture, number, arguments) == expected, (architecture, number, value)


CALLS = ("read", "write", "ioctl", "socket", "clone", "personality", "kill", "getpid", "mount", "openat2", "futex")
CONDITION = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "op": st.sampled_from(list(OPERATORS)), "value": st.integers(0, 3) | U32}
)
RULE = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(CALLS), min_size=1, max_size=6, unique=True),
        "action": st.sampled_from([name for name in ACTIONS if name != "SCMP_ACT_NOTIFY"]),
        "args": st.lists(CONDITION, max_size=2, unique_by=lambda condition: condition["index"]),
    }
)


@on_x86_64
@given(
    st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]),
    st.lists(RULE, max_size=40),
    st.lists(st.tuples(*(st.integers(0, 3) | U32,) * 3), min_size=1, max_size=4),
)
def test_a_shorter_program_for_any_profile(
    action: str, rules: list[dict[str, Any]], asked: list[tuple[int, ...]]
) -> None:
    config = {"defaultAction": action, "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules}
    patch = pytest.MonkeyPatch()
    try:
        whole, short = unshrunk(patch, config)
    except ValueError:  # such as two rules that say different things of one call
        return
    finally:
        patch.undo()
    numbers = [libseccomp.resolve(call) for call in CALLS]
    for architecture in ARCHITECTURES_TOLD_APART:
        for number in (*numbers, *(X32_BIT + number for number in numbers), 999, X32_BIT - 1, (1 << 32) - 1):
            for arguments in asked:
                expected = interpret(whole, architecture, number, arguments)
                assert interpret(short, architecture, number, arguments) == expected


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """Of a few values, so that comparisons hold now and then, with jumps to wherever there is something."""
    count = draw(st.integers(2, 40))
    loads = st.sampled_from([0, 4, 16, 20, 24])
    operands = st.sampled_from([0, 1, 2, 3, 5, 8, X32_BIT, X32_BIT + 1, *ARCHITECTURES_TOLD_APART])
    instructions = [(LOAD, 0, 0, draw(loads))]
    while len(instructions) < count - 1:
        left = count - len(instructions) - 2
        code = draw(st.sampled_from([LOAD, LOAD, AND, JUMP, RETURN, *JUMPS, *JUMPS]))
        yes, no = draw(st.integers(0, min(left, 9))), draw(st.integers(0, min(left, 9)))
        if code == JUMP:
            instructions.append((code, 0, 0, yes))
        elif code in JUMPS:
            instructions.append((code, yes, no, draw(operands)))
        else:
            instructions.append((code, 0, 0, draw(loads if code == LOAD else operands)))
    instructions.append((RETURN, 0, 0, draw(operands)))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


NUMBERS = (*range(7), 8, 9, *(X32_BIT + near for near in range(-1, 3)), 2 * X32_BIT, 3 * X32_BIT, 2**32 - 1)


@given(programs(), st.lists(st.tuples(*(st.sampled_from(NUMBERS),) * 2), min_size=1, max_size=4))
def test_a_shorter_program_for_any_program(program: bytes, asked: list[tuple[int, ...]]) -> None:
    short = shrinking.shrunk(program)
    assert len(short) <= len(program)
    for architecture in (*ARCHITECTURES_TOLD_APART, 0, 1):
        for number in NUMBERS:
            for arguments in asked:
                expected = interpret(program, architecture, number, arguments)
                assert interpret(short, architecture, number, arguments) == expected


@pytest.mark.parametrize("count", [100, 180, 2000])
def test_a_shorter_program_jumps_over_more_than_an_instruction_can(count: int) -> None:
    """A search among so many ranges, each with an answer of its own, and others behind them all."""
    lines = [struct.pack("=HBBI", LOAD, 0, 0, 0)]
    for number in range(count):
        lines.append(struct.pack("=HBBI", 0x15, 0, 1, 3 * number))
        lines.append(struct.pack("=HBBI", RETURN, 0, 0, kernel.ERRNO | number))
        lines += [struct.pack("=HBBI", 0x15, 0, 0, 3 * number)] * 3  # which does nothing
    program = b"".join([*lines, struct.pack("=HBBI", RETURN, 0, 0, kernel.ALLOW)])
    short = shrinking.shrunk(program)
    if count < 2000:  # there are too many ways to follow
        assert len(short) < len(program)
    for number in (0, 1, 3, 3 * (count // 2), 3 * (count // 2) + 1, 3 * count - 3, 3 * count):
        assert interpret(short, X86_64, number, ()) == interpret(program, X86_64, number, ())
