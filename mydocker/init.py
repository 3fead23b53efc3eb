"""What the child does between clone and exec.

It has been cloned into its namespaces with a copy of the runtime's memory: everything that it needs is loaded,
and it imports nothing. It looks up no user or host name, and opens nothing in the root by name except through
``linux/paths.py``. First comes all that costs memory; then it reports "ready" and waits, and the runtime puts it
under its limits; what follows touches little, since it is charged to the container. A second word of the runtime, that
it is in its place, lets it go on to its cgroup namespace; the command is the third.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import select
import struct

from mydocker import cgroup_view, handoff, mount_parts, mounts
from mydocker.errors import HandoffError
from mydocker.handoff import Failure
from mydocker.linux import capabilities, executable, mount, network, process, pty, rights, signals
from mydocker.spec import candidates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from mydocker.plan import Plan


def loaded(plan: Plan) -> Plan:
    """``plan``, with all loaded that its child needs: the child imports nothing."""
    if plan.spec.overlay and plan.user.maps is not None:
        from mydocker.rootless import overlay as _overlay  # noqa: F401
    mounts.load(plan.spec, plan.hierarchies)
    capabilities.dropping(plan.capabilities)
    spec = plan.spec
    if not (spec.apparmor_profile or spec.selinux_label):
        return plan
    from mydocker.labels import set_for_exec

    return plan.replace(set_label=lambda: set_for_exec(spec.apparmor_profile, spec.selinux_label))


def run(plan: Plan) -> NoReturn:
    """Become the command, or report why not and end with 125. Called in the child; never returns."""
    step = mounts.step(plan.trace)
    try:
        gc.disable()
        _die_with_runtime(plan)
        view, terminal = _set_up(plan, step)
        if plan.table is not None and plan.trace < 0:
            plan.table.go_on(plan, view)
        _become_first(plan, step, view, terminal)
        if plan.drops_ahead:
            _confine(plan, step)
        step.doing = "take the command"
        argv, env = _take_command(plan)
        if plan.spec.init:
            _become_reaper(plan, step)
        signals.unblock_all()  # before the filter, where that may refuse it
        if not plan.drops_ahead:
            _confine(plan, step)
        step.doing = "start the command"
        number, text = _exec(argv, env, look=plan.ahead)
        _report(plan, "exec", number, text)
    except HandoffError:
        pass  # the runtime is gone: nobody reads a report
    except OSError as e:
        about = f": {os.fsdecode(e.filename)}" if isinstance(e.filename, (str, bytes)) else ""
        about = "" if step.doing.endswith(about.removeprefix(":")) else about
        _report(plan, "setup", e.errno or 0, f"cannot {step.doing}: {e.strerror}{about}")
    except BaseException as e:  # whatever it is, the child must not run on as a second runtime
        _report(plan, "setup", 0, f"cannot {step.doing}: {type(e).__name__}: {e}")
    finally:
        os._exit(125)


def _report(plan: Plan, stage: str, number: int, text: str) -> None:
    try:
        handoff.report_failure(plan.reports, Failure(stage=stage, errno=number, text=text))
    except OSError:
        pass


def _die_with_runtime(plan: Plan) -> None:
    """Be killed when the runtime dies, and make sure that it has not died before this was set (prctl(2))."""
    process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)
    poll = select.poll()
    poll.register(plan.runtime, select.POLLIN)
    if poll.poll(0):
        os._exit(125)


def become_blank() -> None:
    """Put off what a process has from its past and a command is not to have; once in a process, for all its children.

    The default action for every signal, and nothing of the host's interpreter that a descendant could reach.
    """
    signals.default_all()
    executable.let_go_where_possible()


def _set_up(plan: Plan, step: mounts.Step) -> tuple[cgroup_view.CgroupView, int]:
    """All that needs neither cgroups nor command: the place of the cgroup mounts, and the terminal's master or -1."""
    spec = plan.spec
    step.doing = "set up the process"
    if not plan.blank:
        signals.default_all()
    keep = {plan.commands, plan.reports, plan.runtime, plan.messages, plan.status, plan.upper}
    process.close_all_except(keep.union(plan.stdio or (), (plan.trace,)))
    if plan.user.maps is not None:
        step.doing = "wait for the id maps"
        handoff.await_word(plan.commands, handoff.MAPPED)
    if spec.own_root and not plan.blank:  # else the command sees the interpreter anyway
        executable.let_go_where_possible()
    os.setsid()
    os.umask(0)
    step.doing = "leave the session keyring"
    _leave_keyring()
    if spec.network == "none":
        step.doing = "bring the loopback device up"
        network.loopback_up()
    root, devpts = mounts.build(spec, plan.staging, step, plan.upper)
    terminal = -1
    if spec.terminal:
        step.doing = "open a pseudo-terminal"
        if devpts < 0:
            raise OSError(errno.ENOENT, "this root has no /dev/pts")
        terminal = _take_terminal(plan, root, devpts)
    step.doing = "make the place of the cgroup mounts"
    view = cgroup_view.CgroupView(root, plan.hierarchies, writable=spec.privileged)
    if spec.own_root:
        step.doing = "make it the root"
        mount.pivot_to(root)
    os.umask(0o022)
    return view, terminal


def _become_first(plan: Plan, step: mounts.Step, view: cgroup_view.CgroupView, terminal: int) -> None:
    """Become the container's first process, in its cgroups."""
    hostname = plan.spec.hostname.encode(errors="surrogateescape") if plan.spec.hostname is not None else b""
    settled = True
    if plan.stdio is None:
        step.doing = "enter the cgroup"
        place, entrances = rights.receive(plan.messages, handoff.PLACE_SIZE, handoff.MOST_ENTRANCES)
        word, hostname = handoff.read_place(place)
        settled = _enter_cgroups(word, entrances)
    elif plan.cgroups:
        step.doing = "enter the cgroup"
        settled = _enter_cgroups(*rights.receive(plan.messages, 1, handoff.MOST_ENTRANCES))
    if hostname:
        step.doing = "set the host name"
        process.sethostname(hostname)
    if plan.stdio is not None and terminal < 0:
        _take_stdio(plan.stdio)
    handoff.report_ready(plan.reports, terminal)
    if not settled or terminal >= 0:
        step.doing = "wait for the limits"
        handoff.await_word(plan.commands, handoff.PLACED)
    if terminal >= 0:
        os.close(terminal)  # the runtime has its own by now
    step.doing = "make a cgroup namespace"
    process.unshare(process.CLONE_NEWCGROUP)
    view.fill()


def _enter_cgroups(word: bytes, entrances: list[int]) -> bool:
    """Go through the entrances; whether these are all the cgroups that the child is to be in."""
    if word not in (handoff.ENTER, handoff.ENTER_SOME):
        raise HandoffError("the runtime ended before the container had its cgroups")
    for entrance in entrances:
        os.write(entrance, b"0")
        os.close(entrance)
    return word == handoff.ENTER


def _take_command(plan: Plan) -> tuple[list[bytes], list[bytes]]:
    """Wait for the command and, where they are its own, for its 0, 1 and 2."""
    if plan.stdio is not None:
        return handoff.receive(plan.commands)
    process.close_standard()  # so that these are what comes, also under the smallest RLIMIT_NOFILE
    command = handoff.receive(plan.commands)
    if rights.receive(plan.messages, 1, 3)[1] != [0, 1, 2]:
        raise OSError(errno.EBADF, "its standard input, output and error did not come")
    for fd in (0, 1, 2):
        os.set_inheritable(fd, True)
    return command


def _leave_keyring() -> None:
    try:
        process.join_new_session_keyring()
    except OSError as e:
        if e.errno not in (errno.ENOSYS, errno.EPERM):  # no keyrings in this kernel, or refused by an outer seccomp
            raise


def _take_terminal(plan: Plan, root: int, devpts: int) -> int:
    """Make a new pseudo-terminal the controlling one and 0, 1 and 2; the descriptor of its master."""
    master, slave, number = pty.open_pair(devpts)
    if not plan.spec.init:  # else it is the command's to take, in its own session
        pty.make_controlling(slave)
    os.fchown(slave, plan.user.uid, -1)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    if slave > 2:
        os.close(slave)
    if plan.spec.own_root:
        mount_parts.bind_console(root, devpts, number)
    return master


def _take_stdio(stdio: tuple[int, int, int]) -> None:
    """Put the three descriptors in place. Copies first: one may stand where another is to go."""
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in stdio]
    for target, fd in enumerate(copies):
        os.dup2(fd, target)
        os.close(fd)


def _confine(plan: Plan, step: mounts.Step) -> None:
    """Take away what the command is not to have."""
    spec = plan.spec
    if not spec.gains_nothing:
        _filter_calls(plan, step)  # this takes CAP_SYS_ADMIN, which is given up next
    step.doing = "drop privileges"
    _drop_privileges(plan)
    step.doing = f"enter the working directory {plan.cwd}"
    _enter(plan.cwd)
    step.doing = "start the command"
    # All of them are close-on-exec.
    ahead = (plan.commands, plan.messages) if plan.ahead else ()
    process.close_all_except({plan.reports, plan.runtime, plan.trace, *ahead})
    _die_with_runtime(plan)  # a change of ids has cleared it (prctl(2), PR_SET_PDEATHSIG)
    if plan.set_label is not None:
        step.doing = "set the security label"
        plan.set_label()
    if spec.gains_nothing:
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
        _filter_calls(plan, step)  # last, since what is done after it may be refused


def _filter_calls(plan: Plan, step: mounts.Step) -> None:
    if plan.filter is not None:
        step.doing = "put the seccomp filter in force"
        plan.filter.load()


def _drop_privileges(plan: Plan) -> None:
    capabilities.drop_bounding(plan.capabilities)
    user = plan.user
    if user.maps is None or user.maps.setgroups:
        os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)  # not root any more: the kernel empties the sets (capabilities(7))
    capabilities.set_exact(plan.capabilities if user.uid == 0 else 0)


def _enter(cwd: str) -> None:
    """chdir, and check that the kernel can still name the place from the root (CVE-2024-21626)."""
    os.chdir(cwd)
    if not os.getcwdb().startswith(b"/"):
        raise OSError(errno.ENOENT, "it is outside the container's root")


def _exec(argv: list[bytes], env: list[bytes], *, look: bool) -> tuple[int, str]:
    """Execute, looking a plain name up in PATH as execvp(3) does; what went wrong: (errno, path that it was about).

    ``look``: see first whether it is there, since a failed execve(2) has copied all the arguments before. Not where a
    filter may refuse that. EISDIR stands for EACCES on a directory, ELIBACC for ENOENT on a file that is there.
    """
    environment = {}
    for entry in env:
        key, equals, value = entry.partition(b"=")
        if key and equals:
            environment[key] = value
    failed = (errno.ENOENT, argv[0])
    for candidate in candidates(argv, env):
        try:
            if look:
                os.stat(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # execve says why
        try:
            os.execve(candidate, argv, environment)
        except OSError as e:
            number = e.errno or errno.EIO
            if number in (errno.ENOENT, errno.ENOTDIR):
                if os.path.exists(candidate):  # then it is the interpreter or the loader that is missing
                    return errno.ELIBACC, os.fsdecode(candidate)
            elif number == errno.EACCES:
                failed = (errno.EISDIR if os.path.isdir(candidate) else errno.EACCES, candidate)
            else:
                return number, os.fsdecode(candidate)
    return failed[0], os.fsdecode(failed[1])


def _become_reaper(plan: Plan, step: mounts.Step) -> None:
    """Fork: the child returns to become the command, this process stays PID 1 and reaps.

    It forwards the signals that it gets, waits for every process of the container, and ends when the command
    has. The command's wait status goes to the runtime by a pipe, since PID 1 cannot die by most signals.
    """
    step.doing = "start the reaper"
    command = os.fork()
    if command == 0:
        os.setsid()
        if plan.spec.terminal:
            pty.make_controlling(0)
        return
    # The container may look at PID 1: it holds nothing, may do nothing more than the command itself, and its
    # /proc/1/exe, the host's interpreter, cannot be opened (CVE-2019-5736).
    _drop_privileges(plan)
    process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    process.prctl(process.PR_SET_DUMPABLE, 0)
    process.set_name(b"mydocker-init")
    _die_with_runtime(plan)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    process.close_all_except({plan.status})
    if plan.spec.gains_nothing:
        _filter_calls(plan, step)
    os._exit(_reap(plan.status, command))


def _reap(status_pipe: int, command: int) -> int:
    watched = [n for n in range(1, 65) if n not in (signals.SIGKILL, signals.SIGSTOP, 32, 33)]
    while True:
        number = signals.wait_for(watched)
        if number != signals.SIGCHLD:
            try:
                os.kill(command, number)
            except ProcessLookupError:
                pass
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == command:
                os.write(status_pipe, struct.pack("<i", status))
                return 0
