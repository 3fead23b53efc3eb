"""Writing to a pipe of which the reader is gone, in a process that a SIGPIPE would end."""

from __future__ import annotations

import subprocess
import sys

import pytest

WRITE = """
import os, signal, sys
from mydocker.linux import signals
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if sys.argv[1] == "masked":
    signals._no_signal.clear()
reader, writer = os.pipe()
assert signals.write_without_sigpipe(writer, b"abc") == 3
assert os.read(reader, 10) == b"abc"
os.set_blocking(writer, False)
try:
    while True:
        signals.write_without_sigpipe(writer, bytes(4096))
except BlockingIOError:
    pass
os.close(reader)
before = signals.current_mask()
try:
    signals.write_without_sigpipe(writer, b"abc")
except BrokenPipeError:
    assert signals.current_mask() == before
    assert not signal.sigpending()
    print("broken")
"""


@pytest.mark.parametrize("way", ["as the kernel can", "masked"])
def test_it_is_an_error_and_no_signal(way: str) -> None:
    found = subprocess.run([sys.executable, "-c", WRITE, way], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "broken\n", "")
