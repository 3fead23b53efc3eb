"""The limit of tasks, by the fork that the kernel refuses."""

from __future__ import annotations

import os
import sys

import pytest

from subsystems import pids

pytestmark = pytest.mark.vm

# For each line: forks as long as it may, at most 50 in all; says how many children there are. They stay until the end.
FORK = """
import os, signal, sys, time
children = []
for line in sys.stdin:
    try:
        while len(children) < 50:
            child = os.fork()
            if not child:
                os.closerange(0, 3)  # so that nobody waits for the end of its output
                signal.pause()
            children.append(child)
    except BlockingIOError:
        pass
    print(len(children), flush=True)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""
THREADS = """
import threading
done = threading.Event()
started = 0
try:
    for started in range(20):
        threading.Thread(target=done.wait).start()
except RuntimeError:
    print(started)
done.set()
"""


@pytest.fixture
def limits(limited):
    return limited(pids)


class Forking:
    """A process that forks as often as it may, each time that it is asked."""

    def __init__(self, held):
        self.held = held
        self.pid = held.pid

    def children(self):
        self.held.process.stdin.write("\n")
        self.held.process.stdin.flush()
        return int(self.held.process.stdout.readline())


@pytest.fixture
def forking(hold):
    held = hold(sys.executable, "-Sc", FORK)
    held.process.stdin.write("\n")
    return Forking(held)


def test_the_fork_above_the_limit_is_refused_and_reported(limits, forking):
    config = limits.prepare(pids_limit="11")
    limits.attach(config, forking.held)
    assert forking.children() == 10
    usage = limits.usage(config)
    assert (usage["current_pids"], usage["refused_forks"], usage["limit_pids"]) == (11, 1, 11)
    assert usage.get("peak_pids", 11) == 11


def test_threads_count(limits, hold):
    assert limits.run(hold(sys.executable, "-Sc", THREADS), pids_limit="8") == (0, "7")


@pytest.mark.parametrize("text", ["-1", "0", "unlimited"])
def test_no_limit(limits, forking, text):
    config = limits.prepare(pids_limit=text)
    limits.attach(config, forking.held)
    assert forking.children() == 50
    usage = limits.usage(config)
    assert usage["refused_forks"] == 0
    assert "limit_pids" not in usage


def test_a_limit_is_raised_lowered_and_taken_away_while_the_container_runs(limits, forking):
    config = limits.prepare(pids_limit="5")
    limits.attach(config, forking.held)
    assert forking.children() == 4
    config = limits.update(config, forking, pids_limit="9")
    assert forking.children() == 8
    config = limits.update(config, forking, pids_limit="3")
    assert forking.children() == 8, "what runs goes on"
    config = limits.update(config, forking, pids_limit="-1")
    assert forking.children() == 50
    assert limits.usage(config)["refused_forks"] == 3


def test_a_container_without_a_limit_gets_one_while_it_runs(limits, forking):
    assert forking.children() == 50
    config = limits.update({}, forking, pids_limit="5")
    assert limits.usage(config)["current_pids"] == 51


def test_a_refusal_in_a_cgroup_that_the_container_nested_is_counted(limits, hold):
    config = limits.prepare(pids_limit="3")
    nested = f"{limits.cgroup.dirs[0]}/nested"
    enable = f"echo +pids > {limits.cgroup.dirs[0]}/cgroup.subtree_control;"
    script = f"mkdir {nested} && echo $$ > {nested}/cgroup.procs; {enable} (sleep 60 & sleep 60 & sleep 60) 2>&1"
    held = hold("sh", "-c", script if limits.cgroup.controller("pids").version == 2 else script.replace(enable, ""))
    limits.attach(config, held)
    held.process.stdin.write("\n")
    held.process.stdin.flush()
    assert "ork" in held.process.stdout.readline(), "cannot fork"
    assert limits.usage(config)["refused_forks"] >= 1
    limits.cgroup.kill()


def test_figures_without_a_limit(limits, hold):
    limits.account()
    held = hold("sleep", "60")
    limits.attach({}, held)
    assert limits.usage({})["current_pids"] == 1
    limits.cgroup.kill()
    held.process.wait()
    assert limits.usage({})["current_pids"] == 0


def test_figures_of_a_container_that_has_no_such_cgroup(limits):
    assert limits.usage({}) == {}
    assert not limits.cgroup.exists


def test_probe_names_files_that_a_container_really_has(layout, limits):
    limits.prepare(pids_limit="5")
    probe = pids.mydocker_probe(layout)
    assert (probe.problem, probe.version) == ("", layout.version("pids"))
    assert all(os.path.exists(limits.cgroup.controller("pids").filepath(name)) for name in probe.files)
