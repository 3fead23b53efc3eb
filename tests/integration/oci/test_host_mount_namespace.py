"""A config without a mount namespace: the container is in the runtime's, as the specification has it.

The runtime is run in a mount namespace made for the test, which stands for the host's.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def config(bundle) -> dict[str, Any]:
    made: dict[str, Any] = bundle.config("sh", "-c", "readlink /proc/self/ns/mnt; echo /*; cat /proc/self/mountinfo")
    made["linux"]["namespaces"] = [entry for entry in made["linux"]["namespaces"] if entry["type"] != "mount"]
    return made


def on_host(script: str, ours, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    runtime = f"{ours.command[0]} --root {ours.root}"
    script = f"cp /proc/self/mountinfo $out/before; {script}"
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env={**os.environ, "oci": runtime, **{name: str(value) for name, value in variables.items()}},
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


LEFT = 'diff "$out/before" /proc/self/mountinfo > /dev/null && echo nothing is left'


def test_it_has_a_root_of_its_own_in_the_namespace_of_the_host(bundle, ours, cid, config, tmp_path) -> None:
    done = on_host(
        f'readlink /proc/self/ns/mnt; $oci run --bundle "$bundle" $cid; {LEFT}',
        ours,
        bundle=bundle(config=config),
        cid=cid,
        out=tmp_path,
    )
    host, container, root, *mounts, last = done.stdout.splitlines()
    assert host == container, done.stderr
    assert "/home" in root.split()
    assert "/usr" not in root.split()
    assert any(" /proc rw,relatime - proc proc " in line for line in mounts)
    assert last == "nothing is left"


def test_exec_goes_to_its_root(bundle, ours, cid, config, tmp_path) -> None:
    config["process"]["args"] = ["sleep", "60"]
    script = f"""
        $oci create --bundle "$bundle" $cid > /dev/null 2>&1; $oci start $cid; $oci exec $cid sh -c 'echo /*'
        $oci delete --force $cid; {LEFT}
    """
    done = on_host(script, ours, bundle=bundle(config=config), cid=cid, out=tmp_path)
    root, last = done.stdout.splitlines()
    assert "/home" in root.split()
    assert "/usr" not in root.split()
    assert last == "nothing is left"


def test_nothing_is_left_of_one_that_could_not_be_made(bundle, ours, cid, config, tmp_path) -> None:
    config["mounts"].append({"type": "bind", "source": "/nonexistent", "destination": "/m", "options": ["bind"]})
    done = on_host(
        f'$oci run --bundle "$bundle" $cid; {LEFT}', ours, bundle=bundle(config=config), cid=cid, out=tmp_path
    )
    assert "error mounting" in done.stderr
    assert done.stdout == "nothing is left\n"


def test_a_rootfs_that_is_a_mount_stays_one(bundle, ours, cid, config, tmp_path) -> None:
    script = f"""
        mount -t tmpfs tmpfs "$bundle/rootfs"; cp -a "$copy/." "$bundle/rootfs"; cp /proc/self/mountinfo $out/before
        $oci run --bundle "$bundle" $cid > /dev/null && {LEFT}
    """
    made = bundle(config=config)
    copy = bundle("true") / "rootfs"
    done = on_host(script, ours, bundle=made, copy=copy, cid=cid, out=tmp_path)
    assert (done.stdout, done.stderr) == ("nothing is left\n", "")


@pytest.mark.parametrize(
    ("place", "value"),
    [("maskedPaths", ["/proc/kcore"]), ("readonlyPaths", ["/proc/sys"]), ("rootfsPropagation", "rslave")],
)
def test_what_needs_a_mount_namespace_is_refused(
    place: str, value: Any, bundle, ours, cid, config, tmp_path
) -> None:
    config["linux"][place] = value
    done = on_host(
        f'$oci run --bundle "$bundle" $cid; {LEFT}', ours, bundle=bundle(config=config), cid=cid, out=tmp_path
    )
    assert "without a private m" in done.stderr.lower()
    assert done.stdout == "nothing is left\n"
