"""events: print what a container uses, again and again, and when it has run out of memory; as JSON, a line each."""

from __future__ import annotations

import os
import select
import sys
import time

from mydocker import plain_json
from mydocker.cgroups import files
from mydocker.errors import CgroupError, OciError
from mydocker.linux import inotify
from mydocker.oci import container
from mydocker.oci.figures import figures_of
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.oci.container import Container
    from mydocker.oci.main import Call

OPTIONS = (
    Option(names=("--stats",), kind="flag", help="print the figures once, and nothing else"),
    Option(names=("--interval",), metavar="DURATION", help="how often they are printed, as in 500ms (default: 5s)"),
)
ARGUMENTS = "CONTAINER-ID"


def main(call: Call) -> int:
    found = container.find(call)
    interval = _interval(str(call.options.get("interval", "5s")))
    if found.status == "stopped":
        raise OciError(f"container with id {found.id} is not running")
    if call.options.get("stats"):
        _print("stats", found.id, figures_of(found.cgroup()))
    else:
        _stream(found, interval)
    return 0


def _interval(text: str) -> float:
    """Seconds, from a duration as Go writes it."""
    from mydocker.resources import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise OciError(f"--interval: {text}: duration interval must be greater than 0, as in 5s or 500ms") from None


def _print(kind: str, name: str, data: Any = None) -> None:
    event = {"type": kind, "id": name}
    if data is not None:
        event["data"] = data
    sys.stdout.write(plain_json.dumps(event) + "\n")
    sys.stdout.flush()


def _stream(found: Container, interval: float) -> None:
    """Until the container's first process has ended."""
    cgroup = found.cgroup()
    pidfd = found.open_init()
    memory = _OutOfMemory(cgroup)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if memory.fd >= 0:
        poll.register(memory.fd, select.POLLIN)
    due = time.monotonic() + interval
    while True:
        ready = [fd for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000)]
        if memory.fd in ready and memory.happened():
            _print("oom", found.id)
        if pidfd in ready:
            return
        if time.monotonic() >= due:
            due += interval
            try:
                _print("stats", found.id, figures_of(cgroup))
            except CgroupError:
                continue  # it is being removed: the end comes next


class _OutOfMemory:
    """Tells that the kernel could not give the container the memory it wanted, and killed or stopped it.

    ``fd`` is readable then; -1 where the memory controller is not there.
    """

    def __init__(self, cgroup: ContainerCgroup) -> None:
        self.fd = -1
        self._kills = 0
        self._events = ""
        if not cgroup.has("memory"):
            return
        controller = cgroup.controller("memory")
        if controller.version == 1:
            self._register_v1(controller.path)
        else:
            self._events = controller.filepath("memory.events")
            self._kills = self._count()
            self.fd = inotify.watch_path(self._events, inotify.IN_MODIFY)

    def _register_v1(self, directory: str) -> None:
        """memory.rst, 10: the kernel tells an eventfd. It also does so when the cgroup is removed."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.write(f"{directory}/cgroup.event_control", f"{self.fd} {control}")
        except CgroupError:  # a kernel without it (PREEMPT_RT)
            os.close(self.fd)
            self.fd = -1
        finally:
            os.close(control)
        self._control = f"{directory}/memory.oom_control"

    def happened(self) -> bool:
        if not self._events:
            try:
                os.eventfd_read(self.fd)
            except BlockingIOError:
                return False
            return os.path.exists(self._control)
        inotify.drain(self.fd)
        before, self._kills = self._kills, self._count()
        return self._kills > before

    def _count(self) -> int:
        try:
            lines = files.read(self._events).splitlines()
        except CgroupError:
            return self._kills
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
