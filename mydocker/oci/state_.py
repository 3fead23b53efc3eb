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
    values = container.shown(container.find(call))
    sys.stdout.write(plain_json.dumps(values, indent=2) + "\n")
    return 0
