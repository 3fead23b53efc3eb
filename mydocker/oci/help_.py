"""``--help`` of mydocker-oci and of its verbs."""

from __future__ import annotations

import sys

from mydocker.oci import main as _main
from mydocker.oci.options import help_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from mydocker.oci.options import Option


#: The first sentence of each verb's module: to import all of them takes longer than any verb.
SUMMARIES = {
    "create": "make a container from a bundle, up to the moment before its command runs",
    "delete": "remove what is left of a container that has stopped",
    "events": "print what a container uses, again and again, and when it has run out of memory; as JSON, a line each",
    "exec": "run a process in a container that runs",
    "features": "print, as JSON, what of config.json is understood here (runtime-spec, features.md)",
    "kill": "send a signal to a container's first process",
    "list": "print the containers of a root directory",
    "pause": "stop every process of a container where it is",
    "ps": "show the processes of a container, as the host sees them",
    "resume": "let the processes of a paused container go on",
    "run": "make a container, execute its command, and stay until it has ended",
    "spec": "write a config.json to begin with, for a bundle whose root is in rootfs",
    "start": "execute the command of a container that was created",
    "state": "print the state of a container, as JSON",
    "update": "change the limits of a container, all that are asked for or none",
}


def overview() -> None:
    lines = ["Usage: mydocker-oci [OPTIONS] VERB ...", "", "An OCI runtime: engines call it for their containers.", ""]
    lines += ["Verbs:", *(f"  {verb:<10}{summary}" for verb, summary in SUMMARIES.items()), ""]
    lines += ["Options:", *help_lines(_main.OPTIONS)]
    sys.stdout.write("\n".join(lines) + "\n")


def sentence(text: str) -> str:
    """The first one, without the verb in front."""
    first = " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")
    return first.partition(": ")[2] or first


def verb(name: str, text: str, arguments: str, options: Sequence[Option]) -> None:
    lines = [f"Usage: mydocker-oci {name} [OPTIONS] {arguments}".rstrip(), "", sentence(text) + ".", ""]
    lines += ["Options:", *help_lines(options)]
    sys.stdout.write("\n".join(lines) + "\n")
