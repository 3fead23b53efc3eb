"""The interpreter that the runtime runs in, which a command could have executed once more (CVE-2019-5736).

A script whose first line names /proc/self/exe makes the kernel execute what the process was before, with the loader of
the container. In these tests that loader is a shell, which looks whether it can open that file for writing; it writes
nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="on other machines the interpreter stays what the process executes"
)

#: The path of the loader that programs of this machine name, so also the interpreter.
LOADER = "lib64/ld-linux-x86-64.so.2"

#: In a second program, since what is executed at the moment cannot be written to anyway.
ATTACK = """#!/tmp/sh
echo executed $(readlink /proc/$$/exe)
exec 3< /proc/$$/exe
exec /bin/sh /bin/second
"""

SECOND = """
for number in 1 2 3 4 5; do
    if (exec 4<> /proc/self/fd/3) 2> /dev/null; then echo reached; fi
    sleep 0.1
done
"""


def prepare(bundle: Path) -> None:
    root = bundle / "rootfs"
    (root / LOADER).parent.mkdir(exist_ok=True)
    shutil.copy(root / "bin/busybox", root / LOADER)
    (root / "tmp/sh").symlink_to("/proc/self/exe")
    for name, text in (("attack", ATTACK), ("second", SECOND)):
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)


def test_the_attack_is_one(bundle: Any, ours: Any, cid: str) -> None:
    """A program that is no runtime is executed in that way, and its file can be opened for writing."""
    made = bundle("sh", "-c", "mkdir /tmp/own; cp /bin/busybox /tmp/own/sh; exec /tmp/own/sh -c 'exec /bin/attack'")
    prepare(made)
    done = ours.run(made, cid)
    assert "executed /tmp/own/sh" in done.stdout, done.stderr
    assert "reached" in done.stdout


@pytest.mark.parametrize("no_new_privs", [True, False])
def test_of_the_first_process(no_new_privs: bool, bundle: Any, ours: Any, cid: str) -> None:
    made = bundle("attack", process__noNewPrivileges=no_new_privs)
    prepare(made)
    done = ours.run(made, cid)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "exec /bin/attack: exec format error" in done.stderr


@pytest.mark.parametrize("options", [[], ["--user", "1000:1000"], ["--cap", "CAP_SYS_PTRACE"]], ids=" ".join)
def test_of_exec(options: list[str], bundle: Any, ours: Any, cid: str) -> None:
    made = bundle("sleep", "1000")
    prepare(made)
    for done in (ours.create(made, cid), ours("start", cid)):
        assert done.returncode == 0, done.stderr
    done = ours("exec", *options, cid, "attack")
    assert done.returncode == 255
    assert done.stdout == ""
    assert "exec /bin/attack: exec format error" in done.stderr


def test_what_waits_for_start_is_nothing_of_the_host(bundle: Any, ours: Any, cid: str) -> None:
    assert ours.create(bundle("sleep", "1000"), cid).returncode == 0
    assert os.readlink(f"/proc/{ours.state(cid)['pid']}/exe").startswith("/memfd:")
