"""``--oom-score-adj`` and ``--shm-size``: what is written."""

from __future__ import annotations

import pytest

from mydocker import ResourceConfig, Tmpfs
from subsystems import oom_score, shm


@pytest.mark.parametrize("value", [-1000, -1, 0, 1000])
def test_scores(value: int) -> None:
    assert oom_score.parse_oom_score_adj(str(value)) == value


@pytest.mark.parametrize("text", ["-1001", "1001", "x", ""])
def test_scores_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"between -1000 \(never killed\) and 1000|whole number"):
        oom_score.parse_oom_score_adj(text)


@pytest.mark.parametrize(("text", "reason"), [("0", "more than 0"), ("0k", "more than 0"), ("x", "not a size")])
def test_sizes_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        shm.parse_shm_size(text)


def test_shm_is_a_mount() -> None:
    config = ResourceConfig({"shm_size": shm.parse_shm_size("2m")})
    assert shm.mydocker_amend(config).mounts == (Tmpfs(destination="/dev/shm", size=2 << 20),)
    assert shm.mydocker_explain(config) == ("mount a tmpfs of 2m on /dev/shm",)
