"""What a child would have of this thread is seen to be the same, or another."""

from __future__ import annotations

import os
import resource
import threading

import pytest

from mydocker.linux import batch, inherited, process


@pytest.fixture(params=["machine code", "one by one"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "one by one":
        monkeypatch.setattr(batch, "code_page", lambda: 0)
    elif not batch.code_page():
        pytest.skip("there is no machine code for this machine, or it may not be executed")


def in_a_thread(change: int) -> list[object]:
    """What a thread sees before and after it has left the namespaces of ``change``."""
    found: list[object] = []

    def body() -> None:
        found.append(inherited.look())
        process.unshare(change)
        found.append(inherited.look())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return found


def test_the_same_twice() -> None:
    assert inherited.look() == inherited.look()


@pytest.mark.parametrize("number", [resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_RTTIME])
def test_another_limit(number: int) -> None:
    before, (soft, hard) = inherited.look(), resource.getrlimit(number)
    try:
        other = 1234 if soft != 1234 else 1235
        resource.setrlimit(number, (other, hard))
        assert inherited.look() != before
    finally:
        resource.setrlimit(number, (soft, hard))
    assert inherited.look() == before


def test_another_cpu() -> None:
    whole = os.sched_getaffinity(0)
    if len(whole) < 2:
        pytest.skip("there is one CPU")
    before = inherited.look()
    try:
        os.sched_setaffinity(0, {min(whole)})
        assert inherited.look() != before
    finally:
        os.sched_setaffinity(0, whole)


@pytest.mark.parametrize("kind", [process.CLONE_NEWUTS, process.CLONE_NEWNET, process.CLONE_NEWCGROUP])
def test_another_namespace(kind: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("this takes root")
    before, after = in_a_thread(kind)
    assert before != after
    assert inherited.look() == before
