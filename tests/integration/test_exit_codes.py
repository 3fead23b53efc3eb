"""Exit codes are those of ``docker run``, and every failure is one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import mydocker

Run = Callable[..., CompletedProcess[str]]


def one_sentence(stderr: str) -> str:
    assert stderr.startswith("mydocker: ")
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    return stderr


@pytest.mark.vm_once
@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 255])
def test_the_commands_own_code_is_passed_on(run: Run, code: int) -> None:
    result = run("sh", "-c", f"exit {code}")
    assert (result.returncode, result.stderr) == (code, "")


@pytest.mark.parametrize("number", [1, 2, 6, 9, 11, 15])
def test_a_command_that_a_signal_killed_is_128_and_the_signal(run: Run, number: int) -> None:
    # PID 1 does not die by a signal that it sends itself, except KILL from outside: so the command is not PID 1
    assert run("--init", "sh", "-c", f"kill -{number} $$").returncode == 128 + number


@pytest.mark.vm_once
def test_a_command_that_is_not_there_is_127(run: Run) -> None:
    result = run("no-such-command", "x")
    assert result.returncode == 127
    assert "no-such-command" in one_sentence(result.stderr)
    assert "not found" in result.stderr


@pytest.mark.parametrize("path", ["/no/such/command", "./nothing", "/etc/passwd/x"])
def test_a_path_that_is_not_there_is_127(run: Run, path: str) -> None:
    result = run(path)
    assert result.returncode == 127
    assert path in one_sentence(result.stderr)


def test_an_empty_name_is_127(run: Run) -> None:
    result = run("")
    assert result.returncode == 127
    assert one_sentence(result.stderr) == "mydocker: an empty name: command not found in the container's PATH\n"


def test_a_working_directory_that_is_not_there(run: Run) -> None:
    result = run("-w", "/no/such", "true")
    assert result.returncode == 125
    assert result.stderr == "mydocker: cannot enter the working directory /no/such: No such file or directory\n"


@pytest.mark.vm_once
@pytest.mark.parametrize("directory", ["/tmp", "/etc/", "."])
def test_a_directory_is_126(run: Run, directory: str) -> None:
    result = run(directory)
    assert (result.returncode, "is a directory" in one_sentence(result.stderr)) == (126, True)


def test_a_file_that_is_not_executable_is_126(run: Run) -> None:
    result = run("/etc/passwd")
    assert (result.returncode, "permission denied" in one_sentence(result.stderr)) == (126, True)


def test_a_file_that_is_no_program_is_126(run: Run, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x00\x01nonsense")
    program.chmod(0o755)
    result = run(program)
    assert (result.returncode, "exec format error" in one_sentence(result.stderr)) == (126, True)


def test_a_script_whose_interpreter_is_missing_is_127_and_says_so(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    result = run(script)
    assert (result.returncode, "interpreter" in one_sentence(result.stderr)) == (127, True)


def test_a_name_is_looked_up_along_path_past_what_cannot_be_executed(run: Run, tmp_path: Path) -> None:
    for directory, mode, text in (("one", 0o644, ""), ("two", 0o755, "#!/bin/sh\necho two\n")):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "tool").write_text(text)
        (tmp_path / directory / "tool").chmod(mode)
    path = f"{tmp_path}/missing:{tmp_path}/one:{tmp_path}/two"
    assert run("-e", f"PATH={path}:/usr/bin:/bin", "tool").stdout == "two\n"
    refused = run("-e", f"PATH={tmp_path}/one", "tool")
    assert (refused.returncode, "permission denied" in refused.stderr) == (126, True)


@pytest.mark.vm_once
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rootfs", "/no/such/root"], ["--rootfs", "/no/such/root", "does not exist"]),
        (["--rootfs", "/etc/passwd"], ["--rootfs", "not a directory"]),
        (["-v", "/no/such/source:/mnt"], ["--volume", "/no/such/source"]),
        (["-u", "no-such-user"], ["--user", "no-such-user"]),
        (["-w", "/no/such/directory"], ["/no/such/directory"]),
        (["--pidfile", "/no/such/directory/pid"], ["--pidfile"]),
        (["--timeout", "soon"], ["--timeout", "soon"]),
        (["--name", "a/b"], ["a/b"]),
        (["--env-file", "/no/such/file"], ["--env-file", "/no/such/file"]),
        (["--cap-add", "FLY"], ["--cap-add", "FLY"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["--network", "bridge"], ["--network", "bridge"]),
        (["--tmpfs", "/no/such/place"], ["/no/such/place"]),
    ],
)
def test_what_the_runtime_cannot_do_is_125_and_one_sentence(run: Run, options: list[str], words: list[str]) -> None:
    result = run(*options, "sh", "-c", "echo ran")
    assert (result.returncode, result.stdout) == (125, "")
    for word in words:
        assert word in one_sentence(result.stderr)


def test_no_command_is_125(run: Run) -> None:
    result = run()
    assert result.returncode == 125
    assert "COMMAND" in result.stderr or "command" in result.stderr


def test_debug_adds_the_traceback(run: Run) -> None:
    assert "Traceback" in run("--debug", "no-such-command").stderr


def test_a_full_stderr_does_not_hang_the_runtime(run: Run) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert run("no-such-command", stdout=writer, stderr=writer).returncode in (125, 127)
    os.close(writer)


class TestResultFile:
    def read(self, path: Path) -> dict[str, object]:
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    @pytest.mark.vm_once
    def test_it_tells_how_the_run_ended(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "result.json"
        assert run("--result", file, "--name", "job", "sh", "-c", "exit 3").returncode == 3
        result = self.read(file)
        assert (result["id"], result["exit_code"], result["signal"], result["reason"]) == ("job", 3, None, "exited")
        assert result["args"] == ["sh", "-c", "exit 3"]
        assert result["wall_seconds"] > 0  # type: ignore[operator]
        assert result["cpu_user_seconds"] + result["cpu_system_seconds"] > 0  # type: ignore[operator]

    def test_it_tells_of_a_signal(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "result.json"
        run("--result", file, "--init", "sh", "-c", "kill -TERM $$")
        result = self.read(file)
        assert (result["exit_code"], result["signal"], result["reason"]) == (143, 15, "signaled")

    def test_it_tells_that_the_command_did_not_run(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "result.json"
        result = run("--result", file, "no-such-command")
        told = self.read(file)
        assert (told["exit_code"], told["reason"]) == (127, "runtime-error")
        assert str(told["error"]) in result.stderr

    def test_a_command_of_bytes_that_are_no_text(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "result.json"
        assert run("--result", file, "true", b"\xff").returncode == 0
        assert self.read(file)["args"] == ["true", "\udcff"]


def test_errors_of_the_api_have_the_exit_code_of_the_command_line() -> None:
    for argv, error, code in (
        (["no-such-command"], mydocker.CommandNotFound, 127),
        (["/tmp"], mydocker.CommandNotExecutable, 126),
    ):
        with pytest.raises(error) as caught:
            mydocker.run(argv)
        assert caught.value.exit_code == code
