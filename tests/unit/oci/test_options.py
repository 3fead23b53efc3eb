"""The words of a command line of mydocker-oci, and what goes to its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mydocker.errors import OciError
from mydocker.oci import help_, kill
from mydocker.oci.log import Log
from mydocker.oci.main import VERBS, command
from mydocker.oci.options import Option, parse

OPTIONS = (
    Option(names=("--pid-file",), help=""),
    Option(names=("--bundle", "-b"), help=""),
    Option(names=("--env", "-e"), kind="multiple", help=""),
    Option(names=("--tty", "-t"), kind="flag", help=""),
    Option(names=("--detach", "-d"), kind="flag", help=""),
)


@pytest.mark.parametrize(
    ("line", "given", "others"),
    [
        ("id", {}, ["id"]),
        ("--pid-file f id", {"pid_file": "f"}, ["id"]),
        ("--pid-file=f id", {"pid_file": "f"}, ["id"]),
        ("-pid-file f id", {"pid_file": "f"}, ["id"]),
        ("-b f -t id", {"bundle": "f", "tty": True}, ["id"]),
        ("-td id", {"tty": True, "detach": True}, ["id"]),
        ("-tb f id", {"tty": True, "bundle": "f"}, ["id"]),
        ("--tty=false -d=1 id", {"tty": False, "detach": True}, ["id"]),
        ("-e A=1 --env=B=2 id", {"env": ["A=1", "B=2"]}, ["id"]),
        ("--pid-file= id", {"pid_file": ""}, ["id"]),
        ("id -t", {"tty": True}, ["id"]),
        ("-t -- -d", {"tty": True}, ["-d"]),
        ("id - x", {}, ["id", "-", "x"]),
        ("--bundle --tty id", {"bundle": "--tty"}, ["id"]),
    ],
)
def test_what_is_read(line: str, given: dict[str, Any], others: list[str]) -> None:
    assert parse(line.split(), OPTIONS, mixed=True) == (given, others)


def test_behind_the_first_word_all_belongs_to_the_command() -> None:
    assert parse("-t id ls -d --no-such".split(), OPTIONS, mixed=False) == (
        {"tty": True},
        ["id", "ls", "-d", "--no-such"],
    )


@pytest.mark.parametrize("line", ["--no-such", "-x", "-tx", "-bt f", "--bundle", "-e", "--tty=maybe", "---"])
def test_what_is_none(line: str) -> None:
    with pytest.raises(OciError):
        parse(line.split(), OPTIONS, mixed=True)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: mydocker-oci {verb} [OPTIONS]")
    for option in __import__(f"mydocker.oci.{VERBS[verb]}", fromlist=["x"]).OPTIONS:
        assert option.names[0] in said
        assert option.help


def test_help_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([]) == command(["--help"]) == command(["help"]) == 0
    for verb in VERBS:
        assert f"\n  {verb} " in capsys.readouterr().out or verb != "create"


def test_summaries_are_those_of_the_verbs() -> None:
    """They are written down a second time, since the help of all verbs imports none of them."""
    modules = {verb: __import__(f"mydocker.oci.{name}", fromlist=["main"]) for verb, name in VERBS.items()}
    assert {verb: help_.sentence(module.__doc__ or "") for verb, module in modules.items()} == help_.SUMMARIES


class TestLog:
    def test_an_error_is_alone(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        log = Log(str(tmp_path / "log"), "json")
        log.warning("before")
        log.error('it is "so"\nand so')
        assert json.loads((tmp_path / "log").read_text())["msg"] == 'it is "so"\nand so'
        assert capfd.readouterr().err == 'it is "so"\nand so\n'

    def test_warnings_of_what_succeeds(self, tmp_path: Path) -> None:
        log = Log(str(tmp_path / "log"), "json")
        log.warning("one")
        log.debug("not asked for")
        assert (tmp_path / "log").read_text() == ""
        log.flush()
        assert [json.loads(line)["level"] for line in (tmp_path / "log").read_text().splitlines()] == ["warning"]

    def test_debug_writes_at_once(self, tmp_path: Path) -> None:
        log = Log(str(tmp_path / "log"), "text", "debug")
        log.debug("now")
        assert (tmp_path / "log").read_text().endswith("level=debug msg=now\n")

    @pytest.mark.parametrize(
        ("form", "level", "path"), [("xml", "info", ""), ("text", "loud", ""), ("text", "info", "/no/such")]
    )
    def test_what_cannot_be(self, form: str, level: str, path: str) -> None:
        with pytest.raises(OciError):
            Log(path, form, level)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9", 9),
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigkill", 9),
        ("sys", 31),
        ("RTMIN", 34),
        ("RTMIN+1", 35),
        ("RTMAX-1", 63),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert kill.parse(text) == number
