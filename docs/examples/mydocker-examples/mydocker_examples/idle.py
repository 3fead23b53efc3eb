"""``--idle``: stop a container that has used no CPU for so long."""

from time import monotonic as now

from mydocker import Probe, ResourceField, UnsupportedLimit, Verdict, Watch, hookimpl
from mydocker.cgroups.freezing import is_frozen
from mydocker.resources import parse_duration

MYDOCKER_API = 1
MYDOCKER_SHARED_WATCH = True

#: CPU seconds that are no work: what the kernel's own housekeeping in a sleeping process costs.
NOTHING = 0.01


@hookimpl
def mydocker_fields():
    return [
        ResourceField(
            name="idle",
            flags=("--idle",),
            parse=parse_duration,
            metavar="DURATION",
            help="Stop the container when it has used no CPU for this time, as in 10m.",
        )
    ]


def controller_of(layout):
    """v1 counts in cpuacct, v2 in cpu. None if this host has neither."""
    for name in ("cpuacct", "cpu"):
        if layout.version(name) == (1 if name == "cpuacct" else 2):
            return name
    return None


def cpu_seconds(cgroup):
    files = cgroup.controller(controller_of(cgroup.layout))
    return files.usage / 1e9 if files.version == 1 else files.stat["usage_usec"] / 1e6


@hookimpl
def mydocker_probe(layout):
    name = controller_of(layout)
    if name is None:
        return Probe(problem="this host counts no CPU time of cgroups")
    return Probe(controllers=(name,), version=layout.version(name))  # it only reads


@hookimpl
def mydocker_validate(layout):
    if controller_of(layout) is None:
        raise UnsupportedLimit("idle", "this host counts no CPU time of cgroups")


@hookimpl
def mydocker_prepare(cgroup):
    cgroup.controller(controller_of(cgroup.layout))  # makes the cgroup, in which the kernel counts


@hookimpl
def mydocker_apply(cgroup, pid):
    cgroup.attach(controller_of(cgroup.layout), pid)


@hookimpl
def mydocker_watch(config, cgroup):
    limit = config["idle"]
    used, since = cpu_seconds(cgroup), now()

    def check():
        nonlocal used, since
        used_now = cpu_seconds(cgroup)
        if used_now - used > NOTHING or is_frozen(cgroup):  # a paused container is not idle
            used, since = used_now, now()
        left = since + limit - now()
        if left <= 0:
            return Verdict.stop("idle", f"it used no CPU for {limit:g} seconds")
        return min(left, limit / 10)  # seconds until the next look

    return [Watch(check=check)]


@hookimpl
def mydocker_explain(config):
    return [f"looks at the CPU time every {config['idle'] / 10:g} s, and stops the container when it stands still"]
