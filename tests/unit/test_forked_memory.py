"""A child that gets a few pages of this process's memory, and does what a table says."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from mydocker.linux import batch, machine, process
from mydocker.linux.batch import Batch

_READ, _WRITE = 0, 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no machine code for this machine")
def test_a_child_of_no_interpreter_works_a_table_off() -> None:
    """It has what it was given of this process's memory, and nothing else."""
    places = machine.new_memory(4 * machine.PAGE)
    forks = machine.ForkedMemory()
    word, answer = os.pipe(), os.pipe()
    calls = Batch()
    came, into = calls.slot(), calls.slot()
    calls.call(_READ, word[0], places + 3 * machine.PAGE, 1, to=came)
    calls.call(_WRITE, into, b"hello", 5)
    calls.freeze(places)
    slots = places + 2 * machine.PAGE
    machine.put(slots + 8 * into, answer[1].to_bytes(8, "little"))
    page = batch.code_page()
    kept = [(places, places + 4 * machine.PAGE), (page, page + machine.PAGE), *machine.needed_by_kernel()]
    try:
        forks.keep_only(kept)
        pid, pidfd = process.clone_to_work_off(0, places, len(calls), slots)
        maps = Path(f"/proc/{pid}/maps").read_text()
        os.write(word[1], b"!")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125
        assert os.read(answer[0], 99) == b"hello"
        assert f"{places:x}-" in maps
        assert "libpython" not in maps and "[heap]" not in maps
    finally:
        forks.keep_all()
    child = os.fork()  # which has all of it again
    if child == 0:
        os._exit(len(str(sys.modules)) > 9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    for fd in (*word, *answer, pidfd):
        os.close(fd)
    machine.give_back(places, 4 * machine.PAGE)
