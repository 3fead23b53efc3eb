"""What a container sees at /sys/fs/cgroup, in each layout of cgroups."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

CGROUP = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}


def names(layout: Layout) -> list[str]:
    """The directories of the hierarchies; none where the tree of v2 is all that there is."""
    if all(hierarchy.version == 2 for hierarchy in layout.hierarchies):
        return [""]
    return sorted(os.path.basename(hierarchy.mountpoint) for hierarchy in layout.hierarchies)


def with_cgroups(config: dict[str, Any], *options: str, own_namespace: bool) -> dict[str, Any]:
    config["mounts"].append({**CGROUP, "options": ["nosuid", "noexec", "nodev", "relatime", *options]})
    if own_namespace:
        config["linux"]["namespaces"].append({"type": "cgroup"})
    return config


def in_user_namespace(config: dict[str, Any]) -> dict[str, Any]:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"].update(uidMappings=maps, gidMappings=maps)
    return config


def give_to_its_root(rootfs: Path) -> None:
    for path in (rootfs, *rootfs.rglob("*")):
        os.lchown(path, 100000, 100000)


LOOK = "cd /sys/fs/cgroup; for d in {}; do cat ./$d/cgroup.procs; done"


@pytest.mark.parametrize("own_namespace", [True, False])
@pytest.mark.parametrize("userns", [False, True])
def test_the_containers_own_cgroup_is_what_is_shown(
    own_namespace: bool, userns: bool, bundle, ours, cid, layout: Layout
) -> None:
    """Its first process is in the cgroup at the top of each, and no process of the host is, which would show as 0."""
    found = names(layout)
    config = bundle.config("sh", "-c", LOOK.format(" ".join(name or "." for name in found)))
    with_cgroups(config, "ro", own_namespace=own_namespace)
    made = bundle(config=in_user_namespace(config) if userns else config)
    if userns:
        give_to_its_root(made / "rootfs")
    done = ours.run(made, cid)
    assert (done.returncode, done.stderr) == (0, "")
    if found == [""] and not own_namespace and not userns:
        return  # without a namespace v2 shows the whole tree, as it does with runc
    shown = done.stdout.split()
    assert shown.count("1") == len(found)
    assert "0" not in shown


@pytest.mark.parametrize("own_namespace", [True, False])
def test_read_only_where_that_is_asked(own_namespace: bool, bundle, ours, cid, layout: Layout) -> None:
    found = names(layout)
    script = f"cd /sys/fs/cgroup; for d in {' '.join(name or '.' for name in found)}; do mkdir $d/new; done 2>&1"
    done = ours.run(
        bundle(config=with_cgroups(bundle.config("sh", "-c", script), "ro", own_namespace=own_namespace)), cid
    )
    assert done.stdout.count("Read-only file system") == len(found), done.stdout


def test_writable_where_that_is_asked(bundle, ours, cid, layout: Layout) -> None:
    found = names(layout)
    places = " ".join(name or "." for name in found)
    script = f"cd /sys/fs/cgroup; for d in {places}; do mkdir $d/new; ls $d/new/cgroup.procs; rmdir $d/new; done"
    done = ours.run(bundle(config=with_cgroups(bundle.config("sh", "-ec", script), own_namespace=True)), cid)
    assert (done.returncode, done.stderr) == (0, "")


def test_controllers_that_share_a_hierarchy_have_names_of_their_own(bundle, ours, cid, layout: Layout) -> None:
    config = with_cgroups(bundle.config("sh", "-c", "cd /sys/fs/cgroup; ls"), "ro", own_namespace=True)
    shown = set(ours.run(bundle(config=config), cid).stdout.split())
    for hierarchy in layout.hierarchies:
        if hierarchy.version == 1:
            assert {name.rpartition("=")[2] for name in hierarchy.controllers} <= shown
    if names(layout) == [""]:
        assert "cgroup.controllers" in shown


def test_what_the_config_mounts_there_itself_stays(bundle, ours, cid, layout: Layout, tmp_path: Path) -> None:
    """Podman binds a hierarchy of its choice for a systemd in the container."""
    found = names(layout)
    if found == [""]:
        pytest.skip("the tree of v2 has no directories for hierarchies to bind over")
    (tmp_path / "mark").touch()
    config = with_cgroups(bundle.config("ls", f"/sys/fs/cgroup/{found[0]}"), "ro", own_namespace=True)
    config["mounts"].append(
        {"type": "bind", "source": str(tmp_path), "destination": f"/sys/fs/cgroup/{found[0]}", "options": ["bind"]}
    )
    assert "mark" in ours.run(bundle(config=config), cid).stdout.split()


def test_without_a_mount_of_cgroups_none_are_shown(bundle, ours, cid) -> None:
    done = ours.run(bundle("sh", "-c", "ls -A /sys/fs/cgroup; grep -c cgroup /proc/self/mountinfo"), cid)
    assert done.stdout == "0\n"


def test_the_type_cgroup2(bundle, ours, cid, layout: Layout) -> None:
    """By its own name v2 is mounted wherever it is asked for, on a host that has it in use."""
    config = bundle.config("cat", "/v2/cgroup.procs")
    config["mounts"].append({"type": "cgroup2", "source": "cgroup2", "destination": "/v2", "options": ["ro"]})
    config["linux"]["namespaces"].append({"type": "cgroup"})
    done = ours.run(bundle(config=config), cid)
    if any(hierarchy.version == 2 for hierarchy in layout.hierarchies):
        assert done.stdout.split() == ["1"], done.stderr
    else:
        assert done.returncode == 0, done.stderr
