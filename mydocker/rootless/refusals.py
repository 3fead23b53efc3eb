"""Why this kernel makes no user namespace for a plain user, and what to do: the sentences of the errors."""

from __future__ import annotations

import errno
import os

from mydocker.errors import MydockerError, SetupError

_DOCS = "or run mydocker as root"


def clone_refused(error: OSError) -> MydockerError:
    """The error for a clone with CLONE_NEWUSER that failed, or for id maps that could not be written."""
    number = error.errno or 0
    path = error.filename
    if isinstance(path, str) and path.startswith("/proc/") and number in (errno.EACCES, errno.EPERM):
        return SetupError(f"cannot map the ids of the container: {error.strerror} ({_map_refused()})", number)
    return SetupError(f"cannot make a user namespace: {error.strerror} ({_why(number)})", number)


def set_up_refused(text: str, number: int) -> str:
    """What to add to the error ``text`` of a step in the new namespaces, where ``number`` means a missing privilege."""
    if number not in (errno.EACCES, errno.EPERM):
        return ""
    if _sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return f" ({_APPARMOR})"
    return f" ({_COVERED})" if text.startswith("cannot mount /proc:") else ""


_APPARMOR = (
    "AppArmor takes the privileges away from a plain user's user namespace: have root set "
    "kernel.apparmor_restrict_unprivileged_userns=0 with sysctl, or add an AppArmor profile for mydocker that allows "
    "userns"
)


# mount_too_revealing(), fs/namespace.c: a new one must not show what is hidden in the one that is there.
_COVERED = (
    "parts of /proc are covered here, as in a container of Docker's, and the kernel shows them to no plain user: start "
    "the outer container with --security-opt systempaths=unconfined, or run mydocker as root"
)


def _why(number: int) -> str:
    for name in ("user.max_user_namespaces", "kernel.unprivileged_userns_clone"):
        if _sysctl(name) == "0":
            good = "15000" if name.startswith("user") else "1"
            return f"the sysctl {name} is 0: have root set it with sysctl -w {name}={good}, {_DOCS}"
    if _sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1" and number in (errno.EACCES, errno.EPERM):
        return _APPARMOR
    if number in (errno.ENOSPC, errno.EUSERS):
        return (
            "this user has as many namespaces as the sysctl user.max_user_namespaces allows, or they are nested too "
            f"deep: have root raise it, {_DOCS}"
        )
    if number == errno.EINVAL:
        return f"this kernel was built without CONFIG_USER_NS: {_DOCS[3:]}"
    if number == errno.EPERM:
        return (
            "this process is in a chroot, or in a container that does not allow it, as Docker's seccomp profile does "
            f"not: leave it, {_DOCS}"
        )
    return f"a plain user's container needs one, {_DOCS}"


def _map_refused() -> str:
    if _sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return _APPARMOR
    if os.stat("/proc/self/stat").st_uid != os.geteuid():  # so proc(5) shows a process that is not dumpable
        return (
            "this process has changed its user id, and the kernel keeps its files in /proc from it since: call "
            "mydocker from a program that was started as this user"
        )
    return "something outside of mydocker, such as a seccomp filter, does not allow it"


def _sysctl(name: str) -> str:
    try:
        with open(f"/proc/sys/{name.replace('.', '/', 1)}") as f:
            return f.read().strip()
    except OSError:
        return ""
