"""``--device`` and ``--device-cgroup-rule``: which nodes a container has, and what the kernel lets it open."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import mydocker

pytestmark = pytest.mark.vm

Run = Callable[..., CompletedProcess[str]]

FUSE = "/dev/fuse"
OPEN = 'exec 3<>"$0" && echo opened'
REFUSED = "Operation not permitted"

if not os.path.exists(FUSE):
    pytest.skip("this kernel has no /dev/fuse", allow_module_level=True)


def test_a_node_that_the_container_makes_is_refused(run: Run, rootfs: Path) -> None:
    """With CAP_MKNOD it makes the node; without a rule nothing is refused, with one for another device it is."""
    make = f"mknod /dev/made c 10 229 && ls /dev/made && {OPEN.replace('$0', '/dev/made')}"
    free = run("--rootfs", rootfs, "--cap-add", "MKNOD", "sh", "-c", make)
    assert free.stdout == "/dev/made\nopened\n", free.stderr
    bound = run("--rootfs", rootfs, "--cap-add", "MKNOD", "--device-cgroup-rule", "c 10:200 rwm", "sh", "-c", make)
    assert bound.stdout == "/dev/made\n"
    assert REFUSED in bound.stderr
    allowed = run("--rootfs", rootfs, "--cap-add", "MKNOD", "--device-cgroup-rule", "c 10:229 rw", "sh", "-c", make)
    assert allowed.stdout == "/dev/made\nopened\n", allowed.stderr


@pytest.mark.parametrize("options", [["--rootfs"], ["--rootfs", "--read-only"], ["--rootfs", "--overlay"]])
@pytest.mark.parametrize("place", [FUSE, "/dev/other", "/dev/deep/fuse", "/tmp/fuse"])
def test_a_device_is_there_and_opens(run: Run, rootfs: Path, options: list[str], place: str) -> None:
    before = sorted(rootfs.rglob("*"))
    given = [*options[1:], "--rootfs", rootfs, "--device", f"{FUSE}:{place}"]
    (rootfs / "tmp/fuse").touch()
    result = run(*given, "sh", "-c", f"ls -l {place} && {OPEN}", place)
    assert result.stdout.startswith("c"), result.stderr
    assert result.stdout.endswith("opened\n"), result.stderr
    (rootfs / "tmp/fuse").unlink()
    assert [path for path in rootfs.rglob("*") if path not in before and path.name not in ("dev", "proc", "sys")] == []


def test_on_the_hosts_own_root(run: Run) -> None:
    assert run("--device", FUSE, "sh", "-c", OPEN, FUSE).stdout == "opened\n"
    refused = run("--device", "/dev/zero", "sh", "-c", OPEN, FUSE)
    assert REFUSED in refused.stderr
    for own_root in ("--overlay", "--read-only"):
        given = run(own_root, "--device", f"{FUSE}:/dev/other", "sh", "-c", OPEN, "/dev/other")
        assert given.stdout == "opened\n", given.stderr


def test_only_for_reading(run: Run, rootfs: Path) -> None:
    script = 'exec 3<"$0" && echo read; exec 3>"$0" && echo wrote'
    result = run("--rootfs", rootfs, "--device", f"{FUSE}:r", "sh", "-c", script, FUSE)
    assert result.stdout == "read\n"
    assert REFUSED in result.stderr


def test_the_usual_devices_still_work(run: Run, rootfs: Path) -> None:
    script = """
        for name in null zero full random urandom; do head -c1 /dev/$name >/dev/null || exit 1; done
        echo hidden >/dev/null; echo 1>/dev/full; test -c /dev/tty && ls /dev/pts/ptmx
    """
    result = run("--rootfs", rootfs, "--device", FUSE, "sh", "-c", script)
    assert result.stdout == "/dev/pts/ptmx\n", result.stderr


def test_a_directory_of_devices(run: Run, rootfs: Path) -> None:
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("this kernel has no /dev/net/tun")
    result = run(
        "--rootfs", rootfs, "--device", "/dev/net:/dev/nets", "sh", "-c", f"ls /dev/nets; {OPEN}", "/dev/nets/tun"
    )
    assert result.stdout == "tun\nopened\n", result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device", "/no/such"], ["--device", "/no/such: No such file or directory"]),
        (["--device", "/etc/passwd"], ["--device", "/etc/passwd is not a device"]),
        (["--device", "fuse"], ["--device", "HOST[:CONTAINER[:ACCESS]]"]),
        (["--device-cgroup-rule", "c 10:229"], ["--device-cgroup-rule", "TYPE MAJOR:MINOR ACCESS"]),
    ],
)
def test_what_is_refused_is_one_sentence(run: Run, options: list[str], words: list[str]) -> None:
    result = run(*options, "echo", "ran")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (125, "", 1)
    for word in words:
        assert word in result.stderr


def test_in_python_with_a_list(rootfs: Path, tmp_path: Path) -> None:
    result = mydocker.run(
        ["sh", "-c", OPEN, FUSE],
        rootfs=str(rootfs),
        device=[FUSE],
        device_cgroup_rule=["c 10:200 rw"],
        capture_output=True,
    )
    assert result.stdout == b"opened\n"
    assert json.loads(result.to_json())["limits"] == {
        "device": [[FUSE, FUSE, "rwm"]],
        "device_cgroup_rule": [["c", 10, 200, "rw"]],
    }
