"""The limits that are installed: whether each plugin loads, and whether it says that it can work here.

Plugins are other people's code: each is loaded and asked in a child, so that none that hangs or ends the process
keeps the others from being seen.
"""

from __future__ import annotations

import importlib.metadata

from mydocker import config as configuration
from mydocker import plugin_cache
from mydocker.doctor import trials
from mydocker.doctor.cgroups import may_use
from mydocker.doctor.check import missing, not_needed, ok, warning
from mydocker.errors import PluginError, UsageError
from mydocker.plugins import DISABLE_VARIABLE, GROUP, Registry, Selection
from mydocker.resources import Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mydocker.cgroups.layout import Layout
    from mydocker.doctor.check import Check
    from mydocker.doctor.host import Host
    from mydocker.doctor.trials import Outcome
    from mydocker.plugins import Plugin, Table

#: Seconds for one plugin to be imported and to answer.
PATIENCE = 10.0
MOST_FLAGS = 4


def checks(host: Host) -> Iterator[Check]:
    try:
        selection = Selection.of(configuration.load())
    except UsageError:
        selection = Selection()  # the check of the configuration says what is wrong with it
    registry, broken = installed(selection)
    for name, problem in broken.items():
        yield missing(name, problem, f"no run works until it is mended or removed, or {DISABLE_VARIABLE}={name} is set")
    for plugin in registry.plugins:
        outcome = trials.forked(lambda plugin=plugin: probed(registry, plugin, host.layout), PATIENCE)  # type: ignore[misc]
        yield check(host, plugin, outcome)
    if not registry.plugins and not broken:
        yield warning("limits", f"no package here has an entry point of the group {GROUP}", "install mydocker anew")
    unknown = sorted({*selection.disabled, *(selection.allowed or ())}.difference(_names()))
    if unknown:
        fact = f"{', '.join(unknown)}: no plugin has the name that {DISABLE_VARIABLE} or the configuration file gives"
        yield warning("unknown names", fact, "look at the first column of mydocker subsystems")
    turned_off = [name for name in _names() if not selection.has(name)]
    if turned_off:
        yield not_needed("turned off", f"{', '.join(turned_off)}, by {DISABLE_VARIABLE} or the configuration file")


def _names() -> list[str]:
    return sorted({point.name for point in importlib.metadata.entry_points(group=GROUP)})


def installed(selection: Selection) -> tuple[Registry, dict[str, str]]:
    """The plugins that load, and why each of the others does not.

    As `mydocker.plugins.load`, which stops at the first that does not, and keeps what it found.
    """
    outcome = trials.forked(lambda: plugin_cache.read(selection) or _discovered(selection), PATIENCE * 3)
    if outcome.ok:
        return Registry(outcome.value), {}
    broken: dict[str, str] = {}
    table: Table = ()
    accepted: tuple[str, ...] = ()
    for name in filter(selection.has, _names()):
        # With those before it: of two that claim the same flag, each is in order alone.
        tried = Selection(disabled=selection.disabled, allowed=(*accepted, name))
        outcome = trials.forked(lambda tried=tried: _discovered(tried), PATIENCE)  # type: ignore[misc]
        if outcome.ok:
            table = outcome.value
            accepted = (*accepted, name)
        else:
            broken[name] = outcome.text
    return Registry(table), broken


def _discovered(selection: Selection) -> Table:
    from mydocker.plugin_discovery import discover

    return discover(selection)


def probed(registry: Registry, plugin: Plugin, layout: Layout) -> tuple[object, ...] | None:
    """For a child: the plugin's answer as plain values."""
    answer = registry.call(plugin, "mydocker_probe", layout=layout)
    if answer is None:
        return None
    if not isinstance(answer, Probe):
        raise PluginError(f"{plugin} answered mydocker_probe with {answer!r}, which is no mydocker.Probe")
    return tuple(answer.controllers), answer.version, tuple(answer.files), answer.problem


def check(host: Host, plugin: Plugin, outcome: Outcome) -> Check:
    """What came of loading the plugin and calling its ``mydocker_probe``."""
    flags = _flags(plugin)
    origin = f"{plugin.dist} {plugin.version}, {flags}"
    if not outcome.ok:
        return missing(
            plugin.name,
            f"{plugin} did not say whether it works here: {outcome.text}",
            f"report it to whoever maintains {plugin.dist}; runs without {flags} do not call it",
        )
    if outcome.value is None:
        return ok(plugin.name, f"{origin}; it does not say what it needs")
    controllers, version, _files, problem = outcome.value
    if problem:
        return missing(plugin.name, f"{flags} cannot be used: {problem}", "runs without them are not affected")
    closed = [name for name in controllers if (place := host.layout.find(name)) and not may_use(host, place)]
    if closed:
        fact = f"{flags} cannot be used by {host.user}, who may not make cgroups for {', '.join(closed)}"
        return missing(plugin.name, fact, "see delegation")
    where = f", on v{version}" if version else ""
    return ok(plugin.name, f"{origin}; by {', '.join(controllers)}{where}" if controllers else origin)


def _flags(plugin: Plugin) -> str:
    """The first of each field, and not more of them than a line can show."""
    flags = [field.flags[0] for field in plugin.fields]
    return ", ".join(flags) if len(flags) <= MOST_FLAGS else f"{', '.join(flags[:MOST_FLAGS - 1])} and others"
