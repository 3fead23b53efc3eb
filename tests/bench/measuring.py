"""What all parts share: timing in turns, and the figures that come of it."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter

#: A call that does something once and says how many seconds that took.
Timed = Callable[[], float]


@dataclass
class Row:
    """One thing that was measured again and again. ``base``: the name of the row that it is a multiple of."""

    name: str
    values: list[float]
    base: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def percentile(self, of_hundred: int) -> float:
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, len(ordered) * of_hundred // 100)]


@dataclass
class Table:
    """Rows that are compared with each other. ``base``: that of each row without one of its own. ``unit``: of all."""

    title: str
    rows: list[Row]
    base: str = ""
    unit: str = "ms"


@dataclass
class Target:
    """A ratio that is to be at most so much."""

    figure: str
    ratio: float
    at_most: float


@dataclass
class Findings:
    """What one part found. ``notes`` are sentences for the reader of the tables."""

    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Findings:
        data = json.loads(text)
        tables = [Table(t["title"], [Row(**row) for row in t["rows"]], t["base"], t["unit"]) for t in data["tables"]]
        return cls(tables, [Target(**target) for target in data["targets"]], data["notes"])


def in_turns(calls: dict[str, Timed], rounds: int) -> list[Row]:
    """The milliseconds of each call in all rounds.

    A machine's speed changes from minute to minute, so that only what was measured by turns can be compared. In another
    order each time: a move into a cgroup is cheaper soon after another one.
    """
    rows = {name: Row(name, []) for name in calls}
    for call in calls.values():
        call()  # the first one warms the caches, and imports
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            rows[name].values.append(calls[name]() * 1000)
    return list(rows.values())


def ratio(rows: Sequence[Row], name: str, base: str) -> float:
    found = {row.name: row.median for row in rows}
    return found[name] / found[base]


def timed(call: Callable[[], object]) -> Timed:
    def once() -> float:
        started = perf_counter()
        call()
        return perf_counter() - started

    return once


def process(*command: str | os.PathLike[str], environment: dict[str, str] | None = None) -> Callable[[], None]:
    """Runs the command from start to exit, with null devices for 0, 1 and 2, with as little around it as Python can."""
    words = [os.fspath(word) for word in command]
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]

    def run() -> None:
        pid = os.posix_spawnp(words[0], words, environment or os.environ, file_actions=null)
        _, status = os.waitpid(pid, 0)
        if status:
            # once more, for its words
            done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), words, done.stdout, done.stderr)

    return run


def tell(text: str) -> None:
    """Progress, for who waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
