"""`mydocker run` as a plain user: the command, its surroundings, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.vm
def test_the_command_is_root_in_namespaces_of_its_own(user: Any) -> None:
    script = "id -u; id -g; echo $$; hostname; ls /sys/class/net; grep -c : /proc/net/dev"
    result = user.run("--hostname", "box", "sh", "-c", script)
    assert (result.stdout, result.returncode) == ("0\n0\n1\nbox\nlo\n1\n", 0), result.stderr


def test_it_has_dockers_capabilities_in_its_namespace_and_no_more(user: Any) -> None:
    result = user.run("grep", "-E", "^(Cap|NoNewPrivs)", "/proc/self/status")
    found = dict(line.split(":\t") for line in result.stdout.splitlines())
    assert found == {
        "CapInh": "0" * 16,
        "CapPrm": "00000000a00425fb",
        "CapEff": "00000000a00425fb",
        "CapBnd": "00000000a00425fb",
        "CapAmb": "0" * 16,
        "NoNewPrivs": "1",
    }


def test_privileged_has_all_of_them(user: Any) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    result = user.run("--privileged", "grep", "CapEff", "/proc/self/status")
    assert int(result.stdout.split()[1], 16) == (1 << last + 1) - 1, result.stderr
    assert user.run("--privileged", "hostname", "new").returncode == 0


def test_files_made_by_the_containers_root_are_the_users(user: Any) -> None:
    assert user.run("touch", user.home / "made").returncode == 0
    status = (user.home / "made").stat()
    assert (status.st_uid, status.st_gid) == (user.uid, user.gid)


def test_files_of_the_hosts_root_stay_out_of_reach(user: Any) -> None:
    result = user.run("sh", "-c", "cat /etc/shadow || touch /etc/mydocker-test")
    assert result.returncode != 0
    assert "ermission denied" in result.stderr
    assert not os.path.exists("/etc/mydocker-test")


@pytest.mark.vm
def test_a_rootfs_with_its_own_dev(user: Any, users_rootfs: Path) -> None:
    script = "echo x >/dev/null && head -c 3 /dev/zero | od -An -tx1; ls /dev; touch /made; ls -d /proc/1 /sys/class"
    result = user.run("--rootfs", users_rootfs, "sh", "-c", script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[:3] == ["00"] * 3
    assert {"null", "full", "ptmx", "pts", "shm", "tty", "urandom"} <= set(result.stdout.split())
    assert (users_rootfs / "made").stat().st_uid == user.uid


def test_a_read_only_root(user: Any, users_rootfs: Path) -> None:
    assert "Read-only" in user.run("--read-only", "touch", user.home / "made").stderr
    assert "Read-only" in user.run("--rootfs", users_rootfs, "--read-only", "touch", "/made").stderr
    assert list(users_rootfs.glob("made")) == []


@pytest.mark.vm
def test_a_copy_on_write_rootfs(user: Any, users_rootfs: Path) -> None:
    script = "echo x >>/etc/passwd && rm /bin/ls && mkdir /new && tail -n1 /etc/passwd && test ! -e /bin/ls"
    result = user.run("--rootfs", users_rootfs, "--overlay", "sh", "-c", script)
    assert (result.stdout, result.returncode) == ("x\n", 0), result.stderr
    assert "x\n" not in (users_rootfs / "etc/passwd").read_text().splitlines(keepends=True)[-1]
    assert (users_rootfs / "bin/ls").is_symlink()
    assert not (users_rootfs / "new").exists()


def test_volumes_and_tmpfs(user: Any, users_rootfs: Path) -> None:
    data = user.home / "data"
    data.mkdir()
    user.own(data)
    script = "echo 1 >/rw/x; echo 2 >/ro/y; echo 3 >/t/z; cat /t/z; df -k /t | tail -n1"
    mounts = ("-v", f"{data}:/rw", "-v", f"{data}:/ro:ro", "--tmpfs", "/t:size=64k")
    result = user.run("--rootfs", users_rootfs, *mounts, "sh", "-c", script)
    assert (data / "x").read_text() == "1\n"
    assert not (data / "y").exists()
    assert result.stdout.startswith("3\n")
    assert result.stdout.split()[2] == "64"


def test_flags_of_a_mount_outside_stay_in_force(user: Any, users_rootfs: Path) -> None:
    """/proc is mounted noexec and nosuid on the host, or /sys is: what is bound of it keeps that."""
    line = next(row for row in Path("/proc/self/mountinfo").read_text().splitlines() if row.split()[4] == "/dev/shm")
    result = user.run("--rootfs", users_rootfs, "-v", "/dev/shm:/shm", "grep", " /shm ", "/proc/self/mountinfo")
    ours = set(result.stdout.split()[5].split(","))
    assert {flag for flag in line.split()[5].split(",") if flag in ("nosuid", "nodev", "noexec")} <= ours


@pytest.mark.vm
def test_the_hosts_network_with_a_view_of_its_sysfs(user: Any) -> None:
    result = user.run("--network", "host", "sh", "-c", "readlink /proc/self/ns/net; ls /sys/class; touch /sys/x")
    assert result.stdout.startswith(os.readlink("/proc/self/ns/net"))
    assert "net" in result.stdout.split()
    assert result.returncode != 0


@pytest.mark.vm
def test_a_terminal(user: Any) -> None:
    code = (
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
        *(user.python, "-m", "mydocker", "run", "-t", "sh", "-c", "tty; stty size; echo typed"),
    )
    result = user.call(user.python, "-c", *code)
    assert result.returncode == 0, result.stdout
    assert result.stdout.split()[0] == "/dev/pts/0"
    assert result.stdout.split()[-1] == "typed"


def test_a_reaper(user: Any) -> None:
    result = user.run("--init", "sh", "-c", "echo $$; cat /proc/1/comm; exit 7")
    assert (result.stdout, result.returncode) == ("2\nmydocker-init\n", 7), result.stderr


@pytest.mark.parametrize(
    ("command", "code"), [("exit 3", 3), ("kill -9 $$; sleep 9", 137), ("no-such-command-here", 127)]
)
def test_exit_codes(user: Any, command: str, code: int) -> None:
    assert user.run("--init", "sh", "-c", command).returncode == code


def test_a_timeout_kills(user: Any) -> None:
    result = user.run("--timeout", "100ms", "--result", "/dev/stdout", "sleep", "1000")
    assert result.returncode == 137
    assert json.loads(result.stdout)["reason"] == "timeout"


def test_a_killed_runtime_takes_the_container_along(user: Any, eventually: Callable[..., object]) -> None:
    pidfile = user.home / "pid"
    process = user.start("--pidfile", pidfile, "sleep", "1000")
    try:
        eventually(pidfile.exists)
        pid = int(pidfile.read_text())
        process.send_signal(signal.SIGKILL)
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the container's end")
    finally:
        process.kill()
        process.communicate()
    containers = [path.name for path in (user.runtime / "mydocker").iterdir() if not path.name.startswith("@")]
    assert len(containers) == 1
    assert user.run("true").returncode == 0
    assert not pidfile.exists()
    assert list(user.runtime.glob("mydocker/*")) == []


@pytest.mark.vm
def test_the_command_as_another_id_dies_with_the_runtime_too(alice: Any, eventually: Callable[..., object]) -> None:
    pidfile = alice.home / "pid"
    process = alice.start("--user", "77", "--pidfile", pidfile, "sh", "-c", "echo ready; exec sleep 1000")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        pid = int(pidfile.read_text())
        assert os.stat(f"/proc/{pid}").st_uid not in (0, alice.uid)
        process.send_signal(signal.SIGKILL)
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the container's end")
    finally:
        process.kill()
        process.communicate()
    assert alice.run("true").returncode == 0  # and removes what the killed one left


def test_from_python(user: Any) -> None:
    code = """if True:
        import mydocker, threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        result = mydocker.run(["sh", "-c", "id -u; echo $$"], capture_output=True, text=True, timeout=50)
        print(result.stdout.split(), result.exit_code, result.reason)
    """
    result = user.call(user.python, "-c", code)
    assert (result.stdout, result.stderr) == ("['0', '1'] 0 exited\n", "")


def test_an_ignored_sigchld_is_no_obstacle_to_the_id_maps(alice: Any) -> None:
    code = """if True:
        import mydocker, signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            mydocker.run(["true"])
        except mydocker.MydockerError as e:
            print(e)
    """
    assert "SIGCHLD" in alice.call(alice.python, "-c", code).stdout


def test_another_user_does_not_see_the_container(
    alice: Any, stranger: Any, eventually: Callable[..., object], tmp_path: Path
) -> None:
    process = alice.start("--name", "private", "sleep", "1000")
    try:
        eventually((alice.runtime / "mydocker/private/state.json").exists)
        assert stranger.call("ls", alice.runtime / "mydocker").returncode != 0
        assert stranger.run("--name", "private", "true").returncode == 0
        assert alice.run("--name", "private", "true").returncode == 125
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.vm
def test_a_copy_on_write_view_of_the_hosts_root(user: Any) -> None:
    kept = user.home / "kept"
    kept.write_text("here\n")
    user.own(kept)
    script = f"touch /etc/made /made; echo x >>{kept}; cat {kept}; rm {kept} && mkdir {user.home}/new && ls /dev/null"
    result = user.run("--overlay", "sh", "-c", script)
    assert (result.stdout, result.returncode) == ("here\nx\n/dev/null\n", 0), result.stderr
    assert kept.read_text() == "here\n"
    assert not any(map(os.path.exists, ("/etc/made", "/made", user.home / "new")))


@pytest.mark.vm
def test_a_copy_on_write_view_shows_no_more_than_the_user_may_see(user: Any) -> None:
    secret = user.home.parent / f"{user.home.name}-secret"
    secret.mkdir(0o700)
    try:
        (secret / "file").write_text("secret\n")
        result = user.run("--overlay", "sh", "-c", f"ls {secret}; cat {secret}/file; cat /etc/shadow")
        assert result.stdout == ""
        assert result.stderr.count("Permission denied") + result.stderr.count("No such file") == 3, result.stderr
    finally:
        (secret / "file").unlink()
        secret.rmdir()


def test_a_volume_in_a_copy_on_write_view(user: Any) -> None:
    result = user.run("--overlay", "-v", f"{user.home}:/a/new/place", "-w", "/a/new/place", "touch", "made")
    assert result.returncode == 0, result.stderr
    assert (user.home / "made").exists()


@pytest.mark.parametrize("arguments", [(), ("--init",), ("--user", "77")])
def test_signals_reach_the_command(user: Any, arguments: tuple[str, ...]) -> None:
    process = user.start(*arguments, "sh", "-c", "echo ready; exec sleep 1000")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


@pytest.mark.vm
def test_a_copy_on_write_view_of_a_root_with_mounts_in_it(user: Any) -> None:
    """They are locked to the rest of the host's root, of which the kernel then makes no overlay as a whole."""
    place = user.home / "way"
    (place / "mounted").mkdir(parents=True)
    (place / "beside").mkdir()
    (place / "file").write_text("file\n")
    user.own(place)
    prepare = 'mount -t tmpfs -o mode=777 none mounted && echo below >mounted/file && "$@"'
    script = (
        "cat file mounted/file; echo new >file; cat file; echo new >beside/made; "
        "rm mounted/file && echo new >mounted/made && ls mounted beside"
    )
    mydocker = (user.python, "-m", "mydocker", "run", "--overlay", "-w", place, "sh", "-c", script)
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", prepare, "sh", *user.command(mydocker)],
        env=user.environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.split() == ["file", "below", "new", "beside:", "made", "mounted:", "made"], result.stderr
    assert (place / "file").read_text() == "file\n"
    assert list((place / "beside").iterdir()) == []
