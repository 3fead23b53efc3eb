"""What engines read when something fails: ``--log FILE``, ``--log-format``, ``--log-level``.

Podman takes the whole file for one JSON object, Docker the last line whose level is ``error``. So of a call that fails
the file has the error alone, unless ``--debug`` is given: what is less is kept back until the call has succeeded.
"""

from __future__ import annotations

import os
import sys
import time

from mydocker import plain_json
from mydocker.errors import OciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Those of logrus, the least first.
LEVELS = ("trace", "debug", "info", "warning", "error", "fatal", "panic")

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/@^+")


class Log:
    """Where messages of one call go."""

    def __init__(self, path: str = "", log_format: str = "text", level: str = "info") -> None:
        """OciError if ``log_format`` or ``level`` is none, or the file cannot be opened."""
        if log_format not in ("text", "json"):
            raise OciError(f"invalid log-format: {log_format}")
        if level == "warn":
            level = "warning"
        if level not in LEVELS:
            raise OciError(f"not a valid log level: {level}")
        self.path = path
        self.format = log_format
        self.level = level
        self._fd = -1
        self._kept: list[str] = []
        if path:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as e:
                raise OciError(f"cannot open the log {path}: {e.strerror}") from e

    @property
    def debugging(self) -> bool:
        return self.level in ("trace", "debug")

    def debug(self, message: str) -> None:
        self._note("debug", message)

    def info(self, message: str) -> None:
        self._note("info", message)

    def warning(self, message: str) -> None:
        self._note("warning", message)

    def error(self, message: str, *, plain: bool = False) -> None:
        """The one error of a call that fails: to the file, and to stderr in words for whoever called.

        ``plain``: on stderr it has no other form, for it takes the place of what the command would have written.
        """
        self._kept.clear()
        if self._fd >= 0 or not plain:
            self._write(self._fd if self._fd >= 0 else 2, self._line("error", message))
        if self._fd >= 0 or plain:
            self._write(2, f"{message}\n")

    def flush(self) -> None:
        """The call has succeeded: write what was kept back."""
        for line in self._kept:
            self._write(self._fd if self._fd >= 0 else 2, line)
        self._kept.clear()

    def _note(self, level: str, message: str) -> None:
        if LEVELS.index(level) < LEVELS.index(self.level):
            return
        line = self._line(level, message)
        if self.debugging or self._fd < 0:
            self._write(self._fd if self._fd >= 0 else 2, line)
        else:
            self._kept.append(line)

    def _line(self, level: str, message: str) -> str:
        now = _now()
        if self.format == "json":
            return plain_json.dumps({"level": level, "msg": message, "time": now}) + "\n"
        return f"time={_quoted(now)} level={level} msg={_quoted(message)}\n"

    @staticmethod
    def _write(fd: int, line: str) -> None:
        try:
            os.write(fd, line.encode(errors="replace"))
        except OSError:
            pass  # nobody reads it, or the disk is full: the exit status still says it


def _now() -> str:
    """The time as RFC 3339 has it."""
    zone = time.strftime("%z")
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S')}{zone[:3]}:{zone[3:]}"


def _quoted(text: str) -> str:
    """As logrus quotes a value of its text form: where it has to."""
    if text and _PLAIN.issuperset(text):
        return text
    return plain_json.dumps(text)


def take_over_core_messages(log: Log) -> None:
    """Send what the core says of its work (`mydocker.logs`) to ``log``."""
    from mydocker import logs

    methods: dict[str, Callable[[str], None]] = {
        "debug": log.debug,
        "info": log.debug,  # the core's "info" is what an engine would call detail
        "warning": log.warning,
        "error": log.warning,
    }
    logs.send_to(lambda level, message: methods[level](message), "debug" if log.debugging else "warning")


def show_traceback(error: BaseException) -> None:
    """For ``--debug``: where an error comes from, on stderr."""
    import traceback

    traceback.print_exception(error)
    sys.stderr.flush()
