"""Each engine, started once for each runtime, when a step first needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# pytest's import mode importlib leaves sys.path alone.
sys.path.append(str(Path(__file__).resolve().parent))

from engines import ENGINES, Engine, Runtime, write_image
from pen import PATH, Pen, remove_abandoned_pens

PLUGIN = Path(__file__).resolve().parents[2] / "plugins/mydocker-cputime"


@pytest.fixture(scope="session")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runtime]:
    """Debian's runc, and mydocker-oci as it is installed beside this Python, with a limit from plugins/ besides.

    ``MYDOCKER_TEST_RUNTIME=/usr/bin/crun`` compares another one with runc.
    """
    ours = os.environ.get("MYDOCKER_TEST_RUNTIME") or with_plugin(tmp_path_factory.mktemp("runtime"))
    runc = shutil.which("runc", path=PATH)
    assert runc is not None, "there is no runc here: make test-engines installs it"
    return {"runc": Runtime("runc", runc), "mydocker-oci": Runtime(Path(ours).name, ours)}


def with_plugin(directory: Path) -> str:
    """mydocker-oci that finds the plugin cputime, which pip installs into a directory of its own: an engine hands its
    runtime no PYTHONPATH."""
    shutil.copytree(PLUGIN, directory / "project", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quietly = ["-q", "--no-deps", "--no-index"]
    wheel = [*pip, "wheel", *quietly, "--no-build-isolation", "--wheel-dir", directory, directory / "project"]
    subprocess.run(wheel, check=True)
    subprocess.run([*pip, "install", *quietly, "--target", directory / "site", *directory.glob("*.whl")], check=True)
    command = directory / "mydocker-oci"
    installed = Path(sys.executable).with_name("mydocker-oci")
    command.write_text(f'#!/bin/sh\nPYTHONPATH={directory}/site exec {installed} "$@"\n')
    command.chmod(0o755)
    return str(command)


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
