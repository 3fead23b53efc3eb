"""The program's side of its helper (`mydocker.spawning.helper`): start it, ask it for children, start it again."""

from __future__ import annotations

import _thread
import os
import resource
import select
import sys
import time

from mydocker import logs
from mydocker.errors import SetupError
from mydocker.linux import rights, signals
from mydocker.spawning import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mydocker import init
    from mydocker.child import Child


#: The program need not have this package on its path by more than its own means: the helper gets the directory.
_START = "import sys; sys.path.append(sys.argv.pop()); from mydocker.spawning.helper import main; main()"
_TRIES = 3
#: Seconds for which a spare child is kept when nothing is asked for: it holds the mounts that it shows.
_KEPT = 1.0

_NAMESPACES = ("mnt", "net", "user", "uts", "ipc", "cgroup", "pid_for_children")
_RESOURCES = range(16)  # RLIM_NLIMITS, asm-generic/resource.h


class _Connection:
    """Our end of the socket to a helper, open as long as somebody has to do with it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class _Lost(Exception):
    """The helper ended before it had answered."""


class Helper:
    """The one helper of a process. Safe for threads; a fork of the process starts one of its own."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._connection: _Connection | None = None
        self._owner = 0
        self._pid = 0
        self._name = b""
        self._state: tuple[Any, ...] = ()
        self._keeper: _thread.LockType | None = None
        self._last: tuple[init.Plan | None, bytes] = (None, b"")
        #: how many requests have no answer yet, and since when there are none
        self._asked = 0
        self._idle_since = 0.0
        #: spare children, those of them that were ended and are to be reaped, and whether a thread sees to that
        self._spares: set[int] = set()
        self._to_reap: set[int] = set()
        self._keeping = False

    def clone(self, plan: init.Plan, namespaces: int, child: Child, cgroups: bytes = b"") -> Callable[[], None]:
        """Ask for a child of this process that does as ``plan`` says. What is returned waits until ``child`` knows its
        PID, and raises the OSError of the clone.

        ``cgroups``: those of this process, /proc/self/cgroup. The descriptors of the plan are to stay open until then.
        SetupError if no helper can be started.
        """
        template, own = wire.template(plan), wire.Own.of(plan)
        asked = self._ask(template, own, namespaces, cgroups)

        def finish() -> None:
            connection = asked
            for _ in range(_TRIES):
                try:
                    self._take_answer(connection, child)
                    return
                except _Lost:
                    self._end_orphan(child)
                    connection = self._ask(template, own, namespaces, cgroups, lost=connection)
            raise SetupError("the process that makes the containers ended each time that it was asked for one")

        return finish

    def _ask(
        self, template: init.Plan, own: wire.Own, namespaces: int, cgroups: bytes, lost: _Connection | None = None
    ) -> _Connection:
        """``lost``: the one whose helper is known to be gone."""
        with self._lock:
            known, packed = self._last
            alike = known == template
            if not alike:
                packed = wire.packed(template)
                self._last = (template, packed)
            # The second time that a container of this kind is asked for, there is likely to be a third.
            spare = alike and _may_be_spare(template)
            for _ in range(_TRIES):
                if lost is not None and lost is self._connection:
                    self._forget()
                connection = self._started(cgroups)
                try:
                    kind = wire.CLONE_AND_SPARE if spare else wire.CLONE
                    wire.send_plan(connection.fd, kind, packed, own, namespaces)
                except (BrokenPipeError, ConnectionResetError):
                    lost = connection
                    continue
                self._asked += 1
                if spare and not self._keeping:
                    self._keeping = True
                    _thread.start_new_thread(self._end_spare_when_idle, ())
                return connection
            raise SetupError("the process that makes the containers ended each time that it was started")

    def _take_answer(self, connection: _Connection, child: Child) -> None:
        """Into ``child``. Ctrl-C does not come between: nobody would know of the child."""
        interrupt: KeyboardInterrupt | None = None
        try:
            while not child.pid:
                try:
                    child.pid, child.pidfd, dropped = self._answer(connection, child.messages)
                    with self._lock:
                        self._note_spares(connection)  # of this one, too, if it was one: that was told before
                        self._spares.discard(child.pid)
                        self._to_reap.update(dropped)
                        self._reap()
                except KeyboardInterrupt as e:
                    interrupt = e
        finally:
            with self._lock:
                self._asked -= 1
                self._idle_since = time.monotonic()
        if interrupt is not None:
            raise interrupt

    def _answer(self, connection: _Connection, messages: int) -> tuple[int, int, list[int]]:
        """What the helper answers by the child's socket (`wire.receive_child`). `_Lost` if it is gone without."""
        poll = select.poll()
        poll.register(messages, select.POLLIN)
        poll.register(connection.fd, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            try:
                if messages in ready:
                    return wire.receive_child(messages)
                with self._lock:
                    self._spares.update(wire.receive_spares(connection.fd))
            except EOFError:
                if messages in ready or not dict(poll.poll(0)).get(messages):
                    raise _Lost from None  # else the answer has come just before the end

    def _reap(self) -> None:
        """Those of the spare children that have ended. With the lock."""
        for pid in list(self._to_reap):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._to_reap.discard(pid)
            except ChildProcessError:
                self._to_reap.discard(pid)  # by whoever

    def _note_spares(self, connection: _Connection) -> None:
        """Those that the helper has told of until now."""
        try:
            while found := wire.receive_spares(connection.fd):
                self._spares.update(found)
        except EOFError:
            pass

    def _end_spares(self) -> None:
        """With the lock, and when nothing is asked for: a spare child that is not ours to end has been taken."""
        if self._connection is not None:
            self._note_spares(self._connection)
        for pid in self._spares - self._to_reap:
            try:
                os.kill(pid, signals.SIGKILL)
            except ProcessLookupError:
                pass
        for pid in self._spares | self._to_reap:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
        self._spares.clear()
        self._to_reap.clear()

    def _end_spare_when_idle(self) -> None:
        """In a thread of its own, until no container has been asked for in a while."""
        owner = os.getpid()
        while True:
            with self._lock:
                if owner != self._owner:
                    return  # in a fork of the process there is no such thread
                left = self._idle_since + _KEPT - time.monotonic()
                if not self._asked and (left <= 0 or self._connection is None):
                    self._end_spares()
                    self._keeping = False
                    return
            time.sleep(max(left, 0.1))

    def close(self) -> None:
        """End the helper. The containers that it has made go on. The next `clone` starts another one."""
        with self._lock:
            if self._owner == os.getpid():
                self._forget()

    @property
    def pid(self) -> int:
        """Of the helper; 0 if there is none."""
        return self._pid if self._owner == os.getpid() else 0

    def _started(self, cgroups: bytes) -> _Connection:
        state = (cgroups, *_inherited())
        if self._owner != os.getpid():
            # The helper of the process that this one was forked from, and its children.
            self._connection, self._pid, self._keeper = None, 0, None
            self._asked, self._keeping = 0, False
            self._spares.clear()
            self._to_reap.clear()
        elif self._connection is not None and state != self._state:
            self._forget()  # what it was started with is not what this process has now, and a child inherits it
        if self._connection is None:
            self._connection = self._start()
            self._state = state
        return self._connection

    def _start(self) -> _Connection:
        if not sys.executable:
            raise SetupError("cannot start the process that makes the containers: Python does not know its own path")
        self._owner = os.getpid()
        self._name = b"mydocker-%.6s" % os.urandom(3).hex().encode()
        ours, theirs = rights.pair()
        connection = _Connection(ours)
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
            raise SetupError(f"cannot start the process that makes the containers: {e.strerror}", e.errno or 0) from e
        finally:
            os.close(theirs)
        logs.info("the process that makes the containers has the PID %d", self._pid)
        return connection

    def _start_in_keeper(self, start: Callable[[], int]) -> int:
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
        """Let the helper end: it does when it has answered what it was asked. With the lock."""
        connection, pid, keeper = self._connection, self._pid, self._keeper
        self._connection, self._pid, self._keeper = None, 0, None
        if connection is None:
            return
        rights.end(connection.fd)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # this process ignores SIGCHLD, or waits for whatever child there is
        self._note_spares(connection)
        if not self._asked:
            self._end_spares()
        if keeper is not None:
            keeper.release()

    def _end_orphan(self, child: Child) -> None:
        """End what a killed helper had no time to tell of, if it is there: it has the pipes of its successor."""
        pipe = f"pipe:[{os.fstat(child.commands).st_ino}]"
        for pid in _children():
            if _has_open(pid, pipe):
                try:
                    os.kill(pid, signals.SIGKILL)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass


def _may_be_spare(template: init.Plan) -> bool:
    """Whether a child of this kind can be set up before there is a container for it."""
    spec = template.spec
    has_place = spec.rootfs is not None or not spec.own_root  # in which its root is put together
    labelled = spec.apparmor_profile or spec.selinux_label
    # What is changed below an overlay that is mounted may not be seen in it (overlayfs.rst).
    return has_place and template.user.maps is None and not (spec.overlay or spec.terminal or labelled)


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


def _children() -> list[int]:
    """The children of this process, of all its threads. SetupError where the kernel does not tell."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as f:
                found += map(int, f.read().split())
        except FileNotFoundError:
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                raise SetupError(
                    "the process that makes the containers was killed at its work, and this kernel does not tell of "
                    "what it may have left (CONFIG_PROC_CHILDREN)"
                ) from None
    return found


def _has_open(pid: int, link: str) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == link for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False
