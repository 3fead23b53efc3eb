import resource

import pytest
from mydocker_examples import stack

from mydocker import LimitError


def test_the_process_has_it(limit_journey):
    with limit_journey(stack, stack="1m") as container:
        assert resource.prlimit(container.pid, resource.RLIMIT_STACK) == (1 << 20, 1 << 20)


def test_too_little(limit_journey):
    with pytest.raises(LimitError, match="--stack: 4k is less than"):
        limit_journey(stack, stack="4k")


def test_a_real_container(run_container):
    assert run_container(["sh", "-c", "ulimit -s"], stack="1m").stdout == "1024\n"
