"""cgroupspy's modules, imported for half of what they cost.

They take one name from ``collections.abc``, for which Python loads the whole package ``collections``, at 1.4 ms. The
module behind that name, ``_collections_abc``, is loaded in every Python: it stands in while cgroupspy is imported,
unless the program has loaded ``collections.abc`` anyway.
"""

from __future__ import annotations

import _collections_abc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def _load() -> tuple[ModuleType, ModuleType, ModuleType]:
    stands_in = sys.modules.setdefault("collections.abc", _collections_abc) is _collections_abc
    try:
        from cgroupspy import contenttypes, controllers, interfaces
    finally:
        if stands_in:
            del sys.modules["collections.abc"]
    return contenttypes, controllers, interfaces


_modules = _load()
contenttypes: Any = _modules[0]
controllers: Any = _modules[1]
interfaces: Any = _modules[2]
