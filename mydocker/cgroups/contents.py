"""What is in a cgroup: the processes, and the cgroups nested in it. To find them, to kill them, to remove them."""

from __future__ import annotations

import errno
import os
import time

from mydocker.cgroups import files, freezing
from mydocker.cgroups.removal import GONE, PATIENCE, rmdir
from mydocker.errors import CgroupError
from mydocker.linux.pidfd import SIGKILL, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def walk(directory: str) -> Iterator[str]:
    """``directory`` and every cgroup nested in it, parents first. None if it is gone."""
    waiting = [directory]
    while waiting:
        directory = waiting.pop()
        try:
            # A cgroup directory counts its subdirectories in its links: mostly there is nothing to list. Where an
            # imitated one is, a file system may count none (1).
            if os.stat(directory).st_nlink != 2:
                with os.scandir(directory) as entries:
                    waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as e:
            # ENAMETOOLONG: nested so deep by the container that it has no name; remove() gets there all the same.
            if e.errno in (*GONE, errno.ENAMETOOLONG):
                continue
            raise files.refused("list the cgroup", directory, e) from e
        yield directory


def pids(directory: str) -> list[int]:
    """The processes in the cgroup and below it, as this PID namespace sees them. Empty if it is gone."""
    found: list[int] = []
    for cgroup in walk(directory):
        try:
            found += [int(pid) for pid in files.read(f"{cgroup}/cgroup.procs").split()]
        except CgroupError as e:
            if e.errno not in GONE:
                raise
    return found


def kill(directory: str, version: int) -> None:
    """Send SIGKILL to every process in the cgroup and below it. They end a little later."""
    imitation = files.imitation_of(directory) if files.imitations else None
    if imitation is not None:
        imitation.kill(directory)  # the PIDs in it are not for us to signal
        return
    if version == 2 and _kill_at_once(directory):
        return
    # What does not fork meets the signal at once; what is not frozen in time is met by the caller's next round.
    frozen = version == 1 and freezing.request_if_there(directory, 1, frozen=True)
    try:
        if frozen:
            freezing.settle(directory, 1, frozen=True, patience=0.1)
        for cgroup in walk(directory):
            fd = _open(cgroup)
            if fd is not None:
                try:
                    _kill_listed(fd)
                finally:
                    os.close(fd)
    finally:
        # The nested ones too, which the container itself may have frozen: what is frozen on v1 does not end.
        for cgroup in walk(directory) if frozen else ():
            freezing.request_if_there(cgroup, 1, frozen=False)


def _kill_at_once(directory: str) -> bool:
    """Through cgroup.kill (Linux 5.14), which no fork can outrun."""
    try:
        files.write(f"{directory}/cgroup.kill", "1")
    except CgroupError as e:
        return e.errno == errno.ENODEV
    return True


def _kill_listed(cgroup: int) -> None:
    """Kill the processes listed in the cgroup that the descriptor ``cgroup`` is of.

    By pidfd, and only those that are still listed after it was opened: a PID read from a file may belong to a
    process outside by now.
    """
    descriptors: list[tuple[int, int]] = []
    try:
        for pid in _listed(cgroup):
            try:
                descriptors.append((pid, os.pidfd_open(pid)))
            except OSError:
                continue  # ended, or of a PID namespace that we do not see
        still = set(_listed(cgroup)) if descriptors else ()
        for pid, descriptor in descriptors:
            if pid in still:
                try:
                    send_signal(descriptor, SIGKILL)
                except ProcessLookupError:
                    pass
    finally:
        for _, descriptor in descriptors:
            os.close(descriptor)


def _listed(cgroup: int) -> list[int]:
    try:
        fd = os.open("cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=cgroup)
        try:
            chunks = []
            while chunk := os.read(fd, 1 << 16):
                chunks.append(chunk)
        finally:
            os.close(fd)
    except OSError as e:
        if e.errno in GONE:
            return []
        raise
    return [int(pid) for pid in b"".join(chunks).split() if pid != b"0"]


def kill_and_wait(directory: str, version: int, patience: float = PATIENCE) -> None:
    """Kill until the cgroup and all below it are empty. `CgroupError` if they are not in ``patience`` seconds."""
    deadline = time.monotonic() + patience
    pause = 0.0002
    while left := pids(directory):
        if time.monotonic() > deadline:
            raise CgroupError(f"{processes(left)} in the cgroup {directory} do not end when killed", errno.EBUSY)
        kill(directory, version)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def remove_nested(directory: str) -> bool:
    """One pass over the cgroups nested in ``directory``, the deepest first; kills on the way. Whether any was removed.

    The container may have nested them deeper than a path or a recursion reaches, so this climbs down and up by one
    descriptor at a time. The way up is what it came down: what is killed on it is never above ``directory``.
    """
    if files.imitations and files.imitation_of(directory) is not None:
        return _remove_imitated(directory)
    here = _open(directory)
    if here is None:
        return True
    above: list[tuple[int, int]] = []
    removed = stuck = False
    try:
        while True:
            child = _first_child(here)
            if child is not None and rmdir(child, here):
                removed, stuck = True, False
                continue
            if child is None and not above:
                return removed
            if child is not None and stuck:
                return removed  # what was killed in it has not ended yet: left to the next pass
            if child is not None:
                above.append(_identity(here))
                there = _open(child, here)
            else:
                _kill_listed(here)
                stuck = True
                there = _open_parent(here, above.pop())
            if there is None:
                return removed  # somebody else removes it too
            os.close(here)
            here = there
    finally:
        os.close(here)


def _remove_imitated(directory: str) -> bool:
    """As `remove_nested`, by path: the imitated cgroups are few, and nobody works against us in them."""
    removed = [rmdir(nested) for nested in reversed(list(walk(directory))) if nested != directory]
    return any(removed)


def _identity(directory: int) -> tuple[int, int]:
    found = os.stat(directory)
    return found.st_dev, found.st_ino


def _open_parent(directory: int, identity: tuple[int, int]) -> int | None:
    """A descriptor of the directory above, which must be the one of that identity. None if it is not."""
    parent = _open("..", directory)
    if parent is not None and _identity(parent) != identity:
        os.close(parent)
        return None
    return parent


def _open(name: str, parent: int | None = None) -> int | None:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as e:
        if e.errno in GONE:
            return None
        raise files.refused("open the cgroup", name, e) from e


def _first_child(cgroup: int) -> str | None:
    if os.stat(cgroup).st_nlink <= 2:
        return None
    with os.scandir(cgroup) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
    return None


def processes(left: list[int]) -> str:
    """Some of them, for a message."""
    some = ", ".join(str(pid) for pid in left[:5])
    return f"the processes {some}{' and others' if len(left) > 5 else ''}"
