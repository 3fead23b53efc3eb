"""The monitor: one process, ``mydocker-watch``, that looks after all containers of a root which the same plugins watch.

The first ``create`` that needs it forks it, and later ones hand their containers over: by the id, on a socket in the
root. The monitor reads the record, asks the plugins what to look at, begins, and answers; until then the container's
init is not let go. Which containers have the same monitor is `mydocker.oci.monitor_key`'s to say; the socket has that
key as its name. The monitor ends with the last of its containers and takes the socket away.

Each container has two threads of its own, so a plugin that hangs or raises over one of them disturbs no other: one
calls the checks (`mydocker.watching`), one acts on the verdicts.

Who looks for a monitor, and a monitor that ends, hold a lock on the root (flock(2)) meanwhile: whoever is connected is
served. A monitor that was killed leaves its socket, on which nobody answers; the next one of that name takes its
containers over, and so does a verb that lets one of them run (`replace`). What cannot be watched any more is killed.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import fcntl
import os
import select
import struct
import time

from mydocker import hooks, plugins, state
from mydocker.errors import MydockerError, OciError
from mydocker.linux import process
from mydocker.oci import monitor_key
from mydocker.oci.container import Container
from mydocker.oci.watching import Stay, kill, leave_the_caller
from mydocker.plugins import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mydocker.limits import Limits
    from mydocker.plugins import Registry

#: What a monitor's socket is called before its key. No container can have such a name.
_PREFIX = "@watch-"

_WATCHED, _REFUSED, _ELSEWHERE = b"+", b"-", b"?"

#: Bytes of a message. An error's words that are longer are cut.
_LONGEST = 16384

#: Seconds that a monitor has besides what the plugins may take.
_PATIENCE = 10.0

#: A container takes some descriptors of the monitor; more than that many are never needed, by all of them.
_DESCRIPTORS = 65536
_NOFILE = 7  # RLIMIT_NOFILE

#: How many may have asked and wait to be served, and then how long to wait with the next question.
_QUEUE, _MOMENT = 128, 0.01


def hand_over(found: Container, registry: Registry, limits: Limits) -> dict[str, object]:
    """Have a monitor watch the container. What to note in its record as ``monitor``. OciError if it is not watched."""
    name = _PREFIX + monitor_key.key(registry, limits.watching)
    path = os.path.dirname(found.path)
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        patience = hooks.timeout() * (len(limits.watching) + 1) + _PATIENCE
        for _ in range(3):
            connection = _connect(root, name, registry, path)
            try:
                answer = _ask(connection, found.id, patience)
            finally:
                connection.close()
            if answer != _ELSEWHERE:
                break
    finally:
        os.close(root)
    if not answer.startswith(_WATCHED):
        words = answer[1:].decode("utf-8", "surrogateescape")
        raise OciError(words or "the process that was to watch the container has ended")
    pid, start_time = answer[1:].split()
    return {"socket": name, "pid": int(pid), "start_time": int(start_time)}


def replace(found: Container) -> None:
    """Have a container watched again whose monitor was killed. OciError, and it is killed, if that cannot be."""
    try:
        registry = plugins.load()
        noted = hand_over(found, registry, _limits_of(found, registry))
    except MydockerError as error:
        _kill(found)
        words = "the process that watched the container was killed, and so is the container now"
        raise OciError(f"{words}: {error}") from error
    found.rewrite(oci={**found.record.oci, "monitor": noted})


def _kill(found: Container) -> None:
    try:
        pidfd = found.open_init()
    except OciError:
        return  # it has ended
    try:
        kill(found, pidfd)
    finally:
        os.close(pidfd)


def _connect(root: int, name: str, registry: Registry, path: str) -> _socket.socket:
    """To the monitor of that name; to a new one if there is none."""
    while True:
        fcntl.flock(root, fcntl.LOCK_EX)
        try:
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
            connection.setblocking(False)
            try:
                error = connection.connect_ex(f"/proc/self/fd/{root}/{name}")
                if error in (errno.ECONNREFUSED, errno.ENOENT):
                    _begin(root, name, registry, path, left=error == errno.ECONNREFUSED)
                    error = connection.connect_ex(f"/proc/self/fd/{root}/{name}")
                if not error:
                    _require_ours(connection)
                    return connection
                connection.close()
            except BaseException:
                connection.close()
                raise
        finally:
            fcntl.flock(root, fcntl.LOCK_UN)
        if error != errno.EAGAIN:
            raise OciError(f"cannot reach the process that watches containers: {os.strerror(error)}")
        time.sleep(_MOMENT)


def _require_ours(connection: _socket.socket) -> None:
    if _peer(connection) != os.geteuid():
        raise OciError("what answers in the place of the process that watches containers is another user's")


def _peer(connection: _socket.socket) -> int:
    """The user at the other end (unix(7), SO_PEERCRED)."""
    uid: int = struct.unpack("=3i", connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))[1]
    return uid


def _ask(connection: _socket.socket, name: str, patience: float) -> bytes:
    """The answer; empty if the monitor has ended."""
    try:
        connection.send(name.encode())
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if not poll.poll(patience * 1000):
            raise OciError(f"the process that watches containers has not answered for {patience:g} seconds")
        return connection.recv(_LONGEST)
    except (BrokenPipeError, ConnectionResetError):
        return b""


def _begin(root: int, name: str, registry: Registry, path: str, *, left: bool) -> None:
    """Fork the monitor. ``left``: one that was killed has left its socket. To be called under the lock of the root."""
    if left:
        os.unlink(name, dir_fd=root)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    os.fchmod(listener.fileno(), 0o600)  # the mode that bind(2) gives the file
    try:
        listener.bind(f"/proc/self/fd/{root}/{name}")
        listener.listen(_QUEUE)
        listener.setblocking(False)
        if process.fork() == 0:
            _be_monitor(root, name, registry, path, listener, left=left)
    except OSError as e:
        raise OciError(f"cannot begin to watch the container: {(e.strerror or '').lower()}") from e
    finally:
        listener.close()


def _be_monitor(root: int, name: str, registry: Registry, path: str, listener: _socket.socket, *, left: bool) -> None:
    """The forked process; it does not return."""
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)  # whose lock is not the caller's
        leave_the_caller()
        process.close_all_except({root, listener.fileno()})
        # It ends with the last container, and not before for a signal of one who ends a session. What a plugin executes
        # has these signals by default.
        import signal

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        _Monitor(root, name, registry, path, listener).run(left=left)
    finally:
        os._exit(0)


class _Monitor:
    def __init__(self, root: int, name: str, registry: Registry, path: str, listener: _socket.socket) -> None:
        """``path``: of the root, for the containers in it."""
        self._root = root
        self._name = name
        self._registry = registry
        self._path = path
        self._listener: _socket.socket | None = listener
        self._socket = os.stat(name, dir_fd=root).st_ino
        self._code = monitor_key.Code()
        self._most = _raise_descriptors() // 2
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._mutex = _thread.allocate_lock()
        #: threads that serve a container, or may come to
        self._serving = 0
        #: containers by id, PID and start time; None while the plugins are asked
        self._watched: dict[tuple[str, int, int], Stay | None] = {}

    def run(self, *, left: bool) -> None:
        """Until there is no container any more."""
        try:
            if left:
                self._inherit()
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            assert self._listener is not None
            listening = self._listener.fileno()
            poll.register(listening, select.POLLIN)
            while not self._ends():
                poll.poll()
                try:
                    os.eventfd_read(self._wake)
                except BlockingIOError:
                    pass
                self._accept()
                if self._listener is None and listening >= 0:
                    poll.unregister(listening)
                    listening = -1
        except BaseException:
            for stay in list(self._watched.values()):
                if stay is not None:
                    stay.kill()
            raise

    def _ends(self) -> bool:
        """Whether there is nothing to do, and nobody will come who has found the socket."""
        if self._serving:
            return False
        if self._listener is None:
            return True
        fcntl.flock(self._root, fcntl.LOCK_EX)
        self._accept()
        if self._serving:
            fcntl.flock(self._root, fcntl.LOCK_UN)
            return False
        self._remove_socket()
        return True

    def _remove_socket(self) -> None:
        """Under the lock of the root. Somebody may have removed it, and another monitor made its own."""
        try:
            if os.stat(self._name, dir_fd=self._root).st_ino == self._socket:
                os.unlink(self._name, dir_fd=self._root)
        except FileNotFoundError:
            pass

    def _accept(self) -> None:
        """All that wait."""
        try:
            while (connection := self._next()) is not None:
                if _peer(connection) != os.geteuid():
                    connection.close()
                elif connection.fileno() > self._most or self._code.has_changed():
                    self._serve(_decline, connection)
                    self._retire()
                else:
                    self._serve(self._converse, connection)
        except OSError:  # no descriptor for one more, nor memory: who waits is told by the end of the connection
            self._retire()

    def _next(self) -> _socket.socket | None:
        if self._listener is None:
            return None
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # what socket.socket.accept calls
        except (BlockingIOError, ConnectionAbortedError):
            return None
        return _socket.socket(fileno=fd)

    def _retire(self) -> None:
        """Take no further container: the next monitor does, with the code as it is now, or with more descriptors."""
        fcntl.flock(self._root, fcntl.LOCK_EX)
        try:
            self._remove_socket()
            while (connection := self._next()) is not None:
                self._serve(_decline, connection)
        except OSError:
            pass
        finally:
            assert self._listener is not None
            self._listener.close()
            self._listener = None
            fcntl.flock(self._root, fcntl.LOCK_UN)

    def _serve(self, work: Callable[[_socket.socket], None], connection: _socket.socket) -> None:
        """Do the work in a thread. Where there can be no further one, the end of the connection tells who asks."""
        if not self._start(work, connection):
            connection.close()

    def _start(self, work: Callable[[Any], None], subject: Any) -> bool:
        with self._mutex:
            self._serving += 1
        try:
            _thread.start_new_thread(self._do, (work, subject))
        except RuntimeError:  # such as a limit of tasks that is reached
            self._has_served()
            return False
        return True

    def _do(self, work: Callable[[Any], None], subject: Any) -> None:
        try:
            work(subject)
        finally:
            self._has_served()

    def _has_served(self) -> None:
        with self._mutex:
            self._serving -= 1
        os.eventfd_write(self._wake, 1)

    # Each in a thread of its own

    def _converse(self, connection: _socket.socket) -> None:
        """Answer one who has a container to be watched, and watch it."""
        stay = None
        try:
            name = connection.recv(_LONGEST).decode("utf-8", "replace")
            stay = self._take(name)
            answer = b"%b%d %d" % (_WATCHED, os.getpid(), process.start_time(os.getpid()))
        except MydockerError as e:
            answer = _REFUSED + str(e).encode("utf-8", "surrogateescape")
        except BaseException as e:  # in this thread no Ctrl-C is raised
            answer = _REFUSED + error_text(e).encode("utf-8", "surrogateescape")
        _answer(connection, answer)
        if stay is not None:
            self._stay(stay)

    def _inherit(self) -> None:
        """Watch the containers of a monitor of this name that was killed."""
        from mydocker.oci.list_ import containers

        for found in containers(self._path):
            noted = found.record.oci.get("monitor") or {}
            if noted.get("socket") != self._name or state.is_alive(noted["pid"], noted["start_time"]):
                continue
            if not self._start(self._take_over, found):
                _kill(found)

    def _take_over(self, found: Container) -> None:
        try:
            stay = self._take(found.id)
        except BaseException:  # it fails closed: what nobody watches does not run
            _kill(found)
            return
        if stay is not None:
            self._stay(stay)

    def _take(self, name: str) -> Stay | None:
        """Ask the plugins, and begin. None if it is watched already, or nobody wants to look."""
        from mydocker.watching import Watcher

        record = state.read(f"{self._path}/{name}") if state.is_id(name) else None
        if record is None or not record.oci.get("complete"):
            raise OciError(f"there is no container {name!r} to be watched")
        found = Container(f"{self._path}/{name}", record)
        which = (name, record.pid, record.start_time)
        if not self._claim(which):
            return None
        pidfd, stay = -1, None
        try:
            pidfd = found.open_init()
            watches = _limits_of(found, self._registry).watches(found.pid)
            if watches:
                watcher = Watcher(watches, hooks.timeout())
                watcher.start()
                stay = self._watched[which] = Stay(watcher, found, pidfd)
        finally:
            if stay is None:
                self._forget(which)
                if pidfd >= 0:
                    os.close(pidfd)
        return stay

    def _claim(self, which: tuple[str, int, int]) -> bool:
        """Whether it is to be begun with the container; False if that is done."""
        while True:
            with self._mutex:
                if which not in self._watched:
                    self._watched[which] = None
                    return True
                if self._watched[which] is not None:
                    return False
            time.sleep(_MOMENT)  # another thread asks the plugins, and may be refused

    def _stay(self, stay: Stay) -> None:
        try:
            stay.run()
        except BaseException:  # it fails closed: what nobody watches does not run
            stay.kill()
        finally:
            record = stay.found.record
            self._forget((record.id, record.pid, record.start_time))
            stay.close()

    def _forget(self, which: tuple[str, int, int]) -> None:
        with self._mutex:
            self._watched.pop(which, None)


def _decline(connection: _socket.socket) -> None:
    """When the question is there: to close the connection before would be an error to who asks, and no answer."""
    connection.recv(_LONGEST)
    _answer(connection, _ELSEWHERE)


def _answer(connection: _socket.socket, answer: bytes) -> None:
    try:
        connection.send(answer[:_LONGEST], _socket.MSG_NOSIGNAL)
    except OSError:
        pass  # who has asked is dead, and so is the container then
    finally:
        connection.close()


def _raise_descriptors() -> int:
    """To as many as this process may have; how many that are."""
    from mydocker.linux.rlimits import prlimit

    soft, hard = prlimit(0, _NOFILE)
    if soft < hard and soft < _DESCRIPTORS:
        soft = min(hard, _DESCRIPTORS)
        prlimit(0, _NOFILE, (soft, hard))
    return soft


def _limits_of(found: Container, registry: Registry) -> Limits:
    """The container's limits as its record has them."""
    from mydocker.cgroups.layout import Layout
    from mydocker.limits import Limits
    from mydocker.oci import resources

    limits = Limits(registry.parse(found.record.limits), registry, resources.spec_of({}), Layout.read())
    limits.cgroup = found.cgroup()
    return limits
