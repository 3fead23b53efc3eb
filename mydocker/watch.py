"""How a plugin watches a running container: a `Watch` says when to look, a `Verdict` what follows."""

from __future__ import annotations

from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal


#: Seconds from one look to the next are no fewer than this, whatever a plugin asks for, and fewer than that.
SHORTEST, LONGEST = 0.01, 1e9
#: What `mydocker.Result` says of itself: no plugin may say it in its place.
REASONS_OF_CORE = ("exited", "signaled", "oom", "timeout", "runtime-error", "plugin-error")


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
        """Kill the container. ``reason``, a word such as ``cpu-time``, becomes the Result's; ``text`` is noted.

        ValueError if it is no word of letters, digits and hyphens, or one of `REASONS_OF_CORE`.
        """
        verdict = cls(action="stop", reason=reason, text=text)
        problem = verdict.problem()
        if problem:
            raise ValueError(problem)
        return verdict

    def problem(self) -> str:
        """What is wrong with it, or nothing."""
        if self.action not in ("note", "freeze", "thaw", "stop"):
            return f"{self.action!r} is no action of a verdict: use note, freeze, thaw or stop"
        if not isinstance(self.text, str):
            return f"{self.text!r} is no text of a verdict"
        if self.action != "stop":
            return ""
        if not (isinstance(self.reason, str) and self.reason.isascii() and self.reason.replace("-", "").isalnum()):
            return f"{self.reason!r} is no reason to stop: write a word of letters, digits and hyphens, as in cpu-time"
        if self.reason in REASONS_OF_CORE:
            return f"{self.reason!r} is a reason of mydocker's own: use another word"
        return ""


class Watch(Value):
    """One thing to look at while the container runs.

    ``check`` is called once at the start, then whenever the descriptor ``fd`` is readable, and every ``interval``
    seconds. It returns a `Verdict`, or None to go on, or a number: to go on, and be asked again after so many
    seconds, whatever the interval is. All checks of a container are called in one thread that is not the main
    one. It is not called more often than every 10 ms (`SHORTEST`) for the sake of an interval or a number. TypeError or
    ValueError for an ``interval`` that is no number above 0 and below 1e9, for a ``check`` or a ``close`` that cannot
    be called, and for an ``fd`` that is none.

    ``close`` is called once in the same thread when nobody looks any more, in the process that has looked: there the
    plugin closes ``fd``, which is its own, and what else the watch has open. Without ``close`` it does so in
    ``mydocker_remove``.

    It fails closed: a check that raises, returns something else or takes longer than a hook may, stops the
    container with the reason ``plugin-error``.
    """

    check: Callable[[], Verdict | float | None]
    fd: int = -1
    interval: float | None = None
    close: Callable[[], object] | None = None

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            super().__init__(**values)
            if not callable(self.check):
                raise TypeError(f"Watch: check={self.check!r} is no function")
            if self.close is not None and not callable(self.close):
                raise TypeError(f"Watch: close={self.close!r} is no function")
            if isinstance(self.fd, bool) or not isinstance(self.fd, int) or not -1 <= self.fd < 1 << 31:
                raise TypeError(f"Watch: fd={self.fd!r} is no descriptor")
            if self.interval is None:
                return
            if isinstance(self.interval, bool) or not isinstance(self.interval, (int, float)):
                raise TypeError(f"Watch: interval={self.interval!r} is no number of seconds")
            if not 0 < self.interval < LONGEST:
                raise ValueError(f"Watch: interval={self.interval!r} is not above 0 and below 1e9 seconds")
