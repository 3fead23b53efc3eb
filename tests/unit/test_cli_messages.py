"""What mydocker prints besides the command's output: help, completion, errors, logs; and its own exit codes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from mydocker import cli, logs, plugins, runner
from mydocker.cli import app, fast
from mydocker.errors import CommandNotFound, PluginError
from mydocker.plugins import Registry
from mydocker.version import __version__

FIELDS = (
    ("number", ("-n", "--number"), "mydocker.resources:parse_integer", "N", "Some number.", "", "value", "", "", False),
)
REGISTRY = Registry((("numbers", "dist", "1.5", "m", FIELDS, {}),))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test starts as a process does, with nothing configured."""
    for name in ("threshold", "format", "logger"):
        monkeypatch.setattr(logs._Settings, name, {"threshold": 0, "format": "text", "logger": None}[name])
    monkeypatch.setattr(plugins, "load", lambda: REGISTRY)
    monkeypatch.setattr(app.main, "__defaults__", (lambda: REGISTRY,))
    logger = logging.getLogger("mydocker")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run_foreground(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(runner, "run_foreground", run_foreground)


def test_the_help_of_run_lists_each_option_and_limit_in_its_section(capsys: Any) -> None:
    assert cli.command(["run", "--help"]) == 0
    text = capsys.readouterr().out
    general, limits, files = (text.index(f"\n{title}:") for title in ("General", "Limits: numbers", "Root and files"))
    assert general < text.index("-t, --tty") < limits < text.index("-n, --number N  Some number.") < files
    assert text.index("Examples:") < general
    for option in app.run_options(REGISTRY):
        assert all(flag in text for flag in option.flags)
        assert all(word in text for word in option.help.split()), "a flag is broken at its hyphen"


@pytest.mark.parametrize("line", [[], ["-h"], ["--help"]])
def test_the_help_lists_the_commands(line: list[str], capsys: Any) -> None:
    assert cli.command(line) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name}  " in text for name in ("run       ", "subsystems", "completion"))


def test_the_help_of_the_group_needs_no_plugin(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def broken() -> Registry:
        raise PluginError("plugin bad (bad 1) cannot be imported")

    monkeypatch.setattr(plugins, "load", broken)
    monkeypatch.setattr(app.main, "__defaults__", (broken,))
    assert cli.command(["--help"]) == 0
    assert cli.command(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"mydocker {__version__}\n")
    assert cli.command(["run", "true"]) == 125
    assert capsys.readouterr().err == "mydocker: plugin bad (bad 1) cannot be imported\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_asks_mydocker(shell: str, capfd: Any) -> None:
    assert cli.command(["completion", shell]) == 0
    script = capfd.readouterr().out
    assert f"_MYDOCKER_COMPLETE={shell}_complete" in script
    assert "mydocker" in script


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("mydocker ru", {"plain,run"}),
        ("mydocker run --numb", {"plain,--number"}),
        ("mydocker run --network ", {"plain,none", "plain,host"}),
        ("mydocker run --log-level in", {"plain,info"}),
        ("mydocker run --rootfs /x", {"dir,/x"}),
        ("mydocker run -t ./scr", {"file,./scr"}),
        ("mydocker completion f", {"plain,fish"}),
    ],
)
def test_completion(words: str, offered: set[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("_MYDOCKER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert cli.command([]) == 0
    assert set(capsys.readouterr().out.split("\n")) - {""} == offered


def test_an_error_is_one_line_with_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    fail_with(monkeypatch, CommandNotFound("no\nsuch: command not found"))
    assert cli.command(["run", "x"]) == 127
    assert capsys.readouterr() == ("", "mydocker: no such: command not found\n")


def test_what_a_terminal_would_obey_is_shown_as_an_escape(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    fail_with(monkeypatch, CommandNotFound("\x1b[2Jnö \udc80such\x07"))
    assert cli.command(["run", "x"]) == 127
    logs.warning("of a stranger: %s", "\x1b]0;title\x07")
    shown = "mydocker: \\x1b[2Jnö \\udc80such\\x07\nmydocker: warning: of a stranger: \\x1b]0;title\\x07\n"
    assert capsys.readouterr().err == shown


def test_debug_adds_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    fail_with(monkeypatch, CommandNotFound("nothing here"))
    assert cli.command(["run", "--debug", "x"]) == 127
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "mydocker: nothing here"
    assert rest[0] == "Traceback (most recent call last):"


def test_an_unexpected_error_says_how_to_learn_more(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    fail_with(monkeypatch, ZeroDivisionError("division"))
    assert cli.command(["run", "x"]) == 125
    expected = "mydocker: unexpected ZeroDivisionError: division; run it with --debug for the traceback\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141)])
def test_an_interrupt_and_a_broken_pipe_are_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, error: BaseException, code: int
) -> None:
    fail_with(monkeypatch, error)
    assert cli.command(["run", "x"]) == code
    assert capsys.readouterr() == ("", "")


def test_an_output_that_cannot_be_written_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mydocker", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        125,
        "mydocker: cannot write the output: No space left on device\n",
    )


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (["update", "a", "-n"], "mydocker update"),
        (["stats", "--nonsense"], "mydocker stats"),
        (["run", "-n"], "mydocker run"),
        (["--nonsense"], "mydocker"),
    ],
)
def test_a_mistake_names_the_help_of_its_command(line: list[str], command: str, capsys: Any) -> None:
    assert cli.command(line) == 125
    assert capsys.readouterr().err.endswith(f"; see {command} --help\n")


def test_a_flag_of_a_limit_that_is_turned_off(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("MYDOCKER_DISABLE_PLUGINS", "memory")
    assert cli.command(["run", "-m", "1g", "true"]) == 125
    hint = "limits are turned off here by MYDOCKER_DISABLE_PLUGINS; see mydocker run --help"
    assert capsys.readouterr().err == f"mydocker: there is no option -m; {hint}\n"


@pytest.mark.parametrize("line", [["--log-format", "json", "run", "x"], ["run", "--log-format=json", "x"]])
def test_an_error_as_json_has_logrus_keys(line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    fail_with(monkeypatch, CommandNotFound("nothing\nhere"))
    assert cli.command(line) == 127
    (text,) = capsys.readouterr().err.splitlines()
    written = json.loads(text)
    assert list(written) == ["level", "msg", "time"]
    assert (written["level"], written["msg"]) == ("error", "nothing\nhere")
    assert datetime.fromisoformat(written["time"]).tzinfo is not None


def test_a_line_that_cannot_be_read_is_answered_as_json_too(capsys: Any) -> None:
    assert cli.command(["run", "--log-format", "json", "--nonsense"]) == 125
    assert json.loads(capsys.readouterr().err)["msg"].startswith("there is no option --nonsense")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["run", "--log-level", "loud", "x"], '--log-level: "loud" is not a level: use debug, info, warning or error'),
        (["--log-format", "xml", "run", "x"], '--log-format: "xml" is not a format: use text or json'),
    ],
)
def test_wrong_log_options(line: list[str], sentence: str, capsys: Any) -> None:
    assert cli.command(line) == 125
    assert capsys.readouterr().err == f"mydocker: {sentence}\n"


def test_logs_are_written_from_their_level_on_and_only_to_stderr(capsys: Any) -> None:
    logs.configure("info")
    logs.debug("hidden")
    logs.info("all command is %s", "ls -l")
    logs.warning("careful")
    assert capsys.readouterr() == ("", "mydocker: info: all command is ls -l\nmydocker: warning: careful\n")
    assert logs.enabled("info")
    assert not logs.enabled("debug")


def test_logs_as_json(capsys: Any) -> None:
    logs.configure("debug", "json")
    logs.debug("find path %s", "/bin/ls")
    written = json.loads(capsys.readouterr().err)
    assert (written["level"], written["msg"]) == ("debug", "find path /bin/ls")


def test_in_a_library_messages_go_to_the_applications_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "mydocker"):
        logs.info("all command is %s", "ls")
        logs.debug("hidden")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("mydocker", "all command is ls")]


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_quiet_logs_import_nothing() -> None:
    done = python(
        "import sys; from mydocker import logs\n"
        "logs.info('x'); logs.configure(); logs.info('x'); logs.debug('x')\n"
        "print('logging' in sys.modules)"
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_main_ends_the_process_with_the_code_and_what_was_printed() -> None:
    done = python("from mydocker.cli import main; print('before'); main(['run', '--nothing'])")
    assert (done.returncode, done.stdout) == (125, "before\n")
    assert done.stderr.startswith("mydocker: there is no option --nothing")
    done = python("import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('mydocker', run_name='__main__')")
    assert (done.returncode, done.stdout) == (0, f"mydocker {__version__}\n")


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    program = (
        "import os, sys; from mydocker.cli import main\n"
        "r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
        "main(['--help'])"
    )
    done = python(program)
    assert done.stderr == ""


def test_a_plain_run_reads_its_line_without_click() -> None:
    assert fast.is_run(["--debug", "run", "--nonsense"])
    assert not fast.is_run(["--nonsense", "run"])
    assert not fast.is_run(["subsystems"])
