"""The layout of this host as it really is."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.vm


def test_the_layout_shows_us_where_we_are(layout):
    seen = [found for found in layout.hierarchies if found.own]
    assert seen
    for found in seen:
        with open(f"{found.mountpoint}{found.own.rstrip('/')}/cgroup.procs") as procs:
            assert str(os.getpid()) in procs.read().split()


def test_the_real_controllers_have_files_of_their_own(layout, new_cgroup):
    files = {"memory": "memory.stat", "cpu": "cpu.stat", "cpuset": "cpuset.cpus", "pids": "pids.max"}
    cgroup = new_cgroup()
    for name in filter(layout.find, files):
        assert cgroup.controller(name).has(files[name])
        assert cgroup.controller(name).version == layout.version(name)


