"""``mydocker subsystems --explain`` as a plain user."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm


def test_it_needs_no_root(user: Any, layout: Layout) -> None:
    memory = layout.require("memory")
    run = ["run", "--name", "box", "-m", "64m", "true"]
    done = user.call(user.python, "-m", "mydocker", "subsystems", "--explain", "--", *run)
    assert (done.returncode, done.stderr) == (0, "")
    name = "memory.max" if memory.version == 2 else "memory.limit_in_bytes"
    assert f"  write  {memory.base}/mydocker/box/{name}  '67108864'\n" in done.stdout
    assert "new namespaces: user, mount," in done.stdout
    assert f"note: this user may not make cgroups in {memory.base}" in done.stdout
    assert not os.path.exists(f"{memory.base}/mydocker/box")
