"""``--stack``: how large the stack of each process may grow (RLIMIT_STACK, getrlimit(2))."""

import resource

from mydocker import LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import format_size, parse_size

MYDOCKER_API = 1

MINIMUM = 128 * 1024


@hookimpl
def mydocker_fields():
    return [
        ResourceField(
            name="stack",
            flags=("--stack",),
            parse=parse_size,
            metavar="SIZE",
            help="How large the stack of each process may grow (b, k, m, g), as in 8m.",
        )
    ]


@hookimpl
def mydocker_probe():
    return Probe()  # works everywhere


@hookimpl
def mydocker_validate(config):
    if config["stack"] < MINIMUM:
        raise LimitError("stack", f"{format_size(config['stack'])} is less than a program needs to start, 128k")


@hookimpl
def mydocker_apply(config, cgroup, pid):
    cgroup.claim("rlimit stack")
    try:
        resource.prlimit(pid, resource.RLIMIT_STACK, (config["stack"], config["stack"]))
    except (PermissionError, ValueError):
        raise LimitError("stack", f"{format_size(config['stack'])} is more than this user may give") from None


@hookimpl
def mydocker_explain(config):
    return [f"prlimit(RLIMIT_STACK): {config['stack']} bytes"]
