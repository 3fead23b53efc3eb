"""Hosts that do not exist: what they have, what they refuse, and that nothing real is touched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mydocker import CgroupError, ConflictError, UsageError
from mydocker.cgroups import files
from mydocker.testing import FakeHost


def refusal(function: Callable[..., object], *arguments: object) -> str:
    """The name of the errno with which the kernel would refuse."""
    with pytest.raises(CgroupError) as caught:
        function(*arguments)
    return errno.errorcode[caught.value.errno]


def test_the_layout_of_each_kind(cgroup_v1, cgroup_v2, cgroup_hybrid):
    for host, *expected in ((cgroup_v1, "v1", 1, 1), (cgroup_v2, "v2", 2, 2), (cgroup_hybrid, "hybrid", 1, 2)):
        layout = host.layout
        assert [layout.kind, layout.version("memory"), layout.version("hugetlb")] == expected
        assert not layout.in_container


def test_a_cgroup_is_made_in_the_hierarchy_that_is_asked_for_and_removed_with_its_parents(cgroup_layout):
    before = set(cgroup_layout.directories)
    cgroup = cgroup_layout.cgroup("mydocker/box")
    assert cgroup.dirs == ()
    cgroup.controller("pids")
    (made,) = cgroup.dirs
    assert made in cgroup_layout.directories
    assert os.path.isfile(f"{made}/pids.max")
    cgroup.remove()
    assert set(cgroup_layout.directories) == before
    assert not os.path.exists(made)


def test_values_are_kept_as_the_kernel_keeps_them(cgroup_v1, cgroup_v2):
    v1, v2 = cgroup_v1.cgroup(), cgroup_v2.cgroup()
    v1.controller("memory").limit_in_bytes = 5000
    v2.controller("memory").max = 5000
    assert (v1.controller("memory").limit_in_bytes, v2.controller("memory").max) == (4096, 4096)
    v1.controller("cpu").shares = 1
    assert v1.controller("cpu").shares == 2
    v2.controller("memory").max = None
    assert cgroup_v2.read("mydocker/test/memory.max") == "max"
    v2.controller("hugetlb").set_limit("2MB", 3 << 20)
    assert cgroup_v2.read("mydocker/test/hugetlb.2MB.max") == str(2 << 20)


def test_memory_and_swap_of_v1_have_an_order(cgroup_v1):
    memory = cgroup_v1.cgroup().controller("memory")
    memory.limit_in_bytes = 1 << 20
    memory.memsw_limit_in_bytes = 1 << 20
    assert refusal(memory.set_property, "memory.limit_in_bytes", 2 << 20) == "EINVAL"
    assert refusal(memory.set_property, "memory.memsw.limit_in_bytes", 4096) == "EINVAL"
    cgroup_v1.report("mydocker/test/memory.usage_in_bytes", 1 << 20)
    assert refusal(memory.set_property, "memory.limit_in_bytes", 4096) == "EBUSY"


def test_a_v1_cpuset_without_memory_nodes_takes_no_process(cgroup_v1):
    cpuset = f"{cgroup_v1.layout.require('cpuset').mountpoint}/empty"
    files.make_directory(cpuset)
    assert refusal(files.write, f"{cpuset}/cgroup.procs", str(cgroup_v1.new_process())) == "ENOSPC"
    cgroup = cgroup_v1.cgroup()
    pid = cgroup_v1.new_process()
    cgroup.attach("cpuset", pid)  # what the core makes has some
    assert cgroup_v1.cgroup_of(pid, "cpuset") == "mydocker/test"


def test_a_cpuset_of_v1_is_within_its_parents(cgroup_v1):
    cpuset = cgroup_v1.cgroup().controller("cpuset")
    cgroup_v1.report("mydocker/cpuset.cpus", "0-1")
    assert refusal(cpuset.set_property, "cpuset.cpus", "2") == "EACCES"
    assert refusal(cpuset.set_property, "cpuset.cpus", "4") == "ERANGE"


def test_a_cpuset_of_v2_gets_what_its_parent_has(cgroup_v2):
    cpuset = cgroup_v2.cgroup().controller("cpuset")
    cpuset.parent().set_property("cpuset.cpus", "0-1")
    cpuset.cpus = (1, 2)
    assert (cpuset.cpus, cpuset.effective_cpus) == ({1, 2}, {1})


def test_the_root_of_v2_lacks_the_files_of_limits(cgroup_v2):
    root = cgroup_v2.layout.root("memory")
    assert not root.has("memory.max")
    assert root.has("memory.stat")
    assert refusal(files.write, root.filepath("memory.max"), "1") == "ENOENT"


def test_the_root_of_v1_has_the_files_and_takes_no_value(cgroup_v1):
    root = cgroup_v1.layout.root("memory")
    assert refusal(files.write, root.filepath("memory.limit_in_bytes"), str(1 << 30)) == "EINVAL"


def test_files_of_v2_come_and_go_with_subtree_control(cgroup_v2):
    cgroup = cgroup_v2.cgroup()
    core = cgroup.controller("cgroup")
    assert not core.has("memory.max")
    cgroup.controller("memory")
    assert core.has("memory.max")
    above = core.parent()
    above.set_property("cgroup.subtree_control", "-memory")
    assert not core.has("memory.max")
    assert refusal(above.set_property, "cgroup.subtree_control", "+nothing") == "EINVAL"
    assert refusal(core.set_property, "cgroup.subtree_control", "+memory") == "ENOENT"


def test_no_internal_process_on_v2(cgroup_v2):
    cgroup = cgroup_v2.cgroup()
    memory = cgroup.controller("memory")
    cgroup.attach("memory", cgroup_v2.new_process())
    assert refusal(memory.set_property, "cgroup.subtree_control", "+memory") == "EBUSY"
    above = memory.parent()
    assert refusal(above.set_property, "cgroup.procs", cgroup_v2.new_process()) == "EBUSY"


def test_a_process_is_in_one_cgroup_of_a_hierarchy(cgroup_layout):
    pid = cgroup_layout.new_process()
    first, second = cgroup_layout.cgroup("mydocker/a"), cgroup_layout.cgroup("mydocker/b")
    first.attach("pids", pid)
    assert cgroup_layout.cgroup_of(pid, "pids") == "mydocker/a"
    second.attach("pids", pid)
    assert (first.pids(), second.pids()) == ([], [pid])
    assert (first.controller("pids").current, second.controller("pids").current) == (0, 1)
    cgroup_layout.end(pid)
    assert second.pids() == []
    assert refusal(first.controller("pids").set_property, "cgroup.procs", pid) == "ESRCH"


def test_a_cgroup_with_processes_or_children_stays(cgroup_layout):
    cgroup = cgroup_layout.cgroup()
    cgroup.attach("pids", cgroup_layout.new_process())
    for directory in (cgroup.dirs[0], os.path.dirname(cgroup.dirs[0])):
        with pytest.raises(OSError, match="busy"):
            files.remove_directory(directory)
    files.make_directory(f"{cgroup.dirs[0]}/nested")
    cgroup.remove()
    assert cgroup.dirs == ()


def test_killing_an_imitated_cgroup_sends_no_signal(cgroup_layout):
    """The PIDs in it may be those of real processes: here, of the tests themselves."""
    cgroup = cgroup_layout.cgroup()
    cgroup.attach("pids", os.getpid())
    assert cgroup.pids() == [os.getpid()]
    cgroup.kill()
    cgroup.remove()
    assert not cgroup_layout.is_alive(os.getpid())


def test_a_file_that_this_kernel_lacks(fake_host):
    host = fake_host("v2", without=["memory.swap.*", "memory.peak"])
    memory = host.cgroup().controller("memory")
    assert not memory.has("memory.peak")
    assert refusal(memory.set_property, "memory.swap.max", "max") == "ENOENT"
    with pytest.raises(CgroupError, match="this kernel does not have that file"):
        memory.get_property("memory.peak")


def test_a_controller_that_this_host_lacks(fake_host):
    host = fake_host("v1", controllers=["pids"])
    assert [hierarchy.controllers for hierarchy in host.layout.hierarchies] == [("pids",)]
    with pytest.raises(CgroupError, match="no memory controller"):
        host.cgroup().controller("memory")


def test_what_is_written_is_noted_and_what_is_refused_is_not(cgroup_v1):
    pids = cgroup_v1.cgroup().controller("pids")
    assert refusal(pids.set_property, "pids.max", "many") == "EINVAL"
    pids.max = 5
    assert [(write.name, write.value) for write in cgroup_v1.writes] == [("pids.max", "5")]
    assert [Path(path).name for path in cgroup_v1.made] == ["mydocker", "test"]


def test_a_report_changes_lines_or_all(cgroup_v2):
    memory = cgroup_v2.cgroup().controller("memory")
    cgroup_v2.report("mydocker/test/memory.events", {"oom_kill": 2})
    assert (memory.events["oom_kill"], memory.events["max"]) == (2, 0)
    cgroup_v2.report("mydocker/test/memory.current", 4096)
    assert memory.current == 4096
    with pytest.raises(FileNotFoundError, match="the cgroups are"):
        cgroup_v2.report("mydocker/test/memory.absent", 1)


def test_freezing(cgroup_v1, cgroup_v2):
    for host, name, file in ((cgroup_v1, "freezer", "freezer.state"), (cgroup_v2, "cgroup", "cgroup.freeze")):
        cgroup = host.cgroup()
        controller = cgroup.controller(name)
        assert not cgroup.frozen
        controller.set_property(file, "FROZEN" if name == "freezer" else "1")
        assert cgroup.frozen


def test_depth_and_names_are_bounded(cgroup_v2):
    core = cgroup_v2.cgroup("mydocker/a").controller("cgroup")
    core.parent().set_property("cgroup.max.descendants", "1")
    with pytest.raises(CgroupError, match=r"cgroup\.max\.descendants"):
        cgroup_v2.cgroup("mydocker/b").controller("cgroup")
    with pytest.raises(OSError, match="Invalid argument"):
        files.make_directory(f"{core.path}/a\nb")
    with pytest.raises(UsageError):
        cgroup_v2.cgroup("../escaped")


def test_devices_of_v1(cgroup_v1):
    devices = cgroup_v1.cgroup().controller("devices")
    devices.set_property("devices.deny", "a")
    devices.set_property("devices.allow", "c 1:3 rw")
    assert cgroup_v1.read("mydocker/test/devices.list") == "c 1:3 rw"
    cgroup_v1.report("mydocker/devices.list", "c 1:5 r")
    assert refusal(devices.set_property, "devices.allow", "b 8:0 r") == "EPERM"
    assert refusal(devices.set_property, "devices.allow", "z 8:0 r") == "EINVAL"


def test_block_devices_are_those_of_the_host(cgroup_v1, cgroup_v2):
    throttle, io = "blkio.throttle.read_bps_device", "io.max"
    v1, v2 = cgroup_v1.cgroup().controller("blkio"), cgroup_v2.cgroup().controller("io")
    v1.set_property(throttle, "8:0 1000")
    v2.set_property(io, "8:0 rbps=1000")
    assert v1.get_property(throttle) == "8:0 1000"
    assert v2.get_property(io) == "8:0 rbps=1000 wbps=max riops=max wiops=max"
    assert refusal(v1.set_property, throttle, "9:9 1000") == "ENODEV"
    assert refusal(v2.set_property, io, "8:0 speed=1") == "EINVAL"
    assert refusal(v2.set_property, io, "8:0 rbps=0") == "ERANGE"
    v1.set_property(throttle, "8:0 0")
    v2.set_property(io, "8:0 rbps=max")
    assert (v1.get_property(throttle), v2.get_property(io)) == ("", "")


def test_rdma_and_misc(cgroup_v2):
    cgroup = cgroup_v2.cgroup()
    cgroup.controller("rdma").set_property("rdma.max", "mlx5_0 hca_handle=2")
    assert cgroup_v2.read("mydocker/test/rdma.max") == "mlx5_0 hca_handle=2 hca_object=max"
    cgroup.controller("misc").set_property("misc.max", "sev 4")
    assert cgroup_v2.read("mydocker/test/misc.max") == "sev 4"
    assert refusal(cgroup.controller("misc").set_property, "misc.max", "tdx 4") == "EINVAL"


def test_a_quota_of_v1_is_within_its_parents(cgroup_v1):
    cpu = cgroup_v1.cgroup().controller("cpu")
    cpu.parent().set_property("cpu.cfs_quota_us", 50000)
    assert refusal(cpu.set_property, "cpu.cfs_quota_us", 60000) == "EINVAL"
    cpu.cfs_quota_us = 40000
    assert refusal(cpu.parent().set_property, "cpu.cfs_quota_us", 30000) == "EINVAL"


def test_two_plugins_and_one_file(cgroup_layout):
    cgroup = cgroup_layout.cgroup()
    cgroup.for_plugin("one").controller("pids").max = 1
    with pytest.raises(ConflictError, match="one and two both write"):
        cgroup.for_plugin("two").controller("pids").max = 2


def test_a_closed_host_answers_no_more(tmp_path):
    with FakeHost.v2(tmp_path) as host:
        file = f"{host.cgroup().controller('pids').path}/pids.max"
    files.write(file, "whatever")
    assert Path(file).read_text() == "whatever"
    assert files.imitations == []
