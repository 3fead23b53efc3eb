import pytest
from mydocker_examples import priority

from mydocker import ConflictError, LimitError, UnsupportedLimit


def test_it_is_written_to_the_file_of_each_version(limit_journey):
    with limit_journey(priority, priority="high") as container:
        wanted = {"cpu.shares": "10240"} if container.version("cpu") == 1 else {"cpu.weight": "1000"}
        assert container.written == wanted
        assert container.attached("cpu")
        container.update(priority="low")
        assert "10" in container.read(*wanted)


def test_what_is_no_priority(limit_journey):
    with pytest.raises(LimitError, match='--priority: "urgent" is not a priority'):
        limit_journey(priority, priority="urgent")


@pytest.mark.cgroup_layout("v2")
def test_a_host_without_the_controller(limit_journey, fake_host):
    host = fake_host("v2", controllers=["memory"])
    with pytest.raises(UnsupportedLimit, match="no cpu controller"):
        limit_journey(priority, host=host, priority="low")
    with limit_journey(priority, host=host, priority="low", limits="best-effort") as container:
        assert container.written == {}
        assert "no cpu controller" in container.unenforced["priority"]


def test_two_limits_that_write_one_file(limit_journey):
    with pytest.raises(ConflictError, match="the plugins cpu and priority both write"):
        limit_journey(priority, "subsystems.cpu", priority="low", cpu_shares="512")
