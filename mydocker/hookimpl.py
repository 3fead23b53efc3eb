"""The marker for a plugin's hook functions, without importing pluggy."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar, overload

    F = TypeVar("F", bound=Callable[..., object])
else:

    def overload(function: F) -> F:
        return function


@overload
def hookimpl(function: F) -> F: ...
@overload
def hookimpl(*, tryfirst: bool = False, trylast: bool = False) -> Callable[[F], F]: ...  # noqa: F811
def hookimpl(  # noqa: F811
    function: F | None = None, *, tryfirst: bool = False, trylast: bool = False
) -> F | Callable[[F], F]:
    """Mark a function as the implementation of the hook of its name (see `mydocker.hookspecs`).

    The mark is the one that ``pluggy.HookimplMarker("mydocker")`` sets, which works as well; this one spares
    a run the import of pluggy, some 15 ms.
    """

    def mark(f: F) -> F:
        f.mydocker_impl = {  # type: ignore[attr-defined]
            "wrapper": False,
            "hookwrapper": False,
            "optionalhook": False,
            "tryfirst": tryfirst,
            "trylast": trylast,
            "specname": None,
        }
        return f

    return mark(function) if function is not None else mark
