"""What is left of a run: the `Result` and its `Usage`."""

from __future__ import annotations

from mydocker.errors import PluginError
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from mydocker.tracing import Stage

_INFINITY = float("inf")

#: Names that a plugin may use in its usage figures (see ``mydocker_usage``) and the attribute of `Usage` that each
#: feeds. ``pressure`` is kept by plugin: ``{"memory": {"some_seconds": 0.1, "full_seconds": 0.0}}``.
STANDARD_FIGURES = {
    "user_seconds": "cpu_user",
    "system_seconds": "cpu_system",
    "throttled_seconds": "cpu_throttled",
    "current_bytes": "memory_current",
    "peak_bytes": "memory_peak",
    "swap_bytes": "memory_swap",
    "kinds": "memory_kinds",
    "limit_hits": "memory_failures",
    "oom_kills": "oom_kills",
    "current_pids": "pids_current",
    "peak_pids": "pids_peak",
    "read_bytes": "io_read_bytes",
    "written_bytes": "io_written_bytes",
    "read_operations": "io_reads",
    "write_operations": "io_writes",
    "limit_bytes": "memory_limit",
    "limit_cpus": "cpu_limit",
    "limit_pids": "pids_limit",
}


class Usage(Value):
    """What the container used. Bytes, seconds and counts, the same on cgroup v1 and v2.

    ``cpu_user``, ``cpu_system``
        seconds of all its processes together: of its cgroup, or else of the waited-for child (``wait4(2)``).
    ``cpu_throttled``
        seconds for which processes that could have run had to wait for their quota.
    ``memory_current``, ``memory_peak``, ``memory_swap``
        bytes that the whole container holds, the most that it held at once, and those of it in swap.
    ``memory_kinds``
        bytes by kind: ``anon``, ``file``, ``kernel`` and others as the kernel has them.
    ``memory_failures``
        how often the container was at its memory limit and the kernel had to reclaim or refuse.
    ``oom_kills``
        how many of its processes the kernel killed for memory.
    ``pids_current``, ``pids_peak``
        tasks, threads included. ``io_*``: bytes and operations on block devices.
    ``pressure``
        plugin to ``some_seconds`` and ``full_seconds``: for how long some, or all, of its tasks waited for that
        resource (Documentation/accounting/psi.rst).
    ``memory_limit``, ``cpu_limit``, ``pids_limit``
        what the container's own cgroup allows when it is asked: bytes, CPUs, tasks. None where there is no limit.
    ``plugins``
        name of the plugin to what its usage hook returned.

    What nobody counted (no cgroup in that hierarchy, an older kernel) is None, or empty.
    """

    cpu_user: float = 0.0
    cpu_system: float = 0.0
    cpu_throttled: float | None = None
    memory_current: int | None = None
    memory_peak: int | None = None
    memory_swap: int | None = None
    memory_kinds: Mapping[str, int] = {}
    memory_failures: int | None = None
    oom_kills: int = 0
    pids_current: int | None = None
    pids_peak: int | None = None
    io_read_bytes: int | None = None
    io_written_bytes: int | None = None
    io_reads: int | None = None
    io_writes: int | None = None
    memory_limit: int | None = None
    cpu_limit: float | None = None
    pids_limit: int | None = None
    pressure: Mapping[str, Mapping[str, float]] = {}
    plugins: Mapping[str, Mapping[str, Any]] = {}

    @classmethod
    def of(cls, figures: Mapping[str, Mapping[str, Any]], cpu_user: float = 0.0, cpu_system: float = 0.0) -> Usage:
        """Put together what the plugins returned. ``cpu_user`` and ``cpu_system`` are used if no plugin has them.

        Of two plugins with one figure the larger counts, of two limits the smaller; ``oom_kills`` are added.
        """
        found: dict[str, Any] = {}
        pressure = {}
        for plugin, own in figures.items():
            for name, value in own.items():
                attribute = STANDARD_FIGURES.get(name)
                if name == "pressure" and value:
                    pressure[plugin] = value
                elif attribute == "memory_kinds":
                    found[attribute] = value
                elif attribute is not None and isinstance(value, (int, float)):
                    before = found.get(attribute)
                    if before is not None and attribute == "oom_kills":
                        value = before + value
                    elif before is not None:
                        value = min(before, value) if attribute.endswith("_limit") else max(before, value)
                    found[attribute] = value
        found.setdefault("cpu_user", cpu_user)
        found.setdefault("cpu_system", cpu_system)
        found = {name: round(value, 6) if isinstance(value, float) else value for name, value in found.items()}
        return cls(pressure=pressure, plugins=figures, **found)


class UsageLater:
    """Stands for a Usage in a `Result` until somebody looks at it. For threads: to all it is the same."""

    __slots__ = ("_found", "_work")

    def __init__(self, work: Callable[[], Usage]) -> None:
        """``work`` works it out; in the worst case more than once."""
        self._work = work
        self._found: dict[str, Usage] = {}

    def look(self) -> Usage:
        """The Usage."""
        return self._found.get("usage") or self._found.setdefault("usage", self._work())


def checked_figures(plugin: str, answer: object) -> dict[str, Any]:
    """What ``mydocker_usage`` returned, None being nothing. `PluginError` for what JSON cannot hold."""
    if answer is None:
        return {}
    if not isinstance(answer, dict):
        raise PluginError(f"{plugin} answered mydocker_usage with {answer!r}, which is no dict of figures")
    for name, value in answer.items():
        if not (isinstance(name, str) and _fits_json(value)):
            raise PluginError(f"{plugin} answered mydocker_usage with {name!r}: {value!r}, which JSON cannot hold")
    return answer


def _fits_json(value: object) -> bool:
    if value is None or isinstance(value, (str, int)):
        return True
    if isinstance(value, float):
        return -_INFINITY < value < _INFINITY  # false for nan, too
    if isinstance(value, (list, tuple)):
        return all(_fits_json(one) for one in value)
    return isinstance(value, dict) and all(isinstance(key, str) and _fits_json(one) for key, one in value.items())


class Result(Value):
    """How a run ended, like ``subprocess.CompletedProcess`` and more.

    ``exit_code``
        the command's own, or 128 + n when signal n killed it, as ``docker run`` has it.
    ``signal``
        the number of the signal that killed the command, or None.
    ``reason``
        ``exited``; ``signaled``; ``oom``: the kernel killed for memory and the command ended by it;
        ``timeout``: the deadline killed it; ``runtime-error``: mydocker failed and the command did not run;
        ``plugin-error``: a plugin that watched the container failed, which stopped it; or the word with which a
        plugin stopped it, such as ``cpu-time``.
    ``oom_kills``
        how many processes of the container the kernel killed for memory.
    ``wall_seconds``
        from the handing over of the command to its end; making and removing the container is not in it.
    ``cpu_user``, ``cpu_system``
        CPU seconds of all processes of the container.
    ``memory_peak``
        bytes, None if no memory limit was set.
    ``stdout``, ``stderr``
        what was captured (``str`` with ``text=True``), or None.
    ``limits``
        the limits that were in force: field to value (bytes, seconds, CPUs as the field defines).
    ``unenforced``
        with best-effort limits: the fields that were asked for and are not in force, each with the reason.
    ``notes``
        what plugins that watched the container had to say, and what could not be undone, one sentence each.
    ``usage``
        the whole `Usage`, with what each plugin added.
    ``trace``
        with ``trace=True``: the stages of the run, each a `mydocker.tracing.Stage`.
    """

    args: tuple[str, ...]
    id: str
    exit_code: int
    signal: int | None = None
    reason: str = "exited"
    wall_seconds: float = 0.0
    stdout: bytes | str | None = None
    stderr: bytes | str | None = None
    limits: Mapping[str, Any] = {}
    unenforced: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
    usage: Usage = Usage()
    error: str = ""
    trace: tuple[Stage, ...] = ()

    if not TYPE_CHECKING:

        def __eq__(self, other: object) -> bool:
            _look(self, other)
            return super().__eq__(other)

        __hash__ = Value.__hash__

        def __repr__(self) -> str:
            _look(self)
            return super().__repr__()

        def __getstate__(self) -> dict[str, Any]:
            _look(self)
            return self.__dict__

        def asdict(self) -> dict[str, Any]:
            _look(self)
            return super().asdict()

    @property
    def oom_kills(self) -> int:
        return self.usage.oom_kills

    @property
    def cpu_user(self) -> float:
        return self.usage.cpu_user

    @property
    def cpu_system(self) -> float:
        return self.usage.cpu_system

    @property
    def memory_peak(self) -> int | None:
        return self.usage.memory_peak

    def to_json(self) -> str:
        """The Result as one JSON object, without stdout and stderr: what ``--result FILE`` holds."""
        import json

        usage = self.usage
        return json.dumps(
            {
                "id": self.id,
                "args": self.args,
                "exit_code": self.exit_code,
                "signal": self.signal,
                "reason": self.reason,
                "oom_kills": usage.oom_kills,
                "wall_seconds": round(self.wall_seconds, 6),
                "cpu_user_seconds": round(usage.cpu_user, 6),
                "cpu_system_seconds": round(usage.cpu_system, 6),
                "memory_peak_bytes": usage.memory_peak,
                "limits": self.limits,
                "unenforced": self.unenforced,
                "notes": self.notes,
                "usage": usage.plugins,
                "error": self.error,
            },
            default=str,
        )


def _look(*results: object) -> None:
    """Have the figures of those that are Results worked out."""
    for result in results:
        if isinstance(result, Result):
            _usage(result)


def _usage(result: Result) -> Usage:
    found = result.__dict__["usage"]
    if type(found) is UsageLater:
        found = result.__dict__["usage"] = found.look()
    usage: Usage = found
    return usage


if not TYPE_CHECKING:
    # In the place of the default value, of which `Value` has taken note; it comes before what the instance has.
    Result.usage = property(_usage)
