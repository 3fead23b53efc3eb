"""``--volume`` and ``--tmpfs``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import mydocker
from mydocker.cgroups.layout import Layout
from mydocker.spec import Tmpfs, Volume

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "file").write_text("from the host\n")
    return directory


@pytest.mark.vm_once
def test_a_volume_is_the_hosts_directory(run: Run, rootfs: Path, data: Path) -> None:
    result = run("--rootfs", rootfs, "-v", f"{data}:/srv/data", "sh", "-c", "cat /srv/data/file; echo x >/srv/data/new")
    assert result.stdout == "from the host\n"
    assert (data / "new").read_text() == "x\n"


@pytest.mark.vm_once
def test_a_read_only_volume_refuses_writes(run: Run, rootfs: Path, data: Path) -> None:
    script = "cat /data/file; touch /data/new; echo x >>/data/file; rm /data/file"
    result = run("--rootfs", rootfs, "-v", f"{data}:/data:ro", "sh", "-c", script)
    assert (result.stdout, result.stderr.count("Read-only")) == ("from the host\n", 3)
    assert os.listdir(data) == ["file"]


def test_a_read_only_volume_is_read_only_in_the_mounts_below_it(data: Path, rootfs: Path) -> None:
    (data / "below").mkdir()
    script = f"""
    mount -t tmpfs below {data}/below
    {sys.executable} -m mydocker run --rootfs {rootfs} -v {data}:/data:ro touch /data/below/x
    """
    outer = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    result = subprocess.run(outer, capture_output=True, text=True, check=False)
    assert (result.returncode, "Read-only" in result.stderr) == (1, True)


def test_a_file_can_be_a_volume(run: Run, rootfs: Path, data: Path) -> None:
    result = run("--rootfs", rootfs, "-v", f"{data}/file:/etc/deep/config:ro", "cat", "/etc/deep/config")
    assert result.stdout == "from the host\n"


def test_a_volume_over_the_hosts_root(run: Run, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    assert run("-v", f"{data}:{place}", "cat", f"{place}/file").stdout == "from the host\n"
    assert list(place.iterdir()) == []
    missing = run("-v", f"{data}:{tmp_path}/missing", "true")
    assert (missing.returncode, "does not exist" in missing.stderr) == (125, True)
    assert not (tmp_path / "missing").exists()


def test_a_relative_source_and_a_link_as_source(run: Run, rootfs: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("data")
    for source in ("./data", "link"):
        options = ["--rootfs", rootfs, "-v", f"{source}:/data"]
        assert run(*options, "cat", "/data/file", cwd=tmp_path).stdout == "from the host\n"


def test_a_volume_below_a_volume(run: Run, rootfs: Path, data: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    result = run("--rootfs", rootfs, "-v", f"{data}:/a/inner", "-v", f"{outer}:/a", "ls", "/a/inner")
    assert result.stdout == "file\n"


@pytest.mark.vm_once
@pytest.mark.parametrize("target", ["/", "../../../..", "/etc/../../.."])
def test_a_destination_through_a_link_stays_in_the_root(
    run: Run, rootfs: Path, data: Path, tmp_path: Path, target: str
) -> None:
    (rootfs / "link").symlink_to(target)
    result = run("--rootfs", rootfs, "-v", f"{data}:/link/place", "ls", "/place")
    assert result.stdout == "file\n"
    assert not Path("/place").exists()


def test_a_destination_through_a_link_to_a_place_of_the_host_is_made_inside(
    run: Run, rootfs: Path, data: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (rootfs / "link").symlink_to(victim)
    result = run("--rootfs", rootfs, "-v", f"{data}:/link/sub", "true")
    assert result.returncode in (0, 125)
    assert list(victim.iterdir()) == []


def test_a_destination_with_dots_stays_in_the_root(run: Run, rootfs: Path, data: Path, tmp_path: Path) -> None:
    result = run("--rootfs", rootfs, "-v", f"{data}:/../../../place", "ls", "/place")
    assert (result.stdout, result.returncode) in (("file\n", 0), ("", 125))
    assert not Path("/place").exists()
    assert not (tmp_path / "place").exists()


def test_a_volume_cannot_be_put_over_proc_through_a_link(run: Run, rootfs: Path, data: Path) -> None:
    (rootfs / "link").symlink_to("/proc/self")
    run("--rootfs", rootfs, "-v", f"{data}:/link/attr", "true")
    assert run("--rootfs", rootfs, "ls", "/proc/self/attr").stdout != "file\n"


@pytest.mark.vm_once
def test_a_tmpfs_is_empty_writable_and_of_its_size(run: Run, rootfs: Path) -> None:
    script = "ls -A /etc; dd if=/dev/zero of=/etc/x bs=64k count=32 2>&1 | grep -o 'No space left'; stat -c %s /etc/x"
    result = run("--rootfs", rootfs, "--tmpfs", "/etc:size=1m", "sh", "-c", script)
    assert result.stdout == "No space left\n1048576\n"
    assert (rootfs / "etc/passwd").exists()


def test_a_tmpfs_over_the_hosts_root(run: Run, data: Path) -> None:
    result = run("--tmpfs", f"{data}", "sh", "-c", f"ls {data}; touch {data}/x; ls {data}")
    assert result.stdout == "x\n"
    assert os.listdir(data) == ["file"]


def test_the_options_of_a_tmpfs(run: Run, rootfs: Path) -> None:
    def mounted(options: str) -> str:
        script = "grep ' /t ' /proc/mounts; stat -c %a /t"
        return run("--rootfs", rootfs, "--tmpfs", f"/t{options}", "sh", "-c", script).stdout

    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounted("").split()[3].split(","))
    assert mounted("").split()[-1] == "1777"
    assert mounted(":mode=700").split()[-1] == "700"
    assert "ro" in mounted(":ro").split()[3].split(",")
    assert "noexec" not in mounted(":exec")


@pytest.mark.vm
def test_the_cgroups_are_the_containers_own_where_a_volume_shows_the_hosts(run: Run) -> None:
    """On v2 the view is mounted on what is the same file system: mount(2) refuses that (EBUSY)."""
    look = 'ls -d /sys/fs/cgroup/mydocker /sys/fs/cgroup/*/mydocker; head -n 1 /sys/fs/cgroup"$0"'
    hierarchy = Layout.read().require("pids")
    file = f"{hierarchy.mountpoint}/pids.max".removeprefix("/sys/fs/cgroup")
    result = run("-v", "/sys/fs/cgroup:/sys/fs/cgroup", "--pids-limit", "33", "sh", "-c", look, file)
    assert result.stdout == "33\n", result.stderr


def test_what_cannot_be_mounted_is_said_in_one_sentence(run: Run, rootfs: Path, data: Path) -> None:
    (rootfs / "file").touch()
    for options in (["-v", f"{data}:/file"], ["--tmpfs", "/file"], ["-v", f"{data}/file:/bin"]):
        result = run("--rootfs", rootfs, *options, "true")
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (125, "", 1), result.stderr
        assert options[1].rpartition(":")[2] in result.stderr


def test_from_python(rootfs: Path, data: Path) -> None:
    mounts = [Volume(source=str(data), destination="/data", readonly=True), Tmpfs(destination="/t", size=65536)]
    script = "cat /data/file; touch /data/x 2>/dev/null || echo refused; head -c 100000 /dev/zero >/t/x || echo full"
    result = mydocker.run(["sh", "-c", script], rootfs=rootfs, mounts=mounts, capture_output=True, text=True)
    assert result.stdout == "from the host\nrefused\nfull\n"
