"""One imitated hierarchy: its directories, which files each has, and in which of them a process is."""

from __future__ import annotations

import errno
import os
import shutil
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mydocker.testing import v1_files, v2_files
from mydocker.testing.kernel_file import KernelFile, lines, number, refuse, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mydocker.testing.host import FakeHost


class FakeDirectory:
    """One cgroup: a real directory with a real file for each kernel file, and what the kernel knows besides."""

    def __init__(self, hierarchy: FakeHierarchy, path: str, parent: FakeDirectory | None = None) -> None:
        self.hierarchy = hierarchy
        self.host: FakeHost = hierarchy.host
        self.path = path
        self.parent: FakeDirectory | None = parent
        self.children: dict[str, FakeDirectory] = {}
        self.processes: list[int] = []
        self.files: dict[str, KernelFile] = {}
        os.mkdir(path)
        self.host.directories[path] = self
        self.add(hierarchy.common_files)
        for controller in self.controllers:
            self.add_controller(controller)

    @property
    def is_root(self) -> bool:
        """Whether it is the kernel's root cgroup, which lacks some files and refuses to be limited."""
        return self.parent is None and self.hierarchy.at_kernel_root

    @property
    def controllers(self) -> Sequence[str]:
        """Those whose files it has: v2 gives a cgroup what its parent's cgroup.subtree_control says."""
        if self.hierarchy.version == 1 or self.parent is None:
            return self.hierarchy.controllers
        return self.parent.read("cgroup.subtree_control").split()

    def has(self, name: str) -> bool:
        return name in self.files

    def read(self, name: str) -> str:
        """The content of a file, stripped."""
        try:
            with open(f"{self.path}/{name}") as file:
                return file.read().strip()
        except FileNotFoundError:
            refuse(errno.ENOENT)

    def put(self, name: str, content: str) -> None:
        """Let a file hold this, without the rules of a write. One that this cgroup lacks stays absent."""
        if name in self.files:
            with open(f"{self.path}/{name}", "w") as file:
                file.write(f"{content}\n" if content else "")

    def add(self, files: Sequence[KernelFile]) -> None:
        for file in files:
            if file.is_in(self) and not self.hierarchy.lacks(file.name):
                self.files[file.name] = file
                self.put(file.name, file.first_content(self))

    def add_controller(self, name: str) -> None:
        self.add(self.hierarchy.files_of.get(name, ()))
        if name == "cpu" and self.hierarchy.version == 2 and not self.is_root and self.has("cpu.stat"):
            self.put("cpu.stat", text_of({**lines(self.read("cpu.stat")), **v2_files.THROTTLING}))

    def remove_controller(self, name: str) -> None:
        for file in self.hierarchy.files_of.get(name, ()):
            if self.files.pop(file.name, None):
                os.unlink(f"{self.path}/{file.name}")

    def write(self, name: str, text: str) -> None:
        """What write(2) does: OSError with the kernel's errno if it refuses."""
        file = self.files.get(name)
        if file is None:
            refuse(errno.ENOENT)
        if file.write is None:
            refuse(errno.EINVAL)
        if not text:
            return  # the kernel is not told of a write of no bytes
        content = file.write(self, text.removesuffix("\n"))
        if content is not None:
            self.put(name, content)

    def descendants(self) -> Iterator[FakeDirectory]:
        for child in self.children.values():
            yield child
            yield from child.descendants()

    def ancestors(self) -> Iterator[FakeDirectory]:
        above = self.parent
        while above is not None:
            yield above
            above = above.parent

    def all_processes(self) -> list[int]:
        """In it and below."""
        return [pid for directory in (self, *self.descendants()) for pid in directory.processes]

    def end_processes(self) -> None:
        """What SIGKILL does to all in it and below. No real process gets a signal."""
        for pid in self.all_processes():
            self.host.end(pid)

    def refresh(self) -> None:
        """Let the files tell of the processes that are here now."""
        listed = "\n".join(str(pid) for pid in self.processes)
        for name in ("cgroup.procs", "tasks", "cgroup.threads"):
            self.put(name, listed)
        for directory in (self, *self.ancestors()):
            count = len(directory.all_processes())
            if directory.has("pids.current"):
                directory.put("pids.current", str(count))
                if directory.has("pids.peak"):
                    directory.put("pids.peak", str(max(count, int(directory.read("pids.peak")))))
            if directory.has("cgroup.events"):
                events = lines(directory.read("cgroup.events"))
                directory.put("cgroup.events", text_of({**events, "populated": str(int(count > 0))}))


class FakeHierarchy:
    """A hierarchy of one version, with its controllers. ``mountpoint`` is its root directory."""

    def __init__(
        self, host: FakeHost, version: int, mountpoint: str, controllers: Sequence[str], *, at_kernel_root: bool = True
    ) -> None:
        self.host: FakeHost = host
        self.version = version
        self.controllers = tuple(controllers)
        self.at_kernel_root = at_kernel_root
        tables = v1_files if version == 1 else v2_files
        #: Not a copy: `FakeHost.like` adds to it what the real host has besides.
        self.files_of = {name: files for name, files in tables.controllers(host).items() if name in self.controllers}
        self.common_files = (*_MEMBERSHIP[version], *tables.CORE)
        self.absent: set[str] = set()
        self.root = FakeDirectory(self, mountpoint)

    def lacks(self, name: str) -> bool:
        return name in self.absent or any(fnmatchcase(name, pattern) for pattern in self.host.without)

    def make(self, path: str) -> None:
        """mkdir(2)."""
        parent = self.host.directory(os.path.dirname(path))
        name = os.path.basename(path)
        if name in parent.children:
            refuse(errno.EEXIST)
        if "\n" in name:
            refuse(errno.EINVAL)
        _refuse_too_many(parent)
        parent.children[name] = FakeDirectory(self, path, parent)
        _count_descendants(parent)

    def remove(self, directory: FakeDirectory) -> None:
        """rmdir(2): the files of a cgroup are no obstacle."""
        if directory.children or directory.processes or directory.parent is None:
            refuse(errno.EBUSY)
        del directory.parent.children[os.path.basename(directory.path)]
        del self.host.directories[directory.path]
        shutil.rmtree(directory.path)
        _count_descendants(directory.parent)

    def move(self, pid: int, directory: FakeDirectory) -> None:
        """Put the process there, and nowhere else in this hierarchy."""
        for other in (self.root, *self.root.descendants()):
            if pid in other.processes:
                other.processes.remove(pid)
                other.refresh()
        directory.processes.append(pid)
        directory.refresh()


def _count_descendants(directory: FakeDirectory) -> None:
    for one in (directory, *directory.ancestors()):
        if one.has("cgroup.stat"):
            count = str(len(list(one.descendants())))
            one.put("cgroup.stat", text_of({**lines(one.read("cgroup.stat")), "nr_descendants": count}))


def _refuse_too_many(parent: FakeDirectory) -> None:
    """cgroup.max.depth and cgroup.max.descendants of each cgroup above (cgroup_check_hierarchy_limits)."""
    for level, directory in enumerate((parent, *parent.ancestors()), 1):
        if directory.has("cgroup.max.depth"):
            depth, descendants = directory.read("cgroup.max.depth"), directory.read("cgroup.max.descendants")
            if depth != "max" and level > int(depth):
                refuse(errno.EAGAIN)
            if descendants != "max" and len(list(directory.descendants())) >= int(descendants):
                refuse(errno.EAGAIN)


def _attach(directory: FakeDirectory, text: str) -> None:
    """cgroup.procs: move a process here, ``0`` for the writer itself."""
    pid = number(text.strip(), signed=True) or os.getpid()
    if pid < 0:
        refuse(errno.EINVAL)
    if not directory.host.is_alive(pid):
        refuse(errno.ESRCH)
    if directory.hierarchy.version == 2:
        _refuse_internal_process(directory)
    elif directory.has("cpuset.cpus") and not (directory.read("cpuset.cpus") and directory.read("cpuset.mems")):
        refuse(errno.ENOSPC)
    directory.hierarchy.move(pid, directory)


def _refuse_internal_process(directory: FakeDirectory) -> None:
    """ "No Internal Process Constraint" and "Threads" in cgroup-v2.rst (cgroup_migrate_vet_dst)."""
    above = directory.parent
    if above is not None and not above.is_root and above.processes and _enabled(above):
        refuse(errno.EOPNOTSUPP)  # it is "domain invalid", beside a threaded domain
    if not directory.is_root and any(name not in v2_files.THREADED for name in _enabled(directory)):
        refuse(errno.EBUSY)


def _enabled(directory: FakeDirectory) -> list[str]:
    return directory.read("cgroup.subtree_control").split()


def _control_subtree(directory: FakeDirectory, text: str) -> None:
    """cgroup.subtree_control: ``+memory -io``, all or nothing. The files in the children come and go with it."""
    enabled = _enabled(directory)
    added, dropped = [], []
    for word in text.split():
        sign, name = word[:1], word[1:]
        if sign not in ("+", "-") or name not in _KNOWN:
            refuse(errno.EINVAL)
        if sign == "+" and name not in directory.controllers:
            refuse(errno.ENOENT)
        if sign == "+" and name not in enabled:
            added.append(name)
        elif sign == "-" and name in enabled:
            if any(name in _enabled(child) for child in directory.children.values()):
                refuse(errno.EBUSY)
            dropped.append(name)
    of_processes = [name for name in (*added, *enabled) if name not in v2_files.THREADED]
    if added and of_processes and directory.processes and not directory.is_root:
        refuse(errno.EBUSY)
    after = [name for name in directory.controllers if name in {*enabled, *added} - {*dropped}]
    directory.put("cgroup.subtree_control", " ".join(after))
    for child in directory.children.values():
        child.put("cgroup.controllers", " ".join(after))
        for name in dropped:
            child.remove_controller(name)
        for name in added:
            child.add_controller(name)


_KNOWN = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc", "perf_event")

#: The files that the hierarchy itself answers for, by version.
_MEMBERSHIP = {
    1: (
        KernelFile("cgroup.procs", "", _attach, "everywhere"),
        KernelFile("tasks", "", _attach, "everywhere"),
    ),
    2: (
        KernelFile("cgroup.procs", "", _attach, "everywhere"),
        KernelFile("cgroup.threads", "", _attach, "everywhere"),
        KernelFile("cgroup.controllers", lambda directory: " ".join(directory.controllers), where="everywhere"),
        KernelFile("cgroup.subtree_control", "", _control_subtree, "everywhere"),
    ),
}
