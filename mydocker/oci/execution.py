"""How `exec` puts a process into a container.

A helper joins the namespaces of the container's init, all at once and through its pidfd, and clones the process with
the runtime as its parent: it is born in the container's PID namespace, and nothing of the runtime ever is in it. It
cannot be traced or looked into before it executes the command (CVE-2016-9962, CVE-2019-5736): it is not dumpable, and
has closed what it does not need (`mydocker.oci.newcomer`). It enters the container's cgroups, gets ready and waits; the
runtime sets what is set by PID and sends the command.
"""

from __future__ import annotations

import errno
import os
import select

from mydocker import handoff, state, streams
from mydocker.cgroups import files
from mydocker.cgroups.layout import Layout, parse_memberships
from mydocker.child import Child, clone_to_run
from mydocker.errors import CgroupError, OciError
from mydocker.linux import executable, process, signals
from mydocker.oci import console, foreground
from mydocker.oci import process as oci_process
from mydocker.oci.lookup import reason_of
from mydocker.oci.newcomer import Ends, Joining, Newcomer
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from mydocker.oci.container import Container
    from mydocker.oci.log import Log
    from mydocker.oci.process import ProcessPlan
    from mydocker.seccomp import Filter

_NAMESPACES = {
    "user": process.CLONE_NEWUSER,
    "mnt": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "net": process.CLONE_NEWNET,
    "ipc": process.CLONE_NEWIPC,
    "uts": process.CLONE_NEWUTS,
    "cgroup": process.CLONE_NEWCGROUP,
    "time": process.CLONE_NEWTIME,
}


class Work(Value):
    """What one call of ``exec`` is to do.

    ``process``    in the form of config.json's.
    ``preserved``  descriptors of the caller that go to it.
    ``cgroups``    controller to a path below the container's cgroup; the empty one stands for all others.
    """

    container: Container
    process: Mapping[str, Any]
    log: Log
    detached: bool = False
    preserved: frozenset[int] = frozenset()
    pid_file: str = ""
    console_socket: str = ""
    pidfd_socket: str = ""
    cgroups: Mapping[str, str] = {}


def run(work: Work) -> int:
    """Run the process; its exit code, or 0 where it is not waited for. OciError if it does not run."""
    streams.reserve_standard()
    signals.default(signals.SIGCHLD)  # ignored by a caller, it would make the kernel forget the exit status
    ours = foreground.Signals()
    try:
        return _Execution(work, ours).run()
    finally:
        ours.close()


class _Execution:
    def __init__(self, work: Work, ours: foreground.Signals) -> None:
        self._work = work
        self._ours = ours
        self._fds: list[int] = []
        self._channel = -1
        self._filter: Filter | None = None
        #: the cgroups that the process is to be in, and is not by its birth or its own doing
        self._cgroups: list[str] = []

    def run(self) -> int:
        work = self._work
        config = work.container.config
        init = self._own(work.container.open_init())
        namespaces = _different_namespaces(work.container.pid)
        joins_user = bool(namespaces & process.CLONE_NEWUSER)
        plan = oci_process.plan(work.process, config, warn=work.log.warning, joins_user_namespace=joins_user)
        frame = handoff.encode(*oci_process.command(work.process))
        profile = (config.get("linux") or {}).get("seccomp")
        if profile:
            from mydocker import seccomp

            self._filter = seccomp.prepare(profile)
        _set_cpus("initial", 0, plan.initial_cpus)
        layout = Layout.read()
        child = Child(layout, work.container.record.cgroup)
        if os.geteuid() == 0:
            # Here it takes less than in the child, which does not see the interpreter's file.
            executable.let_go_where_possible()
        try:
            self._clone(child, init, namespaces, plan, layout)
            master = self._await_ready(child, plan)
            self._enter_rest(child.pid)
            if plan.final_cpus is None:
                oci_process.use_all_cpus(child.pid)
            else:
                _set_cpus("final", child.pid, plan.final_cpus)
            self._share_caches(child.pid)
            oci_process.limit(plan, child.pid)
            self._hand_over(child, frame)
            if work.pid_file:
                state.write_pidfile(os.path.abspath(work.pid_file), child.pid, b"")
            if work.detached:
                child.leave()
                return 0
            relay = foreground.Relay() if plan.terminal else streams.Streams(0, 1, 2)
            return foreground.stay(child, relay, master, self._ours)
        finally:
            child.close()
            for fd in self._fds:
                os.close(fd)

    def _own(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _clone(self, child: Child, init: int, namespaces: int, plan: ProcessPlan, layout: Layout) -> None:
        work = self._work
        theirs: list[int] = []
        try:
            commands, child.commands = os.pipe()
            theirs.append(commands)
            child.reports, reports = os.pipe()
            theirs.append(reports)
            self._channel, channel = console.pair()
            self._own(self._channel)
            theirs.append(channel)
            proc = terminal = -1
            if plan.labelled and (plan.user_namespace or not process.in_initial_user_namespace()):
                # Only where it cannot make one of its own (mount_namespaces(7)): through the host's, who may trace it
                # in the container would come to the host's processes.
                proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                theirs.append(proc)
            if work.console_socket:
                terminal = console.connect(work.console_socket, "--console-socket")
                theirs.append(terminal)
            self._cgroups = _cgroups(work.container, work.cgroups)
            entrances = self._open_entrances()
            theirs += entrances
            ends = Ends(
                commands=commands,
                reports=reports,
                channel=channel,
                proc=proc,
                console=terminal,
                entrances=tuple(entrances),
            )
            newcomer = Newcomer(plan, ends, work.preserved, self._filter)
            root = -1
            if not namespaces & process.CLONE_NEWNS:  # it has a root of its own all the same, by chroot(2)
                root = os.open(f"/proc/{work.container.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                theirs.append(root)
            join = Joining(init, namespaces, root, plan.oom_score_adj)
            if not self._clone_into_cgroup(newcomer, join, child, layout):
                clone_to_run(newcomer.run, 0, child, join.run)
        except OSError as e:
            raise OciError(f"unable to start container process: cannot join the container: {_reason(e)}") from e
        finally:
            for fd in theirs:
                os.close(fd)

    def _open_entrances(self) -> list[int]:
        """Of the v1 cgroups: as for the first process (`ContainerCgroup.open_entrances`), a move costs milliseconds."""
        opened = []
        for directory in list(self._cgroups):
            if _version(directory) == 1:
                try:
                    opened.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
                except OSError as e:
                    for fd in opened:
                        os.close(fd)
                    # As runc says it, which writes to the file of the same meaning.
                    raise _not_added(f"open {directory}/cgroup.procs: {reason_of(e)}") from e
                self._cgroups.remove(directory)
        return opened

    def _clone_into_cgroup(self, newcomer: Newcomer, join: Joining, child: Child, layout: Layout) -> bool:
        """Clone the child in its v2 cgroup, if that can be and a limit there is not charged with what it does first.

        To move it there takes the kernel some 10 ms, in which it waits for all CPUs (a grace period of RCU).
        """
        limits = self._work.container.record.limits
        if layout.version("memory") == 2 and any("memory" in field for field in limits):
            return False
        if len(self._cgroups) != 1:
            return False
        try:
            birthplace = os.open(self._cgroups[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            clone_to_run(newcomer.run, 0, child, join.run, cgroup=birthplace)
        except OSError:
            return False  # the cgroup takes no process, or nobody may put one there from the user namespace
        finally:
            os.close(birthplace)
        self._cgroups.clear()
        return True

    def _enter_rest(self, pid: int) -> None:
        for directory in self._cgroups:
            try:
                files.write(f"{directory}/cgroup.procs", str(pid))
            except CgroupError as e:
                # On v2 a cgroup that has given controllers to its children takes no process any more (cgroup-v2.rst,
                # "No Internal Process Constraint"): an init like systemd has made its own below it and is there.
                if "" in self._work.cgroups or e.errno not in (errno.EBUSY, errno.EOPNOTSUPP):
                    raise _not_added(f"write {directory}/cgroup.procs: {os.strerror(e.errno).lower()}", pid) from e
                files.write(f"{_unified_cgroup_of(self._work.container.pid)}/cgroup.procs", str(pid))

    def _share_caches(self, pid: int) -> None:
        values = self._work.container.record.oci.get("resctrl")
        if values:
            from mydocker.oci import intel_rdt

            with intel_rdt.Tree.of_host() as tree:
                intel_rdt.enter(intel_rdt.as_recorded(values), pid, tree)

    def _await_ready(self, child: Child, plan: ProcessPlan) -> int:
        """Until the child waits for its command: the master of its terminal, or -1 where it is not for us."""
        self._await(child, child.reports, select.POLLIN)
        report = handoff.read_report(child.reports)
        if not isinstance(report, int):
            raise _not_started(report)
        if not plan.terminal or self._work.console_socket:
            return -1
        master = self._receive(child)
        foreground.fit(master)
        return master

    def _hand_over(self, child: Child, frame: bytes) -> None:
        """Send the command and wait until it runs."""
        os.set_blocking(child.commands, False)
        try:
            handoff.send(child.commands, frame, lambda: self._await(child, child.commands, select.POLLOUT))
        except BrokenPipeError:
            pass  # it has ended, and the report says why
        child.close_commands()
        if self._filter is not None and self._filter.listens:
            self._pass_listener_on(child)
        self._await(child, child.reports, select.POLLIN)
        report = handoff.read_report(child.reports)
        if report is not None:
            raise _not_started(report)
        if self._work.pidfd_socket:
            socket = self._own(console.connect(self._work.pidfd_socket, "--pidfd-socket"))
            console.send(socket, console.EXEC_PROCESS, child.pidfd)

    def _receive(self, child: Child) -> int:
        """The descriptor that the child sends. It ends without only if it ends altogether."""
        self._await(child, self._channel, select.POLLIN)
        fd = console.receive(self._channel)
        if fd < 0:
            report = handoff.read_report(child.reports)
            raise _not_started(report if isinstance(report, handoff.Failure) else None)
        return fd

    def _pass_listener_on(self, child: Child) -> None:
        """The agent has the listener before the process makes a system call that it is to decide on."""
        from mydocker import seccomp

        assert self._filter is not None
        self._await(child, child.reports, select.POLLIN)
        report = handoff.read_report(child.reports)
        if not isinstance(report, handoff.Listener):
            raise _not_started(report if isinstance(report, handoff.Failure) else None)
        listener = process.pidfd_getfd(child.pidfd, report.fd)
        try:
            seccomp.send_listener(self._filter, listener, self._work.container.state(), child.pid)
        finally:
            os.close(listener)
        os.write(self._channel, b"k")

    def _await(self, child: Child, fd: int, event: int) -> None:
        """Until the child does something with its end of ``fd``. In a frozen container that is when it is thawed."""
        poll = select.poll()
        poll.register(fd, event)
        poll.register(self._ours.fd, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if fd in ready:
                return
            number = self._ours.told_to_stop()
            if number is not None:
                raise OciError(f"stopped by signal {number} before the process was started")


def _not_started(report: object) -> OciError:
    text = report.text if isinstance(report, handoff.Failure) else "it was killed while it was set up"
    return OciError(f"unable to start container process: {text}")


def _not_added(reason: str, pid: int | None = None) -> OciError:
    which = "" if pid is None else f" {pid}"
    return OciError(f"unable to start container process: error adding pid{which} to cgroups: {reason}")


def _reason(error: OSError) -> str:
    about = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
    return f"{reason_of(error)}{about}"


def _different_namespaces(pid: int) -> int:
    """Those of the process that are not ours, as flags: to join one's own user namespace is an error (setns(2))."""
    mask = 0
    for name, flag in _NAMESPACES.items():
        try:
            theirs, own = os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            if not os.path.exists(f"/proc/{pid}/ns"):
                raise OciError("container not running") from None
            continue  # this kernel has no such namespaces
        if (theirs.st_dev, theirs.st_ino) != (own.st_dev, own.st_ino):
            mask |= flag
    return mask


def _set_cpus(when: str, pid: int, cpus: frozenset[int] | None) -> None:
    if cpus is not None:
        try:
            os.sched_setaffinity(pid, cpus)
        except OSError as e:
            raise OciError(f"process.execCPUAffinity.{when}: cannot set the CPU affinity: {_reason(e)}") from e


def _cgroups(container: Container, below: Mapping[str, str]) -> list[str]:
    """The container's cgroup in every hierarchy, or what ``below`` says. OciError for a controller that it lacks."""
    directories: list[str] = list(container.record.oci.get("cgroups") or ())
    places = dict.fromkeys(directories, below.get("", ""))
    layout = Layout.read() if any(below) else None
    for controller, path in below.items():
        if controller and layout is not None:
            hierarchy = layout.find(controller)
            found = [each for each in directories if hierarchy and each.startswith(f"{hierarchy.mountpoint}/")]
            if not found:
                raise OciError(f"--cgroup: unknown controller {controller}: the container has no cgroup of it")
            places[found[0]] = path
    return [f"{directory}/{path}" if path else directory for directory, path in places.items()]


def _version(directory: str) -> int:
    """Of a cgroup: v2 alone has cgroup.type, but in its root, where no container is."""
    return 2 if os.path.exists(f"{directory}/cgroup.type") else 1


def _unified_cgroup_of(pid: int) -> str:
    hierarchy = Layout.read().find("cgroup")
    with open(f"/proc/{pid}/cgroup", "rb") as f:
        own = next((entry.path for entry in parse_memberships(f.read()) if not entry.controllers), None)
    if hierarchy is None or own is None:
        raise OciError("cannot find the cgroup of the container's init")
    return f"{hierarchy.mountpoint}{own}"
