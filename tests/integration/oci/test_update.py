"""mydocker-oci update: all or nothing, from options and from JSON; and what mydocker itself does to such containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

LAYOUT = Layout.read()


@pytest.fixture
def running(ours, bundle, cid):
    """A container with some limits that runs; the function reads the limits that the kernel has."""
    resources = {
        "memory": {"limit": 64 << 20, "swap": 100 << 20},
        "pids": {"limit": 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000},
    }
    made = bundle("sleep", "1000", linux__resources=resources)
    assert ours.create(made, cid).returncode == 0
    assert ours("start", cid).returncode == 0
    cgroup = json.loads((made / "config.json").read_text())["linux"]["cgroupsPath"]

    def read(controller: str, *names: str) -> str:
        for name in names:
            file = Path(f"{LAYOUT.require(controller).mountpoint}{cgroup}") / name
            if file.exists():
                return file.read_text().strip()
        raise AssertionError(names)

    return read


def memory(read) -> int:
    return int(read("memory", "memory.limit_in_bytes", "memory.max"))


def with_swap(read) -> int:
    """Of both together."""
    if LAYOUT.version("memory") == 1:
        return int(read("memory", "memory.memsw.limit_in_bytes"))
    return int(read("memory", "memory.swap.max")) + memory(read)


def quota(read) -> list[str]:
    if LAYOUT.version("cpu") == 1:
        return [read("cpu", "cpu.cfs_quota_us"), read("cpu", "cpu.cfs_period_us")]
    return read("cpu", "cpu.max").split()


def test_single_options(ours, running, cid):
    options = ("--memory", "80m", "--memory-swap", "90m", "--pids-limit", "30", "--cpu-quota", "20000")
    done = ours("update", *options, cid)
    assert (done.returncode, done.stderr) == (0, "")
    assert (memory(running), with_swap(running)) == (80 << 20, 90 << 20)
    assert running("pids", "pids.max") == "30"
    assert quota(running) == ["20000", "100000"]


def test_what_is_not_named_stays(ours, running, cid):
    assert ours("update", "--pids-limit", "30", cid).returncode == 0
    assert (memory(running), with_swap(running)) == (64 << 20, 100 << 20)
    assert ours("update", "--memory", "70m", cid).returncode == 0
    assert (memory(running), with_swap(running)) == (70 << 20, 100 << 20)
    assert ours("update", "--cpu-period", "50000", cid).returncode == 0
    assert quota(running) == ["50000", "50000"]


def test_limits_that_are_lifted(ours, running, cid):
    assert ours("update", "--memory-swap", "-1", cid).returncode == 0
    assert memory(running) == 64 << 20
    if LAYOUT.version("memory") == 2:
        assert running("memory", "memory.swap.max") == "max"
    else:
        assert with_swap(running) > 1 << 60
    assert ours("update", "--memory-swap", "80m", cid).returncode == 0
    assert ours("update", "--memory", "-1", cid).returncode == 0
    assert running("memory", "memory.max", "memory.limit_in_bytes") in ("max", str((1 << 63) - 4096))
    assert ours("update", "--memory", "70m", cid).returncode == 0
    assert memory(running) == 70 << 20


@pytest.mark.parametrize("source", ["-", "file"])
def test_json(ours, running, cid, tmp_path, source):
    resources = {"memory": {"limit": 80 << 20, "swap": 0}, "cpu": {"quota": -1, "shares": 0}, "pids": {"limit": -1}}
    (tmp_path / "resources.json").write_text(json.dumps(resources))
    name = "-" if source == "-" else str(tmp_path / "resources.json")
    done = ours("update", "--resources", name, cid, input=json.dumps(resources) if source == "-" else "")
    assert (done.returncode, done.stderr) == (0, "")
    assert (memory(running), with_swap(running)) == (80 << 20, 100 << 20)
    assert quota(running)[0] in ("-1", "max")
    assert running("pids", "pids.max") == "max"


def test_all_or_nothing(ours, running, cid):
    resources = {"pids": {"limit": 33}, "cpu": {"quota": 20000}, "memory": {"limit": 200 << 20}}
    done = ours("update", "-r", "-", cid, input=json.dumps(resources))
    assert done.returncode == 1
    assert "memory_swap: 100m is less than" in done.stderr
    assert running("pids", "pids.max") == "20"
    assert quota(running) == ["50000", "100000"]
    assert memory(running) == 64 << 20


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (("--memory", "1000"), "", "linux.resources.memory.limit: 1000 bytes is less than the minimum, 512k"),
        (("--memory", "much"), "", "invalid value for memory: much"),
        (("--pids-limit", "few"), "", "invalid value for pids-limit: few"),
        (("--cpu-idle", "3"), "", "linux.resources.cpu.idle: 3 is neither 0 nor 1"),
        (("--l3-cache-schema", "L3:0=f"), "", "l3-cache-schema"),
        (("-r", "-"), "{", "is no JSON"),
        (("-r", "-"), '{"memory": {"limit": "64m"}}', "memory.limit"),
        (("-r", "/nowhere/x"), "", "open /nowhere/x: no such file or directory"),
    ],
)
def test_what_is_refused(ours, running, cid, arguments, text, words):
    done = ours("update", *arguments, cid, input=text)
    assert done.returncode == 1
    assert words in done.stderr.replace('\\"', '"')
    assert (memory(running), running("pids", "pids.max")) == (64 << 20, "20")


def test_devices_stay(ours, running, cid):
    """An engine sends the rules of a container without what else it was given."""
    before = running("devices", "devices.list") if LAYOUT.find("devices") else ""
    text = json.dumps({"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 25}})
    assert ours("update", "-r", "-", cid, input=text).returncode == 0
    assert (running("devices", "devices.list") if LAYOUT.find("devices") else "") == before
    assert running("pids", "pids.max") == "25"


def test_obsolete_limits_are_said_to_be_so(ours, running, cid):
    done = ours("update", "--kernel-memory", "10m", cid)
    assert done.returncode == 0
    assert "without effect" in done.stderr


def test_only_a_container_that_is_there(ours, bundle, cid, stopped):
    assert "does not exist" in ours("update", "--pids-limit", "3", cid).stderr
    made = bundle("sleep", "1000")
    assert ours.create(made, cid).returncode == 0
    assert ours("update", "--pids-limit", "30", cid).returncode == 0, "it is created"
    assert ours("kill", cid, "KILL").returncode == 0
    stopped(ours, cid)
    done = ours("update", "--pids-limit", "3", cid)
    assert (done.returncode, "container not running" in done.stderr) == (1, True)


def test_pause_and_resume(ours, running, cid):
    assert ours("pause", cid).returncode == 0
    assert ours.state(cid)["status"] == "paused"
    assert "already paused" in ours("pause", cid).stderr
    assert ours("resume", cid).returncode == 0
    assert ours.state(cid)["status"] == "running"
    done = ours("resume", cid)
    assert (done.returncode, "container not paused" in done.stderr) == (1, True)


def test_a_paused_container_can_be_updated_and_deleted(ours, running, cid):
    assert ours("pause", cid).returncode == 0
    assert ours("update", "--pids-limit", "30", cid).returncode == 0
    assert running("pids", "pids.max") == "30"
    assert ours("delete", "--force", cid).returncode == 0


def test_the_peoples_command_line_knows_it(ours, running, cid):
    def mydocker(*arguments: str) -> subprocess.CompletedProcess[str]:
        script = str(Path(sys.executable).with_name("mydocker"))
        return subprocess.run(
            [script, *arguments], capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
        )

    assert mydocker("update", cid, "--pids-limit", "44").returncode == 0
    assert running("pids", "pids.max") == "44"
    assert mydocker("pause", cid).returncode == 0
    assert ours.state(cid)["status"] == "paused"
    assert mydocker("unpause", cid).returncode == 0
    (line,) = [line for line in mydocker("stats", "--no-stream").stdout.splitlines() if line.startswith(cid)]
    assert "64MiB" in line
    assert ours("update", "--memory", "80m", cid).returncode == 0
    (line,) = [line for line in mydocker("stats", "--no-stream").stdout.splitlines() if line.startswith(cid)]
    assert "80MiB" in line


def test_shares_of_the_cache_need_a_host_that_can_divide_it(ours, bundle, cid):
    """Such a file system is on few hosts: what is done on one is tested on an imitation."""
    if "resctrl" in Path("/proc/self/mountinfo").read_text():
        pytest.skip("this host has a resctrl file system")
    done = ours.create(bundle("true", linux__intelRdt={"l3CacheSchema": "L3:0=f"}), cid)
    assert done.returncode == 1
    assert "linux.intelRdt: no resctrl file system is mounted on this host" in done.stderr
    assert "does not exist" in ours("state", cid).stderr


def test_an_idle_container_keeps_its_shares(ours, running, cid):
    """The kernel takes none for it, and they count again when it is idle no longer."""
    names = ("cpu.shares", "cpu.weight")
    before = running("cpu", *names)
    for idle in ("1", "0", "1"):
        done = ours("update", "-r", "-", cid, input=json.dumps({"cpu": {"idle": int(idle)}}))
        assert done.returncode == 0, done.stderr
        assert running("cpu", "cpu.idle") == idle
        assert (running("cpu", *names) == before) == (idle == "0")
    assert ours("update", "--cpu-period", "50000", cid).returncode == 0
    assert running("cpu", "cpu.idle") == "1"
    done = ours("update", "--cpu-share", "300", cid)
    assert done.returncode == 1
    assert "an idle container has less than any share" in done.stderr


@pytest.mark.skipif(LAYOUT.version("cpu") != 2, reason="v1 has no weights")
def test_a_weight_takes_the_place_of_shares(ours, running, cid):
    for resources in ({"unified": {"cpu.weight": "16"}}, {"pids": {"limit": 10}}):
        done = ours("update", "-r", "-", cid, input=json.dumps(resources))
        assert done.returncode == 0, done.stderr
        assert running("cpu", "cpu.weight") == "16"
