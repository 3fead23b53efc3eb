"""One container's network namespace and the limits in it.

pyroute2 gives each thread a socket of its own, which belongs to the namespace that the thread is in. So all work is
done in a thread that has entered the namespace for it and ends with it.
"""

from __future__ import annotations

import os
import socket
import threading

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mydocker import LimitError
from mydocker.linux.process import CLONE_NEWNET, setns, unshare
from mydocker_bandwidth import shaping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from mydocker_bandwidth.rates import Limits

    T = TypeVar("T")

# include/uapi/linux/rtnetlink.h: messages about devices.
_RTMGRP_LINK = 1
# netlink(7)
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5


class ShapedNamespace:
    """The network namespace of the thread that makes this. ``events`` is readable when something happens to its
    devices.
    """

    def __init__(self, limits: Limits, *, outlives_container: bool) -> None:
        """``outlives_container``: `release` is to undo what was done in it."""
        self._limits = limits
        self._outlives_container = outlives_container
        self._devices: dict[int, shaping.Device] = {}
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if self._is_hosts():
            os.close(self._namespace)
            raise LimitError("net_rate", "the container is in the host's network, which it would slow down as a whole")
        self.events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.events.setblocking(False)
        # Lost events are no error of the socket: others have come, and all devices are looked at anyway.
        self.events.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        self.events.bind((0, _RTMGRP_LINK))

    def _is_hosts(self) -> bool:
        """Whether it is that of the runtime itself, or of the host's first process."""
        ours = os.fstat(self._namespace)
        for pid in ("self", "1"):
            try:
                other = os.stat(f"/proc/{pid}/ns/net")
            except OSError:
                continue  # not ours to see
            if (ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino):
                return True
        return False

    def shape_all(self) -> None:
        """Limit all devices that there are. `LimitError` if the kernel refuses."""
        try:
            self._inside(lambda route: shaping.shape(route, self._limits, self._devices))
        except NetlinkError as e:
            raise LimitError("net_rate", shaping.reason(e)) from e

    def shape_new(self) -> None:
        """Limit the devices that have come since the last call. Called when there are events."""
        self._drain()
        self.shape_all()

    def _drain(self) -> None:
        try:
            while self.events.recv(1 << 16):
                pass
        except BlockingIOError:
            pass

    def figures(self) -> dict[str, Any]:
        """Bytes that passed, and packets that did not because the queue was full."""
        return self._inside(lambda route: shaping.figures(route, self._devices))

    def release(self) -> None:
        """Undo the limits where the namespace stays, and let go of it."""
        try:
            if self._outlives_container:
                self._inside(lambda route: shaping.unshape(route, self._devices))
        finally:
            self.events.close()
            os.close(self._namespace)

    def _inside(self, work: Callable[[IPRoute], T]) -> T:
        return in_thread(lambda: setns(self._namespace, CLONE_NEWNET), work)


def problem_of(limits: Limits) -> str:
    """What this kernel lacks for ``limits``, or empty. They are put in force on the loopback of a namespace of our own,
    which the kernel drops when the thread in it has ended.
    """
    try:
        in_thread(lambda: unshare(CLONE_NEWNET), lambda route: shaping.shape(route, limits, {}))
    except NetlinkError as e:
        return shaping.reason(e)
    except OSError as e:
        return f"this user may not make network namespaces: {e.strerror}"
    return ""


def in_thread(enter: Callable[[], None], work: Callable[[IPRoute], T]) -> T:
    """Do ``enter`` and then ``work`` in a thread of its own; what ``work`` returns or raises."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            enter()
            with IPRoute() as route:
                outcome.append(work(route))
        except BaseException as e:
            failure.append(e)

    thread = threading.Thread(target=body, name="mydocker-bandwidth")
    thread.start()
    thread.join()
    if failure:
        try:
            raise failure[0]
        finally:
            failure.clear()
    return outcome[0]
