import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from mydocker_examples import idle

import mydocker
from mydocker import Verdict


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    time = [0.0]
    monkeypatch.setattr(idle, "now", lambda: time[0])
    return time


def use_cpu(container, seconds):
    if container.version("cpu") == 1:
        container.report("cpuacct.usage", int(seconds * 1e9))
    else:
        container.report("cpu.stat", {"usage_usec": int(seconds * 1e6)})


def test_it_stops_what_does_nothing_and_leaves_what_works(limit_journey, clock):
    with limit_journey(idle, idle="10s") as container:
        assert container.look() == [1.0]
        clock[0] = 9.9
        use_cpu(container, 1)
        container.look()
        clock[0] = 19
        assert container.look() == [pytest.approx(0.9)]
        clock[0] = 20
        assert container.look() == [Verdict.stop("idle", "it used no CPU for 10 seconds")]


def test_a_paused_container_is_not_idle(run_container, tmp_path):
    name, runs = f"test-idle-{os.getpid()}", tmp_path / "runs"
    with ThreadPoolExecutor() as others:
        running = others.submit(run_container, ["sh", "-c", f"echo >{runs}; exec sleep 60"], idle="2s", name=name)
        while not runs.exists() and not running.done():
            time.sleep(0.01)
        mydocker.pause(name)
        time.sleep(3)
        mydocker.unpause(name)
        result = running.result()
    assert result.reason == "idle"
    assert result.wall_seconds > 4


def test_a_real_container(run_container):
    result = run_container(["sleep", "60"], idle="0.5s")
    assert (result.reason, result.notes) == ("idle", ("it used no CPU for 0.5 seconds",))
