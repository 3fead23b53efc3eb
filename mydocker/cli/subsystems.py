"""``mydocker subsystems``: where each limit comes from, and whether it can work on this host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from mydocker.cgroups.layout import Layout
from mydocker.errors import MydockerError
from mydocker.resources import Probe
from mydocker.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mydocker.plugins import Plugin, Registry


def command(registry: Callable[[], Registry]) -> click.Command:
    @click.command("subsystems", help="List the limits: where each comes from and whether it can work here.")
    @click.option("--format", "output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
    def subsystems(output: str) -> int:
        rows = describe(registry())
        click.echo(to_json(rows) if output == "json" else to_table(rows))
        return 0

    return subsystems


class Row(Value):
    """One plugin and its answer to the probe; None if it does not implement it."""

    plugin: Plugin
    probe: Probe | None


def describe(registry: Registry) -> list[Row]:
    """Ask every plugin. One that fails is listed with its error."""
    layout = Layout.read()
    return [Row(plugin=plugin, probe=_probe(registry, plugin, layout)) for plugin in registry.plugins]


def _probe(registry: Registry, plugin: Plugin, layout: Layout) -> Probe | None:
    try:
        answer = registry.call(plugin, "mydocker_probe", layout=layout)
    except MydockerError as error:
        return Probe(problem=str(error))
    if answer is not None and not isinstance(answer, Probe):
        return Probe(problem=f"{plugin} answered mydocker_probe with {answer!r}, which is no mydocker.Probe")
    return answer


def to_json(rows: Sequence[Row]) -> str:
    return json.dumps([_as_object(row) for row in rows], indent=2)


def _as_object(row: Row) -> dict[str, Any]:
    plugin, probe = row.plugin, row.probe or Probe()
    return {
        "name": plugin.name,
        "package": plugin.dist,
        "version": plugin.version,
        "fields": [
            {"name": field.name, "flags": field.flags, "metavar": field.metavar, "help": field.help, "oci": field.oci}
            for field in plugin.fields
        ],
        "controllers": probe.controllers,
        "cgroup_version": probe.version,
        "files": probe.files,
        "works": None if row.probe is None else not probe.problem,
        "problem": probe.problem,
    }


def to_table(rows: Sequence[Row]) -> str:
    """A table, with the flags and the files of a subsystem below each other, and under it why some cannot work."""
    header = ("NAME", "PACKAGE", "VERSION", "FLAGS", "CGROUP", "FILES", "STATUS")
    cells: list[list[tuple[str, ...]]] = [[(title,) for title in header], *(_cells(row) for row in rows)]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(header))]
    lines = []
    for row in cells:
        for index in range(max(len(cell) for cell in row)):
            parts = (cell[index] if index < len(cell) else "" for cell in row)
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
    problems = [f"{row.plugin.name}: {row.probe.problem}" for row in rows if row.probe and row.probe.problem]
    return "\n".join([*lines, "", *problems] if problems else lines)


def _cells(row: Row) -> list[tuple[str, ...]]:
    plugin, probe = row.plugin, row.probe or Probe()
    status = "does not say" if row.probe is None else "cannot work here" if probe.problem else "ok"
    return [
        (plugin.name,),
        (plugin.dist,),
        (plugin.version,),
        tuple(", ".join(field.flags) for field in plugin.fields),
        ("-" if probe.version is None else f"v{probe.version}",),
        probe.files or ("-",),
        (status,),
    ]
