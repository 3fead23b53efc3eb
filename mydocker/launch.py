"""How the console scripts begin: with the code that commands of their kind have imported before.

`mydocker.cli` and `mydocker.oci.main` do the rest. They end the process, with ``os._exit``.
"""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from mydocker.code_cache import CodeCache

#: The commands that are called often; each has its modules in a file of its own, so that no other's are read.
FREQUENT = {
    "mydocker": ("run",),
    "mydocker-oci": ("create", "start", "state", "kill", "delete", "exec", "run"),
}

#: What looks for plugins, once a package has changed.
_SEARCH = ("mydocker.plugin_discovery",)
#: What asks click, for help and for the words of a mistake.
_CLICK = "mydocker.cli.app"


def mydocker() -> NoReturn:
    """The command ``mydocker``."""
    cache = _begin("mydocker")
    from mydocker.cli import main

    main(at_end=cache.keep)


def mydocker_oci() -> NoReturn:
    """The command ``mydocker-oci``."""
    cache = _begin("mydocker-oci")
    from mydocker.oci.main import main

    main(at_end=cache.keep)


def _begin(script: str) -> CodeCache:
    # A process that ends after one command has no use for a search for reference cycles.
    gc.disable()
    from mydocker.code_cache import CodeCache

    word = next((word for word in sys.argv[1:] if word in FREQUENT[script]), "")
    if "--help" in sys.argv[1:3]:
        word = ""
    cache = CodeCache(f"{script} {word}", _SEARCH if word == "" else (*_SEARCH, _CLICK))
    cache.install()
    return cache
