"""The container's first process as the runtime has it: cloned, killed, reaped; why it is not the command."""

from __future__ import annotations

import errno
import os
import select
import struct

from mydocker import handoff
from mydocker.errors import CommandNotExecutable, CommandNotFound, SetupError
from mydocker.linux import process, rights, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from mydocker.cgroups.layout import Layout
    from mydocker.errors import MydockerError
    from mydocker.handoff import Failure
    from mydocker.plan import Plan
    from mydocker.spec import Spec


class Child:
    """The cloned process and our ends of its pipes, from before they exist: what fails in between finds an owner."""

    def __init__(self, layout: Layout, cgroup: str) -> None:
        self._layout = layout
        self._cgroup = cgroup
        self.pid = 0
        self.pidfd = -1
        self.commands = -1
        self.reports = -1
        self.status = -1
        #: our end of the socket for what the child gets besides its command
        self.messages = -1
        #: where in its memory it has place for its command (`mydocker.landing`), 0 for none
        self.landing = 0
        #: of what was made for nobody yet: `Plan.entered`
        self.entered: tuple[str, ...] | None = None
        self._runtime = -1
        self._signs: select.poll | None = None
        self.ended: tuple[int, Any] | None = None

    def connect(self, *, status: bool) -> dict[str, int]:
        """Make the pipes and the socket: the child's ends, by the names that they have in its plan, for the caller to
        close. ``status``: with the pipe of a reaper. OSError.
        """
        theirs: dict[str, int] = {}
        try:
            theirs["commands"], self.commands = os.pipe()
            self.reports, theirs["reports"] = os.pipe()
            self.messages, theirs["messages"] = rights.pair()
            if status:
                self.status, theirs["status"] = os.pipe()
        except BaseException:
            for fd in theirs.values():
                os.close(fd)
            raise
        return theirs

    @property
    def waits(self) -> bool:
        """Whether it is there and has nothing to report: it was not killed, and has not failed after it was set up."""
        if self._signs is None:
            self._signs = select.poll()
            self._signs.register(self.pidfd, select.POLLIN)
            self._signs.register(self.reports, select.POLLIN)
        return not self._signs.poll(0)

    def become(self, other: Child) -> None:
        """Take over a process, with our ends of its pipes, that was made for nobody yet."""
        layout, cgroup = self._layout, self._cgroup
        # In one statement, in which no interrupt is raised: it is always of one of the two.
        self.__dict__, other.__dict__ = other.__dict__, self.__dict__
        self._layout, self._cgroup = layout, cgroup

    def close_commands(self) -> None:
        commands, self.commands = self.commands, -1  # forgotten first, so that it is not closed twice
        if commands >= 0:
            os.close(commands)

    def close_messages(self) -> None:
        """It gets nothing more but its command."""
        messages, self.messages = self.messages, -1
        if messages >= 0:
            os.close(messages)

    def watch_runtime(self) -> int:
        """A pidfd of this process, for the child to look at."""
        self._runtime = os.pidfd_open(os.getpid())
        return self._runtime

    def let_in(self, word: bytes, entrances: list[int], hostname: str | None = None, *, late: bool = False) -> None:
        """Send it the entrances of its cgroups, and if it is ``late`` its host name. If it is gone, its report says
        why.
        """
        if late:
            word = handoff.place(word, (hostname or "").encode(errors="surrogateescape"))
        self._send(word, entrances)

    def send_stdio(self, stdio: tuple[int, int, int]) -> None:
        """Send what become the command's 0, 1 and 2, before the command: who waits on another CPU is awake when that
        comes. If the child is gone, `tell` notices.
        """
        self._send(b"s", stdio)

    def ask(self, question: bytes) -> bool:
        """Send it a question of `mydocker.landing`; False if it is gone."""
        return self._send(question)

    def _send(self, data: bytes, descriptors: Sequence[int] = ()) -> bool:
        """By our end of its socket; False if it is gone."""
        try:
            rights.send(self.messages, data, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def tell(self, data: bytes, wait: Callable[[], None] | None = None) -> bool:
        """`handoff.send` down the pipe; False if the child is gone, whose report, if any, says why."""
        try:
            handoff.send(self.commands, data, wait)
        except BrokenPipeError:
            return False
        return True

    def kill(self) -> None:
        """Kill the container, frozen or not, by whoever: on v1 what is frozen ends only when it is thawed."""
        try:
            os.kill(self.pid, signals.SIGKILL)  # nobody else has this PID before it is reaped
        except ProcessLookupError:
            return
        if self._layout.version("freezer") == 1:
            from mydocker.cgroups.freezing import let_killed_end

            let_killed_end(self._layout, self._cgroup)

    @property
    def frozen(self) -> bool:
        """Whether the container is frozen, by whoever."""
        from mydocker.cgroups.group import ContainerCgroup

        return ContainerCgroup.opened(self._layout, self._cgroup).frozen

    def reap(self) -> tuple[int, Any]:
        """(wait status, resource usage), once it has ended: with PID 1, every process of the container has."""
        if self.ended is None:
            try:
                _, status, usage = os.wait4(self.pid, 0)
            except ChildProcessError:
                raise self._status_lost() from None
            self.ended = (status, usage)
        return self.ended

    def reap_status(self) -> int:
        """The wait status alone, once it has ended. For the usage Python loads a module, whoever looks at it."""
        if self.ended is None:
            try:
                _, status = os.waitpid(self.pid, 0)
            except ChildProcessError:
                raise self._status_lost() from None
            self.ended = (status, None)
        return self.ended[0]

    @staticmethod
    def _status_lost() -> SetupError:
        return SetupError("the command's exit status is lost: this process ignores SIGCHLD, so the kernel keeps none")

    def leave(self) -> None:
        """The child is to outlive this process: `close` does not end it any more."""
        self.pid = 0

    def close(self) -> None:
        """Nothing of the child outlives this, whatever state it is in."""
        self.close_commands()
        try:
            if self.pid and self.ended is None:
                self.kill()
                try:
                    self.reap_status()
                except SetupError:
                    pass  # somebody else has: it is gone, and nobody asks for its status any more
        finally:
            descriptors = (self.pidfd, self.reports, self.status, self.messages, self._runtime)
            self.pidfd = self.reports = self.status = self.messages = self._runtime = -1
            self._signs = None
            for fd in descriptors:
                if fd >= 0:
                    os.close(fd)


def clone(plan: Plan, namespaces: int, child: Child) -> None:
    """Clone the child, which runs `mydocker.init.run`."""
    from mydocker import init

    plan = init.loaded(plan)
    clone_to_run(lambda: init.run(plan), namespaces, child)


def clone_to_run(
    run: Callable[[], NoReturn],
    namespaces: int,
    child: Child,
    before: Callable[[], None] | None = None,
    serve: Callable[[int], None] | None = None,
    cgroup: int = -1,
) -> None:
    """Clone the child, which calls ``run``.

    A bare clone copies libc's locks as they are, and another thread may hold one. So a process with threads forks
    the ordinary way first, and the copy, which has one thread, clones the child with this process as its parent.

    ``cgroup``: as for `process.clone`.

    The copy is also what joins other namespaces: it calls ``before`` first, while this process calls ``serve`` with
    its PID. An OSError that comes out of ``before`` comes out of this.
    """
    mask = signals.current_mask()
    try:
        signals.block()
        if before is None and process.single_threaded():
            pid, pidfd = process.clone(namespaces, cgroup)
            if pid == 0:
                run()
            child.pid, child.pidfd = pid, pidfd
            return
        answers, answer = os.pipe()
        try:
            helper = process.fork()
            if helper == 0:
                _clone_as_helper(run, namespaces, before, cgroup, answer)
            os.close(answer)
            answer = -1
            try:
                if serve is not None:
                    serve(helper)
            finally:
                data = os.read(answers, 4096)
                pid = struct.unpack_from("<i", data)[0] if data else -errno.EAGAIN
                child.pid = max(pid, 0)
        finally:
            for fd in (answers, answer):
                if fd >= 0:
                    os.close(fd)
        try:
            os.waitpid(helper, 0)
        except ChildProcessError:
            pass  # this process ignores SIGCHLD, so the kernel has reaped it
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid), os.fsdecode(data[4:]) or None)
        child.pidfd = os.pidfd_open(pid)
    finally:
        signals.restore(mask)


def _clone_as_helper(
    run: Callable[[], NoReturn], namespaces: int, before: Callable[[], None] | None, cgroup: int, answer: int
) -> None:
    try:
        about = b""
        try:
            if before is not None:
                before()
            pid, _ = process.clone(namespaces | process.CLONE_PARENT, cgroup)
        except OSError as e:
            pid = -(e.errno or errno.EIO)
            about = os.fsencode(e.filename or "")[:1000]
        if pid == 0:
            run()
        os.write(answer, struct.pack("<i", pid) + about)
    finally:
        os._exit(0)


def reported_status(pipe: int, own: int) -> int:
    """The command's wait status as the reaper reported it; the reaper's own if it was killed before."""
    data = os.read(pipe, 4)
    return int(struct.unpack("<i", data)[0]) if len(data) == 4 else own


def not_started(failure: Failure, spec: Spec) -> MydockerError:
    """The error for a command that could not be executed, in the words a shell has for it."""
    if failure.stage != "exec":
        return SetupError(failure.text, failure.errno)
    name, path = os.fsdecode(spec.args[0])[:200], failure.text
    if failure.errno in (errno.ENOENT, errno.ENOTDIR):
        if "/" in name:
            return CommandNotFound(f"{name}: no such file or directory in the container")
        return CommandNotFound(f"{name or 'an empty name'}: command not found in the container's PATH")
    if failure.errno == errno.ELIBACC:
        return CommandNotFound(f"{path}: it is there, but the interpreter or the loader that it names is not")
    reasons = {
        errno.EISDIR: "is a directory",
        errno.EACCES: "permission denied: it is not executable for this user, or its file system is mounted noexec",
        errno.E2BIG: "argument list too long: one argument is over 128 KiB, or all with the environment over the "
        "kernel's limit of a quarter of the stack limit",
        errno.ENOEXEC: "exec format error: it is neither a program for this machine nor a script that begins with #!",
    }
    return CommandNotExecutable(f"{path}: {reasons.get(failure.errno, os.strerror(failure.errno))}")
