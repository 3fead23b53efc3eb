"""The flags of memory, cpu, cpuset and pids on whole runs: what each cgroup version has is in the kernel's files
while the command runs, and what it lacks is refused by the name of its file.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, Popen

import pytest

import mydocker
from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

Run = Callable[..., CompletedProcess[str]]
Start = Callable[..., "Popen[str]"]

MIB = 1 << 20

#: controller -> version -> flags, and what is in which file then
IN_FORCE: dict[str, dict[int, tuple[str, dict[str, str]]]] = {
    "memory": {
        1: (
            "-m 100m --memory-swap 150m --memory-reservation 50m --memory-swappiness 10 --oom-kill-disable",
            {
                "memory.limit_in_bytes": f"{100 * MIB}",
                "memory.memsw.limit_in_bytes": f"{150 * MIB}",
                "memory.soft_limit_in_bytes": f"{50 * MIB}",
                "memory.swappiness": "10",
                "memory.oom_control": "oom_kill_disable 1\nunder_oom 0\noom_kill 0",
            },
        ),
        2: (
            "-m 100m --memory-swap 150m --memory-min 10m --memory-low 20m --memory-high 90m --memory-oom-group",
            {
                "memory.max": f"{100 * MIB}",
                "memory.swap.max": f"{50 * MIB}",
                "memory.min": f"{10 * MIB}",
                "memory.low": f"{20 * MIB}",
                "memory.high": f"{90 * MIB}",
                "memory.oom.group": "1",
            },
        ),
    },
    "cpu": {
        1: (
            "--cpu-shares 1024 --cpu-period 50000 --cpu-quota 25000 --cpu-burst 5000",
            {
                "cpu.shares": "1024",
                "cpu.cfs_period_us": "50000",
                "cpu.cfs_quota_us": "25000",
                "cpu.cfs_burst_us": "5000",
            },
        ),
        2: (
            "--cpu-shares 1024 --cpu-period 50000 --cpu-quota 25000 --cpu-burst 5000",
            {"cpu.weight": "100", "cpu.max": "25000 50000", "cpu.max.burst": "5000"},
        ),
    },
    "cpuset": dict.fromkeys((1, 2), ("-cpuset 0 --cpuset-mems 0", {"cpuset.cpus": "0", "cpuset.mems": "0"})),
    "pids": dict.fromkeys((1, 2), ("-pids 50", {"pids.max": "50"})),
}

#: flag and its value -> controller, the version that has it, its file
ON_ONE_VERSION = {
    "--memory-swappiness=10": ("memory", 1, "memory.swappiness"),
    "--oom-kill-disable": ("memory", 1, "memory.oom_control"),
    "--memory-min=1m": ("memory", 2, "memory.min"),
    "--memory-low=1m": ("memory", 2, "memory.low"),
    "--memory-high=50m": ("memory", 2, "memory.high"),
    "--memory-oom-group": ("memory", 2, "memory.oom.group"),
    "--cpu-rt-runtime=1000": ("cpu", 1, "cpu.rt_runtime_us"),
    "--cpu-rt-period=100000": ("cpu", 1, "cpu.rt_period_us"),
}


def cgroup_of(pid: str, controller: str, layout: Layout) -> Path:
    """The directory of the process's cgroup in the hierarchy of ``controller``, seen from the host."""
    hierarchy = layout.require(controller)
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or (hierarchy.version == 2 and not controllers):
            return Path(hierarchy.mountpoint + path)
    raise AssertionError(f"{pid} is in no cgroup of {controller}")


def test_all_of_them_together_are_in_the_kernels_files(start: Start, tmp_path: Path, layout: Layout) -> None:
    flags, expected = [], {}
    for controller, versions in IN_FORCE.items():
        texts, files = versions[layout.version(controller) or 0]
        flags += texts.split()
        expected.update({(controller, file): value for file, value in files.items()})
    pidfile = tmp_path / "pid"
    process = start(*flags, "--pidfile", pidfile, "-i", "cat", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("ready\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
    pid = pidfile.read_text().strip()
    directories = {controller: cgroup_of(pid, controller, layout) for controller in IN_FORCE}
    found = {(controller, file): (directories[controller] / file).read_text().strip() for controller, file in expected}
    assert found == expected
    process.stdin.close()
    assert process.wait() == 0


@pytest.mark.parametrize("flag", ON_ONE_VERSION)
def test_what_this_version_lacks(run: Run, tmp_path: Path, layout: Layout, flag: str) -> None:
    """It is an error that names the flag and the file; with best-effort limits a warning, and in the Result."""
    controller, version, file = ON_ONE_VERSION[flag]
    name = flag.partition("=")[0]
    realtime = file.startswith("cpu.rt_")
    there = layout.version(controller) == version and (not realtime or layout.root(controller).has(file))
    limits = [flag, "-m", "100m"]
    result = run(*limits, "echo", "ran")
    if there:
        assert (result.returncode, result.stdout) == (0, "ran\n"), result.stderr
        return
    assert (result.returncode, result.stdout) == (125, "")
    assert result.stderr.startswith(f"mydocker: {name}: ")
    assert file.removesuffix("_us").rpartition("_")[0] in result.stderr if realtime else file in result.stderr
    report = tmp_path / "result.json"
    result = run("--limits", "best-effort", "--result", report, *limits, "echo", "ran")
    assert (result.returncode, result.stdout) == (0, "ran\n")
    assert name in result.stderr
    told = json.loads(report.read_text())
    field = name.lstrip("-").replace("-", "_")
    assert list(told["unenforced"]) == [field]
    assert told["limits"] == {"memory": 100 * MIB}


def test_one_task_is_too_few_for_a_reaper_and_a_command(run: Run) -> None:
    assert run("--pids-limit", "1", "echo", "ran").stdout == "ran\n"
    result = run("--pids-limit", "1", "--init", "echo", "ran")
    assert (result.returncode, result.stdout) == (125, "")
    assert result.stderr == "mydocker: --pids-limit: 1 is too few: with --init there is a task beside the command's\n"
    assert run("--pids-limit", "2", "--init", "echo", "ran").stdout == "ran\n"


def test_figures_of_a_run_without_limits_when_they_are_asked_for(run: Run, tmp_path: Path, layout: Layout) -> None:
    report = tmp_path / "result.json"
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; (sleep 0.05; :) & wait"
    assert run("--result", report, "sh", "-c", script).returncode == 0
    told = json.loads(report.read_text())
    usage = told["usage"]
    assert told["limits"] == {}
    assert {"current_bytes", "peak_bytes", "kinds", "oom_kills", "limit_hits"} <= set(usage["memory"])
    assert usage["memory"]["peak_bytes"] == told["memory_peak_bytes"] > 100_000
    assert usage["cpu"]["user_seconds"] == pytest.approx(told["cpu_user_seconds"], abs=1e-5)
    assert usage["cpu"]["user_seconds"] + usage["cpu"]["system_seconds"] > 0.01
    assert usage["cpu"]["throttled_seconds"] == 0
    assert (usage["pids"]["current_pids"], usage["pids"]["refused_forks"]) == (0, 0)
    if layout.version("pids") and "peak_pids" in usage["pids"]:
        assert usage["pids"]["peak_pids"] >= 2


def test_a_fork_bomb_is_harmless(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "result.json"
    script = "f() { f & f & wait; }; (f) 2>/dev/null; echo survived"
    result = run("-pids", "30", "--result", report, "sh", "-c", script)
    assert (result.returncode, result.stdout) == (0, "survived\n"), result.stderr
    assert json.loads(report.read_text())["usage"]["pids"]["refused_forks"] > 0


def test_many_containers_at_once_are_given_what_their_common_parent_has_to_have(layout: Layout) -> None:
    """Protected memory on v2, realtime on v1: each changes the same files of the parent, and all of them run."""
    limits: dict[str, object] = {"memory_reservation": "5m"}
    if layout.version("cpu") == 1 and layout.root("cpu").has("cpu.rt_runtime_us"):
        limits["cpu_rt_runtime"] = 20000
    ended: list[object] = []

    def run_some() -> None:
        for _ in range(3):
            try:
                ended.append(mydocker.run(["true"], **limits).exit_code)  # type: ignore[arg-type]
            except mydocker.MydockerError as error:
                ended.append(str(error))

    threads = [threading.Thread(target=run_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [0] * 24
