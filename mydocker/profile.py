"""What a run used over time: kept while it runs, drawn when it has ended (``mydocker run --profile FILE``).

Keeping is cheap and bounded: the moments get sparser as the run gets longer. The drawing library is imported
after the container has ended, so it can take nothing from the run.
"""

from __future__ import annotations

import os
import time

from mydocker.errors import StateError, UsageError
from mydocker.value import Value
from mydocker.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from tempfile import TemporaryDirectory

    from mydocker.result import Result, Usage

#: Formats that the drawing library writes, by the ending of the file's name.
FORMATS = ("svg", "png", "pdf")
#: Seconds between two moments at first. One costs the host some 1 ms of CPU time, so that is 2 % of a CPU.
INTERVAL = 0.05
#: When there are so many moments, each second one is dropped and the interval is doubled: after 20 s, 40 s, and so on.
MOST_MOMENTS = 400
#: Below this, what the figures differ by from one moment to the next is less than the kernel's clock ticks.
SHORTEST_INTERVAL = 0.01


class Moment(Value):
    """The usage so far, ``seconds`` after the first moment."""

    seconds: float
    usage: Usage


class Profile:
    """The moments of one run, and the file that shows them."""

    def __init__(self, file: str, interval: float = INTERVAL) -> None:
        """`UsageError`, before anything runs, if ``file`` cannot be written, or not as a picture."""
        self.moments: list[Moment] = []
        self.interval = interval
        self._started = 0.0
        self._file = _writable(file)
        if interval < SHORTEST_INTERVAL:
            raise UsageError(f"--profile-interval: {interval:g} s is less than the minimum, {SHORTEST_INTERVAL:g} s")
        _require_library()

    def watches(self, usage: Callable[[], Usage]) -> list[Watch]:
        """What the runner is to do while the container runs: keep what ``usage`` returns."""
        return [Watch(check=lambda: self.add(usage()))]

    def add(self, usage: Usage) -> float:
        """Keep one moment. After how many seconds the next one is wanted."""
        now = time.monotonic()
        self._started = self._started or now
        if len(self.moments) >= MOST_MOMENTS:
            del self.moments[1::2]
            self.interval *= 2
        slim = usage.replace(plugins={}, memory_kinds={})
        self.moments.append(Moment(seconds=now - self._started, usage=slim))
        return self.interval

    def draw(self, result: Result) -> None:
        """Write the picture of the run that ended with ``result``; a reader sees no file, the old or the whole new one.

        `StateError` if it cannot be written.
        """
        unfinished = f"{self._file}.{os.getpid()}.new"
        scratch = _library_directory()
        try:
            from mydocker.picture import draw

            draw(self.moments, result, unfinished, _format(self._file))
            os.rename(unfinished, self._file)
        except OSError as e:
            raise StateError(f"--profile: cannot write {self._file}: {e.strerror or e}") from e
        finally:
            if os.path.exists(unfinished):
                os.unlink(unfinished)
            if scratch is not None:
                scratch.cleanup()


def _format(file: str) -> str:
    return os.path.splitext(file)[1].lower().removeprefix(".")


def _writable(file: str) -> str:
    """The whole path of ``file``; `UsageError` if a picture cannot be written there."""
    if _format(file) not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS[:-1])
        raise UsageError(
            f'--profile: "{file}" has no ending that says what picture it is to be: use {endings} or .{FORMATS[-1]}'
        )
    target = os.path.realpath(file)
    folder = os.path.dirname(target)
    problem = ""
    if os.path.isdir(target):
        problem = "it is a directory"
    elif not os.path.isdir(folder):
        problem = f"there is no directory {folder}"
    elif not os.access(folder, os.W_OK, effective_ids=True):
        problem = "permission denied, or the file system is read-only"
    if problem:
        raise UsageError(f"--profile: cannot write {file}: {problem}")
    return target


def _library_directory() -> TemporaryDirectory[str] | None:
    """A directory for the library's cache of fonts where the user has none, to be removed afterwards.

    The library makes one too, and removes it at the interpreter's exit, which the command line does not wait for.
    """
    home = os.path.expanduser("~")
    wanted = [os.environ.get(f"XDG_{kind.upper()}_HOME") or f"{home}/.{kind}" for kind in ("config", "cache")]
    try:
        for directory in wanted if "MPLCONFIGDIR" not in os.environ else ():
            os.makedirs(f"{directory}/matplotlib", exist_ok=True)
            if not os.access(f"{directory}/matplotlib", os.W_OK):
                raise PermissionError
    except OSError:
        import tempfile

        scratch = tempfile.TemporaryDirectory()
        os.environ["MPLCONFIGDIR"] = scratch.name
        return scratch
    return None


def _require_library() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UsageError(
            "--profile: drawing needs matplotlib, which is not installed; run pip install 'mydocker[profile]'"
        )
