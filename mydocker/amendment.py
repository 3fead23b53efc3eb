"""What a plugin adds to a container before it is cloned."""

from __future__ import annotations

from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.spec import Tmpfs, Volume


class Amendment(Value):
    """A plugin's answer to ``mydocker_amend``. Two plugins, or a plugin and the user, that claim the same are a
    `mydocker.ConflictError`.

    ``mounts``
        mounted after the user's, each at a destination of its own.
    ``env``
        ``KEY=VALUE`` each, added to the command's environment.
    ``network``
        called with the PID of the container's first process, in a thread that is inside the container's network
        namespace, after the clone and before the command. For addresses, routes, traffic control.
    ``upper``
        descriptor of a mount that is attached nowhere (``fsmount(2)``): there ``--overlay`` keeps what is written. The
        core closes it.
    """

    mounts: tuple[Volume | Tmpfs, ...] = ()
    env: tuple[bytes, ...] = ()
    network: Callable[[int], None] | None = None
    upper: int = -1
