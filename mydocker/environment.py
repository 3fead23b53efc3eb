"""A virtual environment as Python's own ``site`` makes it, for an interpreter that was started without (``-S``).

``site`` takes a fifth of the interpreter's start. What it does in an environment that consists of its own packages and
nothing else is done here; in any other it is called. Missing are then ``exit``, ``quit`` and the like, which are for
the interactive interpreter, and setuptools' stand-in for ``distutils``.
"""

from __future__ import annotations

import os
import sys

#: Puts setuptools' copy of ``distutils`` in the place of the standard library's, which Python 3.12 has no more.
_WITHOUT_EFFECT = "distutils-precedence.pth"


def complete() -> None:
    """Put in force what belongs to this environment; its packages are the last entry of ``sys.path``."""
    prefix = sys.executable[: -len("/bin/python3")]
    if not _is_plain(prefix, sys.path[-1]):
        sys.path.pop()
        import site

        site.main()
        return
    sys.prefix = sys.exec_prefix = prefix
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as e:
        if e.name != "sitecustomize":
            raise


def _is_plain(prefix: str, packages: str) -> bool:
    """Whether nothing but ``packages`` belongs to the environment, and nothing is to be run when it starts."""
    if sys.platlibdir != "lib":
        return False
    with open(f"{prefix}/pyvenv.cfg", encoding="utf-8") as f:
        for line in f:
            key, _, value = line.partition("=")
            if key.strip().lower() == "include-system-site-packages" and value.strip().lower() != "false":
                return False
    return not any(name.endswith(".pth") and name != _WITHOUT_EFFECT for name in os.listdir(packages))
