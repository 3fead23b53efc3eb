"""The command lines: whole processes from start to exit, which is what a shell or an engine pays."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from time import perf_counter

from measuring import Findings, Row, Table, Target, in_turns, process, ratio, timed
from peers import MYDOCKER, Peers, prepared_host, tool

ROUNDS = 40
LIVES = 25
RUNTIMES = ("mydocker-oci", "runc", "crun")
VERBS = ("create", "start", "state", "exec", "kill", "delete")
LIFE = "create + start + delete"


def measure() -> Findings:
    findings = Findings()
    with prepared_host("/bin/true") as (peers, floor):
        assert floor is not None
        bundle = peers.bundle("true")
        runtimes = peers.runtimes(*RUNTIMES)
        commands = {
            "mydocker run": peers.mydocker("true"),
            "mydocker run, no limit, the host's root": [MYDOCKER, "run", "true"],
            **{f"{name} run": peers.oci(name, "bench", bundle) for name in runtimes},
            "bwrap (no limits)": peers.bwrap("true"),
            "python3 -I -c pass": [sys.executable, "-I", "-c", "pass"],
        }
        calls = {name: timed(process(*command)) for name, command in commands.items()}
        rows = in_turns(calls | {"the floor, in a process that runs": floor.once}, ROUNDS)
        findings.tables.append(Table("`true` in a container, whole process", rows, "runc run"))
        over = ratio(rows, "mydocker run", "runc run")
        findings.targets.append(Target("`mydocker run`, whole process, over runc's", over, 1.0))

        lives = _lives(peers, runtimes)
        findings.tables.append(Table("An OCI container's life, verb by verb", lives))
        over = ratio(lives, f"{LIFE}: mydocker-oci", f"{LIFE}: runc")
        findings.targets.append(Target("OCI create + start + delete over runc's", over, 1.0))

        helps = {
            "mydocker --help": [MYDOCKER, "--help"],
            "mydocker run --help": [MYDOCKER, "run", "--help"],
            **{f"{name} --help": [tool(name), "--help"] for name in (*RUNTIMES, "bwrap")},
        }
        rows = in_turns({name: timed(process(*command)) for name, command in helps.items()}, ROUNDS // 2)
        findings.tables.append(Table("Help", rows, "runc --help"))
    return findings


def _lives(peers: Peers, runtimes: list[str]) -> list[Row]:
    bundle = peers.bundle("pause")
    seconds: dict[tuple[str, str], list[float]] = {(verb, name): [] for verb in (*VERBS, LIFE) for name in runtimes}
    for round_ in range(LIVES + 1):
        for name in random.sample(runtimes, len(runtimes)):
            life = _life(peers, name, bundle)
            life[LIFE] = life["create"] + life["start"] + life["delete"]
            for verb, took in life.items() if round_ else ():  # the first one warms the caches
                seconds[verb, name].append(took * 1000)
    return [Row(f"{verb}: {name}", values, f"{verb}: runc") for (verb, name), values in seconds.items()]


def _life(peers: Peers, runtime: str, bundle: Path) -> dict[str, float]:
    """The seconds of each verb."""
    name, pidfile = "bench-life", peers.scratch / "pid"
    arguments = {
        "create": ("--bundle", str(bundle), "--pid-file", str(pidfile), name),
        "exec": (name, "true"),
        "kill": (name, "KILL"),
    }
    took = {}
    try:
        for verb in VERBS:
            if verb == "delete":
                _wait_for_end(int(pidfile.read_text()))
            run = process(*peers.verb(runtime, verb, *arguments.get(verb, (name,))))
            started = perf_counter()
            run()
            took[verb] = perf_counter() - started
    finally:
        if "delete" not in took:
            process(*peers.verb(runtime, "delete", "--force", name))()
    return took


def _wait_for_end(pid: int) -> None:
    """Its parent is whoever adopts orphans here, and may be slow to reap it."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.002)
