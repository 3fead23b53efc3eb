"""From a Python program: start to exit, call to first instruction, runs per second."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from measuring import Findings, Row, Table, Target, Timed, in_turns, process, ratio, timed
from peers import KEYWORDS, Floor, Peers, prepared_host

import mydocker
from mydocker import api

ROUNDS = 150
#: How long a measurement of runs per second takes, and how often it is done.
WINDOW, WINDOWS = 1.0, 3
AT_ONCE = (1, 2, 16)
#: The time in which the next container is made that stands by.
REFILL = 0.03

RUNC, CRUN, BWRAP, PLAIN = (f"subprocess.run of {name}" for name in ("runc run", "crun run", "bwrap", "the command"))
RUN, BARE = "mydocker.run", "mydocker.run, no limit, the host's root"
PREPARED, FLOOR = "Spawner(prepare=4).run", "the floor"


def measure() -> Findings:
    findings = Findings()
    with prepared_host("/bin/true") as (peers, floor):
        assert floor is not None
        try:
            with spawner(peers) as prepared:
                rows = start_to_exit(peers, floor, prepared)
                findings.tables.append(Table("Call to return of `true`", rows, FLOOR))
                for what, who in (("API start-to-exit", RUN), ("`Spawner(prepare=4)`, start-to-exit", PREPARED)):
                    for base, name, at_most in (
                        (FLOOR, "the C floor", 1.3),
                        (RUNC, '`subprocess.run(["runc", "run", …])`', 0.12),
                        (BWRAP, '`subprocess.run(["bwrap", …])`', 0.7),
                    ):
                        findings.targets.append(Target(f"{what} over {name}", ratio(rows, who, base), at_most))
                rows = to_first_instruction(peers, prepared)
                findings.tables.append(Table("Call to the command's first instruction", rows, PLAIN))
                over = ratio(rows, PREPARED, PLAIN)
                figure = "prepared sandbox, argv to the command's first instruction, over a plain `subprocess.run`"
                findings.targets.append(Target(figure, over, 1.0))
            findings.tables.append(Table("Runs per second", runs_per_second(peers), unit="runs/s"))
        finally:
            api.close()
    return findings


@contextmanager
def spawner(peers: Peers, prepare: int = 4) -> Iterator[mydocker.Spawner]:
    with mydocker.Spawner(prepare=prepare, rootfs=str(peers.rootfs), **KEYWORDS) as found:
        yield found


def commands(peers: Peers, command: str) -> dict[str, list[str]]:
    """What is run by `subprocess.run`."""
    bundle, names = peers.bundle(command), peers.runtimes("runc", "crun")
    return {
        **{f"subprocess.run of {name} run": peers.oci(name, "bench", bundle) for name in names},
        BWRAP: peers.bwrap(command),
        PLAIN: [str(peers.rootfs / "bin" / command)],
    }


def start_to_exit(peers: Peers, floor: Floor, prepared: mydocker.Spawner | None, rounds: int = ROUNDS) -> list[Row]:
    root = str(peers.rootfs)
    calls: dict[str, Timed] = {
        RUN: timed(lambda: mydocker.run(["true"], check=True, rootfs=root, **KEYWORDS)),
        BARE: timed(lambda: mydocker.run(["true"], check=True)),
        FLOOR: floor.once,
    }
    if prepared is not None:
        calls[PREPARED] = and_refill(timed(lambda: prepared.run(["true"], check=True)))
    for name, command in commands(peers, "true").items():
        calls[name] = timed(subprocess_run(command))
    return in_turns(calls, rounds)


def subprocess_run(command: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


def and_refill(call: Timed) -> Timed:
    """Before the next measurement, whatever that is of: none begins after a pause, or beside work, of its own."""

    def once() -> float:
        taken = call()
        time.sleep(REFILL)
        return taken

    return once


def to_first_instruction(peers: Peers, prepared: mydocker.Spawner) -> list[Row]:
    """The command prints when it began."""
    root = str(peers.rootfs)

    def until_first_instruction(run: Callable[[], bytes]) -> Timed:
        def once() -> float:
            started = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            return (int(run()) - started) / 1e9

        return once

    def captured(result: mydocker.Result) -> bytes:
        assert isinstance(result.stdout, bytes) and result.exit_code == 0, result
        return result.stdout

    def captured_by_subprocess(command: list[str]) -> Callable[[], bytes]:
        return lambda: subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout

    clock = ["/bin/clock"]
    calls = {
        RUN: until_first_instruction(
            lambda: captured(mydocker.run(clock, stdout=subprocess.PIPE, rootfs=root, **KEYWORDS))
        ),
        PREPARED: and_refill(
            until_first_instruction(lambda: captured(prepared.run(clock, stdout=subprocess.PIPE)))
        ),
    }
    for name, command in commands(peers, "clock").items():
        calls[name] = until_first_instruction(captured_by_subprocess(command))
    return in_turns(calls, ROUNDS)


def runs_per_second(peers: Peers) -> list[Row]:
    root = str(peers.rootfs)
    bundle = peers.bundle("true")
    floors = [Floor(peers, "/bin/true") for _ in range(max(AT_ONCE))]

    def of_runtime(name: str) -> Callable[[int], object]:
        runs = [process(*peers.oci(name, f"bench{slot}", bundle)) for slot in range(max(AT_ONCE))]
        return lambda slot: runs[slot]()

    bwrap = process(*peers.bwrap("true"))
    rows = {}
    try:
        with spawner(peers, max(AT_ONCE)) as prepared:
            works: dict[str, Callable[[int], object]] = {
                RUN: lambda slot: mydocker.run(["true"], check=True, rootfs=root, **KEYWORDS),
                "Spawner(prepare=16).run": lambda slot: prepared.run(["true"], check=True),
                FLOOR: lambda slot: floors[slot].once(),
                **{f"{name} run": of_runtime(name) for name in peers.runtimes("runc", "crun")},
                "bwrap": lambda slot: bwrap(),
            }
            for _ in range(WINDOWS):
                for slots in AT_ONCE:
                    for name, work in works.items():
                        row = f"{name}, {slots} at once"
                        base = f"{FLOOR}, {slots} at once"
                        rows.setdefault(row, Row(row, [], base)).values.append(_rate(work, slots))
    finally:
        for floor in floors:
            floor.close()
    return sorted(rows.values(), key=lambda row: int(row.name.split()[-3]))


def _rate(work: Callable[[int], object], slots: int) -> float:
    """Runs per second, with as many threads as ``slots``."""
    done = [0] * slots
    errors: list[BaseException] = []
    end = perf_counter() + WINDOW

    def loop(slot: int) -> None:
        try:
            while perf_counter() < end:
                work(slot)
                done[slot] += 1
        except BaseException as e:
            errors.append(e)

    started = perf_counter()
    threads = [threading.Thread(target=loop, args=(slot,)) for slot in range(slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(done) / (perf_counter() - started)
