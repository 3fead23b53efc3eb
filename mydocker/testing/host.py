"""`FakeHost`: the cgroup file systems of a host that does not exist, in a directory, without root.

The files are real files, and `mydocker.cgroups.files` hands each write, mkdir and rmdir below the directory to
this module instead of the kernel. So a plugin is tested through the very classes that a run uses.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from mydocker.cgroups import files
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Hierarchy, Layout
from mydocker.testing import likeness
from mydocker.testing.hierarchy import FakeDirectory, FakeHierarchy
from mydocker.testing.kernel_file import lines, refuse, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Literal, Self

    Kind = Literal["v1", "v2", "hybrid"]

#: Controllers that the usual distributions mount together on v1, and the rest.
_V1 = ("memory", "cpu,cpuacct", "cpuset", "pids", "freezer", "devices", "blkio", "hugetlb", "net_cls,net_prio")
_V1_LATE = ("perf_event", "rdma", "misc")
_V2 = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc")
#: On the hybrid host, what is on v2.
_HYBRID_V2 = ("hugetlb", "rdma", "misc")

#: One more than the largest PID that Linux gives (PID_MAX_LIMIT): the processes of a fake host are no real ones.
_FIRST_PID = (1 << 22) + 1

#: The container's cgroup unless a test names another.
CONTAINER = "mydocker/test"


class Write(NamedTuple):
    """One write to a kernel file that the host took."""

    path: str
    value: str

    @property
    def name(self) -> str:
        """The file's name without its directory."""
        return os.path.basename(self.path)


class FakeHost:
    """The cgroups of an imitated host.

    ``layout`` is what `mydocker.cgroups.layout.Layout.read` would give on it. ``writes`` is every write that was
    taken, in order, ``made`` every cgroup that was made. A refused one raises what the kernel's refusal raises in a
    run: `mydocker.CgroupError` with its ``errno``.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        cpus: Iterable[int] = range(4),
        mems: Iterable[int] = range(1),
        block_devices: Iterable[str] = ("8:0", "8:16", "259:0"),
        huge_pages: Iterable[str] = ("2MB", "1GB"),
        rdma_devices: Iterable[str] = ("mlx5_0",),
        misc_resources: Mapping[str, int] | None = None,
        without: Iterable[str] = (),
    ) -> None:
        """Make an empty one in ``directory``, which must be empty too; `v1`, `v2` and `hybrid` fill it.

        ``without``: names of kernel files that this host's kernel lacks, ``*`` for any text: ``memory.swap.*``.
        """
        self.path = os.path.realpath(directory)
        self.cpus, self.mems = tuple(cpus), tuple(mems)
        self.block_devices = frozenset(block_devices)
        self.huge_pages: tuple[str, ...] = tuple(huge_pages)
        self.rdma_devices: tuple[str, ...] = tuple(rdma_devices)
        self.misc_resources: dict[str, int] = dict({"sev": 16} if misc_resources is None else misc_resources)
        self.without = tuple(without)
        self.writes: list[Write] = []
        self.made: list[str] = []
        self.directories: dict[str, FakeDirectory] = {}
        self.hierarchies: list[FakeHierarchy] = []
        self.layout = Layout.of(())
        self._origins: dict[str, str] = {}
        self._processes: set[int] = set()
        self._ended: set[int] = set()
        self._next_pid = _FIRST_PID
        os.makedirs(self.path, exist_ok=True)
        files.imitations.append(self)

    @classmethod
    def v1(cls, directory: str | os.PathLike[str], **options: Any) -> Self:
        """A host with cgroup v1 alone. ``options`` are those of the constructor, and ``controllers``."""
        return cls._mounted(directory, options, _V1 + _V1_LATE, ())

    @classmethod
    def v2(cls, directory: str | os.PathLike[str], **options: Any) -> Self:
        """A host with cgroup v2 alone."""
        return cls._mounted(directory, options, (), _V2)

    @classmethod
    def hybrid(cls, directory: str | os.PathLike[str], **options: Any) -> Self:
        """A host with both: hugetlb, rdma and misc are on v2, the others on v1."""
        v1 = tuple(names for names in (*_V1, "perf_event") if names not in _HYBRID_V2)
        return cls._mounted(directory, options, v1, _HYBRID_V2)

    @classmethod
    def of_kind(cls, kind: Kind, directory: str | os.PathLike[str], **options: Any) -> Self:
        """`v1`, `v2` or `hybrid`."""
        makers = {"v1": cls.v1, "v2": cls.v2, "hybrid": cls.hybrid}
        return makers[kind](directory, **options)

    @classmethod
    def _mounted(
        cls, directory: str | os.PathLike[str], options: dict[str, Any], v1: Sequence[str], v2: Sequence[str]
    ) -> Self:
        wanted = options.pop("controllers", None)
        host = cls(directory, **options)

        def kept(names: Iterable[str]) -> list[str]:
            return [name for name in names if wanted is None or name in wanted]

        for together in v1:
            names = kept(together.split(","))
            if names:
                host._mount(1, f"{host.path}/{','.join(names)}", names)
        if v2:
            unified = f"{host.path}/unified"
            host._mount(2, unified, kept(v2))
        return host

    def _mount(self, version: int, mountpoint: str, controllers: Sequence[str]) -> FakeHierarchy:
        made = FakeHierarchy(self, version, mountpoint, controllers)
        self.hierarchies.append(made)
        seen = Hierarchy(
            version=version, mountpoint=mountpoint, controllers=tuple(controllers), own="/", base=mountpoint
        )
        self.layout = Layout.of((*self.layout.hierarchies, seen))
        return made

    @classmethod
    def like(cls, layout: Layout, directory: str | os.PathLike[str], path: str = CONTAINER) -> Self:
        """A host like this one, as far as a container in the cgroup ``path`` is concerned. Nothing real changes.

        `real_path` is the way back from its directories to those of ``layout``.
        """
        host = cls(directory, **likeness.machine())
        found = []
        for number, real in enumerate(layout.hierarchies):
            mountpoint = f"{host.path}/{number}"
            found.append(likeness.imitate(host, real, mountpoint, path))
            host._origins[mountpoint] = real.mountpoint
        host.layout = Layout.of(found)
        host.writes.clear()
        host.made.clear()
        return host

    def real_path(self, path: str) -> str:
        """The path on the host that this one is `like`; in a text, all of them."""
        for mountpoint, real in self._origins.items():
            path = path.replace(f"{mountpoint}/", f"{real}/")
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget it: what is written below its directory is an ordinary file again. The files stay."""
        if self in files.imitations:
            files.imitations.remove(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.layout.kind} in {self.path}>"

    def cgroup(self, path: str = CONTAINER) -> ContainerCgroup:
        """A container's cgroup on this host, as the hooks get one. Nothing of it exists yet."""
        return ContainerCgroup(self.layout, path)

    def new_process(self) -> int:
        """The PID of a process that runs on this host only, in the root of each hierarchy."""
        pid, self._next_pid = self._next_pid, self._next_pid + 1
        self._processes.add(pid)
        return pid

    def end(self, pid: int) -> None:
        """The process has ended: it is in no cgroup any more. A real process gets no signal."""
        self._ended.add(pid)
        for directory in self.directories.values():
            if pid in directory.processes:
                directory.processes.remove(pid)
                directory.refresh()

    def is_alive(self, pid: int) -> bool:
        """Whether it is a process of this host that has not ended, or a real one."""
        return pid not in self._ended and (pid in self._processes or os.path.exists(f"/proc/{pid}"))

    def cgroup_of(self, pid: int, controller: str) -> str:
        """The cgroup of a process in the hierarchy of ``controller``, from the mount point: ``mydocker/test``.

        Empty for the root.
        """
        mountpoint = self.layout.require(controller).mountpoint
        for path, directory in self.directories.items():
            if pid in directory.processes and f"{path}/".startswith(f"{mountpoint}/"):
                return path[len(mountpoint) + 1 :]
        return ""

    def file(self, path: str) -> str:
        """The full path of the kernel file ``path``, given from the mount point, in whichever hierarchy has it.

        As in ``mydocker/test/pids.max``. FileNotFoundError if none has it.
        """
        cgroup, name = os.path.split(path)
        for hierarchy in self.hierarchies:
            directory = self.directories.get(os.path.join(hierarchy.root.path, cgroup).rstrip("/"))
            if directory is not None and directory.has(name):
                return f"{directory.path}/{name}"
        there = sorted({os.path.relpath(path, self.path) for path in self.directories})
        raise FileNotFoundError(errno.ENOENT, f"no hierarchy has it; the cgroups are {', '.join(there)}", path)

    def read(self, path: str) -> str:
        """The content of a kernel file, stripped: ``host.read("mydocker/test/pids.max")``."""
        directory, name = os.path.split(self.file(path))
        return self.directories[directory].read(name)

    def report(self, path: str, value: object) -> None:
        """Let a kernel file tell something, as if the kernel had counted it: ``report("mydocker/test/pids.peak", 7)``.

        A mapping changes the lines of those keys and leaves the others: ``{"oom_kill": 1}`` for memory.events.
        """
        directory, name = os.path.split(self.file(path))
        text = str(value)
        if isinstance(value, dict):
            present = lines(self.directories[directory].read(name))
            text = text_of({**present, **{key: str(number) for key, number in value.items()}})
        self.directories[directory].put(name, text)

    def directory(self, path: str) -> FakeDirectory:
        """The cgroup whose directory is ``path``; OSError with ENOENT if there is none."""
        found = self.directories.get(path)
        return found if found is not None else refuse(errno.ENOENT)

    # What the core calls in place of the kernel: mydocker.cgroups.files.Imitation.

    def write(self, path: str, value: str) -> None:
        directory, name = os.path.split(path)
        self.directory(directory).write(name, value)
        self.writes.append(Write(path, value))

    def make_directory(self, path: str) -> None:
        self.directory(os.path.dirname(path)).hierarchy.make(path)
        self.made.append(path)

    def remove_directory(self, path: str) -> None:
        directory = self.directory(path)
        directory.hierarchy.remove(directory)

    def kill(self, path: str) -> None:
        if path in self.directories:
            self.directories[path].end_processes()
