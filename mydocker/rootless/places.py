"""Where a plain user's containers keep their state, and whether that place is the user's alone."""

from __future__ import annotations

import os
import stat

from mydocker.errors import StateError


def state_root() -> str:
    """``$XDG_RUNTIME_DIR/mydocker``, or /tmp/mydocker-UID where there is no such directory of this user.

    ``sudo -u`` and ``su`` leave the variable of another user in place. StateError if what is in /tmp is not ours.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and _is_ours(runtime, 0o022):
        return f"{runtime}/mydocker"
    fallback = in_tmp()
    if os.path.lexists(fallback):
        check(fallback)
    return fallback


def is_of_plain_user(runtime: str) -> bool:
    """Whether root, who has this XDG_RUNTIME_DIR, is a plain user of the host in a user namespace."""
    from mydocker.linux import process

    return runtime.startswith("/") and _is_ours(runtime, 0o022) and not process.in_initial_user_namespace()


def in_tmp() -> str:
    return f"/tmp/mydocker-{os.geteuid()}"


def make(path: str) -> None:
    """Make the directory, and be sure that it is ours alone: in /tmp another user may have been there before."""
    try:
        os.makedirs(path, 0o700)
    except FileExistsError:
        pass
    if path == in_tmp():
        check(path)


def check(path: str) -> None:
    """StateError unless ``path`` is a directory, not a link, that belongs to this user and to nobody else."""
    if not _is_ours(path, 0o077):
        raise StateError(
            f"{path} is not a directory that only this user may enter (mode 0700), so the containers' state is not "
            "kept there: remove it, or name another place with MYDOCKER_STATE_DIR"
        )


def _is_ours(path: str, forbidden: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & forbidden
