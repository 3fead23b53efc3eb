"""What the limits of a container made outside of its cgroup, undone without its runtime.

The runtime's own end calls ``mydocker_remove`` by `mydocker.limits`; this is for `mydocker.state.recover`, and for
`mydocker.oci.delete`: an engine's container has no runtime that lives as long as it does.
"""

from __future__ import annotations

from mydocker import hooks, logs, plugins
from mydocker.cgroups.group import ContainerCgroup
from mydocker.errors import MydockerError, PluginError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mydocker.cgroups.layout import Layout
    from mydocker.plugins import Plugin, Registry


def undo(name: str, limits: Iterable[str], layout: Layout, path: str) -> None:
    """Call ``mydocker_remove`` of the plugins that own ``limits`` of the container ``name``, whose cgroup is ``path``.

    The last one first, as at the end of a run. What fails is a warning, and is not tried again: a plugin that cannot
    would hold up every run from now on.
    """
    try:
        registry = plugins.load()
    except MydockerError as error:
        logs.warning("what the limits of container %s made is not undone: %s", name, error)
        return
    waiting = [plugin for plugin in reversed(_owners(name, limits, registry)) if "mydocker_remove" in plugin.hooks]
    cgroup = ContainerCgroup.opened(layout, path)
    while waiting:
        try:
            hooks.supervised(lambda phase: _call_each(phase, name, waiting, registry, cgroup))
        except PluginError as error:  # it hangs, and the others are still called
            _say_not_undone(name, error)


def _owners(name: str, limits: Iterable[str], registry: Registry) -> list[Plugin]:
    owners: dict[str, Plugin] = {}
    for field in limits:
        try:
            plugin = registry.field(field)[1]
        except UsageError:
            logs.warning("container %s had the limit %s, of a plugin that is not here to undo it", name, field)
            continue
        owners[plugin.name] = plugin
    return [owners[plugin] for plugin in sorted(owners)]


def _call_each(
    phase: hooks.Phase, name: str, waiting: list[Plugin], registry: Registry, cgroup: ContainerCgroup
) -> None:
    while waiting:
        plugin = waiting.pop(0)
        view = cgroup.for_plugin(plugin.name)
        phase.begin(f"{plugin} was called in mydocker_remove", view.abandon)
        try:
            registry.call(plugin, "mydocker_remove", cgroup=view)
        except MydockerError as error:
            _say_not_undone(name, error)


def _say_not_undone(name: str, error: MydockerError) -> None:
    logs.warning("what a limit of container %s made is not undone: %s", name, error)
