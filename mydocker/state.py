"""What is on disk about a container, and what a killed runtime has left.

One directory for each container that takes longer than a moment, ``<state>/<id>``, with two files: ``lock``, on which
the runtime holds a flock(2) for as long as it lives, and ``state.json``, which says what there is to remove. The kernel
drops the lock when the runtime dies in whatever way; a directory whose lock can be taken is a leftover. The directory
is also where the child assembles the container's root, in its own mount namespace.

What there will be is written into ``lock`` before the first cgroup is made, and the whole record into ``state.json``
when the child's PID is known, so there is no moment at which a kill leaves something that nothing names. A second
file takes longer to make than all that is written: if the PID is known at first, it is made when the run takes long.
And before the directory is made, the name is in the table of `mydocker.claims`: by that a leftover is found, and no
container that lives is looked at. There, what is nowhere but in cgroups of its name needs no more
(`Claim.is_name_only`): then the directory, too, is made when the run takes long.

A container of `mydocker.oci` has no runtime that lives as long as it does: its record says so (``oci``), its lock is
held for one call only, it is in no table, and nothing but ``mydocker-oci delete`` removes it. Engines keep such
containers where they like (``--root``); each of those places is noted below the common one, in ``@roots``.
"""

from __future__ import annotations

import errno
import fcntl
import os

from mydocker import plain_json
from mydocker.errors import MydockerError, StateError
from mydocker.value import Value

#: Where the state of root's containers is.
COMMON_ROOT = "/run/mydocker"

#: In what was announced, so that it is not taken for a whole record.
_ANNOUNCED = "announced"

#: Where links to the other places are; no container can have this name.
_ROOTS = "@roots"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from mydocker import claims
    from mydocker.cgroups.layout import Layout


def default_root() -> str:
    """Where the state of this user's containers is: ``$MYDOCKER_STATE_DIR``, else /run/mydocker for root.

    For a plain user `mydocker.rootless.places` knows, and for root of a user namespace that a plain user's engine has
    made, as Podman does. StateError if the place is not safe.
    """
    named = os.environ.get("MYDOCKER_STATE_DIR")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if named or (os.geteuid() == 0 and not runtime):
        return named or COMMON_ROOT
    from mydocker.rootless import places

    if os.geteuid() == 0 and not places.is_of_plain_user(runtime or ""):
        return COMMON_ROOT
    return places.state_root()


def check_name(name: str) -> str:
    """A container's name: letters, digits, ``_``, ``.`` and ``-``, as Docker has it; StateError if it is none."""
    plain = name.replace("_", "a").replace(".", "a").replace("-", "a")
    if not (plain.isascii() and plain.isalnum() and name[0].isalnum() and len(name) <= 128):
        raise StateError(
            f'"{name}" is not a name for a container: use up to 128 letters, digits, "_", "." and "-", '
            "and begin with a letter or a digit"
        )
    return name


class Record(Value):
    """What `Claim.announce` and `Claim.write` keep: enough to remove everything of the container without its runtime.

    ``cgroup`` is the path of the container's cgroup below the base of each hierarchy, where it has one. ``pid`` and
    ``start_time`` (clock ticks since boot) name the container's first process, 0 before it exists, and to whoever reads
    what was announced. ``limits`` is what its limits were parsed from, by field. ``writers`` says of each kernel file
    which plugin wrote it: an update keeps to it. ``oci`` is what `mydocker.oci.container` keeps besides; empty for a
    container of ``mydocker run``.
    """

    id: str
    runtime: int
    cgroup: str = ""
    pidfile: str = ""
    pid: int = 0
    start_time: int = 0
    created: float = 0.0
    command: str = ""
    limits: Mapping[str, str | list[str]] = {}
    writers: Mapping[str, str] = {}
    oci: Mapping[str, Any] = {}


class Claim:
    """A container's name and directory, owned by this process from `claim` to `release`."""

    def __init__(self, root: str, name: str, lock: int = -1, entry: claims.Entry | None = None) -> None:
        """``lock``: of the directory, -1 if it is not made yet. It is when something is to be kept there, or `make`."""
        self.id = name
        self.path = f"{root}/{name}"
        #: whether there is something that the record names: then it outlives the claim, for the next recovery
        self.unfinished = False
        self._root = root
        self.lock = lock
        self._entry = entry
        self._written = (0, 0)
        #: whether there may be a state.json of ours
        self._has_record = False
        #: whether there may be a directory without a lock: an interrupt came, or there was no descriptor for one
        self._half_made = False

    @property
    def is_name_only(self) -> bool:
        """Whether there is no directory yet. What a killed runtime has left is found by the name then: its cgroup, in
        the common place, and what runs there.
        """
        return self.lock < 0

    def make(self) -> None:
        """Make the directory, if it is not there."""
        if self.lock < 0:
            self._half_made = True
            try:
                self.lock = _make_directory(self._root, self.id)
            except FileExistsError:
                self._half_made = False  # it is another's
                raise _in_use(self.id) from None
            self._half_made = False

    def announce(self, record: Record) -> None:
        """Say what there will be to remove, before any of it is made: that counts until the first `write`. Once.

        What removes it after a kill reads all of it; to others the container has no process before that `write`.
        """
        self.make()
        _write_all(self.lock, {**record.asdict(), _ANNOUNCED: True})

    def write(self, record: Record) -> None:
        """Replace state.json by a whole new one: a reader sees the old or the new.

        The first is written in its place, and what was announced counts until it is whole.
        """
        if self._written == (0, 0):
            self.make()
            self._has_record = True
            self._written = _write(f"{self.path}/state.json", record)
            os.ftruncate(self.lock, 0)  # when state.json is removed, there is no record
            return
        from mydocker.linux import rename  # of no use to who only reads records

        self._written = _write(f"{self.path}/state.json.new", record)
        rename.replace(f"{self.path}/state.json", f"{self.path}/state.json.new")

    def changed(self) -> bool:
        """Whether somebody else has replaced the record since: an update of the container's limits.

        Nobody does so before it says that there is a process.
        """
        if self._written == (0, 0):
            return False
        try:
            return _identity(os.stat(f"{self.path}/state.json")) != self._written
        except FileNotFoundError:
            return False

    def limits(self) -> Mapping[str, str | list[str]]:
        """What the limits in the record, as it is now, are parsed from."""
        record = _read(self.path)
        return dict(record.get("limits") or {}) if record is not None else {}

    def close(self) -> None:
        """Give up the lock; the directory stays."""
        os.close(self.lock)

    def release(self, close: Callable[[int], None] | None = None) -> None:
        """Remove the directory, unless the claim is ``unfinished``; the last step of a container's life.

        ``close``: closes what was open in it, sooner or later. A directory that was removed goes with its last
        descriptor; on a disk, to note that its blocks are free takes longer than all the rest.
        """
        if self.unfinished:
            close = None  # what holds the lock would answer for what is left
        elif not self.is_name_only:
            remove_directory(self.path, ("state.json", "lock") if self._has_record else ("lock",))
        if not self.is_name_only:
            (close or os.close)(self.lock)
        if self._entry is not None:
            self._entry.leave(unfinished=self.unfinished or self._half_made)
        _remove_empty_root(self._root, close)


def _write(path: str, record: Record, directory: int | None = None) -> tuple[int, int]:
    """``path`` is below ``directory``, a descriptor, if that is given."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600, dir_fd=directory)
    try:
        _write_all(fd, record.asdict())
        return _identity(os.fstat(fd))
    finally:
        os.close(fd)


def _write_all(fd: int, values: Mapping[str, Any]) -> None:
    """OSError if it does not fit: of what is longer than a page, a file system may take a part."""
    data = memoryview(plain_json.dumps(values).encode() + b"\n")
    while data:
        data = data[os.write(fd, data) :]


def _identity(status: os.stat_result) -> tuple[int, int]:
    """With the time: a file system gives the number of a file that was replaced to the next one."""
    return status.st_ino, status.st_mtime_ns


def claim(name: str | None, root: str, *, name_only: bool = False) -> Claim:
    """Make and lock the directory of a container called ``name``, or of a random id.

    ``name_only``: not the directory of a random one, which the claim makes later (`Claim.is_name_only`). StateError if
    a container of that name exists.
    """
    wanted = check_name(name) if name is not None else os.urandom(6).hex()
    name_only = name_only and name is None
    entry = _enter(root, wanted, _this_process() if name_only else b"")
    try:
        if name_only:
            return Claim(root, wanted, entry=entry)
        try:
            return make(wanted, root, entry)
        except FileExistsError:
            if not _recover(root, wanted, []):  # it is a leftover if the table was lost, as by hand
                raise
            return make(wanted, root, entry)
    except BaseException as e:
        # Whatever else came in between, such as an interrupt: the directory may be there.
        entry.leave(unfinished=not isinstance(e, (FileExistsError, StateError)))
        _remove_empty_root(root)
        if not isinstance(e, FileExistsError):
            raise
    raise _in_use(wanted)


def _in_use(name: str) -> StateError:
    return StateError(f'the name "{name}" is in use by a running container: choose another --name')


_me: list[tuple[int, bytes]] = []


def _this_process() -> bytes:
    """Its PID and start time."""
    pid = os.getpid()
    for known, note in _me:
        if known == pid:
            return note
    from mydocker.linux import process

    _me[:] = [(pid, b"%d %d" % (pid, process.start_time(pid)))]
    return _me[0][1]


def _enter(root: str, name: str, note: bytes) -> claims.Entry:
    from mydocker import claims  # of no use to engines' containers

    while True:
        try:
            return claims.enter(root, name, note)
        except FileNotFoundError:
            _make_root(root)
        except OSError as e:
            raise StateError(f"cannot keep the container's state in {root}: {e.strerror}") from e


def make(wanted: str, root: str, entry: claims.Entry | None = None) -> Claim:
    """Make and lock the directory ``root``/``wanted``. FileExistsError if there is one."""
    return Claim(root, wanted, _make_directory(root, wanted), entry)


def _make_directory(root: str, wanted: str) -> int:
    """Its lock."""
    path = f"{root}/{wanted}"
    while True:
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:
            _make_root(root)
            continue
        except FileExistsError:
            raise
        except OSError as e:
            raise StateError(f"cannot keep the container's state in {root}: {e.strerror}") from e
        lock = take_lock(path, os.O_CREAT | os.O_EXCL, wait=True)
        if lock is not None:
            return lock
        # a recovery took the directory for a leftover in the moment before it was locked, and removed it


def _make_root(root: str) -> None:
    try:
        if os.geteuid() != 0:
            from mydocker.rootless import places

            places.make(root)
            return
        os.makedirs(root, 0o711, exist_ok=True)
    except OSError as e:
        # EEXIST without a link: another container's end has just removed the root, which was empty
        if e.errno != errno.EEXIST or os.path.islink(root):
            raise StateError(f"cannot keep the containers' state in {root}: {e.strerror}") from e


def take_lock(path: str, flags: int, *, wait: bool) -> int | None:
    """Open and lock ``path``/lock; None if it is not there (any more), or held and ``wait`` is not given."""
    try:
        fd = os.open(f"{path}/lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    except (FileNotFoundError, FileExistsError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(fd)
        return None
    if os.fstat(fd).st_nlink == 0:  # removed by whoever held it before
        os.close(fd)
        return None
    return fd


def recover(root: str) -> list[str]:
    """Remove what killed runtimes have left: processes, cgroups, pid files, records. The ids of those removed."""
    from mydocker import claims

    removed: list[str] = []

    def remove(name: str) -> bool:
        return _recover(root, name, removed)

    def remove_noted(name: str, note: bytes) -> bool:
        pid, _, start_time = note.partition(b" ")
        if pid.isdigit() and start_time.isdigit() and is_alive(int(pid), int(start_time)):
            return False  # its lock is lost, and not its container
        return _recover(root, name, removed, by_name=True)

    try:
        claims.recover(root, remove, remove_noted)
    except OSError as e:
        raise StateError(f"cannot keep the containers' state in {root}: {e.strerror}") from e
    return removed


def _recover(root: str, name: str, removed: list[str], *, by_name: bool = False) -> bool:
    """Whether there is nothing of a dead runtime's container ``name`` any more; into ``removed`` if there was.

    ``by_name``: the claim may have been a name only. A name that was chosen may be one of a container whose state is
    elsewhere, and so is its cgroup.
    """
    path = f"{root}/{name}"
    if not is_id(name):
        return True
    if not os.path.isdir(path):
        return not by_name or _remove_by_name(name, removed)
    lock = take_lock(path, 0, wait=False)
    if lock is None:
        # Without a lock it was killed right before that. A lock that is held is another container's of that name, or a
        # copy's of the dead runtime, which ends as well: the next call sees.
        if os.path.exists(f"{path}/lock") or not _remove_empty(path):
            return False
        return not by_name or _remove_by_name(name, removed)
    try:
        record = _read(path)
        if record is not None and record.get("oci"):
            return True
        if record is None and by_name:  # the directory was made when it had cgroups
            _remove_cgroup_of(name)
        _remove_leftover(path)
        remove_directory(path)
        removed.append(name)
        return True
    except (MydockerError, OSError) as e:
        _say_not_removed(name, e)
        return False
    finally:
        os.close(lock)


def _remove_by_name(name: str, removed: list[str]) -> bool:
    """As `_recover`, of a claim that was a name only (`Claim.is_name_only`)."""
    try:
        if _remove_cgroup_of(name):
            removed.append(name)
        return True
    except (MydockerError, OSError) as e:
        _say_not_removed(name, e)
        return False


def _remove_cgroup_of(name: str) -> bool:
    """Whether there was one, in the common place."""
    from mydocker.cgroups.layout import Layout
    from mydocker.cgroups.places import DEFAULT_PARENT
    from mydocker.cgroups.removal import remove_stale

    layout, path = Layout.read(), f"{DEFAULT_PARENT}/{name}"
    found = any(os.path.isdir(f"{hierarchy.base}/{path}") for hierarchy in layout.hierarchies)
    remove_stale(layout, path)
    return found


def leftovers(root: str) -> list[str]:
    """The ids of what killed runtimes have left and `recover` would remove, as far as this user may tell. Not of claims
    that were a name only.
    """
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    return [name for name in names if _is_leftover(f"{root}/{name}")]


def _is_leftover(path: str) -> bool:
    try:
        lock = take_lock(path, 0, wait=False)
    except OSError:
        return False
    if lock is None:
        return False
    os.close(lock)
    return not (_read(path) or {}).get("oci")


def _say_not_removed(name: str, error: Exception) -> None:
    from mydocker import logs

    logs.warning("cannot remove what is left of container %s, the next call tries again: %s", name, error)


def _remove_leftover(path: str) -> None:
    record = _read(path)
    if record is None:
        return
    pid, start_time = int(record.get("pid") or 0), int(record.get("start_time") or 0)
    pidfd = _kill(pid, start_time) if pid else None
    try:
        if record.get("cgroup"):
            from mydocker.cgroups.layout import Layout
            from mydocker.cgroups.removal import remove_stale

            layout = Layout.read()
            if record.get("limits"):
                _undo_limits(record, layout, pidfd)
            remove_stale(layout, str(record["cgroup"]))
        if pidfd is not None:
            _await_end(pidfd)  # only now: frozen in a v1 cgroup, it ends when that is removed
    finally:
        if pidfd is not None:
            os.close(pidfd)
    if record.get("pidfile"):
        remove_pidfile(str(record["pidfile"]), pid)
        _unlink(_unfinished(str(record["pidfile"]), int(record.get("runtime") or 0)))


def _undo_limits(record: Mapping[str, Any], layout: Layout, pidfd: int | None) -> None:
    """As at the end of a run: the container's processes have ended, and its cgroup is still there."""
    from mydocker import undoing
    from mydocker.cgroups import freezing

    if pidfd is not None:
        freezing.let_killed_end(layout, str(record["cgroup"]))
        _await_end(pidfd)
    undoing.undo(str(record.get("id")), record["limits"], layout, str(record["cgroup"]))


def running(root: str) -> list[Record]:
    """The records of the containers that run, the oldest first, those that engines keep elsewhere among them.

    Those that this user may not read are not.
    """
    try:
        found = _running_in(root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as e:
        raise StateError(f"cannot read the containers' state in {root}: {e.strerror}") from e
    for other in other_roots(root):
        try:
            found += _running_in(other)
        except OSError:
            continue
    return sorted(found, key=lambda record: record.created)


def running_of(names: Iterable[str], root: str) -> list[Record]:
    """Those of ``names`` that run, the oldest first; no other container is looked at."""
    found = [record for name in set(names) if (record := _running(_path(name, root))) is not None]
    return sorted(found, key=lambda record: record.created)


def _running_in(root: str) -> list[Record]:
    return [record for name in os.listdir(root) if (record := _running(f"{root}/{name}")) is not None]


def find(name: str, root: str) -> Record:
    """The record of the running container ``name``. StateError if none of that name runs."""
    record = _running(_path(name, root))
    if record is None:
        others = ", ".join(record.id for record in running(root))
        raise StateError(f'no container named "{name}" is running' + (f": there are {others}" if others else ""))
    return record


def _path(name: str, root: str) -> str:
    """The directory of the container ``name``, wherever its engine keeps it."""
    if not is_id(name):
        check_name(name)
    path = f"{root}/{name}"
    if not os.path.isdir(path):
        return next((f"{other}/{name}" for other in other_roots(root) if os.path.isdir(f"{other}/{name}")), path)
    return path


def is_id(name: str) -> bool:
    """Whether an engine may give this name to a container: letters, digits, and ``_``, ``.``, ``-`` and ``+``."""
    plain = name.replace("_", "a").replace(".", "a").replace("-", "a").replace("+", "a")
    return plain.isascii() and plain.isalnum() and name not in (".", "..") and len(name) <= 1024


def note_root(root: str, default: str) -> None:
    """Remember that there are containers in ``root``, for `running` and `find` of the root ``default``."""
    if root == default:
        return
    directory, link = f"{default}/{_ROOTS}", link_of(root, default)
    for _ in range(100):
        try:
            os.symlink(root, link)
            return
        except FileExistsError:
            return
        except FileNotFoundError:
            _make_root(default)
            try:
                os.mkdir(directory, 0o700)
            except (FileExistsError, FileNotFoundError):
                pass  # another call made it, or the last container's end has just removed the root


def link_of(root: str, default: str) -> str:
    """Where it is noted that there are containers in ``root``.

    A path has characters and a length that a name cannot have.
    """
    from mydocker import cache_file

    return f"{default}/{_ROOTS}/{cache_file.checksum(os.fsencode(root)).hex()}-{len(root)}"


def forget_root(root: str, default: str) -> None:
    """The reverse of `note_root`, when there is no container in ``root`` any more."""
    if root == default or _has_entries(root):
        return
    _unlink(link_of(root, default))
    if _has_entries(root):  # made in the moment before
        note_root(root, default)
        return
    for directory in above_link(default):
        _remove_empty(directory)


def above_link(default: str) -> tuple[str, ...]:
    """The directories of `link_of`, which go when they are empty, the deepest first."""
    links = f"{default}/{_ROOTS}"
    return (links, default) if _may_be_removed(default) else (links,)


def _has_entries(path: str) -> bool:
    """What begins with @ is no container: a monitor of `mydocker.oci.monitor` takes its own away, a moment later."""
    try:
        return any(not name.startswith("@") for name in os.listdir(path))
    except OSError:
        return False


def other_roots(root: str) -> list[str]:
    """The other places in which there may be containers; those that are gone are forgotten."""
    directory = f"{root}/{_ROOTS}"
    found = []
    try:
        for name in os.listdir(directory):
            other = os.readlink(f"{directory}/{name}")
            if os.path.isdir(other):
                found.append(other)
            else:
                os.unlink(f"{directory}/{name}")
    except OSError:
        pass  # there are none, or they are not this user's to know
    return found


def lock_for_update(name: str, root: str, *, wait: bool = True) -> int:
    """Wait until no other process changes the limits of the container ``name``; a descriptor, for `rewrite` and to be
    closed at the end.

    The lock is on the container's directory itself, so there is no further file to remove. StateError if it is gone;
    BlockingIOError if another process has it and ``wait`` is not given.
    """
    path = _path(name, root)
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise StateError(f'the container "{name}" has ended') from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(lock)
        raise
    return lock


def rewrite(record: Record, lock: int) -> None:
    """Replace the record of a container that another process runs. StateError if it has ended meanwhile.

    What `mydocker.oci.brief` says of it is removed, and with that the right to act without reading the record.
    """
    try:
        _unlink("brief", lock)
        _write("state.json.update", record, lock)
        os.rename("state.json.update", "state.json", src_dir_fd=lock, dst_dir_fd=lock)
    except FileNotFoundError as e:  # in a directory that was removed, even if another has its name now
        raise StateError(f'the container "{record.id}" has ended') from e
    except OSError as e:
        raise StateError(f'cannot keep the state of the container "{record.id}": {e.strerror}') from e


def void_brief(path: str) -> None:
    """Remove what `mydocker.oci.brief` has left in the container's directory ``path``, if it has."""
    _unlink(f"{path}/brief")


def _running(path: str) -> Record | None:
    values = _read(path) if os.access(path, os.X_OK) else None
    if values is not None and values.get("oci"):
        record = to_record(values)
        return record if is_alive(record.pid, record.start_time) else None
    try:
        lock = take_lock(path, 0, wait=False)
    except OSError:
        return None
    if lock is not None:  # nobody's, so its runtime is dead
        os.close(lock)
        return None
    values = _read(path)
    return None if values is None else _as_seen(values)


def _as_seen(values: Mapping[str, Any]) -> Record:
    """The record. If it is not whole yet, without the process: what others do to that, they note in a whole one."""
    record = to_record(values)
    return record.replace(pid=0, start_time=0) if values.get(_ANNOUNCED) else record


def to_record(values: Mapping[str, Any]) -> Record:
    return Record(**{name: values[name] for name in ("id", "runtime", *Record._defaults) if name in values})


def read(path: str) -> Record | None:
    """The record in the container's directory ``path``; None if there is no whole one."""
    values = _read(path)
    return None if values is None or "id" not in values else _as_seen(values)


def is_alive(pid: int, start_time: int) -> bool:
    """Whether the process with this PID and start time runs; one that has ended and waits to be reaped does not."""
    if not pid:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[19]) == start_time and fields[0] not in (b"Z", b"X")


def _read(path: str) -> Mapping[str, Any] | None:
    """The record, or what was announced."""
    for name in ("state.json", "lock", "state.json"):  # what was announced goes when the record is there
        try:
            with open(f"{path}/{name}", encoding="utf-8", errors="surrogateescape") as f:
                record = plain_json.loads(f.read())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        if isinstance(record, dict):
            return record
    return None


def _kill(pid: int, start_time: int) -> int | None:
    """Kill the process that has both this PID and this start time, and no other; its pidfd, or None if it is gone."""
    from mydocker.linux import process
    from mydocker.linux.pidfd import SIGKILL, send_signal

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if process.start_time(pid) == start_time:
            send_signal(pidfd, SIGKILL)
            return pidfd
    except ProcessLookupError:
        pass
    os.close(pidfd)
    return None


def _await_end(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(10_000)


def _unfinished(pidfile: str, runtime: int) -> str:
    return f"{pidfile}.{runtime}.new"


def write_pidfile(path: str, pid: int, end: bytes = b"\n") -> None:
    """Write ``pid`` so that a reader sees a whole number or no file. StateError if it cannot be written."""
    new = _unfinished(path, os.getpid())
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.write(fd, b"%d%b" % (pid, end))
        os.close(fd)
        os.rename(new, path)
    except OSError as e:
        remove_pidfile(new, pid)
        raise StateError(f"--pidfile: cannot write {path}: {e.strerror}") from e


def remove_pidfile(path: str, pid: int) -> None:
    """Remove the file if it still holds ``pid``: somebody may have written another one since."""
    try:
        with open(path, "rb") as f:
            if f.read(32).strip() == b"%d" % pid:
                os.unlink(path)
    except OSError:
        pass


def remove_directory(path: str, names: tuple[str, ...] = ("state.json", "lock")) -> None:
    """Remove a container's directory with all that may be in it. ``names``: what is likely to be all."""
    for _ in range(10):  # an update may put its record there at this very moment; it does so twice at most
        for name in names:
            _unlink(f"{path}/{name}")
        if _remove_empty(path):
            return
        names = ("start", "waiting", "config.json", "brief")
        names += ("state.json", "state.json.new", "state.json.update", "lock")


def _unlink(path: str, directory: int | None = None) -> None:
    try:
        os.unlink(path, dir_fd=directory)
    except FileNotFoundError:
        pass


def _remove_empty_root(root: str, close: Callable[[int], None] | None = None) -> None:
    """``close``: as for `Claim.release`."""
    if not _may_be_removed(root):
        return
    try:
        fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if close is not None else -1
    except OSError:  # such as that another container's end has removed it
        fd = -1
    try:
        _remove_empty(root)
    finally:
        if close is not None and fd >= 0:
            close(fd)


def _may_be_removed(root: str) -> bool:
    """In /tmp it stays: in the moment after it was removed another user could make it, and be trusted with it."""
    return not root.startswith("/tmp/mydocker-")


def _remove_empty(path: str) -> bool:
    """Whether the directory is gone."""
    try:
        os.rmdir(path)
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return e.errno == errno.ENOENT
    return True
