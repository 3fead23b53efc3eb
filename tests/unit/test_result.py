"""A Result's figures are worked out when somebody looks at them, and nobody sees that."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import pytest

from mydocker.result import Result, Usage, UsageLater

USAGE = Usage(cpu_user=1.5, memory_peak=7, plugins={"memory": {"peak_bytes": 7}})


def result(work: Callable[[], Usage]) -> Result:
    return Result(args=("true",), id="x", exit_code=0, usage=UsageLater(work))  # type: ignore[arg-type]


AT_ONCE = Result(args=("true",), id="x", exit_code=0, usage=USAGE)

WAYS: list[Callable[[Result], object]] = [
    lambda found: found.usage,
    lambda found: (found.cpu_user, found.cpu_system, found.memory_peak, found.oom_kills),
    lambda found: found == AT_ONCE,
    lambda found: AT_ONCE == found,  # noqa: SIM300
    lambda found: found != AT_ONCE,
    repr,
    lambda found: found.to_json(),
    lambda found: found.asdict(),
    lambda found: found.replace(id="y").usage,
    lambda found: pickle.loads(pickle.dumps(found)),
    copy.copy,
    copy.deepcopy,
]


@pytest.mark.parametrize("way", WAYS)
def test_whoever_looks_finds_what_is_there_at_once_in_others(way: Callable[[Result], object]) -> None:
    done: list[int] = []

    def work() -> Usage:
        done.append(1)
        return USAGE

    found = result(work)
    assert not done
    assert way(found) == way(AT_ONCE)
    assert done == [1]
    assert type(found.replace(id="y").usage) is Usage


def test_it_is_worked_out_once_for_all_that_have_it() -> None:
    done: list[int] = []

    def work() -> Usage:
        done.append(1)
        return USAGE

    found = result(work)
    other = found.replace(id="y")
    assert found.usage is found.usage
    assert other.usage is found.usage
    assert repr(found) == repr(AT_ONCE)
    assert done == [1]


def test_threads_get_the_same() -> None:
    together = threading.Barrier(4)

    def work() -> Usage:
        together.wait(30)
        return Usage()

    found = result(work)
    seen: list[Usage] = []
    threads = [threading.Thread(target=lambda: seen.append(found.usage)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert {id(usage) for usage in (*seen, found.usage)} == {id(found.usage)}


def test_interrupted_it_is_worked_out_by_the_next_who_looks() -> None:
    works = [KeyboardInterrupt, None]

    def work() -> Usage:
        error = works.pop(0)
        if error is not None:
            raise error
        return USAGE

    found = result(work)
    with pytest.raises(KeyboardInterrupt):
        found.usage  # noqa: B018
    assert found.usage == USAGE


def test_without_any_it_is_empty() -> None:
    assert Result(args=(), id="x", exit_code=0).usage == Usage()


def test_nobody_changes_it() -> None:
    with pytest.raises(AttributeError):
        AT_ONCE.usage = Usage()  # type: ignore[misc]


def test_it_can_be_hashed_no_more_than_what_is_in_it() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(AT_ONCE)
