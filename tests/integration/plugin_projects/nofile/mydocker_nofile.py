"""``--nofile``: how many files a process of the container may have open (RLIMIT_NOFILE, getrlimit(2))."""

import resource

from mydocker import LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import parse_integer


@hookimpl
def mydocker_fields():
    return [
        ResourceField(
            name="nofile",
            flags=("--nofile", "-nofile"),
            parse=parse_integer,
            metavar="NUMBER",
            help="How many files each process may have open.",
        )
    ]


@hookimpl
def mydocker_probe():
    return Probe()


@hookimpl
def mydocker_validate(config):
    if config["nofile"] < 3:
        raise LimitError("nofile", f"{config['nofile']} is not enough for stdin, stdout and stderr")


@hookimpl
def mydocker_apply(config, pid):
    # The kernel refuses more than fs.nr_open, whoever asks: EPERM.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (config["nofile"], config["nofile"]))


@hookimpl
def mydocker_usage(config):
    return {"allowed_files": config["nofile"]}
