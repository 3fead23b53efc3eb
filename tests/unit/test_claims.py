"""The table by which what dead runtimes have left is found: what it costs, and that no moment of a kill escapes it."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mydocker import claims, state
from mydocker.errors import CgroupError


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "state")


class Runtimes:
    """Makes processes that hold containers until they are killed."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.pids: list[int] = []

    def __call__(self, *names: str) -> int:
        """A new one that holds these containers."""
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(ready)
                for name in names:
                    state.claim(name, self._root).write(state.Record(id=name, runtime=os.getpid()))
                os.write(tell, b"x")
                signal.pause()
            finally:
                os._exit(1)
        os.close(tell)
        self.pids.append(pid)
        assert os.read(ready, 1) == b"x"
        os.close(ready)
        return pid

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.pids.remove(pid)


@pytest.fixture
def runtimes(root: str) -> Iterator[Runtimes]:
    found = Runtimes(root)
    yield found
    for pid in list(found.pids):
        found.kill(pid)


def calls_of(work: Callable[[], object]) -> list[str]:
    """The functions of the operating system that ``work`` calls."""
    names: list[str] = []

    def note(_frame: object, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__module__", "") in ("posix", "fcntl", "io", "_io"):
            names.append(function.__name__)  # type: ignore[attr-defined]

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return names


def one_container(root: str) -> None:
    state.recover(root)
    claim = state.claim("mine", root)
    claim.write(state.Record(id="mine", runtime=os.getpid()))
    claim.release()


def test_a_thousand_containers_of_one_process_cost_what_one_costs(root: str, runtimes: Runtimes) -> None:
    runtimes("first")
    with_one = calls_of(lambda: one_container(root))
    runtimes(*(f"other{number}" for number in range(1000)))
    assert sorted(calls_of(lambda: one_container(root))) == sorted([*with_one, "fcntl"])


def test_each_further_process_is_one_question(root: str, runtimes: Runtimes) -> None:
    runtimes("first")
    with_one = calls_of(lambda: one_container(root))
    for number in range(30):
        runtimes(f"other{number}")
    assert sorted(calls_of(lambda: one_container(root))) == sorted([*with_one, *["fcntl"] * 30])


def test_of_very_many_processes_a_call_asks_about_some_and_the_next_ones_about_the_others(
    root: str, runtimes: Runtimes
) -> None:
    runtimes("first")
    with_one = calls_of(lambda: one_container(root))
    pids = [runtimes(f"other{number}") for number in range(100)]
    for _ in range(4):
        assert calls_of(lambda: one_container(root)).count("fcntl") < with_one.count("fcntl") + 33
    dead = [0, 31, 32, 50, 99]
    for number in dead:
        runtimes.kill(pids[number])
    found = [name for _ in range(4) for name in state.recover(root)]
    assert sorted(found) == sorted(f"other{number}" for number in dead)
    for pid in list(runtimes.pids):
        runtimes.kill(pid)
    assert len(state.recover(root)) == 96  # all the dead at once, as long as few live
    assert not os.path.exists(f"{root}/{claims.FILE}")


def test_containers_of_engines_cost_a_run_nothing(root: str, runtimes: Runtimes) -> None:
    runtimes("first")
    with_one = calls_of(lambda: one_container(root))
    for number in range(100):
        claim = state.make(f"engine{number}", root)
        claim.write(state.Record(id=claim.id, runtime=1, oci={"bundle": "/"}))
        claim.close()
    assert calls_of(lambda: one_container(root)) == with_one


def test_one_named_container_is_found_without_a_look_at_the_others(root: str, runtimes: Runtimes) -> None:
    runtimes("first")
    alone = calls_of(lambda: state.running_of(["first"], root))
    runtimes(*(f"other{number}" for number in range(100)))
    assert calls_of(lambda: state.running_of(["first"], root)) == alone
    assert {record.id for record in state.running_of(["other7", "first", "none"], root)} == {"first", "other7"}


def test_of_many_the_dead_ones_are_found(root: str, runtimes: Runtimes) -> None:
    pids = [runtimes(*(f"c{process}-{number}" for number in range(process))) for process in range(1, 8)]
    for process in (2, 5, 7):
        runtimes.kill(pids[process - 1])
    assert sorted(state.recover(root)) == sorted(f"c{p}-{number}" for p in (2, 5, 7) for number in range(p))
    assert state.recover(root) == []
    assert len(state.running(root)) == 1 + 3 + 4 + 6


def test_lines_of_the_dead_are_used_again(root: str, runtimes: Runtimes) -> None:
    runtimes("first")
    for _ in range(5):
        runtimes.kill(runtimes("gone", "too"))
        state.recover(root)
    assert Path(root, claims.FILE).stat().st_size <= 4 * 128


@pytest.mark.parametrize("others", [0, 1])
def test_killed_at_each_step(root: str, runtimes: Runtimes, others: int) -> None:
    """Of making, noting and giving up a container: the next call leaves nothing, and takes nothing from others."""
    if others:
        runtimes("other")
    one_container(root)
    steps = len(calls_of(lambda: one_container(root)))
    for at in range(1, steps + 1):
        pid = os.fork()
        if pid == 0:
            killed_at(at, lambda: one_container(root))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        state.recover(root)
        assert os.path.exists(root) == bool(others) or os.listdir(root) == [], at
        assert [record.id for record in state.running(root)] == ["other"] * others
        state.claim("mine", root).release()
    if others:
        assert sorted(os.listdir(root)) == sorted(["other", claims.FILE])


def test_killed_while_it_removes_what_another_has_left(root: str, runtimes: Runtimes) -> None:
    runtimes("other")
    runtimes.kill(runtimes("gone"))
    steps = len(calls_of(lambda: state.recover(root)))
    for at in range(1, steps + 1):
        runtimes.kill(runtimes("gone"))
        pid = os.fork()
        if pid == 0:
            killed_at(at, lambda: state.recover(root))
        os.waitpid(pid, 0)
        state.recover(root)
        assert sorted(os.listdir(root)) == sorted(["other", claims.FILE]), at


def killed_at(at: int, work: Callable[[], object]) -> None:
    """Do ``work`` in this process, which is killed before its call number ``at`` of the operating system."""
    count = 0

    def note(_frame: object, event: str, function: object) -> None:
        nonlocal count
        if event == "c_call" and getattr(function, "__module__", "") in ("posix", "fcntl", "io", "_io"):
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.setprofile(note)
        work()
    finally:
        os._exit(0)


def test_a_name_in_use_leaves_that_container_to_whom_it_belongs(root: str, runtimes: Runtimes) -> None:
    """A runtime is killed between the line with the name and the directory, which is another's."""
    runtimes("web")
    pid = os.fork()
    if pid == 0:
        try:
            claims.enter(root, "web")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert state.recover(root) == []
    assert [record.id for record in state.running(root)] == ["web"]
    runtimes.kill(runtimes.pids[0])
    assert state.recover(root) == ["web"]
    assert os.listdir(root) == []


def test_an_engine_s_container_of_that_name_is_left_alone(root: str) -> None:
    claim = state.make("web", root)
    claim.write(state.Record(id="web", runtime=1, oci={"bundle": "/"}))
    claim.close()
    pid = os.fork()
    if pid == 0:
        try:
            claims.enter(root, "web")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert state.recover(root) == []
    assert os.listdir(root) == ["web"]


def test_without_the_table_a_name_is_free_all_the_same(root: str, runtimes: Runtimes) -> None:
    runtimes.kill(runtimes("web"))
    os.unlink(f"{root}/{claims.FILE}")
    state.claim("web", root).release()
    assert not os.path.exists(root)


def test_what_cannot_be_removed_is_tried_again(
    root: str, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: str) -> None:
        raise CgroupError("busy")

    runtimes.kill(runtimes("gone"))
    claim = state.claim("left", root)
    claim.unfinished = True
    claim.release()
    with monkeypatch.context() as patched:
        patched.setattr(state, "_remove_leftover", refuse)
        assert state.recover(root) == []
    assert sorted(state.recover(root)) == ["gone", "left"]
    assert os.listdir(root) == []


def test_a_recovery_does_not_take_its_own_process_for_dead(root: str) -> None:
    """And the file that it closes does not take the locks of the process with it."""
    claim = state.claim("mine", root)
    assert state.recover(root) == []
    pid = os.fork()
    if pid == 0:
        os._exit(len(state.recover(root)))
    assert os.waitpid(pid, 0)[1] == 0
    claim.release()
    assert not os.path.exists(root)


def test_a_fork_of_a_runtime_does_not_keep_its_line(root: str) -> None:
    os.mkdir(root)
    entry = claims.enter(root, "mine")
    pid = os.fork()
    if pid == 0:
        dead: list[str] = []
        claims.recover(root, lambda name: bool(dead.append(name)))
        os._exit(len(dead))
    assert os.waitpid(pid, 0)[1] == 0
    entry.leave()


def test_threads_have_lines_of_their_own(root: str) -> None:
    failed: list[BaseException] = []

    def many(number: int) -> None:
        order = random.Random(number)
        held: list[state.Claim] = []
        try:
            for step in range(60):
                if held and order.random() < 0.5:
                    held.pop(order.randrange(len(held))).release()
                else:
                    held.append(state.claim(f"c{number}-{step}", root))
                assert state.recover(root) == []
        except BaseException as e:
            failed.append(e)
        finally:
            for claim in held:
                claim.release()

    threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert not os.path.exists(root)
