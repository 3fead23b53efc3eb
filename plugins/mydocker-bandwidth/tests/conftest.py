"""What the tests of a limit get from mydocker: imitated hosts, and containers on the real one."""

from __future__ import annotations

pytest_plugins = ["mydocker.testing.pytest_plugin"]
