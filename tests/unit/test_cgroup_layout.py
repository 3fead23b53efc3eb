"""Where each controller lives, from mountinfo and /proc/self/cgroup: hosts, containers, namespaces, delegation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import CgroupError
from mydocker.cgroups import absence
from mydocker.cgroups import layout as layout_module
from mydocker.cgroups.layout import (
    Hierarchy,
    Layout,
    decisive_part,
    delegation_root,
    matched,
    parse_memberships,
    parse_mountinfo,
    path_in_mount,
)

V2 = "42 29 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:30 / /sys/fs/cgroup/systemd rw shared:11 master:3 - cgroup cgroup rw,xattr,release_agent=/a,name=systemd
34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw shared:13 - cgroup cgroup rw,memory
36 23 8:1 / / rw,relatime - ext4 /dev/cgroup rw"""


def pairs(mountinfo: str, cgroup: str, hidden: tuple[str, ...] = ()) -> dict[tuple[str, ...], tuple[str, str]]:
    """controllers -> (mount point, own cgroup)"""
    mounts = parse_mountinfo(mountinfo.encode())
    found = matched(mounts, parse_memberships(cgroup.encode()), lambda mount: mount.mountpoint not in hidden)
    return {
        membership.controllers: (mount.mountpoint, path_in_mount(membership.path, mount.root))
        for mount, membership in found
    }


def test_pure_v2():
    assert pairs(V2, "0::/user.slice/a.scope") == {(): ("/sys/fs/cgroup", "/user.slice/a.scope")}


def test_hybrid_with_controllers_mounted_together_and_a_named_hierarchy():
    assert pairs(HYBRID, "9:cpu,cpuacct:/\n4:memory:/a\n1:name=systemd:/b\n0::/c") == {
        ("cpu", "cpuacct"): ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        ("memory",): ("/sys/fs/cgroup/memory", "/a"),
        ("name=systemd",): ("/sys/fs/cgroup/systemd", "/b"),
        (): ("/sys/fs/cgroup/unified", "/c"),
    }


def test_names_of_directories_mean_nothing():
    mounts = "32 31 0:29 / /cg/memory rw - cgroup c rw,pids\n33 31 0:30 / /cg/pids rw - cgroup c rw,memory"
    assert pairs(mounts, "2:memory:/\n1:pids:/") == {("memory",): ("/cg/pids", "/"), ("pids",): ("/cg/memory", "/")}


def test_order_of_mount_options_and_of_proc_may_differ():
    mounts = "32 31 0:29 / /cg rw - cgroup c rw,noprefix,cpuacct,cpu,clone_children"
    assert pairs(mounts, "2:cpu,cpuacct:/x") == {("cpu", "cpuacct"): ("/cg", "/x")}


def test_a_hierarchy_that_is_not_mounted_is_left_out():
    assert pairs(V2, "3:memory:/\n0::/") == {(): ("/sys/fs/cgroup", "/")}
    assert pairs(HYBRID, "3:hugetlb:/") == {}


def test_other_file_systems_are_not_taken_for_cgroups():
    assert parse_mountinfo(b"36 23 8:1 / /a rw - cgroupish x rw\n37 23 8:1 / /b rw - ext4 cgroup rw\n") == []


def test_container_without_a_cgroup_namespace():
    mounts = "32 31 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
    assert pairs(mounts, "4:memory:/docker/abc") == {("memory",): ("/sys/fs/cgroup/memory", "/")}
    assert pairs(mounts, "4:memory:/docker/abc/x") == {("memory",): ("/sys/fs/cgroup/memory", "/x")}
    assert pairs(mounts, "4:memory:/docker/abcd") == {("memory",): ("/sys/fs/cgroup/memory", "")}


def test_mount_from_outside_of_our_cgroup_namespace():
    assert pairs("32 31 0:29 /.. /sys/fs/cgroup rw - cgroup2 none rw", "0::/") == {(): ("/sys/fs/cgroup", "")}


def test_of_several_mounts_a_writable_one_that_shows_us_is_used():
    elsewhere = "51 29 0:26 /other /b rw - cgroup2 none rw"
    readonly = "50 29 0:26 / /a ro - cgroup2 none rw"
    ours = "52 29 0:26 / /c rw - cgroup2 none rw"
    for order in ([readonly, elsewhere, ours], [ours, elsewhere, readonly], [elsewhere, readonly, ours]):
        assert pairs("\n".join(order), "0::/x") == {(): ("/c", "/x")}


def test_the_mount_on_top_is_used():
    bound_over = V2 + "\n76 42 0:26 /job /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    assert pairs(bound_over, "0::/job/x") == {(): ("/sys/fs/cgroup", "/x")}


def test_a_mount_that_something_hides_is_not_used():
    two = V2 + "\n60 29 0:26 / /run/cgroup2 rw - cgroup2 cgroup2 rw"
    assert pairs(two, "0::/", hidden=("/sys/fs/cgroup",)) == {(): ("/run/cgroup2", "/")}
    assert pairs(V2, "0::/", hidden=("/sys/fs/cgroup",)) == {}


def test_a_mount_covered_by_another_file_system_is_found_out(tmp_path):
    device = os.stat(tmp_path).st_dev
    line = f"42 29 {os.major(device)}:{os.minor(device)} / {tmp_path} rw - cgroup2 none rw"
    membership = parse_memberships(b"0::/")
    assert len(matched(parse_mountinfo(line.encode()), membership)) == 1
    assert matched(parse_mountinfo(line.replace(f"{os.major(device)}:", "4000:").encode()), membership) == []


def escaped(path: str) -> str:
    """As the kernel writes a path into mountinfo (fs/proc_namespace.c, mangle)."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in path)


@given(
    mountpoint=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    optional=st.lists(st.sampled_from(["shared:1", "master:22", "propagate_from:3", "unbindable"])),
)
def test_any_mount_point_survives_the_kernels_escapes(mountpoint, optional):
    tags = "".join(f"{tag} " for tag in optional)
    line = f"42 29 0:26 /a\\040b {escaped('/' + mountpoint)} rw,relatime {tags}- cgroup2 none rw,nsdelegate\n"
    (mount,) = parse_mountinfo(line.encode())
    assert (mount.mountpoint, mount.root, mount.version) == ("/" + mountpoint, "/a b", 2)


@given(path=st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])))
def test_a_cgroups_path_may_hold_colons(path):
    (membership,) = parse_memberships(f"4:cpu,cpuacct:/:{path}x".encode())
    assert membership.path == f"/:{path}x"
    assert membership.controllers == ("cpu", "cpuacct")


def test_paths_that_are_not_utf8_survive():
    (mount,) = parse_mountinfo(b"42 29 0:26 / /cg\xff rw - cgroup2 none rw")
    assert os.fsencode(mount.mountpoint) == b"/cg\xff"


def test_own_cgroup_that_was_removed():
    assert parse_memberships(b"0::/gone (deleted)")[0].path == "/gone"


@pytest.mark.parametrize(
    ("path", "root", "seen"),
    [
        ("/", "/", "/"),
        ("/a/b", "/", "/a/b"),
        ("/a", "/a", "/"),
        ("/a/b", "/a", "/b"),
        ("/ab", "/a", ""),
        ("/", "/a", ""),
        ("/../x", "/", ""),
        ("/../x", "/..", "/x"),
        ("/", "/..", ""),
    ],
)
def test_a_cgroup_seen_through_a_mount(path, root, seen):
    assert path_in_mount(path, root) == seen


def hierarchy(version: int, *controllers: str, mountpoint: str = "/nowhere", base: str = "") -> Hierarchy:
    return Hierarchy(
        version=version, mountpoint=mountpoint, controllers=controllers, own="/", base=base or mountpoint
    )


def test_a_controller_is_found_where_it_is():
    memory, unified = hierarchy(1, "memory"), hierarchy(2, "hugetlb")
    found = Layout.of([memory, unified])
    assert found.kind == "hybrid"
    assert found.find("memory") is memory
    assert found.find("hugetlb") is found.find("cgroup") is unified
    assert [found.version(name) for name in ("memory", "hugetlb", "io")] == [1, 2, None]


@pytest.mark.parametrize(
    ("hierarchies", "kind"),
    [([], "none"), ([hierarchy(1, "cpu")], "v1"), ([hierarchy(2)], "v2"), ([hierarchy(2), hierarchy(1)], "hybrid")],
)
def test_kinds(hierarchies, kind):
    assert Layout.of(hierarchies).kind == kind


PROC_CGROUPS = "#subsys_name hierarchy num_cgroups enabled\ncpu 1 1 1\nmemory 0 1 0\nio 0 1 1\npids 7 1 1\n"


@pytest.mark.parametrize(
    ("hierarchies", "controller", "words"),
    [
        ([], "memory", "mount cgroup2 on /sys/fs/cgroup"),
        ([hierarchy(1, "cpu")], "cgroup", "cgroup v2 is not mounted"),
        ([hierarchy(1, "cpu")], "memory", "without cgroup_disable=memory"),
        ([hierarchy(2, "cpu")], "pids", "cgroup_no_v1=pids"),
        ([hierarchy(1, "cpu")], "io", "mount cgroup2, or v1 with -t cgroup -o io"),
        ([hierarchy(1, "cpu")], "nonsense", "this kernel does not have it"),
    ],
)
def test_a_missing_controller_is_explained(hierarchies, controller, words):
    assert words in absence.reason(Layout.of(hierarchies), controller, PROC_CGROUPS)


def test_a_controller_that_is_not_delegated_is_explained(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    delegated = hierarchy(2, "pids", mountpoint=str(tmp_path), base=str(tmp_path / "user"))
    assert "Delegate=memory" in absence.reason(Layout.of([delegated]), "memory", "")


def test_a_controller_that_the_container_lacks_is_explained(tmp_path):
    (tmp_path / "cgroup.type").write_text("domain\n")  # the kernel's root has no such file
    namespaced = Layout.of([hierarchy(2, "pids", mountpoint=str(tmp_path))])
    assert namespaced.in_container
    assert "enabled outside" in absence.reason(namespaced, "memory", "")


def test_the_error_says_what_there_is():
    found = Layout.of([hierarchy(1, "memory", "name=systemd"), hierarchy(2, "hugetlb", "pids")])
    with pytest.raises(CgroupError, match=r"no nonsense controller .*\(here: memory on v1; hugetlb, pids on v2\)"):
        found.require("nonsense")


@pytest.mark.parametrize(
    ("own", "writable", "marked", "root"),
    [
        ("/", [], [], ""),
        ("/user/session", [], [], ""),
        ("/user/u@1/app/job", ["/user/u@1", "/user/u@1/app", "/user/u@1/app/job"], [], "/user/u@1"),
        ("/user/u@1/app/job", ["/user/u@1", "/user/u@1/app", "/user/u@1/app/job"], ["/user/u@1"], "/user/u@1"),
        ("/user/u@1/job", ["/user/u@1", "/user/u@1/job"], ["/user/u@1", "/user/u@1/job"], "/user/u@1/job"),
        ("/user/u@1/job", ["/user/u@1"], [], "/user/u@1"),
        ("/a/b/c", ["/a", "/a/b/c"], [], "/a/b/c"),
        ("", ["/a"], [], ""),
    ],
)
def test_the_top_of_a_delegated_subtree(monkeypatch, own, writable, marked, root):
    monkeypatch.setattr(layout_module, "_is_ours", lambda path: path.removeprefix("/cg") in writable)
    monkeypatch.setattr(layout_module, "_is_marked_delegated", lambda path: path.removeprefix("/cg") in marked)
    assert delegation_root("/cg", own) == (f"/cg{root}" if root else "")


class TestManyMounts:
    """A mountinfo of which the first lines decide is not read to its end."""

    CGROUP = "1:memory:/a\n0::/a\n"

    @pytest.fixture
    def mountinfo(self, tmp_path: Path) -> Callable[..., str]:
        def write(*first: str) -> str:
            lines = [*first, *(f"{number} 1 8:1 / /m{number} rw - ext4 /dev/a rw" for number in range(100, 5000))]
            path = tmp_path / "mountinfo"
            path.write_text("\n".join(lines) + "\n9000 1 8:1 / /m rw - ext4 /dev/a end\n")
            return str(path)

        return write

    @staticmethod
    def line(number: int, place: Path, kind: str, options: str, root: str = "/") -> str:
        device = os.stat(place).st_dev
        return f"{number} 23 {os.major(device)}:{os.minor(device)} {root} {place} rw - {kind} none {options}"

    def test_the_first_lines_are_enough(self, mountinfo: Callable[..., str], tmp_path: Path) -> None:
        v1, v2 = tmp_path / "v1", tmp_path / "v2"
        v1.mkdir()
        v2.mkdir()
        path = mountinfo(self.line(31, v1, "cgroup", "rw,memory"), self.line(32, v2, "cgroup2", "rw"))
        first = decisive_part(path, self.CGROUP.encode(), lambda place: {str(v1): 31, str(v2): 32}[place])
        assert b"/m100 " in first and not first.endswith(b" end\n")
        found = matched(parse_mountinfo(first), parse_memberships(self.CGROUP.encode()))
        assert [(mount.id, membership.path) for mount, membership in found] == [(31, "/a"), (32, "/a")]

    @pytest.mark.parametrize(
        ("options", "root", "shown"), [("ro", "/", 32), ("rw", "/a", 32), ("rw", "/", 77), ("rw,else", "/", 32)]
    )
    def test_they_are_not_where_another_may_be_better_or_on_top(
        self, mountinfo: Callable[..., str], tmp_path: Path, options: str, root: str, shown: int
    ) -> None:
        v1, v2 = tmp_path / "v1", tmp_path / "v2"
        v1.mkdir()
        v2.mkdir()
        kind = "cgroup" if options == "rw,else" else "cgroup2"
        path = mountinfo(self.line(31, v1, "cgroup", "rw,memory"), self.line(32, v2, kind, options, root))
        whole = decisive_part(path, self.CGROUP.encode(), lambda place: {str(v1): 31}.get(place, shown))
        assert whole.endswith(b" end\n")


def test_the_number_of_a_mount_is_that_of_mountinfo() -> None:
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        numbers = {line.split()[4]: int(line.split()[0]) for line in f}
    assert layout_module._mount_id("/proc") == numbers["/proc"]
    assert layout_module._mount_id("/no/such/place") == -1
