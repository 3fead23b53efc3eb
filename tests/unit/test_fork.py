"""A fork of a program with threads."""

from __future__ import annotations

import os
import signal
import threading
import time

from mydocker.linux import process

PATIENCE = 10.0


def test_a_fork_does_not_wait_for_threads_that_it_does_not_have() -> None:
    """While three threads want the interpreter's lock, three others fork a large program again and again."""
    ballast = b"x" * (300 << 20)  # its page tables take a while to copy: time in which the lock is asked for
    stop = threading.Event()
    waited_for: dict[int, float] = {}
    hung: list[int] = []

    def compute() -> None:
        while not stop.is_set():
            for _ in range(100_000):
                pass

    def fork() -> None:
        for _ in range(30):
            pid = process.fork()
            if pid == 0:
                for _ in range(20_000):
                    pass
                os._exit(0)
            waited_for[pid] = time.monotonic() + PATIENCE
            os.waitpid(pid, 0)
            del waited_for[pid]

    def kill_those_that_hang() -> None:
        while not stop.wait(0.1):
            for pid, end in list(waited_for.items()):
                if time.monotonic() > end:
                    hung.append(pid)
                    os.kill(pid, signal.SIGKILL)

    others = [threading.Thread(target=work) for work in (compute, compute, compute, kill_those_that_hang)]
    forking = [threading.Thread(target=fork) for _ in range(3)]
    for thread in others + forking:
        thread.start()
    for thread in forking:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    del ballast
    assert hung == []


def test_single_threaded_counts_every_thread() -> None:
    assert process.single_threaded() == (len(os.listdir("/proc/self/task")) == 1)
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    assert not process.single_threaded()
    go.set()
    thread.join()
