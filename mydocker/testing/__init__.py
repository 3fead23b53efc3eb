"""For the tests of a limit: a host that does not exist, and the way of a limit through a run on it.

``FakeHost``
    the cgroup file systems of a host with cgroup v1, v2 or both, in a directory, with the kernel's refusals.
``Journey``
    takes a plugin and values through the hooks as a run does, on a `FakeHost`.
``mydocker.testing.pytest_plugin``
    both as fixtures of pytest. It is no entry point: mydocker changes nothing in the tests of those who do not ask. A
    ``conftest.py`` asks by ``pytest_plugins = ["mydocker.testing.pytest_plugin"]``.

None of it needs root. See docs/writing-a-limit.md.
"""

from __future__ import annotations

from mydocker.testing.host import FakeHost, Write
from mydocker.testing.journey import Journey

__all__ = ["FakeHost", "Journey", "Write"]
