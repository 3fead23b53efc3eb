"""What the command may not do: capabilities, no_new_privs, masked and read-only paths; ``--privileged`` lifts it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mydocker.linux.capabilities import NAMES, permitted
from mydocker.spec import DEFAULT_CAPABILITIES

Run = Callable[..., CompletedProcess[str]]

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def status(run: Run, *options: str, file: str = "/proc/self/status") -> dict[str, str]:
    shown = run(*options, "cat", file).stdout
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in shown.splitlines()}


def names(mask: str) -> set[str]:
    return {name for number, name in enumerate(NAMES) if int(mask, 16) >> number & 1}


def available() -> set[str]:
    """What this process, and so a container of it, can have at most."""
    return names(f"{permitted():x}")


@pytest.mark.vm
def test_the_capabilities_are_dockers_without_mknod(run: Run) -> None:
    shown = status(run)
    expected = set(DEFAULT_CAPABILITIES) & available()
    assert "CAP_SYS_ADMIN" not in expected
    assert "CAP_MKNOD" not in expected
    assert {name: names(shown[name]) for name in SETS} == {
        "CapInh": set(),
        "CapPrm": expected,
        "CapEff": expected,
        "CapBnd": expected,
        "CapAmb": set(),
    }


def test_capabilities_are_added_and_dropped(run: Run) -> None:
    shown = status(run, "--cap-add", "SYS_NICE", "--cap-add", "cap_net_admin", "--cap-drop", "CHOWN")
    expected = set(DEFAULT_CAPABILITIES) - {"CAP_CHOWN"} | {"CAP_SYS_NICE", "CAP_NET_ADMIN"}
    assert names(shown["CapEff"]) == names(shown["CapBnd"]) == expected & available()
    assert names(status(run, "--cap-drop", "ALL")["CapBnd"]) == set()
    assert names(status(run, "--cap-drop", "ALL", "--cap-add", "KILL")["CapEff"]) == {"CAP_KILL"}


def test_dropped_capabilities_are_really_gone(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert run("chown", "1", file).returncode == 0
    assert run("--cap-drop", "CHOWN", "chown", "2", file).returncode == 1
    assert file.stat().st_uid == 1


@pytest.mark.vm
def test_no_new_privileges(run: Run, tmp_path: Path) -> None:
    assert status(run)["NoNewPrivs"] == "1"
    setuid = tmp_path / "id"
    setuid.write_bytes(Path("/usr/bin/id").read_bytes())
    setuid.chmod(0o4755)
    tmp_path.chmod(0o755)
    assert run("-w", "/", "-u", "12345", setuid, "-u").stdout in ("12345\n", "")


def test_the_init_can_do_no_more_than_the_command_and_cannot_be_opened(run: Run) -> None:
    """/proc/1/exe is the host's interpreter (CVE-2019-5736), and its descriptors lead outside."""
    shown = status(run, "--init", file="/proc/1/status")
    assert (shown["Name"], shown["NoNewPrivs"]) == ("mydocker-init", "1")
    assert names(shown["CapBnd"]) == names(shown["CapPrm"]) == set(DEFAULT_CAPABILITIES) & available()
    script = (
        "for f in exe root cwd fd/0 fd/1 fd/2; do readlink /proc/1/$f && echo open; done; cat /proc/1/environ; true"
    )
    result = run("--init", "sh", "-c", script)
    assert result.stdout == ""
    standard = {"0", "1", "2"}
    assert len(set(run("--init", "ls", "/proc/1/fd").stdout.split()) - standard) == 1  # to report the status


@pytest.mark.vm
def test_a_mount_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("mount", "-t", "tmpfs", "none", tmp_path).returncode != 0
    assert run("umount", "/proc").returncode != 0


def test_a_device_cannot_be_made(run: Run, tmp_path: Path) -> None:
    assert run("mknod", f"{tmp_path}/disk", "b", "8", "0").returncode != 0


@pytest.mark.vm
def test_files_that_tell_about_the_host_are_masked(run: Run, rootfs: Path) -> None:
    script = "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; ls /sys/firmware /proc/scsi /proc/acpi"
    for options in ([], ["--rootfs", rootfs]):
        result = run(*options, "sh", "-c", script + " 2>/dev/null | grep -v :$; true")
        assert result.stdout.strip() == "", options


@pytest.mark.vm
def test_files_that_steer_the_host_are_read_only(run: Run, rootfs: Path) -> None:
    for options in ([], ["--rootfs", rootfs]):
        for file in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"):
            if not os.path.exists(file):
                continue
            result = run(*options, "sh", "-c", f"echo >{file}")
            assert (result.returncode != 0, "Read-only" in result.stderr) == (True, True), file
        assert "Read-only" in run(*options, "mkdir", "/sys/fs/cgroup/x").stderr


def test_masks_cannot_be_lifted_by_the_command(run: Run) -> None:
    assert run("umount", "/proc/kcore").returncode != 0
    assert run("mount", "-o", "remount,rw", "/proc/sys").returncode != 0


@pytest.mark.vm
def test_privileged_lifts_it(run: Run, tmp_path: Path) -> None:
    shown = status(run, "--privileged")
    assert shown["NoNewPrivs"] == "0"
    assert names(shown["CapEff"]) == names(shown["CapBnd"]) == available()
    assert names(shown["CapInh"]) == set()
    assert run("--privileged", "mount", "-t", "tmpfs", "none", tmp_path).returncode == 0
    assert (
        run("--privileged", "sh", "-c", "test -w /proc/sys/kernel/hostname && ! test -c /proc/timer_list").returncode
        == 0
    )


def test_privileged_in_a_rootfs_allows_devices(run: Run, rootfs: Path) -> None:
    os.mknod(rootfs / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert run("--rootfs", rootfs, "--privileged", "sh", "-c", "head -c 4 /zero | wc -c").stdout.strip() == "4"


def test_inheritable_and_ambient_capabilities_of_the_caller_do_not_pass(run: Run, tmp_path: Path) -> None:
    """CVE-2022-24769: a container whose inheritable set is not empty."""
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(
        "import ctypes, os, struct, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "header, data = struct.pack('=Ii', 0x20080522, 0), ctypes.create_string_buffer(24)\n"
        "libc.capget(header, data)\n"
        "e0, p0, i0, e1, p1, i1 = struct.unpack('=6I', data.raw)\n"
        "assert libc.capset(header, struct.pack('=6I', e0, p0, p0, e1, p1, p1)) == 0\n"
        "assert libc.prctl(47, 2, 0, 0, 0) == 0\n"  # PR_CAP_AMBIENT_RAISE, CAP_CHOWN
        "assert 'CapAmb:\\t0000000000000001' in open('/proc/self/status').read()\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'mydocker', 'run', 'cat', '/proc/self/status'])\n"
    )
    result = subprocess.run([sys.executable, wrapper], capture_output=True, text=True, check=True)
    shown = {line.partition(":")[0]: line.partition(":")[2].strip() for line in result.stdout.splitlines()}
    assert (int(shown["CapInh"], 16), int(shown["CapAmb"], 16)) == (0, 0)
