"""``mydocker pause``: stop running containers where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mydocker.cli.completion import container_names
from mydocker.errors import MydockerError
from mydocker.pausing import pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.plugins import Registry

SUMMARY = "Stop all processes of running containers where they are."


def command(_registry: Callable[[], Registry]) -> click.Command:
    @click.command("pause", help=f"{SUMMARY} mydocker unpause lets them go on.")
    @click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=container_names)
    def pause_each(names: tuple[str, ...]) -> int:
        return for_each(names, pause)

    return pause_each


def for_each(names: tuple[str, ...], action: Callable[[str], None]) -> int:
    """Do it to each container and print its name; those for which it fails do not keep the others from it."""
    failed: list[MydockerError] = []
    for name in names:
        try:
            action(name)
        except MydockerError as error:
            failed.append(error)
        else:
            click.echo(name)
    for earlier in failed[:-1]:
        click.echo(f"mydocker: {earlier}", err=True)
    if failed:
        raise failed[-1]
    return 0
