"""Completion: ``mydocker completion SHELL``, what the shell's function asks mydocker, and what may come next.

click speaks the protocol of each shell. What is here beside it: bash breaks words at ``=`` and ``:`` before it tells
of them, so that ``-v ./a:/b`` would look like three; and the words that are no options, commands and containers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from mydocker import state
from mydocker.cli import COMPLETION_VARIABLE
from mydocker.errors import MydockerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.plugins import Registry

    Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

SUMMARY = "Print the completion script for a shell."

_EPILOG = (
    "\b\n"
    'bash: add  eval "$(mydocker completion bash)"  to ~/.bashrc\n'
    'zsh:  add  eval "$(mydocker completion zsh)"  to ~/.zshrc\n'
    "fish: mydocker completion fish > ~/.config/fish/completions/mydocker.fish"
)

#: The command line up to the cursor, as bash has it before it breaks words.
LINE_VARIABLE = "_MYDOCKER_LINE"

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' type value response
    response=$(env _MYDOCKER_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            part) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


def command(_registry: Callable[[], Registry]) -> click.Command:
    @click.command("completion", help=SUMMARY, epilog=_EPILOG)
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    def completion(shell: str) -> int:
        use_own_bash()
        kind = get_completion_class(shell)
        assert kind is not None
        click.echo(kind(click.Command("mydocker"), {}, "mydocker", COMPLETION_VARIABLE).source())
        return 0

    return completion


class Bash(BashComplete):
    """bash, asked by its whole line."""

    source_template = _BASH

    @staticmethod
    def _check_version() -> None:
        """The script may be made where there is no bash."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get(LINE_VARIABLE)
        if line is None:
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = "" if not words or line[-1].isspace() else words.pop()
        return _explained(words[1:]), incomplete

    def format_completion(self, item: CompletionItem) -> str:
        # A value that asks for more, as "fifo:" does for a number, gets no blank behind it.
        kind = "part" if item.type == "plain" and item.value.endswith((":", "=")) else item.type
        return f"{kind},{item.value}"


def _explained(words: list[str]) -> list[str]:
    """Behind ``subsystems --explain --`` comes a command line of its own."""
    if words[:1] == ["subsystems"] and "--" in words and "--explain" in words[: words.index("--")]:
        return words[words.index("--") + 1 :]
    return words


def use_own_bash() -> None:
    """Let click answer bash by `Bash`."""
    add_completion_class(Bash)


def offer(complete: str) -> Offer:
    """Completion of a value: by the shell's own knowledge of files, or one of some words."""

    def values(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if complete in ("file", "directory"):
            return [CompletionItem(incomplete, type=complete.replace("directory", "dir"))]
        return [CompletionItem(word) for word in complete.split() if word.startswith(incomplete)]

    return values


def command_words(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A program of the PATH for the first word, files for the others. A root of its own has programs of its own."""
    own_root = ctx.params.get("rootfs") is not None
    if not ctx.params.get("command") and incomplete and "/" not in incomplete and not own_root:
        programs = _programs(incomplete)
        if programs:
            return [CompletionItem(name) for name in programs]
    return [CompletionItem(incomplete, type="file")]


def _programs(beginning: str) -> list[str]:
    found: set[str] = set()
    for directory in os.get_exec_path():
        try:
            with os.scandir(directory) as entries:
                found.update(e.name for e in entries if e.name.startswith(beginning) and os.access(e.path, os.X_OK))
        except OSError:
            continue
    return sorted(found)


def container_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The running containers that are not named yet."""
    try:
        running = state.running(state.default_root())
    except MydockerError:
        return []
    named = ctx.params.get(parameter.name or "") or ()
    ids = [record.id for record in running if record.id not in named]
    return [CompletionItem(name) for name in ids if name.startswith(incomplete)]
