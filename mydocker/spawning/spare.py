"""A spare child: cloned into its namespaces and with its mounts made before there is a container for it.

For a program that runs one container after another of the same kind: when one has ended, or takes long, the next child
is set up. It has nothing of any container's own, no cgroup, no name, no streams, until it is taken. What it has is
what it would have if it were made then: it is taken only if none of the directories that it shows, and of the mounts
there, has become another since.
"""

from __future__ import annotations

import os

from mydocker.linux import signals
from mydocker.spec import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.child import Child
    from mydocker.plan import Plan

    #: device and inode of what is at a path, None if nothing is
    Shown = list[tuple[int, int] | None]


class Spare:
    """``child``: its process, or our ends of the pipes of one that was asked for."""

    def __init__(self, child: Child, plan: Plan, mounts: bytes | None, known: MountsShown) -> None:
        """Before it is asked for. ``mounts``: as they were after their last change that is known (`mount_watch`)."""
        self.child = child
        self._killed = 0
        self._shown = _what_is_shown(plan)
        self._known = known
        self._mounts = known.of(plan, mounts)

    def fits(self, plan: Plan) -> bool:
        """Whether it is what would be made now, if no mount has changed. It is there."""
        if self._shown != _what_is_shown(plan):
            return False
        return self.child.waits  # else it could not be set up, or was killed

    def outlives(self, plan: Plan, mounts: bytes | None) -> bool:
        """Whether those mounts are as they were that it shows. Engines change others all the time.

        ``mounts``: as they are now.
        """
        return self._mounts is not None and self._mounts == self._known.of(plan, mounts)

    def end(self) -> None:
        """End the process, if it is there, and close what is ours."""
        self.kill()
        self.reap()

    def kill(self) -> None:
        """The same, but that `reap` is owed: the kernel takes its time to take namespaces apart."""
        self._killed = self.child.pid
        try:
            if self._killed:
                os.kill(self._killed, signals.SIGKILL)  # it is not reaped, so nobody else has this PID
        except ProcessLookupError:
            pass  # reaped by a program that waits for whatever child there is
        finally:
            self.child.leave()
            self.child.close()

    def reap(self) -> None:
        """Wait for the end of what was killed."""
        try:
            if self._killed:
                os.waitpid(self._killed, 0)
        except ChildProcessError:
            pass  # as above
        self._killed = 0


class MountsShown:
    """The lines about what is mounted at the places that the children of one kind show, or below. The last ones are
    kept.
    """

    def __init__(self) -> None:
        self._last: tuple[bytes, list[bytes], list[bytes]] = (b"", [], [])

    def of(self, plan: Plan, text: bytes | None) -> list[bytes] | None:
        """Among the lines of ``text``. None if that may be all of them, or nobody knows."""
        if plan.spec.rootfs is None or text is None:
            return None
        places = [_escaped(os.path.realpath(path)) for path in _paths_shown(plan)]
        known_text, known_places, found = self._last
        if text is not known_text or places != known_places:
            found = _lines_about(places, text)
            self._last = (text, places, found)  # in one: threads share it
        return found


def is_possible(plan: Plan) -> bool:
    """Whether a child of this kind can be set up before there is a container for it."""
    spec = plan.spec
    labelled = spec.apparmor_profile or spec.selinux_label
    # What is changed below an overlay that is mounted may not be seen in it (overlayfs.rst).
    unusual = spec.overlay or spec.terminal or spec.init or labelled
    return spec.has_place_for_root and plan.user.maps is None and not unusual


def _what_is_shown(plan: Plan) -> Shown:
    """Which directories and files are at the paths that a child shows of the host."""
    return list(map(_identity, _paths_shown(plan)))


def _paths_shown(plan: Plan) -> list[str]:
    spec = plan.spec
    return [spec.rootfs or "/", *(entry.source for entry in spec.mounts if isinstance(entry, Volume))]


def _lines_about(places: list[bytes], text: bytes) -> list[bytes]:
    below = tuple(place.rstrip(b"/") + b"/" for place in places)
    found = []
    for line in text.split(b"\n"):
        fields = line.split(b" ", 5)
        if len(fields) > 5 and (fields[4] in places or fields[4].startswith(below)):
            found.append(line)
    return found


def _escaped(path: str) -> bytes:
    """As mountinfo has it."""
    data = os.fsencode(path)
    for character in b"\\ \t\n":  # the backslash first
        data = data.replace(bytes((character,)), b"\\%03o" % character)
    return data


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
