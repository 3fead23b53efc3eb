"""What a run would do, told without doing it: for ``mydocker subsystems --explain``.

The limits are validated on this host. Then each plugin's prepare is called on an imitation of it, which notes what is
made and written; amend, apply and watch are not called: a plugin tells of them by ``mydocker_explain``.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from mydocker import hooks
from mydocker.cgroups.group import DEFAULT_PARENT
from mydocker.errors import LimitError, MydockerError, PluginError
from mydocker.limits import Limits
from mydocker.testing.host import FakeHost
from mydocker.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mydocker.cgroups.layout import Layout
    from mydocker.hooks import Phase
    from mydocker.plugins import Plugin, Registry
    from mydocker.resources import ResourceConfig
    from mydocker.spec import Spec

#: Stands for the name of a container that has none yet.
SOME_NAME = "<id>"

#: What a plugin may do besides writing the files of the cgroup, and what is said where it does not say it itself.
_UNTOLD = {
    "mydocker_amend": "amends the container before it is cloned",
    "mydocker_apply": "works on the command's first process",
    "mydocker_watch": "watches the container while it runs",
}


class Step(Value):
    """One thing that is done to the cgroups: ``make`` a directory or ``write`` a file."""

    action: str
    path: str
    value: str = ""


class Part(Value):
    """What one plugin does. ``limits``: field to what was asked for. ``lines``: what it says itself."""

    plugin: Plugin
    limits: Mapping[str, Any]
    steps: tuple[Step, ...]
    lines: tuple[str, ...]


class Explanation(Value):
    """``cgroups``: the directories that the command's first process is in. ``notes``: what is in the way here."""

    namespaces: tuple[str, ...]
    cgroups: tuple[str, ...]
    parts: tuple[Part, ...]
    unenforced: Mapping[str, str]
    notes: tuple[str, ...]


def explain(spec: Spec, config: ResourceConfig, registry: Registry, layout: Layout) -> Explanation:
    """Raises what the run would raise before its clone."""
    path = f"{spec.cgroup_parent or DEFAULT_PARENT}/{spec.name or SOME_NAME}"
    planned = _Planned(config, registry, spec, layout)
    planned.validate()
    scratch = tempfile.TemporaryDirectory(prefix="mydocker-explain-")
    with scratch as directory, FakeHost.like(layout, directory, path) as host:
        planned.rehearse(host, path)
    return Explanation(
        namespaces=_namespaces(spec),
        cgroups=tuple(planned.cgroups),
        parts=tuple(planned.part(plugin) for plugin in planned.plugins),
        unenforced=planned.unenforced,
        notes=_notes(layout, planned.cgroups),
    )


def _namespaces(spec: Spec) -> tuple[str, ...]:
    own = () if os.geteuid() == 0 else ("user",)
    network = ("network",) if spec.network == "none" else ()
    return (*own, "mount", "uts", "ipc", "pid", *network, "cgroup")


def _notes(layout: Layout, cgroups: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"this user may not make cgroups in {hierarchy.base}: the run needs root, or a delegated cgroup"
        for hierarchy in layout.hierarchies
        if any(path.startswith(f"{hierarchy.base}/") for path in cgroups) and not os.access(hierarchy.base, os.W_OK)
    )


class _Planned(Limits):
    """The limits of a container that is not made: prepare on an imitated host, and nothing else."""

    def __init__(self, config: ResourceConfig, registry: Registry, spec: Spec, layout: Layout) -> None:
        super().__init__(config, registry, spec, layout)
        self.cgroups: list[str] = []
        self._steps: dict[str, list[Step]] = {}
        self._lines: dict[str, tuple[str, ...]] = {}
        self._host: FakeHost | None = None

    def rehearse(self, host: FakeHost, path: str) -> None:
        self._host = host
        try:
            try:
                self.prepare(host.cgroup(path))
                assert self.cgroup is not None
                self.cgroups = [host.real_path(f"{directory}/").rstrip("/") for directory in self.cgroup.dirs]
                hooks.supervised(self._ask_for_lines)
            finally:
                self.undo()
        except MydockerError as error:
            raise _of_the_real_host(error, host) from None

    def _amend_each(self, phase: Phase) -> None:
        """Not called: it may make mounts and files."""

    def _call(self, phase: Phase, plugin: Plugin, hook: str, **arguments: Any) -> Any:
        if self._host is None or hook not in ("mydocker_prepare", "mydocker_account"):
            return super()._call(phase, plugin, hook, **arguments)
        made, written = len(self._host.made), len(self._host.writes)
        try:
            return super()._call(phase, plugin, hook, **arguments)
        finally:
            real = self._host.real_path
            steps = [Step(action="make", path=real(path)) for path in self._host.made[made:]]
            steps += [
                Step(action="write", path=real(write.path), value=write.value) for write in self._host.writes[written:]
            ]
            # A hook that is called again, without what this host lacks, does its work a second time.
            self._steps[plugin.name] = [*(s for s in self._steps.get(plugin.name, ()) if s.action == "make"), *steps]

    def _ask_for_lines(self, phase: Phase) -> None:
        for plugin in self.plugins:
            if "mydocker_explain" not in plugin.hooks:
                continue
            answer = super()._call(phase, plugin, "mydocker_explain", config=self.config, layout=self._layout)
            several = isinstance(answer, (list, tuple))
            lines = tuple(answer) if several else () if answer is None else (answer,)
            if not all(isinstance(line, str) for line in lines):
                raise PluginError(f"{plugin} answered mydocker_explain with {answer!r}, which is no list of lines")
            self._lines[plugin.name] = lines

    def part(self, plugin: Plugin) -> Part:
        steps = tuple(self._steps.get(plugin.name, ()))
        lines = self._lines.get(plugin.name)
        if lines is None:
            lines = tuple(
                f"{told} ({hook}); it does not tell how"
                for hook, told in _UNTOLD.items()
                # Where there is a cgroup, it is for the process to be in it.
                if hook in plugin.hooks and not (hook == "mydocker_apply" and steps)
            )
        names = [field.name for field in plugin.fields if field.name in self.config]
        limits = {name: self.config.texts.get(name, str(self.config[name])) for name in names}
        return Part(plugin=plugin, limits=limits, steps=steps, lines=lines)


def _of_the_real_host(error: MydockerError, host: FakeHost) -> MydockerError:
    """The same error, with the paths of the imitation replaced by those that they stand for."""
    error.args = tuple(host.real_path(one) if isinstance(one, str) else one for one in error.args)
    if isinstance(error, LimitError):
        error.reason = host.real_path(error.reason)
    return error
