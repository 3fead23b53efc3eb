"""The command line as click has it: help, completion, the other subcommands, and words for every mistake.

Its ``run`` is built from the same table as `mydocker.cli.fast` and yields the same `Parsed`.
"""

from __future__ import annotations

import importlib
import os
import textwrap
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from mydocker import config as configuration
from mydocker.cli import COMPLETION_VARIABLE, completion
from mydocker.cli.fast import is_run
from mydocker.cli.options import GENERAL, LOG_OPTIONS, LOGS, Parsed, limit_section, run_options
from mydocker.cli.run import configure_logs, execute
from mydocker.errors import UsageError
from mydocker.plugins import DISABLE_VARIABLE, load
from mydocker.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mydocker.cli.options import Option
    from mydocker.plugins import Registry

#: Modules of this package, each with a ``command(registry)`` that makes the subcommand of its name.
SUBCOMMANDS = ("completion", "doctor", "pause", "stats", "subsystems", "unpause", "update")

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_EXAMPLES = """\
\b
Examples:
  mydocker run ls -l
  mydocker run -ti -mem 100m -cpushare 512 sh
  mydocker run --rootfs ./alpine --read-only --tmpfs /tmp sh -c 'echo hello > /tmp/x'
  mydocker run --timeout 10s --result result.json -m 256m --cpus 0.5 -v ./job:/job:ro python3 /job/main.py
"""

_EXIT_CODES = """\
The exit code is the command's own; 128 + n if signal n killed it; 125 if mydocker itself failed; 126 if the command
cannot be executed; 127 if there is no such command.
"""


def main(arguments: Sequence[str], registry: Callable[[], Registry] = load) -> int:
    """Read the command line with click and do what it says; the exit code. `UsageError` for a mistake."""
    completion.use_own_bash()
    try:
        code = application(registry).main(
            list(arguments), prog_name="mydocker", complete_var=COMPLETION_VARIABLE, standalone_mode=False
        )
    except SystemExit as leave:  # how click ends the answer to a shell's question
        return leave.code if isinstance(leave.code, int) else 1
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        raise UsageError(sentence(error, _command(arguments))) from error
    return code if isinstance(code, int) else 0


def _command(arguments: Sequence[str]) -> str:
    """The command whose help tells more, as far as one can tell of a line that is wrong."""
    if is_run(arguments):
        return "mydocker run"
    first = next((word for word in arguments if not word.startswith("-")), "")
    return f"mydocker {first}" if first in SUBCOMMANDS else "mydocker"


def application(registry: Callable[[], Registry]) -> click.Group:
    """The group ``mydocker``. ``registry`` is called when a subcommand needs the plugins."""

    class Subcommands(click.Group):
        """Each is made when it is asked for: only ``run`` needs every plugin to be in order."""

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name == "run":
                return RunCommand(registry())
            if cmd_name in SUBCOMMANDS:
                module = importlib.import_module(f"mydocker.cli.{cmd_name}")
                return module.command(registry)  # type: ignore[no-any-return]
            return super().get_command(ctx, cmd_name)

        def list_commands(self, ctx: click.Context) -> list[str]:
            return ["run", *sorted([*SUBCOMMANDS, *self.commands])]

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, self._summary(ctx, name)) for name in self.list_commands(ctx)])

        def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
            """Their names, without making each."""
            names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
            items = [CompletionItem(name, help=self._summary(ctx, name)) for name in names]
            return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

        def _summary(self, ctx: click.Context, name: str) -> str:
            """A module whose command needs the plugins has its summary beside it."""
            if name == "run":
                return RunCommand.SUMMARY
            if name in SUBCOMMANDS:
                summary = getattr(importlib.import_module(f"mydocker.cli.{name}"), "SUMMARY", "")
                if summary:
                    return str(summary)
            command = self.get_command(ctx, name)
            assert command is not None
            return command.get_short_help_str(80)

    @click.pass_context
    def group(ctx: click.Context, /, **values: Any) -> int | None:
        ctx.obj = _given(values)
        if ctx.invoked_subcommand != "run":  # it may be given the same options again, and then those count
            configure_logs(ctx.obj)
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())
        return None

    return Subcommands(
        "mydocker",
        callback=group,
        invoke_without_command=True,
        context_settings=_CONTEXT,
        help="Run a command in namespaces of its own, under limits that are plugins.",
        epilog="mydocker COMMAND --help tells more about each command.",
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_print_version,
                help="Print the version.",
            ),
            *(_parameter(option) for option in LOG_OPTIONS),
        ],
    )


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"mydocker {__version__}")
        ctx.exit()


class LimitsCommand(click.Command):
    """A subcommand with the flags of the limits among its options, and one argument that takes the other words."""

    def __init__(
        self, name: str, registry: Registry, options: Sequence[Option], argument: click.Argument, **settings: Any
    ) -> None:
        self._options = options
        self._limits = {field.name for field in registry.fields}
        self._parameters = {option.name: _parameter(option) for option in options}
        self._words = argument.name or ""
        super().__init__(name, params=[*self._parameters.values(), argument], **settings)

    def parsed(self, ctx: click.Context) -> Parsed:
        """What click has read, as `mydocker.cli.fast` would have."""
        values = dict(ctx.params)
        words = list(values.pop(self._words))
        given = _given(values)
        spellings: dict[str, str] = ctx.meta["mydocker.spellings"]
        return Parsed(
            options={**(ctx.obj or {}), **{name: given[name] for name in given if name not in self._limits}},
            limits={name: "true" if given[name] is True else given[name] for name in given if name in self._limits},
            flags={name: spellings[name] for name in given if name in self._limits},
            command=words,
        )

    def make_parser(self, ctx: click.Context) -> Any:
        """click's parser, which also notes how each option was spelled: errors name it as the user did.

        The parser lists, in the order of the command line, the object that each flag was added with. So every
        flag is added with an object of its own.
        """
        parser = super().make_parser(ctx)
        flags = {}
        for option in self._options:
            for flag in option.flags:
                spelling = click.Option([flag, option.name])
                action = {"flag": "store_const", "value": "store", "multiple": "append"}[option.kind]
                parser.add_option(spelling, [flag], option.name, action=action, const=True)
                flags[spelling] = (option.name, flag)
        # click looks up "-m=1" among the long flags, and takes "=1" for the value of the short one
        parser._long_opt.update(parser._short_opt)
        match = parser._match_long_opt

        def match_with_value(opt: str, explicit_value: str | None, state: Any) -> None:
            found = parser._long_opt.get(opt)
            if found is None or explicit_value is None or found.takes_value or found.dest not in self._limits:
                match(opt, explicit_value, state)
                return
            state.opts[found.dest] = explicit_value  # --cpu-idle=false
            state.order.append(found.obj)

        parser._match_long_opt = match_with_value  # type: ignore[method-assign]
        read = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            values, rest, order = read(args=args)
            noted = dict(flags[found] for found in order if found in flags)
            ctx.meta["mydocker.spellings"] = noted
            return values, rest, [self._parameters[name] for name in noted]

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self._options:
            metavar = f" {option.metavar}" if option.metavar else ""
            row = (", ".join(sorted(option.flags, key=_short_first)) + metavar, option.help)
            sections.setdefault(option.section, []).append(row)
        # What mydocker is for comes first; the table has the limits last because the plugins add them.
        order = sorted(sections, key=lambda section: (section != GENERAL, not section.startswith(limit_section(""))))
        help_option = self.get_help_option(ctx)
        if help_option is not None:
            sections.setdefault(LOGS, []).append(("-h, --help", "Show this text."))
        for section in order:
            with formatter.section(section):
                _write_rows(formatter, sections[section])


class RunCommand(LimitsCommand):
    """``mydocker run``."""

    SUMMARY = "Run a command in a new container."

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        super().__init__(
            "run",
            registry,
            run_options(registry),
            click.Argument(
                ["command"],
                nargs=-1,
                required=True,
                type=click.UNPROCESSED,
                shell_complete=completion.command_words,
                metavar="COMMAND [ARG...]",
            ),
            callback=self._run,
            context_settings={**_CONTEXT, "allow_interspersed_args": False},
            help=f"{self.SUMMARY} Everything after COMMAND belongs to it.\n\n{_EXAMPLES}",
            epilog=_EXIT_CODES,
            options_metavar="[OPTIONS]",
        )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Our options, but not behind the command: what is there belongs to it."""
        if ctx.params.get("command"):
            return [CompletionItem(incomplete, type="file")]
        return super().shell_complete(ctx, incomplete)

    def _run(self, **_values: Any) -> int:
        return execute(self.parsed(click.get_current_context()), self._registry)


def _write_rows(formatter: click.HelpFormatter, rows: Sequence[tuple[str, str]]) -> None:
    """As click's ``write_dl``, which breaks flags in a text at their hyphens."""
    longest = min(max(len(name) for name, _ in rows), 32)
    indent = " " * formatter.current_indent
    rest = f"{indent}{' ' * longest}  "
    for name, text in rows:
        lines = textwrap.wrap(text, max(20, formatter.width - len(rest)), break_on_hyphens=False)
        first = [] if len(name) > longest else [lines.pop(0)] if lines else []
        formatter.write(f"{indent}{name.ljust(longest)}  {''.join(first)}".rstrip() + "\n")
        formatter.write("".join(f"{rest}{line}\n" for line in lines))


def _short_first(flag: str) -> tuple[bool, int]:
    return flag.startswith("--"), len(flag)


def _parameter(option: Option) -> click.Option:
    kind: dict[str, Any] = {"is_flag": True} if option.kind == "flag" else {"metavar": option.metavar}
    return click.Option(
        [option.name, *option.flags],
        type=click.UNPROCESSED,
        multiple=option.kind == "multiple",
        help=option.help,
        shell_complete=completion.offer(option.complete),
        **kind,
    )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Only what stands on the command line."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None and value is not False and value != ()
    }


def _turned_off() -> str:
    """A hint for who misses the flag of a limit that is not let in here."""
    config = configuration.load()
    where = [DISABLE_VARIABLE] if os.environ.get(DISABLE_VARIABLE) else []
    where += [config.path] if config.disable or config.allow is not None else []
    return f"; limits are turned off here by {' and '.join(where)}" if where else ""


def sentence(error: click.ClickException, command: str) -> str:
    """What click found wrong, and where the help is."""
    ctx = getattr(error, "ctx", None)
    command = ctx.command_path if ctx is not None and ctx.parent is not None else command
    if isinstance(error, click.MissingParameter) and command == "mydocker run":
        return "there is no command to run; write mydocker run [OPTIONS] COMMAND [ARG...]"
    if isinstance(error, click.NoSuchOption):
        meant = f", did you mean {' or '.join(error.possibilities)}?" if error.possibilities else ""
        return f"there is no option {error.option_name}{meant}{_turned_off()}; see {command} --help"
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; see {command} --help"
