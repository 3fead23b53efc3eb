"""Cgroups as they were before they were removed: for figures that are worked out when somebody looks at them."""

from __future__ import annotations

import _thread
import errno
import os

from mydocker.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    T = TypeVar("T")


class Past:
    """Answers in place of the kernel (`mydocker.cgroups.files`). OSError for what is not known."""

    def __init__(
        self,
        directories: Sequence[str],
        contents: dict[str, bytes],
        looks: dict[str, bool],
        without_nested: frozenset[str],
    ) -> None:
        """``contents`` of files by their paths, ``looks``: whether others were there, and which of the directories had
        no cgroup in them.
        """
        self._directories = directories
        self._contents = contents
        self._looks = looks
        self._without_nested = without_nested

    def covers(self, path: str) -> bool:
        """Whether the path is in one of the directories, or in one above."""
        above = path.rpartition("/")[0] + "/"
        directories = [f"{directory}/" for directory in self._directories]
        return any(path.startswith(directory) or directory.startswith(above) for directory in directories)

    def read(self, path: str) -> bytes:
        if path not in self._contents:
            raise _unknown()
        return self._contents[path]

    def exists(self, path: str) -> bool:
        if path in self._contents:
            return True
        if path not in self._looks:
            raise _unknown()
        return self._looks[path]

    def has_nested(self, path: str) -> bool:
        if path not in self._without_nested:
            raise _unknown()
        return False


def _unknown() -> OSError:
    return OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def put_off(work: Callable[[], T], past: Past) -> Callable[[], T]:
    """What does ``work``, for which all is as it was: in any thread, and as often as one likes."""

    def do() -> T:
        thread = _thread.get_ident()
        before = files.past.get(thread)  # of what was interrupted by a handler of signals that came to this
        try:
            files.past[thread] = past
            return work()
        finally:
            if before is None:
                files.past.pop(thread, None)
            else:
                files.past[thread] = before

    return do
