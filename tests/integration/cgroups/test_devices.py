"""Rules for devices, by what a process may open; and how an update changes them."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from mydocker import ResourceConfig
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout
from subsystems import devices

pytestmark = pytest.mark.vm

# For each line, PATH MODE: whether it may be opened so.
OPEN = """
import os, sys
for line in sys.stdin:
    path, mode = line.split()
    try:
        os.close(os.open(path, {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[mode]))
        print("opened", flush=True)
    except OSError as e:
        print(os.strerror(e.errno), flush=True)
"""
REFUSED = "Operation not permitted"


@pytest.fixture(params=["all hierarchies", "v2 alone"] if Layout.read().kind == "hybrid" else ["all hierarchies"])
def layout(request):
    """The host as it is, and a hybrid one as if it had no v1: then a program decides."""
    found = Layout.read()
    if request.param == "all hierarchies":
        return found
    return Layout.of(hierarchy for hierarchy in found.hierarchies if hierarchy.version == 2)


@pytest.fixture
def limits(limited):
    return limited(devices)


class Opening:
    """A process that tries to open what it is told."""

    def __init__(self, held):
        self.held = held
        held.process.stdin.write("\n")

    def tries(self, path, mode="rw"):
        self.held.process.stdin.write(f"{path} {mode}\n")
        self.held.process.stdin.flush()
        return self.held.process.stdout.readline().strip()


@pytest.fixture
def opening(hold):
    return Opening(hold(sys.executable, "-Sc", OPEN))


@pytest.fixture
def node(tmp_path):
    """A device that is not among the defaults, and that opens on any host: /dev/fuse."""
    path = tmp_path / "fuse"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(10, 229))
    except PermissionError:
        pytest.skip("this machine does not let root make device nodes")
    return path


DEFAULTS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def test_what_is_named_and_the_defaults_are_allowed(limits, opening, node):
    assert opening.tries(node) == "opened"  # without a limit
    config = limits.prepare(device_cgroup_rule="c 10:229 rw")
    limits.attach(config, opening.held)
    assert [opening.tries(path) for path in (node, *DEFAULTS)] == ["opened"] * 6


def test_others_are_refused(limits, opening, node):
    config = limits.prepare(device_cgroup_rule="c 10:200 rwm")
    limits.attach(config, opening.held)
    assert opening.tries(node, "r") == REFUSED
    assert opening.tries(node, "w") == REFUSED
    assert opening.tries("/dev/null") == "opened"


@pytest.mark.parametrize(
    ("rule", "modes"),
    [
        ("c 10:229 r", {"r"}),
        ("c 10:229 w", {"w"}),
        ("c 10:* rw", {"r", "w", "rw"}),
        ("c *:229 rw", {"r", "w", "rw"}),
        ("a *:* rwm", {"r", "w", "rw"}),
        ("a 10:229 rw", {"r", "w", "rw"}),
        ("b 10:229 rw", set()),
        ("c 10:228 rw", set()),
        ("c 11:229 rw", set()),
        ("c 10:229 m", set()),
    ],
)
def test_how_a_device_may_be_opened(limits, opening, node, rule, modes):
    config = limits.prepare(device_cgroup_rule=rule)
    limits.attach(config, opening.held)
    assert {mode for mode in ("r", "w", "rw") if opening.tries(node, mode) == "opened"} == modes


def test_a_device_is_allowed_by_its_path(limits, opening, node):
    config = limits.prepare(device=f"{node}:/dev/x:r")
    limits.attach(config, opening.held)
    assert opening.tries(node, "r") == "opened"
    assert opening.tries(node, "w") == REFUSED


def test_an_update_gives_and_takes(limits, opening, node):
    config = limits.prepare(device_cgroup_rule="c 10:200 rw")
    limits.attach(config, opening.held)
    config = limits.update(config, opening.held, device_cgroup_rule="c 10:229 rw")
    assert opening.tries(node) == "opened"
    config = limits.update(config, opening.held, device_cgroup_rule="c 10:229 r")
    assert opening.tries(node, "r") == "opened"
    assert opening.tries(node, "w") == REFUSED
    limits.update(config, opening.held, device_cgroup_rule="c 10:200 rw")
    assert opening.tries(node, "r") == REFUSED
    assert opening.tries("/dev/null") == "opened"


def test_an_update_of_a_container_without_rules(limits, opening, node):
    limits.update(ResourceConfig(), opening.held, device_cgroup_rule="c 10:200 rw")
    assert opening.tries(node) == REFUSED
    assert opening.tries("/dev/null") == "opened"


@pytest.mark.parametrize("first", ["c 10:200 rw", "c 10:229 rw", ""])
def test_an_update_that_another_limit_fails_is_undone(limits, opening, node, layout, first):
    config = limits.prepare(device_cgroup_rule=first) if first else ResourceConfig()
    if first:
        limits.attach(config, opening.held)
    before = opening.tries(node)
    opened = ContainerCgroup.opened(layout, limits.cgroup.path, opening.held.pid)
    opened.begin_update()
    rule = devices.parse_rule("c 10:200 rw" if first != "c 10:200 rw" else "c 10:229 rw")
    changed = ResourceConfig({"device_cgroup_rule": (rule,)})
    devices.mydocker_update(changed, config, opened.for_plugin("devices"), opening.held.pid)
    assert opening.tries(node) != before
    assert opened.undo() == []
    limits.cgroup.adopt()
    assert opening.tries(node) == before
    assert opening.tries("/dev/null") == "opened"


def test_rules_hold_for_cgroups_that_the_container_makes(limits, opening, node, layout):
    config = limits.prepare(device_cgroup_rule="c 10:200 rw")
    limits.attach(config, opening.held)
    controller = limits.cgroup.controller("devices" if layout.find("devices") else "cgroup")
    os.mkdir(f"{controller.path}/inner")
    with open(f"{controller.path}/inner/cgroup.procs", "w") as procs:
        procs.write(str(opening.held.pid))
    assert opening.tries(node) == REFUSED
    limits.update(config, opening.held, device_cgroup_rule="c 10:229 r")
    if layout.find("devices"):
        # v1: an exception of a parent is one that the child may have, not one that it has (devices.rst, 4).
        assert opening.tries(node, "r") == REFUSED
    else:
        assert opening.tries(node, "r") == "opened"
    assert opening.tries("/dev/null") == "opened"
