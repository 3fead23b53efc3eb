"""Limits on whole runs: by what they do to the command, and in the kernel's files while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, Popen

import pytest

import mydocker
from mydocker.cgroups.layout import Layout

Run = Callable[..., CompletedProcess[str]]
Start = Callable[..., "Popen[str]"]

MIB = 1 << 20
#: Not the name of a container in another run of these tests on this host: cgroups are everybody's.
NAME = f"limited-{os.getpid()}"
#: Pages that are written, so that they count.
TAKE = "import sys; data = b'x' * (int(sys.argv[1]) << 20); print(len(data) >> 20)"


def take(mebibytes: int) -> list[str]:
    """A command that takes so much memory."""
    return [sys.executable, "-Sc", TAKE, str(mebibytes)]


def busy(seconds: float, start: float = 0) -> list[str]:
    """A command that computes for so long, by the clock, and tells what CPU time it got for its wall time.

    It begins at ``start`` (`time.monotonic`), so that two can compute at the same time.
    """
    loop = (
        "import sys, time; time.sleep(max(0, float(sys.argv[2]) - time.monotonic()));\n"
        "wall, cpu = time.monotonic(), time.process_time();\n"
        "while time.monotonic() - wall < float(sys.argv[1]): pass\n"
        "print((time.process_time() - cpu) / (time.monotonic() - wall))"
    )
    return [sys.executable, "-Sc", loop, str(seconds), str(start)]


def cgroup_of(pid: int | str, controller: str, layout: Layout) -> Path:
    """The directory of the process's cgroup in the hierarchy of ``controller``, seen from the host."""
    hierarchy = layout.require(controller)
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or (hierarchy.version == 2 and not controllers):
            return Path(hierarchy.mountpoint + path)
    raise AssertionError(f"{pid} is in no cgroup of {controller}")


def held(start: Start, *options: str | Path) -> Popen[str]:
    """A container that is known to run its command, until its stdin is closed."""
    process = start(*options, "-i", "cat", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("ready\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    return process


def let_go(process: Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == 0


class TestMemory:
    @pytest.mark.vm
    def test_who_takes_too_much_is_killed(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "result.json"
        result = run("-mem", "100m", "--result", file, *take(200))
        assert (result.returncode, result.stdout) == (137, "")
        told = json.loads(file.read_text())
        assert (told["reason"], told["signal"], told["exit_code"]) == ("oom", 9, 137)
        assert told["oom_kills"] >= 1
        assert 90 * MIB <= told["memory_peak_bytes"] <= 100 * MIB
        assert told["limits"] == {"memory": 100 * MIB}

    @pytest.mark.vm
    def test_who_takes_less_is_not(self) -> None:
        result = mydocker.run(take(60), memory="100m", capture_output=True, text=True)
        assert (result.exit_code, result.stdout, result.reason, result.oom_kills) == (0, "60\n", "exited", 0)
        assert result.memory_peak is not None
        assert 60 * MIB <= result.memory_peak <= 100 * MIB

    @pytest.mark.vm
    @pytest.mark.parametrize("options", [[], ["--init"]])
    def test_a_kill_that_the_command_survives_is_counted_and_not_its_end(
        self, run: Run, tmp_path: Path, options: list[str]
    ) -> None:
        file = tmp_path / "result.json"
        script = '"$@"; echo "ended with $?"; exit 4'
        result = run("-m", "100m", "--result", file, *options, "sh", "-c", script, "sh", *take(200))
        assert (result.stdout, result.returncode) == ("ended with 137\n", 4)
        told = json.loads(file.read_text())
        assert (told["reason"], told["oom_kills"]) == ("exited", 1)

    def test_a_command_that_is_killed_by_the_reaper_s_side_is_reported_too(self) -> None:
        result = mydocker.run(take(200), memory="100m", init=True)
        assert (result.exit_code, result.signal, result.reason) == (137, 9, "oom")

    def test_files_of_a_tmpfs_count(self, run: Run, rootfs: Path) -> None:
        fill = ["dd", "if=/dev/zero", "of=/big/file", "bs=1M", "count=100"]
        options = ["--rootfs", rootfs, "--tmpfs", "/big", "-m", "30m", "--memory-swap", "30m"]
        assert run(*options, *fill).returncode == 137

    @pytest.mark.vm
    def test_a_small_command_starts_under_the_smallest_limits(self, run: Run, rootfs: Path) -> None:
        for limit in ("512k", "1m", "2m"):
            result = run("--rootfs", rootfs, "-m", limit, "echo", "started")
            assert result.stdout == "started\n", (limit, result.stderr)
            by_api = mydocker.run(["echo", "started"], rootfs=rootfs, memory=limit, capture_output=True)
            assert by_api.stdout == b"started\n", (limit, by_api)

    def test_a_command_too_large_for_its_limit_is_an_oom_and_not_a_hang(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "result.json"
        result = run("-m", "512k", "--memory-swap", "512k", "--result", file, *take(1))
        assert result.returncode == 137
        assert json.loads(file.read_text())["reason"] == "oom"

    def test_a_large_command_line_under_a_small_limit(self) -> None:
        """What the child reads counts as the container's; it is killed or runs, and runs whole."""
        result = mydocker.run(
            ["sh", "-c", "echo $#", "sh", *["x" * 1000] * 1500], memory="2m", memory_swap="2m", capture_output=True
        )
        assert (result.exit_code, result.stdout) in ((0, b"1500\n"), (137, b""))


class TestCpu:
    @pytest.mark.vm
    def test_half_a_cpu_is_half_of_the_time(self, tmp_path: Path, run: Run) -> None:
        """Within 10 %. What it waited for other processes of this host is not the limit's doing."""
        file = tmp_path / "result.json"
        share = float(run("--cpus", "0.5", "--result", file, *busy(2.5)).stdout)
        usage = json.loads(file.read_text())["usage"]["cpu"]
        waited = max(0.0, 1 - share - usage["throttled_seconds"] / 2.5)
        assert share <= 0.55
        assert share + waited >= 0.45
        assert usage["throttled_periods"] > 0

    def test_the_result_tells_cpu_and_wall_time(self) -> None:
        result = mydocker.run(busy(1.5), cpus=0.5)
        assert (result.cpu_user + result.cpu_system) / result.wall_seconds <= 0.55
        assert result.wall_seconds >= 1.5

    def test_without_a_limit_a_busy_loop_gets_more(self) -> None:
        """Shows that the test above can fail."""
        best = max(float(str(mydocker.run(busy(0.5), capture_output=True, text=True).stdout)) for _ in range(3))
        assert best > 0.6

    @pytest.mark.vm
    def test_shares_divide_a_cpu_that_two_want(self) -> None:
        got: dict[int, float] = {}
        start = time.monotonic() + 4

        def compute(shares: int) -> None:
            result = mydocker.run(busy(2, start), cpu_shares=shares, cpuset_cpus="0", capture_output=True, text=True)
            got[shares] = float(str(result.stdout))

        threads = [threading.Thread(target=compute, args=(shares,)) for shares in (4096, 256)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got[4096] > 2 * got[256]


@pytest.mark.vm
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_a_cpuset_of_one_is_one_processor(run: Run) -> None:
    assert run("-cpuset", "1", "nproc").stdout == "1\n"
    allowed = run("--cpuset-cpus", "1", "grep", "Cpus_allowed_list", "/proc/self/status").stdout
    assert allowed.split() == ["Cpus_allowed_list:", "1"]


ALL = ["-mem", "100m", "-cpushare", "512", "--cpus", "0.5", "-cpuset", "0"]

EXPECTED = {
    1: {
        ("memory", "memory.limit_in_bytes"): str(100 * MIB),
        ("cpu", "cpu.shares"): "512",
        ("cpu", "cpu.cfs_quota_us"): "50000",
        ("cpu", "cpu.cfs_period_us"): "100000",
        ("cpuset", "cpuset.cpus"): "0",
    },
    2: {
        ("memory", "memory.max"): str(100 * MIB),
        ("cpu", "cpu.weight"): "59",
        ("cpu", "cpu.max"): "50000 100000",
        ("cpuset", "cpuset.cpus"): "0",
    },
}


@pytest.mark.vm
@pytest.mark.parametrize("options", [[], ["--init"]])
def test_the_values_are_in_the_kernels_files(start: Start, tmp_path: Path, layout: Layout, options: list[str]) -> None:
    pidfile = tmp_path / "pid"
    process = held(start, *ALL, *options, "--name", NAME, "--pidfile", pidfile)
    pid = pidfile.read_text().strip()
    for version, files in EXPECTED.items():
        for (controller, file), value in files.items():
            if layout.version(controller) == version:
                directory = cgroup_of(pid, controller, layout)
                assert str(directory).endswith(f"/mydocker/{NAME}")
                assert (directory / file).read_text().strip() == value, file
                assert pid in (directory / "cgroup.procs").read_text().split()
    let_go(process)


@pytest.mark.vm
def test_the_command_sees_its_own_values(run: Run, layout: Layout, rootfs: Path) -> None:
    """From its first moment: it is the first thing that the command does."""
    files = [
        (layout.require(controller), file, value)
        for version, table in EXPECTED.items()
        for (controller, file), value in table.items()
        if layout.version(controller) == version
    ]
    for options in ([], ["--rootfs", rootfs]):
        alone = len(layout.hierarchies) == 1 and layout.kind == "v2"
        places = [
            f"/sys/fs/cgroup/{file}" if alone else f"/sys/fs/cgroup/{os.path.basename(hierarchy.mountpoint)}/{file}"
            for hierarchy, file, _ in files
        ]
        result = run(*ALL, *options, "cat", *places)
        assert result.stdout.splitlines() == [value for _, _, value in files], result.stderr


@pytest.mark.vm
def test_a_run_without_limits_has_no_cgroup(start: Start, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    process = held(start, "--name", NAME, "--pidfile", pidfile)
    its = Path(f"/proc/{pidfile.read_text().strip()}/cgroup").read_text()
    assert its == Path("/proc/self/cgroup").read_text()
    let_go(process)


@pytest.mark.vm
def test_the_cgroup_can_be_made_elsewhere(start: Start, tmp_path: Path, layout: Layout) -> None:
    pidfile = tmp_path / "pid"
    parent = f"mydocker/test-{os.getpid()}/deep"
    process = held(start, "--cgroup-parent", parent, "--name", NAME, "-m", "100m", "--pidfile", pidfile)
    directory = cgroup_of(pidfile.read_text().strip(), "memory", layout)
    assert str(directory).endswith(f"/{parent}/{NAME}")
    let_go(process)


@pytest.mark.vm
def test_cgroups_that_a_privileged_command_makes_go_with_it(run: Run, layout: Layout) -> None:
    hierarchy = layout.require("memory")
    alone = len(layout.hierarchies) == 1 and layout.kind == "v2"
    view = "/sys/fs/cgroup" + ("" if alone else f"/{os.path.basename(hierarchy.mountpoint)}")
    script = f"mkdir {view}/inner {view}/inner/most && (echo 0 >{view}/inner/most/cgroup.procs; sleep 1000) & sleep 0.3"
    result = run("--privileged", "-m", "100m", "sh", "-c", script + f"; ls -d {view}/inner/most")
    assert result.stdout == f"{view}/inner/most\n", result.stderr


@pytest.mark.vm
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-mem", "12x"], ["-mem", "12x"]),
        (["-mem", "100"], ["-mem", "100 bytes", "512k"]),
        (["-m", "-5m"], ["-m", "-5m"]),
        (["--memory", "0"], ["--memory"]),
        (["-cpuset", "99"], ["-cpuset", "99"]),
        (["-cpuset", "x"], ["-cpuset", '"x"']),
        (["-cpuset", "1-0"], ["-cpuset"]),
        (["--cpuset-mems", "77"], ["--cpuset-mems", "77"]),
        (["-cpushare", "1"], ["-cpushare", "1", "2"]),
        (["-cpushare", "many"], ["-cpushare", "many"]),
        (["--cpus", "0"], ["--cpus"]),
        (["--cpus", "1000"], ["--cpus", "1000"]),
        (["--cpus", "0.5", "--cpu-quota", "5000"], ["--cpus", "--cpu-quota"]),
        (["--cpu-period", "1"], ["--cpu-period"]),
        (["--memory-swap", "1g"], ["--memory-swap", "--memory"]),
        (["-m", "100m", "--memory-swap", "50m"], ["--memory-swap", "50m", "100m"]),
        (["-m", "100m", "-cpuset", "99"], ["-cpuset", "99"]),
        (["-m", "100m", "--cgroup-parent", "../up"], ["--cgroup-parent"]),
    ],
)
def test_a_value_that_cannot_be_in_force_is_one_sentence(run: Run, options: list[str], words: list[str]) -> None:
    result = run(*options, "echo", "ran")
    assert (result.returncode, result.stdout) == (125, "")
    assert result.stderr.startswith("mydocker: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_the_same_in_python_names_the_keyword() -> None:
    for limits in ({"memory": "12x"}, {"memory": 100}, {"cpuset_cpus": "99"}, {"cpu_shares": 1}, {"cpus": -1}):
        with pytest.raises(mydocker.LimitError) as caught:
            mydocker.run(["true"], **limits)  # type: ignore[arg-type]
        assert caught.value.field == next(iter(limits))
    with pytest.raises(mydocker.UsageError, match="no_such_limit"):
        mydocker.run(["true"], no_such_limit=1)


def test_failures_after_the_cgroup_was_made_leave_nothing(run: Run) -> None:
    for command in (["no-such-command"], ["/tmp"], ["-w", "/no/such/place", "true"], ["--pidfile", "/no/x", "true"]):
        assert run("-m", "100m", "-cpuset", "0", *command).returncode in (125, 126, 127)


def test_values_of_python_types() -> None:
    result = mydocker.run(["true"], memory=100 * MIB, cpus=0.5, cpu_shares=512, cpuset_cpus=0)
    assert result.limits == {"memory": 100 * MIB, "cpus": 0.5, "cpu_shares": 512, "cpuset_cpus": (0,)}
