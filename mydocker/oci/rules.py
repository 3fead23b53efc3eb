"""The kinds of rules that a JSON value can be checked by, and how a broken one is told.

A rule is a function that takes a value and raises `Wrong`. Where the value stands is put together only then, from the
inside out, so that a value without a fault costs no paths.
"""

from __future__ import annotations

from mydocker.errors import OciError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Rule = Callable[[Any], None]


class Wrong(Exception):
    """A value breaks a rule. ``where`` is filled on the way up, the innermost name first."""

    def __init__(self, reason: str, *where: str | int) -> None:
        super().__init__(reason)
        self.where: list[str | int] = list(where)


def check_whole(rule: Rule, value: object, whole: str) -> None:
    try:
        rule(value)
    except Wrong as e:
        raise OciError(f"{_place(reversed(e.where)) or whole}: {e}") from None


def _place(names: Iterable[str | int]) -> str:
    place = ""
    for name in names:
        if isinstance(name, int):
            place += f"[{name}]"
        elif name.replace("_", "a").isalnum():
            place += f".{name}" if place else name
        else:
            place += f'["{short(name)}"]'
    return place


def short(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _kind(value: object) -> str:
    """What a value is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f'the string "{short(value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"{value!r}" if isinstance(value, float) or abs(value) < 10**40 else "a larger number"
    return "a list" if isinstance(value, list) else "an object"


def string(value: Any) -> None:
    if type(value) is not str:
        raise Wrong(f"must be a string, not {_kind(value)}")
    if "\0" in value:
        raise Wrong("holds a NUL character, which the kernel cannot take")
    if not value.isascii():
        try:
            value.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise Wrong("holds half of a surrogate pair, which is no character") from None


def boolean(value: Any) -> None:
    if type(value) is not bool:
        raise Wrong(f"must be true or false, not {_kind(value)}")


def integer(low: int, high: int) -> Rule:
    def check(value: Any) -> None:
        if type(value) is not int:
            raise Wrong(f"must be a whole number, not {_kind(value)}")
        if not low <= value <= high:
            raise Wrong(f"must be from {low} to {high}, not {_kind(value)}")

    return check


def form(holds: Callable[[str], object], words: str) -> Rule:
    """A string for which ``holds`` is true; ``words`` say when it is."""

    def check(value: Any) -> None:
        string(value)
        if not holds(value):
            raise Wrong(f'"{short(value)}" {words}')

    return check


def one_of(names: Iterable[str]) -> Rule:
    known = frozenset(names)
    listed = ", ".join(name for name in names if name)

    def check(value: Any) -> None:
        string(value)
        if value not in known:
            raise Wrong(f'"{short(value)}" is not known: it must be one of {listed}')

    return check


def list_of(rule: Rule, least: int = 0) -> Rule:
    def check(value: Any) -> None:
        if type(value) is not list:
            raise Wrong(f"must be a list, not {_kind(value)}")
        position = 0
        try:
            for entry in value:
                rule(entry)
                position += 1
        except Wrong as e:
            e.where.append(position)
            raise
        if position < least:
            raise Wrong("must not be empty")

    return check


def map_of(rule: Rule, key: Rule | None = None) -> Rule:
    """An object whose names are the user's."""

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Wrong(f"must be an object, not {_kind(value)}")
        name = ""
        try:
            for name, entry in value.items():
                string(name)
                if key is not None:
                    key(name)
                rule(entry)
        except Wrong as e:
            e.where.append(name)
            raise

    return check


def object_of(properties: dict[str, Rule], required: tuple[str, ...] = (), also: Rule | None = None) -> Rule:
    """An object with these properties and perhaps others, which are ignored. ``also``: what they must be together.

    A name in other letter case is the property's, and gets its spelling here: Go's decoder, which runc and the engines
    have, takes it for that, and a limit that is passed over would not be in force.
    """
    find = properties.get

    def spell(value: dict[str, Any]) -> None:
        for name in [name for name in value if name not in properties]:
            folded = name.lower()
            known = next((each for each in properties if each.lower() == folded), None)
            if known is not None:
                if known in value:
                    raise Wrong(f"is there as {known} too: keep one of them", name)
                value[known] = value.pop(name)

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Wrong(f"must be an object, not {_kind(value)}")
        spell(value)
        nulls = []
        name = ""
        try:
            for name, entry in value.items():
                rule = find(name)
                if rule is None:
                    continue
                if entry is None:
                    nulls.append(name)
                else:
                    rule(entry)
        except Wrong as e:
            e.where.append(name)
            raise
        for name in nulls:
            del value[name]
        for name in required:
            if name not in value:
                raise Wrong("is required, and is not there", name)
        if also is not None:
            also(value)

    return check
