"""state: print the state of a container, as JSON."""

from __future__ import annotations

import sys

from mydocker import plain_json
from mydocker.oci import container
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.main import Call

OPTIONS: tuple[Option, ...] = ()
ARGUMENTS = "CONTAINER-ID"


def main(call: Call) -> int:
    found = container.find(call)
    values = {"pid": 0, **found.state()}
    values["rootfs"] = found.record.oci["rootfs"]
    values["created"] = container.created_text(found.record)
    values["owner"] = container.owner_name(found.record)
    sys.stdout.write(plain_json.dumps(values, indent=2) + "\n")
    return 0
