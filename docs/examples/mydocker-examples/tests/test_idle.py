import pytest
from mydocker_examples import idle

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


def test_a_real_container(run_container):
    result = run_container(["sleep", "60"], idle="0.5s")
    assert (result.reason, result.notes) == ("idle", ("it used no CPU for 0.5 seconds",))
