"""What a process that `exec` puts into a container does before it is the command, and the helper that brings it there.

It imports nothing, and opens nothing in the container by name but through ``linux/paths.py``.
"""

from __future__ import annotations

import errno
import gc
import os

from mydocker import handoff
from mydocker.errors import HandoffError
from mydocker.linux import executable, mount, paths, process, signals, statfs
from mydocker.oci import console, restriction
from mydocker.oci.process import set_own_oom_score_adj
from mydocker.step import Step
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from mydocker.oci.process import ProcessPlan
    from mydocker.seccomp import Filter


class Ends(Value):
    """The child's descriptors, -1 for those that it lacks.

    ``channel``    the socket to the runtime for descriptors.
    ``entrances``  of v1 ``tasks`` files: writing ``0`` to them puts the child into its cgroup.
    """

    commands: int
    reports: int
    channel: int
    proc: int = -1
    console: int = -1
    entrances: tuple[int, ...] = ()


class Joining:
    """What the helper does before it clones: it goes where the container's init is."""

    def __init__(self, init: int, namespaces: int, root: int, oom_score_adj: int | None) -> None:
        self._init = init
        self._namespaces = namespaces
        self._root = root
        self._oom_score_adj = oom_score_adj

    def run(self) -> None:
        set_own_oom_score_adj(self._oom_score_adj)
        process.prctl(process.PR_SET_DUMPABLE, 0)
        if self._root >= 0:
            os.fchdir(self._root)
            os.chroot(".")
        if self._namespaces:
            process.setns(self._init, self._namespaces)
            process.prctl(process.PR_SET_DUMPABLE, 0)  # new credentials may have put it on again


class Newcomer:
    """The child. It imports nothing, and opens nothing in the container by name but through ``linux/paths.py``."""

    def __init__(self, plan: ProcessPlan, ends: Ends, preserved: frozenset[int], filter_: Filter | None) -> None:
        self._plan = plan
        self._ends = ends
        self._preserved = preserved
        self._filter = filter_

    def run(self) -> NoReturn:
        step = Step()
        try:
            gc.disable()
            self._become(step)
        except HandoffError:
            pass  # the runtime is gone: nobody reads a report
        except BaseException as e:  # whatever it is, the child must not run on as a second runtime
            self._report(restriction.failure(step, e))
        finally:
            os._exit(255)

    def _report(self, failure: handoff.Failure) -> None:
        try:
            handoff.report_failure(self._ends.reports, failure)
        except OSError:
            pass

    def _become(self, step: Step) -> NoReturn:
        plan, ends = self._plan, self._ends
        step.doing = "set up the process"
        kept = {ends.commands, ends.reports, ends.channel, ends.proc, ends.console}
        process.close_all_except({*kept, *ends.entrances, *self._preserved})  # first: a tracer sees what is open
        signals.default_all()
        executable.let_go_where_possible()
        os.setsid()
        if plan.user_namespace:
            step.doing = "become root of the user namespace"
            restriction.become_root()
        step.doing = "leave the session keyring"
        restriction.leave_keyring()
        if plan.terminal:
            step.doing = "open a pseudo-terminal"
            self._take_terminal()
        step.doing = "enter the cgroup"
        for entrance in ends.entrances:
            os.write(entrance, b"0")
            os.close(entrance)
        handoff.report_ready(ends.reports)
        argv, env = handoff.receive(ends.commands)
        variables = restriction.environment(plan, env)
        load = self._load_filter if self._filter is not None else None
        proc = ends.proc
        if plan.labelled and proc < 0:
            step.doing = "open a procfs"
            proc = mount.new_filesystem(b"proc")
        path = restriction.restrict(plan, step, argv[0], variables, filtered=load is not None, proc=proc)
        restriction.seal(plan, step, load)
        restriction.execute(path, argv, variables)

    def _take_terminal(self) -> None:
        """The container's own devpts, of which nothing but the descriptor is used."""
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        devpts = paths.open_in_root(root, b"dev/pts", os.O_PATH | os.O_DIRECTORY)
        if statfs.filesystem_type(devpts) != statfs.DEVPTS:
            raise OSError(errno.ENOENT, "/dev/pts is not a devpts")
        master, _ = console.take(self._plan, devpts)
        for fd in (root, devpts):
            os.close(fd)
        console.send(self._ends.channel if self._ends.console < 0 else self._ends.console, console.MASTER_NAME, master)
        os.close(master)

    def _load_filter(self) -> None:
        assert self._filter is not None
        listener = self._filter.load()
        if listener >= 0:
            # Until the agent has it, what the agent is to decide about waits for ever.
            handoff.report_listener(self._ends.reports, listener)
            if os.read(self._ends.channel, 1) != b"k":
                raise HandoffError("nobody listens to the seccomp filter")
            os.close(listener)
