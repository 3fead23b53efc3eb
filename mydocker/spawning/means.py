"""What one run finds out and the next one need not: `mydocker.runner.Means` of a program that makes many containers."""

from __future__ import annotations

import _thread
import os
import sys

from mydocker import plugins
from mydocker.cgroups import layout
from mydocker.cgroups.read_ahead import ReadAhead
from mydocker.crew import Crew
from mydocker.result import Usage, UsageLater
from mydocker.runner import Means
from mydocker.spawning.client import Helper, NoHelper
from mydocker.spawning.mount_watch import MountWatch, mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from mydocker import seccomp
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.child import Child
    from mydocker.config import Config
    from mydocker.hooks import Phase
    from mydocker.plan import Plan
    from mydocker.plugins import Registry
    from mydocker.spawning.client import Order
    from mydocker.spec import Spec

    T = TypeVar("T")


class SharedMeans(Means):
    """One helper, one crew of threads for hooks, the last layout and filters: looked at again where they may change.

    For threads; what they find out twice at the same time is the same.
    """

    late = True

    def __init__(self) -> None:
        self.helper = Helper(self._rest)
        self.crew = Crew()
        self._lock = _thread.allocate_lock()
        self._mounts = MountWatch()
        #: when `_layout` was read, or since
        self._mountinfo: bytes | None = None
        self._layout: Layout | None = None
        self._cgroups = b""
        self._read_ahead = ReadAhead()
        self._registry: tuple[object, Registry] | None = None
        self._filters: dict[tuple[str, int, bool], seccomp.Filter | None] = {}

    def layout(self) -> Layout:
        with self._lock:
            cgroups = layout.own_cgroups()
            same = self._layout is not None and cgroups == self._cgroups
            if self._mounts.changed():
                mounts = mountinfo()
                self.helper.mounts_changed(mounts)
                same = same and mounts is not None and mounts == self._mountinfo
                self._mountinfo = mounts
            if self._layout is None or not same:
                self._layout, self._cgroups = layout.Layout.read(), cgroups
                self._read_ahead = ReadAhead()
            return self._layout

    def registry(self, configuration: Config) -> Registry:
        """The plugins that are installed and that the configuration file allows.

        What is imported stays as it is while the program runs, so that they are looked for again only where a package
        may have been installed or removed, or the selection is another.
        """
        places = (os.environ.get(plugins.DISABLE_VARIABLE), *((path, _changed(path)) for path in sys.path))
        known = self._registry
        if known is None or known[0] != (configuration, places):
            found = plugins.load(configuration)
            if known is not None and (found.table, found.config) == (known[1].table, known[1].config):
                found = known[1]  # Results may hold it
            self._registry = known = ((configuration, places), found)
        return known[1]

    def filter(self, spec: Spec, capabilities: int) -> seccomp.Filter | None:
        if spec.seccomp not in ("default", "unconfined"):
            return super().filter(spec, capabilities)  # a file that may change
        key = (str(spec.seccomp), capabilities, spec.privileged)
        if key not in self._filters:
            self._filters[key] = super().filter(spec, capabilities)
        return self._filters[key]

    def clone(self, plan: Plan, namespaces: int, child: Child) -> Callable[[], bool]:
        try:
            return self.helper.clone(plan, namespaces, child, self._cgroups)
        except NoHelper:
            return super().clone(plan, namespaces, child)

    def take_spare(self, plan: Plan, namespaces: int, child: Child) -> bool:
        return self.helper.take_spare(plan, namespaces, child, self._cgroups)

    def prepare_order(self, plan: Plan, namespaces: int, entered: tuple[str, ...] | None) -> Order | None:
        if self._layout is None:
            return None
        return self.helper.prepare_order(plan, namespaces, self._layout, self._cgroups, self._mountinfo, entered)

    def set_up_by_interpreter(self, plan: Plan, namespaces: int, number: int) -> None:
        self.helper.set_up_by_interpreter(plan, namespaces, number)

    def abandon(self, child: Child) -> None:
        self.helper.abandon(child)

    def figures(
        self,
        cgroup: ContainerCgroup,
        kind: tuple[str, ...],
        read: Callable[[], Usage],
        later: Callable[[], Usage] | None,
    ) -> Usage | UsageLater:
        found = self._read_ahead.during(cgroup.dirs, kind, read, later)
        return found if isinstance(found, Usage) else UsageLater(found)

    def supervised(self, work: Callable[[Phase], T]) -> T:
        return self.crew.supervised(work)

    def _rest(self) -> None:
        with self._lock:
            self._mounts.close()

    def close(self) -> None:
        """End the helper and the threads; the next run starts them again."""
        self.helper.close()
        self.crew.close()
        self._mounts.close()


def _changed(path: str) -> int:
    """When the directory was last changed, 0 if there is none."""
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0
