"""Threads that serve one phase of hooks after another."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from mydocker import PluginError
from mydocker.crew import Crew
from mydocker.hooks import Phase


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


def native(_: Phase) -> int:
    return threading.get_native_id()


def test_one_serves_again_and_ends_with_the_crew(crew: Crew) -> None:
    first = crew.supervised(native)
    assert crew.supervised(native) == first
    assert first != threading.get_native_id()
    crew.close()
    assert not os.path.exists(f"/proc/self/task/{first}")


def test_as_many_as_are_at_work_at_once(crew: Crew) -> None:
    together = threading.Barrier(3)
    threads = [threading.Thread(target=crew.supervised, args=(lambda _: together.wait(10),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken


def test_what_it_raises_is_raised_and_it_serves_again(crew: Crew) -> None:
    def fail(_: Phase) -> None:
        raise LookupError(str(threading.get_native_id()))

    with pytest.raises(LookupError) as caught:
        crew.supervised(fail)
    assert crew.supervised(native) == int(str(caught.value))


def test_one_that_hangs_is_an_error_and_serves_no_more(crew: Crew) -> None:
    go, used = threading.Event(), []

    def hang(phase: Phase) -> None:
        used.append(threading.get_native_id())
        phase.begin("plugin x was called in y")
        go.wait()

    with pytest.raises(PluginError, match="plugin x was called in y and did not return"):
        crew.supervised(hang, 0.05)
    assert crew.supervised(native) not in used
    go.set()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/self/task/{used[0]}") and time.monotonic() < end:
        time.sleep(0.001)
    assert not os.path.exists(f"/proc/self/task/{used[0]}")


@pytest.mark.parametrize("what", ["host name", "signal mask", "cpus", "niceness"])
def test_what_a_hook_does_to_its_thread_ends_with_it(crew: Crew, what: str) -> None:
    def change(_: Phase) -> int:
        if what == "host name":
            from mydocker.linux import process

            process.unshare(process.CLONE_NEWUTS)
        elif what == "signal mask":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        elif what == "cpus":
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        else:
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + 1)
        return threading.get_native_id()

    if what == "host name" and os.geteuid() != 0:
        pytest.skip("only root makes a namespace of its own")
    changed = crew.supervised(change)
    assert crew.supervised(native) != changed


def test_a_fork_has_none_of_the_threads(crew: Crew) -> None:
    crew.supervised(native)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if crew.supervised(native) else 1
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
