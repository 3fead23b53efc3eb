"""The limits of one container, from the first look at the values to the last undo: every call of a plugin's hook.

The runner tells when; which plugins take part, in which order, what they may not both claim and what follows when
one fails is decided here.
"""

from __future__ import annotations

import os

from mydocker import hooks, logs
from mydocker.cgroups.layout import CORE
from mydocker.errors import CgroupDenied, CgroupError, ConflictError, MydockerError, PluginError, UnsupportedLimit
from mydocker.linux import process
from mydocker.resources import ResourceConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from mydocker.amendment import Amendment
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.hooks import Phase
    from mydocker.plugins import Plugin, Registry
    from mydocker.result import Usage
    from mydocker.spec import Spec
    from mydocker.watch import Watch


class Limits:
    """What was asked for, the plugins that put it in force, and what of it cannot be."""

    def __init__(
        self,
        config: ResourceConfig,
        registry: Registry | None,
        spec: Spec,
        layout: Layout,
        supervised: Callable[[Callable[[Phase], None]], None] = hooks.supervised,
    ) -> None:
        """``registry`` may be None if ``config`` is empty and no figures were asked for.

        ``supervised``: calls hooks, within a time.
        """
        self._supervised = supervised
        self.config = config
        #: with best-effort limits: field to the reason why it is not in force
        self.unenforced: dict[str, str] = {}
        #: descriptor of the mount for the overlay's upper layer, or -1
        self.upper = -1
        self._registry = registry
        self._spec = spec
        self._layout = layout
        self.cgroup: ContainerCgroup | None = None
        #: the cgroup, and what the plugins have been given of it
        self._views: tuple[ContainerCgroup | None, dict[str, ContainerCgroup]] = (None, {})
        self._network: list[tuple[Plugin, Callable[[int], None]]] = []
        self._to_undo: list[Plugin] = []
        #: whether somebody else may have changed them since
        self._updated = False
        #: place in the container to the plugin that mounts there
        self.mounted_by: dict[str, str] = {}

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Those that own a field which is set, and those that were asked for figures."""
        return self._owners() + self._accounting()

    def _owners(self, hook: str = "") -> tuple[Plugin, ...]:
        """`Registry.implementing`, of what is set."""
        return () if self._registry is None else self._registry.implementing(self.config, hook)

    def _accounting(self) -> tuple[Plugin, ...]:
        if self._registry is None or not self._spec.accounting:
            return ()
        owners = self._owners()
        return tuple(
            plugin for plugin in self._registry.plugins if "mydocker_account" in plugin.hooks and plugin not in owners
        )

    def _in_phase(self, work: Callable[[Phase], None], plugins: Iterable[Plugin]) -> None:
        """Do ``work``, which calls hooks of these plugins: in a thread and within a time, if one is not mydocker's own.

        Ours hang no more than the rest of mydocker does, and a thread for them is a good part of a short run.
        """
        if _are_own(plugins):
            work(hooks.UNSUPERVISED)
        else:
            self._supervised(work)

    @property
    def may_make_more(self) -> bool:
        """Whether a plugin may make a cgroup as late as when the child is there: mydocker's own do so before."""
        return not _are_own(self._owners("mydocker_apply"))

    def validate(self) -> None:
        """All plugins, before anything exists."""
        owners = self._owners("mydocker_validate")
        if owners:
            self._in_phase(self._validate_each, owners)

    def _validate_each(self, phase: Phase) -> None:
        assert self._registry is not None
        for plugin in self._owners("mydocker_validate"):
            self._attempt(phase, plugin, "mydocker_validate", layout=self._layout)

    def _attempt(self, phase: Phase, plugin: Plugin, hook: str, **arguments: Any) -> None:
        """Call the hook; with best-effort limits again and again, each time without what this host lacks."""
        while not self.unenforced or any(field.name in self.config for field in plugin.fields):
            try:
                self._call(phase, plugin, hook, config=self.config, **arguments)
                return
            except UnsupportedLimit as error:
                if self._spec.limits != "best-effort" or error.field not in self.config:
                    raise
                self._drop(error.field, error.reason)
            except CgroupDenied as error:  # the plugin cannot say for which of its fields it wanted one
                if self._spec.limits != "best-effort":
                    raise
                for field in plugin.fields:
                    if field.name in self.config:
                        self._drop(field.name, str(error))

    def _drop(self, field: str, reason: str) -> None:
        """Best effort: go on without a limit that cannot be put in force here."""
        logs.warning("%s: %s; the command runs without this limit", self.config.flag(field), reason)
        self.unenforced[field] = reason
        self.config = self.config.without(field)

    def _call(self, phase: Phase, plugin: Plugin, hook: str, **arguments: Any) -> Any:
        """The one place from which a hook is called."""
        assert self._registry is not None
        view = self._view(plugin.name)
        phase.begin(lambda: f"{plugin} was called in {hook}", view.abandon if view is not None else None)
        return self._registry.call(plugin, hook, cgroup=view, **arguments)

    def _view(self, name: str) -> ContainerCgroup | None:
        """The cgroup for this plugin. Another one, if the last was given to a hook that hangs."""
        if self.cgroup is None:
            return None
        of, views = self._views
        if of is not self.cgroup:
            of, views = self._views = (self.cgroup, {})
        view = views.get(name)
        if view is None or view.is_abandoned:
            view = views[name] = of.for_plugin(name)
        return view

    def prepare(self, cgroup: ContainerCgroup) -> Spec:
        """`amend`, and then `write`."""
        spec = self.amend(cgroup)
        self.write()
        return spec

    @property
    def amending(self) -> tuple[Plugin, ...]:
        """The plugins that want to amend the container."""
        return self._owners("mydocker_amend")

    @property
    def amending_makes(self) -> bool:
        """Whether one of these may make something, in the cgroup or elsewhere: mydocker's own only look at the rest."""
        return any(not plugin.is_own or "cgroup" in plugin.hooks["mydocker_amend"][1] for plugin in self.amending)

    @property
    def making_is_others(self) -> bool:
        """Whether a plugin may make something before the child is cloned that is not as mydocker's own have it."""
        return self.amending_makes or not _are_own(self._owners("mydocker_prepare"))

    def amend(self, cgroup: ContainerCgroup | None) -> Spec:
        """Let the plugins amend the container; the Spec as it is then. `undo` is owed from now on, whatever comes.

        ``cgroup``: None only if nothing is made (`amending_makes`).
        """
        self.cgroup = cgroup
        if self.amending:
            self._in_phase(self._amend_each, self.amending)
        return self._spec

    def write(self) -> None:
        """Let the plugins make the container's cgroup and write the limits."""
        self._in_phase(self._write_each, self.plugins)

    def _amend_each(self, phase: Phase) -> None:
        claims = _Claims(self._spec)
        for plugin in self.amending:
            self._will_undo(plugin)
            spec, layout = claims.spec, self._layout
            answer = self._call(phase, plugin, "mydocker_amend", config=self.config, spec=spec, layout=layout)
            if answer is not None:
                self._take(plugin, answer, claims)
                self.mounted_by.update((entry.destination, str(plugin)) for entry in answer.mounts)
        self._spec = claims.spec

    def _write_each(self, phase: Phase) -> None:
        for plugin in self._owners("mydocker_prepare"):
            self._will_undo(plugin)
            self._attempt(phase, plugin, "mydocker_prepare")
        for plugin in self.plugins if self._spec.accounting else ():
            if "mydocker_account" in plugin.hooks:
                self._will_undo(plugin)
                self._account(phase, plugin)

    def _account(self, phase: Phase, plugin: Plugin) -> None:
        """Have the plugin's figures counted. They are no limit: a plain user goes without those that need root."""
        try:
            self._call(phase, plugin, "mydocker_account")
        except CgroupError as error:
            if os.geteuid() == 0:
                raise
            logs.info("there are no figures of %s: %s", plugin, error)

    def _will_undo(self, plugin: Plugin) -> None:
        if plugin not in self._to_undo:
            self._to_undo.append(plugin)

    def _take(self, plugin: Plugin, amendment: Amendment, claims: _Claims) -> None:
        from mydocker.amendment import Amendment

        if not isinstance(amendment, Amendment):
            raise PluginError(f"{plugin} answered mydocker_amend with {amendment!r}, which is no mydocker.Amendment")
        if amendment.upper >= 0:
            if not _is_open(amendment.upper):
                raise PluginError(f"{plugin} has the upper layer by descriptor {amendment.upper}, which is not open")
            if self.upper >= 0:
                os.close(amendment.upper)
            else:
                self.upper = amendment.upper
        claims.add(plugin, amendment)
        if amendment.network is not None:
            self._network.append((plugin, amendment.network))

    def apply(self, pid: int) -> None:
        """Put all limits in force for the child, which waits, and do the work in its network namespace."""
        owners = self._owners("mydocker_apply")
        if owners:
            self._in_phase(lambda phase: self._apply_each(phase, pid), owners)
        if self._network:
            self._supervised(lambda phase: self._enter_network(phase, pid))

    def _apply_each(self, phase: Phase, pid: int) -> None:
        for plugin in self._owners("mydocker_apply"):
            self._will_undo(plugin)
            self._attempt(phase, plugin, "mydocker_apply", pid=pid)

    def _enter_network(self, phase: Phase, pid: int) -> None:
        """The thread enters the namespace, and ends with it."""
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            process.setns(namespace, process.CLONE_NEWNET)
        finally:
            os.close(namespace)
        for plugin, work in self._network:
            phase.begin(f"{plugin} was called in the container's network namespace")
            try:
                work(pid)
            except MydockerError:
                raise
            except BaseException as error:  # in this thread no Ctrl-C is raised
                from mydocker.plugins import error_text

                raise PluginError(f"{plugin} failed in the container's network: {error_text(error)}") from error

    @property
    def watching(self) -> tuple[Plugin, ...]:
        """The plugins that want to look at the container while it runs."""
        return tuple(self._owners("mydocker_watch"))

    def watched_elsewhere(self) -> None:
        """Another process asks the plugins for their `watches`. `undo` calls them as if this one had."""
        for plugin in self.watching:
            self._will_undo(plugin)

    def watches(self, pid: int) -> list[tuple[str, Watch]]:
        """What the plugins want to look at while the container runs, each with the name of its plugin for texts."""
        found: list[tuple[str, Watch]] = []
        owners = self._owners("mydocker_watch")
        if owners:
            try:
                self._in_phase(lambda phase: self._ask_for_watches(phase, pid, found), owners)
            except BaseException:
                if any(watch.close is not None for _, watch in found):
                    from mydocker.watching import Watcher

                    Watcher(found, hooks.timeout()).stop()
                raise
        return found

    def _ask_for_watches(self, phase: Phase, pid: int, found: list[tuple[str, Watch]]) -> None:
        from mydocker.watch import Watch

        for plugin in self._owners("mydocker_watch"):
            self._will_undo(plugin)
            answer = self._call(phase, plugin, "mydocker_watch", config=self.config, pid=pid)
            watches = tuple(answer) if isinstance(answer, (list, tuple)) else (answer,)
            for watch in watches:
                if not isinstance(watch, Watch):
                    raise PluginError(f"{plugin} answered mydocker_watch with {watch!r}, which is no mydocker.Watch")
                if watch.fd >= 0 and not _is_open(watch.fd):
                    raise PluginError(f"{plugin} watches the descriptor {watch.fd}, which is not open")
                found.append((str(plugin), watch))

    def count_pressure(self) -> None:
        """Have the kernel count for how long the container's tasks wait: it does so in v2 cgroups alone.

        Where the controllers are on v1, that is one cgroup more, to which the waiting child is moved: milliseconds.
        """
        if self.cgroup is not None and self._layout.find(CORE):
            try:
                self.cgroup.controller(CORE)
            except CgroupError as e:  # such as a v2 hierarchy that is mounted read-only
                logs.info("no pressure figures: %s", e)

    def reload(self, texts: Mapping[str, str | list[str]], path: str) -> None:
        """Take over what an update has put in force meanwhile: the limits, and what it made of the cgroup ``path``."""
        from mydocker.cgroups.group import ContainerCgroup

        self._updated = True
        try:
            if self._registry is None:
                from mydocker import plugins

                self._registry = plugins.load()
            self.config = self._registry.parse(texts)
            for plugin in self._owners("mydocker_remove"):
                self._will_undo(plugin)
        except MydockerError as e:  # such as a plugin that this process does not have: the command has run all the same
            logs.warning("the Result has the limits of the start: %s", e)
        if self.cgroup is None:
            self.cgroup = ContainerCgroup.opened(self._layout, path)
        else:
            self.adopt()

    def adopt(self) -> None:
        """`undo` will take it that somebody else, an update or a pause, has made more of the cgroup and elsewhere."""
        self._updated = True
        if self.cgroup is not None:
            self.cgroup.adopt()

    def usage_at_end(self, cpu_user: float, cpu_system: float, *, wanted: bool = True) -> Usage:
        """The figures of the plugins after the last process; a plugin that has failed is logged.

        ``wanted``: whether somebody looks at them. If not, mydocker's own plugins are not asked: others may do more
        than to read figures.
        """
        usage = self.usage(cpu_user, cpu_system, wanted=wanted)
        for figures in usage.plugins.values():
            if "error" in figures:
                logs.warning("%s", figures["error"])
        return usage

    def usage_later(self, cpu_user: float, cpu_system: float) -> Callable[[], Usage] | None:
        """What gives the same as `usage` when the cgroup is removed (`mydocker.cgroups.read_ahead`), in any thread.
        None if a plugin is another's: that may do more than to read files of the cgroup.
        """
        plugins, registry, config = self.plugins, self._registry, self.config
        if self.cgroup is None or registry is None or not _are_own(plugins):
            return None
        cgroup = self.cgroup.remembered()

        def usage() -> Usage:
            from mydocker.result import Usage

            figures = {}
            for plugin in plugins:
                view = cgroup.for_plugin(plugin.name)
                figures[plugin.name] = _figures(
                    plugin, lambda hook: registry.call(plugin, hook, cgroup=view, config=config)  # noqa: B023
                )
            return Usage.of(figures, cpu_user, cpu_system)

        return usage

    def usage(self, cpu_user: float = 0.0, cpu_system: float = 0.0, *, wanted: bool = True) -> Usage:
        """The figures of the plugins, also while the container runs. See `Usage.of` and `usage_at_end`."""
        from mydocker.result import Usage  # none of an engine's containers as it is made

        figures: dict[str, Any] = {}
        plugins = self.plugins if self.cgroup is not None else ()
        waiting = [plugin for plugin in plugins if wanted or not plugin.is_own]
        while waiting:
            try:
                self._in_phase(lambda phase: self._ask_for_figures(phase, waiting, figures), waiting)
            except PluginError as e:  # one hangs: the others are still asked
                figures[waiting.pop(0).name] = {"error": str(e)}
        return Usage.of(figures, cpu_user, cpu_system)

    def _ask_for_figures(self, phase: Phase, waiting: list[Plugin], figures: dict[str, Any]) -> None:
        while waiting:
            plugin = waiting[0]
            found = _figures(plugin, lambda hook: self._call(phase, plugin, hook, config=self.config))  # noqa: B023
            if phase.abandoned:
                return
            figures[plugin.name] = found
            waiting.pop(0)

    def traceless(self) -> list[str]:
        """The fields that are set and leave nothing but the cgroup: `undo` calls nobody for them."""
        return [
            field.name
            for plugin in self._owners()
            for field in plugin.fields
            if field.name in self.config and (field.traceless or "mydocker_remove" not in plugin.hooks)
        ]

    @property
    def is_in_cgroups_only(self) -> bool:
        """Whether there are limits, all mydocker's own, and all in force by the container's own cgroups alone."""
        plugins = self._owners()
        if not plugins or self._spec.accounting or not _are_own(plugins):
            return False
        return len(self.traceless()) == len(self.config)

    def _is_traceless(self, plugin: Plugin) -> bool:
        """Whether all that was ever set of the plugin is in force by the container's own cgroup alone."""
        fields = [field for field in plugin.fields if field.name in self.config or field.name in self.unenforced]
        return bool(fields) and all(field.traceless for field in fields)

    def undo(self) -> None:
        """Undo what the plugins made, the last one first, and remove the cgroup. Raises the first error at the end."""
        failed: list[MydockerError] = []
        try:
            if self.upper >= 0:
                os.close(self.upper)
        except OSError as e:  # the plugin has closed what it gave away
            failed.append(PluginError(f"the descriptor of the overlay's upper layer cannot be closed: {e.strerror}"))
        self.upper = -1
        all_of_them = self._updated or self._spec.accounting
        waiting = [
            plugin
            for plugin in reversed(self._to_undo)
            if "mydocker_remove" in plugin.hooks and (all_of_them or not self._is_traceless(plugin))
        ]
        try:
            while waiting:
                try:
                    self._in_phase(lambda phase: self._undo_each(phase, waiting, failed), waiting)
                except PluginError as e:
                    failed.append(e)
        except BaseException:  # an interrupt in one of ours
            if waiting:
                self._supervised(lambda phase: self._undo_each(phase, waiting, failed))
            raise
        finally:
            if self.cgroup is not None:
                self.cgroup.remove()
        for error in failed[1:]:
            logs.warning("%s", error)
        if failed:
            raise failed[0]

    def _undo_each(self, phase: Phase, waiting: list[Plugin], failed: list[MydockerError]) -> None:
        while waiting and not phase.abandoned:
            plugin = waiting.pop(0)
            try:
                self._call(phase, plugin, "mydocker_remove")
            except MydockerError as e:
                failed.append(e)
            except BaseException:  # an interrupt: it is still to be done
                waiting.insert(0, plugin)
                raise


class _Claims:
    """Who adds what to the container: two that claim the same are a conflict."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._mounts = {_place(entry.destination): "--volume or --tmpfs" for entry in spec.mounts}
        self._variables = {_key(entry): "--env" for entry in (*(spec.env or ()), *spec.extra_env)}
        self._upper = ""

    def add(self, plugin: Plugin, amendment: Amendment) -> None:
        """Put what the plugin adds into the Spec. ConflictError for what is claimed, PluginError for what cannot be."""
        for entry in amendment.mounts:
            place = _place(entry.destination)
            self._claim(plugin, self._mounts, place, f"mount on {place}")
        for variable in amendment.env:
            name = _key(variable)
            self._claim(plugin, self._variables, name, f"set the variable {name}")
        if amendment.upper >= 0:
            if self._upper:
                raise ConflictError(f"{self._upper} and {plugin} both provide the overlay's upper layer: use one")
            if not self.spec.overlay:
                raise PluginError(f"{plugin} provides an upper layer, and this container has no overlay: add --overlay")
            self._upper = str(plugin)
        if amendment.network is not None and self.spec.network == "host":
            raise PluginError(f"{plugin} works in the container's own network, and --network host gives it none")
        if amendment.network is not None and os.geteuid() != 0:
            # setns(2) takes CAP_SYS_ADMIN in the caller's own user namespace, and this process is not to leave it.
            raise PluginError(f"{plugin} works in the container's own network, which takes root: run mydocker as root")
        # What is mounted below another mount comes after it.
        mounts = sorted((*self.spec.mounts, *amendment.mounts), key=lambda entry: entry.destination.count("/"))
        self.spec = self.spec.replace(mounts=tuple(mounts), extra_env=(*self.spec.extra_env, *amendment.env))

    @staticmethod
    def _claim(plugin: Plugin, claimed: dict[str, str], name: str, deed: str) -> None:
        if name in claimed:
            raise ConflictError(f"{claimed[name]} and {plugin} both {deed}: leave one of them out")
        claimed[name] = str(plugin)


def _figures(plugin: Plugin, call: Callable[[str], object]) -> dict[str, Any]:
    """What the plugin has counted, or why there is nothing. ``call`` calls a hook of it."""
    from mydocker.result import checked_figures

    try:
        return checked_figures(str(plugin), call("mydocker_usage"))
    except MydockerError as e:
        return {"error": str(e)}


def _are_own(plugins: Iterable[Plugin]) -> bool:
    """Whether all came with mydocker."""
    for plugin in plugins:  # noqa: SIM110 (asked a dozen times in a run, and a generator is one call more for each)
        if not plugin.is_own:
            return False
    return True


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _place(destination: str) -> str:
    """One spelling of a place in the container: ``/tmp/`` and ``/tmp/../tmp`` are ``/tmp``."""
    return "/" + os.path.normpath(destination).lstrip("/") if destination.startswith("/") else destination


def _key(variable: bytes) -> str:
    return os.fsdecode(variable.partition(b"=")[0])
