"""``mydocker-oci``: the options before the verb, the verb, and the one way to fail."""

from __future__ import annotations

import os
import sys

from mydocker import code_cache
from mydocker.errors import MydockerError, NotExecuted, OciError
from mydocker.oci import options
from mydocker.oci.log import Log, show_traceback, take_over_core_messages
from mydocker.oci.options import Option
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType
    from typing import Any, NoReturn

#: Verb to the module that does it.
VERBS = {
    "create": "create",
    "delete": "delete",
    "events": "events",
    "exec": "exec_",
    "features": "features",
    "kill": "kill",
    "list": "list_",
    "pause": "pause",
    "ps": "ps",
    "resume": "resume",
    "run": "run",
    "spec": "spec_",
    "start": "start",
    "state": "state_",
    "update": "update",
}

#: Those that import much on their way, and let go of the code cache's file by themselves.
_RELEASE_LATER = ("create", "run")

OPTIONS = (
    Option(names=("--root",), metavar="DIR", help="where the state of the containers is"),
    Option(names=("--log",), metavar="FILE", help="write errors and warnings there (default: stderr)"),
    Option(names=("--log-format",), metavar="text|json", help="the form of the messages"),
    Option(names=("--log-level",), metavar="LEVEL", help="debug, info, warning or error"),
    Option(names=("--debug",), kind="flag", help="also say what is being done"),
    Option(names=("--systemd-cgroup",), kind="flag", help="have systemd make the cgroups of SLICE:PREFIX:NAME"),
    Option(names=("--cgroup-manager",), metavar="cgroupfs|systemd", help="the same by name, as crun has it"),
    Option(names=("--rootless",), metavar="true|false|auto", help="whether the caller is taken for a plain user"),
    Option(names=("--version", "-v"), kind="flag", help="show the version"),
)


class Call(Value):
    """One call of a verb.

    ``root``            where the state of the containers is.
    ``log``             where messages go.
    ``systemd_cgroup``  whether systemd makes the cgroups.
    ``rootless``        ``true``, ``false`` or ``auto``.
    ``options``         those of the verb that are set, by key (``--pid-file`` is ``pid_file``).
    ``arguments``       the words that are no options; the first is the container's id, where the verb has one.
    """

    verb: str
    root: str
    log: Log
    systemd_cgroup: bool = False
    rootless: str = "auto"
    options: Mapping[str, Any] = {}
    arguments: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.arguments[0]

    @property
    def is_rootless(self) -> bool:
        """Whether what only root may do is to be left out."""
        if self.rootless == "auto":
            return os.geteuid() != 0
        return self.rootless == "true"


def main(arguments: Sequence[str] | None = None, at_end: Callable[[], object] | None = None) -> NoReturn:
    """Do what the arguments say and end the process, at once: nothing here relies on the interpreter's shut-down.

    ``at_end``: called when all is done and said.
    """
    code = 1
    try:
        code = command(sys.argv[1:] if arguments is None else arguments)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if at_end is not None:
            at_end()
    except OSError:
        pass  # the reader of our output has gone
    finally:
        os._exit(code)


def command(arguments: Sequence[str]) -> int:
    """Do what the arguments say, write the error if there is one, and return the exit code."""
    log = _log_of(arguments)
    verb = ""
    try:
        given, rest = options.parse(arguments, OPTIONS, mixed=False)
        log = Log(given.get("log", ""), given.get("log_format", "text"), _level(given))
        if given.get("version"):
            _print_version()
            return 0
        if given.get("help") or not rest or rest[0] == "help":
            from mydocker.oci import help_

            help_.overview()
            return 0
        verb = rest[0]
        code = _call(verb, rest[1:], given, log)
        log.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except Exception as e:
        message = _message(e) if isinstance(e, MydockerError) else f"{verb}: {_message(e)}"
        log.error(message, plain=isinstance(e, NotExecuted))
        if log.debugging:
            show_traceback(e)
        return _exit_code(verb, e)


def _message(error: Exception) -> str:
    if isinstance(error, MydockerError):
        return str(error)
    if isinstance(error, OSError):
        about = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{about}{error.strerror or error}"
    return f"unexpected {type(error).__name__}: {error}; --debug shows where it comes from"


def _exit_code(verb: str, error: Exception) -> int:
    """1, and 255 of ``exec``: its other codes are the command's own. An `OciError` may say otherwise."""
    code = error.exit_code if isinstance(error, OciError) else 1
    return 255 if verb == "exec" and code == 1 else code


def _log_of(arguments: Sequence[str]) -> Log:
    """For the error of a line whose options are wrong: the log as far as they say."""
    given: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if name in ("log", "log-format") and word.startswith("-"):
            given[name] = value if equals else next(words, "")
    try:
        return Log(given.get("log", ""), "json" if given.get("log-format") == "json" else "text")
    except OciError:
        return Log()


def _level(given: dict[str, Any]) -> str:
    return "debug" if given.get("debug") else given.get("log_level", "info")


def _print_version() -> None:
    from mydocker.oci.container import SPEC_VERSION
    from mydocker.version import __version__

    sys.stdout.write(f"mydocker-oci version {__version__}\ncommit: {__version__}\nspec: {SPEC_VERSION}\n")


def _call(verb: str, words: Sequence[str], given: dict[str, Any], log: Log) -> int:
    if verb not in VERBS:
        raise OciError(f'no such command "{verb}": there are {", ".join(VERBS)}')
    module = _load(VERBS[verb])
    shape: str = getattr(module, "ARGUMENTS", "CONTAINER-ID")
    # Behind the words of a command or of ps, options are theirs.
    chosen, others = options.parse(words, module.OPTIONS, mixed=not shape.endswith("...]"))
    if chosen.get("help"):
        from mydocker.oci import help_

        help_.verb(verb, module.__doc__ or "", shape, module.OPTIONS)
        return 0
    _check_count(verb, others, shape)
    take_over_core_messages(log)
    call = Call(
        verb=verb,
        root=_root(given),
        log=log,
        systemd_cgroup=_by_systemd(given),
        rootless=_rootless(given.get("rootless", "auto")),
        options=chosen,
        arguments=tuple(others),
    )
    if verb not in _RELEASE_LATER:
        code_cache.release()
    return int(module.main(call))


def _load(name: str) -> ModuleType:
    module: ModuleType = __import__(f"mydocker.oci.{name}", fromlist=["main"])
    return module


def _check_count(verb: str, words: Sequence[str], shape: str) -> None:
    """``shape``: each word stands for one argument, in brackets for one that may lack, with dots for any number."""
    parts = shape.split()
    least = sum(not part.startswith("[") for part in parts)
    if len(words) < least:
        raise OciError(f'"{verb}" requires {least} argument{"s" * (least > 1)}: {shape}')
    if len(words) > len(parts) and "..." not in shape:
        raise OciError(f'"{verb}" takes no more than {len(parts)} argument{"s" * (len(parts) != 1)}: {shape or "none"}')
    if least and not words[0]:
        raise OciError("container id cannot be empty")


def _root(given: dict[str, Any]) -> str:
    root = given.get("root")
    if root:
        return os.path.abspath(str(root))
    from mydocker import state

    return state.default_root()


def _by_systemd(given: dict[str, Any]) -> bool:
    manager = given.get("cgroup_manager", "cgroupfs")
    if manager not in ("cgroupfs", "systemd"):
        raise OciError(f'invalid value "{manager}" for --cgroup-manager: write cgroupfs or systemd')
    return bool(given.get("systemd_cgroup")) or manager == "systemd"


def _rootless(text: str) -> str:
    if text == "auto":
        return text
    if text in ("true", "1", "t", "T", "TRUE", "True"):
        return "true"
    if text in ("false", "0", "f", "F", "FALSE", "False"):
        return "false"
    raise OciError(f'invalid value "{text}" for --rootless: write true, false or auto')
