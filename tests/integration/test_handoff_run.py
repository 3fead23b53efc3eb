"""The command arrives exactly, or does not run: the handoff through real containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mydocker

Run = Callable[..., CompletedProcess[str]]
Eventually = Callable[..., object]

LONGEST = 128 * 1024 - 1  # MAX_ARG_STRLEN of execve(2), without the NUL
PRINT_EACH = "import sys, os; [os.write(1, os.fsencode(a) + b'\\0') for a in sys.argv[1:]]"


def echoed(arguments: list[bytes]) -> list[bytes]:
    """The arguments as a command gets them. ``printf`` of the shell is a builtin and takes any length."""
    argv = [b"sh", b"-c", b"""for a; do printf '%s\\0' "$a"; done""", b"sh", *arguments]
    result = mydocker.run(argv, capture_output=True)
    assert result.exit_code == 0, result.stderr
    assert isinstance(result.stdout, bytes)
    return result.stdout.split(b"\0")[:-1]


@pytest.mark.vm_once
def test_blanks_empty_strings_newlines_and_dollars_go_through(run: Run) -> None:
    result = run("sh", "-c", 'echo "$0" "$@"', "a  b", "", "line\nbreak", "$HOME")
    assert (result.returncode, result.stdout) == (0, "a  b  line\nbreak $HOME\n")


@pytest.mark.vm_once
def test_each_argument_is_the_same_bytes() -> None:
    arguments = [
        b"a  b",
        b"",
        b"line\nbreak",
        b"$HOME",
        b"'",
        b'"',
        b"\\",
        b"\xff\xfe\x80",
        bytes(range(1, 256)),
        b"-it",
    ]
    assert echoed(arguments) == arguments


def test_bytes_that_are_no_text_go_through_the_command_line(run: Run) -> None:
    result = run("printf", "%s", b"\xff\xfe\xe9", encoding=None, errors=None)
    assert result.stdout == b"\xff\xfe\xe9"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=50).map(lambda data: data.replace(b"\0", b"")), max_size=6))
def test_any_arguments_go_through(arguments: list[bytes]) -> None:
    assert echoed(arguments) == arguments


def test_options_of_the_command_belong_to_the_command(run: Run) -> None:
    assert run("echo", "-ti", "--rootfs", "-mem", "100m", "--", "--help").stdout == "-ti --rootfs -mem 100m -- --help\n"
    assert run("--", "echo", "--", "x").stdout == "-- x\n"


@pytest.mark.vm_once
def test_a_hundred_thousand_arguments_go_through(run: Run) -> None:
    arguments = [str(number) for number in range(100_000)]
    result = run("sh", "-c", 'echo $#; printf "%s\n" "$@"', "sh", *arguments)
    count, *printed = result.stdout.split("\n")[:-1]
    assert count == "100000"
    assert printed == arguments


@pytest.mark.vm_once
def test_the_longest_argument_goes_through(run: Run) -> None:
    assert run("sh", "-c", "echo ${#1}", "sh", "x" * LONGEST).stdout == f"{LONGEST}\n"
    assert echoed([b"x" * LONGEST]) == [b"x" * LONGEST]


@pytest.mark.vm_once
def test_one_byte_more_is_too_long_in_words() -> None:
    with pytest.raises(mydocker.CommandNotExecutable, match="argument list too long") as caught:
        mydocker.run(["true", "x" * (LONGEST + 1)])
    assert caught.value.exit_code == 126


def test_more_than_the_kernel_takes_in_all_is_too_long_in_words() -> None:
    with pytest.raises(mydocker.CommandNotExecutable, match="argument list too long"):
        mydocker.run(["true", *["x" * 100_000] * 100])


def test_a_variable_that_is_too_long_is_too_long_in_words() -> None:
    with pytest.raises(mydocker.CommandNotExecutable, match="too long"):
        mydocker.run(["true"], env={"BIG": "x" * (LONGEST + 1)})


@pytest.mark.parametrize("call", [{"argv": ["echo", "a\0b"]}, {"argv": ["true"], "env": {"A": "b\0"}}])
def test_nul_is_refused(call: dict[str, object]) -> None:
    with pytest.raises(mydocker.UsageError, match="NUL"):
        mydocker.run(**call)  # type: ignore[arg-type]


class TestDescriptors:
    """Nothing but 0, 1 and 2 reaches the command."""

    # Not as the last command, and where it is redirected in a subshell: the shell's own descriptors would change.
    LIST = "ls /proc/$$/fd; true"

    @pytest.fixture(autouse=True)
    def open_descriptors(self) -> object:
        """What a careless caller has open: descriptors that survive exec, high and low."""
        reader, writer = os.pipe()
        high = os.dup2(reader, 900)
        for fd in (reader, writer, high):
            os.set_inheritable(fd, True)
        yield
        for fd in (reader, writer, high):
            os.close(fd)

    @pytest.mark.vm_once
    def test_from_the_command_line(self, run: Run) -> None:
        for options in ([], ["--init"], ["-mem", "100m", "-cpushare", "512", "-cpuset", "0"], ["-i"]):
            result = run(*options, "sh", "-c", self.LIST, close_fds=False)
            assert result.stdout.split() == ["0", "1", "2"], options

    def test_with_a_root_of_its_own(self, run: Run, rootfs: Path, tmp_path: Path) -> None:
        mounts = ["-v", f"{tmp_path}:/data", "--tmpfs", "/scratch", "-u", "alice"]
        for options in ([], ["--overlay"], ["--read-only"], ["--overlay", "--init", "-mem", "100m"], mounts):
            result = run("--rootfs", rootfs, *options, "sh", "-c", self.LIST, close_fds=False)
            assert result.stdout.split() == ["0", "1", "2"], (options, result.stderr)

    @pytest.mark.vm_once
    def test_from_python(self) -> None:
        for options in ({}, {"init": True}, {"memory": "100m"}, {"input": b"x"}):
            result = mydocker.run(["sh", "-c", self.LIST], capture_output=True, text=True, **options)
            assert isinstance(result.stdout, str)
            assert result.stdout.split() == ["0", "1", "2"], options

    def test_with_json_logs_at_debug_level(self, run: Run) -> None:
        result = run("--log-format", "json", "--debug", "sh", "-c", self.LIST, close_fds=False)
        assert result.stdout.split() == ["0", "1", "2"]

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
    @pytest.mark.parametrize("options", ["", "-i", "--init", "-mem 100m"])
    def test_a_runtime_with_closed_descriptors_gives_none_of_its_own(
        self, tmp_path: Path, closed: str, options: str
    ) -> None:
        """open(2) takes the lowest free number: 0, 1 or 2 may then be a pipe or a lock of the runtime."""
        note = tmp_path / "note"
        command = f'"$0" -m mydocker run {options} sh -c "$1" {closed}'
        script = f"(ls -l /proc/$$/fd >{note}); true"
        subprocess.run(["sh", "-c", command, sys.executable, script], capture_output=True, check=True)
        shown = dict(line.split()[-3::2] for line in note.read_text().splitlines()[1:])
        assert set(shown) == {"0", "1", "2"}
        for number, redirection in enumerate(("<&-", ">&-", "2>&-")):
            if redirection in closed.split():
                assert shown[str(number)] == "/dev/null"

    def test_python_with_closed_descriptors_gives_none_of_its_own(self, tmp_path: Path) -> None:
        note = tmp_path / "note"
        script = f"(ls -l /proc/$$/fd >{note}); true"
        call = f"import os, mydocker; [os.close(n) for n in (0, 1, 2)]; mydocker.run(['sh', '-c', {script!r}])"
        subprocess.run([sys.executable, "-c", call], check=False)
        shown = dict(line.split()[-3::2] for line in note.read_text().splitlines()[1:])
        assert shown == dict.fromkeys("012", "/dev/null")


#: A runtime whose parent hands over only the first bytes of the frame, and then does what ``then`` says.
CUT_SHORT = """
import os, signal, sys
from mydocker import handoff, runner
import mydocker

count, then, mark = int(sys.argv[1]), sys.argv[2], sys.argv[3]
whole = handoff.send

def cut(fd, frame, wait):
    whole(fd, frame[:count] if count >= 0 else frame[: len(frame) + count], wait)
    if then == "kill":
        os.kill(os.getpid(), signal.SIGKILL)

runner.handoff.send = cut
mydocker.run(["sh", "-c", f"touch {mark}"])
"""


class TestTruncated:
    @pytest.mark.vm_once
    @pytest.mark.parametrize("then", ["close", "kill"])
    @pytest.mark.parametrize("count", [0, 1, 12, 13, 20, -1])
    def test_a_truncated_command_does_not_run(
        self, tmp_path: Path, count: int, then: str, state_dir: Path, eventually: Eventually
    ) -> None:
        mark = tmp_path / "mark"
        driver = subprocess.run(
            [sys.executable, "-c", CUT_SHORT, str(count), then, mark], capture_output=True, check=False
        )
        assert driver.returncode == (-9 if then == "kill" else driver.returncode), driver.stderr
        eventually(lambda: not children_of_gone(state_dir))
        assert not mark.exists()
        mydocker.run(["true"])
        assert not mark.exists()

    def test_the_whole_command_does(self, tmp_path: Path) -> None:
        """Shows that the driver of the test above works."""
        mark = tmp_path / "mark"
        subprocess.run([sys.executable, "-c", CUT_SHORT, str(1 << 30), "close", mark], check=True)
        assert mark.exists()

    def test_a_parent_killed_while_a_large_command_passes(self, tmp_path: Path, state_dir: Path) -> None:
        """More than a pipe holds, so the child has read a part and waits for the rest."""
        mark = tmp_path / "mark"
        driver = CUT_SHORT.replace('"sh", "-c", f"touch {mark}"', '"sh", "-c", f"touch {mark}", *["x" * 1000] * 1000')
        for count in (65536, 65536 + 13, 500_000, -1):
            subprocess.run([sys.executable, "-c", driver, str(count), "kill", mark], check=False)
            mydocker.run(["true"])
            assert not mark.exists()


def children_of_gone(state_dir: Path) -> list[int]:
    """The first processes of the containers on record that still live."""
    found = []
    for record in state_dir.glob("*/state.json"):
        try:
            pid = json.loads(record.read_text())["pid"]
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if pid and stat.rpartition(")")[2].split()[0] != "Z":
            found.append(pid)
    return found
