#!/usr/bin/env python3
"""Time a run of `true` by mydocker beside runc, bubblewrap and unshare, and by engines on both; print one table.

A machine's speed changes from minute to minute, so the commands are timed in turns, a few times each in every
round, and what counts is the ratio of their medians to runc's. Nothing is asserted. It needs root, and installs
what it compares with from Debian where it is missing.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "vm"), str(HERE.parent / "engines")]

import debian  # noqa: E402 (from tests/vm)
from engines import IMAGE, Podman, Runtime, write_image  # noqa: E402 (from tests/engines)
from install import PODMAN, install  # noqa: E402
from pen import PATH, Pen  # noqa: E402

ROUNDS = 20
PODMAN_ROUNDS = 7
RUNS_IN_A_ROUND = 3
API_ROUNDS = 60
TOOLS = {"hyperfine": "hyperfine", "runc": "runc", "bwrap": "bubblewrap"}
LIMITS = ("-mem", "100m", "-cpushare", "512", "--cpus", "1")
OCI_LIMITS: dict[str, object] = {
    "memory": {"limit": 100 << 20},
    "cpu": {"shares": 512, "quota": 100_000, "period": 100_000},
}
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--cgroup", "--pid", "--fork", "--mount-proc")
CLI_BUDGET = 1.6
API_BUDGET = 0.5


@dataclass(frozen=True)
class Row:
    """One line of the table. ``budget`` is in multiples of runc's median, or None."""

    name: str
    seconds: list[float]
    runc: float
    budget: float | None = None


def main() -> int:
    if os.geteuid() != 0:
        print("bench: namespaces and cgroups need root", file=sys.stderr)
        return 1
    try:
        missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
        if missing:
            debian.install(*missing)
        install(PODMAN)
        with tempfile.TemporaryDirectory(prefix="mydocker-bench-") as scratch:
            rootfs = make_rootfs(Path(scratch))
            bundle = make_bundle(Path(scratch) / "plain", rootfs, {})
            limited = make_bundle(Path(scratch) / "limited", rootfs, OCI_LIMITS)
            rows = time_commands(bundle, limited, rootfs, Path(scratch) / "times.json") + time_api(bundle, rootfs)
            rows += time_verbs(bundle, Path(scratch) / "times.json") + time_podman(rootfs, Path(scratch))
    except debian.DebianError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as e:
        print(f"bench: {e.cmd[0]} failed with status {e.returncode}\n{e.stderr or e.stdout or ''}", file=sys.stderr)
        return 1
    print(describe_machine())
    print(format_table(rows))
    return 0


def make_rootfs(directory: Path) -> Path:
    """A root directory with busybox alone."""
    debian.unpack("busybox-static", into=directory / "busybox")
    rootfs = directory / "rootfs"
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(directory / "busybox/bin/busybox", rootfs / "bin/busybox")
    (rootfs / "bin/true").symlink_to("busybox")
    return rootfs


def make_bundle(bundle: Path, rootfs: Path, limits: dict[str, object]) -> Path:
    """An OCI bundle that runs `true` as ``runc spec`` proposes, without a terminal and with ``limits``."""
    bundle.mkdir()
    subprocess.run(["runc", "spec", "--bundle", str(bundle)], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["true"]
    config["root"]["path"] = str(rootfs)
    config["linux"]["resources"].update(limits)
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def time_commands(bundle: Path, limited: Path, rootfs: Path, report: Path) -> list[Row]:
    """Whole processes, from start to exit, by hyperfine."""
    mydocker = [str(Path(sys.executable).with_name("mydocker")), "run"]
    in_rootfs = ["--rootfs", str(rootfs)]
    commands = {
        # runc removes a container when its command ends, so that one name serves all runs.
        "runc run": ["runc", "run", "--bundle", str(bundle), "mydocker-bench"],
        "runc run, limits": ["runc", "run", "--bundle", str(limited), "mydocker-bench"],
        "mydocker run": [*mydocker, "true"],
        "mydocker run, limits": [*mydocker, *LIMITS, "true"],
        "mydocker run --rootfs": [*mydocker, *in_rootfs, "true"],
        "mydocker run --rootfs, limits": [*mydocker, *in_rootfs, *LIMITS, "true"],
        "bwrap --unshare-all": ["bwrap", "--unshare-all", "--dev-bind", "/", "/", "true"],
        "unshare, same namespaces": ["unshare", *NAMESPACES, "true"],
        "python -I -c pass": [sys.executable, "-I", "-c", "pass"],
    }
    seconds = in_turns(commands, report)
    runc = statistics.median(seconds["runc run"])
    return [Row(name, times, runc, CLI_BUDGET if "mydocker" in name else None) for name, times in seconds.items()]


def time_verbs(bundle: Path, report: Path) -> list[Row]:
    """A container's life as an engine has it: three calls of the runtime, by a shell that costs both the same."""
    life = "{0} create --bundle {1} mydocker-bench && {0} start mydocker-bench && {0} delete --force mydocker-bench"
    commands = {
        f"{name}: create, start, delete": ["sh", "-c", life.format(shlex.quote(path), shlex.quote(str(bundle)))]
        for name, path in runtimes().items()
    }
    return beside_the_first(in_turns(commands, report))


def time_podman(rootfs: Path, scratch: Path) -> list[Row]:
    """`podman run` of an image, in namespaces and cgroups of its own."""
    write_image(rootfs / "bin/busybox", scratch / "image.tar")
    (scratch / "podman").mkdir()
    paths = runtimes()
    with Pen("bench") as pen:
        Podman(pen, scratch / "podman", Runtime("runc", paths["runc"]), scratch / "image.tar")
        commands = {
            f"podman run on {name}": ["podman", "--runtime", path, "run", "--rm", "--network=none", IMAGE, "true"]
            for name, path in paths.items()
        }
        return beside_the_first(in_turns(commands, scratch / "podman/times.json", pen, rounds=PODMAN_ROUNDS))


def runtimes() -> dict[str, str]:
    runc = shutil.which("runc", path=PATH)
    assert runc is not None
    return {"runc": runc, "mydocker-oci": str(Path(sys.executable).with_name("mydocker-oci"))}


def beside_the_first(seconds: dict[str, list[float]]) -> list[Row]:
    first = statistics.median(next(iter(seconds.values())))
    return [Row(name, times, first) for name, times in seconds.items()]


def in_turns(
    commands: dict[str, list[str]], report: Path, pen: Pen | None = None, *, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """The seconds of each command in all rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    run_hyperfine(list(commands.values()), report, pen)  # warms the caches
    for _ in range(rounds):
        # In another order each time: a move into a cgroup is cheaper soon after another one.
        names = random.sample(list(commands), len(commands))
        for name, times in zip(names, run_hyperfine([commands[name] for name in names], report, pen), strict=True):
            seconds[name] += times
    return seconds


def run_hyperfine(commands: list[list[str]], report: Path, pen: Pen | None) -> list[list[float]]:
    """The seconds of each command's runs in one round, here or in a pen. hyperfine fails if a command does."""
    options = ["--shell=none", "--style=none", f"--runs={RUNS_IN_A_ROUND}", f"--export-json={report}"]
    hyperfine = ["hyperfine", *options, *map(shlex.join, commands)]
    if pen is not None:
        pen.run(*hyperfine)
    else:
        subprocess.run(hyperfine, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return [result["times"] for result in json.loads(report.read_text())["results"]]


def time_api(bundle: Path, rootfs: Path) -> list[Row]:
    """Calls of `mydocker.run` from a program that has imported it."""
    child = [sys.executable, str(HERE / "api_times.py"), str(API_ROUNDS), str(bundle), str(rootfs)]
    output = subprocess.run(child, check=True, capture_output=True, text=True).stdout
    seconds = json.loads(output)
    runc = statistics.median(seconds["runc"])
    rows = [Row("subprocess.run of runc run", seconds.pop("runc"), runc)]
    for name, times in seconds.items():
        label = "mydocker.run()" if name == "plain" else f"mydocker.run(), {name}"
        rows.append(Row(label, times, runc, API_BUDGET))
    return rows


def describe_machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")), platform.machine())
    runc = subprocess.run(["runc", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")[0]
    python = f"Python {platform.python_version()}"
    return f"Linux {platform.release()}, {os.cpu_count()} x {model}, {python}, {runc}"


def format_table(rows: list[Row]) -> str:
    line = "{:36}{:>11}{:>9}{:>9}{:>9}  {}"
    lines = [line.format("start to exit of true", "median ms", "fastest", "slowest", "x runc", "budget")]
    for row in rows:
        median = statistics.median(row.seconds)
        ratio = median / row.runc
        budget = ""
        if row.budget is not None:
            budget = f"{row.budget} {'kept' if ratio <= row.budget else 'MISSED'}"
        numbers = (f"{1000 * seconds:.1f}" for seconds in (median, min(row.seconds), max(row.seconds)))
        lines.append(line.format(row.name, *numbers, f"{ratio:.2f}", budget).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
