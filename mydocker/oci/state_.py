"""state: print the state of a container, as JSON."""

from __future__ import annotations

from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.main import Call

OPTIONS: tuple[Option, ...] = ()
ARGUMENTS = "CONTAINER-ID"


def main(call: Call) -> int:
    from mydocker.errors import OciError

    raise OciError("container does not exist")
