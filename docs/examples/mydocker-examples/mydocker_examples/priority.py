"""``--priority``: whose work comes first when several containers want the CPUs."""

from mydocker import Probe, ResourceField, hookimpl

MYDOCKER_API = 1

#: What the kernel calls it: cpu.shares on cgroup v1 (1024 is normal), cpu.weight on v2 (100 is normal).
SHARES = {"low": 102, "normal": 1024, "high": 10240}
WEIGHTS = {"low": 10, "normal": 100, "high": 1000}


def parse_priority(text):
    if text not in SHARES:
        raise ValueError(f'"{text}" is not a priority: use low, normal or high')
    return text


@hookimpl
def mydocker_fields():
    return [
        ResourceField(
            name="priority",
            flags=("--priority",),
            parse=parse_priority,
            metavar="low|normal|high",
            help="Whose work comes first when several containers want the CPUs.",
            complete="low normal high",
        )
    ]


@hookimpl
def mydocker_probe(layout):
    version = layout.version("cpu")
    if version is None:
        return Probe(controllers=("cpu",), problem="this host has no cpu controller")
    return Probe(controllers=("cpu",), version=version, files=("cpu.shares" if version == 1 else "cpu.weight",))


@hookimpl
def mydocker_validate(config, layout):
    layout.require_for("cpu", config, "priority")


@hookimpl
def mydocker_prepare(config, cgroup):
    write(cgroup.controller("cpu"), config["priority"])


@hookimpl
def mydocker_apply(cgroup, pid):
    cgroup.attach("cpu", pid)


@hookimpl
def mydocker_update(config, cgroup):
    write(cgroup.controller("cpu"), config["priority"])


def write(cpu, priority):
    if cpu.version == 1:
        cpu.shares = SHARES[priority]
    else:
        cpu.weight = WEIGHTS[priority]
