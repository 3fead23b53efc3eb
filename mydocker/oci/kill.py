"""kill: send a signal to a container's first process."""

from __future__ import annotations

import os

from mydocker.errors import CgroupError, OciError
from mydocker.linux.pidfd import SIGKILL, send_signal
from mydocker.oci import container
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.container import Container
    from mydocker.oci.main import Call

OPTIONS = (Option(names=("--all", "-a"), kind="flag", help="send it to every process in the container's cgroup"),)
ARGUMENTS = "CONTAINER-ID [SIGNAL]"

#: By number, from 1 (signal(7), x86 and ARM).
_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_OTHER_NAMES = {"IOT": 6, "CLD": 17, "POLL": 29}
_FIRST_REAL_TIME, _LAST = 34, 64  # as glibc has them, which keeps two for itself


def main(call: Call) -> int:
    number = parse(call.arguments[1] if len(call.arguments) > 1 else "TERM")
    found = container.find(call)
    if call.options.get("all"):
        signal_all(found, number)
        return 0
    if number == SIGKILL and not _has_pid_namespace(found) and found.cgroup().pids():
        # With the first process of a PID namespace the kernel kills all; of another one's, nobody else would. That
        # process may have ended before the others.
        signal_all(found, number)
        return 0
    found.require("created", "running", "paused")
    pidfd = found.open_init()
    try:
        send_signal(pidfd, number)
    except ProcessLookupError:
        raise OciError("container not running") from None
    finally:
        os.close(pidfd)
    if number == SIGKILL:
        thaw(found)
    return 0


def parse(text: str) -> int:
    """A signal by its number, or by its name with or without SIG; 0 only asks (kill(2)). OciError if it is none."""
    word = text.strip().upper()
    if word.isascii() and word.isdecimal() and len(word) < 4 and int(word) <= _LAST:
        return int(word)
    name = word.removeprefix("SIG")
    if name in _NAMES:
        return _NAMES.index(name) + 1
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    for base, first, direction in (("RTMIN", _FIRST_REAL_TIME, "+"), ("RTMAX", _LAST, "-")):
        offset = name.removeprefix(base)
        if name.startswith(base) and (not offset or (offset[0] == direction and offset[1:].isdecimal())):
            number = first + int(offset or 0)
            if _FIRST_REAL_TIME <= number <= _LAST:
                return number
    raise OciError(f"unknown signal {text!r}")


def _has_pid_namespace(found: Container) -> bool:
    """Whether the container's first process is the first of a PID namespace that was made for it."""
    namespaces = (found.config.get("linux") or {}).get("namespaces") or ()
    return any(entry["type"] == "pid" and not entry.get("path") for entry in namespaces)


def signal_all(found: Container, number: int) -> None:
    """To every process in the container's cgroup; fine if there is none left."""
    cgroup = found.cgroup()
    try:
        if number == SIGKILL:
            cgroup.kill()
            return
        for pid in cgroup.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
    except CgroupError as e:
        raise OciError(f"cannot signal all processes of the container: {e}") from e


def thaw(found: Container) -> None:
    """Let what was killed in a frozen v1 cgroup end: it does so only then (cgroup-v1/freezer-subsystem.rst)."""
    if not found.is_frozen:
        return
    from mydocker.cgroups.freezing import let_killed_end
    from mydocker.cgroups.layout import Layout

    let_killed_end(Layout.read(), found.record.cgroup)
