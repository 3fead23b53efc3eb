"""The interpreter that the runtime runs in, which a command could have executed once more (CVE-2019-5736).

A script whose first line names /proc/self/exe makes the kernel execute what the process was before, with the loader of
the container. In these tests that loader is a shell, which looks whether it can open that file for writing; it writes
nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
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


LET_GO = """
import gc, os, sys
from mydocker.linux import executable

mapped = os.path.realpath("/proc/self/exe")
executable.let_go()
executable.let_go()
assert os.readlink("/proc/self/exe").startswith("/memfd:mydocker"), os.readlink("/proc/self/exe")
files = [line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if line.count("/")]
# What was not written to may be mapped still, from a mount of its own, so that the kernel lets go of the file itself.
print(sum(name == mapped for name in files))
import decimal, json, re, ctypes  # it works on as before: more is loaded, allocated, collected and forked
table = {str(number): [number, decimal.Decimal(number)] for number in range(50_000)}
assert json.loads(json.dumps({key: value[0] for key, value in table.items()}))["49999"] == 49_999
del table
gc.collect()
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        os._exit(len(re.findall("a", "a" * 42)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
for path in ("/proc/self/exe", f"/proc/{os.getpid()}/exe"):
    for flags in (os.O_WRONLY, os.O_RDWR):
        try:
            os.open(path, flags)
        except OSError:
            pass
        else:
            raise AssertionError(path)
print("works")
"""


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_interpreter_works_on(python: str) -> None:
    """One with all its code in a library, and one whose own file is all of it, where the host has both."""
    if not os.path.exists(python):
        pytest.skip("this host has no /usr/bin/python3")
    done = subprocess.run([python, "-c", LET_GO], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.endswith("works\n"), done.stderr
