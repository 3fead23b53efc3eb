"""One line of the report."""

from __future__ import annotations

from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Status = Literal["ok", "warning", "missing", "not needed"]


class Check(Value):
    """What was looked at, and what came of it.

    ``status``  ``ok``; ``missing``: something of mydocker cannot work without it; ``warning``: it works, with less
                than one may expect; ``not needed``: it is not there, and nothing here asks for it.
    ``fact``    what is there, one sentence.
    ``advice``  what to do about what is missing, one sentence; empty for ``ok``.
    """

    name: str
    status: Status
    fact: str
    advice: str = ""


def ok(name: str, fact: str) -> Check:
    return Check(name=name, status="ok", fact=fact)


def warning(name: str, fact: str, advice: str) -> Check:
    return Check(name=name, status="warning", fact=fact, advice=advice)


def missing(name: str, fact: str, advice: str) -> Check:
    return Check(name=name, status="missing", fact=fact, advice=advice)


def not_needed(name: str, fact: str, advice: str = "") -> Check:
    return Check(name=name, status="not needed", fact=fact, advice=advice)
