"""Messages about what the runtime does, on stderr; quiet unless asked.

``import logging`` alone takes longer than a third of a run, so this front asks first whether anybody wants to
know. The command line says so with `configure`; then python-json-logger writes JSON lines with the keys of logrus's
JSON formatter (``level``, ``msg``, ``time``), or a plain formatter writes text. In a library the application owns
logging: if it has imported it, messages go to the logger ``mydocker``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from typing import Any, Literal

    Format = Literal["text", "json"]

#: As in `logging`.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Settings:
    """What `configure` was told: the one thing here that changes, and only once, at the start of a command line."""

    threshold = 0
    format: Format = "text"
    logger: logging.Logger | None = None
    sink: Callable[[str, str], None] | None = None


def configure(level: str = "warning", log_format: Format = "text") -> None:
    """Write messages of ``level`` (a key of `LEVELS`) and above to stderr. Imports nothing."""
    _Settings.threshold = LEVELS[level]
    _Settings.format = log_format
    _Settings.logger = None


def send_to(sink: Callable[[str, str], None], level: str) -> None:
    """Give messages of ``level`` and above to ``sink``, as (level, text), in place of stderr."""
    _Settings.threshold = LEVELS[level]
    _Settings.sink = sink


def configured() -> bool:
    """Whether `configure` was called: whether this process is a command line that has read its options."""
    return _Settings.threshold > 0


def is_json() -> bool:
    return _Settings.format == "json"


def enabled(level: str) -> bool:
    """Whether anybody reads messages of this level: ask before an argument that is dear to make."""
    if _Settings.threshold:
        return LEVELS[level] >= _Settings.threshold
    if "logging" not in sys.modules:
        return False
    import logging

    return logging.getLogger("mydocker").isEnabledFor(LEVELS[level])


def debug(message: str, *arguments: object) -> None:
    if enabled("debug"):
        _write("debug", message, arguments)


def info(message: str, *arguments: object) -> None:
    if enabled("info"):
        _write("info", message, arguments)


def warning(message: str, *arguments: object) -> None:
    if enabled("warning"):
        _write("warning", message, arguments)


def error(message: str, *arguments: object, exception: BaseException | None = None) -> None:
    """``exception``: write its traceback too."""
    if enabled("error"):
        _write("error", message, arguments, exception)


def _write(level: str, message: str, arguments: Sequence[object], exception: BaseException | None = None) -> None:
    if _Settings.sink is not None:
        _Settings.sink(level, message % tuple(arguments) if arguments else message)
        return
    import logging

    logger = logging.getLogger("mydocker")
    if _Settings.threshold and _Settings.logger is not logger:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_json_formatter() if _Settings.format == "json" else _text_formatter())
        logger.handlers[:] = [handler]
        logger.setLevel(_Settings.threshold)
        logger.propagate = False
        _Settings.logger = logger
    logger.log(LEVELS[level], message, *arguments, exc_info=exception)


def _text_formatter() -> logging.Formatter:
    import logging

    class TextFormatter(logging.Formatter):
        """``mydocker: the message`` on one line; with the level, unless it is an error."""

        def formatMessage(self, record: logging.LogRecord) -> str:
            level = "" if record.levelno >= logging.ERROR else f"{record.levelname.lower()}: "
            return f"mydocker: {level}{harmless(' '.join(record.message.splitlines()))}"

    return TextFormatter()


def harmless(text: str) -> str:
    """``text`` with what a terminal would obey, or cannot show, as escapes: it may quote a stranger's words."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _json_formatter() -> logging.Formatter:
    from datetime import datetime

    from pythonjsonlogger.json import JsonFormatter

    class LogrusFormatter(JsonFormatter):
        """The keys and the spelling of logrus: lower-case levels, times as in RFC 3339."""

        def add_fields(
            self, log_record: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
        ) -> None:
            log_record["level"] = record.levelname.lower()
            log_record["msg"] = record.getMessage()
            log_record["time"] = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
            if record.exc_info:
                log_record["traceback"] = self.formatException(record.exc_info)

    return LogrusFormatter()
