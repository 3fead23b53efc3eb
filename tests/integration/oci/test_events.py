"""mydocker-oci events: runc's shape, figures that move, and the news that memory has run out."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.vm

#: Of what the kernel may or may not have counted by now.
SOMETIMES = ("data.memory.raw.", "data.blkio.", "data.hugetlb.", "data.cpu.throttling.")


def names(value: Any, prefix: str = "") -> Iterator[str]:
    for key, entry in value.items() if isinstance(value, dict) else ():
        yield f"{prefix}{key}"
        yield from names(entry, f"{prefix}{key}.")


def figures(runtime, name: str) -> dict[str, Any]:
    done = runtime("events", "--stats", name)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["type"], found["id"]) == ("stats", name)
    return found


def started(runtime, made, name: str) -> None:
    assert runtime.create(made, name).returncode == 0
    assert runtime("start", name).returncode == 0


def test_the_shape_is_runcs(ours, runc, bundle, cid):
    """What a newer runc has too may be there besides."""
    resources = {"memory": {"limit": 64 << 20}, "pids": {"limit": 20}}
    seen = []
    for runtime in (ours, runc):
        started(runtime, bundle("sh", "-c", "cat /bin/busybox >/tmp/x; sleep 1000", linux__resources=resources), cid)
        found = {name for name in names(figures(runtime, cid)) if not name.startswith(SOMETIMES)}
        seen.append(found)
        assert runtime("delete", "--force", cid).returncode == 0
    assert seen[1] - seen[0] == set()
    more = {name for name in seen[0] - seen[1] if ".psi" not in name}
    assert more <= {"data.memory.usage.max", "data.memory.swap.max", "data.memory.kernel.usage"}


def test_the_figures_are_the_containers(ours, bundle, cid):
    script = "dd if=/dev/zero of=/tmp/x bs=1M count=20; sleep 1000 & sleep 1000 & wait"
    tmp = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=50m"]}
    made = bundle("sh", "-c", script, linux__resources={"memory": {"limit": 80 << 20}, "pids": {"limit": 20}})
    config = json.loads((made / "config.json").read_text())
    config["mounts"].append(tmp)
    (made / "config.json").write_text(json.dumps(config))
    started(ours, made, cid)
    end = time.monotonic() + 30
    while True:
        data = figures(ours, cid)["data"]
        if data["memory"]["usage"]["usage"] > 20 << 20 and data["pids"]["current"] == 3:
            break
        assert time.monotonic() < end, data
        time.sleep(0.05)
    assert data["memory"]["usage"]["limit"] == 80 << 20
    assert data["pids"] == {"current": 3, "limit": 20}
    assert data["cpu"]["usage"]["total"] > 0
    assert data["network_interfaces"] is None


def test_a_stream_ends_with_the_container(ours, bundle, cid):
    started(ours, bundle("sleep", "1000"), cid)
    command = [*ours.command, "--root", str(ours.root), "events", "--interval", "20ms", cid]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stream:
        lines = [json.loads(stream.stdout.readline()) for _ in range(3)]
        assert {line["type"] for line in lines} == {"stats"}
        assert ours("kill", cid, "KILL").returncode == 0
        stream.communicate(timeout=30)
    assert stream.returncode == 0


def test_out_of_memory_is_told(ours, bundle, cid):
    made = bundle(
        "sh", "-c", "trap : USR1; sleep 1000 & wait; dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000",
        linux__resources={"memory": {"limit": 30 << 20, "swap": 30 << 20}},
    )  # fmt: skip
    started(ours, made, cid)
    command = [*ours.command, "--root", str(ours.root), "events", "--interval", "50ms", cid]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stream:
        assert json.loads(stream.stdout.readline())["type"] == "stats", "it watches"
        assert ours("kill", cid, "USR1").returncode == 0
        kinds = (json.loads(line)["type"] for line in stream.stdout)
        assert "oom" in kinds
        stream.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("interval", ["0", "-1s", "soon", "0s"])
def test_intervals_that_are_none(ours, bundle, cid, interval):
    started(ours, bundle("sleep", "1000"), cid)
    done = ours("events", f"--interval={interval}", cid)
    assert done.returncode == 1
    assert "duration interval must be greater than 0" in done.stderr


def test_a_stopped_container_has_none(ours, bundle, cid, stopped):
    started(ours, bundle("true"), cid)
    stopped(ours, cid)
    done = ours("events", "--stats", cid)
    assert (done.returncode, f"container with id {cid} is not running" in done.stderr) == (1, True)
