"""What is kept for a profile, and the picture of it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import mydocker
from mydocker import picture, profile
from mydocker.profile import Moment, Profile
from mydocker.result import Result, Usage

MIB = 1 << 20


def usage(**figures: Any) -> Usage:
    return Usage(**figures)


def result(**values: Any) -> Result:
    return Result(**{"args": ("job",), "id": "x", "exit_code": 0, "wall_seconds": 10.0, **values})


def moments(figures: Callable[[float], dict[str, Any]], count: int = 100, each: float = 0.1) -> list[Moment]:
    return [Moment(seconds=n * each, usage=usage(**figures(n * each))) for n in range(count)]


def test_it_keeps_fewer_moments_the_longer_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of days takes no more memory than one of a minute; the moments stay in even steps."""
    clock = [100.0]
    monkeypatch.setattr(profile.time, "monotonic", lambda: clock[0])
    kept = Profile(str(tmp_path / "x.svg"))
    for _ in range(4_000):
        clock[0] += kept.add(usage(cpu_user=clock[0]))
    assert len(kept.moments) <= profile.MOST_MOMENTS
    assert kept.interval / profile.INTERVAL in (2**doubled for doubled in range(3, 40))
    seconds = [moment.seconds for moment in kept.moments]
    assert [after - before for before, after in pairwise(seconds)] == pytest.approx(
        [kept.interval] * (len(seconds) - 1)
    )
    assert (seconds[0], kept.moments[0].usage.cpu_user) == (0.0, 100.0)


def test_a_moment_holds_no_plugins_own_figures(tmp_path: Path) -> None:
    kept = Profile(str(tmp_path / "x.svg"))
    kept.add(usage(memory_current=5, plugins={"memory": {"current_bytes": 5}}, memory_kinds={"anon": 5}))
    assert kept.moments[0].usage == usage(memory_current=5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.txt", "has no ending that says what picture it is to be: use .svg, .png or .pdf"),
        ("x", "has no ending"),
        ("nowhere/x.svg", "there is no directory"),
        ("folder.svg", "it is a directory"),
    ],
)
def test_a_file_that_cannot_be_drawn_is_refused_at_once(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(mydocker.UsageError, match=f"--profile: .*{re.escape(reason)}"):
        Profile(str(tmp_path / name))


def test_too_short_an_interval_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mydocker.UsageError, match=r"--profile-interval: 0.001 s is less than the minimum, 0.01 s"):
        Profile(str(tmp_path / "x.svg"), 0.001)


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(mydocker.UsageError, match=r"needs matplotlib.*pip install 'mydocker\[profile\]'"):
        Profile(str(tmp_path / "x.svg"))


def drawn(kept: list[Moment], ended: Result, tmp_path: Path) -> list[str]:
    """The words in the picture, in the order in which they are drawn."""
    picture.draw(kept, ended, str(tmp_path / "x.svg"), "svg")
    root = ElementTree.fromstring((tmp_path / "x.svg").read_text())
    return [" ".join("".join(text.itertext()).split()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_of_a_container_that_ran_out_of_memory(tmp_path: Path) -> None:
    kept = moments(
        lambda t: {
            "cpu_user": 0.5 * t,
            "cpu_throttled": 0.1 * t,
            "cpu_limit": 0.5,
            "memory_current": int(t * 10 * MIB),
            "memory_limit": 100 * MIB,
            "pids_current": 3,
            "pids_limit": 4,
            "io_read_bytes": int(t * MIB),
            "io_written_bytes": 0,
            "oom_kills": int(t > 5),
            "pressure": {"memory": {"some_seconds": t / 2}},
        }
    )
    end = result(
        args=("python3", "-c", "print('$x')"),
        exit_code=137,
        reason="oom",
        usage=usage(cpu_user=4.0, cpu_system=1.0, memory_peak=100 * MIB, pids_peak=4, oom_kills=2),
    )
    words = drawn(kept, end, tmp_path)
    assert "python3 -c \"print('$x')\"" in words
    assert "exit code 137 (out of memory) · 10 s of time · 5 s of CPU · 100 MiB of memory at most" in words
    for title in ("Memory", "CPUs", "Pressure", "Block I/O", "Tasks", "time since the command began"):
        assert title in words
    for label in ("limit 100 MiB", "limit 0.5", "limit 4", "peak 100 MiB", "peak 4", "waiting for memory"):
        assert label in words
    assert "OOM kill ▾" in words
    assert "out of memory ▾" in words
    assert {"0 B", "50 MiB", "100 MiB", "0 s", "10 s", "1 MiB/s", "50 %"} <= set(words)


def test_a_limit_that_was_changed_is_a_step(tmp_path: Path) -> None:
    kept = moments(lambda t: {"memory_current": 50 * MIB, "memory_limit": (100 if t < 5 else 128) * MIB})
    words = drawn(kept, result(), tmp_path)
    assert {"limit 100 MiB", "limit 128 MiB"} <= set(words)


def test_a_limit_far_above_does_not_flatten_the_curve(tmp_path: Path) -> None:
    kept = moments(lambda t: {"memory_current": 5 * MIB, "memory_limit": 8 << 30})
    words = drawn(kept, result(), tmp_path)
    assert "limit 8 GiB, far above" in words
    assert "4 MiB" in words


def test_what_was_not_counted_has_no_panel(tmp_path: Path) -> None:
    words = drawn(moments(lambda t: {"cpu_user": t}), result(reason="timeout", exit_code=137), tmp_path)
    assert "CPUs" in words
    assert not {"Memory", "Pressure", "Block I/O", "Tasks"} & set(words)
    assert "timeout ▾" in words
    assert any(word.endswith("not counted on this host: memory, pressure") for word in words)


@pytest.mark.parametrize("kept", [[], moments(lambda t: {"memory_current": 0}, count=1)])
def test_a_run_too_short_for_two_moments(tmp_path: Path, kept: list[Moment]) -> None:
    words = drawn(kept, result(wall_seconds=0.002, usage=usage(cpu_user=0.001)), tmp_path)
    assert "exit code 0 · 2 ms of time · 1 ms of CPU" in words


def test_a_rate_is_a_mean_over_its_interval() -> None:
    """1 CPU for a second, nothing for a second; the counter of a reading that failed is left out."""
    kept = moments(lambda t: {"cpu_user": min(t, 1.0)}, count=21)
    (panel,) = picture.panels_of(kept, result(wall_seconds=2.0))
    values = panel.curves[0].values
    assert values[: len(values) // 2] == pytest.approx([1.0] * (len(values) // 2))
    assert values[len(values) // 2 :] == pytest.approx([0.0] * (len(values) - len(values) // 2))


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_other_formats_by_the_ending(tmp_path: Path, kind: str) -> None:
    kept = Profile(str(tmp_path / f"x.{kind.upper()}"))
    kept.add(usage(memory_current=5 * MIB))
    kept.draw(result())
    (file,) = tmp_path.iterdir()
    assert file.read_bytes().startswith({"png": b"\x89PNG", "pdf": b"%PDF"}[kind])


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.svg"
    file.write_text("old")
    kept = Profile(str(file))

    def full(*_arguments: object) -> None:
        Path(str(_arguments[2])).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(picture, "draw", full)
    with pytest.raises(mydocker.StateError, match=r"--profile: cannot write .*x\.svg: No space left on device"):
        kept.draw(result())
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1024, "1 KiB"),
        (61.5 * MIB, "61.5 MiB"),
        (1023 * MIB, "0.999 GiB"),
        (8 << 30, "8 GiB"),
    ],
)
def test_sizes(size: float, text: str) -> None:
    assert picture.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "longest", "text"),
    [(0.0031, 0.005, "3.1 ms"), (0.35, 5, "0.35 s"), (125, 600, "2:05 min"), (3725, 9000, "1:02:05")],
)
def test_times(seconds: float, longest: float, text: str) -> None:
    assert picture.time_text(seconds, longest) == text
