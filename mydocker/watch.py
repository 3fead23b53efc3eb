"""How a plugin watches a running container: a `Watch` says when to look, a `Verdict` what follows."""

from __future__ import annotations

from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal


class Verdict(Value):
    """What is to happen to the container. Made by `note`, `freeze`, `thaw` and `stop`."""

    action: Literal["note", "freeze", "thaw", "stop"]
    reason: str = ""
    text: str = ""

    @classmethod
    def note(cls, text: str) -> Verdict:
        """Go on; ``text``, one sentence, is logged and stands in ``Result.notes``."""
        return cls(action="note", text=text)

    @classmethod
    def freeze(cls, text: str) -> Verdict:
        """Stop all its processes where they are, until a `thaw`. ``text`` is noted."""
        return cls(action="freeze", text=text)

    @classmethod
    def thaw(cls, text: str) -> Verdict:
        """Let frozen processes go on. ``text`` is noted."""
        return cls(action="thaw", text=text)

    @classmethod
    def stop(cls, reason: str, text: str) -> Verdict:
        """Kill the container. ``reason``, a word such as ``cpu-time``, becomes the Result's; ``text`` is noted."""
        return cls(action="stop", reason=reason, text=text)


class Watch(Value):
    """One thing to look at while the container runs.

    ``check`` is called once at the start, then whenever the descriptor ``fd`` is readable, and every ``interval``
    seconds. It returns a `Verdict`, or None to go on, or a number: to go on, and be asked again after so many
    seconds, whatever the interval is. All checks of a container are called in one thread that is not the main
    one. The plugin owns ``fd`` and closes it in ``mydocker_remove``.

    It fails closed: a check that raises, returns something else or takes longer than a hook may, stops the
    container with the reason ``plugin-error``.
    """

    check: Callable[[], Verdict | float | None]
    fd: int = -1
    interval: float | None = None
