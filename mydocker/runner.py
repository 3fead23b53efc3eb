"""The life of one container, told in order. The chapters are those of the design's "journey of one run".

    validate → claim a name → amend → prepare the cgroups → clone → apply the limits → hand the command over
    → wait and watch → report → remove

Each thing that exists for the container is owned by the function that made it, which removes it whatever happens.
"""

from __future__ import annotations

import os
import select
import time

from mydocker import handoff, hooks, logs, seccomp, state
from mydocker.cgroups.layout import Layout
from mydocker.child import Child, not_started, reported_status
from mydocker.child import clone as clone_child
from mydocker.errors import HandoffError, MydockerError, PluginError, SetupError, StateError, UsageError
from mydocker.limits import Limits
from mydocker.linux import capabilities, process, signals
from mydocker.linux.paths import read_in_root
from mydocker.plan import Plan
from mydocker.resources import ResourceConfig
from mydocker.result import Result, Usage
from mydocker.spec import DEFAULT_PATH, Volume
from mydocker.user import User, resolve
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Self, TypeVar

    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.forwarding import Forwarder, Interrupt
    from mydocker.hooks import Phase
    from mydocker.landing import Command
    from mydocker.plugins import Registry
    from mydocker.result import UsageLater
    from mydocker.spawning.client import Order
    from mydocker.spec import Spec, Tmpfs
    from mydocker.streams import Streams
    from mydocker.watch import Verdict, Watch
    from mydocker.watching import Watcher

    T = TypeVar("T")

    #: what a run also listens to
    Control = Forwarder | Interrupt

    #: given a function that reads the usage, what to look at while the container runs
    Observer = Callable[[Callable[[], Usage]], Iterable[Watch]]

#: Seconds after which a command is one that takes long.
_LONG = 0.003

_NAMESPACES = process.CLONE_NEWNS | process.CLONE_NEWUTS | process.CLONE_NEWIPC | process.CLONE_NEWPID


class Means:
    """By what containers are made: all is found out anew, and this process clones them.

    `mydocker.spawner` knows better for a program that makes many.
    """

    #: whether the child's streams and host name are given to it when there is a container, and not in its plan
    late = False

    def layout(self) -> Layout:
        """Where the cgroup controllers are."""
        return Layout.read()

    def filter(self, spec: Spec, capabilities: int) -> seccomp.Filter | None:
        """The filter of system calls for a command with these capabilities."""
        return seccomp.of_run(spec.seccomp, capabilities, privileged=spec.privileged)

    def clone(self, plan: Plan, namespaces: int, child: Child) -> Callable[[], bool]:
        """Begin to clone the child, which does as ``plan`` says. What is returned waits until ``child`` knows its PID,
        or is False if what was to clone it was killed.

        Both raise OSError. If it is not called, or ends by an exception, `abandon` is owed.
        """
        clone_child(plan.replace(runtime=child.watch_runtime()), namespaces, child)
        return _cloned

    def take_spare(self, plan: Plan, namespaces: int, child: Child) -> bool:
        """Whether there was one that does as ``plan`` says, but for its descriptors: it is ``child`` now."""
        return False

    def prepare_order(self, plan: Plan, namespaces: int, entered: tuple[str, ...] | None) -> Order | None:
        """The child is there for which `take_spare` was asked last with this plan: there may be another.
        ``entered``: as `Plan` has it, of this child.

        What is returned is to be sent when the run has ended or takes long, or dropped: to make another child while
        this one ends would hold that up, since the kernel takes its namespaces apart.
        """
        return None

    def set_up_by_interpreter(self, plan: Plan, namespaces: int, number: int) -> None:
        """A child that does as ``plan`` says could not be set up by machine code, for the errno ``number``: the next
        one is to be without.
        """

    def abandon(self, child: Child) -> None:
        """See that there is no child of which nobody knows."""

    def figures(
        self,
        cgroup: ContainerCgroup,
        kind: tuple[str, ...],
        read: Callable[[], Usage],
        later: Callable[[], Usage] | None,
    ) -> Usage | UsageLater:
        """The figures of a container that has ended: ``read`` reads them. ``kind``: what is read of two with the same
        is much alike. ``later``: gives them by what was in the files, when the cgroup is removed.
        """
        return read()

    def supervised(self, work: Callable[[Phase], T]) -> T:
        """Call hooks of plugins (`mydocker.hooks.supervised`)."""
        return hooks.supervised(work)

    def mark(self, stage: str) -> None:
        """A stage begins (`mydocker.tracing`)."""


def run(
    spec: Spec,
    config: ResourceConfig,
    registry: Registry | None,
    streams: Streams,
    forwarder: Control | None = None,
    observer: Observer | None = None,
    means: Means = Means(),  # noqa: B008 (it holds nothing)
    *,
    figures: bool = True,
) -> Result:
    """Run the command of ``spec`` under the limits of ``config`` and wait for its end.

    ``registry`` may be None if ``config`` is empty. ``forwarder``: passes the runtime's signals on; without one,
    as in a library, signals are the caller's. ``observer``: watches the container as plugins do. ``figures``:
    whether the Result's are looked at. Raises a `MydockerError` if the command did not run.
    """
    try:
        logs.info("all command is %s", b" ".join(spec.args).decode(errors="replace"))
        with claimed(spec, config, registry, means, forwarder) as container:
            return container.run(streams, observer, figures=figures)
    except OSError as e:
        raise as_setup_error(e) from e
    finally:
        streams.close()


def as_setup_error(error: OSError) -> SetupError:
    """What failed outside of all steps that name themselves, such as a process that may open no more files."""
    about = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
    return SetupError(f"cannot run the container: {error.strerror}{about}", error.errno or 0)


def run_foreground(
    spec: Spec,
    config: ResourceConfig,
    registry: Registry | None,
    *,
    stdin: bool,
    observer: Observer | None = None,
    means: Means = Means(),  # noqa: B008 (it holds nothing)
    figures: bool = True,
) -> Result:
    """`run` as a command line does it: attached to descriptors 0, 1 and 2, the process's signals passed on.

    ``stdin``: whether descriptor 0 goes to the command; else it reads an empty input. With ``spec.terminal`` the
    descriptor 0 is a terminal, which is relayed.
    """
    from mydocker import streams
    from mydocker.forwarding import Forwarder

    streams.reserve_standard()
    signals.default(signals.SIGCHLD)  # a parent that ignores it would make the kernel forget the exit status
    forwarder = Forwarder(spec.stop_timeout)
    null = -1
    try:
        attached: streams.Streams
        if spec.terminal:
            attached = streams.TerminalStreams(interactive=stdin)
        else:
            if not stdin:
                null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            attached = streams.Streams(0 if stdin else null, 1, 2)
        return run(spec, config, registry, attached, forwarder, observer, means, figures=figures)
    finally:
        forwarder.close()
        if null >= 0:
            os.close(null)


def claimed(
    spec: Spec,
    config: ResourceConfig,
    registry: Registry | None,
    means: Means,
    forwarder: Control | None = None,
) -> Container:
    """Validate all that can be wrong, and claim a name: a container of which nothing else exists yet."""
    means.mark("cgroups")
    layout = means.layout()
    means.mark("validate")
    _validate(spec)
    limits = Limits(config, registry, spec, layout, means.supervised)
    limits.validate()
    user = _look_up_user(spec)
    if os.geteuid() != 0:
        from mydocker.rootless import ids

        user = ids.map_user(user)
    allowed = capabilities.permitted() if user.maps is None else capabilities.ALL
    if not spec.privileged:
        allowed &= capabilities.mask(spec.capabilities)
    means.mark("filter")
    powers = _Powers(capabilities=allowed, filter=means.filter(spec, allowed))
    means.mark("claim")
    root = state.default_root()
    state.recover(root)
    claim = state.claim(spec.name, root, name_only=means.late)
    try:
        record = state.Record(
            id=claim.id,
            runtime=os.getpid(),
            cgroup=f"{spec.cgroup_parent or 'mydocker'}/{claim.id}",
            pidfile=os.path.abspath(spec.pidfile) if spec.pidfile else "",
            created=time.time(),
            command=os.fsdecode(b" ".join(spec.args)[:1000]),
            limits=limits.config.texts,
        )
        return Container(spec, limits, claim, record, layout, user, powers, means, forwarder)
    except BaseException:
        claim.release()
        raise


def _validate(spec: Spec) -> None:
    """Everything that can be known to be wrong before anything exists, but for the limits."""
    if not spec.args:
        raise UsageError("there is no command to run")
    if any(b"\0" in string for string in (*spec.args, *(spec.env or ()), *spec.extra_env)):
        raise UsageError("an argument or a variable holds a NUL byte, which the kernel cannot pass to a command")
    if spec.network not in ("none", "host"):
        raise UsageError(f'"{spec.network}" is not a network that mydocker can give: use none or host')
    if spec.rootfs is not None and not os.path.isdir(spec.rootfs):
        problem = "is not a directory" if os.path.exists(spec.rootfs) else "does not exist"
        raise UsageError(f"--rootfs: {spec.rootfs} {problem}: give the directory that is to be the container's /")
    _validate_mounts(spec, {})
    if spec.apparmor_profile or spec.selinux_label:
        from mydocker import labels

        labels.check(spec.apparmor_profile, spec.selinux_label)


def _validate_mounts(spec: Spec, mounted_by: Mapping[str, str]) -> None:
    """``mounted_by``: place in the container to the plugin that mounts there. The others are the user's."""
    for entry in spec.mounts:
        plugin = mounted_by.get(entry.destination, "")
        refusal: type[MydockerError] = PluginError if plugin else UsageError
        by_plugin = f"{plugin} adds a mount to the container: " if plugin else ""
        if not entry.destination.startswith("/"):
            reason = "is not a place in the container: write a path that begins with /"
            raise refusal(f'{by_plugin}"{entry.destination}" {reason}')
        if not os.path.normpath(entry.destination).strip("/"):
            reason = "is the whole root, which the mount would hide: write a path below /, as in /data"
            raise refusal(f'{by_plugin}"{entry.destination}" {reason}')
        if isinstance(entry, Volume) and not os.path.exists(entry.source):
            raise refusal(f"{by_plugin or '--volume: '}{entry.source} does not exist on this host")
        in_own_dev = spec.own_root and os.path.normpath(entry.destination).startswith("/dev/")
        if spec.rootfs is None and not spec.overlay and not in_own_dev and not os.path.exists(entry.destination):
            raise refusal(
                f"{by_plugin}{entry.destination} does not exist, and mydocker makes nothing in the host's own root: "
                "make it, or add --overlay"
            )


def _look_up_user(spec: Spec) -> User:
    if not spec.user and spec.rootfs is None:
        return User()
    try:
        root = os.open(spec.rootfs or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise UsageError(f"--rootfs: cannot open {spec.rootfs}: {e.strerror}") from e
    try:
        return resolve(spec.user, read_in_root(root, b"etc/passwd"), read_in_root(root, b"etc/group"))
    except OSError as e:
        raise SetupError(f"cannot read the container's /etc/passwd: {e.strerror}", e.errno or 0) from e
    finally:
        os.close(root)


def _environment(spec: Spec, user: User, hostname: str | None) -> tuple[bytes, ...]:
    """The command's environment: the host's with the host's root, Docker's small one with an own."""
    variables: dict[bytes, bytes] = {}
    if spec.env is not None:
        base = spec.env
    elif spec.rootfs is None:
        base = tuple(key + b"=" + value for key, value in os.environb.items())
        if spec.user:
            base += (b"HOME=" + user.home,)
    else:
        base = (b"PATH=" + DEFAULT_PATH, b"HOME=" + user.home)
        if hostname is not None:
            base += (b"HOSTNAME=" + hostname.encode(errors="surrogateescape"),)
        if spec.terminal:
            base += (b"TERM=" + os.environb.get(b"TERM", b"xterm"),)
    for entry in (*base, *spec.extra_env):
        key, _, value = entry.partition(b"=")
        variables[key] = value
    return tuple(key + b"=" + value for key, value in variables.items())


class _Powers(Value):
    """What the command may ask of the kernel: a mask of capabilities, and a filter of system calls or None."""

    capabilities: int
    filter: seccomp.Filter | None


class _Ending:
    """Why the runtime ended the container, if it did, and what the watches had to say."""

    def __init__(self) -> None:
        self.timed_out = False
        self.before_command = False
        self.stopped = ""
        self.notes: list[str] = []


class Container:
    """One container, from its claimed name on: a context, at whose end nothing of it is left."""

    def __init__(
        self,
        spec: Spec,
        limits: Limits,
        claim: state.Claim,
        record: state.Record,
        layout: Layout,
        user: User,
        powers: _Powers,
        means: Means,
        forwarder: Control | None,
    ) -> None:
        self._spec = spec
        self._limits = limits
        self._claim = claim
        self._record = record
        self._layout = layout
        self._user = user
        self._powers = powers
        self._means = means
        self._forwarder = forwarder
        self._hostname = spec.hostname or (claim.id[:64] if spec.rootfs is not None else None)
        self._child = Child(layout, record.cgroup)
        self._terminal = -1
        #: whether a child was asked for that may be there without our knowing
        self._asked = False
        self._limits_written = False
        #: where and whose it was when it was made to stand by
        self._place: tuple[str, int] | None = None
        #: the environment of a command for which none is given, if that is known beforehand
        self._usual_env: tuple[bytes, ...] = ()
        #: whether no plugin looks at the container while it runs, if that is known beforehand
        self._unwatched = False
        #: whether the child waits for `handoff.PLACED`
        self._awaits_place = False
        self._ending = _Ending()
        #: what plugins have added to the environment
        self._added_env: tuple[bytes, ...] = ()
        #: its child's plan without descriptors, and namespaces
        self._kind: tuple[Plan, int] | None = None
        #: for a child of the next container
        self._order: Order | None = None
        #: what is done if the command takes long
        self._meanwhile: Callable[[], None] = done
        #: the command of a child that takes it by machine code, and what lays it out
        self._command: Command | None = None
        self._lay_out: type[Command] | None = None
        self._removed = False
        #: whether there is something on disk of the record, and whether that is all of it
        self._announced = self._kept = False
        #: whether somebody else has changed the record of a child that was replaced
        self._meddled = False
        #: whether somebody looks at the figures of the Result
        self._figures = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: object = None, *_: object) -> None:
        order, self._order = self._order, None
        try:
            try:
                self._remove()
            finally:
                self._claim.release(None if order is None else order.close_there)
            if order is not None and failure is None:
                order.send()
        finally:
            if order is not None:
                order.drop()

    @property
    def child(self) -> Child:
        """Its first process."""
        return self._child

    def run(self, streams: Streams, observer: Observer | None = None, *, figures: bool = True) -> Result:
        """Make the container, run the command in it, remove it. ``figures``: whether the Result's are looked at."""
        self._figures = figures
        try:
            late = self._make(streams.for_child(), moved=observer is not None)
            result = self._execute(self._frame(), streams, observer, late=late)
        finally:
            notes = self._remove()
        return result.replace(notes=(*result.notes, *notes)) if notes else result

    def stand_by(self) -> None:
        """Make the container up to the point at which it waits for a command, whatever that will be."""
        self._place = _place(self._spec)
        try:
            self._make(None)
            self._keep_record()
        except BaseException:
            self._drop_order()
            raise
        if self._spec.rootfs is not None:
            self._usual_env = _environment(self._spec.replace(env=None), self._user, self._hostname)
        self._unwatched = not self._limits.watching
        if self._order is not None:
            self._order.send()
        if self._awaits_place:
            self._child.tell(handoff.PLACED)
            self._awaits_place = False

    @property
    def stands_by(self) -> bool:
        """Whether it waits for a command, which would begin where and as whom one does that is made now."""
        return self._place == _place(self._spec) and self._child.waits

    def run_now(
        self, spec: Spec, streams: Streams, forwarder: Control | None, meanwhile: Callable[[], None], means: Means
    ) -> Result:
        """Run the command of ``spec`` in the container that stands by, and remove it.

        Of ``spec`` its arguments, environment and timeout count; in all else it is what the container was made for.
        ``meanwhile`` is called if the command takes long.
        """
        self._forwarder = forwarder
        self._means = means
        try:
            self._child.send_stdio(streams.for_child())  # first of all: it wakes meanwhile
            env = (*spec.extra_env, *self._added_env)
            self._spec = self._spec.replace(args=spec.args, env=spec.env, extra_env=env, timeout=spec.timeout)
            self._meanwhile = meanwhile
            result = self._execute(self._frame(), streams, None, late=True)
        finally:
            notes = self._remove()
        return result.replace(notes=(*result.notes, *notes)) if notes else result

    def _frame(self) -> bytes:
        spec = self._spec
        argv, env = spec.args, self._usual_env
        if spec.env is not None or not env:
            env = _environment(spec, self._user, self._hostname)
        try:
            if self._lay_out is None:
                return handoff.encode(argv, env)
            self._command = self._lay_out(argv, env, self._child.landing)
            return self._command.frame
        except ValueError as e:
            raise UsageError(str(e)) from None

    def _make(self, stdio: tuple[int, int, int] | None, *, moved: bool = False) -> bool:
        """All up to the child that waits for a command, under its limits; whether its streams went to it late.

        While it makes its mounts the limits are written: it enters the cgroups last of all. ``moved``: it may be moved
        to others after that.
        """
        mark = self._means.mark
        mark("amend")
        self._amend()
        for means in (self._means, self._means, self._means, Means()):  # the last clones it by this process itself
            mark("clone")
            now = None if means.late else stdio
            if self._begin(means, now, moved=moved):
                self._note_pid()
                if stdio is not None and now is None:
                    self._child.send_stdio(stdio)
                self._prepare_order()  # meanwhile the child enters its cgroups
                if self._await_ready(self._child):
                    break
                self._drop_order()
            self._meddled = self._meddled or self._claim.changed()  # its record is written anew
            self._child.close()
            self._child = Child(self._layout, self._record.cgroup)
        self._awaits_place = self._awaits_place or self._terminal >= 0
        mark("apply")
        if self._limits.may_make_more:  # what others do there may take its time
            self._keep_record()
        self._apply()
        os.set_blocking(self._child.commands, False)
        return now is None

    def _begin(self, means: Means, stdio: tuple[int, int, int] | None, *, moved: bool) -> bool:
        """Clone the child, and write the limits meanwhile; False if it is not there, and another is to be made."""
        finish = self._clone(means, stdio)
        try:
            self._means.mark("prepare")
            self._announce()
            fits = self._write_limits(moved=moved, late=stdio is None)
            if self._claim.is_name_only and not (self._limits.cgroup and self._limits.cgroup.dirs):
                self._announce_child()  # such as that a limit is of the process, or was dropped
        finally:
            self._means.mark("set up")
            there = finish()
        return there and fits

    def _amend(self) -> None:
        """Let the plugins amend the container."""
        if self._limits.amending:
            own = len(self._spec.extra_env)
            makes = self._limits.amending_makes
            if makes:
                self._announce()
            self._spec = self._limits.amend(self._own_cgroup() if makes else None)
            self._added_env = self._spec.extra_env[own:]
            _validate_mounts(self._spec, self._limits.mounted_by)

    def _own_cgroup(self) -> ContainerCgroup:
        """The container's, of which there may be something from now on."""
        from mydocker.cgroups.group import ContainerCgroup

        self._claim.unfinished = True
        cgroup = self._limits.cgroup = ContainerCgroup(self._layout, self._record.cgroup)
        return cgroup

    def _write_limits(self, *, moved: bool, late: bool) -> bool:
        """Make the cgroups, write the limits, and let the child in. False if it has shown one as it was before."""
        cgroup = self._limits.cgroup
        if cgroup is None and self._limits.plugins:
            cgroup = self._own_cgroup()
        if cgroup is None:
            if late:
                self._child.let_in(handoff.ENTER, [], self._hostname, late=True)
            return True
        if not self._limits_written:
            self._limits.write()
            self._limits_written = True
        entered = self._child.entered
        if entered is not None and (moved or self._limits.may_make_more or not set(cgroup.mountpoints) <= set(entered)):
            return False
        entrances = cgroup.open_entrances()
        try:
            # To give limits to what has other ids takes a capability (prlimit(2)): until it has them the child keeps
            # those that it was made with.
            other_ids = (self._user.uid, self._user.gid) != (0, 0)
            later = not cgroup.dirs or self._limits.may_make_more
            self._awaits_place = moved or other_ids or later or len(entrances) < len(cgroup.dirs)
            word = handoff.ENTER_SOME if self._awaits_place else handoff.ENTER
            self._child.let_in(word, entrances, self._hostname, late=late)
        finally:
            for fd in entrances:
                os.close(fd)
        return True

    def _remove(self) -> tuple[str, ...]:
        """End the child, undo what the limits made, remove the cgroups. Once; what cannot be undone, in words."""
        if self._removed:
            return ()
        self._removed = True
        self._means.mark("remove")
        try:
            if self._asked:
                self._means.abandon(self._child)
            pid = self._child.pid
            self._child.close()
            if self._record.pidfile:
                state.remove_pidfile(self._record.pidfile, pid)
        finally:
            self._take_over_changes()
            notes = self._undo() if self._limits.cgroup else self._remove_made_meanwhile()
        return notes

    def _take_over_changes(self) -> None:
        """Of an update, or of a pause, which may have made more of the cgroup."""
        if self._meddled or self._claim.changed():
            self._claim.unfinished = True
            try:
                self._limits.reload(self._claim.limits(), self._record.cgroup)
            except OSError:  # the record cannot be read
                self._limits.adopt()

    def _undo(self) -> tuple[str, ...]:
        """What cannot be undone does not change how the run ended: a warning and a note. The next call tries again."""
        try:
            self._limits.undo()
        except MydockerError as e:
            logs.warning("%s", e)
            return (str(e),)
        self._claim.unfinished = False
        return ()

    def _remove_made_meanwhile(self) -> tuple[str, ...]:
        """An update, or a pause, gives a cgroup to a container that was started without."""
        layout = self._layout
        if any(os.access(f"{hierarchy.base}/{self._record.cgroup}", os.W_OK) for hierarchy in layout.hierarchies):
            from mydocker.cgroups.removal import remove_stale

            self._claim.unfinished = True
            remove_stale(layout, self._record.cgroup)
            self._claim.unfinished = False
        return ()

    def _apply(self) -> None:
        """Put all limits in force for the child."""
        cgroup = self._limits.cgroup
        if cgroup is not None:
            cgroup.entered(self._child.pid)
            self._limits.apply(self._child.pid)
            cgroup.runs(self._child.pid)

    def _execute(
        self,
        frame: bytes,
        streams: Streams,
        observer: Observer | None,
        *,
        late: bool,
    ) -> Result:
        """Hand the command over, wait for its end, and tell how it was. ``late``: the child had no streams before."""
        self._means.mark("hand over")
        child, terminal = self._child, self._terminal
        words = handoff.PLACED + frame if self._awaits_place else frame
        poll = select.poll()
        if not late:
            streams.started(process.pidfd_getfd(child.pidfd, terminal) if terminal >= 0 else -1, poll)
        watcher = None if self._unwatched else self._watcher(child, observer)
        started = time.monotonic()
        try:
            self._hand_over(child, words, started)
            if late:
                streams.started(-1, poll)
            self._means.mark("wait")
            if watcher is not None:
                watcher.start()
            self._wait(child, poll, started, watcher, streams)
        finally:
            if watcher is not None:
                watcher.stop()
        self._means.mark("usage")
        status, usage = child.reap()
        wall = time.monotonic() - started
        streams.finish()
        return self._result(child, status, usage, wall)

    def _prepare_order(self) -> None:
        """Of a child for the next container like this. Whoever gets it takes apart what this one has mounted."""
        assert self._kind is not None
        entered = self._limits.cgroup.mountpoints if self._limits.cgroup is not None else ()
        self._order = self._means.prepare_order(*self._kind, None if self._limits.may_make_more else entered)
        if self._order is not None:
            self._meanwhile = self._order.send
            if not self._powers.capabilities & capabilities.SYS_ADMIN:  # it shows no more than the next one does
                self._order.hold_mounts(self._child.pid)

    def _drop_order(self) -> None:
        order, self._order, self._meanwhile = self._order, None, done
        if order is not None:
            order.drop()

    def _take_long(self) -> None:
        """What is to be done if the command takes long; what was done is not done again."""
        work, self._meanwhile = self._meanwhile, done
        work()
        self._try_to_keep_record()
        if self._limits.cgroup is not None:
            # By the end there may be another version of this package, or none.
            from mydocker.cgroups import contents  # noqa: F401

    def _clone(self, means: Means, stdio: tuple[int, int, int] | None) -> Callable[[], bool]:
        """Begin the child; what is returned waits until it is there (`Means.clone`), and is owed.

        ``stdio``: what become 0, 1 and 2 of the command; None if that is not known yet.
        """
        spec, child, user = self._spec, self._child, self._user
        hostname = self._hostname if stdio is not None else None
        cwd, mounts = _working_directory(spec), tuple(map(_from_here, spec.mounts))
        plan = Plan(
            spec=spec.replace(hostname=hostname, mounts=mounts, cwd=None if spec.cwd is None else cwd),
            staging=os.path.abspath(self._claim.path),
            hierarchies=self._layout.hierarchies,
            user=user,
            capabilities=self._powers.capabilities,
            filter=self._powers.filter,
            cwd=cwd,
            upper=self._limits.upper,
            stdio=stdio,
            cgroups=self._limits.cgroup is not None or bool(self._limits.plugins),
            ahead=spec.seccomp in ("default", "unconfined"),
        )
        namespaces = _NAMESPACES | (process.CLONE_NEWNET if spec.network == "none" else 0)
        self._kind = (plan, namespaces)
        if means.take_spare(plan, namespaces, child):
            return _cloned
        self._claim.make()
        if means.late:  # its PID takes a moment to be known
            self._announce()
        theirs: dict[str, int] = {}  # the child has copies
        try:
            theirs = child.connect(status=spec.init)
            plan = plan.replace(**theirs)
            self._asked = True
            if user.maps is None:
                finish = means.clone(plan, namespaces, child)
            else:
                from mydocker.rootless import clone

                def clone_it(flags: int) -> bool:
                    return means.clone(plan, namespaces | flags, child)()

                there = clone.into_user_namespace(user.maps, child, clone_it)
                finish = lambda: there  # noqa: E731
        except BaseException as e:
            _close_all(theirs)
            if isinstance(e, OSError):
                raise _not_cloned(e) from e
            raise

        def finish_it() -> bool:
            try:
                there = finish()
                self._asked = False
                return there
            except OSError as e:
                raise _not_cloned(e) from e
            finally:
                _close_all(theirs)

        return finish_it

    def _await_ready(self, child: Child) -> bool:
        """Until the child has made its mounts and waits. `_terminal` is then the descriptor, there, of its terminal's
        master, or -1. False if another child is to, which may be able to.
        """
        poll = select.poll()
        poll.register(child.reports, select.POLLIN)
        if self._forwarder is not None:
            poll.register(self._forwarder.fd, select.POLLIN)
        while True:
            ready = self._poll(poll, self._try_to_keep_record)
            if child.reports in ready:
                break
            assert self._forwarder is not None
            number = self._forwarder.pending_stop()
            if number is not None:
                raise _stopped(number)
        report = handoff.read_report(child.reports)
        if isinstance(report, handoff.Failure):
            raise SetupError(report.text + _about_plain_user(report), report.errno)
        if isinstance(report, handoff.Waiting):
            from mydocker.landing import Command

            child.landing, self._lay_out = report.landing, Command
            return True
        if isinstance(report, handoff.Stuck):
            from mydocker import waiting

            assert self._kind is not None
            number = waiting.failed_in_groundwork(self._plan_of(child), report.outcome)
            if number:
                self._means.set_up_by_interpreter(*self._kind, number)
                return False
            raise not_started(self._why_stuck(report, child, time.monotonic()) or _NOTHING_CAME, self._spec)
        if not isinstance(report, int):
            raise HandoffError("the container's first process was killed while it was set up")
        self._terminal = report
        return True

    def _announce(self) -> None:
        """Say what there will be to remove; if the child is there, also which process that is.

        Not if it would be found by the claim's name alone: most commands have ended before anybody could look.
        """
        if self._announced:
            return
        self._announced = True
        spec = self._spec
        if not (self._claim.is_name_only and self._limits.is_in_cgroups_only) or spec.cgroup_parent or spec.pidfile:
            self._announce_child()

    def _announce_child(self) -> None:
        if self._child.pid:
            self._name_process()
        self._claim.announce(self._record)

    def _name_process(self) -> None:
        pid = self._child.pid
        if self._record.pid != pid:
            self._record = self._record.replace(pid=pid, start_time=process.start_time(pid))

    def _note_pid(self) -> None:
        """It is known that the child is there, and by which PID; what others need besides is for `_keep_record`."""
        if self._record.pid != self._child.pid and not self._claim.is_name_only:
            self._kept = False
            self._keep_record()
        if self._record.pidfile:
            state.write_pidfile(self._record.pidfile, self._child.pid)

    def _keep_record(self) -> None:
        """Put all of the record on disk, if it is not."""
        if not self._kept:
            self._kept = True
            self._name_process()
            writers = self._limits.cgroup.writers if self._limits.cgroup is not None else {}
            self._claim.write(self._record.replace(writers=writers))

    def _try_to_keep_record(self) -> None:
        """The command need not end for it: what is to be removed is known."""
        try:
            self._keep_record()
        except (OSError, StateError) as e:
            logs.warning("the container cannot be paused or updated, since its state cannot be kept: %s", e)

    def _poll(self, poll: select.poll, work: Callable[[], None], remaining: float | None = None) -> dict[int, int]:
        """What is ready within ``remaining`` milliseconds. If that takes long, ``work`` is done meanwhile."""
        first = _LONG * 1000 if remaining is None else min(remaining, _LONG * 1000)
        ready = poll.poll(first)
        if ready or first == remaining:
            return dict(ready)
        work()
        return dict(poll.poll(None if remaining is None else remaining - first))

    def _hand_over(self, child: Child, words: bytes, started: float) -> None:
        """Send the command and wait until it runs. Once the limits are in force, and not before.

        The child takes its time if it is frozen, so signals and the timeout are watched.
        """
        if not child.tell(words, lambda: self._await(child.commands, select.POLLOUT, child, started)):
            self._ending.before_command = True
        child.close_commands()
        self._await(child.reports, select.POLLIN, child, started)
        report: object = handoff.read_report(child.reports)
        if isinstance(report, handoff.Stuck):
            report = self._why_stuck(report, child, started)
        if isinstance(report, handoff.Failure):
            raise not_started(report, self._spec)
        if logs.enabled("info"):
            _log_path(child.pid)

    def _plan_of(self, child: Child) -> Plan:
        """By which the child's calls were worked out, but for descriptors."""
        assert self._kind is not None
        return self._kind[0].replace(entered=child.entered)

    def _why_stuck(self, report: handoff.Stuck, child: Child, started: float) -> handoff.Failure | None:
        """None if the child goes on after all, or is killed meanwhile."""
        from mydocker import waiting
        from mydocker.linux.batch import outcome_of

        failure = waiting.failed_step(self._plan_of(child), report.outcome)
        if failure is not None or self._command is None:
            return failure

        def ask(question: bytes) -> int | None:
            if not child.ask(question):
                return None
            self._await(child.reports, select.POLLIN, child, started)
            answer = handoff.read_report(child.reports)
            return outcome_of(answer.outcome)[0] if isinstance(answer, handoff.Stuck) else None

        return self._command.failure(ask)

    def _await(self, fd: int, event: int, child: Child, started: float) -> None:
        """Until the child does something with its end of the pipe ``fd``, which it also does when it is killed."""
        poll = select.poll()
        poll.register(fd, event)
        if self._forwarder is not None:
            poll.register(self._forwarder.fd, select.POLLIN)
        while True:
            remaining = None
            if self._spec.timeout is not None and not self._ending.timed_out:
                remaining = max(0.0, started + self._spec.timeout - time.monotonic()) * 1000 + 1
            ready = self._poll(poll, self._take_long, remaining)
            if fd in ready:
                return
            if not ready:
                self._ending.timed_out = True
                child.kill()
                continue
            assert self._forwarder is not None
            if not child.frozen:
                # The command may run already, while the reaper of --init still holds the pipe: then the signal is its.
                time.sleep(0.002)
                continue
            number = self._forwarder.pending_stop()
            if number is not None:
                raise _stopped(number)

    def _watcher(self, child: Child, observer: Observer | None) -> Watcher | None:
        """What looks after the running container for the plugins and the observer, if any does."""
        watches = self._limits.watches(child.pid)
        if observer is not None:
            self._limits.count_pressure()
            watches += [("the observer", watch) for watch in observer(self._limits.usage)]
        if not watches:
            return None
        from mydocker.hooks import timeout
        from mydocker.watching import Watcher

        return Watcher(watches, timeout())

    def _wait(
        self,
        child: Child,
        poll: select.poll,
        started: float,
        watcher: Watcher | None,
        streams: Streams,
    ) -> None:
        """Serve streams, signals and watches until the container has ended; `_ending` says what did it."""
        forwarder = self._forwarder
        settled: float | None = time.monotonic() + _LONG
        poll.register(child.pidfd, select.POLLIN)
        if forwarder is not None:
            poll.register(forwarder.fd, select.POLLIN)
        if watcher is not None:
            poll.register(watcher.fd, select.POLLIN)
        deadline = None if self._spec.timeout is None else started + self._spec.timeout
        while True:
            now = time.monotonic()
            if settled is not None and now >= settled:
                self._take_long()
                settled = None
            limits = [at for at in (deadline, forwarder.kill_at if forwarder else None) if at is not None]
            remaining = min(limits) - now if limits else None
            if remaining is not None and remaining <= 0:
                self._ending.timed_out = deadline is not None and now >= deadline
                child.kill()
                deadline = None
                if forwarder is not None:
                    forwarder.kill_at = None
                continue
            if watcher is not None:
                overdue = watcher.overdue()
                if overdue is not None:
                    self._act(overdue, child)
                remaining = watcher.patience if remaining is None else min(remaining, watcher.patience)
            if settled is not None:
                remaining = settled - now if remaining is None else min(remaining, settled - now)
            for fd, _ in poll.poll(None if remaining is None else remaining * 1000 + 1):
                if fd == child.pidfd:
                    return
                if forwarder is not None and fd == forwarder.fd:
                    forwarder.forward(child.pid, child.pidfd, child.kill, streams, reaper=self._spec.init)
                elif watcher is not None and fd == watcher.fd:
                    for owner, verdict in watcher.take():
                        self._act(verdict, child, owner)
                else:
                    streams.serve(fd, poll)

    def _act(self, verdict: Verdict, child: Child, owner: str = "") -> None:
        """Do what ``owner``, a plugin that watches the container, has decided."""
        if self._ending.stopped:
            return
        if verdict.action == "stop":  # first of all: what it does until then is over its limit
            self._ending.stopped = verdict.reason
            child.kill()
        elif verdict.action != "note":
            self._freeze(verdict, child, owner)
        if verdict.text:
            self._ending.notes.append(verdict.text)
        if verdict.action == "stop" and owner:
            logs.warning("%s", f"{owner} stopped the container ({verdict.reason}): {verdict.text}".removesuffix(": "))
        elif verdict.text:
            logs.warning("%s", verdict.text)

    def _freeze(self, verdict: Verdict, child: Child, owner: str) -> None:
        """Freeze or thaw all processes of the container. One that cannot be frozen is stopped: a limit fails closed."""
        from mydocker.cgroups import freezing

        assert self._limits.cgroup is not None
        try:
            (freezing.freeze if verdict.action == "freeze" else freezing.thaw)(self._limits.cgroup)
        except MydockerError as e:
            child.kill()
            self._ending.stopped = "plugin-error"
            self._ending.notes.append(f"{owner} failed to {verdict.action} the container, which was stopped: {e}")
            logs.warning("%s", self._ending.notes[-1])

    def _usage(self, used: Any, *, wanted: bool, at_once: bool) -> Usage | UsageLater:
        """``at_once``: and not when somebody looks at it."""
        limits = self._limits

        def read() -> Usage:
            return limits.usage_at_end(used.ru_utime, used.ru_stime, wanted=wanted)

        if limits.cgroup is None or not wanted:
            return read()
        kind = (*limits.config, "accounting") if self._spec.accounting else tuple(limits.config)
        later = None if at_once else limits.usage_later(used.ru_utime, used.ru_stime)
        return self._means.figures(limits.cgroup, kind, read, later)

    def _result(self, child: Child, status: int, used: Any, wall: float) -> Result:
        if self._spec.init:
            status = reported_status(child.status, status)
        code = os.waitstatus_to_exitcode(status)
        signal: int | None = None
        if code < 0:
            signal = (self._forwarder.ended_by if self._forwarder else None) or -code
            code = 128 + signal
        self._take_over_changes()
        killed = code == 128 + signals.SIGKILL
        usage = self._usage(used, wanted=self._figures or killed, at_once=killed)
        reason = "exited" if signal is None else "signaled"
        if self._ending.stopped and signal == signals.SIGKILL:
            reason = self._ending.stopped
        elif self._ending.timed_out and signal == signals.SIGKILL:
            reason = "timeout"
        elif killed and isinstance(usage, Usage) and usage.oom_kills:
            reason = "oom"
        if reason == "signaled" and self._ending.before_command:
            raise HandoffError("the container's first process was killed before it took its command: nothing of it ran")
        return Result(
            args=tuple(os.fsdecode(arg) for arg in self._spec.args),
            id=self._claim.id,
            exit_code=code,
            signal=signal,
            reason=reason,
            wall_seconds=wall,
            limits=self._limits.config.asdict(),
            unenforced=self._limits.unenforced,
            notes=tuple(self._ending.notes),
            usage=usage,  # type: ignore[arg-type]  # to who looks at it, it is a Usage
        )


def _about_plain_user(failure: handoff.Failure) -> str:
    if os.geteuid() == 0:
        return ""
    from mydocker.rootless import refusals

    return refusals.set_up_refused(failure.text, failure.errno)


def _close_all(descriptors: dict[str, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _cloned() -> bool:
    """The child is there."""
    return True


def done() -> None:
    """Nothing is left to be done."""


_NOTHING_CAME = handoff.Failure(stage="setup", errno=0, text="the container's first process cannot go on")


def _not_cloned(error: OSError) -> SetupError:
    return SetupError(f"cannot make the container's first process: {error.strerror}", error.errno or 0)


def _from_here(entry: Volume | Tmpfs) -> Volume | Tmpfs:
    """A relative source is taken from this process's working directory; who clones the child may have another."""
    if isinstance(entry, Volume) and not entry.source.startswith("/"):
        return entry.replace(source=os.path.abspath(entry.source))
    return entry


def _place(spec: Spec) -> tuple[str, int]:
    return _working_directory(spec), os.geteuid()


def _working_directory(spec: Spec) -> str:
    if spec.cwd is not None and spec.cwd.startswith("/"):
        return spec.cwd
    if spec.rootfs is not None:
        return "/"
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise UsageError("the working directory does not exist any more: give the command another one") from None
    return here if spec.cwd is None else os.path.join(here, spec.cwd)


def _stopped(number: int) -> MydockerError:
    error = SetupError(f"stopped by signal {number} before the command was started")
    error.exit_code = 128 + number
    return error


def _log_path(pid: int) -> None:
    try:
        logs.info("find path %s", os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        pass  # it has ended already
