"""What the child of a container is to do, worked out before it is cloned."""

from __future__ import annotations

from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.seccomp import Filter
    from mydocker.spec import Spec
    from mydocker.table import Table
    from mydocker.user import User

#: The fields of a plan that are descriptors, but for ``stdio``, which comes later than the plan.
DESCRIPTORS = ("commands", "reports", "messages", "status", "upper", "trace")

#: So many can be made by machine code.
_MOST_MOUNTS = 64


class Plan(Value):
    """For one child.

    ``staging``       directory on the host over which the root is assembled, in the child's mount namespace only.
    ``hierarchies``   the cgroup hierarchies to show below /sys/fs/cgroup.
    ``capabilities``  mask of the bounding, permitted and effective set.
    ``stdio``         descriptors that become 0, 1 and 2; not used where the command gets a terminal. None: they come
                      through ``messages`` before the command does, and the host name when the entrances do.
    ``commands``      read end of the pipe that brings the frame.
    ``reports``       write end of the pipe for reports.
    ``runtime``       pidfd of the runtime, readable when it has died.
    ``messages``      socket that brings the entrances, and what comes later than the plan; or -1.
    ``status``        write end of the pipe for the command's wait status, used with ``init``; or -1.
    ``upper``         descriptor of the mount for the overlay's upper layer, or -1.
    ``cgroups``       whether it has any: then descriptors of v1 ``tasks`` files come through ``messages`` when they are
                      made, and to write ``0`` to them puts the child into its cgroup. With `handoff.ENTER_SOME` these
                      are not all, and `handoff.PLACED` is awaited.
    ``filter``        of the system calls that the command may make, or None.
    ``set_label``     asks a security module for the command's label, or None.
    ``blank``         the process is a copy of a helper's, which has done `mydocker.init.become_blank` for all its
                      children.
    ``table``         how the child does this by machine code (`mydocker.waiting`), or None.
    ``executable``    descriptor of an empty file, for a child that is to become blank by machine code, or -1.
    ``ahead``         what can be done without the command is done before it comes. Not with a filter that may refuse
                      what is done after it.
    ``entered``       mount points of the hierarchies in which it is to be in a cgroup of its own, if that is known
                      before there is one: what it is in elsewhere is shown before it waits. None: it is not known.
    ``trace``         write end of the pipe of a trace (`mydocker.tracing`), or -1.
    """

    spec: Spec
    staging: str
    hierarchies: tuple[Hierarchy, ...]
    user: User
    capabilities: int
    cwd: str
    stdio: tuple[int, int, int] | None = None
    commands: int = -1
    reports: int = -1
    runtime: int = -1
    messages: int = -1
    status: int = -1
    upper: int = -1
    cgroups: bool = False
    filter: Filter | None = None
    set_label: Callable[[], None] | None = None
    blank: bool = False
    table: Table | None = None
    executable: int = -1
    ahead: bool = False
    entered: tuple[str, ...] | None = None
    trace: int = -1

    @property
    def drops_ahead(self) -> bool:
        """Whether the child gives its privileges up before it knows the command: not where it is to become a reaper,
        which forks first.
        """
        return self.ahead and not self.spec.init

    @property
    def may_wait(self) -> bool:
        """Whether machine code can bring the child from its cgroups to its command (`mydocker.waiting`)."""
        spec = self.spec
        labelled = spec.apparmor_profile or spec.selinux_label
        return self.stdio is None and self.drops_ahead and self.user.maps is None and not (labelled or spec.terminal)

    @property
    def may_do_groundwork(self) -> bool:
        """Whether machine code can do what comes before as well (`mydocker.groundwork`), as far as one can tell."""
        spec = self.spec
        plain = not (spec.overlay or spec.terminal) and self.user.maps is None and len(spec.mounts) <= _MOST_MOUNTS
        return spec.has_place_for_root and plain


_OF_NO_USE: dict[str, Any] = {
    "stop_timeout": 0.0,
    "name": None,
    "pidfile": None,
    "cgroup_parent": None,
    "accounting": False,
    "limits": "strict",
}


def template(plan: Plan) -> Plan:
    """What plans for containers of one kind have in common. Command and host name go their own way, the filter is
    compiled, the user is looked up, and of some the child has no use.
    """
    spec = plan.spec.replace(
        args=(), env=None, extra_env=(), timeout=None, hostname=None, seccomp="", user="", **_OF_NO_USE
    )
    blank = dict.fromkeys(DESCRIPTORS, -1)
    return plan.replace(spec=spec, staging="", stdio=None, **blank)
