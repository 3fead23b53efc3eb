"""bench/RESULTS.md, and the picture in it."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from measuring import Findings, Row, Table
from peers import tool

from mydocker.version import __version__

HEAD = """\
# What a container takes

Written by `make bench` (docs/performance.md says how, and where the time goes). Figures of one machine at one time:
what can be compared is within one table, whose rows were measured in turns. The tables give medians; p99 is what 99 of
100 stay below, and the last column is the median as a multiple of the row that has 1.00.

Every container has a root directory of its own, namespaces, 100 MB of memory, 512 CPU shares and 50 tasks, unless its
row says otherwise. bwrap knows no limits. *The floor* is tests/bench/floor.c: the same namespaces, mounts, cgroups,
capabilities and seccomp program asked for in C, with nothing around it.
"""
PICTURE = "results.svg"


def describe_machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = [
        f"{os.cpu_count()} x {model}, {memory:.0f} GiB of memory, Linux {platform.release()}, {_layout()}",
        f"load before the start {os.getloadavg()[0]:.2f}, {datetime.date.today().isoformat()}",
        f"mydocker {__version__} on Python {platform.python_version()}",
        ", ".join(_version(name) for name in ("runc", "crun", "bwrap", "podman")),
    ]
    return "".join(f"- {line}\n" for line in lines)


def _layout() -> str:
    from mydocker.cgroups.layout import Layout

    return f"cgroup {Layout.read().kind}"


def _version(name: str) -> str:
    try:
        said = subprocess.run([tool(name), "--version"], capture_output=True, text=True, check=True).stdout
    except Exception:  # a part that needs it says why it is not there
        return f"no {name}"
    version = next((word for word in said.split() if word[0].isdigit()), "?")
    return f"{name} {version}"


def write(folder: Path, machine: str, found: Mapping[str, Findings | str]) -> None:
    """``found``: part to what it found, or why it found nothing."""
    folder.mkdir(exist_ok=True)
    findings = {part: one for part, one in found.items() if isinstance(one, Findings)}
    picture = f"\n![Medians of each tool]({PICTURE})\n" if _draw(folder / PICTURE, findings) else ""
    (folder / "RESULTS.md").write_text(f"{HEAD}\n{as_text(machine, found, picture)}")


def as_text(machine: str, found: Mapping[str, Findings | str], picture: str = "") -> str:
    text = ["## The machine\n\n", machine, "\n## Targets\n\n", _targets(found), picture]
    for part, one in found.items():
        if isinstance(one, str):
            text.append(f"\n## {part}\n\nNot measured: {one}.\n")
            continue
        for table in one.tables:
            text.append(f"\n## {table.title}\n\n{format_table(table)}")
        text += [f"\n{note}\n" for note in one.notes]
    return "".join(text)


def _targets(found: Mapping[str, Findings | str]) -> str:
    lines = ["| figure | measured | at most | |\n|---|---:|---:|---|\n"]
    for one in found.values():
        for target in one.targets if isinstance(one, Findings) else ():
            kept = "kept" if target.ratio <= target.at_most else "**missed**"
            lines.append(f"| {target.figure} | {target.ratio:.3f} | {target.at_most} | {kept} |\n")
    return "".join(lines)


def format_table(table: Table) -> str:
    several = any(len(row.values) > 3 for row in table.rows)
    columns = f"median, {table.unit} | p99 | fastest | x" if several else f"{table.unit} | x"
    lines = [f"| | {columns} |\n|---|{'---:|' * (columns.count('|') + 1)}\n"]
    medians = {row.name: row.median for row in table.rows}
    for row in table.rows:
        base = medians.get(row.base or table.base)
        times = f"{row.median / base:.2f}" if base else ""
        figures = [row.median, row.percentile(99), min(row.values)] if several else [row.median]
        lines.append(f"| {row.name} | {' | '.join(_figure(figure, table.unit) for figure in figures)} | {times} |\n")
    return "".join(lines)


def _figure(value: float, unit: str) -> str:
    return f"{value:,.2f}" if unit == "ms" else f"{value:,.0f}"


def _draw(picture: Path, findings: Mapping[str, Findings]) -> bool:
    """The tables of times that a person compares first, a bar for each row. False if there is nothing to draw."""
    tables = [table for part in ("cold", "api") if part in findings for table in findings[part].tables]
    chosen = [table for table in tables if table.base and table.unit == "ms" and "Help" not in table.title]
    if not chosen:
        return False
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mydocker"
    from matplotlib import pyplot

    heights = [len(table.rows) for table in chosen]
    figure, axes = pyplot.subplots(
        len(chosen), 1, figsize=(8, 0.32 * sum(heights) + 0.9 * len(chosen)), height_ratios=heights, squeeze=False
    )
    for axis, table in zip(axes[:, 0], chosen, strict=True):
        rows = sorted(table.rows, key=lambda row: -row.median)
        bars = axis.barh([row.name for row in rows], [row.median for row in rows], color=[_colour(row) for row in rows])
        axis.bar_label(bars, [f"{row.median:.1f}" for row in rows], padding=3, fontsize=8)
        axis.set_title(f"{table.title.replace('`', '')}, ms", fontsize=10, loc="left")
        axis.tick_params(labelsize=8, length=0)
        axis.margins(x=0.1)
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)
    return True


def _colour(row: Row) -> str:
    if "mydocker" in row.name or "Spawner" in row.name:
        return "#2a6fbb"
    return "#999999" if "floor" in row.name or "python" in row.name or "the command" in row.name else "#d9a066"
