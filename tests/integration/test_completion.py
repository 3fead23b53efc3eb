"""Completion as a shell does it: bash itself at a terminal, and the protocols of zsh and fish."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60
PLUGIN = """
from mydocker import ResourceField, hookimpl
from mydocker.resources import parse_flag, parse_integer

def parse_text(text):
    return text

@hookimpl
def mydocker_fields():
    return [
        ResourceField(
            name="colour", flags=("-colour", "--colour"), parse=parse_text, metavar="C", help="Some colour.",
            complete="red green greenish", kind="multiple",
        ),
        ResourceField(
            name="palette", flags=("--palette",), parse=parse_text, metavar="FILE", help="A file.", complete="file"
        ),
        ResourceField(
            name="gallery", flags=("--gallery",), parse=parse_text, metavar="DIR", help="A place.", complete="directory"
        ),
        ResourceField(name="dots", flags=("--dots",), parse=parse_integer, metavar="N", help="Some number."),
        ResourceField(name="dim", flags=("--dim",), parse=parse_flag, metavar="", help="Not bright.", kind="flag"),
    ]
"""


class Bash:
    """An interactive bash with mydocker's completion."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        command = [shutil.which("bash") or "bash", "--norc", "--noprofile", "-i"]
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self._number = 0
        self._run('set +o history; PS1=; PS2=; eval "$(mydocker completion bash)"')

    def complete(self, line: str, key: str = "\t") -> str:
        """The line after ``line`` was typed and TAB pressed; ``key``: ``\\e*`` to have every possibility inserted."""
        # Ctrl-A goes to the front: the line becomes words of an echo, and is not executed.
        return self._run(f"{line}{key}", before="\x01printf '<%s>' ")

    def possibilities(self, line: str) -> set[str]:
        """What may follow the last word of the line, which has begun or not."""
        begun = 0 if line.endswith((" ", "=", ":")) else 1
        words = shlex.split(line)
        completed = self.complete(line, "\x1b*").strip("<>").split("><")
        return set(completed[len(words) - begun :])

    def _run(self, typed: str, before: str = "") -> str:
        self._number += 1
        mark = f"end-{self._number}"
        os.write(self._master, f"{typed}{before}\x05; echo; echo e''nd-{self._number}\r".encode())
        shown = ""
        deadline = time.monotonic() + PATIENCE
        while f"\n{mark}\r" not in shown:
            ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"bash did not come to the end of the line: {shown!r}"
            shown += os.read(self._master, 4096).decode(errors="replace")
        lines = shown.replace("\r", "").split("\n")
        return lines[lines.index(mark) - 1]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A PATH with mydocker in it, and a plugin beside the others."""
    programs, site, cache = (tmp_path / name for name in ("programs", "site", "cache"))
    for directory in (programs, site, cache, site / "colours-1.0.dist-info"):
        directory.mkdir()
    (site / "colours.py").write_text(PLUGIN)
    metadata = site / "colours-1.0.dist-info"
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mydocker.subsystems]\ncolours = colours\n")
    launcher = programs / "mydocker"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mydocker "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "dumb", "COLUMNS": "500"}


@pytest.fixture
def bash(environment: dict[str, str], tmp_path: Path) -> Iterator[Bash]:
    place = tmp_path / "place"
    (place / "pictures").mkdir(parents=True)
    (place / "pigments.txt").touch()
    shell = Bash(place, environment)
    yield shell
    shell.close()


def test_subcommands(bash: Bash) -> None:
    assert bash.complete("mydocker sub") == "<mydocker><subsystems>"
    assert {"run", "doctor", "completion", "stats"} <= bash.possibilities("mydocker ")


def test_the_flags_of_a_plugin(bash: Bash) -> None:
    assert bash.complete("mydocker run --col") == "<mydocker><run><--colour>"
    assert bash.complete("mydocker run -mem 100m --do") == "<mydocker><run><-mem><100m><--dots>"
    assert bash.complete("mydocker run -colo") == "<mydocker><run><-colour>"
    assert {"--memory", "--dim", "--gallery", "--network"} <= bash.possibilities("mydocker run --")
    assert "--dots" in bash.possibilities("mydocker update --d")


def test_the_values_of_a_plugin(bash: Bash) -> None:
    assert bash.possibilities("mydocker run --colour ") == {"red", "green", "greenish"}
    assert bash.possibilities("mydocker run --colour red -colour gr") == {"green", "greenish"}
    assert bash.complete("mydocker run --colour r") == "<mydocker><run><--colour><red>"
    assert bash.complete("mydocker run --dim --colour r") == "<mydocker><run><--dim><--colour><red>"


def test_files_and_directories(bash: Bash) -> None:
    assert bash.possibilities("mydocker run --palette pi") == {"pictures", "pigments.txt"}
    assert bash.complete("mydocker run --gallery pi") == "<mydocker><run><--gallery><pictures/>"
    assert bash.complete("mydocker run --rootfs pi") == "<mydocker><run><--rootfs><pictures/>"


def test_a_value_behind_an_equals_sign(bash: Bash) -> None:
    assert bash.complete("mydocker run --colour=re") == "<mydocker><run><--colour=red>"
    assert bash.complete("mydocker run --network=h") == "<mydocker><run><--network=host>"
    assert bash.complete("mydocker run --colour=red --do") == "<mydocker><run><--colour=red><--dots>"


def test_words_with_colons_are_one_word(bash: Bash) -> None:
    assert bash.complete("mydocker run -v ./a:/b:ro --do") == "<mydocker><run><-v><./a:/b:ro><--dots>"
    assert bash.complete("mydocker run -v 'a b':/b --do") == "<mydocker><run><-v><a b:/b><--dots>"


def test_a_value_that_asks_for_more_has_no_blank_behind_it(bash: Bash) -> None:
    assert bash.complete("mydocker run --sched-policy fi", "\t7") == "<mydocker><run><--sched-policy><fifo:7>"


def test_the_command_and_what_belongs_to_it(bash: Bash, environment: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "programs/unheard-of"
    program.touch()
    program.chmod(0o755)
    assert bash.complete("mydocker run -t unheard") == "<mydocker><run><-t><unheard-of>"
    assert bash.complete("mydocker run cat pig") == "<mydocker><run><cat><pigments.txt>"
    assert bash.complete("mydocker run cat --do") == "<mydocker><run><cat><--do>"
    assert bash.complete("mydocker run --rootfs pictures unheard") == "<mydocker><run><--rootfs><pictures><unheard>"


def test_the_command_line_that_is_explained(bash: Bash) -> None:
    explain = "mydocker subsystems --explain -- "
    assert bash.complete(f"{explain}run --do") == "<mydocker><subsystems><--explain><--><run><--dots>"
    assert bash.possibilities(f"{explain}run --colour ") == {"red", "green", "greenish"}


def test_the_words_of_other_options(bash: Bash) -> None:
    assert bash.possibilities("mydocker --log-format ") == {"text", "json"}
    assert bash.possibilities("mydocker doctor --format ") == {"table", "json"}
    assert bash.possibilities("mydocker completion ") == {"bash", "zsh", "fish"}


def test_running_containers(bash: Bash, start: Any, eventually: Any, state_dir: Path) -> None:
    runs = [start("--name", name, "-w", "/", "sleep", "1000") for name in ("painter-1", "painter-2")]
    for name in ("painter-1", "painter-2"):
        eventually((state_dir / name / "state.json").exists)
    for subcommand in ("stats", "update", "pause", "unpause"):
        assert bash.complete(f"mydocker {subcommand} pain") == f"<mydocker><{subcommand}><painter->"
        assert bash.possibilities(f"mydocker {subcommand} pain") == {"painter-1", "painter-2"}
        assert bash.complete(f"mydocker {subcommand} painter-2 ") == f"<mydocker><{subcommand}><painter-2><painter-1>"
    for run in runs:
        run.terminate()
        run.wait()


def test_a_broken_plugin_writes_nothing_into_the_line(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site/colours.py").write_text("import nothing_of_that_name")
    asked = {**environment, "_MYDOCKER_COMPLETE": "bash_complete"}

    def answer(line: str) -> tuple[str, str]:
        asked["_MYDOCKER_LINE"] = line
        done = subprocess.run(["mydocker"], env=asked, capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.stdout, done.stderr

    assert answer("mydocker run --do") == ("", "")
    assert answer("mydocker doc") == ("plain,doctor\n", "")


@pytest.mark.parametrize(
    ("shell", "variables", "expected"),
    [
        ("zsh", {"COMP_WORDS": "mydocker run --dot", "COMP_CWORD": "2"}, "plain\n--dots\nSome number.\n"),
        ("zsh", {"COMP_WORDS": "mydocker run --colour r", "COMP_CWORD": "3"}, "plain\nred\n_\n"),
        ("zsh", {"COMP_WORDS": "mydocker run --gallery x", "COMP_CWORD": "3"}, "dir\nx\n_\n"),
        ("fish", {"COMP_WORDS": "mydocker run --dot", "COMP_CWORD": "--dot"}, "plain,--dots\tSome number.\n"),
        ("fish", {"COMP_WORDS": "mydocker run --colour r", "COMP_CWORD": "r"}, "plain,red\n"),
        ("fish", {"COMP_WORDS": "mydocker run --palette=x", "COMP_CWORD": "--palette=x"}, "file,x\n"),
    ],
)
def test_other_shells(environment: dict[str, str], shell: str, variables: dict[str, str], expected: str) -> None:
    asked = {**environment, "_MYDOCKER_COMPLETE": f"{shell}_complete", **variables}
    done = subprocess.run(["mydocker"], env=asked, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (done.stdout, done.stderr) == (expected, "")
