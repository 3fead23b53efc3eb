"""One container's cgroups: one directory in each hierarchy that its limits need, made when a limit first asks."""

from __future__ import annotations

import errno
import os

from mydocker.cgroups import creation, files, places, removal
from mydocker.errors import CgroupError, ConflictError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.layout import Hierarchy, Layout
    from mydocker.cgroups.plain import Directory

DEFAULT_PARENT = places.DEFAULT_PARENT


#: With these the core puts a container together and takes it apart: a plugin that wrote one could move mydocker itself.
_CORES_OWN = ("cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control", "cgroup.type")


class _Made:
    """What exists of one container's cgroup, shared by the views that its plugins have."""

    __slots__ = ("attached", "directories", "enabled", "journal", "running", "taken", "writers")

    def __init__(self) -> None:
        #: mount point of the hierarchy -> (hierarchy, the container's directory in it)
        self.directories: dict[str, tuple[Hierarchy, str]] = {}
        #: of these, what was there before
        self.taken: list[str] = []
        self.enabled: set[str] = set()
        self.attached: set[tuple[str, int]] = set()
        #: kernel file, or what else was claimed -> the plugin that wrote it
        self.writers: dict[str, str] = {}
        #: what undoes the changes made so far, in the order of the changes; None where nothing is to be undone
        self.journal: list[Callable[[], object]] | None = None
        #: the first process of a container that runs already, 0 before the clone, -1 where nothing may be made
        self.running = 0


class PluginDirectory:
    """The container's directory in one hierarchy as one plugin sees it: keeps note of who writes which file."""

    __slots__ = ("_cgroup", "full_path")

    def __init__(self, full_path: str, cgroup: ContainerCgroup) -> None:
        self.full_path = full_path
        self._cgroup = cgroup

    def writing(self, path: str) -> None:
        """Note that the plugin writes ``path``; a `ConflictError` if another one did. What is the core's is refused."""
        name = path.rpartition("/")[2]
        if name in _CORES_OWN and self._cgroup.is_plugins:
            raise PermissionError(f"{name} is mydocker's own: cgroup.attach(…) moves the container's process")
        self._cgroup.writing(path)

    def other(self, path: str) -> Directory:
        """Another cgroup: of no container, or of another one."""
        from mydocker.cgroups.plain import Directory, ForeignDirectory

        return ForeignDirectory(path) if self._cgroup.is_plugins else Directory(path)


class ContainerCgroup:
    """The cgroup ``path`` (``mydocker/<id>``), from the base of each hierarchy that is asked for.

    Nothing exists until `controller` is called. Whoever makes one owes it `remove`.
    """

    def __init__(self, layout: Layout, path: str) -> None:
        """`UsageError` if ``path`` is not a cgroup below the base (``..``, a line break, no name at all)."""
        self.layout = layout
        self.path = places.checked_path(path)
        self._plugin = ""
        self._abandoned = False
        self._made = _Made()
        self._controllers: dict[str, Controller] = {}

    @classmethod
    def opened(cls, layout: Layout, path: str, pid: int = 0) -> ContainerCgroup:
        """The cgroup of a container that runs, as it exists; for figures and changes by another process.

        With ``pid``, the container's first process as this PID namespace sees it, `controller` makes what the
        container lacks and moves its processes there. Without, that is a `CgroupError`, and nothing is ever made.
        """
        group = cls(layout, path)
        group.adopt()
        group._made.running = pid or -1
        return group

    def remembered(self) -> ContainerCgroup:
        """The same, for who asks about it when it is removed (`mydocker.cgroups.read_ahead`): nothing is ever made."""
        copy, made = self.for_plugin(""), _Made()
        made.directories.update(self._made.directories)
        made.enabled.update(self._made.enabled)
        made.running = -1
        copy._made = made
        return copy

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} in {', '.join(self.dirs) or 'no hierarchy yet'}>"

    def for_plugin(self, name: str) -> ContainerCgroup:
        """The same cgroup, with writes noted as those of the plugin ``name``.

        Writing a kernel file that another plugin wrote for this container raises `ConflictError`.
        """
        view = object.__new__(ContainerCgroup)
        view.layout = self.layout
        view.path = self.path
        view._plugin = name
        view._abandoned = False
        view._made = self._made
        view._controllers = {}
        return view

    @property
    def is_plugins(self) -> bool:
        """Whether this is the view that a plugin was given."""
        return bool(self._plugin)

    def controller(self, name: str) -> Controller:
        """The typed files of the controller ``name`` for this container, of the cgroup version it is on.

        The first call makes the container's directory in the controller's hierarchy. `CgroupError` if the host does
        not offer the controller, the directory exists already, or the kernel refuses.
        """
        self._refuse_if_abandoned()
        found = self._controllers.get(name)
        if found is None:
            from mydocker.cgroups.plain import controller_at

            hierarchy = self.layout.require(name)
            directory = PluginDirectory(self._directory(hierarchy), self)
            self._prepare(hierarchy, name)
            found = self._controllers[name] = controller_at(name, hierarchy.version, directory)
        return found

    def _directory(self, hierarchy: Hierarchy) -> str:
        made = self._made
        if hierarchy.mountpoint not in made.directories:
            directory = f"{hierarchy.base}/{self.path}"
            if made.running < 0:
                raise CgroupError(f"the container {self.path} has no cgroup below {hierarchy.base}", errno.ENOENT)
            if hierarchy.version == 2 and not made.running and os.geteuid() != 0:
                creation.require_movable(hierarchy, self.path)
            # Noted first: what is interrupted on the way (KeyboardInterrupt) may be there already.
            made.directories[hierarchy.mountpoint] = (hierarchy, directory)
            try:
                creation.make(hierarchy, self.path)
            except CgroupError:
                del made.directories[hierarchy.mountpoint]
                raise
            if made.running:
                if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
                    creation.inherit_cpuset(hierarchy, self.path)
                from mydocker.cgroups import moving

                moving.move_tree(made.running, made.directories[hierarchy.mountpoint][1])
        return made.directories[hierarchy.mountpoint][1]

    def make_everywhere(self, version: int | None = None) -> None:
        """Make the cgroup in every hierarchy, with every controller that there is: engines read their figures there.

        One that exists is taken over if nothing runs in it. A hierarchy that a plain user may not write is left out.
        `CgroupError` if something runs in one, or the kernel refuses; then what was made is gone again, unless there
        was something of it before.

        ``version``: in those hierarchies alone, in a first call of two.
        """
        first = not self._made.directories
        taken = self._made.taken
        try:
            for hierarchy in self.layout.hierarchies:
                if hierarchy.mountpoint in self._made.directories or version not in (None, hierarchy.version):
                    continue
                if creation.is_there(f"{hierarchy.base}/{self.path}"):
                    taken.append(hierarchy.mountpoint)
                    self._made.directories[hierarchy.mountpoint] = (hierarchy, f"{hierarchy.base}/{self.path}")
                elif not creation.is_allowed(hierarchy):
                    continue
                self._complete(hierarchy)
            if self.frozen:
                raise CgroupError(f"container's cgroup unexpectedly frozen: {self.path}", errno.EBUSY)
        except CgroupError:
            while taken:
                del self._made.directories[taken.pop()]
            if first:
                self.remove()
            raise

    def complete(self) -> None:
        """As `make_everywhere`, where somebody else, who has put a process of ours there, made the first of it."""
        self.adopt()
        for hierarchy in self.layout.hierarchies:
            there = hierarchy.mountpoint in self._made.directories
            if there or creation.is_allowed(hierarchy):
                self._complete(hierarchy)

    def _complete(self, hierarchy: Hierarchy) -> None:
        """Make the directory in one hierarchy if need be, and all its controllers ready to take a process."""
        self._directory(hierarchy)
        if hierarchy.version == 2:
            creation.enable_all(hierarchy, self.path)
        elif "cpuset" in hierarchy.controllers:
            creation.inherit_cpuset(hierarchy, self.path)

    def give(self, uid: int) -> None:
        """v2: make ``uid`` the owner of the cgroup, and of those files in it that an owner may have (cgroup-v2.rst,
        "Model of Delegation"): not of the limits.
        """
        try:
            names = files.read("/sys/kernel/cgroup/delegate").split()
        except CgroupError:  # before Linux 4.15
            names = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
        for hierarchy, directory in self._made.directories.values():
            if hierarchy.version != 2:
                continue
            for path in (directory, *(f"{directory}/{name}" for name in names)):
                try:
                    os.chown(path, uid, -1, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # of a controller that is not here
                except OSError as e:
                    raise files.refused("change the owner of", path, e) from e

    def enter(self, pid: int) -> None:
        """Move the process ``pid`` into the cgroup in every hierarchy where it has one and is not in it yet."""
        for mountpoint, (_, directory) in self._made.directories.items():
            if (mountpoint, pid) not in self._made.attached:
                files.write(f"{directory}/cgroup.procs", str(pid))
                self._made.attached.add((mountpoint, pid))

    def _prepare(self, hierarchy: Hierarchy, name: str) -> None:
        """What the kernel's structure demands before the controller's files are there and take a process."""
        if name in self._made.enabled:
            return
        if self._made.running < 0:
            if not self.has(name):
                raise CgroupError(f"the container {self.path} has no {name} controller", errno.ENOENT)
        elif hierarchy.version == 2:
            if name in hierarchy.controllers:
                creation.enable(hierarchy, self.path, name)
        elif "cpuset" in hierarchy.controllers:
            creation.inherit_cpuset(hierarchy, self.path)
        self._made.enabled.add(name)

    def attach(self, controller: str, pid: int) -> None:
        """Move the process ``pid`` into this cgroup in the hierarchy of ``controller``; its children follow.

        Done once for each hierarchy and process: two limits in one hierarchy may both ask for it.
        """
        self._refuse_if_abandoned()
        hierarchy = self.layout.require(controller)
        self.controller(controller)
        key = (hierarchy.mountpoint, pid)
        if key not in self._made.attached:
            try:
                files.write(f"{self._directory(hierarchy)}/cgroup.procs", str(pid))
            except CgroupError as e:
                if e.errno != errno.EACCES or os.geteuid() == 0:
                    raise
                from mydocker.cgroups import delegation

                raise CgroupError(delegation.why_not_moved(hierarchy), e.errno) from e
            self._made.attached.add(key)

    def has(self, controller: str) -> bool:
        """Whether the container has a cgroup with the files of ``controller``. Makes nothing."""
        hierarchy = self.layout.find(controller)
        if hierarchy is None or hierarchy.mountpoint not in self._made.directories:
            return False
        if hierarchy.version == 1 or controller not in hierarchy.controllers:
            return True
        directory = self._made.directories[hierarchy.mountpoint][1]
        return controller in files.read(f"{directory}/cgroup.controllers").split()

    def parents(self, controller: str) -> list[Controller]:
        """The same controller of the cgroups between the base and the container's that are mydocker's own, the
        nearest first: the common one, and those that were made because a container needed a parent.

        For what the kernel grants to a cgroup only as far as those above it have it too: protected memory and
        partitions on v2, realtime on v1. A cgroup that somebody else made is theirs to change.
        """
        from mydocker.cgroups.plain import Directory, controller_at

        hierarchy = self.layout.require(controller)
        own = []
        for directory in reversed(places.directories(hierarchy, self.path)[:-1]):
            if not places.is_own(hierarchy, directory):
                break
            own.append(controller_at(controller, hierarchy.version, Directory(directory)))
        return own

    def claim(self, what: str) -> None:
        """Note that this plugin sets ``what`` of the container (``rlimit nofile``), which is no file of its cgroup.

        A `ConflictError` that names both if another plugin did.
        """
        self.writing(what)

    def writing(self, path: str) -> None:
        """Note that the plugin writes ``path``, and during an update what it holds. `ConflictError` as for `claim`."""
        self._refuse_if_abandoned()
        if self._plugin:
            owner = self._made.writers.setdefault(path, self._plugin)
            if owner != self._plugin:
                verb = "write" if path.startswith("/") else "set the"
                raise ConflictError(
                    f"the plugins {owner} and {self._plugin} both {verb} {path}: one container cannot have both limits"
                )
        if self._made.journal is not None and path.startswith("/"):
            self._note_former(self._made.journal, path)

    @staticmethod
    def _note_former(journal: list[Callable[[], object]], path: str) -> None:
        """A file of several lines, or none, is not put back by one write: its plugin has its own way (`on_undo`)."""
        try:
            former = files.read(path)
        except CgroupError:
            return
        if former and "\n" not in former:
            journal.append(lambda: files.write(path, former))

    def on_undo(self, function: Callable[[], object]) -> None:
        """During an update: call ``function`` if the update fails later on. Without effect at other times."""
        if self._made.journal is not None:
            self._made.journal.append(function)

    @property
    def writers(self) -> dict[str, str]:
        """Kernel file, or what else was claimed, to the plugin that did."""
        return dict(self._made.writers)

    def begin_update(self, writers: Mapping[str, str] | None = None) -> None:
        """From now on `undo` puts back what is written through this cgroup and its plugins' views.

        ``writers``: who has written what since the container was started.
        """
        self._made.journal = []
        self._made.writers.update(writers or {})

    def undo(self) -> list[Exception]:
        """Undo the update, the last change first; what could not be undone."""
        journal, self._made.journal = self._made.journal or [], None
        failed: list[Exception] = []
        for former in reversed(journal):
            try:
                former()
            except Exception as e:
                failed.append(e)
        return failed

    def abandon(self) -> None:
        """Refuse everything from now on: the hook that was given this view did not return in time."""
        self._abandoned = True

    @property
    def is_abandoned(self) -> bool:
        return self._abandoned

    def _refuse_if_abandoned(self) -> None:
        if self._abandoned:
            raise CgroupError(f"the plugin {self._plugin} took too long, and its container is gone", errno.ESTALE)

    def open_entrances(self) -> list[int]:
        """Descriptors of the ``tasks`` files made so far (v1), close-on-exec: a child with one thread that writes
        ``0`` to each is in this cgroup. Then tell `entered`.

        The kernel moves a thread that moves itself in some 50 µs; for a move by `attach` it stops all forks and exits
        on the host first and waits for an RCU grace period, 5 to 15 ms (kernel commit 9a3284fad42f, Linux 5.6).
        """
        opened: list[int] = []
        for hierarchy, directory in self._made.directories.values():
            if hierarchy.version == 1:
                try:
                    opened.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
                except OSError as e:
                    for fd in opened:
                        os.close(fd)
                    raise files.refused("open", f"{directory}/tasks", e) from e
        return opened

    def open_birthplace(self) -> int:
        """A descriptor of the v2 cgroup, in which a child can be cloned (CLONE_INTO_CGROUP, clone3(2)); -1 if there is
        none. For the same reason as `open_entrances`: a move costs milliseconds. Then tell `entered`.

        What the child does from then on is charged to the cgroup.
        """
        for hierarchy, directory in self._made.directories.values():
            if hierarchy.version == 2:
                try:
                    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                except OSError as e:
                    raise files.refused("open", directory, e) from e
        return -1

    def entered(self, pid: int) -> None:
        """Note that the process ``pid`` has gone through the entrances: `attach` has nothing to do for it there.

        The kernel is asked: a hierarchy in which it is elsewhere is left to `attach`.
        """
        end = f"/{self.path}"
        inside: set[str] = set()
        inside_v2 = False
        for line in files.read(f"/proc/{pid}/cgroup").split("\n"):
            if line.endswith(end):  # proc(5): the number, the controllers, the path
                controllers = line.split(":", 2)[1]
                inside.update(controllers.split(","))
                inside_v2 = inside_v2 or not controllers
        for mountpoint, (hierarchy, _) in self._made.directories.items():
            if inside_v2 if hierarchy.version == 2 else inside.issuperset(hierarchy.controllers):
                self._made.attached.add((mountpoint, pid))

    def runs(self, pid: int) -> None:
        """From now on the container runs: `controller` makes what is missing for ``pid`` and its descendants too.

        Where no limit did so, as where a cgroup was made for figures alone, ``pid`` is attached now.
        """
        self.enter(pid)
        self._made.running = pid

    @property
    def frozen(self) -> bool:
        """Whether the container is frozen, as far as its cgroup can tell."""
        for path, thawed in self.freezers:
            try:
                if files.read(path) != thawed:
                    return True
            except CgroupError:
                continue  # removed meanwhile, or a kernel before 5.2
        return False

    @property
    def freezers(self) -> list[tuple[str, str]]:
        """The files that tell whether it is frozen, each with what is in it when it is not."""
        found = []
        for hierarchy, directory in self._made.directories.values():
            if hierarchy.version == 2:
                found.append((f"{directory}/cgroup.freeze", "0"))
            elif "freezer" in hierarchy.controllers:
                found.append((f"{directory}/freezer.state", "THAWED"))
        return found

    @property
    def exists(self) -> bool:
        """Whether anything was made."""
        return bool(self._made.directories)

    @property
    def mountpoints(self) -> tuple[str, ...]:
        """The mount points of the hierarchies of `dirs`."""
        return tuple(self._made.directories)

    @property
    def dirs(self) -> tuple[str, ...]:
        """The directories that were made for this container, one in each hierarchy that was asked for."""
        return tuple(directory for _, directory in self._made.directories.values())

    def pids(self) -> list[int]:
        """The processes in the cgroup and those nested in it, as seen from this PID namespace, in no order."""
        from mydocker.cgroups import contents

        return list({pid for directory in self.dirs for pid in contents.pids(directory)})

    def kill(self) -> None:
        """Kill every process in the cgroup and wait until all have ended. `CgroupError` if some do not."""
        from mydocker.cgroups import contents

        for hierarchy, directory in removal.freezer_first(self._made.directories.values()):
            contents.kill(directory, hierarchy.version)
        for hierarchy, directory in removal.freezer_first(self._made.directories.values()):
            contents.kill_and_wait(directory, hierarchy.version)

    def remove(self) -> None:
        """Kill what is left in the cgroup, remove it with all that is nested in it, then its parents if empty.

        Fine to call again, or if nothing was made. `CgroupError` if something stays; the rest is removed all the same.
        """
        made = self._made.directories
        removal.remove_everywhere(made.values(), self.path, lambda hierarchy: made.pop(hierarchy.mountpoint))

    def adopt(self) -> None:
        """Take what exists under this container's name for its own.

        A plain user's may have the name of one of root's, whose cgroup is in the same place: that he may not write.
        """
        for hierarchy in self.layout.hierarchies:
            directory = f"{hierarchy.base}/{self.path}"
            if os.access(directory, os.W_OK):
                self._made.directories[hierarchy.mountpoint] = (hierarchy, directory)
