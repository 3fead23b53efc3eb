"""A kernel that makes no user namespace for a plain user: one sentence that names the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.vm

DEBIANS_SWITCH = Path("/proc/sys/kernel/unprivileged_userns_clone")


def one_sentence(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 125
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_no_user_namespaces_by_sysctl(stranger: Any) -> None:
    """The sysctl is one of each user namespace: it is set to 0 in one that is made for this."""
    script = (
        "echo 0 >/proc/sys/user/max_user_namespaces && "
        f"exec setpriv --reuid={stranger.uid} --regid={stranger.gid} --clear-groups "
        f"{stranger.python} -m mydocker run true 2>&1"
    )
    # One more sh: the first was executed as nobody, without the capabilities that root has once the ids are mapped.
    wait = f"echo made; read mapped; exec sh -c '{script}'"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["unshare", "--user", "sh", "-c", wait],
        env=stranger.environment,
        cwd=stranger.home,
        stdin=pipe,
        stdout=pipe,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        for kind in ("uid", "gid"):
            Path(f"/proc/{process.pid}/{kind}_map").write_text("0 0 4294967295")
        output, _ = process.communicate("mapped\n")
    assert process.returncode == 125
    assert "the sysctl user.max_user_namespaces is 0: have root set it with sysctl -w" in output


@pytest.fixture
def no_unprivileged_clone() -> Iterator[None]:
    if not DEBIANS_SWITCH.exists():
        pytest.skip("this kernel has no sysctl kernel.unprivileged_userns_clone, which is Debian's")
    before = DEBIANS_SWITCH.read_text()
    DEBIANS_SWITCH.write_text("0")
    yield
    DEBIANS_SWITCH.write_text(before)


@pytest.mark.usefixtures("no_unprivileged_clone")
def test_no_unprivileged_clone_by_sysctl(user: Any) -> None:
    error = one_sentence(user.run("true"))
    assert "kernel.unprivileged_userns_clone is 0: have root set it with sysctl -w" in error


def test_a_process_that_has_changed_its_id(stranger: Any) -> None:
    """A daemon that was started as root: the kernel keeps its files in /proc from its new user (proc(5))."""
    code = f"""if True:
        import os, mydocker
        os.setgroups([])
        os.setgid({stranger.gid})
        os.setuid({stranger.uid})
        try:
            mydocker.run(["true"])
        except mydocker.MydockerError as e:
            print(e)
    """
    result = subprocess.run(
        [stranger.python, "-c", code],
        env=stranger.environment,
        cwd=stranger.home,
        capture_output=True,
        text=True,
        check=False,
    )
    # The helper that clones for it was started as this user.
    assert (result.stdout, result.returncode) == ("", 0), result.stderr
    assert os.listdir(stranger.runtime) in ([], ["mydocker"])


def test_a_rootfs_that_the_user_may_not_write(stranger: Any, rootfs: Path) -> None:
    """It has no /proc to mount on, and the user cannot make it."""
    place = stranger.home / "roots"
    shutil.move(rootfs, place)
    result = stranger.run("--rootfs", place, "true")
    assert "Permission denied" in one_sentence(result)


def test_a_host_that_is_a_container_with_parts_of_proc_covered(stranger: Any) -> None:
    mydocker = stranger.command((stranger.python, "-m", "mydocker", "run", "true"))
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /proc/interrupts && exec "$@"', "sh", *mydocker],
        env=stranger.environment,
        cwd=stranger.home,
        capture_output=True,
        text=True,
        check=False,
    )
    error = one_sentence(result)
    assert "cannot mount /proc: Operation not permitted" in error
    assert "parts of /proc are covered here" in error
