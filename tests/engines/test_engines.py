"""Podman, Docker and containerd do with mydocker-oci what they do with runc.

Each file of steps/ is a step: a bash script with functions of engines.py, in which ``e`` is the engine's command line.
Its transcript on either runtime is the observation. At its head stand the engines that can do it, and texts that the
transcript must have on either runtime: a step in which nothing happens is no comparison. What only mydocker can do
is not tried on runc.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines import ENGINES, Engine

STEPS = Path(__file__).resolve().parent / "steps"


def head(step: Path, key: str) -> Iterator[str]:
    for line in step.read_text().splitlines():
        if line.startswith(f"# {key}: "):
            yield line.partition(": ")[2].encode().decode("unicode_escape")


CASES = [
    pytest.param(name, step, id=f"{name}: {step.stem}")
    for name in ENGINES
    for step in sorted(STEPS.glob("*.sh"))
    if name in next(head(step, "engines")).split()
]


@pytest.mark.parametrize(("name", "step"), CASES)
def test_the_step_is_seen_as_with_runc(name: str, step: Path, engine: Callable[[str, str], Engine]) -> None:
    runtimes = next(head(step, "runtimes"), "runc mydocker-oci").split()
    seen: dict[str, str] = {}
    left: dict[str, list[str]] = {}
    for runtime in runtimes:
        side = engine(name, runtime)
        try:
            seen[runtime] = "\n" + side.observe(step.read_text())
        finally:
            side.observe("remove_all")
            left[runtime] = side.left_behind()
        missing = [text for text in head(step, "shows") if text not in seen[runtime]]
        assert not missing, f"{name} on {runtime} does not show {missing}:{seen[runtime]}"
    # Podman itself forgets cgroups that runc made.
    assert set(left["mydocker-oci"]) <= set(left.get("runc", ()))
    if len(runtimes) == 2:
        before, after = (seen[runtime].splitlines() for runtime in runtimes)
        difference = "\n".join(difflib.unified_diff(before, after, *runtimes, lineterm="", n=9))
        if difference:
            pytest.fail(difference, pytrace=False)
