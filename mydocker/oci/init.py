"""What the first process of an engine's container does, from the clone to the command.

    namespaces → mounts → (hooks of the runtime) → cgroup namespace, sysctls → hooks → root → terminal → restrictions
    → ready → wait for ``start`` → hooks → command

It has a copy of the runtime's memory: everything that it needs is loaded, and it imports nothing. Until ``create`` has
noted the container as complete it dies with the runtime; from then on it waits on its own, with a socket, the lock that
says that it waits, and what the command is to inherit.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import gc
import os
import select

from mydocker import handoff
from mydocker.errors import HandoffError, OciError
from mydocker.handoff import EXECUTING, Failure
from mydocker.linux import executable, network, process, rights, signals
from mydocker.mount_parts import bind_console
from mydocker.oci import console, hooks, mounts, restriction, sysctl
from mydocker.oci.lookup import NotStarted
from mydocker.oci.process import set_own_oom_score_adj
from mydocker.step import Step
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.oci.namespaces import Namespaces
    from mydocker.oci.process import ProcessPlan
    from mydocker.seccomp import Filter

#: What ends the container while it waits. They are blocked: the kernel would drop them, since PID 1 has no handlers.
_DEADLY = (signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGUSR1, signals.SIGUSR2, signals.SIGTERM)


class Plan(Value):
    """What the child is to do, worked out before the clone.

    ``process``     None for a config that has none: it can be created, and not started.
    ``sysctls``     what `sysctl.plan` made of them.
    ``hooks``       kind to the hooks of it that run here.
    ``stdio``       descriptors that become 0, 1 and 2, where the command gets no terminal.
    ``commands``    read end of the pipe from the runtime, until the container is created.
    ``reports``     write end of the pipe to the runtime, until the container is created.
    ``runtime``     pidfd of the runtime, readable when it has died.
    ``listener``    the socket on which ``start`` comes.
    ``waiting``     a descriptor whose lock says that the command is not executed yet.
    ``console``     socket on which the terminal's master is sent, or -1.
    ``messages``    socket on which descriptors of v1 ``tasks`` files come, when there are any: writing ``0`` to them
                    puts the child into its cgroup.
    ``charged``     whether its mounts take memory that is the container's: then it makes them in its cgroup, and
                    else outside of it, where a small limit does not hinder the set-up.
    ``preserved``   the descriptors besides 0, 1 and 2 that the command inherits.
    ``keyring``     whether it gets a session keyring of its own.
    """

    id: str
    namespaces: Namespaces
    mounts: mounts.MountPlan
    hierarchies: tuple[Hierarchy, ...]
    process: ProcessPlan | None
    seccomp: Filter | None
    sysctls: tuple[tuple[str, bytes, bytes], ...]
    hooks: Mapping[str, Sequence[dict[str, Any]]]
    stdio: tuple[int, int, int]
    commands: int
    reports: int
    messages: int
    runtime: int
    listener: int
    waiting: int
    hostname: str = ""
    domainname: str = ""
    console: int = -1
    charged: bool = False
    preserved: frozenset[int] = frozenset()
    keyring: bool = True


def run(plan: Plan) -> NoReturn:
    """Become the command, or report why not and end. Called in the child; never returns."""
    step = Step()
    init = _Init(plan, step)
    try:
        gc.disable()
        init.run()
    except HandoffError:
        pass  # the runtime is gone: nobody reads a report
    except NotStarted as e:
        init.report(e.errno or 0, str(e))
    except OciError as e:
        init.report(0, str(e))
    except OSError as e:
        about = f": {os.fsdecode(e.filename)}" if isinstance(e.filename, (str, bytes)) else ""
        init.report(e.errno or 0, f"cannot {step.doing}: {(e.strerror or str(e)).lower()}{about}")
    except BaseException as e:  # whatever it is, the child must not run on as a second runtime
        init.report(0, f"cannot {step.doing}: {type(e).__name__}: {e}")
    finally:
        os._exit(1)


class _Init:
    """The child, in order."""

    def __init__(self, plan: Plan, step: Step) -> None:
        self._plan = plan
        self._step = step
        #: where reports go, and where answers to them come from: the runtime's pipes, then the connection of ``start``
        self._reports = plan.reports
        self._answers = plan.commands

    def report(self, number: int, text: str) -> None:
        try:
            handoff.report_failure(self._reports, Failure(stage=self._step.doing[:200], errno=number, text=text))
        except OSError:
            pass

    def run(self) -> None:
        plan, step = self._plan, self._step
        step.doing = "set up the process"
        self._die_with_runtime()
        signals.default_all()
        if plan.process is not None:
            set_own_oom_score_adj(plan.process.oom_score_adj)
        process.close_all_except(self._needed())
        self._await_maps()
        self._be_root()
        executable.let_go_where_possible()
        os.setsid()
        os.umask(0)
        self._leave_keyring()
        self._name_host()
        if "network" in plan.namespaces.new:
            step.doing = "bring the loopback device up"
            network.loopback_up()
        if plan.charged:
            self._enter_cgroups()
        root = mounts.assemble(plan.mounts, step, plan.hierarchies)
        if not plan.charged:
            self._enter_cgroups()
        handoff.report_ready(self._reports)
        argv, environment = handoff.receive(plan.commands)
        (state,), _ = handoff.receive(plan.commands)
        if "cgroup" in plan.namespaces.new:
            step.doing = "make a cgroup namespace"
            process.unshare(process.CLONE_NEWCGROUP)
        mounts.fill_cgroups(root)
        step.doing = "open /proc"
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sysctl.write(proc, plan.sysctls, step)
        step.doing = "run the createContainer hooks"
        hooks.run(
            "createContainer",
            plan.hooks.get("createContainer", ()),
            state,
            cwd=root.fd,
            environment=dict(entry.partition(b"=")[::2] for entry in environment),
            fork=os.fork,
        )
        self._take_streams(root)
        if plan.process is not None:
            step.doing = f"make the working directory {plan.process.cwd}"
            restriction.make_cwd(plan.process, root.fd)
        mounts.finish(root, plan.mounts, step)
        path, variables = b"", {}
        if plan.process is not None:
            variables = restriction.environment(plan.process, environment)
            path = restriction.restrict(
                plan.process, step, argv[0], variables, filtered=plan.seccomp is not None, proc=proc
            )
        os.close(proc)
        self._wait_for_start()
        filtered = self._run_start_hooks(state, variables)
        if plan.process is None:
            raise OciError("process property must be non-empty: config.json has no process to start")
        process.close_all_except({self._reports, self._answers, plan.waiting, *plan.preserved})
        load = self._load_seccomp if plan.seccomp is not None and not filtered else None
        restriction.seal(plan.process, step, load)
        step.doing = EXECUTING
        restriction.execute(path, argv, variables)

    def _run_start_hooks(self, state: bytes, variables: Mapping[bytes, bytes]) -> bool:
        """Under the command's seccomp filter, for they are programs of the container; whether it is in force here now.

        Each loads it itself, so that it does not hinder this process. One with a listener is loaded once for all: its
        agent has one descriptor.
        """
        plan, step = self._plan, self._step
        wanted = plan.hooks.get("startContainer", ())
        if not wanted:
            return False
        restrict: Callable[[], None] | None = None
        filtered = False
        if plan.process is not None and plan.seccomp is not None:
            command, load = plan.process, plan.seccomp.load
            if plan.seccomp.listens:
                restriction.filter_calls(command, step, self._load_seccomp)
                filtered = True
            else:
                restrict = lambda: restriction.filter_calls(command, Step(), load)  # noqa: E731
        step.doing = "run the startContainer hooks"
        hooks.run("startContainer", wanted, state, environment=variables, fork=os.fork, restrict=restrict)
        return filtered

    def _enter_cgroups(self) -> None:
        self._step.doing = "enter the cgroup"
        word, entrances = rights.receive(self._plan.messages, 1, handoff.MOST_ENTRANCES)
        if word != handoff.ENTER:
            raise HandoffError("the runtime ended before the container had its cgroups")
        for entrance in entrances:
            os.write(entrance, b"0")
            os.close(entrance)

    def _needed(self) -> set[int]:
        plan = self._plan
        return {
            plan.commands,
            plan.reports,
            plan.messages,
            plan.runtime,
            plan.listener,
            plan.waiting,
            plan.console,
            *plan.stdio,
            *plan.mounts.descriptors,
            *plan.preserved,
        }

    def _die_with_runtime(self) -> None:
        """Be killed when the runtime dies, and make sure that it has not died before this was set (prctl(2))."""
        process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)
        poll = select.poll()
        poll.register(self._plan.runtime, select.POLLIN)
        if poll.poll(0):
            os._exit(1)

    def _await_maps(self) -> None:
        if "user" in self._plan.namespaces.new:
            self._step.doing = "wait for the id maps"
            handoff.await_word(self._plan.commands, handoff.MAPPED)

    def _be_root(self) -> None:
        """In a user namespace: what is made from now on belongs to its root, if it has one."""
        if not self._plan.namespaces.has("user"):
            return
        self._step.doing = "become root of the user namespace"
        restriction.become_root()
        self._die_with_runtime()  # a change of ids has cleared it (prctl(2), PR_SET_PDEATHSIG)

    def _leave_keyring(self) -> None:
        if not self._plan.keyring:
            return
        self._step.doing = "join a session keyring of its own"
        restriction.leave_keyring()

    def _name_host(self) -> None:
        plan = self._plan
        if plan.hostname:
            self._step.doing = "set the host name"
            process.sethostname(plan.hostname.encode(errors="surrogateescape"))
        if plan.domainname:
            self._step.doing = "set the domain name"
            process.setdomainname(plan.domainname.encode(errors="surrogateescape"))

    def _take_streams(self, root: mounts.Root) -> None:
        plan = self._plan
        if plan.process is None or not plan.process.terminal:
            copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, 3) for fd in plan.stdio]
            for target, fd in enumerate(copies):
                os.dup2(fd, target)
                os.close(fd)
            return
        self._step.doing = "open a pseudo-terminal"
        if root.devpts < 0:
            raise OSError(errno.ENOENT, "there is no devpts on /dev/pts in config.json's mounts")
        master, number = console.take(plan.process, root.devpts)
        self._step.doing = "mount the pseudo-terminal on /dev/console"
        bind_console(root.fd, root.devpts, number)
        self._step.doing = "send the pseudo-terminal's master"
        console.send(plan.console, console.MASTER_NAME, master)
        os.close(master)
        os.close(plan.console)

    def _load_seccomp(self) -> None:
        assert self._plan.seccomp is not None
        listener = self._plan.seccomp.load()
        if listener >= 0:
            # From here on, until the agent has it, what the agent is to decide about waits for ever.
            handoff.report_listener(self._reports, listener)
            if not os.read(self._answers, 1):
                raise HandoffError("nobody took the seccomp listener")
            os.close(listener)

    def _wait_for_start(self) -> None:
        """Tell the runtime that all is ready, let go of it, and wait for ``start``."""
        plan, step = self._plan, self._step
        step.doing = "wait for start"
        process.prctl(process.PR_SET_DUMPABLE, 0)
        self._die_with_runtime()
        handoff.report_ready(self._reports)
        handoff.await_word(self._answers, handoff.NOTED)
        process.prctl(process.PR_SET_PDEATHSIG, 0)
        handoff.report_ready(self._reports)
        process.close_all_except({plan.listener, plan.waiting, *plan.preserved})
        listener = _socket.socket(fileno=plan.listener)
        deadly = signals.signalfd(_DEADLY)
        poll = select.poll()
        for fd in (listener.fileno(), deadly):
            poll.register(fd, select.POLLIN)
        connection = -1
        while connection < 0:
            if any(fd == deadly for fd, _ in poll.poll()):
                os._exit(128 + signals.parse_siginfo(os.read(deadly, 128))[0])
            connection = self._accept(listener)
        os.close(deadly)
        listener.close()
        self._reports = self._answers = connection
        try:
            handoff.report_ready(connection)
        except OSError:
            signals.discard(signals.SIGPIPE)  # that start was killed: the command runs all the same

    @staticmethod
    def _accept(listener: _socket.socket) -> int:
        """The connection of a ``start`` by the user who created the container; -1 if it was somebody else."""
        fd, _ = listener._accept()  # type: ignore[attr-defined]
        connection = _socket.socket(fileno=fd)
        credentials = [
            end.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)[4:8] for end in (listener, connection)
        ]
        # What a listening socket says of its peer is who called listen(2) (unix(7)).
        if credentials[0] == credentials[1] and connection.recv(1) == handoff.GO:
            return connection.detach()
        connection.close()
        return -1
