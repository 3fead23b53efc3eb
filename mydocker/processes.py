"""What the processes of a container use, from /proc: for what no cgroup of the container counts.

Less exact than a cgroup: pages that processes share count for each of them, and what a process used that ended without
being waited for is lost.
"""

from __future__ import annotations

import os

from mydocker.cgroups.moving import descendants
from mydocker.value import Value


class ProcessFigures(Value):
    """Of a process and all its descendants: seconds, bytes, and tasks (threads included).

    ``read_bytes`` and ``written_bytes``, of block devices, are None where the kernel does not tell this user.
    """

    cpu_user: float = 0.0
    cpu_system: float = 0.0
    memory: int = 0
    tasks: int = 0
    read_bytes: int | None = None
    written_bytes: int | None = None


def figures_of(first: int) -> ProcessFigures:
    """The figures of the process ``first`` of a container and of its descendants, but for those that end meanwhile."""
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    user = system = resident = tasks = 0
    read = written = 0
    io_known = False
    for pid in descendants(first):
        try:
            stat = _contents(f"/proc/{pid}/stat")
            pages = int(_contents(f"/proc/{pid}/statm").split()[1])
        except OSError:
            continue
        # proc(5): 14 utime, 15 stime, 16 cutime, 17 cstime (children that were waited for), 20 num_threads.
        fields = stat[stat.rindex(b")") + 2 :].split()
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
        tasks += int(fields[17])
        resident += pages
        try:
            io = dict(line.split(b": ") for line in _contents(f"/proc/{pid}/io").splitlines())
        except OSError:  # not of our user, or a kernel without CONFIG_TASK_IO_ACCOUNTING
            continue
        io_known = True
        read += int(io[b"read_bytes"])
        written += int(io[b"write_bytes"])
    return ProcessFigures(
        cpu_user=user / tick,
        cpu_system=system / tick,
        memory=resident * page,
        tasks=tasks,
        read_bytes=read if io_known else None,
        written_bytes=written if io_known else None,
    )


def _contents(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read()
