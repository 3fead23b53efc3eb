"""The terminal of a process, and the sockets on which descriptors go to the engine: --console-socket, --pidfd-socket.

The message is one SCM_RIGHTS descriptor with a name as its data (unix(7)). ``_socket`` is the C part of ``socket``,
whose import takes longer than all that is done here.
"""

from __future__ import annotations

import _socket
import os

from mydocker.errors import OciError
from mydocker.linux import pty, rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.process import ProcessPlan

#: What runc sends with the master: engines want a name, and make nothing of it.
MASTER_NAME = b"/dev/ptmx"

#: And what it sends with a pidfd: of a container's first process, and of one that ``exec`` has put there.
FIRST_PROCESS, EXEC_PROCESS = b"standard", b"setns"


def check(*, terminal: bool, detached: bool, socket: str | None) -> None:
    """OciError, in the words that callers know from runc, if nobody would hold the master, or there is none to send."""
    if detached and terminal and not socket:
        raise OciError("cannot allocate tty if runc will detach without setting console socket")
    if socket and not (detached and terminal):
        raise OciError("cannot use console socket if runc will not detach or allocate tty")


def connect(path: str, option: str) -> int:
    """A descriptor connected to the engine's socket at ``path``; ``option`` is what named it."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        if len(os.fsencode(path)) < 108:
            connection.connect(path)
        else:  # an address has no room for it (unix(7)), but its directory can be named by a descriptor
            directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            finally:
                os.close(directory)
    except OSError as e:
        connection.close()
        raise OciError(f"{option}: cannot connect to {path}: {e.strerror}") from e
    return connection.detach()


def pair() -> tuple[int, int]:
    """Two ends of a channel for descriptors: a message is read as it was sent."""
    return rights.pair(_socket.SOCK_SEQPACKET)


def send(connection: int, name: bytes, fd: int) -> None:
    """Send a descriptor to whoever is at the other end of the socket ``connection``."""
    rights.send(connection, name, (fd,))


def receive(connection: int) -> int:
    """The descriptor that comes on the socket, close-on-exec; -1 if the other end is closed without."""
    data, descriptors = rights.receive(connection, 4096, 1)
    return descriptors[0] if data and descriptors else -1


def take(plan: ProcessPlan, devpts: int) -> tuple[int, int]:
    """Child: a new terminal of the devpts behind the descriptor becomes the controlling one, and 0, 1 and 2.

    The descriptor of its master and its number. This process leads a session and has none yet.
    """
    master, slave, number = pty.open_pair(devpts)
    if plan.console_size is not None:
        pty.set_window_size(master, *plan.console_size)
    pty.make_controlling(slave)
    os.fchown(slave, plan.uid, -1)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    if slave > 2:
        os.close(slave)
    return master, number
