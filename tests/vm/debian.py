"""Debian packages: install them, or unpack them somewhere and leave this machine as it is.

apt checks the packages' signatures. What it says goes to stderr: stdout belongs to the caller's results.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import tempfile
from pathlib import Path


class DebianError(Exception):
    """A package could not be had. The message is one sentence for the person who asked."""


def install(*packages: str) -> None:
    """Install packages; one that could only be had by removing another is an error."""
    refresh_lists()
    run("apt-get", "install", "-qq", "--no-install-recommends", "--no-remove", *packages)


def unpack(*packages: str, into: Path) -> None:
    """Download packages and unpack them, uninstalled, into the directory ``into``, which is made."""
    refresh_lists()
    with tempfile.TemporaryDirectory() as scratch:
        # apt gives up its privileges for downloads and then cannot write into a directory that is root's alone.
        run("apt-get", "download", "-qq", "-oAPT::Sandbox::User=root", *packages, cwd=Path(scratch))
        for package in sorted(Path(scratch).glob("*.deb")):
            run("dpkg-deb", "--extract", str(package), str(into))


def dependencies(package: str) -> list[str]:
    """The names of the packages that ``package`` depends on; none if apt does not know it."""
    refresh_lists()
    depends = subprocess.run(
        ["apt-cache", "depends", package],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    fields = (line.strip().partition(": ") for line in depends.stdout.splitlines())
    return [name for relation, _, name in fields if relation == "Depends"]


@functools.cache
def refresh_lists() -> None:
    run("apt-get", "update", "-qq")


def run(*command: str, cwd: Path | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(command, check=True, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=2)
    except FileNotFoundError as e:
        raise DebianError(f"there is no {command[0]} here: this needs Debian 12") from e
    except subprocess.CalledProcessError as e:
        raise DebianError(f"{shlex.join(command)} failed with status {e.returncode}") from e
