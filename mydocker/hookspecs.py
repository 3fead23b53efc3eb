"""Every hook that a limit plugin may implement.

A plugin is a module (or an object) that an entry point of the group ``mydocker.subsystems`` names. It
implements hooks by functions marked with `mydocker.hookimpl`, each with the name of a hook below and any
subset of its parameters. A function that is marked and whose name or parameters no hook has is an error
at discovery.

For one run, the hooks of the plugins that own a field which is set are called in this order; a plugin with
nothing set is not called and its module is not loaded:

    fields → validate → prepare → apply → usage → remove

``validate`` of all plugins runs before ``prepare`` of the first; ``prepare`` of all before the child is
cloned; ``apply`` of all before the child may execute the command. Plugins run in the order of their names;
pluggy's ``tryfirst`` and ``trylast`` change that. Hook wrappers are refused: a limit does not sit between
others and the kernel.

**A hook that raises** stops the run, except where said below: the child is killed before it ran a byte of
the command, ``remove`` is called on the plugins whose ``prepare`` was called, in reverse order, the
container's cgroup is removed, and the error names the plugin, its version and the hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.resources import Probe, ResourceConfig, ResourceField

hookspec = pluggy.HookspecMarker("mydocker")


@hookspec
def mydocker_fields() -> Iterable[ResourceField]:
    """Declare the fields of this plugin.

    Called when the plugin is discovered; the answer is remembered until the plugin's package or module
    changes, so it may not depend on anything but the plugin's own code. One declaration yields the flags
    on the command line, their help, the keyword of `mydocker.run` and the row in ``mydocker subsystems``.
    A name or a flag that another plugin has is a `ConflictError` that names both.
    """
    raise NotImplementedError


@hookspec
def mydocker_probe(layout: Layout) -> Probe:
    """Say whether this plugin can work on this host, and through which files. For ``mydocker subsystems``.

    Creates nothing and writes nothing.
    """
    raise NotImplementedError


@hookspec
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    """Check the values against each other and against this host, before anything exists.

    Raise `mydocker.LimitError(field, reason)` for a value that cannot be put in force; the core prefixes
    the flag that the user typed. Creates nothing and writes nothing.
    """


@hookspec
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    """Make the cgroup of each controller that is needed (``cgroup.controller(name)``) and write the limits.

    No process is in the cgroup yet. Writing a kernel file that another plugin wrote for this container is
    a `ConflictError` that names both and the file.
    """


@hookspec
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """Put the limit in force for the child: ``cgroup.attach(name, pid)``, ``prlimit``, and the like.

    ``pid`` is the child's, seen from the host. It waits to be handed its command and has not run a byte
    of it. When this returns, the limit is in force.
    """


@hookspec
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> Mapping[str, Any]:
    """What the container used, after its last process has ended. Values that JSON can hold.

    Put units into the names (``_bytes``, ``_seconds``). Two keys also feed the `mydocker.Result`:
    ``peak_bytes`` its memory_peak, ``oom_kills`` (how many processes the kernel killed for memory) its
    oom_kills and reason. If this raises, the run has still happened: the error is put under the key
    ``error`` in place of the figures.
    """
    raise NotImplementedError


@hookspec
def mydocker_remove(cgroup: ContainerCgroup) -> None:
    """Undo what ``prepare`` and ``apply`` made outside the container's cgroup.

    The cgroup itself is removed by the core afterwards. Called after the end of the command, after a
    failed start, and for a plugin whose ``prepare`` raised. If this raises, the other plugins are still
    undone and the error is reported at the end.
    """
