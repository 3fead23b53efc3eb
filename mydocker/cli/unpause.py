"""``mydocker unpause``: let paused containers go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mydocker.cli.completion import container_names
from mydocker.cli.pause import for_each
from mydocker.pausing import unpause

if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.plugins import Registry

SUMMARY = "Let paused containers go on, and start those that were started with --frozen."


def command(_registry: Callable[[], Registry]) -> click.Command:
    @click.command("unpause", help=SUMMARY)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=container_names)
    def unpause_each(names: tuple[str, ...]) -> int:
        return for_each(names, unpause)

    return unpause_each
