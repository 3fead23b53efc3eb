"""``--help`` of mydocker-oci and of its verbs."""

from __future__ import annotations

import sys

from mydocker.oci import main as _main
from mydocker.oci.options import help_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from mydocker.oci.options import Option


def overview() -> None:
    lines = ["Usage: mydocker-oci [OPTIONS] VERB ...", "", "An OCI runtime: engines call it for their containers.", ""]
    lines += ["Verbs:", *(f"  {verb:<10}{_summary(verb)}" for verb in _main.VERBS), ""]
    lines += ["Options:", *help_lines(_main.OPTIONS)]
    sys.stdout.write("\n".join(lines) + "\n")


def _summary(verb: str) -> str:
    """The first sentence of the verb's module."""
    try:
        module = __import__(f"mydocker.oci.{_main.VERBS[verb]}", fromlist=["main"])
    except ImportError:
        return ""
    return _sentence(module.__doc__ or "")


def _sentence(text: str) -> str:
    """The first one, without the verb in front."""
    first = " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")
    return first.partition(": ")[2] or first


def verb(name: str, text: str, arguments: str, options: Sequence[Option]) -> None:
    lines = [f"Usage: mydocker-oci {name} [OPTIONS] {arguments}".rstrip(), "", _sentence(text) + ".", ""]
    lines += ["Options:", *help_lines(options)]
    sys.stdout.write("\n".join(lines) + "\n")
