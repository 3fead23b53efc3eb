"""mydocker doctor for a plain user: each claim beside what that user can do."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups.layout import Hierarchy, Layout

pytestmark = pytest.mark.vm

FLAGS = {"mnt": "-m", "uts": "-u", "ipc": "-i", "pid": "-pf", "net": "-n", "cgroup": "-C", "time": "-T"}


class Examination:
    """What doctor says: its exit code and the checks by group and name."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stderr == ""
        report = json.loads(done.stdout)
        self.works: bool = report["works"]
        assert (done.returncode == 0) == self.works
        self._checks = {(check["group"], check["name"]): check for check in report["checks"]}

    def __getitem__(self, name: tuple[str, str]) -> dict[str, str]:
        return self._checks[name]

    def ok(self, group: str, name: str) -> bool:
        return self._checks[group, name]["status"] == "ok"


def examine(user: Any, **options: Any) -> Examination:
    return Examination(user.call(user.python, "-m", "mydocker", "doctor", "--format", "json", **options))


def test_its_verdict_is_that_of_a_run(user: Any) -> None:
    found = examine(user)
    assert found.works == (user.run("true").returncode == 0)
    assert found.ok("kernel", "overlayfs") == (user.run("--overlay", "true").returncode == 0)
    for name in ("state directory", "leftovers", "plugin cache"):
        assert found.ok("mydocker", name), name


def test_namespaces_can_be_made_where_unshare_can(user: Any) -> None:
    found = examine(user)
    assert found.ok("namespaces", "user") == (user.call("unshare", "-U", "true").returncode == 0)
    for kind, flag in FLAGS.items():
        assert found.ok("namespaces", kind) == (user.call("unshare", "-Ur", flag, "true").returncode == 0), kind


def test_without_user_namespaces_it_says_which_switch(stranger: Any) -> None:
    """The sysctl is one of each user namespace: it is set to 0 in one that is made for this."""
    script = (
        "echo 0 >/proc/sys/user/max_user_namespaces && "
        f"exec setpriv --reuid={stranger.uid} --regid={stranger.gid} --clear-groups "
        f"{stranger.python} -m mydocker doctor --format json"
    )
    # sh once more: the first is nobody until the ids are mapped, and has no capabilities.
    command = ["unshare", "--user", "sh", "-c", f"echo made; read mapped; exec sh -c '{script}'"]
    pipe = subprocess.PIPE
    settings = {"env": stranger.environment, "cwd": stranger.home, "stdin": pipe, "stdout": pipe, "stderr": pipe}
    with subprocess.Popen(command, text=True, **settings) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        for kind in ("uid", "gid"):
            Path(f"/proc/{process.pid}/{kind}_map").write_text("0 0 4294967295")
        output, errors = process.communicate("mapped\n")
    found = Examination(subprocess.CompletedProcess([], process.returncode, output, errors))
    assert not found.works
    assert found["namespaces", "user"]["status"] == "missing"
    assert found["namespaces", "user"]["advice"].startswith("sysctl -w user.max_user_namespaces=")
    assert found["namespaces", "mnt"]["advice"] == "see user"


def test_subordinate_ids_are_those_that_a_container_has(stranger: Any, alice: Any) -> None:
    for user, many in ((stranger, False), (alice, True)):
        lines = user.run("cat", "/proc/self/uid_map").stdout.splitlines()
        assert (len(lines) > 1) == many
        check = examine(user)["namespaces", "subordinate ids"]
        assert (check["status"] == "ok") == many
        if not many:
            assert f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user.name}" in check["advice"]


def test_where_no_cgroup_is_delegated(stranger: Any, layout: Layout) -> None:
    found = examine(stranger)
    assert not os.path.exists(f"{layout.require('memory').base}/mydocker-{stranger.uid}")
    assert found["cgroups", "delegation"]["status"] == "missing"
    assert found["cgroups", "memory"]["advice"] == "see delegation"
    assert found["limits", "memory"]["status"] == "missing"
    assert stranger.run("-m", "64m", "true").returncode == 125


def test_a_prepared_cgroup(stranger: Any, prepare_cgroup: Callable[..., tuple[Hierarchy, Path]]) -> None:
    hierarchy, place = prepare_cgroup(stranger, "memory")
    outside = examine(stranger)
    assert outside.ok("cgroups", "memory") == (hierarchy.version == 1)
    assert outside.ok("cgroups", "memory") == (stranger.run("-m", "64m", "true").returncode == 0)
    if hierarchy.version == 2:
        assert "this process is not in it" in outside["cgroups", "delegation"]["fact"]
        follow(outside["cgroups", "delegation"]["advice"], os.getpid(), lambda: check_usable(stranger, place))
    else:
        check_usable(stranger, place)


def test_what_it_tells_root_to_do_helps(stranger: Any, layout: Layout) -> None:
    advice = examine(stranger)["cgroups", "delegation"]["advice"].partition(", and the same")[0]
    place = Path(layout.require("memory").base, f"mydocker-{stranger.uid}")
    try:
        follow(advice, os.getpid(), lambda: check_usable(stranger, place))
    finally:
        for directory, _, _ in os.walk(place, topdown=False):
            os.rmdir(directory)


def follow(advice: str, pid: int, then: Callable[[], None]) -> None:
    """Do as root what the advice says, go on in what it made, and come back."""
    before = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
    commands = advice.removeprefix("as root, ").partition("; ")[0]
    subprocess.run(["sh", "-ec", commands], env={"PID_OF_A_SHELL": str(pid), **os.environ}, check=True)
    try:
        then()
    finally:
        for hierarchy in Layout.read().hierarchies:
            if hierarchy.version == 2:
                Path(hierarchy.mountpoint + before, "cgroup.procs").write_text(str(pid))


def check_usable(user: Any, place: Path) -> None:
    found = examine(user)
    assert found.ok("cgroups", "memory") and found.ok("limits", "memory")
    assert str(place) in found["cgroups", "memory"]["fact"]
    assert found["cgroups", "delegation"]["status"] in ("ok", "warning")
    assert str(place) in found["cgroups", "delegation"]["fact"]
    assert user.run("-m", "64m", "true").returncode == 0
