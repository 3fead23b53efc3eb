"""A container's cgroups on a real kernel: made when asked for, shared by plugins, gone afterwards whatever happened."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import uuid

import pytest

import mydocker
from mydocker import CgroupError, ConflictError, MydockerError
from mydocker.cgroups import group as group_module
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.removal import remove_stale

pytestmark = pytest.mark.vm

# Controllers that every layout of the tests has, on whichever version.
SOME = ("memory", "cpu", "pids")

#: Seconds after which what does not happen never will.
PATIENCE = 60


def directories_named(layout, name):
    return [path for found in layout.hierarchies if os.path.isdir(path := f"{found.base}/{name}")]


def nest(directory, *names):
    for name in names:
        directory = f"{directory}/{name}"
        os.mkdir(directory)
    return directory


def move(pid, directory):
    with open(f"{directory}/cgroup.procs", "w") as procs:
        procs.write(str(pid))


def in_hierarchy(text, layout, controller):
    """The line of /proc/PID/cgroup for the hierarchy of ``controller``."""
    found = layout.require(controller)
    key = "" if found.version == 2 else ",".join(found.controllers)
    return next(line.split(":", 2)[2] for line in text.splitlines() if line.split(":")[1] == key)


def test_nothing_is_made_until_a_controller_is_asked_for(layout, cgroup):
    cgroup.for_plugin("a").pids()
    cgroup.kill()
    cgroup.remove()
    assert not cgroup.exists
    assert directories_named(layout, cgroup.path) == []


def test_one_directory_in_each_hierarchy_that_is_asked_for(layout, cgroup):
    for name in SOME:
        cgroup.controller(name)
    wanted = {f"{layout.require(name).base}/{cgroup.path}" for name in SOME}
    assert set(cgroup.dirs) == wanted == set(directories_named(layout, cgroup.path))
    cgroup.remove()
    assert directories_named(layout, cgroup.path) == []
    cgroup.remove()


def test_parents_that_were_missing_go_again_and_others_stay(layout, new_cgroup):
    parent = f"mydocker/parent-{uuid.uuid4().hex[:12]}"
    keeper = new_cgroup(parent)
    keeper.controller("pids")
    other = new_cgroup(f"{parent}/deeper")
    other.controller("pids")
    other.remove()
    assert directories_named(layout, f"{parent}/deeper") == []
    assert directories_named(layout, keeper.path)
    keeper.remove()
    assert directories_named(layout, parent) == []


def test_a_cgroup_that_exists_is_not_taken_over(layout, cgroup):
    cgroup.controller("pids")
    with pytest.raises(CgroupError, match="exists already"):
        ContainerCgroup(layout, cgroup.path).controller("pids")
    assert cgroup.controller("pids").has("cgroup.procs")


def test_a_run_leaves_a_cgroup_of_its_name_alone_that_it_has_not_made(layout, new_cgroup, sleeper):
    name = f"taken-{uuid.uuid4().hex[:12]}"
    others = new_cgroup(f"mydocker/{name}")
    others.attach("pids", sleeper.pid)
    with pytest.raises(CgroupError, match=r"exists already.*rmdir"):
        mydocker.run(["true"], name=name, pids_limit=5)
    assert others.pids() == [sleeper.pid]
    others.remove()
    assert mydocker.run(["true"], name=name, pids_limit=5).exit_code == 0


WITHOUT_PACKAGE = """
import os, sys, threading, time
import mydocker
directory, name, end, patience = sys.argv[1:]
package = os.path.dirname(mydocker.__file__)
assert package.startswith(os.environ["PYTHONPATH"]), "not the copy"
def disturb():
    last = time.monotonic() + float(patience)
    # By its last function: it is in the table of modules before its code has run.
    while not hasattr(sys.modules.get("mydocker.cgroups.contents"), "processes") and time.monotonic() < last:
        time.sleep(0.01)
    try:
        os.makedirs(f"{directory}/nested/deeper")
        os.rename(package, f"{package}.gone")
    finally:
        open(end, "w").close()
thread = threading.Thread(target=disturb)
thread.start()
result = mydocker.run(["sh", "-c", f"until [ -e {end} ]; do sleep 0.1; done"], name=name, pids_limit=50)
thread.join()
assert os.path.isdir(f"{package}.gone") and (result.exit_code, result.notes) == (0, ()), result
"""


def test_a_run_ends_well_though_the_package_was_replaced_meanwhile(layout, tmp_path):
    shutil.copytree(os.path.dirname(mydocker.__file__), tmp_path / "mydocker")
    name = f"replaced-{uuid.uuid4().hex[:12]}"
    place, end = f"{layout.require('pids').base}/mydocker/{name}", tmp_path / "end"
    command = [sys.executable, "-P", "-c", WITHOUT_PACKAGE, place, name, end, str(PATIENCE)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert directories_named(layout, f"mydocker/{name}") == []


def test_attaching_moves_the_process_and_its_later_children(layout, cgroup, hold):
    shell = hold("sh", "-c", "cat /proc/self/cgroup")
    for name in SOME:
        cgroup.attach(name, shell.pid)
    assert cgroup.pids() == [shell.pid]
    _, text = shell.finish()
    for name in SOME:
        assert in_hierarchy(text, layout, name).endswith(f"/{cgroup.path}")


def test_attaching_twice_does_no_harm(layout, cgroup, sleeper):
    cgroup.for_plugin("a").attach("cpu", sleeper.pid)
    nested = nest(cgroup.dirs[0], "nested") if layout.version("cpu") == 1 else ""
    if nested:
        move(sleeper.pid, nested)  # what a second write to cgroup.procs would undo
    cgroup.for_plugin("b").attach("cpu", sleeper.pid)
    assert in_hierarchy(sleeper.cgroups, layout, "cpu").endswith(cgroup.path + ("/nested" if nested else ""))


def test_attaching_a_process_that_has_ended_is_an_error(cgroup, sleeper):
    sleeper.finish()
    with pytest.raises(CgroupError, match=r"cgroup\.procs: No such process"):
        cgroup.attach("pids", sleeper.pid)


def test_a_child_that_goes_in_by_itself_is_attached(layout, cgroup):
    for name in SOME:
        cgroup.controller(name)
    entrances = cgroup.open_entrances()
    assert len(entrances) == len({directory for directory in cgroup.dirs if os.path.exists(f"{directory}/tasks")})
    ready, inside = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for fd in entrances:
                os.write(fd, b"0")
            os.write(inside, b"!")
            time.sleep(600)
        finally:
            os._exit(1)
    os.close(inside)
    try:
        assert os.read(ready, 1) == b"!"
        cgroup.entered(pid)
        with open(f"/proc/{pid}/cgroup") as file:
            text = file.read()
        for name in SOME:
            if layout.version(name) == 1:
                assert in_hierarchy(text, layout, name).endswith(f"/{cgroup.path}")
            cgroup.attach(name, pid)
        assert cgroup.pids() == [pid]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        for fd in (*entrances, ready):
            os.close(fd)


def test_a_child_that_did_not_go_in_is_still_attached_from_outside(layout, cgroup, sleeper):
    cgroup.controller("pids")
    cgroup.entered(sleeper.pid)
    cgroup.attach("pids", sleeper.pid)
    assert in_hierarchy(sleeper.cgroups, layout, "pids").endswith(f"/{cgroup.path}")


def test_two_plugins_that_write_one_file_conflict_and_the_second_value_is_not_written(cgroup):
    first, second = (cgroup.for_plugin(name).controller("pids") for name in ("first", "second"))
    first.max = 10
    first.max = 11
    with pytest.raises(ConflictError, match=rf"first and second both write {first.path}/pids\.max"):
        second.max = 12
    assert first.max == 11
    assert second.max == 11


def test_two_plugins_may_write_two_files_of_one_controller(cgroup):
    version = cgroup.controller("cpu").version
    cgroup.for_plugin("weight").controller("cpu").set_property("cpu.shares" if version == 1 else "cpu.weight", 300)
    cgroup.for_plugin("bound").controller("cpu").set_property(
        "cpu.cfs_quota_us" if version == 1 else "cpu.max", 50000
    )


def test_kill_ends_what_runs_inside_and_in_nested_cgroups(cgroup, hold):
    outer, inner = hold("true"), hold("true")
    cgroup.attach("cpu", outer.pid)
    deep = nest(cgroup.dirs[0], "a", "b")
    if os.path.exists(f"{deep}/cgroup.type"):
        # v2: the container's own cgroup already gives nothing to its children, so both may hold processes
        assert not cgroup.controller("cpu").get_property("cgroup.subtree_control")
    move(inner.pid, deep)
    assert sorted(cgroup.pids()) == sorted([outer.pid, inner.pid])
    cgroup.kill()
    assert cgroup.pids() == []
    assert [held.process.wait() for held in (outer, inner)] == [-9, -9]
    assert cgroup.exists


def test_kill_ends_what_is_frozen(layout, cgroup, sleeper):
    if layout.find("freezer"):
        cgroup.controller("freezer").state = "FROZEN"
        cgroup.attach("freezer", sleeper.pid)
    elif layout.version("pids") == 2:
        cgroup.attach("pids", sleeper.pid)
        cgroup.controller("cgroup").freeze = True
    else:
        pytest.skip("no freezer here")
    cgroup.kill()
    assert sleeper.process.wait() == -9


def test_remove_takes_running_processes_and_nested_cgroups_with_it(layout, cgroup, hold):
    outer, inner = hold("true"), hold("true")
    for name in SOME:
        cgroup.attach(name, outer.pid)
    for directory in cgroup.dirs:
        nest(directory, "x")
        deep = nest(directory, "y", "z")
        move(inner.pid, deep)
    cgroup.remove()
    assert directories_named(layout, cgroup.path) == []
    assert [held.process.wait() for held in (outer, inner)] == [-9, -9]


def test_remove_reaches_deeper_than_a_path_can_name(layout, cgroup):
    cgroup.controller("pids")
    here = os.open(cgroup.dirs[0], os.O_RDONLY)
    name = "d" * 200
    for _ in range(30):  # 6000 bytes of path, and PATH_MAX is 4096
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    cgroup.remove()
    assert directories_named(layout, cgroup.path) == []


def test_what_a_killed_runtime_left_is_removed_by_its_name(layout, new_cgroup, sleeper):
    left = new_cgroup()
    left.controller("memory")
    left.attach("pids", sleeper.pid)
    remove_stale(layout, left.path)
    assert sleeper.process.wait() == -9
    assert directories_named(layout, left.path) == []
    remove_stale(layout, left.path)


def test_the_common_parent_survives_runs_that_come_and_go(layout, monkeypatch):
    """Each run removes the common parent when it finds it empty, while others are about to use it."""
    parent = f"mydocker-test-{uuid.uuid4().hex[:12]}"
    monkeypatch.setattr(group_module, "DEFAULT_PARENT", parent)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=come_and_go, args=(layout, parent, number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert directories_named(layout, parent) == []


def come_and_go(layout, parent, number):
    names = [name for name in (*SOME, "cpuset") if layout.find(name)]
    for turn in range(15):
        deeper = "/deeper" * (turn % 3 == 0)
        cgroup = ContainerCgroup(layout, f"{parent}{deeper}/{number}-{turn}")
        try:
            for name in names:
                cgroup.controller(name)
            cgroup.attach("cpuset", os.getpid())
            for found in layout.hierarchies:
                if found in map(layout.find, names):
                    move(os.getpid(), f"{found.mountpoint}{found.own.rstrip('/')}")
        finally:
            cgroup.remove()


def test_v1_a_new_cpuset_has_the_cpus_of_those_above(layout, new_cgroup, sleeper):
    if layout.version("cpuset") != 1:
        pytest.skip("v1 only: a v2 cpuset without CPUs of its own uses those above it")
    parent = f"mydocker/parent-{uuid.uuid4().hex[:12]}"
    above = layout.root("cpuset")
    cpuset = new_cgroup(parent).controller("cpuset")
    assert (cpuset.cpus, cpuset.mems) == (above.cpus, above.mems)
    cpuset.cpus = {min(above.cpus)}
    sibling = new_cgroup(parent)
    assert sibling.controller("cpuset").cpus == above.cpus
    sibling.attach("cpuset", sleeper.pid)


def test_v1_a_narrow_parent_is_inherited(layout, new_cgroup):
    if layout.version("cpuset") != 1:
        pytest.skip("v1 only")
    parent = new_cgroup()
    first = min(layout.root("cpuset").cpus)
    parent.controller("cpuset").cpus = {first}
    assert new_cgroup(parent.path).controller("cpuset").cpus == {first}


def test_v2_a_parent_that_holds_processes_is_refused(layout, new_cgroup, sleeper):
    if layout.version("memory") != 2:
        pytest.skip("v2 only: v1 knows no such rule")
    parent = new_cgroup()
    parent.attach("memory", sleeper.pid)
    with pytest.raises(CgroupError, match="holds processes itself"):
        new_cgroup(parent.path).controller("memory")
    assert parent.pids() == [sleeper.pid]


IN_CONTAINER = """
import os
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout

layout = Layout.read()
assert layout.in_container
cgroup = ContainerCgroup(layout, "mydocker/inner")
cgroup.controller("memory").max = 50 << 20
cgroup.attach("pids", os.getpid())
print(open("/proc/self/cgroup").read().strip(), cgroup.controller("memory").max)
open(layout.find("memory").base + "/mydocker-host/cgroup.procs", "w").write("0")
cgroup.remove()
print(os.path.exists(layout.find("memory").base + "/mydocker"))
"""


def test_v2_the_processes_of_a_container_make_room_for_controllers(layout, new_cgroup, hold):
    """At the top of a cgroup namespace the kernel's "no internal process" rule is in force."""
    if layout.version("memory") != 2:
        pytest.skip("v2 only")
    outer = new_cgroup()
    for name in ("memory", "pids"):
        outer.controller(name)
    remount = 'umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
    python = (sys.executable, "-c", IN_CONTAINER)
    container = hold("unshare", "--cgroup", "--mount", "sh", "-c", remount, "sh", *python)
    outer.attach("memory", container.pid)
    status, output = container.finish()
    assert (status, output.splitlines()) == (0, ["0::/mydocker/inner 52428800", "False"])


@pytest.mark.parametrize("wanted", ["v2", "v1"])
def test_the_error_for_a_mount_that_is_read_only_or_not_ours(layout, wanted):
    """A user without any rights gets a sentence, not a traceback."""
    version = layout.version("pids")
    if f"v{version}" != wanted:
        pytest.skip(f"pids is on v{version} here")
    script = (
        "import os; os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "from mydocker.cgroups.group import ContainerCgroup\n"
        "from mydocker.cgroups.layout import Layout\n"
        "from mydocker import MydockerError\n"
        "try: ContainerCgroup(Layout.read(), 'mydocker/nobody').controller('pids')\n"
        "except MydockerError as e: print(e)"
    )
    program = f"import mydocker.cgroups.controllers, mydocker.cgroups.delegation, mydocker.cgroups.group\n{script}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot make the cgroup ")
    assert "docs/rootless.md" in done.stdout
    assert issubclass(CgroupError, MydockerError)
