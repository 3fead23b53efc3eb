"""create: make a container from a bundle, up to the moment before its command runs."""

from __future__ import annotations

from mydocker.oci.creation import OPTIONS, Creation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.main import Call

__all__ = ["ARGUMENTS", "OPTIONS", "main"]

ARGUMENTS = "CONTAINER-ID"


def main(call: Call) -> int:
    Creation(call).run()
    return 0
