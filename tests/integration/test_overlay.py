"""``--overlay``: the root is copy-on-write, and every change is dropped at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory of the host that must survive."""
    directory = tmp_path / "precious"
    (directory / "sub").mkdir(parents=True)
    (directory / "file").write_text("old")
    (directory / "sub/deep").write_text("deep")
    (directory / "secret").write_text("mine")
    (directory / "secret").chmod(0o600)
    return directory


def unchanged(directory: Path) -> None:
    assert sorted(path.name for path in directory.rglob("*")) == ["deep", "file", "secret", "sub"]
    assert (directory / "file").read_text() == "old"
    assert (directory / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.vm_once
def test_the_hosts_root_can_be_destroyed_inside_and_is_whole_outside(run: Run, precious: Path) -> None:
    script = f"""
    echo new >{precious}/file && chmod 777 {precious}/secret && touch {precious}/added && cat {precious}/file
    rm -rf {precious} /etc/passwd && ls {precious} /etc/passwd 2>&1 | grep -c 'No such'
    touch /mydocker-test-file && ls /mydocker-test-file
    """
    passwd = Path("/etc/passwd").read_bytes()
    result = run("--overlay", "sh", "-c", script)
    assert result.stdout == "new\n2\n/mydocker-test-file\n", result.stderr
    unchanged(precious)
    assert Path("/etc/passwd").read_bytes() == passwd
    assert not Path("/mydocker-test-file").exists()


@pytest.mark.vm_once
def test_a_rootfs_is_unchanged(run: Run, rootfs: Path) -> None:
    before = sorted(str(path) for path in rootfs.rglob("*"))
    script = "rm -rf /etc /home && mkdir /new && echo x >/new/file && cat /new/file && ls -d /etc"
    result = run("--rootfs", rootfs, "--overlay", "sh", "-c", script)
    assert (result.stdout, result.returncode) == ("x\n", 1)
    assert sorted(str(path) for path in rootfs.rglob("*")) == before


def test_two_containers_on_one_rootfs_do_not_see_each_other(run: Run, rootfs: Path) -> None:
    assert run("--rootfs", rootfs, "--overlay", "sh", "-c", "touch /first").returncode == 0
    assert "first" not in run("--rootfs", rootfs, "--overlay", "ls", "/").stdout


def test_the_roots_own_mode_and_owner_are_kept(run: Run, rootfs: Path) -> None:
    rootfs.chmod(0o711)
    os.chown(rootfs, 1000, 29)
    try:
        assert run("--rootfs", rootfs, "--overlay", "stat", "-c", "%a %u %g", "/").stdout == "711 1000 29\n"
    finally:
        os.chown(rootfs, 0, 0)


def test_files_of_other_users_keep_their_owners_and_modes(run: Run, rootfs: Path) -> None:
    os.chown(rootfs / "home/alice", 1000, 1000)
    (rootfs / "home/alice").chmod(0o700)
    inside = ["sh", "-c", "echo mine >/home/alice/file && cat /home/alice/file; touch /root/x || echo refused"]
    result = run("--rootfs", rootfs, "--overlay", "-u", "alice", *inside)
    assert result.stdout == "mine\nrefused\n"
    assert list((rootfs / "home/alice").iterdir()) == []


def test_writes_to_a_volume_stay(run: Run, rootfs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    result = run("--rootfs", rootfs, "--overlay", "-v", f"{data}:/data", "sh", "-c", "echo kept >/data/file; touch /x")
    assert result.returncode == 0
    assert (data / "file").read_text() == "kept\n"
    assert not (rootfs / "x").exists()
    assert not (rootfs / "data").exists()


@pytest.mark.vm_once
def test_mount_points_are_not_made_on_the_host(run: Run, tmp_path: Path) -> None:
    result = run("--overlay", "--tmpfs", "/mydocker-test-place", "sh", "-c", "touch /mydocker-test-place/x && echo ok")
    assert result.stdout == "ok\n"
    assert not Path("/mydocker-test-place").exists()


def test_read_only_on_top(run: Run, rootfs: Path) -> None:
    result = run("--rootfs", rootfs, "--overlay", "--read-only", "touch", "/x")
    assert (result.returncode, "Read-only" in result.stderr) == (1, True)


@pytest.mark.vm_once
def test_mounts_below_the_root_are_copy_on_write_too(precious: Path, tmp_path: Path) -> None:
    """In a mount namespace of the test's own, the host's root has another file system below it."""
    place = tmp_path / "below"
    place.mkdir()
    script = f"""
    mount -t tmpfs below {place} && echo old >{place}/file && mkdir {place}/empty
    {sys.executable} -m mydocker run --overlay sh -c \
        'echo new >{place}/file && rmdir {place}/empty && cat {place}/file; rm -rf {precious}; ls {place}'
    echo $?; cat {place}/file; ls {place}
    """
    outer = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    result = subprocess.run(outer, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["new", "file", "0", "old", "empty", "file"], result.stderr
    unchanged(precious)


def test_a_mount_of_one_file_below_the_root_cannot_be_written_through(tmp_path: Path) -> None:
    """An overlay shows directories: a bind of a file is seen read-only."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    script = f"""
    mount --bind {tmp_path}/one {tmp_path}/two
    {sys.executable} -m mydocker run --overlay sh -c 'cat {tmp_path}/two; echo new >{tmp_path}/two || echo refused'
    """
    outer = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    result = subprocess.run(outer, capture_output=True, text=True, check=False)
    assert result.stdout == "onerefused\n"
    assert ((tmp_path / "one").read_text(), (tmp_path / "two").read_text()) == ("one", "two")


def test_what_is_written_counts_as_the_containers_memory(run: Run, rootfs: Path, tmp_path: Path) -> None:
    """The upper layer is in memory: a container with a limit cannot fill the host's."""
    file = tmp_path / "result.json"
    fill = ["dd", "if=/dev/zero", "of=/file", "bs=1M", "count=200"]
    result = run("--rootfs", rootfs, "--overlay", "-mem", "50m", "--memory-swap", "50m", "--result", file, *fill)
    assert result.returncode == 137, result.stderr
    assert '"oom"' in file.read_text()
