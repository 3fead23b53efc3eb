"""Hooks: programs of the engine that run at fixed moments of a container's life (config.md, "POSIX-platform Hooks").

The runtime runs ``prestart``, ``createRuntime``, ``poststart`` and ``poststop``, and the container's first process, in
the container's namespaces, ``createContainer`` and ``startContainer``. So `run` works in that process too: it imports
nothing, opens nothing by name but the hook itself, and needs neither /proc nor /dev.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import time

from mydocker.errors import OciError
from mydocker.linux import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

#: How much is told of what a hook has written, from its end.
_TOLD = 900


def run(
    kind: str,
    hooks: Sequence[dict[str, Any]],
    state: bytes,
    *,
    cwd: bytes | int = b"",
    environment: Mapping[bytes, bytes] | None = None,
    fork: Callable[[], int] = process.fork,
    failed: Callable[[str], None] | None = None,
    restrict: Callable[[], None] | None = None,
) -> None:
    """Run these hooks of one kind, one after the other; each reads ``state``, the container's state as JSON.

    OciError if one fails, and then the next ones do not run; where ``failed`` is given, it is told in place of that,
    and they do. ``cwd``: a path or a descriptor of where they run, if not where this process is. ``environment``: that
    of a hook whose ``env`` is not set, if not this process's own. ``fork``: ``os.fork`` in a process with one thread
    that is inside of a container. ``restrict``: what the hook's process does last before it is the hook.
    """
    inherited = os.environb if environment is None else environment
    for number, hook in enumerate(hooks):
        try:
            problem = _run(hook, state, cwd, inherited, fork, restrict)
        except OSError as e:
            problem = e.strerror or str(e)
        if problem:
            message = f"error running {kind} hook #{number}: {hook['path']}: {problem}"
            if failed is None:
                raise OciError(message)
            failed(message)


def _run(
    hook: dict[str, Any],
    state: bytes,
    cwd: bytes | int,
    inherited: Mapping[bytes, bytes],
    fork: Callable[[], int],
    restrict: Callable[[], None] | None,
) -> str:
    """Run one hook to its end: what went wrong, or an empty string."""
    if not hook["path"].startswith("/"):
        return "its path must be absolute"
    timeout = hook.get("timeout")
    deadline = time.monotonic() + timeout if timeout is not None else None
    pipes: list[int] = []
    pid = 0
    try:
        # A file, not a pipe: nobody waits for a hook that does not read it.
        stdin = os.memfd_create("state")
        pipes.append(stdin)
        os.pwrite(stdin, state, 0)
        failures, failure = _pipe(pipes)
        output, stdout = _pipe(pipes)
        errors, stderr = _pipe(pipes)
        pid = fork()
        if pid == 0:
            _become(hook, (stdin, stdout, stderr), failure, cwd, inherited, restrict)
        for fd in (failure, stdout, stderr):
            pipes.remove(fd)
            os.close(fd)
        not_executed = os.read(failures, 4)
        if not_executed:
            return os.strerror(struct.unpack("<i", not_executed)[0]).lower()
        written = {output: b"", errors: b""}
        if not _await_end(pid, written, deadline):
            return f"it was killed, as it had not ended in its timeout of {timeout} s{_told(written[errors], b'')}"
        ended, pid = pid, 0
        code = os.waitstatus_to_exitcode(os.waitpid(ended, 0)[1])
        if code == 0:
            return ""
        how = f"exit status {code}" if code > 0 else f"killed by signal {-code} ({signals.name_of(-code)})"
        return how + _told(written[errors], written[output])
    finally:
        if pid > 0:
            _kill(pid)
        for fd in pipes:
            os.close(fd)


def _pipe(pipes: list[int]) -> tuple[int, int]:
    """A pipe whose ends are in ``pipes`` as long as they are to be closed."""
    ends = os.pipe()
    pipes.extend(ends)
    return ends


def _told(stderr: bytes, stdout: bytes) -> str:
    said = ""
    for name, data in (("stderr", stderr), ("stdout", stdout)):
        text = data.decode(errors="replace").strip()
        if text:
            said += f", {name}: {text}"
    return said


def _become(
    hook: dict[str, Any],
    stdio: tuple[int, int, int],
    failure: int,
    cwd: bytes | int,
    inherited: Mapping[bytes, bytes],
    restrict: Callable[[], None] | None,
) -> NoReturn:
    """In the forked process: become the hook, or report the errno."""
    number = errno.EIO
    try:
        os.setsid()
        signals.default_all()
        signals.unblock_all()
        os.umask(0o022)
        if cwd != b"":
            os.chdir(cwd)
        copies = [_above_standard(fd) for fd in (*stdio, failure)]
        for target, fd in enumerate(copies[:3]):
            os.dup2(fd, target)
        failure = copies[3]
        process.close_all_except({failure})
        path = _bytes(hook["path"])
        arguments = [_bytes(argument) for argument in hook.get("args", ())] or [path]
        environment = inherited
        if "env" in hook:
            entries = [_bytes(entry).partition(b"=") for entry in hook["env"]]
            environment = {name: value for name, equals, value in entries if name and equals}
        if restrict is not None:
            restrict()
        os.execve(path, arguments, environment)
    except OSError as e:
        number = e.errno or errno.EIO
    finally:
        try:
            os.write(failure, struct.pack("<i", number))
        finally:
            os._exit(127)


def _above_standard(fd: int) -> int:
    """The descriptor itself, or a copy of it where it stands in the place of one of the standard three."""
    while fd < 3:
        fd = os.dup(fd)
    return fd


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _await_end(pid: int, written: dict[int, bytes], deadline: float | None) -> bool:
    """Until the process has ended, or the deadline has come: whether it has. ``written`` gets what comes by each pipe.

    A pipe may stay open behind the end, in what the hook has left running: it is not waited for.
    """
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        open_pipes = set(written)
        for fd in open_pipes:
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        while True:
            left = None if deadline is None else max(0, deadline - time.monotonic()) * 1000
            ready = [fd for fd, _ in poll.poll(left)]
            for fd in tuple(open_pipes) if pidfd in ready else open_pipes.intersection(ready):
                if not _read(fd, written):
                    poll.unregister(fd)
                    open_pipes.remove(fd)
            if pidfd in ready:
                return True
            if not ready:
                return False
    finally:
        os.close(pidfd)


def _read(fd: int, written: dict[int, bytes]) -> bool:
    """Read what there is; whether there may come more."""
    try:
        while data := os.read(fd, 1 << 16):
            written[fd] = (written[fd] + data)[-_TOLD:]
    except BlockingIOError:
        return True
    return False


def _kill(pid: int) -> None:
    """The hook and what it has started in its session's first process group."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signals.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    os.waitpid(pid, 0)
