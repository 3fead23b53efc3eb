"""Builds the program that does the shortest OCI verbs without Python, where there is a C compiler.

bin/shortest_verbs.c is installed as mydocker-oci, and the Python program, to which it leaves all else, as
mydocker-oci.py beside it. Without a compiler the Python program is mydocker-oci.
"""
# ruff: noqa: I001

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import setuptools  # before distutils, which is its own since Python 3.12
from distutils.command.build_scripts import build_scripts
from distutils.log import warn

HERE = Path(__file__).resolve().parent
NAME = "mydocker-oci"

sys.path.insert(0, str(HERE))
writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
from mydocker.oci.brief import FORMAT  # noqa: E402
from mydocker.state import COMMON_ROOT  # noqa: E402

sys.dont_write_bytecode = writes_none


@functools.cache
def program() -> bytes | None:
    """The program; None if it cannot be built. ``CC``, ``CFLAGS`` and ``LDFLAGS`` are as for any C program."""
    compiler, flags, linking = (shlex.split(os.environ.get(name, "")) for name in ("CC", "CFLAGS", "LDFLAGS"))
    compiler = [*(compiler or ["cc"]), "-std=gnu99", "-O2", *flags]
    strings = {"FORMAT": FORMAT, "DEFAULT_ROOT": COMMON_ROOT}
    defines = [f'-D{name}="{value}"' for name, value in strings.items()]
    said = ""
    for linked in (["-static"], []):  # with all in it, it starts in half the time
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch, NAME)
            command = [*compiler, *defines, "-o", str(made), str(HERE / "bin/shortest_verbs.c"), *linked, *linking]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
                subprocess.run([str(made)], check=False, capture_output=True)  # OSError if it is for another machine
                return made.read_bytes()
            except subprocess.CalledProcessError as e:
                said = e.stderr
            except OSError as e:
                said = str(e)
    warn("%s is the Python program, for bin/shortest_verbs.c cannot be built: %s", NAME, said)
    return None


class Distribution(setuptools.Distribution):
    """One whose wheel is for this kind of machine if it has the program."""

    def has_ext_modules(self) -> bool:
        return program() is not None


class BuildScripts(build_scripts):
    """With the program in the place of the Python program, which is put beside it."""

    def run(self) -> None:
        self.force = True  # what an earlier call has made is newer than the script, and not that
        super().run()
        built = program()
        if built is not None:
            script = Path(self.build_dir, NAME)
            shutil.copy(script, script.with_suffix(".py"))
            script.write_bytes(built)


setuptools.setup(cmdclass={"build_scripts": BuildScripts}, distclass=Distribution)
