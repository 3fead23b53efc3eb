"""The limits in real containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mydocker import LimitError, Result

Run = Callable[..., Result]

RATE = 4_000_000

# Sends for some seconds at the rate to itself, and prints the bits per second of what came.
LOOPBACK = f"""
import socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
out = socket.create_connection(server.getsockname())
incoming = server.accept()[0]
size = {RATE} // 8 * 2
threading.Thread(target=lambda: (out.sendall(bytes(size)), out.close())).start()
received = 0
while received < 1 << 18:
    received += len(incoming.recv(1 << 16))
began, before = time.monotonic(), received
while chunk := incoming.recv(1 << 16):
    received += len(chunk)
print((received - before) * 8 / (time.monotonic() - began))
"""


def test_alone_loopback_is_limited(run_container: Run) -> None:
    result = run_container([sys.executable, "-c", LOOPBACK], net_rate="4mbit", timeout=60)
    assert result.exit_code == 0, result.stderr
    assert 0.6 * RATE < float(result.stdout or 0) < 1.1 * RATE
    used = result.usage.plugins["bandwidth"]
    assert used["sent_bytes"] >= RATE // 8 * 2


def test_without_a_rate_nothing_is_limited_and_pyroute2_is_not_loaded(run_container: Run) -> None:
    result = run_container([sys.executable, "-c", LOOPBACK], timeout=60)
    assert float(result.stdout or 0) > 10 * RATE
    program = "import mydocker, sys; mydocker.run(['true']); print('pyroute2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_with_the_hosts_network_it_is_refused(run_container: Run, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="would slow the whole host down"):
        run_container(["touch", str(tmp_path / "ran")], net_rate="4mbit", network="host")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def container(run_container: Run, tmp_path: Path) -> Iterator[int]:
    """A container that waits, limited in both directions: the PID of its first process."""
    run_container(["true"], net_rate="4mbit")  # or this is skipped
    script = shutil.which("mydocker", path=str(Path(sys.executable).parent)) or shutil.which("mydocker")
    command = [script] if script else [sys.executable, "-m", "mydocker"]
    shell = ["sh", "-c", "trap 'exit 0' TERM; echo runs; while :; do sleep 0.1; done"]
    process = subprocess.Popen(
        [*command, "run", "--net-rate", "4mbit", "--pidfile", tmp_path / "pid", *shell],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "runs\n"
    yield int((tmp_path / "pid").read_text())
    process.terminate()
    assert process.communicate()[1] == ""
    assert process.returncode == 0


def test_a_device_that_is_moved_into_a_running_container_is_limited(container: int) -> None:
    """By the watch, in the runtime: this process does nothing but move it there and look."""
    from pyroute2 import IPRoute

    from mydocker.linux.process import CLONE_NEWNET, setns, unshare

    found: list[str] = []

    def look() -> None:
        unshare(CLONE_NEWNET)
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        theirs = os.open(f"/proc/{container}/ns/net", os.O_RDONLY)
        with IPRoute() as route:
            route.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": theirs})
        setns(theirs, CLONE_NEWNET)
        with IPRoute() as route:
            (index,) = route.link_lookup(ifname="eth0")
            for _ in range(2000):
                found[:] = [qdisc.get_attr("TCA_KIND") for qdisc in route.get_qdiscs() if qdisc["index"] == index]
                if {"tbf", "ingress"} <= set(found):
                    break
        os.close(own)
        os.close(theirs)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert {"tbf", "ingress"} <= set(found)
