"""A plain user's cgroups: where root may have prepared one, and how to get one.

Sources: cgroup-v2.rst, "Delegation" and "Delegation Containment"; systemd.resource-control(5), ``Delegate=``.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.cgroups.layout import Hierarchy

_DOCS = "docs/rootless.md"


def prepared_places(mountpoint: str) -> list[str]:
    """Where root makes a cgroup for this user: ``mydocker-UID`` or ``mydocker-NAME`` at the top of the hierarchy."""
    import pwd

    uid = os.geteuid()
    names = [str(uid)]
    try:
        names.append(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass
    return [f"{mountpoint}/mydocker-{name}" for name in names]


def how_to_get_it(directory: str) -> str:
    """What to do when this user may not make the cgroup ``directory``."""
    uid = os.geteuid()
    top = directory
    while os.path.exists(f"{os.path.dirname(top)}/cgroup.procs"):
        top = os.path.dirname(top)
    if os.path.exists(f"{top}/cgroup.controllers"):
        return f"a plain user's limits need a cgroup that is delegated: {_delegated_v2(top)}"
    place = f"{top}/mydocker-{uid}"
    return (
        "a plain user's limits need a cgroup that root has prepared: "
        f"mkdir {place} && chown {uid} {place} {place}/cgroup.procs; see {_DOCS}"
    )


def why_not_moved(hierarchy: Hierarchy) -> str:
    """The error for a process that the kernel does not move into a cgroup of this user."""
    here = hierarchy.own or "a cgroup that cannot be seen here"
    way = f"have root move your shell into a cgroup below it, by the commands in {_DOCS}"
    if os.path.isdir("/run/systemd/system"):
        way = _delegated_v2(hierarchy.mountpoint)
    return (
        f"cannot move the container into {hierarchy.base}: this process is in {here}, and the kernel lets a plain "
        f"user move processes only within one subtree that is delegated: {way}"
    )


def _delegated_v2(top: str) -> str:
    if os.path.isdir("/run/systemd/system"):
        return "systemd-run --user --scope -p Delegate=yes mydocker run … starts it in one"
    place = f"{top}/mydocker-{os.geteuid()}"
    return f"have root make {place} and move your shell into it, by the commands in {_DOCS}"
