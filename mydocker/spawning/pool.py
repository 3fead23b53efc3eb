"""Containers that wait for a command: made beforehand, each for one."""

from __future__ import annotations

import _thread
import os

from mydocker import logs
from mydocker.errors import MydockerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.runner import Container


class Pool:
    """Keeps ``size`` containers standing by, of which each serves once. A thread of its own makes the next ones."""

    def __init__(self, size: int, make: Callable[[], Container]) -> None:
        """``make`` makes a container that stands by, or raises, as this does: the first ones are made now."""
        self._size = size
        self._make = make
        self._owner = os.getpid()
        self._ready: list[Container] = []
        self._wanted = _thread.allocate_lock()
        self._wanted.acquire()
        self._ended = _thread.allocate_lock()
        self._closed = False
        try:
            while len(self._ready) < size:
                self._ready.append(make())
        except BaseException:
            self._drop_all()
            raise
        self._ended.acquire()
        _thread.start_new_thread(self._serve, ())

    def take(self) -> Container | None:
        """One that stands by, and is the caller's from now on; None if none does, or in a fork of the process."""
        if os.getpid() != self._owner:
            return None
        while True:
            try:
                container = self._ready.pop(0)
            except IndexError:
                return None
            try:
                if container.stands_by:
                    return container
                self.want()
            except BaseException:  # an interrupt: nobody else knows of it
                _drop(container)
                raise
            _drop(container)

    def close(self) -> None:
        """Remove the containers that nobody has taken."""
        if os.getpid() != self._owner or self._closed:
            return
        self._closed = True
        self.want()
        self._ended.acquire()
        self._drop_all()

    def want(self) -> None:
        """One was taken: make another, from now on. Not before its command has ended or takes long: threads share one
        interpreter, and the kernel takes no namespaces apart while it makes others.
        """
        try:
            self._wanted.release()
        except RuntimeError:
            pass  # it is told already

    def _serve(self) -> None:
        try:
            while not self._closed:
                self._wanted.acquire()
                while len(self._ready) < self._size and not self._closed:
                    try:
                        self._ready.append(self._make())
                    except MydockerError as e:
                        logs.info("cannot prepare a container: %s", e)  # the next run makes its own, and says so
                        break
        finally:
            self._ended.release()

    def _drop_all(self) -> None:
        while self._ready:
            _drop(self._ready.pop())


def _drop(container: Container) -> None:
    try:
        container.__exit__()
    except MydockerError as e:
        logs.warning("%s", e)
