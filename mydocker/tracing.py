"""Where the time of one run goes: ``mydocker run --trace``, and ``trace=True`` of `mydocker.run`.

`mydocker.runner` says which stage begins by `Means.mark`, which does nothing. A `Trace` puts means of its own in the
place of those that a run has, and notes the moments. The child says what it is doing anyway, for the report of a
failure (`mydocker.step.Step`); traced, it also writes each change to a pipe, with the time. The clock is one for
all processes (CLOCK_MONOTONIC).

Imported only for a run that is traced.
"""

from __future__ import annotations

import os
import time

from mydocker.runner import Means
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from mydocker import seccomp
    from mydocker.cgroups.layout import Layout
    from mydocker.child import Child
    from mydocker.hooks import Phase
    from mydocker.plan import Plan
    from mydocker.spec import Spec

    T = TypeVar("T")


class Stage(Value):
    """One stage of a run.

    ``process``  whose: ``runtime``, or ``child`` for what the container's first process does meanwhile.
    ``start``    seconds after the beginning of the trace.
    """

    name: str
    process: str
    start: float
    seconds: float


class Trace:
    """The stages of one run, noted as they begin. It keeps a pipe until `stages` or `close`."""

    def __init__(self, begun: int = 0) -> None:
        """``begun``: when, by `time.monotonic_ns`, if that is not now."""
        self.begun = begun or time.monotonic_ns()
        self._marks: list[tuple[int, str]] = []
        self._child = self._of_child = -1

    def mark(self, stage: str) -> None:
        """A stage of the runtime begins, and the one before it ends."""
        self.note(time.monotonic_ns(), stage)

    def note(self, at: int, stage: str) -> None:
        """A stage of the runtime began at that time, after all others that are noted."""
        self._marks.append((at, stage))

    def means(self, means: Means) -> Means:
        """The same means, of which what they do is noted."""
        self._child, self._of_child = os.pipe()
        os.set_blocking(self._of_child, False)  # rather a trace with gaps than a child that waits for its reader
        return _TracedMeans(means, self)

    @property
    def of_child(self) -> int:
        """The end of the pipe that the child writes to."""
        return self._of_child

    def stages(self) -> tuple[Stage, ...]:
        """All stages by the time at which they began; the last of the runtime's ends now."""
        ended = time.monotonic_ns()
        child = self._marks_of_child()
        self.close()
        runtime = [(at, name, "runtime", end) for at, name, end in _with_ends(self._marks, ended)]
        # The child's last word is that it executes the command. The runtime begins to wait when it has seen that.
        if child:
            child[-1] = (child[-1][0], "execute the command")
        executed = next((at for at, name in self._marks if name == "wait"), ended)
        both = [*runtime, *((at, name, "child", end) for at, name, end in _with_ends(child, executed))]
        return tuple(
            Stage(name=name, process=process, start=(at - self.begun) / 1e9, seconds=(end - at) / 1e9)
            for at, name, process, end in sorted(both, key=lambda stage: stage[0])
        )

    def _marks_of_child(self) -> list[tuple[int, str]]:
        if self._child < 0:
            return []
        os.set_blocking(self._child, False)
        try:
            data = os.read(self._child, 1 << 20)
        except BlockingIOError:  # it wrote nothing
            return []
        # What comes by the name of a file may hold whatever a file's name may.
        marks = (line.partition(b" ") for line in data.split(b"\n"))
        found: list[tuple[int, str]] = []
        for at, _, name in marks:
            if at.isdigit() and (not found or found[-1][1] != name.decode(errors="replace")):
                found.append((int(at), name.decode(errors="replace")))
        return found

    def close(self) -> None:
        for fd in (self._child, self._of_child):
            if fd >= 0:
                os.close(fd)
        self._child = self._of_child = -1


_of_command_line: list[Trace] = []


def begin_command_line() -> Trace:
    """The trace of a process that runs one container. It begins with the process."""
    # The kernel has the time of its start in hundredths of a second only (proc_pid_stat(5), starttime). What it has
    # used of a processor until now is what starting an interpreter takes, but for waiting for the disk.
    now = time.monotonic_ns()
    trace = Trace(now - time.process_time_ns())
    trace.note(trace.begun, "interpreter")
    _of_command_line.append(trace)
    return trace


def of_command_line() -> Trace:
    """That of this process, begun now at the latest."""
    return _of_command_line[0] if _of_command_line else begin_command_line()


def _with_ends(marks: list[tuple[int, str]], end: int) -> Iterable[tuple[int, str, int]]:
    ends = [*(at for at, _ in marks[1:]), end]
    return ((at, name, until) for (at, name), until in zip(marks, ends, strict=False) if name)


class _TracedMeans(Means):
    def __init__(self, means: Means, trace: Trace) -> None:
        self._means = means
        self._trace = trace

    def mark(self, stage: str) -> None:
        self._trace.mark(stage)

    def layout(self) -> Layout:
        return self._means.layout()

    def filter(self, spec: Spec, capabilities: int) -> seccomp.Filter | None:
        return self._means.filter(spec, capabilities)

    @property
    def late(self) -> bool:  # type: ignore[override]
        return self._means.late

    def clone(self, plan: Plan, namespaces: int, child: Child) -> Callable[[], bool]:
        return self._means.clone(plan.replace(trace=self._trace.of_child), namespaces, child)

    def abandon(self, child: Child) -> None:
        self._means.abandon(child)

    def supervised(self, work: Callable[[Phase], T]) -> T:
        return self._means.supervised(work)


def table(stages: Iterable[Stage]) -> str:
    """For people: when each stage began and how long it took, in milliseconds; the child's are indented."""
    lines = ["  at ms     took  stage"]
    total = 0.0
    for stage in stages:
        total = max(total, stage.start + stage.seconds)
        indent = "  child: " if stage.process == "child" else ""
        lines.append(f"{stage.start * 1000:7.2f} {stage.seconds * 1000:8.2f}  {indent}{stage.name}")
    lines.append(f"{'':7} {total * 1000:8.2f}  in all")
    return "\n".join(lines) + "\n"


def json_line(stages: Iterable[Stage]) -> str:
    """For programs: a line with the keys of all messages, and the stages, with milliseconds."""
    from datetime import datetime

    from mydocker import plain_json

    rows = [
        {
            "stage": stage.name,
            "process": stage.process,
            "start_ms": round(stage.start * 1000, 3),
            "ms": round(stage.seconds * 1000, 3),
        }
        for stage in stages
    ]
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return plain_json.dumps({"level": "info", "msg": "trace", "time": now, "stages": rows}) + "\n"
