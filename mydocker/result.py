"""What is left of a run: the `Result` and its `Usage`."""

from __future__ import annotations

from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    Reason = Literal["exited", "signaled", "oom", "timeout", "runtime-error"]


class Usage(Value):
    """What the container used.

    ``cpu_user`` and ``cpu_system`` are seconds of all its processes together, from the kernel's accounting
    of the waited-for child (``wait4(2)``, ``ru_utime`` and ``ru_stime``). The rest comes from the plugins,
    in ``plugins``: name of the plugin to what its usage hook returned. ``memory_peak`` is in bytes, the
    most that the whole container held at once, None unless its memory was limited or accounted.
    """

    cpu_user: float = 0.0
    cpu_system: float = 0.0
    memory_peak: int | None = None
    oom_kills: int = 0
    plugins: Mapping[str, Mapping[str, Any]] = {}


class Result(Value):
    """How a run ended, like ``subprocess.CompletedProcess`` and more.

    ``exit_code``
        the command's own, or 128 + n when signal n killed it, as ``docker run`` has it.
    ``signal``
        the number of the signal that killed the command, or None.
    ``reason``
        ``exited``; ``signaled``; ``oom``: the kernel killed for memory and the command ended by it;
        ``timeout``: the deadline killed it; ``runtime-error``: mydocker failed and the command did not run.
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
    ``usage``
        the whole `Usage`, with what each plugin added.
    """

    args: tuple[str, ...]
    id: str
    exit_code: int
    signal: int | None = None
    reason: Reason = "exited"
    wall_seconds: float = 0.0
    stdout: bytes | str | None = None
    stderr: bytes | str | None = None
    limits: Mapping[str, Any] = {}
    usage: Usage = Usage()
    error: str = ""

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
                "usage": usage.plugins,
                "error": self.error,
            },
            default=str,
        )
