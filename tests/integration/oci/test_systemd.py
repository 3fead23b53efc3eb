"""Containers in scopes of systemd: of an imitation of it on a bus of its own, which makes the scope's cgroup."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class Systemd:
    """What the imitation was told."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes

    def told(self) -> dict[str, Any]:
        return json.loads(self._notes.read_text())


@pytest.fixture
def systemd(tmp_path: Path, cgroup: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    pytest.importorskip("jeepney", reason="jeepney is not installed: pip install mydocker[systemd]")
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        pytest.skip("there is no dbus-daemon: apt-get install dbus-daemon")
    (tmp_path / "bus.conf").write_text(BUS.format(socket=tmp_path / "bus"))
    bus = subprocess.Popen([daemon, f"--config-file={tmp_path / 'bus.conf'}", "--nofork"])
    await_((tmp_path / "bus").exists)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    notes = tmp_path / "notes.json"
    script = Path(__file__).with_name("fake_systemd.py")
    manager = subprocess.Popen([sys.executable, script, notes, cgroup, *of_systemd()])
    try:
        await_(notes.exists)
        yield Systemd(notes)
    finally:
        for process in (manager, bus):
            process.terminate()
            process.wait()


def await_(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def of_systemd() -> list[str]:
    """The hierarchies in which systemd makes the cgroups of units: its own, and one with a controller."""
    hierarchies = Layout.read().hierarchies
    wanted = [one for one in hierarchies if one.version == 2 or {"name=systemd", "memory"} & set(one.controllers)]
    return [one.mountpoint for one in wanted]


def scope(name: str) -> str:
    return f"test-{name}.scope"


def systemd_bundle(bundle, name: str, *args: str, **changes: Any) -> Path:
    return bundle(*(args or ("sleep", "1000")), linux__cgroupsPath=f"user-test.slice:test:{name}", **changes)


def test_a_container_is_in_a_scope_of_its_own_in_every_hierarchy(systemd, ours, bundle, cid, cgroup):
    made = systemd_bundle(bundle, cid)
    done = ours("--systemd-cgroup", "create", "--bundle", made, cid, stdout=None, stderr=None)
    assert done.returncode == 0
    pid = ours.state(cid)["pid"]
    told = systemd.told()["units"][scope(cid)]
    assert told["Slice"] == "user-test.slice"
    assert told["Delegate"] is True
    for one in Layout.read().hierarchies:
        procs = Path(f"{one.mountpoint}{cgroup}/{scope(cid)}/cgroup.procs").read_text().split()
        assert procs == [str(pid)], one.mountpoint
    assert ours("delete", "--force", cid).returncode == 0
    assert systemd.told()["stopped"] == [scope(cid)]
    assert not any(os.path.exists(f"{one.mountpoint}{cgroup}/{scope(cid)}") for one in Layout.read().hierarchies)


def test_systemd_is_told_of_the_limits_and_of_their_change(systemd, ours, bundle, cid):
    resources = {
        "memory": {"limit": 64 << 20},
        "pids": {"limit": 40},
        "cpu": {"quota": 50000, "period": 100000},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    made = systemd_bundle(bundle, cid, linux__resources=resources)
    assert ours("--systemd-cgroup", "create", "--bundle", made, cid, stdout=None, stderr=None).returncode == 0
    told = systemd.told()["units"][scope(cid)]
    on_v1 = Layout.read().version("memory") == 1
    assert told["MemoryLimit" if on_v1 else "MemoryMax"] == 64 << 20
    assert told["TasksMax"] == 40
    assert told["CPUQuotaPerSecUSec"] == 500_000
    assert told["DevicePolicy"] == "strict"
    assert ["char-*", "m"] in told["DeviceAllow"]
    assert ours("update", "--pids-limit", "50", cid).returncode == 0
    assert systemd.told()["units"][scope(cid)]["TasksMax"] == 50


def test_properties_of_the_unit_from_annotations(systemd, ours, bundle, cid):
    annotations = {
        "org.systemd.property.TimeoutStopUSec": "uint64 123456789",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    made = systemd_bundle(bundle, cid, annotations=annotations)
    assert ours("--systemd-cgroup", "create", "--bundle", made, cid, stdout=None, stderr=None).returncode == 0
    told = systemd.told()["units"][scope(cid)]
    assert (told["TimeoutStopUSec"], told["CollectMode"]) == (123456789, "inactive-or-failed")


def test_what_systemd_refuses_leaves_nothing(systemd, ours, bundle, cid, cgroup):
    first = systemd_bundle(bundle, cid)
    assert ours("--systemd-cgroup", "create", "--bundle", first, cid, stdout=None, stderr=None).returncode == 0
    second = systemd_bundle(bundle, cid, linux__resources={"pids": {"limit": 5}})
    refused = ours("--systemd-cgroup", "create", "--bundle", second, f"{cid}-b")
    assert refused.returncode == 1
    assert "unit exists" in refused.stderr or "not empty" in refused.stderr
    assert "does not exist" in ours("state", f"{cid}-b").stderr
    assert ours.state(cid)["status"] == "created"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a/path", "expected cgroupsPath to be of format"),
        ("a/b.slice:p:n", "invalid slice name"),
        ("noslice:p:n", "invalid slice name"),
    ],
)
def test_a_path_that_is_none_of_systemds(ours, bundle, cid, path, words):
    refused = ours("--systemd-cgroup", "create", "--bundle", bundle(linux__cgroupsPath=path), cid)
    assert refused.returncode == 1
    assert words in refused.stderr


def test_a_host_without_systemd_is_told_in_one_sentence(ours, bundle, cid, tmp_path, monkeypatch):
    pytest.importorskip("jeepney", reason="jeepney is not installed: pip install mydocker[systemd]")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'none'}")
    refused = ours("--systemd-cgroup", "create", "--bundle", systemd_bundle(bundle, cid), cid)
    assert refused.returncode == 1
    assert "systemd does not run here" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
