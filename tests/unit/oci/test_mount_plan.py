"""What the runtime makes of the file system that a config asks for, before anything is mounted."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mydocker.errors import OciError
from mydocker.linux import mount
from mydocker.oci import mount_plan
from mydocker.oci.mount_plan import MountPlan, prepare


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "rootfs").mkdir()
    return tmp_path


def plan(bundle: Path, *mounts: dict[str, Any], pivot: bool = True, root: str = "rootfs", **linux: Any) -> MountPlan:
    linux.setdefault("namespaces", [{"type": "mount"}])
    config = {"root": {"path": root}, "mounts": list(mounts), "linux": linux}
    return prepare(config, str(bundle), pivot=pivot)


def test_a_plain_config(bundle: Path) -> None:
    made = plan(bundle)
    assert (made.rootfs, made.pivot, made.private, made.own_dev) == (str(bundle / "rootfs"), True, True, True)
    assert (made.masked, made.protected, made.propagation, made.label) == ((), (), (0, False), b"")
    assert made.descriptors == frozenset()


def test_links_to_the_rootfs_are_followed_once(bundle: Path) -> None:
    (bundle / "current").symlink_to("rootfs")
    assert plan(bundle, root="current").rootfs == str(bundle / "rootfs")


@pytest.mark.parametrize("root", ["missing", "file", "/nonexistent"])
def test_a_rootfs_that_is_none(bundle: Path, root: str) -> None:
    (bundle / "file").touch()
    with pytest.raises(OciError, match="invalid rootfs"):
        plan(bundle, root=root)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("/a/b", b"/a/b"),
        ("relative", b"/relative"),
        ("//a/./b/../c/", b"/a/c"),
        ("/../../etc", b"/etc"),
        ("{rootfs}/inside", b"/inside"),
        ("{rootfs}2/x", b"{rootfs}2/x"),
    ],
)
def test_destinations(bundle: Path, destination: str, expected: bytes) -> None:
    rootfs = str(bundle / "rootfs")
    (entry,) = plan(bundle, {"type": "tmpfs", "destination": destination.format(rootfs=rootfs)}).entries
    assert entry.destination == expected.replace(b"{rootfs}", os.fsencode(rootfs))


def test_a_relative_source_is_in_the_bundle(bundle: Path) -> None:
    (entry,) = plan(bundle, {"source": "data", "destination": "/d", "options": ["bind"]}).entries
    assert (entry.source, entry.fstype) == (os.fsencode(bundle / "data"), b"bind")


def test_a_bind_of_dev_is_left_alone(bundle: Path) -> None:
    assert not plan(bundle, {"source": "/dev", "destination": "/dev/", "options": ["rbind"]}).own_dev
    assert plan(bundle, {"type": "tmpfs", "destination": "/dev"}).own_dev


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("private", (mount.MS_PRIVATE, False)),
        ("rslave", (mount.MS_SLAVE, True)),
        ("rshared", (mount.MS_SHARED, True)),
        ("runbindable", (mount.MS_UNBINDABLE, True)),
    ],
)
def test_propagation(bundle: Path, word: str, expected: tuple[int, bool]) -> None:
    assert plan(bundle, rootfsPropagation=word).propagation == expected


def test_refusals(bundle: Path) -> None:
    with pytest.raises(OciError, match="not safe without pivot_root"):
        plan(bundle, pivot=False, rootfsPropagation="rprivate")
    with pytest.raises(OciError, match=r"invalid mount mounts\[0\] at \"/d\": a mount needs a type"):
        plan(bundle, {"destination": "/d"})
    with pytest.raises(OciError, match="null byte"):
        plan(bundle, {"type": "tmpfs", "destination": "/d\0"})
    with pytest.raises(OciError, match="without a private MNT namespace"):
        plan(bundle, namespaces=[], rootfsPropagation="slave")


def test_the_runtimes_own_mount_namespace_is_none(bundle: Path) -> None:
    assert not plan(bundle, namespaces=[]).private
    assert not plan(bundle, namespaces=[{"type": "mount", "path": "/proc/self/ns/mnt"}]).private


def test_a_label_means_something_with_selinux_only(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    monkeypatch.setattr(mount_plan.os.path, "exists", lambda path: False)
    assert plan(bundle, mountLabel=label).label == b""
    monkeypatch.setattr(mount_plan.os.path, "exists", lambda path: path == "/sys/fs/selinux/enforce")
    assert plan(bundle, mountLabel=label).label == label.encode()


def test_paths_to_hide_are_tidied_and_hidden_once(bundle: Path) -> None:
    made = plan(bundle, maskedPaths=["/proc/kcore", "/proc//kcore", "/sys/../sys/firmware"])
    assert made.masked == (b"/proc/kcore", b"/sys/firmware")


def test_devices_of_the_config_win_over_the_defaults(bundle: Path) -> None:
    devices = [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o20600, "uid": 5, "gid": 6},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
        {"path": "/dev/loop", "type": "b", "major": 7, "minor": 1},
        {"path": "/dev/pipe", "type": "p"},
    ]
    found = {device.path: device for device in plan(bundle, devices=devices).devices}
    assert len(found) == 8
    null = found[b"/dev/null"]
    assert (null.mode, null.uid, null.gid) == (0o600, 5, 6)
    assert b"/dev/ptmx" not in found
    assert (found[b"/dev/loop"].kind, found[b"/dev/loop"].number) == (stat.S_IFBLK, os.makedev(7, 1))
    assert (found[b"/dev/pipe"].kind, found[b"/dev/zero"].mode) == (stat.S_IFIFO, 0o666)
