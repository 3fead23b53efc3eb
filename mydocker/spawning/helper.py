"""The helper: a small process with one thread that clones the children of the program that started it.

Each is cloned with CLONE_PARENT, so that it is the program's child: that waits for it, and it dies with it. The helper
imports no more than a child needs, and its memory is what is copied. It ends when the program does.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys

from mydocker import init
from mydocker.linux import process, signals
from mydocker.spawning import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Serve the requests that come by descriptor 0. ``argv[1]``: the PID of the program."""
    try:
        program = os.pidfd_open(int(sys.argv[1]))
        if os.getppid() == int(sys.argv[1]):  # else it ended before, and the number may be another's
            connection = os.dup(0)
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            process.close_all_except({connection, program})
            _become_helper(sys.argv[2])
            _serve(connection, program)
    finally:
        os._exit(0)


def _become_helper(name: str) -> None:
    os.setsid()  # what is typed at the program's terminal is not for this process
    os.chdir("/")
    signals.block()
    init.become_blank()
    process.set_name(os.fsencode(name))
    gc.collect()
    gc.freeze()
    gc.disable()


def _serve(connection: int, program: int) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(program, select.POLLIN)  # a fork of the program may hold the other end longer than it lives
    while program not in dict(poll.poll()):
        request = wire.receive_plan(connection)
        if request is None:
            return
        plan, flags, descriptors = request
        try:
            plan = init.loaded(plan.replace(runtime=program, blank=True))
            pid, pidfd = process.clone(flags | process.CLONE_PARENT)
            if pid == 0:
                init.run(plan)
        except OSError as e:
            wire.send_error(plan.messages, e.errno or errno.EIO, os.fsdecode(e.filename or ""))
        else:
            wire.send_child(plan.messages, pid, pidfd)
            os.close(pidfd)
        finally:
            for fd in descriptors:
                os.close(fd)
