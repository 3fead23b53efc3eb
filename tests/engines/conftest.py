"""Each engine, started once for each runtime, when a step first needs it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# pytest's import mode importlib leaves sys.path alone.
sys.path.append(str(Path(__file__).resolve().parent))

from engines import ENGINES, Engine, Runtime, write_image
from pen import PATH, Pen, remove_abandoned_pens


@pytest.fixture(scope="session")
def runtimes() -> dict[str, Runtime]:
    """Debian's runc, and mydocker-oci as it is installed beside this Python.

    ``MYDOCKER_TEST_RUNTIME=/usr/bin/crun`` compares another one with runc.
    """
    ours = os.environ.get("MYDOCKER_TEST_RUNTIME") or str(Path(sys.executable).with_name("mydocker-oci"))
    runc = shutil.which("runc", path=PATH)
    assert runc is not None, "there is no runc here: make test-engines installs it"
    return {"runc": Runtime("runc", runc), "mydocker-oci": Runtime(Path(ours).name, ours)}


@pytest.fixture(scope="session")
def engine(
    runtimes: dict[str, Runtime], busybox: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], Engine]]:
    """The engine of this name on this runtime."""
    archive = tmp_path_factory.mktemp("image") / "busybox.tar"
    write_image(busybox, archive)
    running: dict[tuple[str, str], Engine] = {}
    remove_abandoned_pens()
    with ExitStack() as pens:

        def get(name: str, runtime: str) -> Engine:
            if (name, runtime) not in running:
                pen = pens.enter_context(Pen(f"{name}-{runtime}"))
                scratch = tmp_path_factory.mktemp(f"{name}-{runtime}")
                running[name, runtime] = ENGINES[name](pen, scratch, runtimes[runtime], archive)
            return running[name, runtime]

        yield get
