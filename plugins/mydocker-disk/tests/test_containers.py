"""Real containers that write more than they may. The kinds of backing in turn: an image on disk, memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mydocker_disk import backing

from mydocker import CommandNotFound, Result

Run = Callable[..., Result]

MB = 1 << 20


@pytest.fixture(params=["image", "tmpfs"])
def run(request: pytest.FixtureRequest, run_container: Run) -> Run:
    def run_on(script: str, disk: str = "8m", **keywords: object) -> Result:
        return run_container(["sh", "-c", script], disk=disk, disk_backing=request.param, overlay=True, **keywords)

    return run_on


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory of the host that must survive."""
    directory = tmp_path / "precious"
    directory.mkdir()
    (directory / "file").write_text("old")
    return directory


def test_it_may_write_so_much_and_no_more(run: Run, precious: Path) -> None:
    result = run(f"cd {precious}; head -c 7M /dev/zero >a && echo fits; head -c 2M /dev/zero >b || echo full; wc -c <a")
    assert result.stdout == f"fits\nfull\n{7 * MB}\n"
    assert "No space left on device" in result.stderr  # type: ignore[operator]
    assert sorted(os.listdir(precious)) == ["file"]


def test_the_hosts_files_are_as_they_were(run: Run, precious: Path) -> None:
    result = run(f"cd {precious}; echo new >file; rm -f /etc/hostname; touch added; cat file; head -c 20M /dev/zero >x")
    assert result.stdout == "new\n"
    assert (precious / "file").read_text() == "old"
    assert os.listdir(precious) == ["file"]


def test_all_mounts_of_the_host_share_the_room(run: Run, precious: Path) -> None:
    """Each mount of the host is an overlay of its own; /dev/shm is none."""
    result = run(f"head -c 5M /dev/zero >{precious}/a && head -c 5M /dev/zero >/root/mydocker-disk-test || echo full")
    assert result.stdout == "full\n"
    assert not Path("/root/mydocker-disk-test").exists()


def test_a_file_of_the_host_that_is_changed_counts_with_all_its_bytes(run: Run, precious: Path) -> None:
    (precious / "big").write_bytes(bytes(6 * MB))
    result = run(f"cd {precious}; echo more >>big && echo changed; head -c 4M /dev/zero >x || echo full")
    assert result.stdout == "changed\nfull\n"
    assert (precious / "big").stat().st_size == 6 * MB


def test_what_is_used_at_the_end_is_reported(run: Run, precious: Path) -> None:
    result = run(f"cd {precious}; head -c 3M /dev/urandom >a; head -c 4M /dev/urandom >b; rm b; sync a")
    used = result.usage.plugins["disk"]
    assert used["disk_limit_bytes"] == 8 * MB
    assert 3 * MB <= used["disk_used_bytes"] < 4 * MB


def test_memory_on_disk_is_not_the_containers(run_container: Run, precious: Path) -> None:
    """What is kept on disk can be written back: it does not use up the limit of the memory."""
    script = f"head -c 64M /dev/zero >{precious}/a && echo fits"
    result = run_container(["sh", "-c", script], disk="100m", memory="16m", overlay=True)
    assert (result.stdout, result.oom_kills) == ("fits\n", 0)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of this test's images. What a killed runtime leaves of its state is this test's alone too."""
    directory = tmp_path / "images"
    directory.mkdir()
    monkeypatch.setenv("MYDOCKER_DISK_DIR", str(directory))
    monkeypatch.setenv("MYDOCKER_STATE_DIR", str(tmp_path / "state"))
    return directory


def test_a_command_that_fails_and_one_that_is_killed_leave_nothing(
    run_container: Run, images: Path, eventually: Callable[..., None]
) -> None:
    descriptors = os.listdir("/proc/self/fd")
    assert run_container(["false"], disk="8m", overlay=True).exit_code == 1
    with pytest.raises(CommandNotFound):
        run_container(["no-such-command"], disk="8m", overlay=True)
    assert run_container(["sleep", "1000"], disk="8m", overlay=True, timeout=0.2).reason == "timeout"
    nothing_left(images, eventually)
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_runtime_that_is_killed_leaves_nothing(
    run_container: Run, images: Path, eventually: Callable[..., None]
) -> None:
    run_container(["true"], disk="8m", overlay=True)  # or this is skipped
    process = mydocker("run", "--overlay", "--disk", "8m", "sh", "-c", "echo full >/root/x; cat /root/x; sleep 1000")
    assert process.stdout is not None and process.stdout.readline() == "full\n"
    assert any(str(images) in file for file in loop_files())
    assert os.listdir(images) == []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    nothing_left(images, eventually)


def test_a_runtime_that_is_killed_at_any_moment_leaves_nothing(
    run_container: Run, images: Path, eventually: Callable[..., None]
) -> None:
    run_container(["true"], disk="8m", overlay=True)
    for milliseconds in range(5, 80, 5):
        process = mydocker("run", "--overlay", "--disk", "8m", "sleep", "1000")
        try:
            process.wait(milliseconds / 1000)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    nothing_left(images, eventually)


def mydocker(*arguments: str) -> subprocess.Popen[str]:
    script = shutil.which("mydocker", path=str(Path(sys.executable).parent)) or shutil.which("mydocker")
    command = [script] if script else [sys.executable, "-m", "mydocker"]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def loop_files() -> list[str]:
    """The files behind the loop devices of this host."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(path.read_text().strip())
        except OSError:  # let go of in this moment
            continue
    return found


def nothing_left(directory: Path, eventually: Callable[..., None]) -> None:
    eventually(lambda: not any(str(directory) in file for file in loop_files()))
    assert os.listdir(directory) == []


def test_it_is_refused_where_no_image_can_be_made(run_container: Run, tmp_path: Path) -> None:
    if not backing.image_problem():
        pytest.skip("this host can make images")
    process = mydocker("run", "--overlay", "--disk", "8m", "touch", str(tmp_path / "ran"))
    assert process.communicate()[1].startswith("mydocker: --disk: ")
    assert process.returncode == 125
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["image", "tmpfs"])
def test_what_is_used_can_be_read_while_it_runs(run_container: Run, images: Path, kind: str) -> None:
    """By another process than the runtime, as mydocker stats does: here this one."""
    import mydocker_disk

    from mydocker import ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

    run_container(["true"], disk="8m", disk_backing=kind, memory="64m", overlay=True)  # or this is skipped
    name = f"disk-{kind}-{os.getpid()}"
    script = f"trap 'exit 0' TERM; head -c 3M /dev/urandom >{images}/x; sync; echo full; while :; do sleep 0.1; done"
    flags = ["--name", name, "--overlay", "--disk", "8m", "--disk-backing", kind, "-mem", "64m"]
    process = mydocker("run", *flags, "sh", "-c", script)
    try:
        assert process.stdout is not None and process.stdout.readline() == "full\n"
        cgroup = ContainerCgroup.opened(Layout.read(), f"mydocker/{name}")
        used = mydocker_disk.mydocker_usage(ResourceConfig({"disk": 8 * MB}), cgroup)
    finally:
        process.terminate()
        process.communicate()
    assert 3 * MB <= used["disk_used_bytes"] < 4 * MB
