"""On pure cgroup v2, in the virtual machine of tests/vm: beside crun, and the memory floor there."""

from __future__ import annotations

import subprocess
import sys

import memory_floor
from api import CRUN, FLOOR, RUN, commands, start_to_exit
from measuring import Findings, Row, Table, Target, in_turns, process, ratio, timed
from peers import HERE, prepared_host, tool

from mydocker import api

#: The virtual machine may be emulated, under which all takes a dozen times longer.
ROUNDS = 15
REPOSITORY = HERE.parent.parent
NOTE = """\
In a virtual machine. Where it is emulated, an interpreter is slowed down more than the kernel and programs in C are, so
that all that is in Python looks worse than it is."""


def measure() -> Findings:
    """Boot the machine, in which this file is a program, and take what it found."""
    for name in ("runc", "crun", "bwrap", "cc"):
        tool(name)  # the guest has what this host has, and no network
    command = [sys.executable, str(HERE.parent / "vm/cgroup_vm.py"), "--cgroup", "v2"]
    done = subprocess.run(
        [*command, "--", sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True, cwd=REPOSITORY
    )
    return Findings.from_json(done.stdout.splitlines()[-1])


def measure_here() -> Findings:
    findings = Findings(notes=[NOTE])
    with prepared_host("/bin/true") as (peers, floor):
        assert floor is not None
        try:
            rows = start_to_exit(peers, floor, None, ROUNDS)
            findings.tables.append(Table("Cgroup v2: call to return of `true`", rows, FLOOR))
            over = ratio(rows, RUN, CRUN)
            figure = 'API start-to-exit over `subprocess.run(["crun", "run", …])`, v2'
            findings.targets.append(Target(figure, over, 0.6))
        finally:
            api.close()
        calls = {"mydocker run": timed(process(*peers.mydocker("true")))}
        calls |= {name.rpartition(" of ")[2]: timed(process(*line)) for name, line in commands(peers, "true").items()}
        rows = in_turns(calls, ROUNDS)
        findings.tables.append(Table("Cgroup v2: `true` in a container, whole process", rows, "runc run"))
        floors: list[Row] = memory_floor.floors(peers, {"true": ["true"]})
        findings.tables.append(Table(f"Cgroup v2: {memory_floor.TITLE.lower()}", floors, unit="KiB"))
    return findings


if __name__ == "__main__":
    print(measure_here().to_json())
