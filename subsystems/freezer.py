"""A container that starts frozen: ``--frozen``. ``mydocker unpause NAME`` lets it run.

Kernel documentation: cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst ("cgroup.freeze"). It is frozen before it gets its
command, so that the first thing it does when it is thawed is to start that.
"""

from __future__ import annotations

from mydocker import CgroupError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.cgroups import freezing
from mydocker.resources import parse_flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker import ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

_FILES = {"cgroup": ("cgroup.freeze",), "freezer": ("freezer.state",)}


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="frozen",
            flags=("--frozen",),
            parse=parse_flag,
            metavar="",
            help="Start frozen: the command runs when mydocker unpause NAME says so.",
            kind="flag",
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        name = freezing.freezer_of(layout)
    except CgroupError as e:
        return Probe(problem=str(e))
    return Probe(controllers=(name,), version=layout.version(name), files=_FILES[name])


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    if config["frozen"]:
        try:
            freezing.freezer_of(layout)
        except CgroupError as e:
            raise UnsupportedLimit("frozen", str(e)) from e


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    if config["frozen"]:
        cgroup.controller(freezing.freezer_of(cgroup.layout))


@hookimpl(trylast=True)
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    if config["frozen"]:
        cgroup.attach(freezing.freezer_of(cgroup.layout), pid)
        freezing.freeze(cgroup)


@hookimpl
def mydocker_explain(config: ResourceConfig, layout: Layout) -> tuple[str, ...]:
    if not config["frozen"]:
        return ()
    name = freezing.freezer_of(layout)
    return (f"write {'1' if name == 'cgroup' else 'FROZEN'} to {_FILES[name][0]} before the command starts",)
