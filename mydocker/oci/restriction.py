"""What the child does to itself to become the command: its user, its capabilities, its labels, its filter.

All of it was worked out by `mydocker.oci.process` before the clone. In the child nothing is imported, and nothing is
opened in the root but through ``linux/paths.py``.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker import labels
from mydocker.handoff import Failure
from mydocker.linux import capabilities, paths, process, rlimits, security, signals
from mydocker.oci.lookup import NotStarted, encoded, look_up, quoted, reason_of
from mydocker.oci.process import LATE_RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from mydocker.oci.process import ProcessPlan
    from mydocker.step import Step

_CAP_SYS_ADMIN = capabilities.mask(["CAP_SYS_ADMIN"])


def become_root() -> None:
    """In a user namespace: what is made from now on belongs to its root, if it has one."""
    for call, arguments in ((os.setgroups, ((),)), (os.setresgid, (0, 0, 0)), (os.setresuid, (0, 0, 0))):
        try:
            call(*arguments)
        except OSError as e:
            # No id 0 in its maps, or a maker who may not set groups himself (user_namespaces(7)).
            if e.errno not in (errno.EINVAL, errno.EPERM):
                raise
    process.prctl(process.PR_SET_DUMPABLE, 0)  # a change of ids may have put it on again (prctl(2))


def leave_keyring() -> None:
    """Join a new session keyring, where there are any."""
    try:
        process.join_new_session_keyring()
    except OSError as e:
        if e.errno not in (errno.ENOSYS, errno.EPERM):  # no keyrings in this kernel, or refused by an outer seccomp
            raise


def make_cwd(plan: ProcessPlan, root: int) -> None:
    """Make the working directory where it is missing, in the root behind the descriptor.

    For the first process of a container, as runc and crun do: the runtime specification leaves it open. Before the
    root is made read-only, and with a umask of 0.
    """
    os.close(paths.make_directory_in_root(root, encoded(plan.cwd)))


def environment(plan: ProcessPlan, entries: Sequence[bytes]) -> dict[bytes, bytes]:
    """The environment, each variable once and the last one counting; HOME, if it is none, from the /etc/passwd here.

    In the child, when the container's root is ``/``.
    """
    variables = {}
    for entry in entries:
        name, _, value = entry.partition(b"=")
        variables[name] = value
    if not variables.get(b"HOME"):
        variables[b"HOME"] = _home(plan.uid)
    return variables


def _home(uid: int) -> bytes:
    wanted = b"%d" % uid
    try:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            passwd = paths.read_in_root(root, b"etc/passwd")
        finally:
            os.close(root)
    except OSError:
        return b"/"
    for line in passwd.splitlines():
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == wanted:
            return fields[5] or b"/"
    return b"/"


def restrict(
    plan: ProcessPlan,
    step: Step,
    name: bytes,
    variables: Mapping[bytes, bytes],
    *,
    filtered: bool = False,
    proc: int = -1,
) -> bytes:
    """Make this process what the command is to be, all but `seal`; the path that ``name`` (argv[0]) stands for.

    In the child, with all its mounts in place. ``filtered``: `seal` is to load a seccomp filter, and what that takes
    stays permitted, though not effective. ``proc``: a descriptor of the host's /proc, for a plan that is `labelled`;
    without one the container's is used if it is a procfs. The OSErrors are for `failure`.
    """
    step.doing = "set the security label"
    _set_labels(plan, proc)
    if plan.no_new_privs:
        step.doing = "set no_new_privs"
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    if plan.personality is not None:
        step.doing = "set the personality"
        security.set_personality(plan.personality)
    if plan.set_memory_policy is not None:
        step.doing = "set the memory policy (linux.memoryPolicy)"
        plan.set_memory_policy()
    os.umask(plan.umask)
    step.doing = "enter the working directory"
    entered = _entered(plan.cwd)
    step.doing = "limit the bounding set"
    capabilities.drop_bounding(plan.capabilities.bounding)
    capabilities.keep_over_setuid(keep=True)
    _become_user(plan, step)
    step.doing = "enter the working directory"
    if not entered:
        _enter(plan.cwd)
    verify_cwd()
    capabilities.keep_over_setuid(keep=False)
    step.doing = "apply caps"
    held = capabilities.permitted()
    wanted = plan.capabilities
    capabilities.set_sets(held, wanted.effective, capabilities.inheritable())
    path = look_up(name, variables)
    kept = held & _CAP_SYS_ADMIN if filtered and not _may_load(plan) else 0
    capabilities.set_sets(wanted.permitted | kept, wanted.effective, wanted.inheritable)
    capabilities.raise_ambient(wanted.ambient)
    process.prctl(process.PR_SET_DUMPABLE, 0)  # the change of ids may have put it on again (prctl(2))
    return path


def seal(plan: ProcessPlan, step: Step, load_seccomp: Callable[[], None] | None = None) -> None:
    """What would hinder this process itself: the last things before `execute`, after the hooks of ``start``."""
    step.doing = "set rlimits"
    for number, soft, hard in plan.rlimits:
        if number in LATE_RLIMITS:
            rlimits.prlimit(0, number, (soft, hard))
    signals.unblock_all()
    if load_seccomp is not None:
        # As late as can be: what this process does itself, the filter may refuse.
        filter_calls(plan, step, load_seccomp)


def filter_calls(plan: ProcessPlan, step: Step, load_seccomp: Callable[[], object]) -> None:
    """Load the seccomp filter, by a right that the command itself may not have (`restrict`, ``filtered``)."""
    step.doing = "load the seccomp filter"
    if _may_load(plan):
        load_seccomp()
        return
    wanted = plan.capabilities
    admin = wanted.permitted | _CAP_SYS_ADMIN
    capabilities.set_sets(admin, wanted.effective | _CAP_SYS_ADMIN, wanted.inheritable)
    load_seccomp()
    step.doing = "apply caps"
    capabilities.set_sets(wanted.permitted, wanted.effective, wanted.inheritable)


def execute(path: bytes, argv: Sequence[bytes], variables: Mapping[bytes, bytes]) -> NoReturn:
    """Become the command. NotStarted with the kernel's reason if it refuses."""
    try:
        os.execve(path, list(argv), dict(variables))
    except OSError as e:
        raise NotStarted(e.errno or errno.EIO, f"exec {os.fsdecode(path)}: {reason_of(e)}") from None


def failure(step: Step, error: BaseException) -> Failure:
    """What the child reports of the error that ended it. The stage is ``exec`` where the command itself is at fault."""
    if isinstance(error, NotStarted):
        return Failure(stage="exec", errno=error.errno or 0, text=str(error))
    if isinstance(error, OSError):
        about = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
        return Failure(stage="setup", errno=error.errno or 0, text=f"cannot {step.doing}: {reason_of(error)}{about}")
    return Failure(stage="setup", errno=0, text=f"cannot {step.doing}: {type(error).__name__}: {error}")


def _may_load(plan: ProcessPlan) -> bool:
    """Whether a seccomp filter can be loaded with the command's own capabilities (seccomp(2))."""
    return plan.no_new_privs or bool(plan.capabilities.effective & _CAP_SYS_ADMIN)


def _set_labels(plan: ProcessPlan, proc: int) -> None:
    """What security modules apply at the next execve(2) of this thread."""
    if plan.labelled:
        labels.set_for_exec(plan.apparmor, plan.selinux, proc)


def _entered(cwd: str) -> bool:
    """chdir as root; False where only the user may, who is yet to come: on a file system that root has no right on."""
    try:
        _enter(cwd)
    except NotStarted as e:
        if e.errno not in (errno.EACCES, errno.EPERM):
            raise
        return False
    return True


def _enter(cwd: str) -> None:
    try:
        os.chdir(encoded(cwd))
    except OSError as e:
        number = e.errno or errno.EIO
        where = quoted(encoded(cwd))
        raise NotStarted(number, f"chdir to cwd ({where}) set in config.json failed: {reason_of(e)}") from None


def verify_cwd() -> None:
    """Check that the kernel can name the place that we are in from our root (CVE-2024-21626)."""
    try:
        inside = os.getcwdb().startswith(b"/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise NotStarted(errno.ENOENT, "current working directory is outside of container mount namespace root")


def _become_user(plan: ProcessPlan, step: Step) -> None:
    step.doing = "give the standard streams to the user"
    _own_streams(plan.uid)
    step.doing = "set the additional groups"
    try:
        os.setgroups(plan.groups)
    except PermissionError:
        # Refused for good in a user namespace whose maker could not set groups himself (user_namespaces(7)).
        if plan.groups:
            raise
    step.doing = f"setgid to {plan.gid}"
    os.setresgid(plan.gid, plan.gid, plan.gid)
    step.doing = f"setuid to {plan.uid}"
    os.setresuid(plan.uid, plan.uid, plan.uid)


def _own_streams(uid: int) -> None:
    """Let the user open /dev/stdout and its like anew where they are pipes, which he did not make.

    Files stay whose they are, and so do devices: /dev/null is everybody's, and the container's terminal has been given
    to the user already.
    """
    for fd in (0, 1, 2):
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # it is closed
        if status.st_uid == uid or not (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
            continue
        try:
            os.fchown(fd, uid, -1)
        except OSError as e:
            # Not ours to give, on a read-only file system, or of an owner who has no id here.
            if e.errno not in (errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENOSYS):
                raise
