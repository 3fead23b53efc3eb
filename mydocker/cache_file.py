"""Files in which one process keeps for the next what takes long to find out.

A file is believed only if it belongs to the effective user, nobody else can write it, and it is whole.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    #: modification time in ns, size, inode; None if there is no such file
    Stamp = tuple[int, int, int] | None

#: How many of one kind may share the directory before those that were not written for longest are removed.
KEPT_FILES = 64

#: A file system may give two changes the same time: what changed within this many seconds before it was looked at
#: is not trusted by its time.
SETTLED = 2.0

#: The largest below 2**64.
_PRIME = (1 << 64) - 59


def directory() -> str | None:
    """Where they are: ``$XDG_CACHE_HOME/mydocker``, else /var/cache/mydocker for root, else ~/.cache/mydocker."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        if os.geteuid() == 0:
            base = "/var/cache"
        else:
            home = os.environ.get("HOME", "")
            base = f"{home}/.cache" if home.startswith("/") else ""
    return f"{base}/mydocker" if base else None


def path(kind: str, key: bytes) -> str | None:
    """The file of ``kind`` for ``key``. Another key may have the same: the content is to tell which it is for."""
    folder = directory()
    return None if folder is None else f"{folder}/{kind}-{checksum(key).hex()}"


def opened(name: str) -> tuple[int, os.stat_result] | None:
    """A descriptor of the file, and what fstat(2) says of it, if it is ours. OSError if it cannot be read."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o170022 != 0o100000:
        os.close(fd)
        return None
    return fd, status


def read(name: str, *, summed: bool = True) -> bytes | None:
    """The content if the file is ours and whole. OSError if it cannot be read.

    ``summed``: whether it was written with a checksum, which takes longer than the reading where there is much.
    """
    found = opened(name)
    if found is None:
        return None
    fd, status = found
    try:
        data = os.read(fd, status.st_size)
    finally:
        os.close(fd)
    if not summed:
        return data if len(data) == status.st_size else None
    content = data[8:]
    return content if data[:8] == checksum(content) else None


def write(name: str, content: bytes, *, summed: bool = True, synced: bool = False) -> None:
    """Keep the content, if the directory is ours. OSError if it cannot be written.

    ``synced``: it is on the disk before it has its name, so that it is whole without a checksum too.
    """
    folder = os.path.dirname(name)
    if not os.path.isdir(folder):
        # With sudo's environment of another user, root would leave a directory there that its owner cannot use.
        base = os.path.dirname(folder)
        os.makedirs(base, 0o700, exist_ok=True)
        if os.stat(base).st_uid != os.geteuid():
            return
        os.mkdir(folder, 0o755)
    if os.stat(folder).st_uid != os.geteuid():
        return
    unfinished = f"{name}.{os.getpid()}"
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(checksum(content) + content if summed else content)
            if synced:
                file.flush()
                os.fsync(fd)
        os.rename(unfinished, name)
    except OSError:
        os.unlink(unfinished)
        raise
    _prune(folder, os.path.basename(name).partition("-")[0] + "-")


def stamp(path: str) -> Stamp:
    """What tells whether a file is still the same."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def settled(changed: int, looked: int) -> bool:
    """Whether a later change would get another time than ``changed``, given when it was ``looked`` at."""
    return not looked - SETTLED * 1e9 <= changed <= now()


def now() -> int:
    import time

    return time.time_ns()


def _prune(folder: str, kind: str) -> None:
    with os.scandir(folder) as entries:
        files = sorted((entry.stat().st_mtime_ns, entry.path) for entry in entries if entry.name.startswith(kind))
    for _, file in files[:-KEPT_FILES]:
        os.unlink(file)


def checksum(content: bytes) -> bytes:
    """Eight bytes of ``content``, by which a change of it shows. Nothing that keeps an attacker out.

    A remainder: hashlib and zlib cost an import, the built-in hash differs in each process.
    """
    return (int.from_bytes(content, "little") % _PRIME).to_bytes(8, "little")
