"""`mydocker-oci` as a plain user: the bundle that ``spec --rootless`` writes, and processes put into its container."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Call = Callable[..., CompletedProcess[str]]

MAIN = "from mydocker.oci.main import main; main()"


@pytest.fixture
def call(user: Any) -> Call:
    """``mydocker-oci`` with these arguments, as the user."""

    def as_user(*arguments: str | Path, **options: Any) -> CompletedProcess[str]:
        command = (user.python, "-c", MAIN, "--root", user.home / "oci", *arguments)
        done: CompletedProcess[str] = user.call(*command, **options)
        return done

    return as_user


@pytest.fixture
def bundle(user: Any, users_rootfs: Path, call: Call) -> Path:
    done = call("spec", "--rootless", cwd=user.home)
    assert done.returncode == 0, done.stderr
    return users_rootfs.parent


@pytest.fixture
def box(bundle: Path, call: Call, user: Any) -> Iterator[str]:
    """A container that does nothing for a while."""
    change(bundle, args=["sleep", "1000"], terminal=False, oomScoreAdj=321)
    with (bundle / "output").open("w") as f:
        done = call("run", "--detach", "--bundle", bundle, "box", capture_output=False, stdout=f, stderr=f)
    assert done.returncode == 0, (bundle / "output").read_text()
    yield "box"
    assert call("delete", "--force", "box").returncode == 0


def change(bundle: Path, **entries: Any) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(entries)
    (bundle / "config.json").write_text(json.dumps(config))


def test_run(bundle: Path, call: Call) -> None:
    change(bundle, args=["sh", "-c", "id -u; hostname; exit 5"], terminal=False)
    done = call("run", "--bundle", bundle, "first")
    assert (done.returncode, done.stdout.split()[0]) == (5, "0"), done.stderr
    assert json.loads(call("list", "--format", "json").stdout or "[]") in ([], None)


def test_a_cgroup_that_is_asked_for_is_made_or_nothing_runs(bundle: Path, call: Call) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(args=["touch", "/tmp/ran"], terminal=False)
    config["linux"]["cgroupsPath"] = "/mydocker-test-of-a-plain-user"
    (bundle / "config.json").write_text(json.dumps(config))
    done = call("run", "--bundle", bundle, "first")
    assert done.returncode == 1
    assert "unable to apply cgroup configuration" in done.stderr
    assert "permission denied" in done.stderr
    assert "does not exist" in call("state", "first").stderr


def test_what_nobody_could_find_is_warned_of(bundle: Path, call: Call) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(args=["true"], terminal=False)
    for with_pid in (True, False):
        entries = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [entry for entry in entries if with_pid or entry["type"] != "pid"]
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "proc"]
        (bundle / "config.json").write_text(json.dumps(config))
        done = call("run", "--bundle", bundle, "first")
        assert done.returncode == 0, done.stderr
        assert ("strongly discouraged" in done.stderr) == (not with_pid)


def test_exec_is_in_the_users_namespace(box: str, call: Call, user: Any) -> None:
    pid = json.loads(call("state", box).stdout)["pid"]
    script = "id -u; readlink /proc/self/ns/user; grep CapEff /proc/self/status"
    done = call("exec", "--cap", "CAP_SYS_ADMIN", box, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    uid, namespace, effective = done.stdout.splitlines()
    assert uid == "0"
    assert namespace == os.readlink(f"/proc/{pid}/ns/user")
    assert int(effective.split()[1], 16) >> 21 & 1
    assert call("exec", box, "sh", "-c", "exit 7").returncode == 7
    done = call("exec", box, "nonsense")
    assert (done.returncode, "executable file not found in $PATH" in done.stderr) == (255, True)


def test_what_is_set_by_pid(box: str, call: Call, user: Any) -> None:
    """The score of a process that may not be looked into is root's to change: it has set it itself before."""
    assert call("exec", box, "cat", "/proc/1/oom_score_adj").stdout == "321\n"
    process = {
        "args": ["sh", "-c", "cat /proc/self/oom_score_adj; ulimit -n"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "oomScoreAdj": 400,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
    }
    path = user.home / "process.json"
    path.write_text(json.dumps(process))
    done = call("exec", "--process", path, box)
    assert done.stdout == "400\n10\n", done.stderr
    path.write_text(json.dumps({**process, "oomScoreAdj": -400}))
    done = call("exec", "--process", path, box)
    assert done.returncode == 255
    assert "process.oomScoreAdj" in done.stderr


def test_terminal(box: str, call: Call) -> None:
    done = call("exec", "--tty", box, "tty", stdin=subprocess.DEVNULL)
    assert "/dev/pts/0" in done.stdout, done.stderr


def test_processes(box: str, call: Call) -> None:
    pid = json.loads(call("state", box).stdout)["pid"]
    assert json.loads(call("ps", "--format", "json", box).stdout) == [pid]
