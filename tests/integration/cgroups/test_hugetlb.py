"""The limit of huge pages: by the page that the kernel refuses where it has some, and by its files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mydocker import UnsupportedLimit
from subsystems import hugetlb

pytestmark = pytest.mark.vm

SIZE = "2MB"
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")

# Maps one huge page after the other and writes to it; says how many it got.
TAKE = """
import mmap
MAP_HUGETLB, SIZE = 0x40000, 2 << 20
pages = []
try:
    while len(pages) < 6:
        pages.append(mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB))
        pages[-1][0] = 1
except OSError:
    pass
print(len(pages))
"""


@pytest.fixture
def limits(limited):
    return limited(hugetlb)


@pytest.fixture
def pages():
    """Eight huge pages in the pool: those of the machine, or in a virtual machine of the tests, some that are made."""
    pool = POOL / "nr_hugepages"
    if not POOL.is_dir():
        pytest.skip("this kernel has no huge pages of 2 MB")
    former = pool.read_text()
    if Path("/run/vm").is_dir():
        pool.write_text("8")
    free = int((POOL / "free_hugepages").read_text())
    if free < 8:
        pytest.skip(f"the pool of this machine has {free} free huge pages")
    yield free
    if Path("/run/vm").is_dir():
        pool.write_text(former)


def limit_of(limits, layout):
    suffix = "limit_in_bytes" if layout.version("hugetlb") == 1 else "max"
    controller = limits.cgroup.controller("hugetlb")
    return int(controller.get_property(f"hugetlb.{SIZE}.{suffix}"))


def test_the_page_above_the_limit_is_refused(limits, hold, pages):
    assert hold(sys.executable, "-Sc", TAKE).finish() == (0, "6")  # without a limit
    config = limits.prepare(hugetlb_limit=f"{SIZE}=4m")
    held = hold(sys.executable, "-Sc", TAKE)
    limits.attach(config, held)
    assert held.finish() == (0, "2")
    assert limits.usage(config)[SIZE]["current_bytes"] == 0


def test_an_update_lets_it_have_more(limits, hold, sleeper, pages):
    config = limits.prepare(hugetlb_limit=f"{SIZE}=0")
    limits.attach(config, sleeper)
    config = limits.update(config, sleeper, hugetlb_limit=f"{SIZE}=6m")
    held = hold(sys.executable, "-Sc", TAKE)
    limits.attach(config, held)
    assert held.finish() == (0, "3")


def test_the_value_is_in_the_kernels_file(limits, layout, sleeper):
    if layout.find("hugetlb") is None:
        with pytest.raises(UnsupportedLimit, match="no hugetlb controller"):
            limits.prepare(hugetlb_limit=f"{SIZE}=4m")
        return
    config = limits.prepare(hugetlb_limit=f"{SIZE}=4m")
    assert limit_of(limits, layout) == 4 << 20
    limits.attach(config, sleeper)
    assert limits.cgroup.path in sleeper.cgroups
    limits.update(config, sleeper, hugetlb_limit=f"{SIZE}=2m")
    assert limit_of(limits, layout) == 2 << 20
    assert limits.usage(config)[SIZE] == {**limits.usage(config)[SIZE], "current_bytes": 0, "limit_hits": 0}


def test_pages_that_this_kernel_has_not(limits):
    with pytest.raises(UnsupportedLimit, match=r"no pages of 3MB; it has pages of|no hugetlb controller"):
        limits.prepare(hugetlb_limit="3m=3m")
