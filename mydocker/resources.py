"""Limits as values: `ResourceField` declares one, `ResourceConfig` holds those that are set.

The parsers here turn what a person writes (``100m``, ``0.5``, ``0-3,7``, ``1m30s``) into numbers. They raise
ValueError with a reason that can be shown after the flag's name. No regular expressions: ``import re``
costs more than a whole run may.
"""

from __future__ import annotations

from mydocker.errors import LimitError
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Literal


class ResourceField(Value):
    """One limit that a user may set.

    ``name``
        the keyword of `mydocker.run` and the key of the `ResourceConfig`; a Python identifier.
    ``flags``
        on the command line, the one to name in texts first: ``("-m", "--memory", "-mem")``.
    ``parse``
        a module-level function: text to value, ValueError with the reason if the text is wrong.
        Values given from Python pass through it as ``str(value)``.
    ``metavar``, ``help``
        for ``--help``: one sentence, the unit in it.
    ``oci``
        the path in the OCI runtime spec's config.json (``linux.resources.memory.limit``), or empty. Further paths,
        with a blank between, are of values that ``from_oci`` has to look at too.
    ``kind``
        ``value``: takes one, and the last one given counts. ``multiple``: may be given several times; the value
        is the tuple of what ``parse`` makes of each. ``flag``: takes none; its text is ``true`` (`parse_flag`).
    ``complete``
        what the shell offers for the value: ``file``, ``directory``, or the words themselves with a space between.
    ``from_oci``
        a module-level function, for what is more than a text, a number or a list of those in config.json: given what
        is at each path of ``oci``, None where nothing is, it returns the text for ``parse`` (a list of texts for a
        ``multiple`` field), or None if no limit is asked for. It is called if there is something at one of the paths
        at least. ValueError with the reason if that cannot be one.
    ``traceless``
        True if it is in force by the container's own cgroup alone: then ``mydocker_remove`` has nothing to undo for it,
        and is not called if nothing else of the plugin is set. Who deletes an engine's container does not load it then.

    An engine that passes no such path in config.json can set every field by its `annotation`.
    """

    name: str
    flags: tuple[str, ...]
    parse: Callable[[str], Any]
    metavar: str
    help: str
    oci: str = ""
    kind: Literal["value", "multiple", "flag"] = "value"
    complete: str = ""
    from_oci: Callable[..., str | list[str] | None] | None = None
    traceless: bool = False

    @property
    def annotation(self) -> str:
        """The key of the OCI annotation that sets this field."""
        return f"mydocker.{self.name}"

    def value_of(self, given: object, flag: str = "") -> Any:
        """Parse ``given``, a text or what has one as ``str(given)``; a list of them for a ``multiple`` field.

        A `LimitError` that names ``flag`` (by default the first one) if it is wrong.
        """
        try:
            if self.kind == "multiple":
                several = given if isinstance(given, (list, tuple)) else (given,)
                return tuple(self.parse(_text(one)) for one in several)
            return self.parse(_text(given))
        except ValueError as e:
            raise LimitError(self.name, str(e), flag or self.flags[0]) from e


def _text(given: object) -> str:
    """As it is written in the configuration file."""
    return str(given).lower() if isinstance(given, bool) else str(given)


class Probe(Value):
    """A plugin's answer to ``mydocker subsystems``.

    ``controllers``: the cgroup controllers it uses. ``version``: 1 or 2, the cgroup version on which they
    are on this host, or None where no cgroup is used. ``files``: the kernel files that it may write.
    ``problem``: empty if it can work here, else one sentence that says why not.
    """

    controllers: tuple[str, ...] = ()
    version: int | None = None
    files: tuple[str, ...] = ()
    problem: str = ""


class ResourceConfig:
    """The limits that somebody set, and nothing else: an empty one is the normal case.

    A read-only mapping of field name to parsed value. ``flag(name)`` is how the user named the field, ``texts`` what
    the values were parsed from.
    """

    __slots__ = ("_flags", "_values", "texts")

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        flags: Mapping[str, str] | None = None,
        texts: Mapping[str, str | list[str]] | None = None,
    ) -> None:
        self._values = dict(values or {})
        self._flags = dict(flags or {})
        self.texts: Mapping[str, str | list[str]] = dict(texts or {})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, ResourceConfig) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ResourceConfig({self._values!r})"

    def flag(self, name: str) -> str:
        """How the user named this field (``-mem``), or the field's name."""
        return self._flags.get(name, name)

    def is_given(self, name: str) -> bool:
        """Whether the user named this field in this call. In an update, what stays as it was is not given."""
        return name in self._flags and name in self._values

    def asdict(self) -> dict[str, Any]:
        return dict(self._values)

    def without(self, name: str) -> ResourceConfig:
        """The same without the field ``name``."""
        kept = {field: value for field, value in self._values.items() if field != name}
        texts = {field: text for field, text in self.texts.items() if field != name}
        return ResourceConfig(kept, self._flags, texts)


_SIZE_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _number(text: str) -> bool:
    """Whether ``text`` is digits with at most one point between or before them."""
    whole, point, fraction = text.partition(".")
    return (whole + fraction).isdigit() and text.isascii() and (not point or bool(fraction))


def parse_size(text: str) -> int:
    """Bytes: a number and a unit, b, k, m, g, t or p (powers of 1024; ``mb`` and ``MiB`` are the same).

    The grammar is that of ``docker run --memory`` (go-units RAMInBytes). Fractions are cut to whole bytes.
    """
    unit = text.strip().lower().lstrip("0123456789.")
    number = text.strip().lower()[: len(text.strip()) - len(unit)]
    unit = unit.strip()
    if not unit.startswith("b"):
        unit = unit.removesuffix("b").removesuffix("i")
    number = number.strip()
    # int() itself refuses thousands of digits, in words that are no reason to a person.
    if unit not in _SIZE_UNITS or not _number(number) or len(number) > 1000:
        raise ValueError(f'"{text}" is not a size: write a number and a unit, b, k, m or g, as in 100m')
    whole, _, fraction = number.partition(".")
    factor = _SIZE_UNITS[unit]
    size = int(whole or "0") * factor
    if fraction:
        size += int(fraction) * factor // 10 ** len(fraction)
    if size >= 1 << 63:
        raise ValueError(f'"{text}" is more than the kernel can count, 8 EiB')
    return size


def format_size(size: int) -> str:
    """The shortest exact way to write ``size`` bytes for `parse_size`: 104857600 is ``100m``."""
    for unit in "pgmk":
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}b"


def parse_size_or_unlimited(text: str) -> int:
    """As `parse_size`; ``-1`` and ``unlimited`` give -1."""
    if text.strip() in ("-1", "unlimited"):
        return -1
    return parse_size(text)


def parse_duration(text: str) -> float:
    """Seconds: ``10s``, ``500ms``, ``1m30s``, ``2h``; a bare number is seconds. More than zero."""
    wrong = ValueError(f'"{text}" is not a duration: write a number and a unit, ms, s, m, h or d, as in 10s or 1m30s')
    rest = text.strip().lower()
    if not rest:
        raise wrong
    if _number(rest):
        seconds = float(rest)
    else:
        seconds = 0.0
        while rest:
            number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
            rest = rest[len(number) :]
            unit = rest[: len(rest) - len(rest.lstrip("dhmsu"))]
            # "1m30s": the unit ends where the next number starts
            rest = rest[len(unit) :]
            if not _number(number) or unit not in _DURATION_UNITS:
                raise wrong
            seconds += float(number) * _DURATION_UNITS[unit]
    if not 0 < seconds < 1e9:
        raise ValueError(f'"{text}" is not a duration to wait for: it must be more than 0 and below 30 years')
    return seconds


def parse_integer(text: str) -> int:
    """A whole number, with a sign or without."""
    digits = text.strip()
    if not (digits.isascii() and digits.removeprefix("-").removeprefix("+").isdigit() and len(digits) <= 20):
        raise ValueError(f'"{text}" is not a whole number')
    return int(digits)


def parse_flag(text: str) -> bool:
    """``true`` or ``false``, as a flag without a value and Python's True and False give them."""
    word = text.strip().lower()
    if word not in ("true", "false"):
        raise ValueError(f'"{text}" is neither true nor false')
    return word == "true"


def parse_cpus(text: str) -> float:
    """A number of CPUs, ``0.5`` or ``2``: more than zero."""
    number = text.strip()
    if not _number(number) or len(number) > 20 or float(number) <= 0:
        raise ValueError(f'"{text}" is not a number of CPUs: write one above 0, as in 0.5 or 2')
    return float(number)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU or memory node numbers, ``0-3,7``, sorted (the list format of cpuset(7))."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()) or len(first + last) > 12:
            raise ValueError(f'"{text}" is not a list: write numbers and ranges, as in 0-2,4')
        low, high = int(first), int(last)
        if low > high or high >= 1 << 16:
            raise ValueError(f'"{text}" is not a list: {part.strip()} is not a range from low to high below 65536')
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def format_cpu_list(numbers: tuple[int, ...] | list[int] | set[int] | frozenset[int]) -> str:
    """The reverse of `parse_cpu_list`: ``(0, 1, 2, 4)`` is ``0-2,4``."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in ranges)
