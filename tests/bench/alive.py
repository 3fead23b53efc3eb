"""With 10, 100 and 1,000 containers alive: what the next one takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from measuring import Findings, Row, Table, Target, Timed, in_turns, process, tell, timed
from peers import HERE, KEYWORDS, Peers, prepared_host

import mydocker
from mydocker import api

#: The first and the last are measured as one: the machine may have become slower or faster meanwhile.
LEVELS = (0, 10, 100, 1000, 0)
ROUNDS = 15
API, CLI, RUNC = "mydocker.run", "mydocker run", "runc run"


def measure() -> Findings:
    findings = Findings()
    with prepared_host() as (peers, _):
        root = str(peers.rootfs)
        calls = {
            API: timed(lambda: mydocker.run(["true"], check=True, rootfs=root, **KEYWORDS)),
            CLI: timed(process(*peers.mydocker("true"))),
        }
        runc = {RUNC: timed(process(*peers.oci("runc", "bench-next", peers.bundle("true"))))}
        rows: dict[str, Row] = {}
        try:
            for level in LEVELS:
                tell(f"{level} containers alive")
                with alive(peers, level):
                    _measure_level(level, calls, rows)
            for level in LEVELS:
                tell(f"{level} containers of runc alive")
                with alive_by_runc(peers, level):
                    _measure_level(level, runc, rows)
        finally:
            api.close()
        ordered = sorted(rows.values(), key=lambda row: row.base)
        findings.tables.append(Table("The next `true`, with containers alive (those of the same tool)", ordered))
        most = max(LEVELS)
        for name in (API, CLI):
            over = rows[_label(name, most)].median / rows[_label(name, 0)].median
            findings.targets.append(Target(f"`{name}` with {most:,} alive over with none", over, 1.2))
    return findings


def _measure_level(level: int, calls: dict[str, Timed], rows: dict[str, Row]) -> None:
    for row in in_turns(calls, ROUNDS):
        label = _label(row.name, level)
        rows.setdefault(label, Row(label, [], _label(row.name, 0))).values.extend(row.values)


def _label(name: str, level: int) -> str:
    return f"{name}, {level:,} alive" if level else f"{name}, none alive"


@contextmanager
def alive(peers: Peers, count: int) -> Iterator[None]:
    """So many containers of mydocker, held by a process of their own."""
    command = [sys.executable, str(HERE / "holder.py"), str(count), str(peers.rootfs)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            raise RuntimeError("the containers were not made: see above")
        yield
    finally:
        holder.communicate()


@contextmanager
def alive_by_runc(peers: Peers, count: int) -> Iterator[None]:
    bundle = peers.bundle("pause")
    names = [f"bench-{number}" for number in range(count)]

    def start(name: str) -> None:
        process(*peers.verb("runc", "run", "--detach", "--bundle", str(bundle), name))()

    def remove(name: str) -> None:
        delete = peers.verb("runc", "delete", "--force", name)
        subprocess.run(delete, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            list(pool.map(start, names))
            yield
        finally:
            list(pool.map(remove, names))
