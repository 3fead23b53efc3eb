"""``--private-tmp``: an empty /tmp of the container's own, in memory, that holds no more than SIZE."""

from mydocker import Amendment, LimitError, Probe, ResourceField, Tmpfs, hookimpl
from mydocker.resources import parse_size

MYDOCKER_API = 1


@hookimpl
def mydocker_fields():
    return [
        ResourceField(
            name="private_tmp",
            flags=("--private-tmp",),
            parse=parse_size,
            metavar="SIZE",
            help="An empty /tmp of the container's own that holds no more than this (b, k, m, g), as in 64m.",
        )
    ]


@hookimpl
def mydocker_probe():
    return Probe()


@hookimpl
def mydocker_validate(config):
    if config["private_tmp"] == 0:
        raise LimitError("private_tmp", "0 is no limit at all for a tmpfs: give a size, as in 64m")


@hookimpl
def mydocker_amend(config):
    return Amendment(
        mounts=(Tmpfs(destination="/tmp", size=config["private_tmp"]),),
        env=(b"TMPDIR=/tmp",),
    )


@hookimpl
def mydocker_explain(config):
    return [f"mount a tmpfs of {config['private_tmp']} bytes on /tmp", "set the variable TMPDIR to /tmp"]
