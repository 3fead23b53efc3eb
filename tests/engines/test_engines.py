"""Podman, Docker and containerd do with mydocker-oci what they do with runc."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import pytest
from engines import ENGINES, Engine
from steps import STEPS, Step

CASES = [
    pytest.param(name, step, id=f"{name}: {step.name}") for name in ENGINES for step in STEPS if name in step.engines
]


@pytest.mark.parametrize(("name", "step"), CASES)
def test_the_step_is_seen_as_with_runc(name: str, step: Step, engine: Callable[[str, str], Engine]) -> None:
    seen = {}
    for runtime in ("runc", "mydocker-oci"):
        side = engine(name, runtime)
        try:
            seen[runtime] = side.observe(step.script)
        finally:
            side.observe("remove_all")
        missing = [text for text in step.shows if text not in "\n" + seen[runtime]]
        assert not missing, f"{name} on {runtime} does not show {missing}:\n{seen[runtime]}"
        assert side.left_behind() == {}
    difference = difflib.unified_diff(seen["runc"].splitlines(), seen["mydocker-oci"].splitlines(), lineterm="")
    assert "\n".join(difference) == ""
