"""Options by table, as engines write them: the rules are those of Go's ``flag`` package, on which runc's rest.

``--x v``, ``--x=v``, and the same with one dash; a flag alone, or ``--flag=false``. Letters may be joined (``-it``), as
crun has it. ``--`` ends the options.
"""

from __future__ import annotations

from mydocker.errors import OciError
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Option(Value):
    """One option of a verb.

    ``names``    as typed, the long one first: its letters, with ``_`` for ``-``, are the key in `Call.options`.
    ``kind``     ``value``: a string. ``flag``: True or False. ``multiple``: a list of strings, one for each time.
    ``metavar``  what stands for the value in ``--help``.
    ``help``     one line for a person.
    """

    names: tuple[str, ...]
    help: str
    kind: Literal["value", "flag", "multiple"] = "value"
    metavar: str = "VALUE"

    @property
    def key(self) -> str:
        return self.names[0].lstrip("-").replace("-", "_")


HELP = Option(names=("--help", "-h"), kind="flag", help="show this help")


def parse(words: Sequence[str], options: Sequence[Option], *, mixed: bool) -> tuple[dict[str, Any], list[str]]:
    """The options that are set, by key, and the other words.

    ``mixed``: options may stand behind other words too; else the first word that is none ends them. OciError for an
    option that is none of ``options``, or lacks its value.
    """
    by_name = {name.lstrip("-"): option for option in (*options, HELP) for name in option.names}
    given: dict[str, Any] = {}
    others: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            others += words[position:]
            break
        if not word.startswith("-") or word == "-":
            others.append(word)
            if mixed:
                continue
            others += words[position:]
            break
        for option, value in _split(word, by_name):
            if value is None and option.kind != "flag":
                if position == len(words):
                    raise OciError(f"flag needs an argument: {word}")
                value = words[position]
                position += 1
            _set(given, option, value)
    return given, others


def _split(word: str, by_name: Mapping[str, Option]) -> list[tuple[Option, str | None]]:
    """The options in one word, each with the value that is attached to it."""
    name, equals, value = word.lstrip("-").partition("=")
    if name in by_name:
        return [(by_name[name], value if equals else None)]
    letters = word[1:]
    if not word.startswith("--") and letters and all(letter in by_name for letter in letters):
        *flags, last = (by_name[letter] for letter in letters)
        if all(option.kind == "flag" for option in flags):
            return [*((option, None) for option in flags), (last, None)]
    raise OciError(f"flag provided but not defined: {word.partition('=')[0]}")


def _set(given: dict[str, Any], option: Option, value: str | None) -> None:
    if option.kind == "multiple":
        given.setdefault(option.key, []).append(value)
    elif option.kind == "value":
        given[option.key] = value
    elif value is None or value in _TRUE:
        given[option.key] = True
    elif value in _FALSE:
        given[option.key] = False
    else:
        raise OciError(f'invalid boolean value "{value}" for {option.names[0]}: write true or false')


def help_lines(options: Sequence[Option]) -> list[str]:
    """What ``--help`` says of the options."""
    rows = []
    for option in (*options, HELP):
        names = ", ".join(sorted(option.names, key=len))
        rows.append((names if option.kind == "flag" else f"{names} {option.metavar}", option.help))
    width = max(len(left) for left, _ in rows)
    return [f"  {left:<{width}}  {right}" for left, right in rows]
