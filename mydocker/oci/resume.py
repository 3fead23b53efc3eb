"""resume: let the processes of a paused container go on."""

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
        if found.status != "paused":
            raise OciError("container not paused")
        found.ensure_watched()
        freezing.thaw(found.cgroup())
    return 0
