"""``mydocker.run`` as a Python program calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mydocker

#: Modules that cost more than they may, on the way of a run.
HEAVY = [
    "click",
    "pluggy",
    "logging",
    "json",
    "typing",
    "dataclasses",
    "enum",
    "re",
    "signal",
    "subprocess",
    "socket",
    "pathlib",
    "contextlib",
    "functools",
    "threading",
    "inspect",
    "importlib.metadata",
    "pythonjsonlogger",
]


def modules_after(program: str, *options: str) -> set[str]:
    command = [sys.executable, *options, "-c", f"{program}\nimport sys; print('\\n'.join(sys.modules))"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.vm
def test_the_result_tells_everything() -> None:
    result = mydocker.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True)
    assert isinstance(result, mydocker.Result)
    assert isinstance(result.usage, mydocker.Usage)
    assert result.args == ("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.signal, result.reason, result.error) == (3, None, "exited", "")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert (result.oom_kills, result.memory_peak, result.limits) == (0, None, {})
    assert result.wall_seconds > 0
    assert result.cpu_user + result.cpu_system > 0
    assert result.id


@pytest.mark.vm
def test_cpu_time_is_that_of_all_processes() -> None:
    loop = [sys.executable, "-Sc", "import time\nwhile time.process_time() < 0.3: pass"]
    result = mydocker.run(["sh", "-c", '"$@"; "$@"', "sh", *loop])
    assert result.cpu_user + result.cpu_system >= 0.6


def test_with_init_the_processes_below_count_too() -> None:
    loop = [sys.executable, "-Sc", "import time\nwhile time.process_time() < 0.3: pass"]
    result = mydocker.run(loop, init=True)
    assert result.cpu_user + result.cpu_system >= 0.3


def test_a_signal_is_told() -> None:
    result = mydocker.run(["sh", "-c", "kill -TERM $$"], init=True)
    assert (result.exit_code, result.signal, result.reason) == (143, 15, "signaled")


def test_text_and_bytes() -> None:
    argv = ["printf", "a\\303\\251\\377"]
    assert mydocker.run(argv, capture_output=True).stdout == b"a\xc3\xa9\xff"
    assert mydocker.run(argv, capture_output=True, text=True).stdout == "a\u00e9\ufffd"


def test_what_is_not_captured_goes_to_the_callers_descriptors(capfd: pytest.CaptureFixture[str]) -> None:
    result = mydocker.run(["sh", "-c", "echo out; echo err >&2"])
    assert (result.stdout, result.stderr) == (None, None)
    assert capfd.readouterr() == ("out\n", "err\n")


@pytest.mark.vm
def test_input_and_output_larger_than_a_pipe() -> None:
    data = os.urandom(2 << 20)
    assert mydocker.run(["cat"], input=data, capture_output=True).stdout == data
    assert mydocker.run(["true"], input=data).exit_code == 0
    assert mydocker.run(["cat"], input="t\u00e9xt", capture_output=True, text=True).stdout == "t\u00e9xt"


def test_stdin_is_empty_by_default() -> None:
    assert mydocker.run(["cat"], capture_output=True).stdout == b""


def test_streams_are_files_descriptors_or_the_constants_of_subprocess(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from a file\n")
    with (tmp_path / "in").open() as stdin, (tmp_path / "out").open("wb") as out:
        result = mydocker.run(["sh", "-c", "cat; echo err >&2"], stdin=stdin, stdout=out, stderr=subprocess.STDOUT)
    assert (tmp_path / "out").read_text() == "from a file\nerr\n"
    assert (result.stdout, result.stderr) == (None, None)
    result = mydocker.run(["sh", "-c", "echo out; echo err >&2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert (result.stdout, result.stderr) == (b"out\n", None)
    result = mydocker.run(["sh", "-c", "echo out; echo err >&2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (result.stdout, result.stderr) == (b"out\nerr\n", None)
    reader, writer = os.pipe()
    mydocker.run(["echo", "number"], stdout=writer)
    os.close(writer)
    assert os.read(reader, 100) == b"number\n"
    os.close(reader)


def test_output_of_processes_that_outlive_the_command_is_complete_and_they_are_gone() -> None:
    """Nothing writes after the end of the container, so there is nothing to wait for."""
    result = mydocker.run(["sh", "-c", "(sleep 1000; echo late) & echo now"], capture_output=True)
    assert result.stdout == b"now\n"


@pytest.mark.vm
def test_check_raises_with_the_result() -> None:
    with pytest.raises(mydocker.RunFailed, match="exited with 3") as caught:
        mydocker.run(["sh", "-c", "echo out; exit 3"], check=True, capture_output=True)
    assert (caught.value.exit_code, caught.value.result.stdout) == (3, b"out\n")
    assert mydocker.run(["true"], check=True).exit_code == 0


@pytest.mark.vm
def test_a_timeout_is_a_reason_and_not_an_exception() -> None:
    for timeout in (0.3, "300ms"):
        result = mydocker.run(["sh", "-c", "echo started; sleep 1000"], timeout=timeout, capture_output=True)
        assert (result.reason, result.exit_code, result.signal, result.stdout) == ("timeout", 137, 9, b"started\n")
        assert result.wall_seconds >= 0.3
    with pytest.raises(mydocker.RunFailed, match="timeout"):
        mydocker.run(["sleep", "1000"], timeout=0.1, check=True)


@pytest.mark.parametrize("timeout", [0, -1, "never", "", float("nan"), float("inf")])
def test_a_timeout_that_is_none(timeout: float | str) -> None:
    with pytest.raises(mydocker.UsageError, match="timeout"):
        mydocker.run(["true"], timeout=timeout)


def test_arguments_may_be_paths_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert mydocker.run(["cat", tmp_path / "file"], capture_output=True, text=True).stdout == "x"
    assert mydocker.run([b"echo", b"\xff"], capture_output=True).stdout == b"\xff\n"


@pytest.mark.parametrize(
    "call",
    [
        {"argv": "ls -l"},
        {"argv": b"ls"},
        {"argv": []},
        {"argv": ["true"], "capture_output": True, "stdout": 1},
        {"argv": ["true"], "input": b"x", "stdin": 0},
        {"argv": ["true"], "no_such_option": 1},
        {"argv": ["true"], "network": "bridge"},
    ],
)
def test_a_wrong_call_says_so(call: dict[str, object]) -> None:
    with pytest.raises(mydocker.UsageError):
        mydocker.run(**call)  # type: ignore[arg-type]


def test_none_is_no_limit() -> None:
    assert mydocker.run(["true"], memory=None, cpus=None).limits == {}


def test_name_and_pidfile(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    script = f"cat {pidfile}"
    result = mydocker.run(["sh", "-c", script], name="named", pidfile=pidfile, capture_output=True)
    assert result.id == "named"
    assert isinstance(result.stdout, bytes)
    assert int(result.stdout) > 1
    assert not pidfile.exists()


def test_the_result_as_json() -> None:
    told = json.loads(mydocker.run(["sh", "-c", "exit 2"], memory="100m").to_json())
    assert (told["exit_code"], told["reason"], told["limits"]) == (2, "exited", {"memory": 104857600})
    assert told["usage"]["memory"]["oom_kills"] == 0


@pytest.mark.vm
def test_a_run_imports_nothing_heavy() -> None:
    """-S -E: site and its .pth files import what they like, and that is not ours."""
    path = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
    for call in ("", "mydocker.run(['true'])", "mydocker.run(['true'], capture_output=True, timeout=10, init=True)"):
        loaded = modules_after(f"{path}import mydocker\n{call}", "-S", "-E")
        assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def test_a_run_with_limits_imports_little_more(tmp_path: Path) -> None:
    """Once the plugins are known; cgroupspy brings what it brings."""
    path = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
    call = f"{path}import mydocker; mydocker.run(['true'], memory='100m', cpus=0.5, cpuset_cpus='0')"
    modules_after(call, "-S", "-E")
    loaded = modules_after(call, "-S", "-E")
    heavy = {"click", "pluggy", "logging", "json", "typing", "dataclasses", "subprocess", "importlib.metadata"}
    assert loaded.isdisjoint(heavy), loaded & heavy


def test_importing_is_lighter_still() -> None:
    path = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
    loaded = {name for name in modules_after(f"{path}import mydocker", "-S", "-E") if name.startswith("mydocker")}
    assert loaded == {"mydocker"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "12x"}, 'memory: "12x" is not a size'),
        ({"cpus": 99}, "cpus: "),
        ({"timeout": 0}, "timeout: 0 is not a number of seconds"),
        ({"timeout": float("nan")}, "timeout: nan is not a number of seconds"),
        ({"timeout": "soon"}, 'timeout: "soon" is not a duration'),
    ],
)
def test_an_error_names_the_keyword(options: dict[str, object], words: str) -> None:
    with pytest.raises(mydocker.UsageError) as caught:
        mydocker.run(["true"], **options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(words)
