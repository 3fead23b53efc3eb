"""list: print the containers of a root directory."""

from __future__ import annotations

import os
import sys

from mydocker import plain_json, state
from mydocker.errors import OciError
from mydocker.oci import container
from mydocker.oci.container import Container
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.main import Call

OPTIONS = (
    Option(names=("--format", "-f"), metavar="table|json", help="how they are printed (default: table)"),
    Option(names=("--quiet", "-q"), kind="flag", help="the ids alone"),
)
ARGUMENTS = ""

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def main(call: Call) -> int:
    form = call.options.get("format", "table")
    if form not in ("table", "json"):
        raise OciError(f"invalid format option {form!r}: write table or json")
    found = containers(call.root)
    if call.options.get("quiet"):
        lines = [each.id for each in found]
    elif form == "json":
        # An engine that decodes it takes null for an empty list.
        lines = [plain_json.dumps([container.shown(each) for each in found]) if found else "null"]
    else:
        lines = _table([_row(each) for each in found])
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def containers(root: str) -> list[Container]:
    """Those below ``root``, in the order of their ids."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    except OSError as e:
        raise OciError(f"cannot read the containers in {root}: {e.strerror}") from e
    records = [(name, state.read(f"{root}/{name}")) for name in names if state.is_id(name)]
    return [Container(f"{root}/{name}", record) for name, record in records if record is not None and record.oci]


def _row(each: Container) -> tuple[str, ...]:
    values = container.shown(each)
    return tuple(str(values[column.lower()]) for column in _COLUMNS)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    table = [_COLUMNS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
