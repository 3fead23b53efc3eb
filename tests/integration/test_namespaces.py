"""The namespaces of a container: its own, fresh, and without effect on the host."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen

import pytest

import mydocker

Run = Callable[..., CompletedProcess[str]]

OWN = ("mnt", "uts", "pid", "net", "ipc", "cgroup")


def namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in OWN}


def output(*argv: str, **options: object) -> str:
    """What a command that must succeed prints."""
    result = mydocker.run(argv, capture_output=True, text=True, **options)  # type: ignore[arg-type]
    assert result.exit_code == 0, result
    assert isinstance(result.stdout, str)
    return result.stdout


@pytest.mark.vm_once
def test_each_namespace_is_its_own(run: Run) -> None:
    names = " ".join(f"/proc/self/ns/{name}" for name in OWN)
    shown = run("sh", "-c", f"for n in {names}; do readlink $n; done").stdout.split()
    assert len(shown) == len(OWN)
    for name, inside in zip(OWN, shown, strict=True):
        assert inside.startswith(f"{name}:[")
        assert inside != namespaces()[name]


@pytest.mark.vm_once
def test_two_containers_share_none(start: Callable[..., Popen[str]]) -> None:
    first = start("-i", "sh", "-c", "readlink /proc/self/ns/*; echo; read wait", stdin=PIPE)
    assert first.stdout is not None
    names = list(iter(lambda: first.stdout.readline().strip(), ""))
    others = output("sh", "-c", "readlink /proc/self/ns/*").split()
    shared = {name.partition(":")[0] for name in set(names) & set(others)}
    assert shared == {"time", "user"}
    first.communicate("\n")


@pytest.mark.vm_once
def test_the_loopback_is_up_and_alone() -> None:
    devices = output("cat", "/proc/net/dev").splitlines()[2:]
    assert [device.partition(":")[0].strip() for device in devices] == ["lo"]
    talk = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname());"
        "c.sendall(b'hello'); print(s.accept()[0].recv(9).decode())"
    )
    assert output(sys.executable, "-Sc", talk) == "hello\n"


def test_the_hosts_network_on_request(run: Run) -> None:
    shown = run("--network", "host", "readlink", "/proc/self/ns/net", "/proc/self/ns/uts").stdout.split()
    assert shown[0] == namespaces()["net"]
    assert shown[1] != namespaces()["uts"]


@pytest.mark.vm_once
def test_the_command_is_pid_1_and_sees_no_process_of_the_host() -> None:
    shown = output("sh", "-c", "echo $$; ls /proc | grep -E '^[0-9]+$' | sort -n")
    pid, *others = shown.split()
    assert pid == "1"
    assert set(others) <= {"1", "2", "3", "4"}


def test_the_host_name_is_the_hosts_or_as_asked(run: Run, rootfs: Path) -> None:
    host = os.uname().nodename
    assert run("uname", "-n").stdout.strip() == host
    assert run("--hostname", "box", "uname", "-n").stdout == "box\n"
    assert run("--rootfs", rootfs, "--hostname", "box", "hostname").stdout == "box\n"
    assert run("--rootfs", rootfs, "--name", "web", "hostname").stdout == "web\n"
    assert os.uname().nodename == host


def test_the_command_may_not_change_the_host_name(run: Run) -> None:
    assert run("hostname", "evil").returncode != 0


def test_shared_memory_and_queues_are_fresh(tmp_path: Path) -> None:
    probe = Path("/dev/shm") / f"mydocker-test-{os.getpid()}"
    probe.touch()
    try:
        assert output("ls", "-A", "/dev/shm") == ""
        output("touch", "/dev/shm/inside")
        assert not Path("/dev/shm/inside").exists()
    finally:
        probe.unlink()
    assert output("stat", "-f", "-c", "%T", "/dev/shm").strip() == "tmpfs"


def test_mounts_made_inside_stay_inside(run: Run, tmp_path: Path) -> None:
    script = f"mount -t tmpfs inside {tmp_path} && touch {tmp_path}/x && ls {tmp_path}"
    result = run("--privileged", "sh", "-c", script)
    assert (result.returncode, result.stdout) == (0, "x\n"), result.stderr
    assert list(tmp_path.glob("x")) == []


@pytest.mark.vm_once
def test_the_command_sees_itself_at_the_root_of_its_cgroups(run: Run) -> None:
    paths = {line.rpartition(":")[2] for line in run("cat", "/proc/self/cgroup").stdout.split()}
    assert paths == {"/"}


def test_the_session_keyring_is_its_own() -> None:
    if not os.path.exists("/proc/keys"):
        pytest.skip("this kernel has no keyrings")
    number = {"x86_64": 250}.get(os.uname().machine, 219)
    ask = f"import ctypes; print(ctypes.CDLL(None).syscall({number}, 0, -3, 1))"  # KEYCTL_GET_KEYRING_ID
    # Docker's profile allows no keyctl(2), so that nothing can look at it without.
    assert len({output(sys.executable, "-Sc", ask, seccomp="unconfined") for _ in range(2)}) == 2


def test_the_command_leads_its_session_and_process_group(run: Run) -> None:
    pid, group, session = run("sh", "-c", "cut -d' ' -f1,5,6 /proc/$$/stat").stdout.split()
    assert pid == group == session == "1"


def test_processes_that_the_command_leaves_end_with_it(run: Run) -> None:
    assert run("sh", "-c", "sleep 1000 & (sleep 1000 &) ; echo done").stdout == "done\n"


class TestInit:
    @pytest.mark.vm_once
    def test_the_command_is_not_pid_1(self, run: Run) -> None:
        result = run("--init", "sh", "-c", "echo $$ $PPID; cat /proc/1/comm")
        pid, parent, name = result.stdout.split()
        assert (pid != "1", parent, name) == (True, "1", "mydocker-init")

    @pytest.mark.vm_once
    def test_orphans_are_reaped(self, run: Run) -> None:
        script = "sh -c 'sleep 0.05 & sleep 0.05 &'; sleep 0.5; cat /proc/[0-9]*/stat | cut -d' ' -f3"
        result = run("--init", "sh", "-c", script)
        assert result.stdout.count("\n") >= 2
        assert "Z" not in result.stdout

    def test_without_it_orphans_of_a_command_that_does_not_wait_stay(self) -> None:
        """Shows that the test above can fail."""
        ask = (
            "import subprocess, time, os; subprocess.run(['sh', '-c', 'sleep 0.05 &']); time.sleep(0.5);"
            "print([open(f'/proc/{p}/stat').read().split()[2] for p in os.listdir('/proc') if p.isdigit()])"
        )
        assert "'Z'" in output(sys.executable, "-Sc", ask)
        assert "'Z'" not in output(sys.executable, "-Sc", ask, init=True)

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    )
    def test_the_end_of_the_command_is_reported(self, run: Run, script: str, code: int) -> None:
        assert run("--init", "sh", "-c", script).returncode == code

    def test_a_command_killed_by_a_signal_is_known_from_one_that_exits_alike(self) -> None:
        killed = mydocker.run(["sh", "-c", "kill -TERM $$"], init=True)
        exited = mydocker.run(["sh", "-c", "exit 143"], init=True)
        assert (killed.exit_code, killed.signal, killed.reason) == (143, 15, "signaled")
        assert (exited.exit_code, exited.signal, exited.reason) == (143, None, "exited")

    def test_the_container_ends_with_the_command(self, run: Run) -> None:
        assert run("--init", "sh", "-c", "(sleep 1000 &); echo done").stdout == "done\n"

    def test_the_command_leads_its_own_session(self, run: Run) -> None:
        pid, group, session = run("--init", "sh", "-c", "cut -d' ' -f1,5,6 /proc/$$/stat").stdout.split()
        assert pid == group == session

    def test_a_command_that_is_not_there(self, run: Run) -> None:
        assert run("--init", "no-such-command").returncode == 127
