"""Labels of security modules: the AppArmor profile or the SELinux context that a command is to run with."""

from __future__ import annotations

import os

from mydocker.errors import UsageError
from mydocker.linux import security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def apparmor_enabled() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled") as f:
            return f.read(1) == "Y"
    except OSError:
        return False


def selinux_enabled() -> bool:
    return os.path.exists("/sys/fs/selinux/enforce")


def check(apparmor: str, selinux: str) -> None:
    """UsageError for a label of a module that is not in force here: without it nobody would look at the label."""
    if apparmor and apparmor != "unconfined" and not apparmor_enabled():
        raise UsageError(f"the AppArmor profile {apparmor} cannot be applied: AppArmor is not in force on this host")
    if selinux and not selinux_enabled():
        raise UsageError(f"the SELinux label {selinux} cannot be applied: SELinux is not in force on this host")


def set_for_exec(apparmor: str, selinux: str, proc: int = -1) -> None:
    """Ask for the labels at the next execve(2) of this thread. OSError.

    ``proc``: a descriptor of /proc; without one it is opened by its name. It must be a procfs.
    """
    own = -1
    if proc < 0:
        own = proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if selinux:
            _write(proc, ("exec",), os.fsencode(selinux))
        if apparmor and (apparmor != "unconfined" or _has_apparmor(proc)):
            # Since Linux 5.8 AppArmor has a directory of its own, for hosts with another module before it.
            _write(proc, ("apparmor/exec", "exec"), b"exec " + os.fsencode(apparmor))
    finally:
        if own >= 0:
            os.close(own)


def _has_apparmor(proc: int) -> bool:
    try:
        os.close(security.open_attribute(proc, "apparmor/exec"))
    except OSError:
        return False
    return True


def _write(proc: int, names: Sequence[str], value: bytes) -> None:
    for name in names:
        try:
            fd = security.open_attribute(proc, name)
        except FileNotFoundError:
            if name == names[-1]:
                raise
            continue
        try:
            os.write(fd, value)
        finally:
            os.close(fd)
        return
