"""The interpreter that mydocker runs in is out of reach of the command (CVE-2019-5736), and works on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="on other machines the interpreter stays what the process executes"
)

Run = Callable[..., CompletedProcess[str]]

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


@pytest.mark.parametrize("options", [[], ["--init"], ["-u", "1000:1000"]], ids=" ".join)
def test_script_that_names_what_its_process_was_before(options: list[str], run: Run, rootfs: Path) -> None:
    """It would execute the interpreter with this root's own loader, and get a descriptor of the host's file by it."""
    loader = rootfs / "lib64/ld-linux-x86-64.so.2"
    loader.parent.mkdir()
    shutil.copy(rootfs / "bin/busybox", loader)
    (rootfs / "bin/attack").write_text("#!/proc/self/exe\n")
    (rootfs / "bin/attack").chmod(0o755)
    done = run(*options, "--rootfs", rootfs, "attack")
    assert done.returncode == 126
    assert "exec format error" in done.stderr
