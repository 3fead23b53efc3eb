"""``linux.intelRdt`` on an imitated resctrl: a directory that makes the files which the kernel would make."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mydocker.errors import OciError
from mydocker.linux import statfs
from mydocker.oci import intel_rdt
from mydocker.oci.intel_rdt import Group, Tree

ROOT_SCHEMATA = "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"


class Imitation(Tree):
    """New groups have the files of one, and can be removed with them."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_PATH)
        magic = statfs.filesystem_type(fd)
        os.close(fd)
        self.path = path
        super().__init__(str(path), magic)

    def make_group(self, path: str) -> None:
        super().make_group(path)
        populate(self.path / path)

    def remove_group(self, path: str) -> None:
        if (self.path / path).exists():
            shutil.rmtree(self.path / path)
            (self.path / path).mkdir()
        super().remove_group(path)


def populate(directory: Path) -> None:
    (directory / "schemata").write_text(ROOT_SCHEMATA)
    (directory / "tasks").touch()
    if directory.parent.name != "mon_groups":
        (directory / "mon_groups").mkdir()


@pytest.fixture
def tree(tmp_path: Path) -> Imitation:
    root = tmp_path / "resctrl"
    root.mkdir()
    populate(root)
    (root / "info/L3_MON").mkdir(parents=True)
    (root / "info/L3_MON/mon_features").write_text("llc_occupancy\nmbm_total_bytes\n")
    (root / "info/last_cmd_status").write_text("ok\n")
    return Imitation(root)


def apply(wanted: dict[str, Any], tree: Imitation, id_: str = "box") -> Group:
    intel_rdt.check(wanted, tree)
    group = intel_rdt.group_of(wanted, id_)
    intel_rdt.put_into_force(wanted, group, tree)
    intel_rdt.enter(group, 4242, tree)
    return group


@pytest.mark.parametrize(
    ("wanted", "lines"),
    [
        ({"l3CacheSchema": "L3:0=f;1=f0"}, "L3:0=f;1=f0\n"),
        ({"memBwSchema": "MB:0=20;1=70"}, "MB:0=20;1=70\n"),
        ({"l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20"}, "L3:0=f\nMB:0=20\n"),
        ({"schemata": ["L3:0=3", "L2:0=1"], "l3CacheSchema": "L3:0=f"}, "L3:0=f\nL3:0=3\nL2:0=1\n"),
        ({"schemata": "L3:0=3\nL2:0=1"}, "L3:0=3\nL2:0=1\n"),
        ({}, ROOT_SCHEMATA),
    ],
)
def test_a_group_of_the_containers_own(wanted: dict[str, Any], lines: str, tree: Imitation) -> None:
    group = apply(wanted, tree)
    assert (tree.path / "box/schemata").read_text().startswith(lines)
    assert (tree.path / "box/tasks").read_text() == "4242"
    intel_rdt.remove(group, tree)
    assert not (tree.path / "box").exists()
    intel_rdt.remove(group, tree)  # once more, after an interruption


def test_a_group_by_name_is_made_and_stays(tree: Imitation) -> None:
    group = apply({"closID": "gold", "l3CacheSchema": "L3:0=f"}, tree)
    assert (tree.path / "gold/tasks").read_text() == "4242"
    assert not (tree.path / "box").exists()
    intel_rdt.remove(group, tree)
    assert (tree.path / "gold").exists()


@pytest.mark.parametrize("schema", ["", "L3:0=fffff", "L3:01=0FFFFF;0=fffff\nMB:1=100"])
def test_a_group_that_is_there_is_joined(schema: str, tree: Imitation) -> None:
    tree.make_group("gold")
    apply({"closID": "gold", "schemata": [schema]}, tree)
    assert (tree.path / "gold/schemata").read_text() == ROOT_SCHEMATA, "it is not written to"
    assert (tree.path / "gold/tasks").read_text() == "4242"


def test_the_group_of_everybody(tree: Imitation) -> None:
    group = apply({"closID": "/", "enableMonitoring": True}, tree)
    assert (tree.path / "tasks").read_text() == "4242"
    assert (tree.path / "mon_groups/box/tasks").read_text() == "4242"
    intel_rdt.remove(group, tree)
    assert not (tree.path / "mon_groups/box").exists()
    assert (tree.path / "tasks").exists()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"closID": "gold"}, "linux.intelRdt.closID: there is no group gold, and no schema"),
        ({"closID": "/", "l3CacheSchema": "L3:0=f"}, "is there with another schema: L3:0 has fffff, not f"),
        ({"closID": "/", "memBwSchema": "MB:2=10"}, "is there with another schema: MB:2 has nothing, not 10"),
        ({"enableMBM": True, "closID": "gold"}, "linux.intelRdt.closID"),
    ],
)
def test_what_cannot_be(wanted: dict[str, Any], words: str, tree: Imitation) -> None:
    with pytest.raises(OciError, match=words):
        apply(wanted, tree)
    assert not (tree.path / "gold").exists()
    assert (tree.path / "tasks").read_text() == ""


@pytest.mark.parametrize("key", ["enableCMT", "enableMBM", "enableMonitoring"])
def test_a_processor_that_does_not_count(key: str, tree: Imitation) -> None:
    apply({key: True}, tree)
    (tree.path / "info/L3_MON/mon_features").unlink()
    with pytest.raises(OciError, match=f"linux.intelRdt.{key}: this host's processor does not count"):
        apply({key: True}, tree, "other")


def test_what_the_kernel_says_is_passed_on_and_nothing_is_left(tree: Imitation) -> None:
    (tree.path / "info/last_cmd_status").write_text("Mask f0f has non-consecutive 1-bits\n")

    class Refusing(Imitation):
        def make_group(self, path: str) -> None:
            super().make_group(path)
            (self.path / path / "schemata").unlink()
            (self.path / path / "schemata").symlink_to("/dev/full")

    with pytest.raises(OciError, match=r"linux\.intelRdt: cannot set the schemata L3:0=f0f"):
        apply({"l3CacheSchema": "L3:0=f0f"}, Refusing(tree.path))
    assert not (tree.path / "box").exists()
    (tree.path / "taken").mkdir()
    with pytest.raises(OciError, match=r"file exists \(Mask f0f has non-consecutive 1-bits\): taken"):
        apply({}, tree, "taken")


def test_nothing_is_followed_out_of_it(tree: Imitation, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    populate(outside)
    (tree.path / "gold").symlink_to(outside)
    with pytest.raises((OciError, OSError)):
        apply({"closID": "gold", "l3CacheSchema": "L3:0=fffff"}, tree)
    assert (outside / "tasks").read_text() == ""


def test_only_a_resctrl_is_one(tmp_path: Path) -> None:
    with pytest.raises(OciError, match="is not a resctrl file system"):
        Tree(str(tmp_path))
