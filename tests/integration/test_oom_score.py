"""``--oom-score-adj``: what the command reads of itself, and whom the kernel takes first."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import mydocker
from mydocker import state

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Eventually = Callable[..., object]


@pytest.mark.parametrize("value", ["1000", "300"])
def test_the_command_and_its_children_have_it(run: Run, value: str) -> None:
    done = run("--oom-score-adj", value, "sh", "-c", "cat /proc/1/oom_score_adj; (cat /proc/self/oom_score_adj)")
    assert done.stdout.split() == [value] * 2


def test_below_what_this_process_has(run: Run) -> None:
    """In force, or an error that names what there is and the capability that is missing."""
    own = Path("/proc/self/oom_score_adj").read_text().strip()
    done = run("--oom-score-adj", "-1000", "cat", "/proc/self/oom_score_adj")
    if done.returncode == 0:
        assert done.stdout == "-1000\n"
    else:
        assert done.returncode == 125
        below = f"-1000 is below what the container was given, {own}"
        assert done.stderr.startswith(f"mydocker: --oom-score-adj: {below}, and mydocker may not lower it without CAP_")


def test_out_of_range(run: Run) -> None:
    done = run("--oom-score-adj", "1001", "true")
    assert done.stderr.startswith("mydocker: --oom-score-adj: 1001 is not between -1000 (never killed) and 1000")


@pytest.mark.vm
def test_update_reaches_every_process(start: Start, eventually: Eventually, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    loop = f'until [ -e {tmp_path}/go ]; do sleep 0.02; done; cat /proc/self/oom_score_adj >> "$0"'
    runtime = start("--name", name, "--oom-score-adj", "100", "sh", "-c", f"({loop}) & wait; {loop}", out)
    eventually(lambda: [record for record in state.running(state.default_root()) if record.pid])
    mydocker.update(name, oom_score_adj=250)
    (tmp_path / "go").touch()
    assert runtime.communicate(timeout=60)[1] == ""
    assert out.read_text().split() == ["250"] * 2
