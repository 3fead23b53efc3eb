"""A container of an engine: what is on disk about it, and what the kernel says of it.

``<root>/<id>`` holds

    lock         on which a verb that changes the container holds a flock(2) while it does so; in it the record as
                 ``create`` began, until there is another
    state.json   the record (`mydocker.state.Record`), replaced by a whole new one at each change
    config.json  the bundle's, as it was at ``create``: what changes there later has no effect (runtime.md, "create")
    start        the socket on which the container's init waits for ``start``
    waiting      an empty file, on which the init holds a flock until its execve(2) closes the descriptor
    brief        what of all this the shortest verbs need to know (`mydocker.oci.brief`)

The states are not written down, for who writes them may be killed. They are asked of the kernel:

    creating  the record is not complete, and ``create`` holds the lock
    created   the init lives and holds the lock of ``waiting``
    running   it lives and does not
    paused    it lives and its cgroup is frozen
    stopped   the process with the record's PID and start time is gone, or a zombie
"""

from __future__ import annotations

import fcntl
import os
import time

from mydocker import plain_json, state
from mydocker.errors import MydockerError, OciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.oci.main import Call

    Status = Literal["creating", "created", "running", "paused", "stopped"]

#: The version of the runtime specification that is kept to.
SPEC_VERSION = "1.2.0"


def check_id(name: str) -> str:
    """The id, if it is one: letters, digits, ``_``, ``.``, ``-`` and ``+``. OciError if not."""
    if not state.is_id(name):
        wrong = next((c for c in name if not (c.isascii() and c.isalnum()) and c not in "_.-+"), "")
        named = f"invalid character `{wrong}` in the ID: " if wrong.isprintable() and wrong else ""
        raise OciError(f"invalid container ID format: {name!r}: {named}use letters, digits, and _ . - +")
    return name


def find(call: Call) -> Container:
    """The container that the call names. OciError if it does not exist."""
    path = f"{call.root}/{check_id(call.id)}"
    record = state.read(path)
    if record is None or not record.oci:
        raise OciError(f'container "{call.id}" does not exist')
    return Container(path, record)


def forget_root(call: Call) -> None:
    """When there may be no container in the call's root any more: there is nothing to be found in it."""
    try:
        state.forget_root(call.root, state.default_root())
    except MydockerError:
        pass  # there is no place in which it could have been noted


class Container:
    """One container: its record, its config, and what the kernel says of its state."""

    def __init__(self, path: str, record: state.Record) -> None:
        self.path = path
        self.record = record
        self._config: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def pid(self) -> int:
        """The first process, as this PID namespace sees it; it may have ended (`status`)."""
        return self.record.pid

    @property
    def bundle(self) -> str:
        return str(self.record.oci["bundle"])

    @property
    def config(self) -> dict[str, Any]:
        """config.json as it was at ``create``, validated then."""
        if self._config is None:
            with open(f"{self.path}/config.json", encoding="utf-8", errors="surrogateescape") as f:
                self._config = plain_json.loads(f.read())
        return self._config

    def reload(self) -> None:
        """Read the record again. OciError if the container is gone."""
        record = state.read(self.path)
        if record is None:
            raise OciError(f'container "{self.id}" does not exist')
        self.record = record

    @property
    def is_alive(self) -> bool:
        return state.is_alive(self.record.pid, self.record.start_time)

    @property
    def status(self) -> Status:
        if not self.record.oci.get("complete"):
            return "creating" if self._is_being_created() else "stopped"
        if not self.is_alive:
            return "stopped"
        if self.is_frozen:
            return "paused"
        return "created" if self._waits() else "running"

    def _is_being_created(self) -> bool:
        """Whether a ``create`` holds the lock: it may have come to its end since the record was read."""
        lock = state.take_lock(self.path, 0, wait=False)
        if lock is None:
            return os.path.exists(self.path)
        os.close(lock)
        self.record = state.read(self.path) or self.record
        return False

    def _waits(self) -> bool:
        """Whether the init has not executed the process yet."""
        try:
            fd = os.open(f"{self.path}/waiting", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @property
    def is_frozen(self) -> bool:
        for directory in self.record.oci.get("cgroups", ()):
            for name, thawed in (("cgroup.freeze", b"0"), ("freezer.state", b"THAWED")):
                try:
                    with open(f"{directory}/{name}", "rb") as f:
                        if f.read().strip() != thawed:
                            return True
                except OSError:
                    continue
        return False

    def require(self, *wanted: Status) -> Status:
        """The status, if it is one of ``wanted``; OciError with runc's words if not."""
        status = self.status
        if status not in wanted:
            if status == "stopped":
                raise OciError("container not running")
            raise OciError(f'container "{self.id}" is {status}: it must be {" or ".join(wanted)}')
        return status

    def open_init(self) -> int:
        """A pidfd of the first process. OciError if it has ended."""
        try:
            pidfd = os.pidfd_open(self.record.pid) if self.record.pid else -1
        except ProcessLookupError:
            pidfd = -1
        if pidfd >= 0:
            if self.is_alive:  # the PID is that process's as long as it is not reaped
                return pidfd
            os.close(pidfd)
        raise OciError("container not running")

    def cgroup(self) -> ContainerCgroup:
        """The container's cgroups as they exist; `ContainerCgroup.controller` makes nothing for a stopped one."""
        from mydocker.cgroups.group import ContainerCgroup
        from mydocker.cgroups.layout import Layout

        return ContainerCgroup.opened(Layout.read(), self.record.cgroup, self.record.pid if self.is_alive else 0)

    def lock(self) -> Lock:
        """Wait until no other verb changes the container. OciError if it is gone by then."""
        fd = state.take_lock(self.path, 0, wait=True)
        if fd is None:
            raise OciError(f'container "{self.id}" does not exist')
        lock = Lock(fd)
        try:
            self.reload()
        except BaseException:
            lock.close()
            raise
        return lock

    def rewrite(self, **changes: Any) -> None:
        """Change fields of the record, while nobody else does."""
        lock = state.lock_for_update(self.id, os.path.dirname(self.path))
        try:
            self.reload()
            self.record = self.record.replace(**changes)
            state.rewrite(self.record, lock)
        finally:
            os.close(lock)

    def ensure_watched(self) -> None:
        """Before more of it is let run: have it watched again if its monitor (`mydocker.oci.monitor`) was killed.

        OciError if that cannot be: then the container is killed.
        """
        noted = self.record.oci.get("monitor")
        if noted and not state.is_alive(noted["pid"], noted["start_time"]):
            from mydocker.oci import monitor

            monitor.replace(self)

    def state(self, status: str | None = None) -> dict[str, Any]:
        """The state as the runtime spec has it (runtime.md, "State"), for hooks: ``status`` is what they are told."""
        return state_of(self.record, status or self.status)


def state_of(record: state.Record, status: str) -> dict[str, Any]:
    values: dict[str, Any] = {"ociVersion": SPEC_VERSION, "id": record.id, "status": status}
    if status != "stopped" and record.pid:
        values["pid"] = record.pid
    values["bundle"] = record.oci["bundle"]
    if record.oci.get("annotations"):
        values["annotations"] = record.oci["annotations"]
    return values


def to_undo(record: state.Record) -> set[str]:
    """The limits of which something may be left outside of the container's cgroups, by field."""
    return set(record.limits).difference(record.oci.get("traceless", ()))


def shown(found: Container, status: Status | None = None) -> dict[str, Any]:
    """What ``state`` and ``list`` print of it, in the order in which runc does: some callers match the text."""
    values = found.state(status)
    annotations = values.pop("annotations", None)
    return {
        "ociVersion": values["ociVersion"],
        "id": found.id,
        "pid": values.get("pid", 0),
        "status": values["status"],
        "bundle": found.bundle,
        "rootfs": found.record.oci["rootfs"],
        "created": created_text(found.record),
        **({"annotations": annotations} if annotations else {}),
        "owner": owner_name(found.record),
    }


class Lock:
    """The right to change a container, until `close`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def created_text(record: state.Record) -> str:
    """When it was created, as RFC 3339 has it, in UTC."""
    whole = int(record.created)
    fraction = f"{record.created - whole:.9f}"[1:]
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}{fraction}Z"


def owner_name(record: state.Record) -> str:
    """The name of the user who created it, or the number of one who has none."""
    import pwd

    uid = int(record.oci.get("owner", 0))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
