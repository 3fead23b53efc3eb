"""The command line. It parses, calls the core and prints; it decides nothing.

`command` first tries the plain way: `mydocker.cli.fast` reads a valid ``mydocker run …`` without click.
Everything else, help, completion, other subcommands and mistakes, goes to click in `mydocker.cli.app`.
"""

from __future__ import annotations

import errno
import os
import sys

from mydocker import logs
from mydocker.errors import MydockerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

#: Set by the shell's completion function, which calls mydocker to ask what may come next.
COMPLETION_VARIABLE = "_MYDOCKER_COMPLETE"


def main(arguments: Sequence[str] | None = None, at_end: Callable[[], object] | None = None) -> NoReturn:
    """Do what the arguments say (by default those of the process) and end the process with the exit code.

    ``at_end``: called when all is done and said.

    The end is `os._exit`: the interpreter's own shut-down frees, piece by piece, what the kernel frees at once
    anyway, and takes a good part of a run. Nothing here relies on it: what was printed is flushed before.
    """
    code = 125
    try:
        code = command(sys.argv[1:] if arguments is None else arguments)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # None: the process was started with this descriptor closed
                stream.flush()
        if at_end is not None:
            at_end()
    except OSError:
        pass  # the reader of our output has gone; there is nobody to tell
    finally:
        os._exit(code)


def command(arguments: Sequence[str]) -> int:
    """Do what the arguments say, print the error if there is one, and return the exit code."""
    try:
        return _command(arguments)
    except MydockerError as error:
        if COMPLETION_VARIABLE in os.environ:
            return 1  # words on stderr would stand in the middle of the line that is being typed
        _report(str(error), error, arguments)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141  # as a shell reports a process that SIGPIPE ended
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            return _unexpected(error, arguments)
        _report(f"cannot write the output: {error.strerror}", error, arguments)
        return 125
    except BaseException as error:
        return _unexpected(error, arguments)


def _unexpected(error: BaseException, arguments: Sequence[str]) -> int:
    from mydocker.plugins import error_text

    _report(f"unexpected {error_text(error)}; run it with --debug for the traceback", error, arguments)
    return 125


def _command(arguments: Sequence[str]) -> int:
    if COMPLETION_VARIABLE not in os.environ:
        mark = _tracer(arguments)
        from mydocker import plugins
        from mydocker.cli import fast

        if fast.is_run(arguments):
            mark("plugins")
            registry = plugins.load()
            mark("parse")
            parsed = fast.read(arguments, registry)
            if parsed is not None:
                from mydocker.cli import run

                return run.execute(parsed, registry)
    from mydocker import code_cache
    from mydocker.cli import app

    code_cache.release()
    return app.main(arguments)


def _tracer(arguments: Sequence[str]) -> Callable[[str], None]:
    """What notes the stages from here on; nothing does if ``--trace`` is not among the words, an option or not."""
    if "--trace" not in arguments:
        return lambda stage: None
    from mydocker.tracing import begin_command_line

    trace = begin_command_line()
    trace.mark("parse")
    return trace.mark


def _report(message: str, error: BaseException, arguments: Sequence[str]) -> None:
    """One line on stderr; the traceback too if ``--debug`` was given."""
    if not logs.configured():
        _configure_logs_of_wrong_line(arguments)
    if logs.is_json():
        logs.error("%s", message, exception=error if logs.enabled("debug") else None)
        return
    sys.stderr.write(f"mydocker: {logs.harmless(' '.join(message.splitlines()))}\n")
    if logs.enabled("debug"):
        import traceback

        traceback.print_exception(error)


def _configure_logs_of_wrong_line(arguments: Sequence[str]) -> None:
    """What the log options say on a command line that could not be read, as far as one can tell."""
    from itertools import pairwise

    words = list(arguments)
    json = "--log-format=json" in words or ("--log-format", "json") in pairwise(words)
    logs.configure("debug" if "--debug" in words else "warning", "json" if json else "text")
