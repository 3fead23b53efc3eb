"""start: execute the command of a container that was created."""

from __future__ import annotations

import _socket
import errno
import os

from mydocker import handoff, plain_json
from mydocker.errors import NotExecuted, OciError
from mydocker.handoff import EXECUTING, Failure, Listener
from mydocker.oci import container
from mydocker.oci.container import Container
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.main import Call

OPTIONS: tuple[Option, ...] = ()
ARGUMENTS = "CONTAINER-ID"

#: The number of a connection by which the container's init has taken this ``start`` (bin/shortest_verbs.c).
STARTING = "MYDOCKER_OCI_STARTING"


def main(call: Call) -> int:
    found = container.find(call)
    begun = os.environ.pop(STARTING, "")
    if begun:
        _go_on(_inherited(begun), found)
        return 0
    status = found.status
    if status != "created":
        words = {
            "stopped": "cannot start a container that has stopped",
            "creating": "cannot start a container that is still being created",
        }
        raise OciError(words.get(status, "cannot start an already running container"))
    found.ensure_watched()
    start(found)
    return 0


def start(found: Container) -> None:
    """Let the waiting init become the command. OciError with its words if it cannot, or if a hook fails."""
    if not found.config.get("process"):
        raise OciError("process property must be non-empty: config.json has no process to start")
    connection = _connect(found)
    try:
        _be_accepted(connection)
    except BaseException:
        connection.close()
        raise
    _go_on(connection, found)
    wanted = (found.config.get("hooks") or {}).get("poststart")
    if wanted:
        from mydocker.oci import hooks

        state = plain_json.dumps(found.state("running")).encode()
        try:
            hooks.run("poststart", wanted, state, cwd=os.fsencode(found.bundle))
        except OciError:
            _stop(found)
            raise


def _inherited(number: str) -> _socket.socket:
    """The connection; OciError if it is none, as where somebody else has set the variable."""
    try:
        os.set_inheritable(int(number), False)
        connection = _socket.socket(fileno=int(number))
        if connection.family == _socket.AF_UNIX and connection.getpeername() is not None:
            return connection
        connection.detach()
    except (ValueError, OSError, OverflowError):
        pass
    raise OciError(f"{STARTING} is no connection to a container's first process: unset it")


def _go_on(connection: _socket.socket, found: Container) -> None:
    """Once it is accepted, until the command is executed."""
    try:
        _await_execution(connection, found)
    finally:
        connection.close()
    _forget_waiting(found)


def _be_accepted(connection: _socket.socket) -> None:
    """Have the init take this ``start``, and not another that came at the same time and waits behind it."""
    try:
        connection.send(handoff.GO)
        accepted = isinstance(handoff.read_report(connection.fileno()), int)
    except (ConnectionResetError, BrokenPipeError):
        accepted = False
    if not accepted:
        raise OciError("cannot start an already running container")


def _await_execution(connection: _socket.socket, found: Container) -> None:
    """Until the init has executed the command, which closes its end. OciError with its words if it fails."""
    try:
        while True:
            report = handoff.read_report(connection.fileno())
            if not isinstance(report, Listener):
                break
            _send_listener(found, report.fd)
            connection.send(b"k")
    except (ConnectionResetError, BrokenPipeError):
        return  # it was killed: that is the end of a container that was started
    if isinstance(report, Failure):
        raise NotExecuted(report.text) if report.stage == EXECUTING else OciError(report.text)


def _stop(found: Container) -> None:
    from mydocker.linux.pidfd import SIGKILL, send_signal

    try:
        pidfd = found.open_init()
    except OciError:
        return
    try:
        send_signal(pidfd, SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _connect(found: Container) -> _socket.socket:
    """By a descriptor of the directory: an address is at most 107 bytes long."""
    directory = os.open(found.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/start")
    except OSError as e:
        connection.close()
        if e.errno in (errno.ECONNREFUSED, errno.ENOENT):
            raise OciError("cannot start an already running container") from e
        raise OciError(f"cannot reach the container's init: {e.strerror}") from e
    finally:
        os.close(directory)
    return connection


def _send_listener(found: Container, fd: int) -> None:
    from mydocker import seccomp
    from mydocker.oci.creation import send_listener

    pidfd = found.open_init()
    try:
        send_listener(seccomp.prepare(found.config["linux"]["seccomp"]), pidfd, fd, found, "created")
    finally:
        os.close(pidfd)


def _forget_waiting(found: Container) -> None:
    for name in ("start", "waiting"):
        try:
            os.unlink(f"{found.path}/{name}")
        except FileNotFoundError:
            pass
