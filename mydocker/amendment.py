"""What a plugin adds to a container before it is cloned."""

from __future__ import annotations

from mydocker.spec import Tmpfs, Volume
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


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

    TypeError or ValueError for what is none of these.
    """

    mounts: tuple[Volume | Tmpfs, ...] = ()
    env: tuple[bytes, ...] = ()
    network: Callable[[int], None] | None = None
    upper: int = -1

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            super().__init__(**values)
            for entry in _each("mounts", self.mounts):
                if not isinstance(entry, (Tmpfs, Volume)):
                    raise TypeError(f"Amendment: mounts has {entry!r}, which is no Tmpfs and no Volume of mydocker")
                if not all(isinstance(path, str) for path in (entry.destination, getattr(entry, "source", ""))):
                    raise TypeError(f"Amendment: mounts has {entry!r}, whose paths are no texts")
            for variable in _each("env", self.env):
                if not isinstance(variable, bytes):
                    raise TypeError(f"Amendment: env has {variable!r}, which is no bytes: write b'KEY=VALUE'")
                if variable.find(b"=") < 1 or b"\0" in variable:
                    raise ValueError(f"Amendment: env has {variable!r}, which is no variable: write b'KEY=VALUE'")
            if self.network is not None and not callable(self.network):
                raise TypeError(f"Amendment: network={self.network!r} is no function")
            if isinstance(self.upper, bool) or not isinstance(self.upper, int) or not -1 <= self.upper < 1 << 31:
                raise TypeError(f"Amendment: upper={self.upper!r} is no descriptor")


def _each(name: str, entries: object) -> tuple[Any, ...]:
    if not isinstance(entries, (tuple, list)):
        raise TypeError(f"Amendment: {name}={entries!r} is no tuple")
    return tuple(entries)
