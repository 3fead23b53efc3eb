"""The clone of a plain user's container: with a user namespace, which owns the others."""

from __future__ import annotations

from mydocker import handoff
from mydocker.linux import process
from mydocker.rootless import refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.child import Child
    from mydocker.rootless.ids import IdMaps


def into_user_namespace(maps: IdMaps, child: Child, clone: Callable[[int], bool]) -> bool:
    """Call ``clone`` with what is to be added to its flags, write the id maps, and let the child go on. False if there
    is none.

    Of several namespaces made at once the user namespace comes first and owns the others (clone(2)). The child
    has all capabilities in it, but no id before the maps are written: what it made would belong to nobody.
    """
    try:
        if not clone(process.CLONE_NEWUSER):
            return False
        maps.write(child.pid)
    except OSError as e:
        raise refusals.clone_refused(e) from e
    child.tell(handoff.MAPPED)
    return True
