"""The smallest memory limit under which a command still starts, to a page."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from measuring import Findings, Row, Table, tell
from peers import MYDOCKER, Peers, prepared_host

PAGE = 4096
MOST = 64 << 20
#: A limit at which only some runs succeed is below the floor.
TRIES = 3


def measure() -> Findings:
    with prepared_host() as (peers, _):
        peers.add_busybox()
        rows = floors(peers, {"true": ["true"], "busybox sh -c :": ["sh", "-c", ":"]})
        return Findings([Table(TITLE, rows, unit="KiB")])


TITLE = "The smallest memory limit under which a command starts"


def floors(peers: Peers, commands: dict[str, list[str]]) -> list[Row]:
    rows = []
    runtimes = peers.runtimes("mydocker-oci", "runc", "crun")
    for title, command in commands.items():
        starts = {"mydocker run": _mydocker(peers, command)}
        for runtime in runtimes:
            starts[f"{runtime} run"] = _runtime(peers, runtime, command)
        for name, start in starts.items():
            tell(f"the smallest memory for {title} by {name}")
            rows.append(Row(f"{title}: {name}", [smallest(start) / 1024], f"{title}: runc run"))
    return rows


def smallest(starts: Callable[[int], bool]) -> float:
    low, high = 0, MOST // PAGE
    while high - low > 1:
        middle = (low + high) // 2
        if all(starts(middle * PAGE) for _ in range(TRIES)):
            high = middle
        else:
            low = middle
    return high * PAGE


def _mydocker(peers: Peers, command: list[str]) -> Callable[[int], bool]:
    def starts(limit: int) -> bool:
        return _succeeds([MYDOCKER, "run", "--rootfs", str(peers.rootfs), "-m", str(limit), *command])

    return starts


def _runtime(peers: Peers, runtime: str, command: list[str]) -> Callable[[int], bool]:
    bundle = peers.bundle(*command)

    def starts(limit: int) -> bool:
        _set_limit(bundle, limit)
        started = _succeeds(peers.oci(runtime, "bench-memory", bundle))
        if not started:
            delete = peers.verb(runtime, "delete", "--force", "bench-memory")
            subprocess.run(delete, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        return started

    return starts


def _set_limit(bundle: Path, limit: int) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["resources"]["memory"] = {"limit": limit}
    (bundle / "config.json").write_text(json.dumps(config))


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False
