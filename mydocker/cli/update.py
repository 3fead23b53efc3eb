"""``mydocker update``: change the limits of running containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mydocker.cli.app import LimitsCommand
from mydocker.cli.completion import container_names
from mydocker.cli.options import limit_options
from mydocker.cli.run import configure_logs
from mydocker.updating import change

if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.plugins import Registry

SUMMARY = "Change the limits of running containers."

_HELP = """\
Change the limits of running containers: of each, all that are given or none.

What is not given stays as it is.

\b
Examples:
  mydocker update job -mem 200m --memory-swap 300m
  mydocker update job --memory -1
"""


def command(registry: Callable[[], Registry]) -> click.Command:
    plugins = registry()

    def update(**_values: Any) -> int:
        parsed = updating.parsed(click.get_current_context())
        configure_logs(parsed.options)
        usual = {field.name: field.flags[0] for field in plugins.fields}
        for name in parsed.command:
            change(name, plugins, parsed.limits, {**usual, **parsed.flags})
            click.echo(name)
        return 0

    updating = LimitsCommand(
        "update",
        plugins,
        limit_options(plugins),
        click.Argument(["names"], nargs=-1, required=True, metavar="NAME...", shell_complete=container_names),
        callback=update,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help=_HELP,
        short_help=SUMMARY,
        options_metavar="[LIMITS]",
    )
    return updating
