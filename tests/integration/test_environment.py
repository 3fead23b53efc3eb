"""What surrounds the command: environment, working directory, umask, signal dispositions, limits."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import mydocker
from mydocker.linux import signals

Run = Callable[..., CompletedProcess[str]]


def variables(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines())


def test_with_the_hosts_root_the_environment_is_the_callers(run: Run) -> None:
    shown = variables(run("env", env={**os.environ, "GREETING": "hello  there"}).stdout)
    assert shown["GREETING"] == "hello  there"
    assert shown["PATH"] == os.environ["PATH"]


@pytest.mark.vm_once
def test_with_a_rootfs_it_is_a_small_one(run: Run, rootfs: Path) -> None:
    shown = variables(run("--rootfs", rootfs, "--hostname", "box", "env", env={**os.environ, "SECRET": "x"}).stdout)
    shown.pop("PWD", None)
    shown.pop("SHLVL", None)
    assert shown == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "HOSTNAME": "box",
    }


def test_home_is_the_users(run: Run, rootfs: Path) -> None:
    assert run("--rootfs", rootfs, "-u", "alice", "sh", "-c", "echo $HOME").stdout == "/home/alice\n"
    assert run("--rootfs", rootfs, "-u", "alice", "-e", "HOME=/x", "sh", "-c", "echo $HOME").stdout == "/x\n"
    assert run("-w", "/", "-u", "nobody", "sh", "-c", "echo $HOME").stdout == "/nonexistent\n"


@pytest.mark.vm_once
def test_variables_are_added_and_replaced(run: Run, rootfs: Path) -> None:
    options = ["-e", "A=1", "-e", "B=two words", "-e", "A=3", "-e", "EMPTY=", "-e", "TAKEN", "-e", "NOT_THERE"]
    result = run("--rootfs", rootfs, *options, "env", env={**os.environ, "TAKEN": "from the caller"})
    shown = variables(result.stdout)
    assert {key: shown.get(key) for key in ("A", "B", "EMPTY", "TAKEN", "NOT_THERE")} == {
        "A": "3",
        "B": "two words",
        "EMPTY": "",
        "TAKEN": "from the caller",
        "NOT_THERE": None,
    }


def test_variables_from_a_file(run: Run, rootfs: Path, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=1\nB= x 'y' \nC=#no comment\nTAKEN\n")
    result = run("--rootfs", rootfs, "--env-file", file, "-e", "A=2", "env", env={**os.environ, "TAKEN": "t"})
    shown = variables(result.stdout)
    assert (shown["A"], shown["B"], shown["C"], shown["TAKEN"]) == ("2", " x 'y' ", "#no comment", "t")


def test_the_api_gives_exactly_the_environment_that_it_is_told() -> None:
    result = mydocker.run(["/usr/bin/env"], env={"ONLY": "this"}, capture_output=True, text=True)
    assert result.stdout == "ONLY=this\n"
    result = mydocker.run(["/usr/bin/env"], env={b"BYTES": b"\xff"}, capture_output=True)
    assert result.stdout == b"BYTES=\xff\n"
    assert mydocker.run(["/usr/bin/env"], env={}, capture_output=True).stdout == b""


def test_the_command_is_looked_up_in_its_own_path(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    result = mydocker.run(["tool"], env={"PATH": str(tmp_path)}, capture_output=True)
    assert result.stdout == b"found\n"


@pytest.mark.vm_once
def test_the_working_directory(run: Run, rootfs: Path, tmp_path: Path) -> None:
    assert run("pwd", cwd=tmp_path).stdout == f"{tmp_path}\n"
    assert run("-w", "/usr", "pwd").stdout == "/usr\n"
    assert run("--rootfs", rootfs, "pwd").stdout == "/\n"
    assert run("--rootfs", rootfs, "-w", "/home/alice", "pwd").stdout == "/home/alice\n"
    assert mydocker.run(["pwd"], cwd=tmp_path, capture_output=True, text=True).stdout == f"{tmp_path}\n"


def test_a_relative_working_directory(rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python it is taken from the caller's, as by subprocess. In a root of its own there is none."""
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert mydocker.run(["pwd"], cwd="a", capture_output=True, text=True).stdout == f"{tmp_path}/a\n"
    assert mydocker.run(["pwd"], cwd="a", overlay=True, capture_output=True, text=True).stdout == f"{tmp_path}/a\n"
    with mydocker.Spawner(prepare=1, cwd="b", capture_output=True, text=True) as spawner:
        monkeypatch.chdir(tmp_path / "a")
        assert spawner.run(["pwd"]).stdout == f"{tmp_path}/a/b\n"
    with pytest.raises(mydocker.UsageError, match='cwd: "a" is not a path in the container'):
        mydocker.run(["pwd"], cwd="a", rootfs=rootfs)


def test_a_working_directory_that_is_missing_in_a_rootfs_is_made(run: Run, rootfs: Path) -> None:
    assert run("--rootfs", rootfs, "-w", "/srv/new", "pwd").stdout == "/srv/new\n"
    assert run("--rootfs", rootfs, "--overlay", "-w", "/srv/dropped", "pwd").stdout == "/srv/dropped\n"
    assert not (rootfs / "srv/dropped").exists()


def test_a_working_directory_through_a_link_stays_inside(run: Run, rootfs: Path) -> None:
    (rootfs / "link").symlink_to("/home/../../../home")
    assert run("--rootfs", rootfs, "-w", "/link/alice", "ls", "-a").stdout.split() == [".", ".."]


def test_the_users_own_directory_must_be_open_to_the_user(run: Run, tmp_path: Path) -> None:
    """Entered after the change of user, not before with the rights of root."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    result = run("-u", "12345", "-w", closed, "true")
    assert (result.returncode, "ermission denied" in result.stderr) == (125, True)


def test_the_umask_is_the_usual_one(run: Run) -> None:
    assert run("sh", "-c", "umask", umask=0o077).stdout == "0022\n"


@pytest.mark.vm_once
def test_no_signal_is_blocked_or_ignored(run: Run) -> None:
    """Python ignores PIPE, posix_spawn(3), as make uses it, leaves the C library's own two ignored, and the runtime
    blocks others: none of it may reach the command."""

    def ignore_some() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        ignored = (1).to_bytes(8, "little") + bytes(24)  # SIG_IGN in the kernel's struct sigaction
        for number in (32, 33):
            signals._rt_sigaction(number, ignored, None, 8)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGALRM])

    for options in ([], ["--init"], ["-mem", "100m"]):
        result = run(*options, "grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status", preexec_fn=ignore_some)
        masks = {int(line.split()[1], 16) for line in result.stdout.splitlines()}
        assert masks == {0}, options


def test_resource_limits_are_the_callers(run: Run) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))

    assert run("sh", "-c", "ulimit -n", preexec_fn=limit).stdout == "300\n"


def test_stdin_is_empty_unless_asked_for(run: Run) -> None:
    assert run("cat", input="secret").stdout == ""
    assert run("-i", "cat", input="open").stdout == "open"


def test_output_and_errors_stay_apart(run: Run) -> None:
    result = run("sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_logs_do_not_mix_into_the_output(run: Run) -> None:
    result = run("--log-level", "info", "echo", "only this")
    assert result.stdout == "only this\n"
    assert "all command is echo only this" in result.stderr
    assert "find path" in result.stderr


def test_a_large_output_passes_whole(run: Run) -> None:
    assert len(run("head", "-c", "5000000", "/dev/zero").stdout) == 5_000_000


def test_a_reader_that_goes_away_ends_the_command_by_sigpipe(run: Run) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = run("--init", "yes", stdout=writer, stderr=writer)
    os.close(writer)
    assert result.returncode in (1, 128 + signal.SIGPIPE)
