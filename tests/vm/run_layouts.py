#!/usr/bin/env python3
"""Run the tests that are marked ``vm`` in a virtual machine of each cgroup layout, two at a time.

Without --all, that is what finds the controllers and goes by their versions, and on v2, which the host of `make test`
rarely has, what a plain user's delegated cgroups and an engine's container need: within an hour, where emulation takes
one per layout for all. With --all the first layout, v2, also runs what is marked ``vm_once``.

    run_layouts.py [--layout v2 | --others] [--all] [--jobs N] [--timeout SECONDS] [-- PYTEST_ARGUMENT...]

With --others, the layout that this host has itself is left out: `make test` has all of it, and more.

A guest mostly keeps one processor busy, so on two there is room for two. What each prints is shown when it has ended.

The pytest beside this Python runs in the guests, on the package that is installed there. A layout fails when a
test fails, when no test ran, when the guest did not come up and when it takes longer than the timeout.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

from cgroup_vm import LAYOUTS, VM_FAILED

from mydocker.cgroups.layout import Layout

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
BY_VERSION = [
    "tests/integration/cgroups",
    "tests/integration/test_every_limit.py",
    "tests/integration/test_kept_table.py",
    "tests/integration/test_limits_by_version.py",
    "tests/integration/test_stats.py",
    "tests/integration/oci/test_cgroup_mounts.py",
]
ON_V2 = [
    "tests/integration/rootless",
    "tests/integration/test_plugin_contract.py",
    "tests/integration/oci/test_resources.py",
    "tests/integration/oci/test_exec_cgroups.py",
    "tests/integration/oci/test_update.py",
]
TESTS = {"v2": [*BY_VERSION, *ON_V2], "v1": BY_VERSION, "hybrid": BY_VERSION}
PYTEST_STATUS = {
    2: "pytest was interrupted",
    3: "pytest failed",
    4: "pytest's command line is wrong",
    5: "no test ran",
    VM_FAILED: "the virtual machine failed",
}


@dataclass(frozen=True)
class Outcome:
    """How a layout went, in words that follow its name."""

    passed: bool
    text: str


def main() -> int:
    arguments = parse_arguments()
    layouts = arguments.layout or LAYOUTS
    if arguments.others:
        here = Layout.read().kind
        layouts = [layout for layout in layouts if layout != here]
        print(f"cgroup {here} is this host's own layout: make test has run the tests on it", flush=True)

    def run(layout: str) -> Outcome:
        started = time.monotonic()
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            marked = "vm or vm_once" if arguments.all and layout == LAYOUTS[0] else "vm"
            usual = ["tests/integration"] if arguments.all else TESTS[layout]
            tests = ["-m", marked, *(arguments.pytest or usual)]
            found = run_tests(layout, arguments.timeout, tests, output)
            output.seek(0)
            said = output.read()
        with printing:
            print(f"=== cgroup {layout} ===\n{said}", flush=True)
            print(f"=== cgroup {layout}: {found.text} in {time.monotonic() - started:.0f} s ===\n", flush=True)
        return found

    printing = threading.Lock()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = dict(zip(layouts, pool.map(run, layouts), strict=True))
    for layout, outcome in outcomes.items():
        print(f"{layout}: {outcome.text}")
    return 0 if all(outcome.passed for outcome in outcomes.values()) else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--layout", choices=LAYOUTS, action="append", help="only this one (may be repeated)")
    which.add_argument("--others", action="store_true", help="all but the one that this host has itself")
    parser.add_argument("--all", action="store_true", help="all that are marked")
    parser.add_argument("--jobs", type=int, default=2, help="how many layouts at a time (default: 2)")
    parser.add_argument("--timeout", type=float, default=3500, help="seconds for each layout (default: 3500)")
    parser.add_argument("pytest", nargs="*", help="for pytest (default: the layout's tests)")
    return parser.parse_args()


def run_tests(layout: str, timeout: float, pytest_arguments: list[str], output: TextIO) -> Outcome:
    """Run pytest in a guest of this layout, for at most ``timeout`` seconds.

    What fails is run once more in a new guest, where the emulated processors have nothing else to do, and fails the
    layout if it fails again. What passed only then is named in the outcome: it is a test to be mended.
    """
    with tempfile.TemporaryDirectory() as shared:
        first = run_guest(layout, timeout, Path(shared), "first", pytest_arguments, output)
        if not isinstance(first, Counts) or not first.failed:
            return outcome(first)
        print(f"=== cgroup {layout}: {len(first.failed)} failed, which are run again ===", file=output, flush=True)
        again = run_guest(layout, timeout, Path(shared), "again", ["--last-failed", *pytest_arguments], output)
        if not isinstance(again, Counts) or again.failed or again.passed < len(first.failed):
            return Outcome(False, f"{first.passed} passed, {len(first.failed)} failed, {first.skipped} skipped")
        names = ", ".join(first.failed)
        return Outcome(
            True, f"{first.passed + again.passed} passed, 0 failed, {first.skipped} skipped; at the second try: {names}"
        )


@dataclass(frozen=True)
class Counts:
    """What pytest's report says. Its exit status is 0 also when every test was skipped."""

    passed: int
    failed: list[str]
    skipped: int


def outcome(counts: Counts | str) -> Outcome:
    if isinstance(counts, str):
        return Outcome(False, counts)
    text = f"{counts.passed} passed, {len(counts.failed)} failed, {counts.skipped} skipped"
    return Outcome(counts.passed > 0 and not counts.failed, text)


def run_guest(
    layout: str, timeout: float, shared: Path, name: str, pytest_arguments: list[str], output: TextIO
) -> Counts | str:
    """Boot a guest and run pytest in it: what it counted, or why there is nothing to count."""
    report = shared / f"{name}.xml"
    vm = [sys.executable, str(HERE / "cgroup_vm.py"), "--cgroup", layout, "--rw", str(shared), "--"]
    pytest = [str(Path(sys.executable).with_name("pytest")), "-o", f"cache_dir={shared}/cache"]
    pytest += ["--durations=15", "-o", f"faulthandler_timeout={timeout / 2:.0f}"]  # shows where a test hangs
    command = [*vm, *pytest, f"--junit-xml={report}", *pytest_arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        return "not done"
    finally:
        process.terminate()
        process.wait()
    if status not in (0, 1):
        return PYTEST_STATUS.get(status, f"exit status {status}")
    return counted(report)


def counted(report: Path) -> Counts:
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = sorted(
        {case.get("name", "?") for case in cases if case.find("failure") is not None or case.find("error") is not None}
    )
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Counts(len(cases) - len(failed) - skipped, failed, skipped)


if __name__ == "__main__":
    sys.exit(main())
