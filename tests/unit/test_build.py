"""What setup.py builds: the program that does the shortest OCI verbs, and beside it the Python program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2]
PARTS = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "bin", "mydocker", "subsystems")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for part in PARTS:
        copy = shutil.copytree if (SOURCES / part).is_dir() else shutil.copy
        copy(SOURCES / part, tmp_path / part)  # type: ignore[operator]
    return tmp_path


def has_compiler() -> bool:
    check = ["cc", "-xc", "-fsyntax-only", "-"]
    try:
        return subprocess.run(check, input=b"#include <stdio.h>\n", check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def build(tree: Path, **variables: str) -> dict[str, bytes]:
    """The beginning of each script."""
    environment = {**os.environ, **variables}
    command = [sys.executable, "setup.py", "-q", "build"]
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
    (scripts,) = (tree / "build").glob("scripts-*")
    return {path.name: path.read_bytes()[:4] for path in scripts.iterdir()}


def test_with_a_compiler(tree: Path) -> None:
    """Again too: what is there by then is not taken for the Python program."""
    if not has_compiler():
        pytest.skip("there is no C compiler: apt-get install gcc libc6-dev")
    for _ in range(2):
        built = build(tree, CC="", CFLAGS="-g0")
        assert built.pop("mydocker-oci") == b"\x7fELF"
        assert sorted(built) == ["mydocker", "mydocker-oci.py"]
        assert {content[:2] for content in built.values()} == {b"#!"}


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false", "true"])
def test_without_one(tree: Path, compiler: str) -> None:
    built = build(tree, CC=compiler)
    assert sorted(built) == ["mydocker", "mydocker-oci"]
    assert {content[:2] for content in built.values()} == {b"#!"}
