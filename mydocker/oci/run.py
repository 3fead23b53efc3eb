"""run: make a container, execute its command, and stay until it has ended."""

from __future__ import annotations

from mydocker.linux import process
from mydocker.oci import container
from mydocker.oci.creation import OPTIONS as _CREATION
from mydocker.oci.creation import Creation
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.main import Call

OPTIONS = (
    *_CREATION,
    Option(names=("--detach", "-d"), kind="flag", help="do not stay: leave the container running"),
    Option(names=("--keep",), kind="flag", help="do not delete the container at its end"),
    Option(names=("--no-subreaper",), kind="flag", help="do not become the parent of the container's orphans"),
)
ARGUMENTS = "CONTAINER-ID"


def main(call: Call) -> int:
    if call.options.get("detach"):
        creation = Creation(call)
        creation.run()
        _start(creation, call)
        return 0
    return _stay(call)


def _start(creation: Creation, call: Call) -> None:
    """Execute the command; the container is gone if that fails."""
    from mydocker.oci import delete, start

    try:
        start.start(creation.container)
    except BaseException:
        delete.destroy(creation.container, call.log)
        container.forget_root(call)
        raise


def _stay(call: Call) -> int:
    from mydocker import streams
    from mydocker.oci import delete, foreground

    streams.reserve_standard()
    if not call.options.get("no_subreaper"):
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    ours = foreground.Signals()
    creation = Creation(call, relayed=True)
    try:
        creation.run()
        child = creation.child
        try:
            _start(creation, call)
            relay = foreground.Relay() if creation.terminal >= 0 else streams.Streams(0, 1, 2)
            code = foreground.stay(child, relay, creation.terminal, ours)
        finally:
            child.close()
        if not call.options.get("keep"):
            delete.destroy(creation.container, call.log)
            container.forget_root(call)
        return code
    finally:
        ours.close()
