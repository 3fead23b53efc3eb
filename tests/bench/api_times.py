"""Times of `mydocker.run` in a program that has imported it, in turns with ``runc run`` as a subprocess.

    api_times.py ROUNDS BUNDLE ROOTFS

Prints a JSON object: the name of each call and its seconds, one for each round.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable

import mydocker

LIMITS = {"memory": "100m", "cpu_shares": 512, "cpus": 1}


def main() -> None:
    rounds = int(sys.argv[1])
    bundle, rootfs = sys.argv[2:]
    runc = ["runc", "run", "--bundle", bundle, "mydocker-bench-api"]
    calls: dict[str, Callable[[], object]] = {
        "runc": lambda: subprocess.run(runc, stdin=subprocess.DEVNULL, check=True),
        "plain": lambda: mydocker.run(["true"], check=True),
        "limits": lambda: mydocker.run(["true"], check=True, **LIMITS),
        "rootfs": lambda: mydocker.run(["true"], check=True, rootfs=rootfs),
        "rootfs, limits": lambda: mydocker.run(["true"], check=True, rootfs=rootfs, **LIMITS),
    }
    for call in calls.values():
        call()  # the first call imports what a run needs and warms the caches: once in a program's life
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        # In another order each time: a move into a cgroup is cheaper soon after another one.
        for name in random.sample(list(calls), len(calls)):
            seconds[name].append(timed(calls[name]))
    json.dump(seconds, sys.stdout)


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
