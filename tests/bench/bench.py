#!/usr/bin/env python3
"""Measure mydocker beside runc, crun, bubblewrap, podman and a program in C; write bench/RESULTS.md.

    bench.py [PART...]

Without PART all parts are measured, some ten minutes on a quiet machine, and the file is written. With PARTs, only
those, and the tables go to stdout. Nothing is asserted; a part that fails is named in the report, and the others go on.
It needs root, and installs what it compares with from Debian where it is missing.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from measuring import Findings, tell

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / "bench"
#: Each is a module here, measured by a process of its own.
PARTS = ("cold", "api", "memory_floor", "alive", "podman", "v2")
#: Seconds for one part: three times what the longest takes on a quiet machine.
PATIENCE = 900


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was made is removed then, too
    arguments = sys.argv[1:]
    if arguments[:1] == ["--part"]:
        return measure_here(arguments[1])
    unknown = [word for word in arguments if word not in PARTS]
    if unknown:
        print(f"bench: there is no part {unknown[0]}; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("bench: namespaces and cgroups need root", file=sys.stderr)
        return 1
    import report

    machine = report.describe_machine()
    found = {part: measure(part) for part in arguments or PARTS}
    if not arguments:
        report.write(FOLDER, machine, found)
        tell(f"written to {FOLDER / 'RESULTS.md'}")
    print(report.as_text(machine, found))
    return int(any(isinstance(one, str) for one in found.values()))


def measure_here(part: str) -> int:
    try:
        print(importlib.import_module(part).measure().to_json())
    except subprocess.CalledProcessError as e:
        tell(f"{part}: {e}: {e.stderr or e.stdout or 'without a word'}")
        return 1
    return 0


def measure(part: str) -> Findings | str:
    """What the part found, or why not."""
    tell(f"measuring {part}")
    started = time.monotonic()
    command = [sys.executable, __file__, "--part", part]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except BaseException as e:
        process.send_signal(signal.SIGTERM)  # it removes what it has made
        output, _ = process.communicate()
        if not isinstance(e, subprocess.TimeoutExpired):
            raise
        return f"it took longer than {PATIENCE} s"
    tell(f"{part} took {time.monotonic() - started:.0f} s")
    if process.returncode != 0:
        return f"it failed with status {process.returncode}; its words are in the output of the bench"
    return Findings.from_json(output.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
