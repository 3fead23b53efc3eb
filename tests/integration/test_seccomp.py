"""Which system calls a command may make: Docker's profile by default, what capabilities add, ``--security-opt``.

A call is refused by the filter if it fails where without one it fails differently, or works.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import mydocker
from mydocker.linux import libseccomp

Run = Callable[..., CompletedProcess[str]]

#: Make one system call by its number: prints its errno, or 0.
CALL = (
    "import ctypes, sys\n"
    "arguments = [int(word, 0) for word in sys.argv[1:]]\n"
    "libc = ctypes.CDLL(None, use_errno=True)\n"
    "result = libc.syscall(*map(ctypes.c_long, arguments))\n"
    "print(ctypes.get_errno() if result == -1 else 0)\n"
)

CLONE_NEWUSER, SIGCHLD = 0x10000000, 17
UNCONFINED = ("--security-opt", "seccomp=unconfined")


def number(call: str) -> int:
    found = libseccomp.resolve(call)
    assert found >= 0, f"{call} has no number here"
    return found


@pytest.fixture
def outcome(run: Run) -> Callable[..., int]:
    """The errno that a system call ends with in a container with these options; 0 for none."""

    def make(call: str, arguments: tuple[int, ...] = (), options: tuple[str, ...] = ()) -> int:
        words = [str(number(call)), *map(str, arguments)]
        result = run(*options, sys.executable, "-c", CALL, *words)
        assert result.returncode == 0, result.stderr
        return int(result.stdout)

    return make


def test_a_command_is_filtered(run: Run) -> None:
    shown = run("grep", "-E", "^(NoNewPrivs|Seccomp|Seccomp_filters)", "/proc/self/status").stdout
    assert shown.split() == ["NoNewPrivs:", "1", "Seccomp:", "2", "Seccomp_filters:", "1"]


def test_so_is_the_reaper_of_init(run: Run) -> None:
    assert "Seccomp:\t2\n" in run("--init", "cat", "/proc/1/status").stdout
    assert run("--init", "sh", "-c", "sleep 0.01 & exit 3").returncode == 3


@pytest.mark.parametrize(
    ("call", "arguments", "expected", "unfiltered"),
    [
        ("keyctl", (0, -3, 0), errno.EPERM, 0),  # KEYCTL_GET_KEYRING_ID of the session's
        ("add_key", (0, 0, 0, 0, 0), errno.EPERM, errno.EFAULT),
        ("unshare", (CLONE_NEWUSER,), errno.EPERM, 0),
        ("clone", (CLONE_NEWUSER | SIGCHLD, -1), errno.EPERM, None),
        ("mount", (0, 0, 0, 0, 0), errno.EPERM, errno.EFAULT),
        ("bpf", (-1, 0, 0), errno.EPERM, errno.EINVAL),
        ("kexec_load", (0, 1 << 20, 0, 0), errno.EPERM, errno.EPERM),
        ("clone3", (0, 0), errno.ENOSYS, errno.EINVAL),
        ("personality", (0x0040000,), errno.EPERM, 0),  # ADDR_NO_RANDOMIZE
        ("personality", (0x8,), 0, 0),
        ("personality", (0xFFFFFFFF,), 0, 0),
        ("socket", (40, 1, 0), errno.EPERM, None),  # AF_VSOCK
        ("socket", (38, 5, 0), errno.EPERM, None),  # AF_ALG, CVE-2026-31431
        ("socket", (1, 1, 0), 0, 0),
        ("io_uring_setup", (0, 0), errno.EPERM, None),
        ("userfaultfd", (-1,), errno.EPERM, errno.EINVAL),
        ("ptrace", (16, 999999), errno.ESRCH, errno.ESRCH),  # PTRACE_ATTACH of nobody: allowed since Linux 4.8
        ("pidfd_getfd", (-1, 0, 0), errno.EPERM, errno.EBADF),
        ("open_by_handle_at", (-1, 0, 0), errno.EPERM, None),
        ("setns", (-1, 0), errno.EPERM, errno.EBADF),
        ("umount2", (0, 0), errno.EPERM, errno.EFAULT),
        ("swapoff", (0,), errno.EPERM, errno.EPERM),
    ],
)
def test_the_default_profile(
    outcome: Callable[..., int], call: str, arguments: tuple[int, ...], expected: int, unfiltered: int | None
) -> None:
    assert outcome(call, arguments) == expected
    if unfiltered is not None and unfiltered != expected:
        assert outcome(call, arguments, (*UNCONFINED, "--cap-add", "SYS_ADMIN")) == unfiltered


def test_a_newer_system_call_does_not_exist(outcome: Callable[..., int], run: Run) -> None:
    """One that the profile knows nothing of, whether or not this kernel has it."""
    newest = max(number(call) for call in ("futex_waitv", "process_mrelease"))
    result = run(sys.executable, "-c", CALL, str(newest + 150))
    assert int(result.stdout) == errno.ENOSYS


@pytest.mark.parametrize(
    ("capability", "call", "arguments", "reached"),
    [
        ("SYS_ADMIN", "unshare", (CLONE_NEWUSER,), 0),
        ("SYS_ADMIN", "mount", (0, 0, 0, 0, 0), errno.EFAULT),
        ("SYS_ADMIN", "bpf", (-1, 0, 0), errno.EINVAL),
        ("SYS_ADMIN", "clone3", (0, 0), errno.EINVAL),
        ("SYS_ADMIN", "setns", (-1, 0), errno.EBADF),
        ("SYS_PTRACE", "pidfd_getfd", (-1, 0, 0), errno.EBADF),
        ("BPF", "bpf", (-1, 0, 0), errno.EINVAL),
        ("SYS_TIME", "clock_settime", (-1, 0), errno.EFAULT),
        ("SYS_NICE", "set_mempolicy", (-1, 0, 0), errno.EINVAL),
        ("SYSLOG", "syslog", (99, 0, 0), errno.EINVAL),
    ],
)
def test_a_capability_lets_its_system_calls_through(
    outcome: Callable[..., int], capability: str, call: str, arguments: tuple[int, ...], reached: int
) -> None:
    assert outcome(call, arguments) in (errno.EPERM, errno.ENOSYS)
    assert outcome(call, arguments, ("--cap-add", capability)) == reached
    assert outcome(call, arguments, ("--cap-add", "ALL", "--cap-drop", capability)) in (
        *((errno.EPERM, errno.ENOSYS) if call != "bpf" else ()),
        *((reached,) if call in ("bpf", "syslog") else ()),  # another capability has it, too
    )


def test_a_dropped_capability_takes_its_system_calls_along(run: Run) -> None:
    """Not only the right to do it: the kernel looks at the path first, and says that it is not there."""
    script = "import os\ntry: os.chroot('/no/such')\nexcept OSError as e: print(e.errno)"
    assert int(run(sys.executable, "-c", script).stdout) == errno.ENOENT
    assert int(run("--cap-drop", "SYS_CHROOT", sys.executable, "-c", script).stdout) == errno.EPERM


def test_unconfined_and_privileged_take_the_filter_away(run: Run) -> None:
    for options in (UNCONFINED, ("--privileged",)):
        assert "Seccomp:\t0\n" in run(*options, "cat", "/proc/self/status").stdout
    shown = run("--privileged", "cat", "/proc/self/status").stdout
    assert "NoNewPrivs:\t0\n" in shown


def write(path: Path, profile: Any) -> str:
    path.write_text(profile if isinstance(profile, str) else json.dumps(profile))
    return f"seccomp={path}"


NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}],
}


def test_a_profile_of_ones_own(run: Run, tmp_path: Path) -> None:
    option = write(tmp_path / "profile.json", NO_MKDIR)
    for options in ([], ["--privileged"], ["--init"], ["--security-opt", "no-new-privileges=false"]):
        result = run(*options, "--security-opt", option, "mkdir", tmp_path / "made")
        assert (result.returncode, os.strerror(errno.EXDEV) in result.stderr) == (1, True), result.stderr
    assert not (tmp_path / "made").exists()
    assert run("--security-opt", option, "unshare", "-U", "true").returncode == 0  # it does not add to the default one


def test_a_relative_path_and_the_name_of_the_default(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "profile.json", NO_MKDIR)
    assert run("--security-opt", "seccomp=profile.json", "mkdir", tmp_path / "x", cwd=tmp_path).returncode == 1
    assert run("--security-opt", "seccomp=builtin", "unshare", "-U", "true").returncode == 1


def test_conditions_on_capabilities(run: Run, tmp_path: Path) -> None:
    """A profile in Docker's form is resolved for each container."""
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_TIME"]}}
    option = write(tmp_path / "profile.json", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    assert run("--security-opt", option, "mkdir", tmp_path / "a").returncode == 1
    assert run("--security-opt", option, "--cap-add", "SYS_TIME", "mkdir", tmp_path / "a").returncode == 0


def test_a_profile_that_kills(run: Run, tmp_path: Path) -> None:
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]
    option = write(tmp_path / "profile.json", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    assert run("--security-opt", option, "sh", "-c", "mkdir x; echo $?").stdout == "159\n"  # 128 + SIGSYS


def test_a_profile_that_refuses_the_execution_itself(run: Run, tmp_path: Path) -> None:
    rules = [{"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}]
    option = write(tmp_path / "profile.json", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    result = run("--security-opt", option, "true")
    assert (result.returncode, "Operation not permitted" in result.stderr) == (126, True), result.stderr


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("{", "it is not JSON"),
        ({"defaultAction": "SCMP_ACT_SPARE"}, 'unknown action "SCMP_ACT_SPARE"'),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY cannot be used as default action"),
    ],
)
def test_a_wrong_profile_is_named_and_nothing_runs(run: Run, tmp_path: Path, profile: Any, message: str) -> None:
    option = write(tmp_path / "profile.json", profile)
    result = run("--security-opt", option, "touch", tmp_path / "ran")
    assert result.returncode == 125
    assert f"the seccomp profile {tmp_path}/profile.json: {message}" in result.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("seccomp=/no/such/file", "cannot read the seccomp profile /no/such/file: No such file or directory"),
        ("systempaths=unconfined", '"systempaths" is not something that mydocker can set'),
        ("seccomp", '"seccomp" is not a security option: use seccomp=FILE'),
        ("no-new-privileges=maybe", '"no-new-privileges=maybe" is neither true nor false'),
        ("label=colour:red", '"label=colour:red" is not a label'),
    ],
)
def test_a_wrong_security_option_is_named(run: Run, option: str, message: str) -> None:
    result = run("--security-opt", option, "true")
    assert (result.returncode, message in result.stderr) == (125, True), result.stderr


@pytest.mark.skipif(os.path.exists("/sys/module/apparmor"), reason="this kernel has AppArmor")
def test_a_profile_of_apparmor_where_it_is_off(run: Run) -> None:
    result = run("--security-opt", "apparmor=docker-default", "true")
    expected = "the AppArmor profile docker-default cannot be applied: AppArmor is not in force on this host"
    assert (result.returncode, expected in result.stderr) == (125, True)
    assert run("--security-opt", "apparmor=unconfined", "true").returncode == 0


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="this kernel has SELinux")
def test_a_label_of_selinux_where_it_is_off(run: Run) -> None:
    result = run("--security-opt", "label=type:svirt_t", "--security-opt", "label=level:s0:c1,c2", "true")
    expected = "the SELinux label system_u:system_r:svirt_t:s0:c1,c2 cannot be applied: SELinux is not in force"
    assert (result.returncode, expected in result.stderr) == (125, True), result.stderr
    assert run("--security-opt", "label=disable", "true").returncode == 0


def test_no_new_privileges(run: Run, tmp_path: Path) -> None:
    """A set-uid program gives its owner's rights only where it is turned off; the filter holds either way."""
    setuid = Path("/usr/local/bin") / f"mydocker-test-id-{os.getpid()}"
    setuid.write_bytes(Path("/usr/bin/id").read_bytes())
    setuid.chmod(0o4755)
    try:
        user = ("-u", "12345", "-w", "/")
        assert run(*user, setuid, "-u").stdout == "12345\n"
        assert run(*user, "--security-opt", "no-new-privileges", setuid, "-u").stdout == "12345\n"
        off = ("--security-opt", "no-new-privileges=false")
        assert run(*user, *off, setuid, "-u").stdout == "0\n"
        assert run(*user, *off, "unshare", "-U", "true").returncode == 1
        assert "NoNewPrivs:\t1\n" in run("--privileged", "--security-opt", "no-new-privileges", "cat", STATUS).stdout
    finally:
        setuid.unlink()


STATUS = "/proc/self/status"


def test_from_python(tmp_path: Path) -> None:
    def seccomp_of(**keywords: Any) -> str:
        result = mydocker.run(["grep", "^Seccomp:", STATUS], capture_output=True, text=True, **keywords)
        return str(result.stdout).split()[-1]

    assert [seccomp_of(), seccomp_of(seccomp="unconfined"), seccomp_of(privileged=True)] == ["2", "0", "0"]
    made = tmp_path / "made"
    for profile in (NO_MKDIR, tmp_path / "profile.json"):
        write(tmp_path / "profile.json", NO_MKDIR)
        assert mydocker.run(["mkdir", made], seccomp=profile, stderr=subprocess.DEVNULL).exit_code == 1
    assert mydocker.run(["true"], no_new_privileges=False).exit_code == 0
    with pytest.raises(mydocker.UsageError, match="unknown action"):
        mydocker.run(["true"], seccomp={"defaultAction": "no"})


def test_the_runtimes_own_system_calls_come_before_the_filter(run: Run, tmp_path: Path) -> None:
    """With no_new_privs nothing but the execution is left to do."""
    needed = (
        "execve brk mmap mprotect munmap openat read close fstat newfstatat pread64 arch_prctl set_tid_address "
        "set_robust_list rseq prlimit64 getrandom access write exit_group futex readlink statfs lseek"
    ).split()
    rules = [{"names": needed, "action": "SCMP_ACT_ALLOW"}]
    option = write(tmp_path / "profile.json", {"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": rules})
    result = run("--security-opt", option, "-m", "20m", "echo", "hello")
    assert (result.returncode, result.stdout) == (0, "hello\n"), result.stderr


def test_the_number_of_a_call_is_not_the_only_thing_that_is_looked_at() -> None:
    """The tests above tell a refusal of the filter from one of the kernel: so these must differ here, unfiltered."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(number("setns"), -1, 0) == -1
    assert ctypes.get_errno() == errno.EBADF
