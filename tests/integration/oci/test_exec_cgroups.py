"""The cgroups of a process that ``exec`` puts into a container."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.vm


@pytest.fixture
def box(ours: Any, bundle: Any, cid: str) -> str:
    for done in (ours.create(bundle("sleep", "1000"), cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    return cid


def cgroups(pid: int | str) -> dict[str, str]:
    """Controllers (empty for v2) to the path of the cgroup, as the host sees it."""
    lines = (line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    return {controllers: path for _, controllers, path in lines}


def put(ours: Any, directory: Path, *options: str | Path) -> str:
    """The PID of a process that was put into the container."""
    with (directory / "stderr").open("w") as f:
        done = ours("exec", "--detach", "--pid-file", directory / "pid", *options, "sleep", "1000", stdout=f, stderr=f)
    assert done.returncode == 0, (directory / "stderr").read_text()
    return (directory / "pid").read_text()


def directories(ours: Any, box: str) -> list[Path]:
    """The container's cgroup in each hierarchy, by the place of its first process."""
    own = set(cgroups(ours.state(box)["pid"]).values())
    assert len(own) == 1, own
    path = own.pop().lstrip("/")
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    mounts = [Path(line[4]) for line in lines if line[line.index("-") + 1] in ("cgroup", "cgroup2")]
    return [mount / path for mount in mounts if (mount / path).is_dir()]


def make_below(directory: Path, *names: str) -> None:
    """A cgroup in a cgroup. On v1 a new cpuset has no CPU, and takes no process before it has one."""
    for name in names:
        new = directory / name
        new.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems") if not (new / "cgroup.type").exists() else ():
            if (new / file).exists():
                (new / file).write_text((directory / file).read_text())
        directory = new


def test_those_of_the_container_in_every_hierarchy(ours: Any, box: str, tmp_path: Path) -> None:
    assert cgroups(put(ours, tmp_path, box)) == cgroups(ours.state(box)["pid"])


def test_it_is_there_before_it_runs(ours: Any, box: str) -> None:
    done = ours("exec", box, "cat", "/proc/1/cgroup", "/proc/self/cgroup")
    lines = done.stdout.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_limit_holds_for_it(ours: Any, bundle: Any, cid: str) -> None:
    made = bundle("sleep", "1000", linux__resources={"pids": {"limit": 6}})
    for done in (ours.create(made, cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    script = "for i in 1 2 3 4 5 6 7; do sleep 5 & done; wait"
    done = ours("exec", cid, "sh", "-c", script)
    assert "fork" in done.stderr
    assert ours("exec", cid, "true").returncode == 0


def test_a_cgroup_below(ours: Any, box: str, tmp_path: Path) -> None:
    for directory in directories(ours, box):
        make_below(directory, "below", "it")
    own = cgroups(ours.state(box)["pid"])
    found = cgroups(put(ours, tmp_path, "--cgroup", "/below/it", box))
    assert found == {controllers: f"{path}/below/it" for controllers, path in own.items()}
    assert int((tmp_path / "pid").read_text()) in json.loads(ours("ps", "--format", "json", box).stdout)


def test_a_cgroup_below_for_one_controller(ours: Any, box: str, tmp_path: Path) -> None:
    own = cgroups(ours.state(box)["pid"])
    for directory in directories(ours, box):
        make_below(directory, "below")
    found = cgroups(put(ours, tmp_path, "--cgroup", "memory:below", box))
    below = {controllers for controllers, path in found.items() if path != own[controllers]}
    named = next((controllers for controllers in own if "memory" in controllers.split(",")), "")
    assert below == {named}
    assert found[named] == f"{own[named]}/below"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("nowhere", "/nowhere/cgroup.procs: no such file or directory"),
        ("../x", "not a sub cgroup path"),
        ("nonsense:x", "unknown controller nonsense"),
    ],
)
def test_a_cgroup_that_is_none(path: str, named: str, ours: Any, box: str) -> None:
    done = ours("exec", "--cgroup", path, box, "true")
    assert done.returncode == 255
    assert named in done.stderr
    assert json.loads(ours("ps", "--format", "json", box).stdout) == [ours.state(box)["pid"]]


def test_first_process_in_a_cgroup_of_its_own_making(ours: Any, box: str, tmp_path: Path) -> None:
    """As systemd does it: on v2 the container's own cgroup then takes no process any more."""
    pid = ours.state(box)["pid"]
    unified = [directory for directory in directories(ours, box) if (directory / "cgroup.type").exists()]
    given = (unified[0] / "cgroup.controllers").read_text().split() if unified else []
    if not given:  # then there is no such rule, and the process goes where the container's is
        assert cgroups(put(ours, tmp_path, box)) == cgroups(pid)
        return
    (unified[0] / "init.scope").mkdir()
    (unified[0] / "init.scope/cgroup.procs").write_text(str(pid))
    (unified[0] / "cgroup.subtree_control").write_text(f"+{given[0]}")
    assert cgroups(put(ours, tmp_path, box))[""] == cgroups(pid)[""]
    assert cgroups(pid)[""].endswith("/init.scope")


def test_frozen_container_takes_it_when_thawed(ours: Any, box: str) -> None:
    assert ours("pause", box).returncode == 0
    with subprocess.Popen([*ours.command, "--root", ours.root, "exec", "--ignore-paused", box, "true"]) as caller:
        os.waitid(os.P_PID, caller.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert ours("resume", box).returncode == 0
        assert caller.wait(30) == 0
