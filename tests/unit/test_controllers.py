"""The typed files of a cgroup: what is read, what is written, and what is said when the kernel refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from mydocker import CgroupError
from mydocker.cgroups import files, v1, v2
from mydocker.cgroups.controllers import Controller, controller_class
from mydocker.cgroups.plain import Directory, controller_at


@pytest.fixture
def directory(tmp_path):
    def with_files(**contents):
        for name, text in contents.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        return Directory(str(tmp_path))

    return with_files


def text_of(node, name):
    with open(f"{node.full_path}/{name}") as file:
        return file.read()


def test_no_limit_is_none_on_both_versions(directory):
    node = directory(memory__limit_in_bytes="1", memory__max="max\n", cpu__cfs_quota_us="-1\n")
    memory = v2.Memory(node)
    assert memory.max is None
    memory.max = 4096
    assert (text_of(node, "memory.max"), memory.max) == ("4096", 4096)
    v1.Memory(node).limit_in_bytes = None
    assert text_of(node, "memory.limit_in_bytes") == "-1"
    assert v1.Cpu(node).cfs_quota_us is None


def test_cpu_max_is_quota_and_period(directory):
    node = directory(cpu__max="max 100000\n")
    cpu = v2.Cpu(node)
    assert cpu.max == (None, 100000)
    cpu.max = (50000, 100000)
    assert text_of(node, "cpu.max") == "50000 100000"
    cpu.max = (None, 50000)
    assert cpu.max == (None, 50000)


def test_flat_keyed_files(directory):
    node = directory(memory__events="low 0\nmax 12\noom_kill 1\n", cpu__stat="")
    assert v2.Memory(node).events == {"low": 0, "max": 12, "oom_kill": 1}
    assert v2.Cpu(node).stat == {}
    with pytest.raises(RuntimeError, match="readonly"):
        v2.Memory(node).events = {"max": 1}


def test_nested_keyed_files(directory):
    node = directory(io__max="8:0 rbps=1048576 wbps=max\n8:16 rbps=max wbps=2\n")
    io = v2.Io(node)
    assert io.max == {"8:0": {"rbps": "1048576", "wbps": "max"}, "8:16": {"rbps": "max", "wbps": "2"}}
    io.max = {"8:0": {"rbps": 1, "wbps": None}}
    assert text_of(node, "io.max").startswith("8:0 rbps=1 wbps=max")
    with pytest.raises(ValueError, match="one key for each write"):
        io.max = {"8:0": {"rbps": 1}, "8:16": {"rbps": 1}}


def test_cpu_sets(directory):
    node = directory(cpuset__cpus="0-2,4\n", cpuset__mems="\n")
    cpuset = v2.CpuSet(node)
    assert cpuset.cpus == {0, 1, 2, 4}
    assert cpuset.mems == set()
    cpuset.cpus = (0, 1, 3)
    assert text_of(node, "cpuset.cpus").startswith("0-1,3")


def test_the_oom_control_of_v1_with_and_without_a_count(directory):
    node = directory(memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert v1.Memory(node).oom_control["oom_kill"] == 3
    v1.Memory(node).oom_control = True
    assert text_of(node, "memory.oom_control").startswith("1")


@pytest.mark.parametrize("name", ["throttle_write_bps_device", "throttle_write_iops_device"])
def test_names_of_blkio_files_have_no_blank(name):
    interface = v1.BlkIo(Directory("/nowhere")).get_interface(name)
    assert interface.filename.strip() == interface.filename


def test_inherited_files_are_listed():
    memory = v1.Memory(Directory("/nowhere")).list_interfaces()
    assert {"limit_in_bytes", "kmem_usage_in_bytes", "procs", "tasks"} <= set(memory)
    core = v2.Core(Directory("/nowhere")).list_interfaces()
    assert {"procs", "kill", "events"} <= set(core)
    assert "tasks" not in core, "v2 has no such file"


def test_content_of_a_file_that_is_not_there(directory):
    memory = v2.Memory(directory(memory__max="max"))
    assert memory.get_content("peak") is None
    assert memory.get_content("nonsense") is None
    assert not memory.has("memory.peak")
    assert memory.has("memory.max")


@pytest.mark.parametrize("version", [1, 2])
def test_a_controller_that_nobody_described_has_the_common_files(directory, version):
    node = directory(cgroup__procs="1\n2\n", misc__max="res_a 5\n")
    misc = controller_at("misc", version, node)
    assert misc.version == version
    assert misc.procs == [1, 2]
    assert misc.get_property("misc.max") == "res_a 5"
    misc.set_property("misc.max", "res_a 6")
    assert text_of(node, "misc.max").startswith("res_a 6")


@pytest.mark.parametrize(
    ("name", "version", "cls"), [("memory", 1, v1.Memory), ("memory", 2, v2.Memory), ("io", 2, v2.Io)]
)
def test_the_class_fits_the_version(name, version, cls):
    assert controller_class(name, version) is cls


@pytest.mark.parametrize(
    ("version", "name", "cls"), [(1, "limit_in_bytes", v1.Memory), (2, "max", v2.Memory)]
)
def test_a_controller_is_typed_as_soon_as_it_is_asked_for_a_typed_file(directory, version, name, cls):
    node, file = directory(**{f"memory__{name}": ""}), f"memory.{name}"
    asked, set_, shown = (controller_at("memory", version, node) for _ in range(3))
    assert (asked.version, asked.has(file)) == (version, True)
    asked.set_property(file, 4096)
    assert not isinstance(asked, Controller)
    assert getattr(asked, name) == 4096
    setattr(set_, name, 8192)
    assert asked.get_property(file) == "8192"
    assert repr(shown) == f"<Memory {node.full_path}>"
    assert {type(one) for one in (asked, set_, shown)} == {cls}
    assert vars(asked) == vars(cls(node))
    another = controller_at("memory", version, node)
    assert getattr(type(another)(node), name) == 8192


def test_what_a_controller_has_not_is_the_same_error_at_once(directory):
    memory = controller_at("memory", 2, directory())
    with pytest.raises(AttributeError, match=r"Memory of cgroup v2 has no file by the name of limit_in_bytes"):
        _ = memory.limit_in_bytes
    with pytest.raises(AttributeError, match=r"Memory of cgroup v2 has no file by the name of limit_in_bytes"):
        controller_at("memory", 2, directory()).limit_in_bytes = 1


def test_huge_pages_by_size(directory):
    node = directory(hugetlb__2MB__max="max\n", hugetlb__2MB__limit_in_bytes="0\n")
    pages = v2.HugeTlb(node)
    assert pages.limit("2MB") is None
    pages.set_limit("2MB", 4 << 20)
    assert pages.limit("2MB") == 4 << 20
    v1.HugeTlb(node).set_limit("2MB", 2 << 20)
    assert v1.HugeTlb(node).limit("2MB") == 2 << 20


def test_a_missing_file_is_not_made(directory):
    node = directory()
    with pytest.raises(CgroupError) as caught:
        v2.Memory(node).max = 5
    assert str(caught.value) == (
        f'cannot write "5" to {node.full_path}/memory.max: No such file or directory '
        "(this kernel does not have that file for this cgroup)"
    )
    assert caught.value.errno == errno.ENOENT
    assert os.listdir(node.full_path) == []


def test_a_value_is_one_write(directory, monkeypatch):
    node = directory(memory__max="")
    written = []
    monkeypatch.setattr(files.os, "write", lambda _, data: written.append(data))
    v2.Memory(node).max = 12345678
    assert written == [b"12345678"]


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EROFS, "mounted read-only"), (errno.EACCES, "Delegate=yes"), (errno.EINVAL, "does not take that value")],
)
def test_the_kernels_refusal_comes_with_advice(number, hint):
    error = files.refused('write "1" to', "/cg/x", OSError(number, "ignored"))
    assert str(error).startswith(f'cannot write "1" to /cg/x: {os.strerror(number)} (')
    assert hint in str(error)
    assert error.errno == number


def test_the_import_leaves_nothing_behind_in_the_interpreter():
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import mydocker.cgroups.v1\n"
        "assert 'collections.abc' not in sys.modules\n"
        "import collections.abc\n"
        "print(collections.abc.Mapping)"
    )
    done = subprocess.run([sys.executable, "-ISc", program], capture_output=True, text=True, check=True)
    assert done.stdout == "<class 'collections.abc.Mapping'>\n"


def test_a_controller_says_what_it_is():
    assert repr(v2.Memory(Directory("/cg/a"))) == "<Memory /cg/a>"
    assert v2.Memory(Directory("/cg/a/b")).parent().path == "/cg/a"
    assert issubclass(v2.Memory, Controller)


@pytest.mark.parametrize("name", ["maximum", "tasks", "limit_in_bytes", "version"])
def test_a_limit_that_is_assigned_to_what_is_no_file_is_an_error(directory, name):
    memory = v2.Memory(directory(memory__max="max"))
    with pytest.raises(AttributeError, match=f"Memory of cgroup v2 has no file by the name of {name}"):
        setattr(memory, name, 1)
