"""``mydocker stats``: a live table of what the running containers use."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from mydocker import state
from mydocker.cgroups.layout import Layout
from mydocker.cli.completion import container_names
from mydocker.errors import UsageError
from mydocker.resources import parse_duration
from mydocker.stats import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mydocker.plugins import Registry
    from mydocker.stats import Stats

#: ANSI: to the top left; clear the rest of the line, of the screen; hide and show the cursor (console_codes(4)).
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR_ALL, _HIDE, _SHOW = "\x1b[2J", "\x1b[?25l", "\x1b[?25h"

_HEADER = ("NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS", "BLOCK I/O", "PRESSURE", "COMMAND")
_RIGHT = frozenset((1, 3, 4))


def command(registry: Callable[[], Registry]) -> click.Command:
    @click.command(
        "stats",
        help="Show what running containers use, all of them or those named, until it is interrupted.",
        short_help="Show what running containers use, live.",
        epilog="CPU % counts one busy CPU as 100. PRESSURE is the part of the time in which tasks had to wait for "
        "memory, CPU and io (m, c, i). MEM USAGE is without file pages that the kernel can drop.",
    )
    @click.option("--no-stream", is_flag=True, help="Look once, and end.")
    @click.option("--format", "output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
    @click.option(
        "--interval", metavar="DURATION", default="1s", help="Time between two looks, as in 500ms (default: 1s)."
    )
    @click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=container_names)
    def stats(no_stream: bool, output: str, interval: str, names: tuple[str, ...]) -> int:
        root = state.default_root()
        for name in names:
            state.find(name, root)
        try:
            pause = parse_duration(interval)
        except ValueError as error:
            raise UsageError(f"--interval: {error}") from None
        observer = Observer(registry(), Layout.read(), root)
        live = output == "table" and not no_stream and sys.stdout.isatty()
        screen = _Screen()
        show = screen.draw if live else _print_json if output == "json" else _print_table
        try:
            if live:
                show(observer.look(names))
            _watch(observer, names, pause, show, once=no_stream)
        except KeyboardInterrupt:
            pass  # the way to end it
        finally:
            screen.leave()
        return 0

    return stats


def _watch(
    observer: Observer, names: Sequence[str], pause: float, show: Callable[[Sequence[Stats]], None], *, once: bool
) -> None:
    """Show the figures again and again; those of a rate need two looks, so the first is not shown."""
    found = observer.look(names)
    while True:
        if names and not found:
            return  # all that it was to look at have ended
        time.sleep(pause)
        found = observer.look(names)
        show(found)
        if once:
            return


def _print_table(found: Sequence[Stats]) -> None:
    click.echo("\n".join(table(found)))


def _print_json(found: Sequence[Stats]) -> None:
    for stats in found:
        click.echo(json.dumps(as_object(stats)))


def as_object(stats: Stats) -> dict[str, Any]:
    """One container as JSON has it: bytes, seconds, counts; None for what nobody counted."""
    usage, record = stats.now.usage, stats.now.record
    return {
        "name": record.id,
        "command": record.command,
        "pid": record.pid,
        "running_seconds": round(max(0.0, time.time() - record.created), 3),
        "cpu_percent": None if stats.cpus is None else round(100 * stats.cpus, 2),
        "cpu_user_seconds": round(usage.cpu_user, 6),
        "cpu_system_seconds": round(usage.cpu_system, 6),
        "cpu_throttled_seconds": usage.cpu_throttled,
        "cpu_limit": usage.cpu_limit,
        "memory_bytes": stats.memory,
        "memory_current_bytes": usage.memory_current,
        "memory_peak_bytes": usage.memory_peak,
        "memory_swap_bytes": usage.memory_swap,
        "memory_limit_bytes": usage.memory_limit,
        "memory_kinds": usage.memory_kinds,
        "memory_failures": usage.memory_failures,
        "oom_kills": usage.oom_kills,
        "pids": usage.pids_current,
        "pids_peak": usage.pids_peak,
        "pids_limit": usage.pids_limit,
        "read_bytes": usage.io_read_bytes,
        "written_bytes": usage.io_written_bytes,
        "read_operations": usage.io_reads,
        "write_operations": usage.io_writes,
        "pressure": usage.pressure,
        "by_processes": stats.now.by_processes,
        "limits": record.limits,
        "plugins": usage.plugins,
    }


class _Screen:
    """A terminal, on which each table is drawn over the one before."""

    def __init__(self) -> None:
        self._drawn = False

    def draw(self, found: Sequence[Stats]) -> None:
        size = shutil.get_terminal_size()
        shown = [f"{line[: size.columns]}{_CLEAR_LINE}" for line in table(found)[: size.lines - 1]]
        start = _HOME if self._drawn else f"{_HIDE}{_CLEAR_ALL}{_HOME}"
        self._drawn = True
        sys.stdout.write(start + "\n".join(shown) + "\n" + _CLEAR_BELOW)
        sys.stdout.flush()

    def leave(self) -> None:
        """What follows is written below the table, on a line without the ``^C`` that the terminal shows."""
        if self._drawn:
            sys.stdout.write(f"\r{_CLEAR_LINE}{_SHOW}")
            sys.stdout.flush()


def table(found: Sequence[Stats]) -> list[str]:
    """The lines of the table, header first. A column that would be empty for all is left out."""
    rows = [_HEADER, *(_cells(stats) for stats in found)]
    columns = [
        index for index in range(len(_HEADER)) if index != _HEADER.index("PRESSURE") or any(r[index] for r in rows[1:])
    ]
    widths = {index: max(len(row[index]) for row in rows) for index in columns}
    return [
        "   ".join(
            row[index].rjust(widths[index]) if index in _RIGHT else row[index].ljust(widths[index]) for index in columns
        ).rstrip()
        for row in rows
    ]


def _cells(stats: Stats) -> tuple[str, ...]:
    usage, record = stats.now.usage, stats.now.record
    limit = usage.memory_limit or _host_memory()
    percent = "-" if stats.memory is None else f"{100 * stats.memory / limit:.2f}%"
    return (
        record.id,
        "-" if stats.cpus is None else f"{100 * stats.cpus:.2f}%",
        f"{_size(stats.memory)} / {_size(limit)}",
        percent,
        "-" if usage.pids_current is None else str(usage.pids_current),
        f"{_size(usage.io_read_bytes)} / {_size(usage.io_written_bytes)}",
        _pressure(stats),
        _printable(record.command)[:60],
    )


def _pressure(stats: Stats) -> str:
    """``m 0% c 12% i 3%``, or nothing if the kernel does not keep it for this container."""
    known = [(name[0], stats.pressure(name)) for name in ("memory", "cpu", "io")]
    return " ".join(f"{letter} {100 * part:.0f}%" for letter, part in known if part is not None)


def _printable(text: str) -> str:
    """On one line. A command may hold escapes that would play with the terminal, and bytes that are no characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _host_memory() -> int:
    """What a container without a limit may use at most, as Docker shows it."""
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _size(size: float | None) -> str:
    """``61.5MiB``, four digits at most."""
    if size is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 999.5:
            return f"{size:.4g}{unit}"
        size /= 1024
    return f"{size:.4g}TiB"
