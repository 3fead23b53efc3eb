"""``mydocker subsystems``: where each limit comes from, whether it can work on this host, and what it would do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from mydocker import hooks
from mydocker.cgroups.layout import Layout
from mydocker.doctor import trials
from mydocker.doctor.plugins import probed
from mydocker.errors import UsageError
from mydocker.resources import Probe
from mydocker.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mydocker.explanation import Explanation
    from mydocker.plugins import Plugin, Registry

_HELP = """\
List the limits: where each comes from and whether it can work here.

With --explain, tell what each would do for a command line of mydocker run, file by file, without doing it. It needs no
root.

\b
Examples:
  mydocker subsystems
  mydocker subsystems --explain -- run -m 100m --cpus 0.5 sh
  mydocker subsystems new open-files
"""

_NEW_HELP = """\
Make the folder of a new limit: a pip project with a limit that works and tests that pass, to be changed into yours.

\b
Example:
  mydocker subsystems new open-files
  cd mydocker-open-files
  pip install -e '.[test]'
  pytest
"""


class _Subsystems(click.Group):
    """What follows ``--explain`` is no subcommand of this group but a command line of mydocker."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = click.Command.parse_args(self, ctx, [*args])
        if ctx.params.get("explain"):
            ctx.meta["mydocker.explained"] = rest
            return ctx.args
        return super().parse_args(ctx, args)


def command(registry: Callable[[], Registry]) -> click.Command:
    @click.group(
        "subsystems",
        cls=_Subsystems,
        help=_HELP,
        short_help="List the limits, tell what they would do, or start a new one.",
        invoke_without_command=True,
        subcommand_metavar="[new NAME | --explain -- run ...]",
    )
    @click.option("--format", "output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
    @click.option("--explain", is_flag=True, help="Tell what the command line that follows would do.")
    @click.pass_context
    def subsystems(ctx: click.Context, output: str, explain: bool) -> int | None:
        if ctx.invoked_subcommand is not None:
            return None
        if explain:
            explanation = explained(ctx.meta["mydocker.explained"], registry())
            click.echo(explanation_json(explanation) if output == "json" else explanation_text(explanation))
        else:
            rows = describe(registry())
            click.echo(to_json(rows) if output == "json" else to_table(rows))
        return 0

    @subsystems.command("new", help=_NEW_HELP, short_help="Make the folder of a new limit.")
    @click.argument("name")
    @click.option("--directory", metavar="DIR", help="Where to make it (default: mydocker-NAME).")
    def new(name: str, directory: str | None) -> int:
        from mydocker.cli.new_limit import make

        folder = make(name, directory, registry())
        click.echo(f"{folder} is a limit that works. Next:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest")
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
    """In a child, as `mydocker doctor` does it: a plugin may hang, or end the process."""
    if "mydocker_probe" not in plugin.hooks:
        return None
    outcome = trials.forked(lambda: probed(registry, plugin, layout), hooks.timeout())
    if not outcome.ok:
        named = outcome.text.startswith(str(plugin))
        return Probe(problem=outcome.text if named else f"{plugin} failed in mydocker_probe: {outcome.text}")
    if outcome.value is None:
        return None
    controllers, version, files, problem = outcome.value
    return Probe(controllers=controllers, version=version, files=files, problem=problem)


def to_json(rows: Sequence[Row]) -> str:
    return json.dumps([_as_object(row) for row in rows], indent=2)


def _as_object(row: Row) -> dict[str, Any]:
    plugin, probe = row.plugin, row.probe or Probe()
    return {
        "name": plugin.name,
        "package": plugin.dist,
        "version": plugin.version,
        "fields": [
            {
                "name": field.name,
                "flags": field.flags,
                "metavar": field.metavar,
                "help": field.help,
                "oci": field.oci.partition(" ")[0],
                "annotation": field.annotation,
                "kind": field.kind,
            }
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


def explained(words: Sequence[str], registry: Registry) -> Explanation:
    """What the command line ``run …`` would do. `UsageError` if it is none; else as `explanation.explain`."""
    from mydocker.cli.app import RunCommand, sentence
    from mydocker.cli.run import to_spec
    from mydocker.explanation import explain

    if not words or words[0] != "run":
        raise UsageError("--explain: a command line follows it, as in mydocker subsystems --explain -- run -m 1g sh")
    reader = RunCommand(registry)
    try:
        with reader.make_context("mydocker run", list(words[1:])) as ctx:
            parsed = reader.parsed(ctx)
    except click.ClickException as error:
        raise UsageError(sentence(error, "mydocker run")) from error
    config = registry.parse(*registry.config.with_defaults(parsed.limits, parsed.flags))
    return explain(to_spec(parsed), config, registry, Layout.read())


def explanation_json(explanation: Explanation) -> str:
    return json.dumps(
        {
            "namespaces": explanation.namespaces,
            "cgroups": explanation.cgroups,
            "plugins": [
                {
                    "name": part.plugin.name,
                    "package": part.plugin.dist,
                    "version": part.plugin.version,
                    "limits": part.limits,
                    "steps": [step.asdict() for step in part.steps],
                    "lines": part.lines,
                }
                for part in explanation.parts
            ],
            "unenforced": explanation.unenforced,
            "notes": explanation.notes,
        },
        indent=2,
    )


def explanation_text(explanation: Explanation) -> str:
    """For a person: the steps below the plugin that makes them, then what the core does."""
    lines = []
    for part in explanation.parts:
        limits = ", ".join(f"{name} {_text(text)}" for name, text in part.limits.items())
        lines.append(f"{part.plugin.name} ({part.plugin.dist} {part.plugin.version}): {limits or 'figures only'}")
        for step in part.steps:
            lines.append(f"  make   {step.path}" if step.action == "make" else f"  write  {step.path}  {step.value!r}")
        lines += [f"  {line}" for line in part.lines]
    lines.append("mydocker:")
    lines.append(f"  clone the command's first process into new namespaces: {', '.join(explanation.namespaces)}")
    lines += [f"  it runs in {path}" for path in explanation.cgroups]
    lines += [f"not in force: {field}: {reason}" for field, reason in explanation.unenforced.items()]
    lines += [f"note: {note}" for note in explanation.notes]
    return "\n".join(lines)


def _text(text: str | list[str]) -> str:
    return text if isinstance(text, str) else " ".join(text)
