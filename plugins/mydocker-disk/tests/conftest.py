"""What the tests of a limit get from mydocker: imitated hosts, and containers on the real one."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

pytest_plugins = ["mydocker.testing.pytest_plugin"]

#: Seconds after which something that does not happen never will.
PATIENCE = 30


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until a function's answer is true."""

    def wait_for(condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "this did not happen"
            time.sleep(0.01)

    return wait_for
