"""``--shm-size``: one /dev/shm, of that size, with each kind of root."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import mydocker

Run = Callable[..., subprocess.CompletedProcess[str]]

SIZE = "df -k /dev/shm | tail -n 1 | awk '{ print $2 }'"


@pytest.fixture(params=["host", "overlay", "read-only", "rootfs", "read-only rootfs"])
def root(request: pytest.FixtureRequest, rootfs: Path) -> list[str]:
    """The options for one kind of root."""
    return {
        "host": [],
        "overlay": ["--overlay"],
        "read-only": ["--read-only"],
        "rootfs": ["--rootfs", str(rootfs)],
        "read-only rootfs": ["--rootfs", str(rootfs), "--read-only"],
    }[request.param]


def test_without_it_there_are_64_megabytes(run: Run, root: list[str]) -> None:
    assert run(*root, "sh", "-c", SIZE).stdout == "65536\n"


def test_its_size(run: Run, root: list[str]) -> None:
    assert run("--shm-size", "5m", *root, "sh", "-c", SIZE).stdout == "5120\n"


def test_more_than_its_size_does_not_fit(run: Run, root: list[str]) -> None:
    script = "for name in a b; do dd if=/dev/zero of=/dev/shm/$name bs=1000 count=3000 || exit; done"
    done = run("--shm-size", "4m", *root, "sh", "-c", script)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


def test_more_than_the_default_fits(run: Run, root: list[str]) -> None:
    assert run("--shm-size", "80m", *root, "sh", "-c", "head -c 70m /dev/zero > /dev/shm/a").returncode == 0


def test_it_is_the_only_one_of_the_container(run: Run, root: list[str]) -> None:
    """Below it is at most what the host has there, and never the default one."""
    script = "grep ' /dev/shm ' /proc/self/mountinfo"
    before = run(*root, "sh", "-c", script).stdout.splitlines()
    after = run("--shm-size", "5m", *root, "sh", "-c", script).stdout.splitlines()
    assert len(after) == len(before)
    assert [line for line in after if "size=65536k" in line and "noexec" in line] == []


def test_anybody_may_write_there_and_nobody_execute(run: Run, rootfs: Path) -> None:
    script = "touch /dev/shm/mine; cp /bin/busybox /dev/shm/sh && /dev/shm/sh; stat -c %a /dev/shm"
    done = run("--shm-size", "5m", "--rootfs", rootfs, "--user", "alice", "sh", "-c", script)
    assert done.stdout == "1777\n"
    assert "Permission denied" in done.stderr


def test_together_with_a_mount_of_the_users_it_is_a_conflict(run: Run) -> None:
    done = run("--shm-size", "5m", "--tmpfs", "/dev/shm", "true")
    assert done.returncode == 125
    assert "--volume or --tmpfs and plugin shm" in done.stderr


def test_a_volume_of_the_users_is_seen_there(run: Run, tmp_path: Path, root: list[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert run("--volume", f"{tmp_path}:/dev/shm", *root, "cat", "/dev/shm/file").stdout == "mine"


def test_from_python() -> None:
    result = mydocker.run(["sh", "-c", SIZE], shm_size="3m", capture_output=True, text=True)
    assert result.stdout == "3072\n"
