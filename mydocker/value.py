"""Immutable records, as ``dataclasses`` makes them, without its import.

``import dataclasses`` pulls in ``inspect`` and with it some 15 ms, more than all the rest of a run.
A subclass of `Value` declares its fields as annotations, with defaults as class attributes, and gets a
keyword-only constructor, equality, a repr and protection against assignment. Type checkers see a frozen
dataclass through ``typing.dataclass_transform`` (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_kwargs: Any) -> Callable[[T], T]:
        return lambda cls: cls


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Value:
    """Base of the immutable records. Fields are the annotated names, those of base classes first."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _names: ClassVar[frozenset[str]] = frozenset()
    _defaults: ClassVar[dict[str, Any]] = {}

    if not TYPE_CHECKING:

        def __init_subclass__(cls) -> None:
            own = tuple(name for name in cls.__annotations__ if not name.startswith("_"))
            cls._fields = cls._fields + tuple(name for name in own if name not in cls._fields)
            cls._names = frozenset(cls._fields)
            cls._defaults = {**cls._defaults, **{name: cls.__dict__[name] for name in own if name in cls.__dict__}}

        def __init__(self, **values: Any) -> None:
            cls = type(self)
            fields = self.__dict__
            fields.update(cls._defaults)
            fields.update(values)
            if fields.keys() != cls._names:
                unknown = ", ".join(sorted(set(fields) - set(cls._fields)))
                missing = ", ".join(name for name in cls._fields if name not in fields)
                problem = f"unknown field {unknown}" if unknown else f"missing field {missing}"
                raise TypeError(f"{cls.__name__}: {problem}")

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name}")

        __delattr__ = None

        def __eq__(self, other: object) -> bool:
            return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

        def __hash__(self) -> int:
            return hash((type(self), *(self.__dict__[name] for name in self._fields)))

        def __repr__(self) -> str:
            values = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
            return f"{type(self).__name__}({values})"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        cls = type(self)
        if not cls._names.issuperset(changes):
            return cls(**{**self.__dict__, **changes})  # which says what is wrong
        copy = object.__new__(cls)
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(changes)
        return copy

    def asdict(self) -> dict[str, Any]:
        """The fields in the order of their declaration."""
        return {name: self.__dict__[name] for name in self._fields}


_PLAIN = frozenset((str, bytes, int, bool, float, type(None)))


def plain(value: Any) -> Any:
    """The same, of what marshal knows: a `Value` is a list that begins with the name of its class."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple:
        return tuple(map(plain, value))
    if isinstance(value, Value):
        fields = value.__dict__
        return [kind.__name__, *[plain(fields[name]) for name in kind._fields]]
    for cls in (str, bytes, int):
        if isinstance(value, cls):  # such as a member of an enumeration
            made: Any = cls
            return made.__new__(cls, value)
    return value
