"""The making of an engine's container, told in order, for ``create`` and ``run``.

    load → refuse → claim the id → clone → limits: cgroups → limits: process → hooks → hand the command over → created

A v2 cgroup is made before the clone, for the child may begin there, and mydocker's own limits are written to it as to
that of a container that runs. All of them are made and written before where systemd makes the cgroups, where a plugin
of others counts on an empty one, and where the child's set-up would meet a limit of that cgroup.

What exists by then is owned by `Creation`, which removes it whatever happens, unless it has come to its end. A kill in
between leaves a record with all that is to be removed, for ``delete --force``; the container's first process dies with
this one.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import select
import time

from mydocker import code_cache, handoff, plain_json, state
from mydocker.child import Child
from mydocker.errors import HandoffError, MydockerError, OciError, UnsupportedLimit
from mydocker.handoff import Failure, Listener, Stuck, Waiting
from mydocker.limits import Limits
from mydocker.linux import process, rights, signals
from mydocker.oci import (
    brief,
    console,
    container,
    descriptors,
    hooks,
    host_mounts,
    init,
    mounts,
    namespaces,
    sysctl,
    watching,
)
from mydocker.oci import config as configs
from mydocker.oci import process as processes
from mydocker.oci.container import Container
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.cgroups.layout import Layout
    from mydocker.oci import intel_rdt
    from mydocker.oci.main import Call
    from mydocker.oci.process import ProcessPlan
    from mydocker.plugins import Registry
    from mydocker.seccomp import Filter

#: Of ``create`` and ``run``.
OPTIONS = (
    Option(names=("--bundle", "-b"), metavar="DIR", help="the bundle (default: the working directory)"),
    Option(names=("--config", "-f"), metavar="FILE", help="the config, if it is not the bundle's config.json"),
    Option(names=("--console-socket",), metavar="SOCKET", help="where the master of the command's terminal is sent"),
    Option(names=("--pidfd-socket",), metavar="SOCKET", help="where a pidfd of the container's first process is sent"),
    Option(names=("--pid-file",), metavar="FILE", help="where the PID of the container's first process is written"),
    Option(names=("--no-pivot",), kind="flag", help="do not use pivot_root(2), which a ramdisk refuses"),
    Option(names=("--no-new-keyring",), kind="flag", help="let the container have the caller's session keyring"),
    Option(names=("--preserve-fds",), metavar="N", help="descriptors from 3 on that the command inherits"),
)

_INSIDE = ("createContainer", "startContainer")


class Creation:
    """One container, from its config to the state ``created``."""

    def __init__(self, call: Call, *, relayed: bool = False) -> None:
        """``relayed``: this process stays, holds the terminal and waits for the end (``run``)."""
        self._call = call
        self._relayed = relayed
        self._bundle = os.path.abspath(str(call.options.get("bundle", ".")))
        self.config: dict[str, Any] = {}
        #: the descriptor of the terminal's master, where it is relayed, or -1
        self.terminal = -1
        self.child: Child
        self.container: Container
        self._claim: state.Claim
        self._limits: Limits
        self._registry: Registry
        self._inherited: frozenset[int]
        #: of the config as it came, until the child has its copy
        self._mounts: mounts.MountPlan | None = None
        self._hooks_began = False
        self._pid_file = ""
        self._descriptors: list[int] = []

    def run(self) -> None:
        """Make it. OciError, or another `MydockerError`, if it cannot be; then nothing is left of it."""
        container.check_id(self._call.id)
        signals.default(signals.SIGCHLD)  # a parent that ignores it would make the kernel forget the child's end
        self.config = configs.load(self._bundle, str(self._call.options.get("config", "config.json")))
        self._check_console()
        preserved = self._inherited = self._preserved()
        try:
            self._namespaces = namespaces.prepare(self.config)
            self._descriptors += self._namespaces.joined.values()
            layout = self._validate()
            self._claim_id()
            try:
                self._make(layout, preserved)
            except BaseException:
                self._undo()
                raise
        finally:
            self._close_mounts()
            for fd in self._descriptors:
                os.close(fd)
            self._descriptors.clear()

    def _process(self) -> dict[str, Any]:
        found: dict[str, Any] = self.config.get("process") or {}
        return found

    def _check_console(self) -> None:
        terminal = bool(self._process().get("terminal"))
        console.check(terminal=terminal, detached=not self._relayed, socket=self._call.options.get("console_socket"))

    def _preserved(self) -> frozenset[int]:
        """The descriptors that the command inherits: those asked for, and those that systemd has passed to us.

        Of the latter the command learns as we have (sd_listen_fds(3)).
        """
        listen = os.environ.get("LISTEN_FDS", "")
        listening = int(listen) if listen.isascii() and listen.isdecimal() and len(listen) < 6 else 0
        asked = descriptors.count(self._call.options.get("preserve_fds"))
        if listening and self._process():
            self.config["process"].setdefault("env", [])
            self.config["process"]["env"] += [f"LISTEN_FDS={listening}", "LISTEN_PID=1"]
        return descriptors.passed(asked + listening)

    # Everything that can be known to be wrong before anything exists

    def _validate(self) -> Layout:
        from mydocker.cgroups.layout import Layout

        call = self._call
        layout = Layout.read()
        self._limits = self._prepare_limits(layout)
        code_cache.release()  # what comes now forks
        self._mounts = self._plan_mounts()
        self._net_devices = (self.config.get("linux") or {}).get("netDevices") or {}
        if self._net_devices:
            from mydocker.oci import net_devices

            net_devices.check(self._net_devices)
        self._check_cache_shares()
        try:
            self._limits.validate()
        except UnsupportedLimit as e:
            raise OciError(f"invalid configuration: {e}") from e
        self._process_plan: ProcessPlan | None = None
        if self._process():
            joins = "user" in self._namespaces.joined
            self._process_plan = processes.plan(
                self._process(), self.config, warn=call.log.warning, joins_user_namespace=joins
            )
            processes.command(self._process())
        self._seccomp = self._prepare_seccomp()
        return layout

    def _check_cache_shares(self) -> None:
        #: of ``linux.intelRdt``, whose group is `_cache_shares` once it is made
        self._rdt = (self.config.get("linux") or {}).get("intelRdt")
        self._cache_shares: intel_rdt.Group | None = None
        if self._rdt is not None:
            from mydocker.oci import intel_rdt

            with intel_rdt.Tree.of_host() as tree:
                intel_rdt.check(self._rdt, tree)

    def _share_caches(self) -> None:
        if self._rdt is None:
            return
        from mydocker.oci import intel_rdt

        group = intel_rdt.group_of(self._rdt, self._call.id)
        self._note(oci={"resctrl": group.asdict()})
        with intel_rdt.Tree.of_host() as tree:
            intel_rdt.put_into_force(self._rdt, group, tree)
        self._cache_shares = group

    def _plan_mounts(self) -> mounts.MountPlan:
        return mounts.prepare(self.config, self._bundle, pivot=not self._call.options.get("no_pivot"))

    def _close_mounts(self) -> None:
        plan, self._mounts = self._mounts, None
        if plan is not None:
            plan.close()

    def _prepare_limits(self, layout: Layout) -> Limits:
        from mydocker import plugins
        from mydocker.oci import resources

        self._registry = registry = plugins.load()
        wanted = resources.to_config(self.config, registry, layout)
        return Limits(wanted, registry, resources.spec_of(self.config), layout)

    def _prepare_seccomp(self) -> Filter | None:
        wanted = (self.config.get("linux") or {}).get("seccomp")
        if not wanted:
            return None
        from mydocker import seccomp

        return seccomp.prepare(wanted)

    # From here on there is something to be removed

    def _claim_id(self) -> None:
        call = self._call
        try:
            self._claim = state.make(call.id, call.root)
        except FileExistsError:
            raise OciError(f'container with given ID already exists: "{call.id}"') from None
        try:
            state.note_root(call.root, state.default_root())
        except MydockerError as e:  # then `mydocker stats` does not find it
            call.log.debug(str(e))
        self._claim.unfinished = True
        values = {
            "bundle": self._bundle,
            "rootfs": os.path.normpath(os.path.join(self._bundle, self.config["root"]["path"])),
            "owner": os.geteuid(),
            "annotations": self.config.get("annotations") or {},
            "traceless": self._limits.traceless(),
        }
        self.container = Container(
            self._claim.path,
            state.Record(
                id=call.id,
                runtime=os.getpid(),
                created=time.time(),
                command=" ".join(self._process().get("args") or ())[:1000],
                limits=self._limits.config.texts,
                oci=values,
            ),
        )

    def _note(self, *, oci: dict[str, Any] | None = None, **changes: Any) -> None:
        self._claim.write(self._changed(oci=oci, **changes))

    def _changed(self, *, oci: dict[str, Any] | None = None, **changes: Any) -> state.Record:
        record = self.container.record
        self.container.record = record.replace(**changes, oci={**record.oci, **(oci or {})})
        return self.container.record

    def _make(self, layout: Layout, preserved: frozenset[int]) -> None:
        from mydocker.oci import cgroup_path

        place = cgroup_path.place_of(self.config, self._call.id, systemd=self._call.systemd_cgroup, layout=layout)
        cgroup_path.require_empty(place, layout)  # what the record names is removed with all that is in it
        self._claim.announce(self._changed(cgroup=place.path, oci={"unit": place.unit}))
        meanwhile = not (place.unit or self._limits.making_is_others or self._begins_under_limits(layout))
        self._cgroup = (cgroup_path.begun if meanwhile else cgroup_path.make)(place, layout)
        if self._cgroup.path != place.path:
            self._note(cgroup=self._cgroup.path)
        self._amend()
        if not meanwhile:
            self._write_limits()
        self._clone(layout, preserved, self._lock_until_executed())
        if meanwhile:  # the child makes its mounts
            self._cgroup.make_everywhere()
            self._write_limits()
        self._share_caches()
        self._let_in()
        self._keep_config()  # while the child enters its cgroups
        self._set_up()
        self._finish()

    def _write_limits(self) -> None:
        from mydocker.oci import cgroup_path

        cgroup_path.require_wanted(self._cgroup, self.config)
        self._warn_of_what_nobody_finds()
        cgroup_path.give(self._cgroup, self.config)
        self._limits.write()

    def _amend(self) -> None:
        """Let the plugins amend the config."""
        from mydocker.oci import resources

        spec = self._limits.amend(self._cgroup)
        if spec.mounts or spec.extra_env:
            resources.amend(self.config, spec)
            self._close_mounts()
            self._mounts = self._plan_mounts()

    def _let_in(self) -> None:
        """Into the v1 cgroups."""
        entrances = self._cgroup.open_entrances()
        try:
            self.child.let_in(handoff.ENTER, entrances)
        finally:
            self.child.close_messages()
            for fd in entrances:
                os.close(fd)

    def _warn_of_what_nobody_finds(self) -> None:
        """A PID namespace ends with its first process, and a cgroup lists its processes. Without both some may stay."""
        if not self._cgroup.dirs and "pid" not in self._namespaces.new:
            self._call.log.warning(
                "the container has neither a cgroup nor a PID namespace of its own. Such configuration is strongly "
                "discouraged: what its first process has started cannot be found when that has ended"
            )

    def _keep_config(self) -> None:
        """Keep config.json as it is now."""
        fd = os.open(f"{self._claim.path}/config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            data = memoryview(plain_json.dumps(self.config).encode())
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)

    def _lock_until_executed(self) -> int:
        """A descriptor whose lock says that the command is not executed yet; of a file that holds nothing.

        Who may trace the container's first process while it waits can open anew, and for writing, what it has open.
        """
        path = f"{self._claim.path}/waiting"
        waiting = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._descriptors.append(waiting)
        fcntl.flock(waiting, fcntl.LOCK_EX)
        return waiting

    def _listener(self) -> int:
        """The socket on which ``start`` comes; bound by a descriptor, for an address is at most 107 bytes long."""
        directory = os.open(self._claim.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{directory}/start")
            listener.listen(8)
            return listener.detach()
        except BaseException:
            listener.close()
            raise
        finally:
            os.close(directory)

    def _console(self) -> int:
        """Where the child sends its terminal's master, or -1."""
        if self._process_plan is None or not self._process_plan.terminal:
            return -1
        path = self._call.options.get("console_socket")
        if path:
            return console.connect(str(path), "--console-socket")
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._terminal_socket = ours.detach()
        self._descriptors.append(self._terminal_socket)
        return theirs.detach()

    def _clone(self, layout: Layout, preserved: frozenset[int], waiting: int) -> None:
        config, options = self.config, self._call.options
        assert self._mounts is not None
        theirs: list[int] = []  # the child has copies
        self.child = Child(layout, self.container.record.cgroup)
        try:
            commands, self.child.commands = os.pipe()
            theirs.append(commands)
            self.child.reports, reports = os.pipe()
            theirs.append(reports)
            self.child.messages, messages = rights.pair()
            theirs.append(messages)
            runtime = os.pidfd_open(os.getpid())
            theirs.append(runtime)
            listener = self._listener()
            theirs.append(listener)
            terminal = self._console()
            theirs += [terminal] if terminal >= 0 else []
            child_plan = init.Plan(
                id=self._call.id,
                namespaces=self._namespaces,
                mounts=self._mounts,
                hierarchies=layout.hierarchies,
                process=self._process_plan,
                seccomp=self._seccomp,
                sysctls=sysctl.plan(config),
                hooks={kind: (config.get("hooks") or {}).get(kind) or () for kind in _INSIDE},
                stdio=(0, 1, 2),
                commands=commands,
                reports=reports,
                messages=messages,
                runtime=runtime,
                listener=listener,
                waiting=waiting,
                hostname=config.get("hostname") or "",
                domainname=config.get("domainname") or "",
                console=terminal,
                charged=self._copies_up(),
                preserved=preserved,
                keyring=not options.get("no_new_keyring"),
            )
            birthplace = self._cgroup.open_birthplace() if self._begins_in_cgroup(layout) else -1
            theirs += [birthplace] if birthplace >= 0 else []
            namespaces.clone(self._namespaces, lambda: init.run(child_plan), self.child, birthplace)
        except OSError as e:
            about = f": {e.filename}" if e.filename else ""
            reason = (e.strerror or str(e)).lower()
            raise OciError(f"cannot make the container's first process: {reason}{about}") from e
        finally:
            self._close_mounts()
            for fd in theirs:
                os.close(fd)

    def _begins_in_cgroup(self, layout: Layout) -> bool:
        """Whether the child is to begin in its v2 cgroup.

        Not where its memory is limited there: what the set-up takes would be charged to it, and a small limit would
        not let it come to its command. But what is copied into its mounts is to be charged.
        """
        if os.geteuid() != 0:
            return False  # it takes the right to move processes from our own cgroup, which a plain user seldom has
        limited = layout.version("memory") == 2 and any("memory" in field for field in self._limits.config.texts)
        return not limited or self._copies_up()

    def _begins_under_limits(self, layout: Layout) -> bool:
        """Whether limits of the v2 cgroup in which it begins may be seen at its set-up: what devices it may use, which
        memory nodes it has, how much it may copy into its mounts.
        """
        seen = layout.find("devices") is None or layout.version("cpuset") == 2 or self._copies_up()
        return seen and self._begins_in_cgroup(layout)

    def _copies_up(self) -> bool:
        """Whether a tmpfs is filled from the container's root: with as much as its image likes."""
        return any("tmpcopyup" in (entry.get("options") or ()) for entry in self.config.get("mounts") or ())

    # The child is there

    def _set_up(self) -> None:
        child = self.child
        # All else of the record is of no use before that; to replace a file takes some file systems half a millisecond.
        self._note(
            pid=child.pid,
            start_time=process.start_time(child.pid),
            writers=self._cgroup.writers,
            oci={"cgroups": list(self._cgroup.dirs)},
        )
        if "user" in self._namespaces.new:
            self.child.tell(handoff.MAPPED)
        frame = self._frame()
        self._await_ready()
        self._cgroup.entered(child.pid)
        processes.use_all_cpus(child.pid)
        self._limits.apply(child.pid)
        if self._cache_shares is not None:
            from mydocker.oci import intel_rdt

            with intel_rdt.Tree.of_host() as tree:
                intel_rdt.enter(self._cache_shares, child.pid, tree)
        if self._process_plan is not None:
            processes.limit(self._process_plan, child.pid)
        self._cgroup.runs(child.pid)
        if self._cgroup.frozen:
            raise OciError("a limit has frozen the container, and it is not started yet: pause it when it runs")
        if self._net_devices:
            from mydocker.oci import net_devices

            net_devices.move(self._net_devices, child.pid)
        self._run_hooks("prestart", "createRuntime")
        self.child.tell(frame)
        if self._relayed and self._process_plan is not None and self._process_plan.terminal:
            self.terminal = self._receive_terminal()
            if self.terminal >= 0:
                from mydocker.oci import foreground

                foreground.fit(self.terminal)
        self._write_pid_file()
        self._brief = self._prepare_brief()
        self._await_ready()

    # While the child sets itself up

    def _frame(self) -> bytes:
        """The command, and the state for the hooks inside."""
        argv, environment = processes.command(self._process()) if self._process() else ([], [])
        # The PID is that of whoever looks (runtime.md, "State").
        inside = self._state("created", pid=process.pid_inside(self.child.pid))
        return handoff.encode(argv, environment) + handoff.encode([inside], [])

    def _write_pid_file(self) -> None:
        path = self._call.options.get("pid_file")
        if path:
            self._pid_file = os.path.abspath(str(path))
            state.write_pidfile(self._pid_file, self.child.pid, b"")

    def _prepare_brief(self) -> bytes:
        return brief.of(
            self.container,
            self.config,
            self._cgroup,
            waits_only=not (self._limits.watching or (self._seccomp is not None and self._seccomp.listens)),
            own_pids="pid" in self._namespaces.new,
        )

    def _state(self, status: str, **others: object) -> bytes:
        return plain_json.dumps({**container.state_of(self.container.record, status), **others}).encode()

    def _run_hooks(self, *kinds: str) -> None:
        self._hooks_began = True
        for kind in kinds:
            wanted = (self.config.get("hooks") or {}).get(kind)
            if wanted:
                # The container's own environment is made, which is the step after which it is "created" (runtime.md).
                hooks.run(kind, wanted, self._state("created"), cwd=os.fsencode(self._bundle))

    def _await_ready(self) -> None:
        """Until the child has come to its next stop. OciError with its own words if it has failed."""
        while True:
            report = handoff.read_report(self.child.reports)
            if isinstance(report, Listener):
                send_listener(self._seccomp, self.child.pidfd, report.fd, self.container, "creating")
                self.child.tell(b"k")
                continue
            check_report(report)
            return

    def _receive_terminal(self) -> int:
        """The terminal's master, or -1 if the child has failed before it had one."""
        poll = select.poll()
        for fd in (self._terminal_socket, self.child.reports):
            poll.register(fd, select.POLLIN)
        if any(fd == self._terminal_socket for fd, _ in poll.poll()):
            return console.receive(self._terminal_socket)
        return -1

    def _finish(self) -> None:
        """The container is complete: note it, and let its first process go."""
        options = self._call.options
        if options.get("pidfd_socket"):
            connection = console.connect(str(options["pidfd_socket"]), "--pidfd-socket")
            try:
                console.send(connection, console.FIRST_PROCESS, self.child.pidfd)
            finally:
                os.close(connection)
        if self.container.record.oci.get("unit"):
            from mydocker.oci import systemd

            systemd.tell(self.container.record)
        self._note(oci={"complete": True}, writers=self._cgroup.writers)
        child = self.child
        not_ours = [child.commands, child.reports, self.terminal, self._claim.lock, *self._descriptors]
        not_ours += self._inherited
        monitor = watching.begin_if_wanted(self._limits, self._registry, self.container, child.pidfd, not_ours)
        if monitor is not None:
            self._note(oci={"monitor": monitor})
        brief.write(self._claim, self._brief)
        self.child.tell(handoff.NOTED)
        if not isinstance(handoff.read_report(self.child.reports), int):
            raise HandoffError("the container's first process was killed while it was set up")
        if not self._relayed:
            self.child.leave()
        self.child.close_commands()
        self._claim.close()

    def _undo(self) -> None:
        """Remove what there is by now. What goes wrong with it is said, and the error that led here is raised."""
        try:
            if getattr(self, "child", None) is not None:
                self.child.close()
                host_mounts.remove(self.config, self._bundle)
            if self._pid_file:
                state.remove_pidfile(self._pid_file, self.container.record.pid)
            if self._hooks_began:
                self._poststop()
            self._limits.undo()
            if getattr(self, "_cgroup", None) is not None:
                self._cgroup.remove()
            if self._cache_shares is not None:
                from mydocker.oci import intel_rdt

                with intel_rdt.Tree.of_host() as tree:
                    intel_rdt.remove(self._cache_shares, tree)
            self._claim.unfinished = False
        except MydockerError as e:
            self._call.log.warning(f"cannot remove all of the container: {e}")
        finally:
            self._claim.release()
            container.forget_root(self._call)

    def _poststop(self) -> None:
        wanted = (self.config.get("hooks") or {}).get("poststop")
        if wanted:
            hooks.run(
                "poststop", wanted, self._state("stopped"), cwd=os.fsencode(self._bundle), failed=self._call.log.warning
            )


def check_report(report: int | Waiting | Stuck | Failure | Listener | None) -> None:
    """OciError unless the child is where it was to come to."""
    if isinstance(report, Failure):
        raise OciError(report.text)
    if not isinstance(report, int):
        raise OciError("the container's first process was killed while it was set up")


def send_listener(filter_: Filter | None, pidfd: int, fd: int, found: Container, status: str) -> None:
    """Send the seccomp listener ``fd`` of the process behind ``pidfd`` to its agent."""
    from mydocker import seccomp

    assert filter_ is not None
    listener = process.pidfd_getfd(pidfd, fd)
    try:
        seccomp.send_listener(filter_, listener, found.state(status))
    finally:
        os.close(listener)
