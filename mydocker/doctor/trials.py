"""What can only be known by trying: each trial is made in a child of its own, which is killed if it takes too long.

What a trial makes, a namespace or a mount in one, ends with the child.
"""

from __future__ import annotations

import errno
import marshal
import os
import select
import tempfile
import time

from mydocker.errors import MydockerError
from mydocker.linux import bpf, mount, process, signals, support, userns
from mydocker.plugins import error_text
from mydocker.rootless import ids
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Seconds after which what does not answer never will, and for a whole container.
PATIENCE = 5.0
CONTAINER_PATIENCE = 30.0

#: The namespaces of the kernel: the name below /proc/self/ns, the flag of clone(2), and what they separate.
NAMESPACES = {
    "mnt": (process.CLONE_NEWNS, "mounts"),
    "uts": (process.CLONE_NEWUTS, "the host name"),
    "ipc": (process.CLONE_NEWIPC, "message queues and shared memory"),
    "pid": (process.CLONE_NEWPID, "process numbers"),
    "net": (process.CLONE_NEWNET, "the network"),
    "user": (process.CLONE_NEWUSER, "user ids"),
    "cgroup": (process.CLONE_NEWCGROUP, "the view of cgroups"),
    "time": (0x00000080, "the clocks"),
}


class Outcome(Value):
    """How a trial ended: ``errno`` of the call that was refused, or 0; ``text`` is what there is to say of it."""

    errno: int = 0
    text: str = ""
    value: Any = None

    @property
    def ok(self) -> bool:
        return not self.errno and not self.text


def forked(trial: Callable[[], Any], patience: float = PATIENCE) -> Outcome:
    """Call ``trial`` in a child. Its answer, of the types that ``marshal`` takes, is the ``value``."""
    reading, writing = os.pipe()
    pid = process.fork()
    if pid == 0:
        _answer(trial, writing)
    try:
        os.close(writing)
        data = _read(reading, patience)
    finally:
        os.close(reading)
        signals_end = _end(pid)
    if data is None:
        return Outcome(errno=errno.ETIMEDOUT, text=f"there was no answer within {patience:g} s")
    if not data:
        return Outcome(errno=errno.EIO, text=f"the process that tried it ended with {signals_end}")
    number, text, value = marshal.loads(data)
    return Outcome(errno=number, text=text, value=value)


def _answer(trial: Callable[[], Any], writing: int) -> None:
    """In the child; never returns."""
    answer: tuple[int, str, Any] = (errno.EIO, "", None)
    try:
        os.setsid()
        _leave_standard_streams()
        answer = (0, "", trial())
    except OSError as error:
        answer = (error.errno or errno.EIO, error.strerror or str(error), None)
    except MydockerError as error:
        answer = (errno.EIO, str(error), None)
    except BaseException as error:
        answer = (errno.EIO, error_text(error), None)
    finally:
        try:
            os.write(writing, marshal.dumps(answer))
        finally:
            os._exit(0)


def _leave_standard_streams() -> None:
    """What a plugin or a container prints is no part of the report."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
    except OSError:  # a host with an empty /dev
        return
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _read(reading: int, patience: float) -> bytes | None:
    """Until the end, or None if that does not come in time."""
    deadline = time.monotonic() + patience
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    data = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        part = os.read(reading, 1 << 16)
        if not part:
            return data
        data += part


def _end(pid: int) -> str:
    """Make sure that the child has ended; how."""
    try:
        os.kill(pid, signals.SIGKILL)
        _, status = os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):  # this process ignores SIGCHLD
        return "an unknown status"
    return f"signal {status & 127}" if status & 127 else f"status {status >> 8}"


def make_namespace(kind: str) -> None:
    """Make a namespace of that kind as this user, outside of a new user namespace."""
    process.unshare(NAMESPACES[kind][0])
    if kind == "pid":  # it begins with the next child
        _, status = os.waitpid(_child_that_ends(), 0)
        if status:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _child_that_ends() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


def enter_user_namespace() -> None:
    """A user namespace in which this user is root (user_namespaces(7))."""
    uid, gid = os.geteuid(), os.getegid()
    process.unshare(process.CLONE_NEWUSER)
    userns.deny_setgroups(os.getpid())
    userns.write_map(os.getpid(), "uid", [(0, uid, 1)])
    userns.write_map(os.getpid(), "gid", [(0, gid, 1)])


def make_namespace_as_its_root(kind: str) -> None:
    """Make a namespace of that kind as the root of a new user namespace."""
    enter_user_namespace()
    make_namespace(kind)


def use_capabilities_in_user_namespace() -> None:
    """What AppArmor can take away from the root of a user namespace: here, setting a host name."""
    enter_user_namespace()
    process.unshare(process.CLONE_NEWUTS)
    process.sethostname(b"mydocker-doctor")


def load_device_program() -> None:
    """Have the kernel take a program that decides on devices, and drop it."""
    os.close(bpf.load_device_program(bpf.device_program(()), b"mydocker-doctor"))


def load_libseccomp() -> str:
    """The version."""
    from mydocker.linux import libseccomp

    return ".".join(str(number) for number in libseccomp.version())


def mount_overlay() -> None:
    """A copy-on-write view of a directory, with the upper layer in a tmpfs; by a plain user, in a user namespace."""
    options: list[tuple[bytes, bytes | None]] = []
    if os.geteuid() != 0:
        enter_user_namespace()
        options.append((b"userxattr", None))
    process.unshare(process.CLONE_NEWNS)
    mount.make_all_private()
    # Not /: of one below which something is mounted, the kernel shows a plain user nothing that was covered.
    lower = os.open(_directory("/usr", "/etc", "/"), os.O_PATH | os.O_DIRECTORY)
    place = _directory("/tmp", "/run", "/mnt", "/var", "/")
    layers = mount.new_filesystem(b"tmpfs", ((b"mode", b"700"),))
    mount.attach(layers, os.open(place, os.O_PATH | os.O_DIRECTORY))
    for name in ("upper", "work"):
        os.mkdir(f"{place}/{name}")
    options += [
        (b"lowerdir", b"/proc/self/fd/%d" % lower),
        (b"upperdir", os.fsencode(f"{place}/upper")),
        (b"workdir", os.fsencode(f"{place}/work")),
    ]
    mount.new_filesystem(b"overlay", options)


def _directory(*paths: str) -> str:
    return next(path for path in paths if os.path.isdir(path))


def container(directory: str, *options: str) -> str:
    """Run the smallest container, with all that mydocker keeps in ``directory``: the error of the run, or empty."""
    from mydocker import cli

    command = _command_that_ends()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)  # ends with the trial that is killed
        os.dup2(writing, 2)
        os.environ["MYDOCKER_STATE_DIR"] = f"{directory}/state"
        os.environ["XDG_CACHE_HOME"] = f"{directory}/cache"  # nothing that stays is made, not even a better cache
        cli.main(["run", "--workdir", "/", *options, *command])
    os.close(writing)
    words = []
    while data := os.read(reading, 1 << 16):
        words.append(data)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = b"".join(words).decode(errors="replace").strip().removeprefix("mydocker: ")
    return "" if code == 0 else text or f"{' '.join(command)} ended with {code}"


def _command_that_ends() -> list[str]:
    import shutil
    import sys

    program = shutil.which("true")
    return [program] if program else [sys.executable, "-I", "-S", "-c", ""]


def run_container(*options: str) -> Outcome:
    """`container` with these options, in a directory for it alone: no state of other containers is touched."""
    try:
        directory = tempfile.mkdtemp(prefix="mydocker-doctor-", dir=_directory_for_state())
    except (OSError, MydockerError) as error:
        return Outcome(errno=errno.EIO, text=f"cannot keep the container's state: {error}")
    try:
        outcome = forked(lambda: container(directory, *options), CONTAINER_PATIENCE)
        return outcome.replace(errno=outcome.errno or errno.EIO, text=outcome.value) if outcome.value else outcome
    finally:
        import shutil

        shutil.rmtree(directory, ignore_errors=True)


def _directory_for_state() -> str:
    """Where a directory can be made for a moment: that of temporary files, or the one above the state of containers."""
    from mydocker import state

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return os.path.dirname(state.default_root())


#: Each trial by its name.
TRIALS: dict[str, Callable[[], Any]] = {
    **{f"namespace {kind}": lambda kind=kind: make_namespace(kind) for kind in NAMESPACES},  # type: ignore[misc]
    **{
        f"namespace {kind} as root of a user namespace": lambda kind=kind: make_namespace_as_its_root(kind)  # type: ignore[misc]
        for kind in NAMESPACES
    },
    **{f"call {name}": lambda name=name: support.call(name) for name in support.SYSTEM_CALLS},  # type: ignore[misc]
    "capabilities in a user namespace": use_capabilities_in_user_namespace,
    "clone into a cgroup": support.clone_into_no_cgroup,
    "device program": load_device_program,
    "libseccomp": load_libseccomp,
    "overlay": mount_overlay,
    "subordinate ids": ids.why_one_id,
}
