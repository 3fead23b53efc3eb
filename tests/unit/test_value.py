"""Immutable records."""

from __future__ import annotations

import pytest

from mydocker.value import Value


class Point(Value):
    x: int
    y: int = 0


class Named(Point):
    name: str = ""


class Other(Value):
    x: int
    y: int = 0


def test_fields_are_given_by_keyword_and_have_defaults() -> None:
    assert (Point(x=1).x, Point(x=1).y) == (1, 0)
    assert Point(x=1, y=2).y == 2


def test_a_subclass_adds_its_fields_after_those_of_its_base() -> None:
    assert list(Named(x=1, name="a").asdict()) == ["x", "y", "name"]


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(TypeError, match="unknown field z"):
        Point(x=1, z=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing field x"):
        Point(y=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown field z"):
        Point(z=1)  # type: ignore[call-arg]


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        Point(1, 2)  # type: ignore[misc]


def test_a_value_cannot_be_changed() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError, match="immutable"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        del point.x
    assert point.x == 1


def test_equality_is_that_of_the_class_and_the_fields() -> None:
    assert Point(x=1) == Point(x=1, y=0)
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != Other(x=1)
    assert len({Point(x=1), Point(x=1), Point(x=2)}) == 2


def test_replace_gives_a_changed_copy() -> None:
    point = Point(x=1)
    assert point.replace(y=5) == Point(x=1, y=5)
    assert point == Point(x=1)
    with pytest.raises(TypeError):
        point.replace(z=1)


def test_repr_names_the_fields() -> None:
    assert repr(Named(x=1, name="a")) == "Named(x=1, y=0, name='a')"
