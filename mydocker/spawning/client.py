"""The program's side of its helper (`mydocker.spawning.helper`): start it, ask it for children, start it again."""

from __future__ import annotations

import _thread
import os
import resource
import sys

from mydocker import logs
from mydocker.errors import SetupError
from mydocker.linux import rights, signals
from mydocker.spawning import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import init
    from mydocker.child import Child

#: The program need not have this package on its path by more than its own means: the helper gets the directory.
_START = "import sys; sys.path.append(sys.argv.pop()); from mydocker.spawning.helper import main; main()"
_TRIES = 3

_NAMESPACES = ("mnt", "net", "user", "uts", "ipc", "cgroup", "pid_for_children")
_RESOURCES = range(16)  # RLIM_NLIMITS, asm-generic/resource.h


class Helper:
    """The one helper of a process. Safe for threads; a fork of the process starts one of its own."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._connection = -1
        self._owner = 0
        self._pid = 0
        self._name = b""
        self._state: tuple[Any, ...] = ()
        #: the children that are somebody's
        self._given: set[int] = set()
        self._keeper: _thread.LockType | None = None

    def clone(self, plan: init.Plan, namespaces: int, child: Child) -> None:
        """Have the child cloned that does as ``plan`` says; it is this process's own. OSError from the clone.

        SetupError if no helper can be started.
        """
        with self._lock:
            for _ in range(_TRIES):
                self._start_if_needed()
                try:
                    wire.send_plan(self._connection, plan, namespaces)
                    child.pid, child.pidfd = wire.receive_child(self._connection)
                    self._given.add(child.pid)
                    return
                except (EOFError, BrokenPipeError, ConnectionResetError):
                    self._forget()
                    self._end_orphans()  # which have the same pipes as the next one
            raise SetupError("the process that makes the containers ended each time that it was asked for one")

    def close(self) -> None:
        """End the helper. The containers that it has made go on. The next `clone` starts another one."""
        with self._lock:
            if self._owner == os.getpid():
                self._forget()

    @property
    def pid(self) -> int:
        """Of the helper; 0 if there is none."""
        return self._pid if self._owner == os.getpid() else 0

    def _start_if_needed(self) -> None:
        state = _inherited()
        if self._connection >= 0 and self._owner != os.getpid():
            os.close(self._connection)  # the helper of the process that this one was forked from
            self._connection, self._pid, self._keeper = -1, 0, None
        if self._connection >= 0 and state != self._state:
            self._forget()  # what it was started with is not what this process has now, and a child inherits it
        if self._connection < 0:
            self._start()
            self._state = state

    def _start(self) -> None:
        if not sys.executable:
            raise SetupError("cannot start the process that makes the containers: Python does not know its own path")
        self._owner = os.getpid()
        self._name = b"mydocker-%.6s" % os.urandom(3).hex().encode()
        ours, theirs = rights.pair()
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        # -I, -S: neither the program's variables nor its site-packages change what the helper is.
        command = [sys.executable, "-I", "-S", "-c", _START, str(self._owner), os.fsdecode(self._name), here]
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]

        def start() -> int:
            return os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsigmask=range(1, 32))

        try:
            # The kernel ends a child for its parent's death when the thread that is the parent ends (prctl(2)). So the
            # helper, whose parent is that of the containers, is started by a thread that stays.
            self._pid = start() if _thread.get_native_id() == self._owner else self._start_in_keeper(start)
        except OSError as e:
            os.close(ours)
            raise SetupError(f"cannot start the process that makes the containers: {e.strerror}", e.errno or 0) from e
        finally:
            os.close(theirs)
        self._connection = ours
        logs.info("the process that makes the containers has the PID %d", self._pid)

    def _start_in_keeper(self, start: Any) -> int:
        keeper, started = _thread.allocate_lock(), _thread.allocate_lock()
        keeper.acquire()
        started.acquire()
        outcome: list[int | BaseException] = []

        def body() -> None:
            try:
                outcome.append(start())
            except BaseException as e:
                outcome.append(e)
            started.release()
            keeper.acquire()

        _thread.start_new_thread(body, ())
        started.acquire()
        if isinstance(outcome[0], BaseException):
            keeper.release()
            raise outcome[0]
        self._keeper = keeper
        return outcome[0]

    def _forget(self) -> None:
        """Let the helper end."""
        connection, pid, keeper = self._connection, self._pid, self._keeper
        self._connection, self._pid, self._keeper = -1, 0, None
        os.close(connection)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # this process ignores SIGCHLD, or waits for whatever child there is
        if keeper is not None:
            keeper.release()

    def _end_orphans(self) -> None:
        """End the child that a killed helper had no time to tell of, if there is one."""
        for pid in _children_named(self._name):
            if pid not in self._given:
                try:
                    os.kill(pid, signals.SIGKILL)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass


def _inherited() -> tuple[Any, ...]:
    """What a child has from the process that clones it, as this thread has it now."""
    return (
        os.getresuid(),
        os.getresgid(),
        os.getgroups(),
        os.sched_getaffinity(0),
        os.getpriority(os.PRIO_PROCESS, 0),
        *map(resource.getrlimit, _RESOURCES),
        *(os.stat(f"/proc/thread-self/ns/{name}").st_ino for name in _NAMESPACES),
    )


def _children_named(name: bytes) -> list[int]:
    """The children of this process that were cloned by a helper of that name and have executed nothing yet."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as f:
                pids = f.read().split()
        except FileNotFoundError:
            if os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                continue  # a thread that has ended
            raise SetupError(
                "the process that makes the containers was killed at its work, and this kernel does not tell of what "
                "it may have left (CONFIG_PROC_CHILDREN)"
            ) from None
        for pid in pids:
            try:
                with open(f"/proc/{int(pid)}/comm", "rb") as f:
                    if f.read().rstrip(b"\n") == name:
                        found.append(int(pid))
            except OSError:
                continue
    return found
