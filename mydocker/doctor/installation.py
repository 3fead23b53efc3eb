"""mydocker itself on this host: whether a container starts, where it keeps things, what a killed one has left."""

from __future__ import annotations

import os

from mydocker import cache_file, config, state
from mydocker.doctor.check import missing, not_needed, ok, warning
from mydocker.errors import StateError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mydocker.doctor.check import Check
    from mydocker.doctor.host import Host


def checks(host: Host) -> Iterator[Check]:
    yield container(host)
    yield state_directory(host)
    yield leftovers(host)
    yield cache(host)
    yield configuration_file()


def container(host: Host) -> Check:
    """The judge of all other checks: a container without limits, started and ended."""
    outcome = host.trial("container")
    if outcome.ok:
        return ok("container", f"{host.user} has started one, and it has ended")
    return missing(
        "container",
        f"{host.user} cannot start one: {outcome.text}",
        "do what is said below about what is missing; mydocker --debug run true tells more",
    )


def _nearest(host: Host, path: str) -> str:
    """The directory itself, or the nearest above it that exists."""
    while not host.exists(path) and path not in ("/", ""):
        path = os.path.dirname(path)
    return path or "/"


def state_directory(host: Host) -> Check:
    name = "state directory"
    try:
        root = state.default_root()
    except StateError as error:
        return missing(name, str(error), "remove what is there, or set MYDOCKER_STATE_DIR to a directory of your own")
    nearest = _nearest(host, root)
    if host.is_directory(nearest) and host.writable(nearest):
        return ok(name, f"{root} {'can be written' if nearest == root else 'can be made'}")
    return missing(
        name,
        f"{host.user} can make nothing in {nearest}, so no container can be noted in {root}",
        "set MYDOCKER_STATE_DIR to a directory that can be written and that is emptied at boot, as one below /run",
    )


def leftovers(host: Host) -> Check:
    """Records of containers that no runtime holds any more (`mydocker.state`)."""
    name = "leftovers"
    try:
        root = state.default_root()
    except StateError:
        return not_needed(name, "there is no place where a killed mydocker could have left something")
    left = state.leftovers(root)
    if not left:
        return ok(name, f"no killed mydocker has left anything in {root}")
    return warning(
        name,
        f"a killed mydocker has left {', '.join(left)} in {root}, with the processes and cgroups of it",
        "the next run removes it: mydocker run true",
    )


def cache(host: Host) -> Check:
    """Where `mydocker.plugin_cache` keeps what it knows; without it every run looks for plugins anew."""
    name, directory = "plugin cache", cache_file.directory()
    if directory is None:
        return warning(
            name, "there is no HOME to keep it in, so each run looks for plugins anew, which takes longer", "set HOME"
        )
    nearest = _nearest(host, directory)
    if host.is_directory(nearest) and host.writable(nearest):
        return ok(name, f"{directory} {'can be written' if nearest == directory else 'can be made'}")
    return warning(
        name,
        f"{host.user} can make nothing in {nearest}, so each run looks for plugins anew, which takes longer",
        "set XDG_CACHE_HOME to a directory that can be written",
    )


def configuration_file() -> Check:
    """What `mydocker.config` reads for every run."""
    name = "configuration"
    try:
        found = config.load()
    except UsageError as error:
        return missing(name, str(error), f"mend it, or set {config.VARIABLE}= to run without one")
    if not found.path:
        return ok(name, f"there is no {config.file() or 'file'}, so no limit holds for every run")
    limits = ", ".join(found.limits) or "none"
    return ok(name, f"{found.path}; limits for every run: {limits}")
