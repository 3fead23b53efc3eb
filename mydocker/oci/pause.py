"""pause: stop every process of a container where it is."""

from __future__ import annotations

from mydocker.cgroups import freezing
from mydocker.errors import OciError
from mydocker.oci import container
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.main import Call

OPTIONS: tuple[Option, ...] = ()
ARGUMENTS = "CONTAINER-ID"


def main(call: Call) -> int:
    found = container.find(call)
    with found.lock():
        status = found.status
        if status not in ("running", "created"):
            raise OciError("container already paused" if status == "paused" else "container not running")
        freezing.freeze(found.cgroup())
    return 0
