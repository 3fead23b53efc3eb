"""``linux.seccomp`` of config.json: actions, conditions, flags, and the agent of ``SCMP_ACT_NOTIFY``; beside runc."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker.linux.capabilities import NAMES
from mydocker.seccomp import listener

PATIENCE = 60

# linux/seccomp.h: struct seccomp_notif has 80 bytes, struct seccomp_notif_resp 24.
RECEIVE, ANSWER = 0xC0502100, 0xC0182101
CONTINUE = 1


def allowing(*rules: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **others}


def rule(names: str, action: str, *conditions: tuple[Any, ...], **others: Any) -> dict[str, Any]:
    keys = ("index", "op", "value", "valueTwo")
    args = [dict(zip(keys, condition, strict=False)) for condition in conditions]
    entry = {"names": names.split(), "action": f"SCMP_ACT_{action}", **others}
    return {**entry, "args": [{**arg, "op": f"SCMP_CMP_{arg['op']}"} for arg in args]} if args else entry


def refusing(**others: Any) -> dict[str, Any]:
    """Only what busybox needs, and with which both runtimes get to their end."""
    needed = (
        "access arch_prctl brk capget capset chdir clone close close_range dup dup2 dup3 epoll_create1 epoll_ctl "
        "epoll_pwait execve exit exit_group faccessat faccessat2 fchdir fcntl fstat fstatfs futex getcwd getdents64 "
        "getegid geteuid getgid getgroups getpgrp getpid getppid getrandom gettid getuid ioctl lseek lstat madvise "
        "mmap mprotect mremap munmap nanosleep newfstatat openat openat2 pipe2 poll ppoll prctl pread64 prlimit64 read "
        "readlink readlinkat rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield sendmsg "
        "set_robust_list set_tid_address setgid setgroups setresgid setresuid setsid setuid sigaltstack stat statfs "
        "statx tgkill umask uname unlinkat wait4 waitid write writev"
    )
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(needed, "ALLOW")], **others}


MKDIR = "mkdir /made; echo $?; ls -d /made"
UMASKS = "for m in 000 001 002 022 027 077 777; do umask $m 2>/dev/null; umask; done"

#: Profile and what the shell is to do under it. Both runtimes are to come to the same.
SAME_AS_RUNC: dict[str, tuple[dict[str, Any], str]] = {
    "errno": (allowing(rule("mkdir mkdirat", "ERRNO")), MKDIR),
    "errno by number": (allowing(rule("mkdir mkdirat", "ERRNO", errnoRet=errno.EXDEV)), MKDIR),
    "errno beyond the largest": (allowing(rule("mkdir mkdirat", "ERRNO", errnoRet=5000)), MKDIR),
    "kill": (allowing(rule("mkdir mkdirat", "KILL")), MKDIR),
    "kill thread": (allowing(rule("mkdir mkdirat", "KILL_THREAD")), MKDIR),
    "kill process": (allowing(rule("mkdir mkdirat", "KILL_PROCESS")), MKDIR),
    "trap": (allowing(rule("mkdir mkdirat", "TRAP")), MKDIR),
    "trace without a tracer": (allowing(rule("mkdir mkdirat", "TRACE", errnoRet=3)), MKDIR),
    "log": (allowing(rule("mkdir mkdirat", "LOG")), MKDIR),
    "allow": (allowing(rule("mkdir mkdirat", "ALLOW")), MKDIR),
    "default errno": (refusing(), MKDIR),
    "default errno by number": (refusing(defaultErrnoRet=errno.ENOSYS), MKDIR),
    "default log": ({"defaultAction": "SCMP_ACT_LOG", "syscalls": [rule("mkdir", "ERRNO")]}, MKDIR),
    "default trace": ({**refusing(), "defaultAction": "SCMP_ACT_TRACE"}, MKDIR),
    "no rules": ({"defaultAction": "SCMP_ACT_ALLOW"}, MKDIR),
    "a rule that changes nothing": (allowing(rule("mkdir", "ALLOW"), rule("rmdir", "ERRNO")), MKDIR),
    "unknown calls": (allowing(rule("no_such_call", "KILL"), rule("mkdir nor_this mkdirat", "ERRNO")), MKDIR),
    "other architectures": (
        allowing(rule("mkdir mkdirat", "ERRNO"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        MKDIR,
    ),
    "the native architecture is not named": (
        allowing(rule("mkdir mkdirat", "ERRNO"), architectures=["SCMP_ARCH_X86"]),
        MKDIR,
    ),
    "no flags": (allowing(rule("mkdir", "ERRNO"), flags=[]), MKDIR),
    "equal": (allowing(rule("umask", "ERRNO", (0, "EQ", 0o22))), UMASKS),
    "not equal": (allowing(rule("umask", "ERRNO", (0, "NE", 0o22))), UMASKS),
    "less": (allowing(rule("umask", "ERRNO", (0, "LT", 0o22))), UMASKS),
    "less or equal": (allowing(rule("umask", "ERRNO", (0, "LE", 0o22))), UMASKS),
    "greater": (allowing(rule("umask", "ERRNO", (0, "GT", 0o22))), UMASKS),
    "greater or equal": (allowing(rule("umask", "ERRNO", (0, "GE", 0o22))), UMASKS),
    "masked": (allowing(rule("umask", "ERRNO", (0, "MASKED_EQ", 0o7, 0o7))), UMASKS),
    "two conditions on one argument": (allowing(rule("umask", "ERRNO", (0, "EQ", 0o2), (0, "EQ", 0o27))), UMASKS),
    "conditions on two arguments": (allowing(rule("kill", "ERRNO", (0, "EQ", 1), (1, "EQ", 0))), "kill -0 1; echo $?"),
    "conditions on two arguments, one of which does not hold": (
        allowing(rule("kill", "ERRNO", (0, "EQ", 1), (1, "EQ", 9))),
        "kill -0 1; echo $?",
    ),
    "what the filter is": (
        allowing(rule("mkdir", "ERRNO")),
        "grep -E '^(Seccomp|NoNewPrivs|Speculation|Cap)' /proc/self/status",
    ),
}


@pytest.mark.parametrize("privileges", ["no new ones", "new ones"])
@pytest.mark.parametrize("case", SAME_AS_RUNC)
def test_it_is_as_with_runc(ours: Any, runc: Any, bundle: Any, cid: str, case: str, privileges: str) -> None:
    profile, script = SAME_AS_RUNC[case]
    outcomes = []
    for runtime in (runc, ours):
        made = bundle(
            *("sh", "-c", script), linux__seccomp=profile, process__noNewPrivileges=privileges == "no new ones"
        )
        done = runtime.run(made, cid)
        outcomes.append((done.returncode, done.stdout, words(done.stderr)))
    assert outcomes[0] == outcomes[1]


def words(stderr: str) -> list[str]:
    """What the command itself said."""
    return [line for line in stderr.splitlines() if "level=" not in line]


def test_a_filter_that_kills_by_default(ours: Any, bundle: Any, cid: str) -> None:
    """Of the runtime nothing comes after it but the execution, and without no_new_privs the loss of a capability."""
    needed = "execve brk mmap arch_prctl set_tid_address prctl getuid mprotect munmap write exit_group rseq prlimit64"
    needed += " set_robust_list readlinkat getrandom readlink newfstatat fstat ioctl"
    for privileges, names in ((True, needed), (False, f"{needed} capset")):
        profile = {"defaultAction": "SCMP_ACT_KILL", "syscalls": [rule(names, "ALLOW")]}
        made = bundle("echo", "hello", linux__seccomp=profile, process__noNewPrivileges=privileges)
        done = ours.run(made, cid)
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"defaultAction": "SCMP_ACT_NOTHING"}, "SCMP_ACT_NOTHING"),
        (allowing(rule("mkdir", "NOTHING")), "SCMP_ACT_NOTHING"),
        (allowing(rule("mkdir", "ERRNO", (0, "ABOUT", 1))), "SCMP_CMP_ABOUT"),
        (allowing(rule("mkdir", "ERRNO", (7, "EQ", 1))), "index"),
        (allowing(rule("mkdir", "KILL", errnoRet=1)), "errno"),
        (allowing(architectures=["SCMP_ARCH_PDP11"]), "SCMP_ARCH_PDP11"),
        (allowing(flags=["SECCOMP_FILTER_FLAG_NONE"]), "SECCOMP_FILTER_FLAG_NONE"),
        ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}, "SCMP_ACT_NOTIFY cannot be"),
        (allowing(rule("write", "NOTIFY"), listenerPath="/x"), "SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        (allowing(rule("mkdir", "NOTIFY")), "listenerPath"),
        (allowing(listenerMetadata="x"), "listenerMetadata"),
        (allowing(flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    ours: Any, bundle: Any, cid: str, profile: dict[str, Any], message: str
) -> None:
    done = ours.create(bundle("true", linux__seccomp=profile), cid)
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert ours("state", cid).returncode == 1


class Agent:
    """What decides about system calls: each connection is a container's listener, whose calls it answers.

    ``errors`` has the errno for a system call by its number, 0 for "let it through", which others get as well.
    """

    def __init__(self, path: Path) -> None:
        self.states: list[dict[str, Any]] = []
        self.seen: list[int] = []
        self.errors: dict[int, int] = {}
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen()
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        os.close(self._ended)
        self._thread.join(PATIENCE)
        self._server.close()
        os.close(self._end)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLHUP | select.POLLIN)
        poll.register(self._server, select.POLLIN)
        listeners: set[int] = set()
        while True:
            for fd, event in poll.poll():
                if fd == self._end:
                    for listener in listeners:
                        os.close(listener)
                    return
                if fd == self._server.fileno():
                    listener = self._accept()
                    listeners.add(listener)
                    poll.register(listener, select.POLLIN)
                elif event & select.POLLIN:
                    self._answer(fd)
                else:
                    poll.unregister(fd)
                    listeners.remove(fd)
                    os.close(fd)

    def _accept(self) -> int:
        connection, _ = self._server.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 4)
            while more := connection.recv(1 << 16):
                data += more
        self.states.append(json.loads(data))
        assert len(fds) == len(self.states[-1]["fds"]) == 1
        return fds[0]

    def _answer(self, listener: int) -> None:
        notice = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, notice)
            identity, _, _, number = struct.unpack_from("=QIIi", notice)
            self.seen.append(number)
            error = self.errors.get(number, 0)
            answer = struct.pack("=QqiI", identity, 0, -error, 0 if error else CONTINUE)
            fcntl.ioctl(listener, ANSWER, bytearray(answer))
        except FileNotFoundError:
            pass  # it was killed meanwhile


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """It listens at ``agent.sock`` in the test's directory."""
    made = Agent(tmp_path / "agent.sock")
    yield made
    made.close()


MKDIR_CALLS = {83: "mkdir", 258: "mkdirat"}
on_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")


@pytest.fixture
def asks(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A profile in which the agent decides about these system calls."""

    def profile(names: str = "mkdir mkdirat", **others: Any) -> dict[str, Any]:
        entry = {"listenerPath": str(tmp_path / "agent.sock"), "listenerMetadata": "what the agent knows it by"}
        return allowing(rule(names, "NOTIFY"), **{**entry, **others})

    return profile


@on_x86_64
@pytest.mark.parametrize("privileges", [True, False], ids=["no_new_privs", "without"])
def test_an_agent_decides(ours: Any, bundle: Any, cid: str, agent: Agent, asks: Any, privileges: bool) -> None:
    agent.errors = dict.fromkeys(MKDIR_CALLS, errno.EXDEV)
    made = bundle(
        *("sh", "-c", MKDIR),
        linux__seccomp=asks(),
        annotations={"key": "value"},
        process__noNewPrivileges=privileges,
    )
    done = ours.run(made, cid)
    assert (done.stdout, os.strerror(errno.EXDEV).lower() in done.stderr.lower()) == ("1\n", True), done.stderr
    assert agent.seen
    (state,) = agent.states
    assert state["fds"] == ["seccompFd"]
    assert state["metadata"] == "what the agent knows it by"
    assert state["pid"] == state["state"]["pid"] > 1
    assert state["state"]["id"] == cid
    assert state["state"]["bundle"] == str(made)
    assert state["state"]["annotations"] == {"key": "value"}
    assert state["state"]["status"] in ("creating", "created")
    assert state["ociVersion"] == state["state"]["ociVersion"]


@on_x86_64
def test_an_agent_lets_through(ours: Any, bundle: Any, cid: str, agent: Agent, asks: Any) -> None:
    done = ours.run(bundle("sh", "-c", MKDIR, linux__seccomp=asks()), cid)
    assert (done.stdout, done.returncode) == ("0\n/made\n", 0), done.stderr
    assert agent.seen


@on_x86_64
@pytest.mark.parametrize("names", ["read close fcntl", "sendmsg mmap brk", "execve"])
def test_calls_of_the_runtime_itself_may_be_the_agents(
    ours: Any, bundle: Any, cid: str, agent: Agent, asks: Any, names: str
) -> None:
    """It has the listener before the process makes one."""
    done = ours.run(bundle("echo", "hello", linux__seccomp=asks(names)), cid, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr
    if names == "execve":
        assert agent.seen == [59]


@on_x86_64
@pytest.mark.parametrize("names", ["mkdir mkdirat", "mkdir mkdirat sendmsg read"])
def test_exec_has_a_listener_of_its_own(
    ours: Any, bundle: Any, cid: str, agent: Agent, asks: Any, names: str
) -> None:
    assert ours.create(bundle("sleep", "100", linux__seccomp=asks(names)), cid).returncode == 0
    assert ours("start", cid).returncode == 0
    agent.errors = dict.fromkeys(MKDIR_CALLS, errno.ENOSPC)
    done = ours("exec", cid, "sh", "-c", MKDIR)
    assert (done.stdout, os.strerror(errno.ENOSPC).lower() in done.stderr.lower()) == ("1\n", True), done.stderr
    first, second = agent.states
    assert first["pid"] == first["state"]["pid"] == second["state"]["pid"]
    assert second["pid"] != first["pid"]
    assert second["state"]["status"] == "running"


@pytest.mark.parametrize("privileges", [True, False], ids=["no_new_privs", "without"])
def test_without_the_agent_nothing_runs(
    ours: Any, bundle: Any, cid: str, asks: Any, tmp_path: Path, privileges: bool
) -> None:
    profile = asks(listenerPath=str(tmp_path / "nobody.sock"))
    made = bundle("touch", "/ran", linux__seccomp=profile, process__noNewPrivileges=privileges)
    done = ours.run(made, cid)
    assert done.returncode != 0
    assert "failed to connect with seccomp agent" in done.stderr
    assert f"{tmp_path}/nobody.sock: no such file or directory" in done.stderr
    assert not (made / "rootfs/ran").exists()
    assert ours("delete", "--force", cid).returncode == 0


def test_a_path_that_nobody_uses_is_ignored(ours: Any, bundle: Any, cid: str, tmp_path: Path) -> None:
    profile = allowing(rule("mkdir", "ERRNO"), listenerPath=str(tmp_path / "nobody.sock"))
    assert ours.run(bundle("true", linux__seccomp=profile), cid).returncode == 0


@on_x86_64
def test_flags_reach_the_kernel(bundle: Any, cid: str, ours: Any, agent: Agent, asks: Any, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    names = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")]
    made = bundle("true", linux__seccomp=asks(flags=names))
    trace = tmp_path / "trace"
    script = Path(sys.executable).with_name("mydocker-oci")
    command = ["strace", "-f", "-o", trace, "-e", "trace=seccomp", script, "--root", ours.root, "run"]
    assert subprocess.run([*command, "--bundle", made, cid], timeout=PATIENCE, check=False).returncode == 0
    lines = [line for line in trace.read_text().splitlines() if "SECCOMP_SET_MODE_FILTER" in line and "len=" in line]
    (loaded,) = (line.split(", ")[1] for line in lines)
    assert set(loaded.split("|")) >= {*names, "SECCOMP_FILTER_FLAG_NEW_LISTENER"}


def start_hook(made: Path, script: str) -> None:
    config = json.loads((made / "config.json").read_text())
    config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    (made / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("privileges", [True, False], ids=["no_new_privs", "without"])
def test_hooks_inside_are_under_the_filter(ours: Any, bundle: Any, cid: str, privileges: bool) -> None:
    """They are programs of the container. The runtime's own calls around them are not."""
    profile = allowing(rule("mkdir mkdirat clone pidfd_open memfd_create", "KILL_PROCESS"))
    made = bundle("touch", "/ran", linux__seccomp=profile, process__noNewPrivileges=privileges)
    start_hook(made, "exec mkdir /made")
    done = ours.run(made, cid)
    assert "error running startContainer hook #0: /bin/sh: killed by signal 31 (bad system call)" in done.stderr
    assert not (made / "rootfs/made").exists()
    assert not (made / "rootfs/ran").exists()
    start_hook(made, "grep Cap /proc/self/status >/hook")
    assert ours.run(made, cid).returncode == 0
    assert (made / "rootfs/ran").exists()
    permitted = bundle.config()["process"]["capabilities"]["permitted"]
    mask = sum(1 << NAMES.index(name) for name in permitted)
    assert f"CapPrm:\t{mask:016x}\n" in (made / "rootfs/hook").read_text(), "nor have they more than the command"


@on_x86_64
def test_hooks_inside_ask_the_agent(ours: Any, bundle: Any, cid: str, agent: Agent, asks: Any) -> None:
    agent.errors = dict.fromkeys(MKDIR_CALLS, errno.EXDEV)
    made = bundle("mkdir", "/made", linux__seccomp=asks())
    start_hook(made, "mkdir /by-hook 2>/said; true")
    assert ours.run(made, cid).returncode == 1
    assert os.strerror(errno.EXDEV) in (made / "rootfs/said").read_text()
    assert len(agent.states) == 1
    assert len(agent.seen) == 2


def test_an_agent_may_go_when_it_has_the_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all by one message, and closes its end before the sender is at its own."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "agent.sock"))
    server.listen()
    send_fds = socket.send_fds

    def and_be_left(sock: socket.socket, *others: Any) -> int:
        sent = send_fds(sock, *others)
        connection, _ = server.accept()
        with connection:
            os.close(socket.recv_fds(connection, 1 << 16, 1)[1][0])
        return sent

    monkeypatch.setattr(socket, "send_fds", and_be_left)
    with server, open("/dev/null") as file:
        listener.send(str(tmp_path / "agent.sock"), "", file.fileno(), {"ociVersion": "1.2.0"}, 1)
