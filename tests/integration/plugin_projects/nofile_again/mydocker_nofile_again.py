"""``--max-files``, and ``--nofile`` as well, which is the flag of another plugin."""

from mydocker import ResourceField, hookimpl
from mydocker.resources import parse_integer


@hookimpl
def mydocker_fields():
    return [
        ResourceField(
            name="max_files", flags=("--max-files", "--nofile"), parse=parse_integer, metavar="N", help="Open files."
        )
    ]
