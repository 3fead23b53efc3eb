"""The program's side of its helper (`mydocker.spawning.helper`): start it, ask it for children, start it again."""

from __future__ import annotations

import _thread
import errno
import os
import select
import sys
import time

from mydocker import logs
from mydocker import plan as plans
from mydocker.cgroups import places
from mydocker.child import Child
from mydocker.errors import SetupError
from mydocker.linux import inherited, process, rights, signals
from mydocker.spawning import spare, wire
from mydocker.spawning.spare import MountsShown, Spare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from mydocker.cgroups.layout import Layout
    from mydocker.plan import Plan

    T = TypeVar("T")

#: The program need not have this package on its path by more than its own means: the helper gets the directory.
_START = "import sys; sys.path.append(sys.argv.pop()); from mydocker.spawning.helper import main; main()"
_TRIES = 3
#: Seconds for which a spare child is kept when nothing is asked for: it holds the mounts that it shows.
_KEPT = 1.0
#: And a helper: a program that runs no containers any more has none, and none of its descriptors.
_KEPT_HELPER = 5.0
#: How often what others change is looked at, for two looks that are the same.
_LOOKS = 100
#: How often machine code may fail to set up a child of one kind.
_MOST_REFUSALS = 2
#: How many kinds of container are remembered: for so many there may be a spare child.
_KINDS = 4
#: And for how many sets of cgroups each is.
_MOST_PACKED = 8

#: In the helper's environment. Who finds it in its own starts no helper: no program starts itself for ever.
_MARK = "MYDOCKER_HELPER"


#: Of a spare child: a path that no container has.
_NO_CGROUP = "mydocker/@spare"


class _Connection:
    """Our end of the socket to a helper, open as long as somebody waits for an answer of it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pid = 0
        #: held as long as a thread of its own is to be the helper's parent
        self.keeper: _thread.LockType | None = None
        self.ended = False

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def abandon(self) -> None:
        """Let the helper end by itself."""
        self.close()
        self.release_keeper()

    def release_keeper(self) -> None:
        """Let the thread wait for the end of its children, and end."""
        keeper, self.keeper = self.keeper, None
        if keeper is not None:
            keeper.release()

    def __del__(self) -> None:
        self.close()


class _Kind:
    """Containers whose plans differ in nothing but descriptors and staging directory."""

    def __init__(self, template: Plan, namespaces: int) -> None:
        self.template = template
        self.namespaces = namespaces
        #: the hierarchies in which one of them has had a cgroup
        self.entered: set[str] = set()
        #: the template, and those with `Plan.entered`, for the helper
        self._packed: dict[tuple[str, ...] | None, bytes] = {}
        #: how often a child could not be set up by machine code, and whether the next is to be without
        self.refusals = 0
        self.by_interpreter = False
        #: when one was asked for, and whether another was a moment before
        self.last = 0.0
        self.again = False
        self.spare: Spare | None = None
        self.mounts_shown = MountsShown()
        #: whether one is about to be asked for
        self.ordered = False
        #: what answers for the spare child, or has
        self.connection: _Connection | None = None

    def packed(self, entered: tuple[str, ...] | None) -> bytes:
        """The template, for the helper."""
        found = self._packed.get(entered)
        if found is None:
            if len(self._packed) >= _MOST_PACKED:
                self._packed.clear()
            found = self._packed[entered] = wire.packed(self.template.replace(entered=entered))
        return found

    def ask(
        self,
        connection: _Connection,
        own: wire.Own,
        entered: tuple[str, ...] | None = None,
        closing: Sequence[int] = (),
    ) -> None:
        """`wire.send_plan`."""
        by_interpreter = self.by_interpreter
        packed = self.packed(entered)
        wire.send_plan(connection.fd, packed, own, self.namespaces, by_interpreter=by_interpreter, closing=closing)
        self.by_interpreter = self.refusals >= _MOST_REFUSALS


class Order:
    """A spare child that is not asked for yet: only the asking is left to be done."""

    _open = False

    def __init__(self, helper: Helper, kind: _Kind, cgroups: bytes, mount_changes: int) -> None:
        """From now on it is the one that is about to be asked for, until it is dropped. With the helper's lock."""
        self._helper = helper
        self.kind = kind
        self.cgroups = cgroups
        self.mount_changes = mount_changes
        self.spare: Spare | None = None
        self.own: wire.Own | None = None
        self.sent = False
        #: what the helper is to close
        self.closing: list[int] = []
        self._theirs: dict[str, int] = {}
        self._open = kind.ordered = True

    def prepare(self, new: Spare, plan: Plan) -> None:
        """OSError."""
        self.spare = new
        self._theirs = new.child.connect(status=False)
        staging = plan.spec.rootfs or ""  # any directory does, and in its own mount namespace only
        self.own = wire.Own.of(plan.replace(staging=staging, **self._theirs))

    def send(self) -> None:
        """Once."""
        if self._open:
            try:
                self._helper.order(self)
            finally:
                self.drop()

    def hold_mounts(self, pid: int) -> None:
        """Of the child ``pid``, until this is sent or dropped. The end of the last process in a mount namespace waits
        until the kernel has taken that apart, if nobody else has it open (mount_namespaces(7)).
        """
        try:
            fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # it was killed, or no descriptor is left: its end takes its mounts apart
        self.closing.append(fd)
        _holding[fd] = self

    def close_there(self, fd: int) -> None:
        """Let the helper close it, for which the kernel may take its time; if it was sent already, at once."""
        if self._open:
            self.closing.append(fd)
        else:
            os.close(fd)

    def drop(self) -> None:
        """If it was not sent, it is not wanted any more."""
        if self._open:
            self._open = False
            self.kind.ordered = False
            for fd in (*self._theirs.values(), *self.closing):
                _holding.pop(fd, None)
                os.close(fd)
            if self.spare is not None and not self.sent:
                self.spare.end()

    def __del__(self) -> None:
        self.drop()


#: The orders that hold mounts, by the descriptor.
_holding: dict[int, Order] = {}


def _hold_nothing() -> None:
    """A fork would hold them as long as it lives."""
    while _holding:
        fd, order = _holding.popitem()
        order.closing.remove(fd)
        os.close(fd)


os.register_at_fork(after_in_child=_hold_nothing)


class NoHelper(Exception):
    """There can be none: this process clones the child itself."""


class _Lost(Exception):
    """The helper ended before it had answered."""


class Helper:
    """The one helper of a process. Safe for threads. A fork of the process makes another, with a lock of its own."""

    def __init__(self, at_rest: Callable[[], None] = lambda: None) -> None:
        """``at_rest`` is called when the helper has ended because nobody had asked for anything."""
        self._at_rest = at_rest
        self._lock = _thread.allocate_lock()
        #: how many have said that they will ask for more
        self._held = 0
        #: released by `close`
        self._closed = _thread.allocate_lock()
        self._closed.acquire()
        self._connection: _Connection | None = None
        self._owner = os.getpid()
        self._state: tuple[Any, ...] = ()
        #: the kinds of container that were asked for last, the latest first
        self._kinds: list[_Kind] = []
        #: how many times `mounts_changed` was called
        self._mount_changes = 0
        #: the plan that was asked about last, and its template
        self._last: tuple[Plan, Plan] | None = None
        #: whether there was ever an answer, and how often there was none
        self._answered = False
        self._lost = 0
        #: those who have no answer yet, and since when there are none
        self._asked: dict[Child, _Connection] = {}
        self._idle_since = 0.0
        #: spare children that were killed
        self._dismissed: list[Spare] = []
        #: whether a thread sees to the end of what nobody asks for
        self._keeping = False

    @property
    def pid(self) -> int:
        """Of the helper, 0 if there is none."""
        connection = self._connection
        return connection.pid if connection is not None else 0

    def clone(self, plan: Plan, namespaces: int, child: Child, cgroups: bytes = b"") -> Callable[[], bool]:
        """Ask for a child of this process that does as ``plan`` says. What is returned waits until ``child`` knows its
        PID, or is False if the helper was killed: then there is none. It raises the OSError of the clone.

        ``cgroups``: those of this process, /proc/self/cgroup. The descriptors of the plan are to stay open until then.
        Unless it has returned, `abandon` is owed. `NoHelper` if none can be started.
        """
        connection = self._ask(plan, namespaces, child, cgroups)

        def finish() -> bool:
            try:
                self._take_answer(connection, child)
            except _Lost:
                self._lose(connection, child)
                return False
            return True

        return finish

    def abandon(self, child: Child) -> None:
        """See that there is no child of which nobody knows: it was asked for, and its PID may not have come."""
        with self._lock:
            self._answered_or_not(child)
            if not child.pid:
                self._forget()
        if not child.pid:
            self._end_orphan(child)

    def _lose(self, connection: _Connection, child: Child) -> None:
        """The helper was killed. What it had no time to tell of has the pipes of the child."""
        self._end_orphan(child)
        with self._lock:
            self._lost += 1
            if connection is self._connection:
                self._forget()

    def take_spare(self, plan: Plan, namespaces: int, child: Child, cgroups: bytes) -> bool:
        """Whether there was a spare child that does as ``plan`` says; it is ``child`` then. The others as for `clone`,
        whose OSErrors are raised by it alone.
        """
        found: Spare | None = None
        connection: _Connection | None = None
        taken = False
        try:
            with self._lock:
                kind = self._kind(plan, namespaces)
                now = time.monotonic()
                kind.again, kind.last = now - kind.last < _KEPT, now
                if kind.spare is not None and self._state != (cgroups, *inherited.look()):
                    self._end_spare(kind)
                connection = kind.connection
                found, kind.spare = kind.spare, None
            if found is not None and connection is not None:
                self._take_answer(connection, found.child)
                if found.fits(plan):
                    child.become(found.child)
                    taken = True
        except OSError as e:
            logs.info("a child made beforehand is of no use: %s", e)
        except _Lost:
            assert found is not None
            assert connection is not None
            self._lose(connection, found.child)
        finally:
            if found is not None and not taken:
                if not found.child.pid:
                    self.abandon(found.child)
                self._dismiss(found)
        return taken

    def prepare_order(
        self,
        plan: Plan,
        namespaces: int,
        layout: Layout,
        cgroups: bytes,
        mounts: bytes | None,
        entered: tuple[str, ...] | None,
    ) -> Order | None:
        """All but the asking for a spare child of the kind that was asked for last by this plan, if there may soon be
        use for one. The run goes on without, so nothing is raised. ``mounts``: as for `Spare`. ``entered``:
        `Plan.entered` of the last container. More does no harm, so that the next one may be like any before.
        """
        self._reap()
        if not spare.is_possible(plan):
            return None
        with self._lock:
            kind = self._kind(plan, namespaces)
            if not kind.again or kind.spare is not None or kind.ordered or not self._may_order(cgroups):
                return None
            order = Order(self, kind, cgroups, self._mount_changes)
            if entered is not None:
                kind.entered.update(entered)
                entered = tuple(sorted(kind.entered))
        try:
            child = Child(layout, _NO_CGROUP)
            child.entered = entered
            order.prepare(Spare(child, plan, mounts, kind.mounts_shown), plan)
        except BaseException as e:  # an interrupt, too
            order.drop()
            if not isinstance(e, OSError):
                raise
            return None
        return order

    def _may_order(self, cgroups: bytes) -> bool:
        """Whether the helper is there for processes in these cgroups, and nobody waits for it. With the lock."""
        return self._connection is not None and self._state[:1] == (cgroups,) and not self._awaited()

    def order(self, order: Order) -> None:
        """Ask for it, if there is still use for it. `Order.drop` is owed."""
        with self._lock:
            kind, connection = order.kind, self._connection
            if kind.spare is not None or kind not in self._kinds or not self._may_order(order.cgroups):
                return
            if order.mount_changes != self._mount_changes:
                return
            assert connection is not None
            assert order.spare is not None
            assert order.own is not None
            try:
                kind.spare, kind.connection = order.spare, connection
                order.sent = True
                self._asked[order.spare.child] = connection
                kind.ask(connection, order.own, order.spare.child.entered, order.closing)
                self._idle_since = time.monotonic()
                self._watch_for_rest()
            except BaseException as e:  # an interrupt, too: nothing else may follow half a request
                self._forget()
                if not isinstance(e, OSError):
                    raise

    def set_up_by_interpreter(self, plan: Plan, namespaces: int, number: int) -> None:
        """The next child that does as ``plan`` says is: one could not be by machine code. Once more that is tried,
        since the interpreter makes what is missing in the root, and it stays. ``number``: the errno. Of EAGAIN the next
        one need not hear: something was renamed on the host meanwhile (openat2(2)).
        """
        with self._lock:
            kind = self._kind(plan, namespaces)
            kind.refusals += number != errno.EAGAIN
            if kind.refusals == _MOST_REFUSALS:
                logs.info("the interpreter sets up containers of this kind from now on: %s", os.strerror(number))
            kind.by_interpreter = True
            kind.last = 0.0  # what is asked for again is the same container
            self._end_spare(kind)

    def mounts_changed(self, mounts: bytes | None) -> None:
        """End the spare children that may not be as one would be now. ``mounts``: `mount_watch.mountinfo`."""
        with self._lock:
            self._mount_changes += 1
            for kind in self._kinds:
                if kind.spare is not None and not kind.spare.outlives(kind.template, mounts):
                    self._end_spare(kind)

    def _ask(self, plan: Plan, namespaces: int, child: Child, cgroups: bytes) -> _Connection:
        own = wire.Own.of(plan)
        with self._lock:
            kind = self._kind(plan, namespaces)
            for _ in range(_TRIES):
                if self._lost >= _TRIES and not self._answered:
                    raise NoHelper  # what was started was none
                connection = self._started(cgroups)
                try:
                    kind.ask(connection, own)
                except (BrokenPipeError, ConnectionResetError):
                    self._lost += 1
                    self._forget()
                    continue
                except BaseException:  # an interrupt, too: nothing else may follow half a request
                    self._forget()
                    raise
                self._asked[child] = connection
                self._watch_for_rest()
                return connection
            raise NoHelper

    def _kind(self, plan: Plan, namespaces: int) -> _Kind:
        """With the lock."""
        if self._last is None or self._last[0] is not plan:
            self._last = (plan, plans.template(plan))
        template = self._last[1]
        for kind in self._kinds:
            if kind.namespaces == namespaces and kind.template == template:
                self._kinds.remove(kind)
                break
        else:
            kind = _Kind(template, namespaces)
        self._kinds.insert(0, kind)
        while len(self._kinds) > _KINDS:
            self._end_spare(self._kinds.pop())
        return kind

    def _take_answer(self, connection: _Connection, child: Child) -> None:
        """Into ``child``."""
        try:
            child.pid, child.pidfd = _answer(connection, child.messages)
            self._answered = True
        finally:
            with self._lock:
                self._answered_or_not(child)
                self._idle_since = time.monotonic()

    def _answered_or_not(self, child: Child) -> None:
        """It waits for no answer any more. With the lock."""
        connection = self._asked.pop(child, None)
        if connection is not None and connection.ended and connection not in self._asked.values():
            connection.close()

    def _end_spares(self) -> None:
        """With the lock."""
        for kind in self._kinds:
            self._end_spare(kind)
        self._reap()

    def _end_spare(self, kind: _Kind) -> None:
        """With the lock."""
        found, kind.spare = kind.spare, None
        if found is None:
            return
        assert kind.connection is not None
        try:
            found.child.pid, found.child.pidfd = _answer(kind.connection, found.child.messages)
        except OSError:
            pass  # it was not made
        except BaseException as e:  # an interrupt, too
            self._end_orphan(found.child)
            if not isinstance(e, _Lost):
                raise
        finally:
            self._answered_or_not(found.child)
            self._dismiss(found)

    def _dismiss(self, found: Spare) -> None:
        """End it. When there is time for that, somebody waits until it has: `_reap`."""
        try:
            found.kill()
        finally:
            self._dismissed.append(found)
        if self._connection is None:  # nobody would come
            self._reap()

    def _reap(self) -> None:
        while True:
            try:
                found = self._dismissed.pop()
            except IndexError:  # another thread may have got the last one
                return
            try:
                found.reap()
            except BaseException:  # an interrupt
                self._dismissed.append(found)
                raise

    def hold(self) -> None:
        """Keep the helper, however long nothing is asked for."""
        with self._lock:
            self._held += 1

    def release(self) -> None:
        """The reverse of `hold`."""
        with self._lock:
            self._held -= 1
            if self._connection is not None:
                self._watch_for_rest()

    def _watch_for_rest(self) -> None:
        """Have a thread end what nobody asks for any more. With the lock."""
        if not self._keeping:
            try:
                self._keeping = True
                _thread.start_new_thread(self._end_at_rest, ())
            except RuntimeError:  # there can be no more threads: the next one who asks tries again
                self._keeping = False

    def _end_at_rest(self) -> None:
        """In a thread of its own: first the spare children, and then the helper."""
        owner = os.getpid()
        left = _KEPT
        while left > 0:
            self._closed.acquire(timeout=left)
            with self._lock:
                if owner != self._owner:
                    return  # in a fork of the process there is no such thread
                left = self._time_left()
                self._keeping = left > 0
        if self._connection is None:
            self._at_rest()

    def _time_left(self) -> float:
        """Until there is something to end again, in seconds; what is due is ended. With the lock."""
        if self._awaited():
            return _KEPT
        rest = time.monotonic() - self._idle_since
        if rest < _KEPT and self._connection is not None:
            return _KEPT - rest
        self._end_spares()
        if self._held or self._connection is None:
            return 0.0
        if rest < _KEPT_HELPER:
            return _KEPT_HELPER - rest
        self._forget()
        return 0.0

    def _awaited(self) -> bool:
        """Whether somebody waits for an answer, as nobody does for a spare child's. With the lock."""
        spares = [kind.spare.child for kind in self._kinds if kind.spare is not None]
        return any(child not in spares for child in self._asked)

    def close(self) -> None:
        """End the helper. The containers that it has made go on. The next `clone` starts another one."""
        with self._lock:
            self._forget()
            self._kinds.clear()
            if self._keeping and self._closed.locked():
                self._closed.release()

    def _started(self, cgroups: bytes) -> _Connection:
        state = (cgroups, *inherited.look())
        if state != self._state:
            self._forget()  # what it was started with is not what this process has now, and a child inherits it
        if self._connection is None:
            mask = signals.current_mask()
            try:
                signals.block()  # an interrupt that comes out of the call takes the PID along
                self._connection = self._start()
                places.keep_common_parent(kept=True)
            finally:
                signals.restore(mask)
            self._state = state
        return self._connection

    def _start(self) -> _Connection:
        if not _is_interpreter(sys.executable):
            raise NoHelper
        ours, theirs = rights.pair()
        connection = _Connection(ours)
        try:
            try:
                self._start_with(connection, theirs)
            finally:
                os.close(theirs)
            logs.info("the process that makes the containers has the PID %d", connection.pid)
        except BaseException as e:  # an interrupt that another thread was given, too
            connection.abandon()
            if not isinstance(e, OSError):
                raise
            logs.info("cannot start the process that makes the containers: %s", e.strerror)
            raise NoHelper from None
        return connection

    def _start_with(self, connection: _Connection, theirs: int) -> None:
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        # -I, -S: neither the program's variables nor its site-packages change what the helper is.
        command = [sys.executable, "-I", "-S", "-c", _START, str(self._owner), here]
        environment = {**os.environ, _MARK: "1"}
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]

        def start() -> int:
            return os.posix_spawn(command[0], command, environment, file_actions=actions, setsigmask=range(1, 32))

        # The kernel ends a child for its parent's death when the thread that is the parent ends (prctl(2)). So the
        # helper, whose parent is that of the containers, is started by a thread that stays: the main one, if there is
        # no other that the kernel may give a signal to.
        if _thread.get_native_id() == self._owner and process.single_threaded():
            connection.pid = start()
        else:
            self._start_in_keeper(connection, start)

    @staticmethod
    def _start_in_keeper(connection: _Connection, start: Callable[[], int]) -> None:
        keeper, started = _thread.allocate_lock(), _thread.allocate_lock()
        keeper.acquire()
        started.acquire()
        failed: list[BaseException] = []

        def body() -> None:
            try:
                connection.pid = start()
            except BaseException as e:
                failed.append(e)
            started.release()
            keeper.acquire()
            if connection.pid:
                _await(connection.pid)
            _outlive_children()

        connection.keeper = keeper
        try:
            _thread.start_new_thread(body, ())
            started.acquire()
        except RuntimeError:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        except BaseException:  # an interrupt: the thread has the descriptors until it has started it
            if not connection.pid and not failed:
                started.acquire()
            raise
        if failed:
            raise failed[0]

    def _forget(self) -> None:
        """Let the helper end: it does when it has answered what it was asked. With the lock."""
        connection, self._connection = self._connection, None
        if connection is None:
            self._reap()
            return
        places.keep_common_parent(kept=False)
        try:
            rights.end(connection.fd)
            try:
                ended_by_itself = _await(connection.pid)
            except BaseException:  # an interrupt: it ends all the same
                _await(connection.pid)
                raise
            connection.pid = 0
            self._end_spares()
            if not ended_by_itself:
                self._remove_common_parents()
        finally:
            connection.ended = True
            if connection not in self._asked.values():
                connection.close()
            connection.release_keeper()

    def _remove_common_parents(self) -> None:
        """What the helper would have done. With the lock."""
        from mydocker.cgroups import creation

        creation.remove_common_parents({hierarchy for kind in self._kinds for hierarchy in kind.template.hierarchies})

    def _end_orphan(self, child: Child) -> None:
        """End what a helper did not come to tell of, if it is there: it has the child's pipe.

        So may a fork of the program, but that has not a helper's name.
        """
        if child.commands < 0:
            return  # it is another's by now
        pipe = f"pipe:[{os.fstat(child.commands).st_ino}]"
        for pid in _children():
            if _name(pid) == wire.NAME and _has_open(pid, pipe):
                _end(pid)


def _answer(connection: _Connection, messages: int) -> tuple[int, int]:
    """What the helper answers by the child's socket (`wire.receive_child`). `_Lost` if it is gone without."""
    poll = select.poll()
    poll.register(messages, select.POLLIN)
    poll.register(connection.fd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        try:
            if messages in ready:
                return wire.receive_child(messages)
        except EOFError:
            raise _Lost from None
        if not dict(poll.poll(0)).get(messages):
            raise _Lost  # else the answer has come just before the end


def _is_interpreter(executable: str | None) -> bool:
    """Not so in a program that is packed into one file, or that embeds Python: it would be started once more."""
    name = os.path.basename(executable or "").lower()
    return ("python" in name or "pypy" in name) and not hasattr(sys, "frozen") and _MARK not in os.environ


def _outlive_children() -> None:
    """Wait until this thread has no children: the end of their parent is what ends them."""
    pause = 0.001
    while True:
        try:
            with open("/proc/thread-self/children", "rb") as f:
                if not f.read(1):
                    return
        except OSError:
            pass  # this kernel does not tell (CONFIG_PROC_CHILDREN)
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signals.SIGKILL)
    except ProcessLookupError:
        return
    _await(pid)


def _await(pid: int) -> bool:
    """Whether it has ended by itself, as far as is known."""
    try:
        return os.waitpid(pid, 0)[1] == 0
    except ChildProcessError:
        return False  # this process ignores SIGCHLD, or waits for whatever child there is


def _name(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/comm", "rb") as f:
            return f.read().rstrip(b"\n")
    except OSError:
        return b""


def _looks(look: Callable[[], T]) -> Iterator[T]:
    """What a look at something gives that others change meanwhile, until two are the same."""
    found = None
    for _ in range(_LOOKS):
        found, before = look(), found
        yield found
        if found == before:
            break


def _children() -> list[int]:
    """The children of this process, of all its threads. SetupError where the kernel does not tell.

    While others end, the kernel's lists may lack some that stay (proc_pid_children(5)). But two that are the same lack
    none: of an end that made the first one too short, the second one has no trace.
    """
    *_, last = _looks(_listed_children)
    return [pid for pids in last.values() for pid in pids]


def _listed_children() -> dict[str, list[int]]:
    """By thread."""
    found = {}
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as f:
                found[thread] = [*map(int, f.read().split())]
        except (FileNotFoundError, ProcessLookupError):
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                raise SetupError(
                    "the process that makes the containers was killed at its work, and this kernel does not tell of "
                    "what it may have left (CONFIG_PROC_CHILDREN)"
                ) from None
    return found


def _has_open(pid: int, link: str) -> bool:
    """Whether one of its descriptors is ``link``, which may get another number while we look."""
    return any(link in found for found in _looks(lambda: _descriptors(pid)))


def _descriptors(pid: int) -> list[str]:
    found = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except FileNotFoundError:
                found.append("")  # closed since
    except OSError:
        pass  # it has ended, or is not ours to look at
    return found
