"""Containers that attack the runtime, or what it does for the next process.

Each test is an attack that has worked on some runtime, by the number it was given. Those that are made by the rootfs
and its mounts are in test_mount_attacks.py.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: What gives a container as much as it can have without the initial namespaces: the attacks below have it all.
EVERYTHING = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL MKNOD SETFCAP SETGID SETPCAP SETUID SYS_ADMIN "
        "SYS_CHROOT SYS_PTRACE"
    ).split()
]

#: Seconds for what a container does by itself.
PATIENCE = 30


def sets(capabilities: list[str]) -> dict[str, list[str]]:
    return {kind: list(capabilities) for kind in ("bounding", "effective", "permitted")}


def say(script: str) -> tuple[str, str, str]:
    return ("sh", "-c", script)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's that only its root may read and write."""
    path = tmp_path / "outside" / "secret"
    path.parent.mkdir()
    path.write_text("of the host\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def start(ours: Any, cid: str) -> Callable[[Path], str]:
    """Run a bundle's command: the container's id."""

    def run(made: Path) -> str:
        for done in (ours.create(made, cid), ours("start", cid)):
            assert done.returncode == 0, done.stderr
        return cid

    return run


@pytest.fixture
def prepared(start: Callable[[Path], str]) -> Callable[[Path], str]:
    """The same, when the command has said by the file ``/tmp/done`` that it has got everything ready."""

    def run(made: Path) -> str:
        name = start(made)
        end = time.monotonic() + PATIENCE
        while not (made / "rootfs/tmp/done").exists():
            assert time.monotonic() < end, "the attack was not prepared"
            time.sleep(0.01)
        return name

    return run


def with_directory(runtime: Any, directory: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A call by somebody who has descriptor 3 open, on a directory of the host."""
    command = ["sh", "-c", f'exec 3<"{directory}"; exec "$@"', "sh", *runtime.command, "--root", runtime.root, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class TestLeakedDescriptors:
    """CVE-2024-21626: a directory of the host that a process in the container has open, as its working directory.

    The command itself is given the descriptor here, so that it is there for certain.
    """

    CWDS = ("/proc/self/fd/3", "/proc/self/../self/fd/3", "/proc/1/fd/3", "/dev/fd/3", "/link", "/link/.")

    @pytest.mark.parametrize("cwd", CWDS)
    @pytest.mark.parametrize("user", [0, 1000])
    def test_of_the_first_process(self, user: int, cwd: str, ours: Any, bundle: Any, cid: str, secret: Path) -> None:
        made = bundle("ls", "-a", process__cwd=cwd, process__user={"uid": user, "gid": user})
        (made / "rootfs/link").symlink_to("/proc/self/fd/3")
        secret.parent.chmod(0o755)
        done = with_directory(ours, secret.parent, "run", "--preserve-fds", "1", "--bundle", made, cid)
        assert done.returncode == 1
        assert done.stdout == ""

    @pytest.mark.parametrize("cwd", [cwd for cwd in CWDS if "/1/" not in cwd])
    def test_of_exec(self, cwd: str, ours: Any, bundle: Any, start: Callable[[Path], str], secret: Path) -> None:
        made = bundle("sleep", "1000")
        (made / "rootfs/link").symlink_to("/proc/self/fd/3")
        name = start(made)
        done = with_directory(ours, secret.parent, "exec", "--preserve-fds", "1", "--cwd", cwd, name, "ls", "-a")
        assert done.returncode == 255
        assert done.stdout == ""
        assert "current working directory is outside of container" in done.stderr


class TestProcessesOfTheRuntime:
    """CVE-2019-5736, CVE-2016-9962: what becomes the command is, until then, a copy of the runtime."""

    #: Look at each process, and for each thing that can be reached through it at whether it can be opened for writing.
    LOOK = """
    for process in /proc/[0-9]*; do
        test $process = /proc/$$ && continue
        for name in exe fd/0 fd/1 fd/2 fd/3 fd/4 fd/5 fd/6 fd/7 fd/8 fd/9 fd/10 fd/11 fd/12 fd/13 fd/14 fd/15; do
            target=$(readlink $process/$name) || continue
            if (: <> $process/$name) 2> /dev/null; then echo "writable $target"; else echo "seen $target"; fi
        done
        for directory in root cwd; do
            test -e $process/$directory/@ && echo "reached the host by $process/$directory"
        done
        for number in 3 4 5 6 7 8 9 10 11 12 13 14 15; do
            for up in /. /.. /../.. /../../.. /../../../..; do
                test -e $process/fd/$number$up/@ && echo "reached the host by $process/fd/$number$up"
            done
        done
        tr '\\0' '\\n' < $process/environ | grep SECRET
    done 2> /dev/null
    """

    @pytest.mark.parametrize("capabilities", [None, ["CAP_SYS_PTRACE"], EVERYTHING], ids=["equal", "ptrace", "many"])
    def test_one_that_waits_in_a_shared_pid_namespace(
        self, capabilities: list[str] | None, ours: Any, bundle: Any, cid: str, secret: Path
    ) -> None:
        """Even who may trace it finds nothing of the host that he could write to."""
        waiting = f"{cid}-waiting"
        made = bundle("sleep", "1000", linux__cgroupsPath=f"{cid}-waiting")
        assert ours.create(made, waiting).returncode == 0
        pid = ours.state(waiting)["pid"]
        config = bundle.config(*say(self.LOOK.replace("@", str(secret).lstrip("/"))))
        (entry,) = (entry for entry in config["linux"]["namespaces"] if entry["type"] == "pid")
        entry["path"] = f"/proc/{pid}/ns/pid"
        if capabilities is not None:
            config["process"]["capabilities"] = sets(capabilities)
        done = ours.run(bundle(config=config), cid)
        assert ours.state(waiting)["status"] == "created"
        ours("delete", "--force", waiting)
        lines = set(done.stdout.splitlines())
        if capabilities is None:
            assert lines == set()
            return
        assert any(line.startswith("seen /memfd:mydocker") for line in lines), done
        files = {line for line in lines if not line.startswith(("seen pipe:", "writable pipe:", "seen socket:"))}
        names = {line.split("/")[-1] for line in files if line.startswith("writable ")}
        assert names <= {"null", "waiting", "create.stderr"}, (
            "more than what it was given, and a file with nothing in it"
        )
        assert not [line for line in lines if line.startswith("reached")]

    @pytest.mark.parametrize("capabilities", [[], ["CAP_SYS_PTRACE"]], ids=["none", "ptrace"])
    def test_one_that_execs(
        self, capabilities: list[str], ours: Any, bundle: Any, start: Callable[[Path], str], secret: Path
    ) -> None:
        look = self.LOOK.replace("@", str(secret).lstrip("/"))
        look = look.replace("test $process =", "test $process = /proc/1 -o $process =")
        made = bundle(*say(f"while :; do {look} done >> /tmp/seen"), process__capabilities=sets(capabilities))
        name = start(made)
        end = time.monotonic() + PATIENCE
        met = False
        while not met and time.monotonic() < end:
            done = ours("exec", name, "true", env={**os.environ, "SECRET": "of the host"})
            assert done.returncode == 0, done.stderr
            seen = (made / "rootfs/tmp/seen").read_text(errors="replace").splitlines()
            met = any("/memfd:mydocker" in line for line in seen)
            if not capabilities:
                end = min(end, time.monotonic() + 1)
        assert met is bool(capabilities), "the spy has not met it, or has seen what it may not"
        assert not [line for line in seen if line.startswith("reached")]
        names = {line.split("/")[-1] for line in seen if line.startswith("writable /")}
        assert names <= {"null", "busybox"}


class TestCapabilities:
    STATUS = "grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status"

    def test_none_is_inheritable_unless_that_is_asked(
        self, ours: Any, bundle: Any, start: Callable[[Path], str]
    ) -> None:
        """CVE-2022-24769, CVE-2022-29162: a file's inheritable ones would give them to whoever is not root."""
        name = start(bundle("sleep", "1000"))
        for options in ([], ["--user", "1000:1000"], ["--cap", "CAP_SYS_PTRACE"]):
            done = ours("exec", *options, name, *say(self.STATUS))
            shown = dict(line.split(":\t") for line in done.stdout.splitlines())
            assert shown["CapInh"] == shown["CapAmb"] == "0" * 16
            assert shown["NoNewPrivs"] == "1"
            assert shown["Groups"].split() in ([], ["0"], ["1000"])

    def test_those_of_the_caller_do_not_come_in(self, ours: Any, bundle: Any, cid: str) -> None:
        """A service manager may have given the engine inheritable and ambient ones, and groups."""
        made = bundle(*say(self.STATUS), process__user={"uid": 1000, "gid": 1000}, process__noNewPrivileges=False)
        caller = type(ours)(
            ["setpriv", "--inh-caps=+chown,+kill", "--ambient-caps=+chown,+kill", "--groups=4,27", *ours.command],
            ours.root,
        )
        done = caller.run(made, cid)
        assert done.returncode == 0, done.stderr
        shown = dict(line.split(":\t") for line in done.stdout.splitlines())
        assert shown["CapInh"] == shown["CapAmb"] == shown["CapPrm"] == shown["CapEff"] == "0" * 16
        assert shown["Groups"].split() in ([], ["1000"])

    @pytest.mark.parametrize("no_new_privs", [True, False])
    def test_a_set_uid_program(self, no_new_privs: bool, ours: Any, bundle: Any, cid: str) -> None:
        """It gains nothing with no_new_privs, and without that what the bounding set leaves."""
        made = bundle(
            *("/suid/busybox", "cat", "/own"),
            process__user={"uid": 1000, "gid": 1000},
            process__noNewPrivileges=no_new_privs,
        )
        root = made / "rootfs"
        (root / "suid").mkdir()
        (root / "suid/busybox").write_bytes((root / "bin/busybox").read_bytes())
        (root / "suid/busybox").chmod(0o4755)
        (root / "own").write_text("of root\n")
        (root / "own").chmod(0o600)
        config = "[SUID]\ncat = ssx root.root\n"  # else busybox itself drops what it has gained (its busybox.conf)
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/busybox.conf").write_text(config)
        done = ours.run(made, cid)
        assert ("of root" in done.stdout) is not no_new_privs, done.stderr


class TestCgroups:
    """CVE-2022-0492: a release_agent is executed by the kernel, with all rights, on the host."""

    ATTACK = """
    find /sys/fs/cgroup -name release_agent | while read file; do
        echo found $file
        (echo /tmp/agent > $file) 2> /dev/null && echo "set $file"
    done
    mkdir /tmp/v1
    for controller in memory cpu pids rdma misc name=own; do
        mount -t cgroup -o $controller cgroup /tmp/v1 2> /dev/null && echo "mounted $controller"
    done
    unshare -UrmC sh -c 'mount -t cgroup -o rdma cgroup /tmp/v1' 2> /dev/null && echo "mounted in a namespace"
    for directory in $(find /sys/fs/cgroup -type d); do
        mkdir $directory/own 2> /dev/null && echo "made $directory/own"
    done
    mount -o remount,rw /sys/fs/cgroup 2> /dev/null && echo remounted
    echo end
    """

    def test_release_agent(self, ours: Any, bundle: Any, cid: str) -> None:
        config = bundle.config(*say(self.ATTACK))
        config["mounts"].append(
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}
        )
        config["linux"]["namespaces"].append({"type": "cgroup"})
        done = ours.run(bundle(config=config), cid)
        attempts = [line for line in done.stdout.splitlines() if not line.startswith("found")]
        assert attempts == ["end"], done.stderr


class TestWritesToProc:
    """CVE-2025-52881, CVE-2019-16884: a write to /proc that the container leads to a file of its choosing."""

    def test_sysctls_go_where_they_belong(self, ours: Any, bundle: Any, cid: str) -> None:
        """What looks like /proc is a directory of the rootfs; the real one is elsewhere."""
        config = bundle.config("cat", "/proc/sys/kernel/msgmax", "/real/sys/kernel/msgmax")
        for entry in config["mounts"]:
            if entry["destination"] == "/proc":
                entry["destination"] = "/real"
        config["linux"]["sysctl"] = {"kernel.msgmax": "4321"}
        made = bundle(config=config)
        fake = made / "rootfs/proc/sys/kernel"
        fake.mkdir(parents=True)
        (fake / "msgmax").write_text("untouched\n")
        done = ours.run(made, cid)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "untouched\n4321\n"

    FAKE = """
    mkdir /tmp/fake && cd /tmp/fake && mkdir -p self/attr/apparmor thread-self/attr 1 sys && ln -s / self/root
    for file in self/attr/exec self/attr/apparmor/exec thread-self/attr/exec 1/oom_score_adj self/oom_score_adj \
            self/maps self/stat self/mountinfo self/status; do
        echo untouched > $file
    done
    for number in $(seq 2 99); do mkdir -p $number; echo untouched > $number/oom_score_adj; done
    ln -s /tmp/fake/self/fd self/fd
    mount --bind /tmp/fake /proc && echo done > /tmp/done
    sleep 1000
    """

    def test_exec_into_a_container_with_a_proc_of_its_own_making(
        self, ours: Any, bundle: Any, prepared: Callable[[Path], str], tmp_path: Path
    ) -> None:
        config = bundle.config(*say(self.FAKE))
        config["process"]["capabilities"] = sets(EVERYTHING)
        made = bundle(config=config)
        name = prepared(made)
        process = {
            "args": list(say("umount /proc; cat /proc/self/oom_score_adj")),
            "cwd": "/",
            "env": ["PATH=/bin"],
            "oomScoreAdj": 777,
            "user": {"uid": 0, "gid": 0},
            "capabilities": sets(["CAP_SYS_ADMIN"]),
        }
        (tmp_path / "process.json").write_text(json.dumps(process))
        done = ours("exec", "--process", tmp_path / "process.json", name)
        assert (done.stdout, done.stderr) == ("777\n", "")
        for path in (made / "rootfs/tmp/fake").rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert path.read_text() == "untouched\n", path


#: One whose descriptors of any process are to be waited for.
FALSE_PROC = """
mount -t tmpfs tmpfs /proc; mkdir -p /proc/self/fd
for number in $(seq 3 30); do mkfifo /proc/self/fd/$number; done
"""


class TestExecIntoWhatTheContainerHasMade:
    @pytest.mark.parametrize(
        "attack",
        [
            "rm -f /etc/passwd; mkfifo /etc/passwd",
            "ln -sf @ /etc/passwd",
            "ln -sf /proc/self/fd/0 /etc/passwd",
            "ln -sf /dev/zero /etc/passwd",
            "mv /etc /etc2; ln -s ../../../../../..@/.. /etc",
            "mknod /tmp/zero c 1 5; ln -sf /tmp/zero /etc/passwd",
        ],
    )
    @pytest.mark.parametrize("proc", ["", FALSE_PROC], ids=["proc", "false proc"])
    def test_etc_passwd(
        self, proc: str, attack: str, ours: Any, bundle: Any, prepared: Callable[[Path], str], secret: Path
    ) -> None:
        """Nothing is waited for, nor read from the host: the home directory is the root."""
        secret.write_text("stolen:x:0:0:x:/stolen:/bin/sh\n")
        script = f"mkdir -p /etc; {attack}; {proc}\necho done > /tmp/done; sleep 1000".replace("@", str(secret))
        name = prepared(bundle(*say(script), process__capabilities=sets(EVERYTHING), process__env=["PATH=/bin"]))
        done = ours("exec", "--env", "HOME=", name, *say("echo $HOME"))
        assert done.returncode == 0, done.stderr
        assert done.stdout == "/\n"

    @pytest.mark.parametrize(
        "attack",
        [
            "ln -sf @ /bin/tool",
            "mkfifo /bin/tool; chmod 755 /bin/tool",
            "printf '#!/proc/self/exe\\n' > /bin/tool; chmod 755 /bin/tool",
            "printf '#!@\\n' > /bin/tool; chmod 755 /bin/tool",
            "mkdir /bin/tool",
            "ln -s tool /bin/tool",
        ],
    )
    def test_the_program_is_replaced(
        self, attack: str, ours: Any, bundle: Any, prepared: Callable[[Path], str], secret: Path
    ) -> None:
        """What is executed is the container's, or nothing."""
        secret.write_text("#!/bin/sh\necho of the host\n")
        secret.chmod(0o755)
        script = f"{attack}; echo done > /tmp/done; sleep 1000".replace("@", str(secret))
        name = prepared(bundle(*say(script)))
        done = ours("exec", name, "tool")
        assert done.returncode == 255
        assert "of the host" not in done.stdout


def test_terminal_of_exec_where_ptmx_was_exchanged(
    ours: Any, bundle: Any, prepared: Callable[[Path], str], secret: Path, tmp_path: Path
) -> None:
    """CVE-2025-52565: /dev/ptmx and /dev/console lead to files of the container's; the terminal is none of them."""
    script = (
        "rm -f /dev/ptmx /dev/console; echo untouched > /tmp/file; ln -s /tmp/file /dev/ptmx;"
        "ln -s /tmp/file /dev/console; echo done > /tmp/done; sleep 1000"
    )
    made = bundle(*say(script), process__capabilities=sets(EVERYTHING))
    name = prepared(made)
    command = " ".join(map(str, [*ours.command, "--root", ours.root, "exec", "--tty", name, "tty"]))
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60,
        check=False,
    )  # fmt: skip
    assert "/dev/pts/" in done.stdout, done  # behind what the terminal has echoed
    assert (made / "rootfs/tmp/file").read_text() == "untouched\n"


class TestSessionKeyring:
    """That of the caller may hold credentials."""

    #: Have a keyring of this name, and execute something.
    CALLER = """
import ctypes, os, sys
number = 250 if os.uname().machine == "x86_64" else 219
if ctypes.CDLL(None).syscall(number, 1, b"mydocker-test-of-the-caller") < 0:  # KEYCTL_JOIN_SESSION_KEYRING
    sys.exit("no keyrings")
os.execv(sys.argv[1], sys.argv[1:])
"""
    #: Who is not its owner sees a keyring only if he has it.
    USER = 1000

    @pytest.fixture
    def caller(self, ours: Any) -> Any:
        if not os.path.exists("/proc/keys"):
            pytest.skip("this kernel has no keyrings")
        return type(ours)([sys.executable, "-c", self.CALLER, *ours.command], ours.root)

    @pytest.mark.parametrize("options", [(), ("--no-new-keyring",)], ids=["own", "the callers"])
    def test_of_the_first_process(self, options: tuple[str, ...], caller: Any, bundle: Any, cid: str) -> None:
        user = {"uid": self.USER, "gid": self.USER}
        done = caller.run(bundle("cat", "/proc/keys", process__user=user), cid, *options)
        assert done.returncode == 0, done.stderr
        assert ("of-the-caller" in done.stdout) is bool(options)

    def test_of_exec(self, caller: Any, bundle: Any, start: Callable[[Path], str]) -> None:
        name = start(bundle("sleep", "1000"))
        done = caller("exec", "--user", f"{self.USER}:{self.USER}", name, "cat", "/proc/keys")
        assert done.returncode == 0, done.stderr
        assert "of-the-caller" not in done.stdout


class TestState:
    """The runtime's own files: from the container there is no way to them."""

    def test_unreachable_from_inside(self, ours: Any, bundle: Any, start: Callable[[Path], str]) -> None:
        look = f"""
        ls -d {ours.root} /run/mydocker 2> /dev/null
        for file in lock state.json config.json start waiting; do
            find / -xdev -name $file -path '*{ours.root.name}*'
        done
        grep -e {ours.root} /proc/self/mountinfo /proc/1/mountinfo
        cat /proc/net/unix | grep {ours.root}
        echo end
        """
        made = bundle(*say(f"({look}) > /tmp/result 2>&1; sleep 1000"), process__capabilities=sets(EVERYTHING))
        name = start(made)
        done = ours("exec", name, *say(look))
        assert done.stdout == "end\n"

    def test_modes(self, ours: Any, bundle: Any, cid: str) -> None:
        """Not to be read or connected to by other users of the host either."""
        assert ours.create(bundle("true"), cid).returncode == 0
        directory = Path(ours.root, cid)
        assert directory.stat().st_mode & 0o077 == 0
        for path in directory.iterdir():
            if not path.is_socket():
                assert path.stat().st_mode & 0o077 == 0, path

    def test_start_by_somebody_else(self, ours: Any, bundle: Any, cid: str) -> None:
        """Who gets hold of the socket, but is not who created the container, does not start it."""
        assert ours.create(bundle("sleep", "1000"), cid).returncode == 0
        directory = Path(ours.root, cid)
        directory.chmod(0o711)
        (directory / "start").chmod(0o777)
        pid = os.fork()
        if pid == 0:  # pragma: no cover
            try:
                os._exit(self.ask_as_somebody_else(directory))
            finally:
                os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "it could not ask, or was answered"
        assert ours.state(cid)["status"] == "created"
        assert ours("start", cid).returncode == 0
        assert ours.state(cid)["status"] == "running"

    @staticmethod
    def ask_as_somebody_else(directory: Path) -> int:
        os.chdir(directory)
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(PATIENCE)
            s.connect("start")
            try:
                s.send(b"g")
                return 0 if s.recv(1) == b"" else 1
            except (ConnectionResetError, BrokenPipeError):
                return 0
