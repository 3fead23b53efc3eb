"""Any file of cgroup v2: by what it does, and what is refused."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from mydocker import CgroupError, LimitError, UnsupportedLimit
from subsystems import cgroup_conf

pytestmark = pytest.mark.vm

FORK = """
import os, signal
children = []
try:
    while len(children) < 20:
        child = os.fork()
        if not child:
            signal.pause()
        children.append(child)
except BlockingIOError:
    pass
print(len(children))
for child in children:
    os.kill(child, signal.SIGKILL)
"""


@pytest.fixture
def limits(limited, layout):
    return limited(cgroup_conf)


@pytest.fixture
def _needs_v2(layout):
    if layout.find("cgroup") is None:
        pytest.skip("this host has no cgroup v2: see test_a_host_without_v2")


def test_a_file_of_a_controller(limits, hold, layout):
    if layout.version("pids") == 2:
        assert limits.run(hold(sys.executable, "-Sc", FORK), cgroup_conf="pids.max=6") == (0, "5")
    else:
        words = "pids is on v1 here" if layout.find("cgroup") else "this host has v1 only"
        with pytest.raises(UnsupportedLimit, match=words) as caught:
            limits.prepare(cgroup_conf="pids.max=6")
        assert caught.value.field == "cgroup_conf"


@pytest.mark.usefixtures("_needs_v2")
def test_a_file_of_the_cgroup_itself(limits, sleeper):
    config = limits.prepare(cgroup_conf="cgroup.max.descendants=1")
    limits.attach(config, sleeper)
    directory = limits.cgroup.controller("cgroup").path
    os.mkdir(f"{directory}/one")
    with pytest.raises(OSError) as caught:
        os.mkdir(f"{directory}/two")
    assert caught.value.errno == errno.EAGAIN
    limits.update(config, sleeper, cgroup_conf="cgroup.max.descendants=2")
    os.mkdir(f"{directory}/two")


@pytest.mark.usefixtures("_needs_v2")
@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("cgroup.procs=1", LimitError, "is mydocker's own"),
        ("cgroup.freeze=1", LimitError, "is mydocker's own"),
        ("cgroup.events=1", LimitError, r"can only be read; what can be written is .*cgroup\.max\.depth"),
        ("cgroup.nothing=1", UnsupportedLimit, r"cgroup\.nothing: no such file or directory: there is .*cgroup\.max"),
        ("nothing.max=1", UnsupportedLimit, "the requested cgroup controller `nothing` is not available; v2 has"),
        ("cgroup.max.depth=deep", CgroupError, r"--cgroup-conf cgroup\.max\.depth: cannot write \"deep\""),
    ],
)
def test_what_is_refused(limits, text, kind, words):
    with pytest.raises(kind, match=words):
        limits.prepare(cgroup_conf=text)


def test_a_host_without_v2(limits, layout):
    if layout.find("cgroup") is not None:
        pytest.skip("this host has cgroup v2")
    with pytest.raises(UnsupportedLimit, match=r"memory\.high is a file of cgroup v2, and this host has v1 only"):
        limits.prepare(cgroup_conf="memory.high=1")
