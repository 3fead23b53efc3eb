"""``mydocker doctor``: what this host offers, and what to do about what is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from mydocker.doctor import STATUSES, Report, examine

if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.doctor.check import Check, Status
    from mydocker.plugins import Registry

_COLOURS: dict[Status, dict[str, object]] = {
    "ok": {"fg": "green"},
    "warning": {"fg": "yellow"},
    "missing": {"fg": "red", "bold": True},
    "not needed": {"dim": True},
}
_STATUS_WIDTH = max(len(status) for status in STATUSES)


def command(_registry: Callable[[], Registry]) -> click.Command:
    @click.command(
        "doctor",
        help="Show what this host offers for containers and limits, and what to do about what is missing.",
        short_help="Show what this host offers, and what to do about what is missing.",
        epilog="The exit code is 0 if mydocker run without limits works here for this user, and 1 if it does not.",
    )
    @click.option("--format", "output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
    def doctor(output: str) -> int:
        report = examine()
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        text = to_json(report) if output == "json" else to_table(report, _width(), coloured=coloured)
        click.echo(text, color=coloured)
        return 0 if report.works else 1

    return doctor


def _width() -> int | None:
    """The terminal's, or that of ``COLUMNS``; None where neither says one: then no line is broken."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(60, shutil.get_terminal_size().columns)
    return None


def to_json(report: Report) -> str:
    return json.dumps(
        {
            "user": report.login,
            "works": report.works,
            "summary": {status: report.count(status) for status in STATUSES},
            "checks": [
                {"group": group, **check.asdict()} for group, checks in report.groups.items() for check in checks
            ],
        },
        indent=2,
    )


def to_table(report: Report, width: int | None, *, coloured: bool = False) -> str:
    """A line for each check by group, what to do below it, and a summary at the end."""
    names = max(len(check.name) for checks in report.groups.values() for check in checks)
    lines: list[str] = []
    for group, checks in report.groups.items():
        lines.append(click.style(group, bold=True) if coloured else group)
        for check in checks:
            lines += _lines(check, min(names, 20), width, coloured=coloured)
        lines.append("")
    return "\n".join([*lines, _summary(report)])


def _lines(check: Check, names: int, width: int | None, *, coloured: bool) -> list[str]:
    status = check.status.ljust(_STATUS_WIDTH)
    styled = click.style(status, **_COLOURS[check.status]) if coloured else status  # type: ignore[arg-type]
    indent = " " * (_STATUS_WIDTH + names + 6)
    elsewhere = check.advice.startswith("see ")
    fact = _wrapped(f"{check.fact} ({check.advice})" if elsewhere else check.fact, indent, width)
    first = f"  {styled}  {check.name.ljust(names)}  {fact[0]}".rstrip()
    advice = _wrapped(f"-> {check.advice}", indent, width) if check.advice and not elsewhere else []
    return [first, *(f"{indent}{line}" for line in [*fact[1:], *advice])]


def _wrapped(text: str, indent: str, width: int | None) -> list[str]:
    text = " ".join(text.split())
    if width is None:
        return [text]
    return textwrap.wrap(text, max(30, width - len(indent)), break_long_words=False, break_on_hyphens=False) or [""]


def _summary(report: Report) -> str:
    counts = ", ".join(f"{report.count(status)} {status}" for status in STATUSES)
    verdict = "works" if report.works else "does not work"
    return f"{counts}. mydocker run {verdict} here for {report.user}."
