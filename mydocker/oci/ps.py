"""ps: show the processes of a container, as the host sees them. Options behind the id are those of ps(1)."""

from __future__ import annotations

import sys

from mydocker.errors import OciError
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from subprocess import CompletedProcess

    from mydocker.oci.container import Container
    from mydocker.oci.main import Call

OPTIONS = (Option(names=("--format", "-f"), metavar="table|json", help="json: a list of the PIDs (default: table)"),)
ARGUMENTS = "CONTAINER-ID [PS-OPTION...]"

#: PIDs that are named one by one on a command line.
_MANY = 1000


def main(call: Call) -> int:
    from mydocker.oci import container

    form = call.options.get("format", "table")
    if form not in ("table", "json"):
        raise OciError(f"invalid format option: {form}")
    pids = processes(container.find(call))
    if form == "json":
        sys.stdout.write(f"[{','.join(map(str, sorted(pids)))}]\n")
    else:
        sys.stdout.write(_table(call.arguments[1:], pids))
    return 0


def processes(found: Container) -> set[int]:
    """The PIDs of all processes in the container's cgroups and those below: one that has left a hierarchy is in others.

    Of a container without a cgroup: its first process and what descends from it.
    """
    from mydocker.cgroups.contents import pids
    from mydocker.cgroups.moving import descendants

    directories = found.record.oci.get("cgroups") or ()
    if directories:
        # 0 stands for a process that this PID namespace does not have (cgroups(7)).
        return {pid for directory in directories for pid in pids(directory)} - {0}
    return set(descendants(found.pid)) if found.is_alive else set()


def _table(options: Sequence[str], pids: Collection[int]) -> str:
    """The head of what ps(1) prints and the lines whose PID is one of ``pids``; by default those of ``ps -ef``.

    These it prints without a look at every process of the host. A ps that cannot, as that of busybox, prints them all.
    """
    done = _ps("-f", "-p", ",".join(map(str, sorted(pids)))) if not options and 0 < len(pids) <= _MANY else None
    if done is None or done.returncode:
        done = _ps(*(options or ("-ef",)))
    output = done.stdout.decode(errors="surrogateescape")
    if done.returncode:
        raise OciError(f"ps failed: {output.strip()}")
    head, *lines = output.splitlines(keepends=True)
    try:
        column = head.split().index("PID")
    except ValueError:
        raise OciError("couldn't find PID field in ps output: choose ps options that show it") from None
    return "".join([head, *(line for line in lines if _is_of(line, column, pids))])


def _ps(*options: str) -> CompletedProcess[bytes]:
    import subprocess

    try:
        return subprocess.run(["ps", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except OSError as e:
        raise OciError(f"cannot run ps, of the package procps: {(e.strerror or '').lower()}") from e


def _is_of(line: str, column: int, pids: Collection[int]) -> bool:
    words = line.split()
    return len(words) > column and words[column].isdigit() and int(words[column]) in pids
