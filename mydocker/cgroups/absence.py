"""Why a controller cannot be had on this host, and what to do: the sentence of one error."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.cgroups.layout import Hierarchy, Layout


#: What cgroup v2 does otherwise, or not at all: they are no controllers there.
_V1_ALONE = ("net_cls", "net_prio", "freezer", "devices", "cpuacct")

#: The reason that is left when no other is found.
UNKNOWN = "this kernel does not have it"


def explain(layout: Layout, controller: str) -> str:
    """One sentence: that the controller is missing, the likely reason, what to do, and what there is."""
    why = reason(layout, controller, _read("/proc/cgroups"))
    return f"there is no {controller} controller for cgroups here: {why}{_inventory(layout)}"


def reason(layout: Layout, controller: str, proc_cgroups: str) -> str:
    """The likely reason and what to do, given the text of /proc/cgroups."""
    unified = next((hierarchy for hierarchy in layout.hierarchies if hierarchy.version == 2), None)
    if controller == "cgroup":
        return "cgroup v2 is not mounted; mount cgroup2 on a directory"
    if layout.kind == "none":
        return "no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup"
    if unified and _is_above_base(unified, controller):
        return f"it is not delegated to {unified.base}; {_delegation(controller)}"
    known = {fields[0]: fields for line in proc_cgroups.splitlines() if len(fields := line.split()) == 4}
    if controller in known and known[controller][3] == "0":
        return f"it is switched off; boot this kernel without cgroup_disable={controller}"
    if unified and not unified.at_kernel_root:
        return f"the cgroup of this container does not have it; {_outer(unified)}"
    if controller in known and known[controller][1] != "0":
        there = "it is on a cgroup v1 hierarchy that is not mounted here"
        return f"{there}; mount that, or boot with cgroup_no_v1={controller} to have it on v2"
    if controller in known:
        v2 = "" if controller in _V1_ALONE else "cgroup2, or "
        return f"it is in no hierarchy that is mounted; mount {v2}v1 with -t cgroup -o {controller}"
    return UNKNOWN


def _is_above_base(unified: Hierarchy, controller: str) -> bool:
    at_top = _read(f"{unified.mountpoint}/cgroup.controllers").split()
    return unified.base != unified.mountpoint and controller in at_top


def _delegation(controller: str) -> str:
    return f"have systemd delegate it, with Delegate={controller} in a drop-in for user@.service, or run as root"


def _outer(unified: Hierarchy) -> str:
    return f"it has to be enabled outside, in cgroup.subtree_control above {unified.mountpoint}"


def _inventory(layout: Layout) -> str:
    """`` (here: cpu, memory on v1; hugetlb on v2)``"""
    on: dict[int, list[str]] = {}
    for hierarchy in layout.hierarchies:
        on.setdefault(hierarchy.version, []).extend(
            name for name in hierarchy.controllers if not name.startswith("name=")
        )
    there = "; ".join(f"{', '.join(sorted(names))} on v{version}" for version, names in sorted(on.items()) if names)
    return f" (here: {there})" if there else ""


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
