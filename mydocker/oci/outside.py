"""A process outside of the container's user namespace, which binds for the container's first process what that may not.

The ids of a mount can be mapped only outside (mount_setattr(2)), and what the container's own mounts have made of a
source is there only inside. So the one who asks sends its mount namespace, and gets the bind.
"""

from __future__ import annotations

import errno
import os

from mydocker.linux import process
from mydocker.oci import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn


def start(binds: Sequence[Callable[[], int]]) -> int:
    """Start it: the descriptor on which its binds are asked for, one by one. It ends when everybody has closed that.

    ``binds``: each makes one, in the mount namespace of the one who asks, and returns its descriptor.
    """
    asking, answering = console.pair()
    try:
        pid, pidfd = process.clone(0)
        if pid == 0:
            _leave_and_serve(answering, asking, binds)
        os.close(pidfd)
        os.waitpid(pid, 0)
    except BaseException:
        os.close(asking)
        raise
    finally:
        os.close(answering)
    return asking


def _leave_and_serve(answering: int, asking: int, binds: Sequence[Callable[[], int]]) -> NoReturn:
    """In a child of the child: nobody but init is to wait for it."""
    try:
        if process.clone(0)[0] == 0:
            os.close(asking)
            for bind in binds:
                namespace = console.receive(answering)
                if namespace < 0:
                    break
                process.setns(namespace, process.CLONE_NEWNS)
                os.close(namespace)
                tree = bind()
                console.send(answering, b"bind", tree)
                os.close(tree)
    finally:
        os._exit(0)


def ask(asking: int) -> int:
    """In the container's first process: the descriptor of the next bind. OSError if it cannot be made."""
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        console.send(asking, b"mnt", namespace)
    finally:
        os.close(namespace)
    tree = console.receive(asking)
    if tree < 0:
        raise OSError(errno.EINVAL, "its ids cannot be mapped, or it is not there")
    return tree
