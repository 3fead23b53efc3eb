"""What `mydocker run` does by a table that an earlier one has worked out is what it does by the interpreter."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no machine code for this machine")

#: `mydocker`, which says how it makes the child.
TOLD = """
import sys
from mydocker import kept_table
from mydocker.cli import main
{before}
found = kept_table._find
def told(plan):
    table = found(plan)
    print("by the interpreter" if table is None else "by a table", file=sys.stderr)
    return table
kept_table._find = told
main()
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody has run anything yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/mydocker"


def told(*arguments: str | Path, before: str = "") -> tuple[int, str, list[str]]:
    """Exit code and output of ``mydocker run``, and what is said of how."""
    command = [sys.executable, "-c", TOLD.format(before=before), "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr.splitlines()


LOOK = (
    "hostname; pwd; id; ulimit -a; umask; grep -e Cap -e Sec -e NoNew -e Groups -e Sig[BIC] /proc/self/status; "
    "ls /sys/fs/cgroup /dev /proc/self/fd; cut -d' ' -f4- /proc/self/mountinfo; cat /proc/net/dev; env; tty; cat; "
    "cut -d' ' -f1,5,6 /proc/1/stat"
)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param("", marks=pytest.mark.vm),
        pytest.param("-m 50m --pids-limit 20", marks=pytest.mark.vm),
        "-m 50m --cpu-shares 512 --pids-limit 20 --cpuset-cpus 0",
        "--read-only --network host",
        pytest.param("-u 1234:1234 -w /root", marks=pytest.mark.vm),
        "-u alice",
        "--cap-drop ALL",
        "--cap-add ALL --security-opt seccomp=unconfined",
        "--privileged",
        "--security-opt no-new-privileges=false",
        "--tmpfs /tmp:size=1m -v /usr:/root:ro",
        "-v /etc/hostname:/etc/passwd",
        "-w /etc/passwd",
        "-w /proc/self/fd/4",
        "--ulimit nofile=50:60 --oom-score-adj 500",
        "--init",
        "-i",
    ],
)
def test_runs_are_alike(options: str, run: Run, rootfs: Path, cache: Path) -> None:
    os.chmod(rootfs, 0o755)

    def outcome() -> tuple[int, str, str]:
        done = run("--hostname", "box", *options.split(), *root, "sh", "-c", LOOK, input="read\n")
        return done.returncode, done.stdout, done.stderr

    for root in ([], ["--rootfs", rootfs]):
        if not root and any(word in options for word in ("alice", "read-only", "/root", "/passwd")):
            continue
        shutil.rmtree(cache, ignore_errors=True)
        outcomes = [outcome() for _ in range(4)]
        assert outcomes[0][0] == 0 or "-w" in options
        assert len(set(outcomes)) == 1
        tables = [path for path in cache.glob("table-*") if path.stat().st_size > 20_000]
        by_interpreter = any(word in options for word in ("--init", "/etc/passwd", "/proc"))
        assert by_interpreter or len(tables) == 1


@pytest.mark.vm
def test_how_they_are_made(rootfs: Path, cache: Path) -> None:
    for expected in ("by the interpreter", "by a table", "by a table"):
        assert told("--rootfs", rootfs, "-m", "50m", "--name", expected.split()[-1], "echo", "well") == (
            0,
            "well\n",
            [expected],
        )
    assert told("--rootfs", rootfs, "-m", "60m", "cat", "/etc/no-such-file")[2][0] == "by a table"
    for options in (["--init"], ["--overlay"], ["--cap-drop", "ALL"]):
        assert told("--rootfs", rootfs, *options, "echo", "well") == (0, "well\n", ["by the interpreter"])


def test_not_beside_threads_and_not_where_something_is_at_its_address(rootfs: Path, cache: Path) -> None:
    words = ("--rootfs", rootfs, "echo", "well")
    for _ in range(2):
        told(*words)
    occupied = "from mydocker.linux import machine; machine.new_memory(4096, at=kept_table.ADDRESS)"
    thread = "import _thread, time; _thread.start_new_thread(time.sleep, (100,))"
    for before in (occupied, thread):
        assert told(*words, before=before) == (0, "well\n", ["by the interpreter"])
    assert told(*words) == (0, "well\n", ["by a table"])


def test_the_interpreter_does_what_machine_code_cannot(rootfs: Path, cache: Path) -> None:
    words = ("--rootfs", rootfs, "--tmpfs", "/dev/a place", "stat", "-c", "%n", "/dev/a place")
    interpreter = ["by the interpreter"]
    for expected in (interpreter, ["by a table"], interpreter, interpreter):
        assert told(*words) == (0, "/dev/a place\n", expected)


@pytest.mark.vm
def test_what_it_was_executed_from_is_out_of_reach(run: Run, rootfs: Path, cache: Path) -> None:
    """See test_interpreter.py."""
    loader = rootfs / "lib64/ld-linux-x86-64.so.2"
    loader.parent.mkdir()
    shutil.copy(rootfs / "bin/busybox", loader)
    (rootfs / "bin/attack").write_text("#!/proc/self/exe\n")
    (rootfs / "bin/attack").chmod(0o755)
    for _ in range(3):
        done = run("--rootfs", rootfs, "attack")
        assert done.returncode == 126
        assert "exec format error" in done.stderr


@pytest.mark.parametrize("level", [1, 2])
def test_where_files_in_memory_are_not_to_be_executed(level: int, rootfs: Path, cache: Path) -> None:
    """By the sysctl vm.memfd_noexec (Documentation/admin-guide/sysctl/vm.rst), which a PID namespace has for itself."""
    if not os.path.exists("/proc/sys/vm/memfd_noexec"):
        pytest.skip("this kernel has no vm.memfd_noexec")
    words = shlex.join([sys.executable, "-m", "mydocker", "run", "--rootfs", str(rootfs), "echo", "well"])
    script = f"echo {level} > /proc/sys/vm/memfd_noexec && {words} && {words} && {words} && {words}"
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, 4 * "well\n", "")


def test_signals_that_mydocker_was_started_with_are_not_the_commands(run: Run, rootfs: Path, cache: Path) -> None:
    def ignore() -> None:
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGRTMAX):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGRTMIN})

    for _ in range(3):
        done = run("--rootfs", rootfs, "grep", "Sig[BIC]", "/proc/self/status", preexec_fn=ignore)
        assert [int(line.split()[1], 16) for line in done.stdout.splitlines()] == [0, 0, 0]


@pytest.mark.vm
def test_it_needs_no_more_memory_than_the_command(run: Run, rootfs: Path, cache: Path) -> None:
    for _ in range(3):
        assert run("--rootfs", rootfs, "-m", "1m", "sh", "-c", ":").returncode == 0
