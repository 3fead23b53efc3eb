"""What ``create`` leaves in a container's directory for the program that does the shortest verbs without Python
(bin/shortest_verbs.c): what there is to look at, to say and to remove.

A word, a space and a value on each line, ended by a NUL. The first line is `FORMAT` alone. Then come, in this order::

    pid, start_time   of the first process, as in the record
    head, tail        what ``state`` prints around the PID and the status of a container of root's
    kill              a signal to the first process is all that ``kill`` is
    start             there is nothing for ``start`` to do but to let the first process go on
    delete            nothing is to be removed but what follows
    freezer           a cgroup's file, behind what is in it while it is not frozen
    cgroup            a cgroup, where there is one in that hierarchy
    parent            one above that was made for containers and goes when it is empty, the deepest first
    root, noted       where the container's directory is, and the link that says so, unless that is the common place
    above             directories of that link, to be removed when they are empty
    end               the brief is whole

A word whose verb has more to do, such as a hook to run, is left out; then Python does that verb. So it does all of them
once the record is changed, which removes the brief (`mydocker.state.rewrite`).
"""

from __future__ import annotations

import os

from mydocker import plain_json, state
from mydocker.cgroups import places
from mydocker.cgroups.removal import freezer_first
from mydocker.errors import MydockerError
from mydocker.oci import container, host_mounts
from mydocker.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.oci.container import Container

    Line = tuple[str, object]

#: Of this release: another one's briefs are not followed.
FORMAT = f"mydocker {__version__} brief 1"

def of(
    found: Container, config: dict[str, Any], cgroup: ContainerCgroup, *, waits_only: bool, own_pids: bool
) -> bytes:
    """The brief of a container that is created.

    ``config``: as it came. ``cgroup``: its own. ``waits_only``: ``start`` lets the first process go on, and that has no
    more to ask. ``own_pids``: that is the first of a PID namespace.
    """
    lines = [*_process(found)]
    hooks = config.get("hooks") or {}
    if own_pids:
        lines.append(("kill", 1))
    if waits_only and config.get("process") and not hooks.get("poststart"):
        lines.append(("start", 1))
    if not (_leaves_traces(found) or hooks.get("poststop")) and host_mounts.are_private(config):
        lines.append(("delete", 1))
    if found.record.cgroup:
        lines += _cgroups(cgroup)
    lines += _noted(os.path.dirname(found.path))
    lines.append(("end", 1))
    return b"\0".join((os.fsencode(FORMAT), *(b"%b %b" % (word.encode(), _bytes(value)) for word, value in lines), b""))


def write(claim: state.Claim, brief: bytes) -> None:
    """Leave it in the container's directory, unless the record is no longer what it was worked out from."""
    try:
        # An update that has it may wait for the command to be started.
        lock = state.lock_for_update(claim.id, os.path.dirname(claim.path), wait=False)
        try:
            if not claim.changed():
                fd = os.open("brief", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=lock)
                try:
                    os.write(fd, brief)  # what comes to be there in part has no end, and is not followed
                finally:
                    os.close(fd)
        finally:
            os.close(lock)
    except OSError:
        pass  # such as during an update, or on a full disk: then Python does the verbs


def _bytes(value: object) -> bytes:
    return os.fsencode(str(value))


def _process(found: Container) -> Iterator[Line]:
    record = found.record
    yield "pid", record.pid
    yield "start_time", record.start_time
    if record.oci.get("owner"):
        return  # to ask for another name than root's may take long
    text = plain_json.dumps(container.shown(found, "created"), indent=2)
    head, _, tail = text.partition(f'"pid": {record.pid},\n  "status": "created"')
    yield "head", head
    yield "tail", tail


def _leaves_traces(found: Container) -> bool:
    """Whether ``delete`` has to undo more than cgroups."""
    noted = found.record.oci
    return bool(noted.get("unit") or noted.get("resctrl") or container.to_undo(found.record))


def _cgroups(cgroup: ContainerCgroup) -> Iterator[Line]:
    """Its own: where a plain user has none, somebody else's of that name may be."""
    for path, thawed in cgroup.freezers:
        yield "freezer", f"{thawed} {path}"
    everywhere = [(hierarchy, f"{hierarchy.base}/{cgroup.path}") for hierarchy in cgroup.layout.hierarchies]
    order = freezer_first((hierarchy, directory) for hierarchy, directory in everywhere if directory in cgroup.dirs)
    for _, directory in order:
        yield "cgroup", directory
    for hierarchy, _ in order:
        for parent in reversed(places.directories(hierarchy, cgroup.path)[:-1]):
            if not places.is_own(hierarchy, parent):
                break
            yield "parent", parent


def _noted(root: str) -> Iterator[Line]:
    try:
        default = state.default_root()
    except MydockerError:
        return
    if root != default:
        yield "root", root
        yield "noted", state.link_of(root, default)
        for directory in state.above_link(default):
            yield "above", directory
