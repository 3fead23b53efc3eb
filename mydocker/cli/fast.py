"""Read ``mydocker run`` without click, whose import takes longer than a run.

The rules are those of click's parser (``click.parser``), so that both readers understand every command line alike:
a flag is first looked up as a whole, with or without ``=VALUE`` after it, which is how ``-mem`` can be one flag;
only then is ``-ti`` read letter by letter. The first word that is no option starts the command, and all that
follows belongs to it; ``--`` ends the options.

Whatever is wrong or unusual is left to click, which has the words for it: `read` then returns None.
"""

from __future__ import annotations

from mydocker.cli.options import LOG_OPTIONS, OPTIONS, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mydocker.cli.options import Option
    from mydocker.plugins import Registry

    #: flag to (name, kind, whether a plugin's)
    Flags = Mapping[str, tuple[str, str, bool]]


class _NotPlain(Exception):
    """Something that click shall answer."""


def is_run(arguments: Sequence[str]) -> bool:
    """Whether this is a ``mydocker run``, well-formed or not; what comes after ``run`` is not looked at."""
    try:
        _, rest = _options(arguments, _flags(LOG_OPTIONS))
    except _NotPlain:
        return False
    return bool(rest) and rest[0] == "run"


def read(arguments: Sequence[str], registry: Registry) -> Parsed | None:
    """The command line after ``mydocker``, or None if it is not a plain and valid ``run``."""
    try:
        before, rest = _options(arguments, _flags(LOG_OPTIONS))
        if not rest or rest[0] != "run":
            return None
        flags = _flags(OPTIONS)
        flags.update((flag, (field.name, field.kind, True)) for field in registry.fields for flag in field.flags)
        given, command = _options(rest[1:], flags)
    except _NotPlain:
        return None
    if not command:
        return None
    options: dict[str, object] = {name: value for name, (value, _, _) in before.items()}
    options.update((name, value) for name, (value, _, limit) in given.items() if not limit)
    limits = {name: (_text(value), flag) for name, (value, flag, limit) in given.items() if limit}
    return Parsed(
        options=options,
        limits={name: text for name, (text, _) in limits.items()},
        flags={name: flag for name, (_, flag) in limits.items()},
        command=command,
    )


def _text(value: object) -> str | list[str]:
    """What a plugin's parser is given: ``true`` for a flag without a value."""
    return value if isinstance(value, list) else "true" if value is True else str(value)


def _flags(options: Sequence[Option]) -> dict[str, tuple[str, str, bool]]:
    return {flag: (option.name, option.kind, False) for option in options for flag in option.flags}


def _options(arguments: Sequence[str], flags: Flags) -> tuple[dict[str, tuple[object, str, bool]], list[str]]:
    """The options at the front, name to (value, flag as typed, whether a plugin's), and the words after them."""
    given: dict[str, tuple[object, str, bool]] = {}
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if argument == "--":
            position += 1
            break
        if not argument.startswith("-") or argument == "-":
            break
        position += 1
        for flag, attached in _split(argument, flags):
            name, kind, limit = flags[flag]
            value: object = True if attached is None else attached
            if kind != "flag":
                if attached is None:
                    if position == len(arguments):
                        raise _NotPlain
                    attached = arguments[position]
                    position += 1
                value = attached
            if kind == "multiple":
                earlier = given[name][0] if name in given else []
                value = [*earlier, value]  # type: ignore[misc]
            given[name] = (value, flag, limit)
    return given, list(arguments[position:])


def _split(argument: str, flags: Flags) -> list[tuple[str, str | None]]:
    """The flags in one argument, each with the value that is attached to it.

    ``-ti`` is ``-t`` and ``-i``; ``-m100m`` and ``-m=100m`` are ``-m`` with a value, as ``--name=x`` is.
    A limit that takes no value may be given one all the same, ``true`` or ``false``, as for ``docker run``.
    """
    flag, equals, value = argument.partition("=")
    if flag in flags:
        if not equals:
            return [(flag, None)]
        _, kind, limit = flags[flag]
        if kind == "flag" and not limit:
            raise _NotPlain
        return [(flag, value)]
    if argument.startswith("--"):
        raise _NotPlain
    found: list[tuple[str, str | None]] = []
    for index, letter in enumerate(argument[1:], 2):
        flag = f"-{letter}"
        if flag not in flags:
            raise _NotPlain
        if flags[flag][1] != "flag":
            return [*found, (flag, argument[index:] or None)]
        found.append((flag, None))
    return found
