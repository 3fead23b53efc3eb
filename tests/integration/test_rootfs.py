"""A root directory of the container's own: what is mounted in it, and that it is not trusted."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import mydocker
from mydocker.spec import Tmpfs

Run = Callable[..., CompletedProcess[str]]


def mounts(text: str) -> dict[str, tuple[str, set[str]]]:
    """Mount point to file system type and options, of ``/proc/mounts``."""
    lines = (line.split() for line in text.splitlines())
    return {place: (fstype, set(options.split(","))) for _, place, fstype, options, *_ in lines}


def contents(directory: Path) -> dict[str, tuple[int, object]]:
    """All that is below a directory: mode, and the bytes or the target."""
    found: dict[str, tuple[int, object]] = {}
    for parent, directories, files in os.walk(directory):
        for name in directories + files:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            data = os.readlink(path) if stat.S_ISLNK(mode) else path.read_bytes() if stat.S_ISREG(mode) else None
            found[str(path.relative_to(directory))] = (mode, data)
    return found


@pytest.mark.vm_once
def test_the_directory_is_the_root_and_the_hosts_is_out_of_reach(run: Run, rootfs: Path) -> None:
    (rootfs / "mark").touch()
    shown = run("--rootfs", rootfs, "sh", "-c", "echo /*; ls /../..; ls -d /proc/1/root/mark; cat /proc/mounts").stdout
    assert shown.splitlines()[0] == "/bin /dev /etc /home /mark /proc /root /sys /tmp"
    assert "/proc/1/root/mark" in shown
    assert str(rootfs) not in shown


@pytest.mark.vm_once
def test_proc_sys_and_dev_are_fresh(run: Run, rootfs: Path) -> None:
    table = mounts(run("--rootfs", rootfs, "cat", "/proc/mounts").stdout)
    expected = {
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/dev/mqueue": "mqueue",
    }
    assert {place: table[place][0] for place in expected} == expected
    assert {"nosuid", "nodev", "noexec"} <= table["/proc"][1]
    assert {"ro", "nosuid", "nodev", "noexec"} <= table["/sys"][1]
    assert {"nosuid", "noexec"} <= table["/dev"][1]
    assert {"nosuid", "nodev", "noexec"} <= table["/dev/shm"][1] & table["/dev/mqueue"][1]
    assert "ptmxmode=666" in table["/dev/pts"][1]


@pytest.mark.vm_once
def test_the_usual_devices_are_there_and_work(run: Run, rootfs: Path) -> None:
    script = """
    cd /dev && stat -c '%n %F %t:%T %a' null zero full random urandom tty
    for l in fd stdin stdout stderr ptmx; do echo "$l $(readlink $l)"; done
    echo x >null && head -c 3 zero | od -An -tx1 && head -c 4 urandom | wc -c && head -c 4 random | wc -c
    echo x 2>&1 >full || echo full is full
    """
    result = run("--rootfs", rootfs, "-u", "alice", "sh", "-c", script)
    lines = result.stdout.splitlines()
    numbers = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
    assert lines[:6] == [f"{name} character special file {number} 666" for name, number in numbers.items()]
    assert lines[6:11] == [
        "fd /proc/self/fd",
        "stdin /proc/self/fd/0",
        "stdout /proc/self/fd/1",
        "stderr /proc/self/fd/2",
        "ptmx pts/ptmx",
    ]
    assert [line.strip() for line in lines[11:14]] == ["00 00 00", "4", "4"]
    assert lines[-1] == "full is full"


def test_no_device_of_the_host_is_there(run: Run, rootfs: Path) -> None:
    shown = run("--rootfs", rootfs, "ls", "/dev").stdout.split()
    assert set(shown) == set(
        "console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    )


def test_shared_memory_is_writable_and_bounded(run: Run, rootfs: Path) -> None:
    script = "df -k /dev/shm | tail -1; dd if=/dev/zero of=/dev/shm/x bs=1M count=65 2>&1; stat -c %a /dev/shm"
    lines = run("--rootfs", rootfs, "-u", "alice", "sh", "-c", script).stdout.splitlines()
    assert lines[0].split()[1] == "65536"
    assert any("No space left" in line for line in lines)
    assert lines[-1] == "1777"


@pytest.mark.vm_once
def test_the_root_can_be_written_and_keeps_what_was_written(run: Run, rootfs: Path) -> None:
    assert run("--rootfs", rootfs, "sh", "-c", "echo kept >/root/file").returncode == 0
    assert (rootfs / "root/file").read_text() == "kept\n"


def test_a_run_leaves_the_directory_as_it_was_but_for_mount_points(run: Run, rootfs: Path) -> None:
    before = contents(rootfs)
    assert run("--rootfs", rootfs, "true").returncode == 0
    after = contents(rootfs)
    assert set(after) - set(before) == {"dev", "proc", "sys"}
    assert {name: after[name] for name in before} == before


def test_a_relative_path_and_a_link_to_the_rootfs(run: Run, rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("rootfs")
    for path in ("rootfs", "./link/", "link"):
        assert run("--rootfs", path, "ls", "/bin/busybox", cwd=tmp_path).stdout == "/bin/busybox\n"


@pytest.mark.parametrize("name", ["with blank", "comma,colon:", "back\\slash", "new\nline", "ü"])
@pytest.mark.parametrize("options", [[], ["--overlay"]])
def test_any_name_of_the_directory(run: Run, rootfs: Path, name: str, options: list[str]) -> None:
    root = rootfs.rename(rootfs.parent / name)
    assert run("--rootfs", root, *options, "echo", "ok").stdout == "ok\n"


def test_the_host_root_as_rootfs(run: Run) -> None:
    assert run("--rootfs", "/", "sh", "-c", "echo ok").stdout == "ok\n"


@pytest.mark.vm_once
def test_a_read_only_root_refuses_writes(run: Run, rootfs: Path) -> None:
    before = contents(rootfs)
    script = "echo x >/root/file; mkdir /new; rm /etc/passwd; touch /tmp/x; echo y >/dev/shm/y && cat /dev/shm/y"
    result = run("--rootfs", rootfs, "--read-only", "sh", "-c", script)
    assert (result.stdout, result.stderr.count("Read-only file system")) == ("y\n", 4)
    after = contents(rootfs)
    assert {name: after[name] for name in before} == before


@pytest.mark.vm_once
def test_the_hosts_root_can_be_read_only(run: Run, tmp_path: Path) -> None:
    result = run("--read-only", "sh", "-c", f"touch {tmp_path}/x /etc/x; mkdir /{tmp_path.name}; echo $?")
    assert result.stdout == "1\n"
    assert result.stderr.count("Read-only file system") == 3
    assert list(tmp_path.glob("x")) == []


def test_a_read_only_root_with_places_to_write(run: Run, rootfs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    options = ["--read-only", "--tmpfs", "/tmp", "-v", f"{data}:/data"]
    result = run("--rootfs", rootfs, *options, "sh", "-c", "touch /tmp/x /data/y && touch /z")
    assert (data / "y").exists()
    assert "Read-only" in result.stderr


def test_a_read_only_host_root_gets_no_new_mount_points(run: Run) -> None:
    """The host's own root: nothing may be made there, and what was made would stay."""
    result = run("--read-only", "--tmpfs", "/mydocker-test-place", "true")
    made = Path("/mydocker-test-place").exists()
    if made:
        Path("/mydocker-test-place").rmdir()
    assert not made
    assert result.returncode == 125


@pytest.mark.vm_once
@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/etc", "etc", "/home/alice", "/no/such/place"])
def test_a_link_in_the_place_of_a_kernel_view_is_refused(run: Run, rootfs: Path, place: str, target: str) -> None:
    """Mounts that a link leads elsewhere would leave the place itself to the image (CVE-2019-19921, CVE-2023-27561)."""
    (rootfs / place).symlink_to(target)
    result = run("--rootfs", rootfs, "echo", "ran")
    assert (result.returncode, result.stdout) == (125, "")
    assert f"/{place}" in result.stderr or "link" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
def test_a_file_in_the_place_of_a_kernel_view_is_refused(run: Run, rootfs: Path, place: str) -> None:
    (rootfs / place).write_text("")
    result = run("--rootfs", rootfs, "echo", "ran")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (125, "", 1)


def test_links_in_dev_are_covered_and_lead_nothing_elsewhere(run: Run, rootfs: Path) -> None:
    (rootfs / "dev").mkdir()
    (rootfs / "victim").mkdir()
    for name in ("shm", "pts", "mqueue"):
        (rootfs / "dev" / name).symlink_to("/victim")
    assert run("--rootfs", rootfs, "sh", "-c", "touch /dev/shm/x; ls /victim").stdout == ""
    assert list((rootfs / "victim").iterdir()) == []


def test_links_in_etc_do_not_read_the_hosts_users(run: Run, rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("outsider:x:1234:1234::/:/bin/sh\n")
    (rootfs / "etc/passwd").unlink()
    for target in (tmp_path / "passwd", "../../passwd"):
        (rootfs / "etc/passwd").symlink_to(target)
        result = run("--rootfs", rootfs, "-u", "outsider", "id", "-u")
        assert (result.returncode, "outsider" in result.stderr) == (125, True)
        (rootfs / "etc/passwd").unlink()


def test_a_fifo_in_the_place_of_passwd_does_not_block(run: Run, rootfs: Path) -> None:
    (rootfs / "etc/passwd").unlink()
    os.mkfifo(rootfs / "etc/passwd")
    assert run("--rootfs", rootfs, "-u", "1000", "echo", "ok").stdout == "ok\n"


def test_device_nodes_in_the_root_do_not_work(run: Run, rootfs: Path) -> None:
    os.mknod(rootfs / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert run("--rootfs", rootfs, "sh", "-c", "echo x >/null").returncode != 0


def test_the_command_comes_from_the_root(run: Run, rootfs: Path) -> None:
    (rootfs / "bin/only-here").write_text("#!/bin/sh\necho here\n")
    (rootfs / "bin/only-here").chmod(0o755)
    assert run("--rootfs", rootfs, "only-here").stdout == "here\n"
    assert run("--rootfs", rootfs, "python3").returncode == 127


def test_the_root_can_have_mounts_below_it(run: Run, rootfs: Path, tmp_path: Path) -> None:
    """The bind is recursive, and read-only goes down to them."""
    inside = "cat /tmp/file; touch /tmp/x && echo written"
    script = 'mount -t tmpfs below $0/tmp; echo below >$0/tmp/file; exec $1 -m mydocker run --rootfs $0 $2 sh -c "$3"'
    for option, shown in (("", "below\nwritten\n"), ("--read-only", "below\n")):
        outer = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            rootfs,
            sys.executable,
            option,
            inside,
        ]
        assert subprocess.run(outer, capture_output=True, text=True, check=False).stdout == shown


def test_from_python(rootfs: Path) -> None:
    result = mydocker.run(
        ["sh", "-c", "touch /tmp/x; touch /etc/y; ls /tmp"],
        rootfs=rootfs,
        readonly=True,
        mounts=[Tmpfs(destination="/tmp")],
        capture_output=True,
        text=True,
    )
    assert result.stdout == "x\n"
    assert "Read-only" in str(result.stderr)
