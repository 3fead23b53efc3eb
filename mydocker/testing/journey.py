"""`Journey`: one container's limits on a `FakeHost`, called by the very code that a run calls them by."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mydocker import Amendment, PluginError, UsageError
from mydocker.cgroups.group import ContainerCgroup
from mydocker.limits import Limits
from mydocker.plugin_discovery import discover
from mydocker.plugins import GROUP, Registry, Selection
from mydocker.spec import Spec
from mydocker.watch import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from mydocker import ResourceConfig, Usage, Watch
    from mydocker.hooks import Phase
    from mydocker.plugins import Plugin
    from mydocker.testing.host import FakeHost


class Journey:
    """A container that runs on ``host`` under the limits of ``plugins``, from its start to `end`.

    To make one takes the limits through discovery, parse, validate, amend, prepare, apply and watch; what raises there
    raises here, and what was made is undone. The container's first process, ``pid``, is a real one, which waits: what
    ``prlimit`` or ``setpriority`` did to it can be looked at. As a context manager it ends with the block::

        with Journey(host, mydocker_tasks, tasks="5") as container:
            assert container.written["pids.max"] == "5"
            container.report("pids.events", {"max": 3})
        assert container.usage == {"refused_forks": 3}

    ``plugins`` are modules, objects with hooks that stand in a module, or their names as an entry point has them,
    ``module`` or ``module:object``. The keywords are those of `mydocker.run`: fields of the plugins, and what the
    `Spec` has (``overlay=True``, ``limits="best-effort"``).

    Work in the network namespace (``Amendment.network``) is not done: there is no such namespace.

    ``config``      the limits that are in force; ``unenforced``: with best-effort those that are not, and why.
    ``spec``        the container as the plugins amended it; ``amendments``: what each returned, by the plugin's name.
    ``watches``     what ``mydocker_watch`` returned, of all plugins.
    ``usage``       at the end: what ``mydocker_usage`` of the first plugin returned; ``figures``: the `mydocker.Usage`.
    """

    def __init__(self, host: FakeHost, *plugins: Any, path: str = "mydocker/test", **values: Any) -> None:
        self.host = host
        self.path = path
        self.registry = registry_of(*plugins)
        given = {name: values.pop(name) for name in [*values] if name in Spec._fields}
        self._texts = {name: value for name, value in values.items() if value is not None}
        self._limits = _Rehearsal(self._parse(), self.registry, Spec(args=(b"true",), **given), host.layout)
        self.usage: Mapping[str, Any] = {}
        self.figures: Usage | None = None
        self.watches: list[Watch] = []
        self._watches: list[tuple[str, Watch]] = []
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._limits.validate()
        try:
            self.spec = self._limits.prepare(ContainerCgroup(host.layout, path))
            self._process = _start()
            self.pid = self._process.pid
            self._limits.apply(self.pid)
            self.cgroup.runs(self.pid)
            self._watches = self._limits.watches(self.pid)
            self.watches = [watch for _, watch in self._watches]
        except BaseException:
            self._stop()
            raise

    def _parse(self) -> ResourceConfig:
        return self.registry.parse(self._texts, {name: self.registry.field(name)[0].flags[0] for name in self._texts})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.end()
        else:
            self._stop()

    @property
    def cgroup(self) -> ContainerCgroup:
        """The container's cgroup."""
        assert self._limits.cgroup is not None
        return self._limits.cgroup

    @property
    def config(self) -> ResourceConfig:
        return self._limits.config

    @property
    def unenforced(self) -> Mapping[str, str]:
        return self._limits.unenforced

    @property
    def amendments(self) -> Mapping[str, Amendment]:
        return self._limits.amendments

    @property
    def written(self) -> dict[str, str]:
        """The kernel files of the container's cgroup that were written, each with the value that was written last.

        Without ``cgroup.procs``: see `attached`.
        """
        return {
            write.name: write.value
            for write in self.host.writes
            if os.path.dirname(write.path).endswith(f"/{self.path}") and write.name not in ("cgroup.procs", "tasks")
        }

    def attached(self, controller: str) -> bool:
        """Whether the container's process is in its cgroup in the hierarchy of ``controller``."""
        return self.host.cgroup_of(self.pid, controller) == self.path

    def version(self, controller: str) -> int | None:
        """The cgroup version, 1 or 2, that ``controller`` has on this host; None if it has none."""
        return self.host.layout.version(controller)

    def read(self, file: str) -> str:
        """What a kernel file of the container's cgroup holds: the value as the kernel keeps it."""
        return self.host.read(f"{self.path}/{file}")

    def report(self, file: str, value: object) -> None:
        """Let a kernel file of the container's cgroup tell something: see `FakeHost.report`."""
        self.host.report(f"{self.path}/{file}", value)

    def look(self) -> list[Verdict | float | None]:
        """Call the check of every watch once; the answers. `PluginError` for an answer that is none."""
        answers = []
        for owner, watch in self._watches:
            answer = watch.check()
            if answer is not None and not isinstance(answer, (Verdict, int, float)):
                raise PluginError(f"{owner}: a check returned {answer!r}, which is no verdict, no number and not None")
            if isinstance(answer, Verdict) and answer.problem():
                raise PluginError(f"{owner}: a check returned a verdict that is none: {answer.problem()}")
            answers.append(answer)
        return answers

    def update(self, **values: Any) -> None:
        """Change the limits as ``mydocker update`` does. What raises leaves the files as they were before."""
        previous, former = self.config, self._texts
        self._texts = {**former, **values}
        try:
            config = self._parse()
            self._change(previous, config)
        except BaseException:
            self._texts = former
            raise
        self._limits.config = config

    def _change(self, previous: ResourceConfig, config: ResourceConfig) -> None:
        owners = self.registry.owners(config)
        changed = [plugin for plugin in owners if _differ(plugin, previous, config)]
        for plugin in self.registry.owners(config, "mydocker_validate"):
            self.registry.call(plugin, "mydocker_validate", config=config, layout=self.host.layout)
        for plugin in changed:
            if "mydocker_update" not in plugin.hooks:
                raise UsageError(f"{plugin} has no mydocker_update: its limits cannot change while the container runs")
        cgroup = ContainerCgroup.opened(self.host.layout, self.path, self.pid)
        cgroup.begin_update()
        try:
            for plugin in changed:
                arguments = {"config": config, "previous": previous, "pid": self.pid}
                self.registry.call(plugin, "mydocker_update", cgroup=cgroup.for_plugin(plugin.name), **arguments)
        except BaseException:
            cgroup.undo()
            raise

    def end(self) -> None:
        """The command ends: usage and remove. Fine to call again.

        `PluginError` if a usage hook raised; AssertionError if something of the container's cgroup is left.
        """
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self.host.end(self.pid)
        self.figures = self._limits.usage()
        self.usage = next(iter(self.figures.plugins.values()), {})
        self._stop()
        for name, own in self.figures.plugins.items():
            if set(own) == {"error"}:
                raise PluginError(f"the usage of {name}: {own['error']}")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
            self.host.end(self.pid)
        watches, self._watches = self._watches, []
        for _, watch in watches:
            if watch.close is not None:
                watch.close()
        self._limits.undo()
        left = [path for path in self.host.directories if path.endswith(f"/{self.path}")]
        assert not left, f"these cgroups are left: {', '.join(left)}"


def _start() -> subprocess.Popen[bytes]:
    """A process that waits. It has answered once: in the midst of execve(2) the kernel still sets RLIMIT_STACK."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"x")
    process.stdin.flush()
    process.stdout.read(1)
    return process


class _Rehearsal(Limits):
    """The limits of a container that has no namespaces."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.amendments: dict[str, Amendment] = {}

    def _take(self, plugin: Plugin, amendment: Amendment, claims: Any) -> None:
        # Only root can do the work in the network, which is not done here: so it is no reason to refuse the amendment.
        at_work = os.geteuid() == 0 or self._spec.network == "host"
        taken = amendment if at_work or not isinstance(amendment, Amendment) else amendment.replace(network=None)
        super()._take(plugin, taken, claims)
        self.amendments[plugin.name] = amendment

    def _enter_network(self, phase: Phase, pid: int) -> None:
        """Not done: the process that stands in for the container's is in the network of the tests."""


def _differ(plugin: Plugin, previous: ResourceConfig, config: ResourceConfig) -> bool:
    return any(previous.get(field.name) != config.get(field.name) for field in plugin.fields)


def registry_of(*plugins: Any) -> Registry:
    """The registry of these plugins alone, after all the checks that discovery makes.

    A plugin has the name and the version under which it is installed, else the name of its module.
    """
    points = sorted((_entry_point(plugin) for plugin in plugins), key=lambda point: point.name)
    return Registry(discover(Selection(), points))


def _entry_point(plugin: Any) -> importlib.metadata.EntryPoint:
    target = _target(plugin)
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.value.replace(" ", "") == target:
            return point
    module = target.partition(":")[0].rpartition(".")[2]
    return importlib.metadata.EntryPoint(module.removeprefix("mydocker_"), target, GROUP)


def _target(plugin: Any) -> str:
    """The plugin as an entry point names it."""
    if isinstance(plugin, str):
        return plugin
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    module = sys.modules.get(type(plugin).__module__)
    for name, value in vars(module).items() if module is not None else ():
        if value is plugin:
            return f"{type(plugin).__module__}:{name}"
    raise TypeError(f"{plugin!r} is no plugin: give a module, or an object that a module has under some name")
