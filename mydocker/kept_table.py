"""The table of a kind of container (`mydocker.table`), kept in a file: for who makes one container and ends.

In every process it has the same address, so that what one has worked out is right for all. A kind has a table of its
own when it is seen for the second time: to work it out takes as long as what the first one would save.
"""

from __future__ import annotations

import errno
import marshal
import os
import time

from mydocker import cache_file, table
from mydocker.linux import empty_file, machine, process, signals, thermal
from mydocker.plan import template
from mydocker.runner import Means
from mydocker.table import Places, Table
from mydocker.value import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mydocker.child import Child
    from mydocker.plan import Plan

FORMAT = 1

#: Where nothing else is, as long as nothing has asked for it: below all that the kernel gives to who does not care.
ADDRESS = 1 << 44

#: What a file ends with that is whole.
_END = b"MYDT"

#: Seconds for which a kind that machine code cannot set up is left to the interpreter.
_REFUSED_FOR = 3600.0

#: What a table is worked out by: a change of it makes another.
SOURCES = (
    "cgroup_view",
    "errors",
    "groundwork",
    "handoff",
    "landing",
    "linux/batch",
    "linux/capabilities",
    "linux/empty_file",
    "linux/libc",
    "linux/machine",
    "linux/mount",
    "linux/network",
    "linux/paths",
    "linux/process",
    "linux/seccomp",
    "linux/signals",
    "linux/thermal",
    "mount_parts",
    "mounts",
    "plan",
    "spec",
    "step",
    "table",
    "value",
    "waiting",
)
_HERE = os.path.dirname(__file__)


class KeptMeans(Means):
    """By a table that is kept, if there is one for this kind of container, and else by the interpreter."""

    late = True

    def __init__(self) -> None:
        self._by_interpreter = False

    def clone(self, plan: Plan, namespaces: int, child: Child) -> Callable[[], bool]:
        found = None if self._by_interpreter else _find(plan)
        if found is None:
            return super().clone(plan, namespaces, child)
        try:
            empty = empty_file.made()
        except OSError:  # this host lets nobody execute one
            found.close()
            return super().clone(plan, namespaces, child)
        forks = machine.ForkedMemory()
        mask = signals.current_mask()
        try:
            signals.block()
            plan = plan.replace(runtime=child.watch_runtime(), executable=empty)
            child.pid, child.pidfd = found.clone(plan, namespaces, forks)
        finally:
            forks.keep_all()
            signals.restore(mask)
            os.close(empty)
            found.close()
        return _finish

    def set_up_by_interpreter(self, plan: Plan, namespaces: int, number: int) -> None:
        self._by_interpreter = True
        if number != errno.EAGAIN:
            _Kept(plan).refuse()


def _finish() -> bool:
    """What is to be imported anyway is while the child sets itself up, and not when somebody waits for it."""
    import resource  # for wait4(2)  # noqa: F401

    from mydocker import landing  # noqa: F401

    return True


def _find(plan: Plan) -> Table | None:
    """It, or None if the interpreter is to do it."""
    if not (plan.may_wait and plan.may_do_groundwork and plan.trace < 0 and process.single_threaded()):
        return None
    return _Kept(plan).table() if table.may_be_used() else None


def _path(source: str) -> str:
    return f"{_HERE}/{source}.py"


class _Kept:
    """What is known of a kind of container."""

    def __init__(self, plan: Plan) -> None:
        self._plan = template(plan)
        self._stamps = [cache_file.stamp(_path(source)) for source in SOURCES]
        host = os.uname()
        system = (host.release, host.version, host.machine, thermal.heat_of_cpus())
        # In a format in which equal values are equal bytes, whoever else refers to them.
        self._key = marshal.dumps((FORMAT, _HERE, self._stamps, system, plain(self._plan)), 2)
        self._name = cache_file.path("table", self._key)

    def table(self) -> Table | None:
        """None for the first of its kind, and where there can be none."""
        if self._name is None:
            return None
        found = self._read(self._name)
        if found is None:
            self._keep()
            return None
        refused, places, image = found
        if time.time() - refused < _REFUSED_FOR:
            return None
        if places is None:
            return self._worked_out()
        try:
            return Table.restored(Places(**dict(zip(Places._fields, places, strict=True))), image)
        except OSError:
            return None  # something else is there

    def _read(self, name: str) -> tuple[float, tuple[Any, ...] | None, bytes] | None:
        """When it was refused, and what is kept; None if there is nothing about this kind, or it is not whole."""
        try:
            content = cache_file.read(name, summed=False) or b""
            key, refused, places, size = marshal.loads(content)
        except (OSError, ValueError, EOFError, TypeError):
            return None
        begin = len(content) - len(_END) - size
        if key != self._key or begin < 0 or not content.endswith(_END):
            return None
        return refused, places, content[begin : begin + size]

    def _worked_out(self) -> Table | None:
        from mydocker import waiting

        looked = cache_file.now()
        try:
            made = waiting.made(self._plan, ADDRESS)
        except OSError:
            return None
        except ValueError:
            self.refuse()
            return None
        # What is imported already may be older than the files are now.
        if all(stamp is not None and cache_file.settled(stamp[0], looked) for stamp in self._stamps) and all(
            cache_file.settled(os.stat(_path(source)).st_ctime_ns, looked) for source in SOURCES
        ):
            self._keep(made)
        return made

    def refuse(self) -> None:
        """Leave it to the interpreter for a while."""
        self._keep(refused=time.time())

    def _keep(self, made: Table | None = None, refused: float = 0.0) -> None:
        places, image = None, b""
        if made is not None:
            places, image = tuple(made.places.asdict().values()), made.image()
        if self._name is not None:
            try:
                head = marshal.dumps((self._key, refused, places, len(image)))
                cache_file.write(self._name, head + image + _END, summed=False, synced=bool(image))
            except OSError:
                pass  # that it cannot be kept is no error
