"""Every hook that a limit plugin may implement.

A plugin is a module (or an object) that an entry point of the group ``mydocker.subsystems`` names. It
implements hooks by functions marked with `mydocker.hookimpl`, each with the name of a hook below and any
subset of its parameters. A function that is marked and whose name or parameters no hook has is an error
at discovery, and so is one whose name begins with ``mydocker_`` and that is not marked. So is an attribute
``MYDOCKER_API`` of the plugin that is not a version this mydocker offers (`API_VERSIONS`); a plugin that has no such
attribute is taken for one of version 1.

For one run, the hooks of the plugins that own a field which is set are called in this order; a plugin with
nothing set is not called and its module is not loaded (but for ``account``):

    fields → validate → amend → prepare → clone → apply → handover → watch → usage → remove

``validate`` of all plugins runs before ``amend`` of the first, ``amend`` of all before ``prepare`` of the
first; ``prepare`` of all before a process is in the container's cgroups; ``apply`` of all before the child may execute
the command.
``update`` and ``usage`` are also called while the container runs, by another process. Plugins run in
the order of their names; pluggy's ``tryfirst`` and ``trylast`` change that. Hook wrappers are refused: a
limit does not sit between others and the kernel.

**A hook that raises** stops the run, except where said below: the child is killed before it ran a byte of
the command, ``remove`` is called on the plugins whose ``amend``, ``prepare``, ``apply`` or ``watch`` was called, in
reverse order, the container's cgroup is removed, and the error names the plugin, its version and the hook.

**A hook or a parser that takes longer** than ``MYDOCKER_PLUGIN_TIMEOUT`` seconds (default 10) has failed in the same
way. It is called in a thread that is not the main one; one that never returns is left behind in it, and the
``cgroup`` that it was given refuses to serve it any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mydocker.amendment import Amendment
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.resources import Probe, ResourceConfig, ResourceField
    from mydocker.spec import Spec
    from mydocker.watch import Watch

#: The versions of this contract that a plugin may be written for.
API_VERSIONS = (1,)

hookspec = pluggy.HookspecMarker("mydocker")


@hookspec
def mydocker_fields() -> Iterable[ResourceField]:
    """Declare the fields of this plugin.

    Called when the plugin is discovered; the answer is remembered until the plugin's package or module
    changes, so it may not depend on anything but the plugin's own code. One declaration yields the flags
    on the command line, their help and completion, the keyword of `mydocker.run`, the key in the config file, the
    row in ``mydocker subsystems``, and the path or annotation by which an engine passes it. A name or a flag
    that another plugin has is a `ConflictError` that names both.
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
    """Check the values against each other and against this host, before anything exists, and before an update.

    Raise `mydocker.LimitError(field, reason)` for a value that cannot be put in force, and its kind
    `mydocker.UnsupportedLimit` where this kernel or host lacks what the field needs; the core prefixes the flag
    that the user typed. With ``--limits best-effort`` an unsupported field is dropped with a warning, and the
    hook is called again without it. Creates nothing and writes nothing.
    """


@hookspec
def mydocker_amend(
    config: ResourceConfig, spec: Spec, layout: Layout, cgroup: ContainerCgroup
) -> Amendment | None:
    """Add mounts, variables, a bounded upper layer or work in the network namespace to the container.

    ``spec`` is what the user asked for. ``cgroup`` is there for its ``path``, by which ``remove`` finds what was made
    here. What two plugins both claim, or a plugin and the user, is a `ConflictError` that names both.
    """


@hookspec
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    """Make the cgroup of each controller that is needed (``cgroup.controller(name)``) and write the limits.

    No process is in the cgroup yet. Writing a kernel file that another plugin wrote for this container is
    a `ConflictError` that names both and the file. An `UnsupportedLimit` is treated as in ``validate``: with
    ``--limits best-effort`` the hook is called again without the field.
    """


@hookspec
def mydocker_account(cgroup: ContainerCgroup) -> None:
    """Make the cgroup of each controller that the figures of ``usage`` need, without a limit.

    Called after ``prepare``, and for a plugin of which no field is set in place of it, when figures were asked for
    (``--result``, ``--profile``, ``accounting=True``). A controller that this host lacks is passed over.
    """


@hookspec
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """Put the limit in force for the child: ``cgroup.attach(name, pid)``, ``prlimit``, and the like.

    ``pid`` is the child's, seen from the host. It waits to be handed its command and has not run a byte
    of it. When this returns, the limit is in force. What is not a file of the cgroup is claimed by
    ``cgroup.claim("rlimit nofile")``, so that two plugins do not set the same.
    """


@hookspec
def mydocker_watch(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> Iterable[Watch]:
    """Say what to look at while the container runs. Called once, right before the command is handed over.

    A plugin with an attribute ``MYDOCKER_SHARED_WATCH = True`` says that this hook needs nothing which another one, or
    the import, has left in the process, such as a descriptor, and that what is opened here is closed by ``Watch.close``
    and not in ``remove``. Under an engine one process then watches all containers that the same plugins watch, in place
    of one process for each. It calls this hook, and again for a container whose watching process was killed.
    """
    raise NotImplementedError


@hookspec
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """Change the limits of a running container from ``previous`` to ``config``, which was validated.

    Called by ``mydocker update`` in another process than the runtime's, for a plugin of which a field is new or
    has another value; ``cgroup.controller`` makes the container's cgroup where it has none, and moves its
    processes there. If this or another plugin raises, every kernel file that was written through ``cgroup`` gets its
    former content back, the last one first; ``cgroup.on_undo(function)`` adds what is to be undone otherwise. A
    plugin without this hook has limits that cannot be changed while the container runs.
    """


@hookspec
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> Mapping[str, Any]:
    """What the container used: at the end, after its last process; and as often as ``mydocker stats`` asks.

    Values that JSON can hold, with units in the names (``_bytes``, ``_seconds``). ``config`` may be without a
    field of this plugin (see ``account``); ``cgroup.has(name)`` says whether the container has a cgroup in the
    hierarchy of a controller. The names in `mydocker.result.STANDARD_FIGURES` also feed the `mydocker.Usage`. If
    this raises, the run has still happened: the error is put under the key ``error`` in place of the figures.
    """
    raise NotImplementedError


@hookspec
def mydocker_remove(cgroup: ContainerCgroup) -> None:
    """Undo what ``amend``, ``prepare`` and ``apply`` made outside the container's cgroup.

    The cgroup itself is removed by the core afterwards. Called after the end of the command, after a
    failed start, and for a plugin whose ``amend`` or ``prepare`` raised; not where all fields of the plugin that were
    ever set are ``traceless``. If this raises, the other plugins are still
    undone, and the error is a warning and one of the Result's notes. After that, and for a container whose runtime was
    killed, the next run calls it once, in another process, perhaps before ``amend`` has made anything.
    """


@hookspec
def mydocker_explain(config: ResourceConfig, layout: Layout) -> Iterable[str]:
    """What ``apply``, ``amend`` and ``watch`` would do apart from cgroup files, a line each, without doing it.

    For ``mydocker subsystems --explain -- run …``, which learns of cgroup files by calling ``prepare`` on an imitation
    of this host.
    """
    raise NotImplementedError
