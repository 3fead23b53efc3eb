"""A rootfs made by somebody who wants to get out of it, or who changes it while the container is made.

Each test is an attack that has worked on a runtime, by the number it was given.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host, which the attacks are after."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "ptmx").write_text("the host's\n")
    return directory


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    source = tmp_path / "volume"
    source.mkdir()
    (source / "file").write_text("content\n")
    return source


def bind(source: Path | str, destination: str, *options: str) -> dict[str, Any]:
    return {"type": "bind", "source": str(source), "destination": destination, "options": list(options) or ["bind"]}


def without_dev(config: dict[str, Any]) -> dict[str, Any]:
    config["mounts"] = [entry for entry in config["mounts"] if not entry["destination"].startswith("/dev")]
    return config


@pytest.mark.parametrize("link", ["{outside}", "../../../../../../../../../..{outside}"])
def test_a_target_that_is_a_link_out_of_the_root(link: str, bundle, ours, cid, outside, volume) -> None:
    """What is made for a mount is made in the root, and what is mounted is mounted there."""
    config = bundle.config("cat", f"{outside}/file", f"{outside}/sub/file")
    config["mounts"] += [
        bind(volume / "file", "/link/file"),
        bind(volume, "/link/sub"),
        {"type": "tmpfs", "source": "tmpfs", "destination": "/link/tmpfs"},
    ]
    config["linux"]["devices"] = [{"path": "/link/zero", "type": "c", "major": 1, "minor": 5}]
    made = bundle(config=config)
    (made / "rootfs/link").symlink_to(link.format(outside=outside))
    done = ours.run(made, cid)
    assert (done.stdout, done.stderr) == ("content\ncontent\n", "")
    assert os.listdir(outside) == ["ptmx"]


def test_a_dev_that_is_a_link_out_of_the_root(bundle, ours, cid, outside) -> None:
    """CVE-2026-41579: links were made, and ptmx was removed, in a directory of the host."""
    made = bundle(config=without_dev(bundle.config("true")))
    (made / "rootfs/dev").rmdir()
    (made / "rootfs/dev").symlink_to(outside)
    ours.run(made, cid)
    assert os.listdir(outside) == ["ptmx"]
    assert (outside / "ptmx").read_text() == "the host's\n"


@pytest.mark.parametrize("name", ["null", "console", "ptmx", "fd"])
def test_a_node_of_dev_that_is_a_link_out_of_the_root(name: str, bundle, ours, cid, outside) -> None:
    """CVE-2025-52565, CVE-2025-31133: a device, or the terminal, that is made through a link."""
    config = without_dev(bundle.config("ls", "-l", "/dev"))
    made = bundle(config=config)
    (made / "rootfs/dev" / name).symlink_to(outside / "ptmx")
    ours.run(made, cid)
    assert os.listdir(outside) == ["ptmx"]
    assert (outside / "ptmx").read_text() == "the host's\n"


def test_a_console_that_is_a_link(bundle, ours, cid, outside) -> None:
    """CVE-2025-52565: the terminal was bound over what the link led to, /proc/sys/… for instance."""
    config = bundle.config("cat", "/proc/self/mountinfo")
    config["process"]["terminal"] = True
    config["mounts"] = [entry for entry in config["mounts"] if entry["destination"] != "/dev"]
    made = bundle(config=config)
    (made / "rootfs/dev/console").symlink_to("/proc/sys/kernel/core_pattern")
    command = " ".join(map(str, [*ours.command, "--root", ours.root, "run", "--bundle", made, cid]))
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert "core_pattern" not in done.stdout
    assert "/dev/console" in done.stdout
    assert done.returncode != 0


@pytest.mark.parametrize(("name", "fstype"), [("proc", "proc"), ("sys", "sysfs")])
def test_a_proc_or_sys_that_is_a_link(name: str, fstype: str, bundle, ours, cid, volume) -> None:
    """CVE-2023-27561, CVE-2019-19921: with /proc elsewhere, what protects /proc protects nothing."""
    config = bundle.config("cat", "/proc/self/mountinfo")
    config["mounts"] = [entry for entry in config["mounts"] if entry["destination"] != f"/{name}"]
    config["mounts"].append({"type": fstype, "source": fstype, "destination": f"/{name}"})
    made = bundle(config=config)
    (made / "rootfs" / name).rmdir()
    (made / "rootfs/elsewhere").mkdir()
    (made / "rootfs" / name).symlink_to("/elsewhere")
    done = ours.run(made, cid)
    assert done.returncode == 1
    assert f"{fstype}" in done.stderr
    assert "must be mounted on ordinary directory" in done.stderr


@pytest.mark.parametrize("link", ["/proc/self/attr", "/proc/sys/kernel", "/proc/1"])
def test_a_link_to_proc_is_no_way_to_cover_a_part_of_it(link: str, bundle, ours, cid, volume) -> None:
    """CVE-2019-16884: a volume over /proc/self/attr takes the writes that confine the process."""
    config = bundle.config("true")
    config["mounts"].append(bind(volume, "/link"))
    made = bundle(config=config)
    (made / "rootfs/link").symlink_to(link)
    done = ours.run(made, cid)
    assert done.returncode == 1
    assert "cannot be mounted because it is inside /proc" in done.stderr


def test_a_procfs_mounted_elsewhere_is_no_place_for_mounts_either(bundle, ours, cid, volume) -> None:
    config = bundle.config("true")
    config["mounts"] += [
        {"type": "proc", "source": "proc", "destination": "/other"},
        bind(volume, "/other/sys"),
    ]
    done = ours.run(bundle(config=config), cid)
    assert done.returncode == 1
    assert "inside /proc" in done.stderr


@pytest.mark.parametrize("kind", ["link", "file", "other device"])
def test_a_false_null_device_does_not_unmask(kind: str, bundle, ours, cid) -> None:
    """CVE-2025-31133: what the container's /dev/null was, was bound over the masked paths."""
    script = "stat -c '%F %t %T' /proc/timer_list /secret; cat /proc/timer_list /secret"
    config = without_dev(bundle.config("sh", "-c", script))
    config["linux"]["maskedPaths"] = ["/proc/timer_list", "/secret"]
    made = bundle(config=config)
    null = made / "rootfs/dev/null"
    if kind == "link":
        null.symlink_to("/proc/sys/kernel/core_pattern")
    elif kind == "file":
        null.write_text("writable by all")
    else:
        os.mknod(null, 0o020666, os.makedev(1, 5))
    (made / "rootfs/secret").write_text("secret")
    done = ours.run(made, cid)
    assert done.stdout.splitlines() == ["character special file 1 3"] * 2


def test_a_null_device_exchanged_before_the_masks_are_made(bundle, ours, cid, tmp_path) -> None:
    """CVE-2025-31133 by a race, for which a hook stands."""
    script = tmp_path / "hook"
    config = without_dev(bundle.config("sh", "-c", "stat -c '%F %t %T' /secret; cat /secret"))
    config["linux"]["maskedPaths"] = ["/secret"]
    config["hooks"] = {"createRuntime": [{"path": str(script)}]}
    made = bundle(config=config)
    (made / "rootfs/secret").write_text("secret")
    script.write_text(f"#!/bin/sh\ncd {made}/rootfs/dev && rm null && mknod null c 1 5 && touch done\n")
    script.chmod(0o755)
    done = ours.run(made, cid, stdin=subprocess.PIPE)
    assert (made / "rootfs/dev/done").exists()
    assert done.stdout == "character special file 1 3\n"


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_names_exchanged_before_the_masks_are_made(name: str, bundle, ours, cid, tmp_path) -> None:
    """Another container that shares the rootfs renames /proc away: masks by name would go to what is put there.

    A hook of the runtime stands for it. It runs between the mounts and the masks, in another mount namespace, where the
    directory is no mount point and can be renamed.
    """
    hidden = {"proc": "timer_list", "sys": "firmware"}[name]
    config = bundle.config(
        "sh", "-c", f"ls -d /away/{hidden} && wc -c < /away/timer_list; ls -A /away/firmware; echo x"
    )
    config["linux"]["maskedPaths"] = [f"/{name}/{hidden}"]
    config["linux"]["readonlyPaths"] = ["/proc/sys"]
    made = bundle(config=config)
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\ncd {made}/rootfs && mv {name} away && mkdir {name}\n")
    script.chmod(0o755)
    config["hooks"] = {"createRuntime": [{"path": str(script)}]}
    exchanged = bundle(config=config)
    script.write_text(f"#!/bin/sh\ncd {exchanged}/rootfs && mv {name} away && mkdir {name}\n")
    done = ours.run(exchanged, cid)
    assert f"/away/{hidden}" in done.stdout, done.stderr
    if name == "proc":
        assert done.stdout.splitlines()[1] == "0"
    else:
        assert done.stdout.splitlines() == ["/away/firmware", "x"]


RACER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
directory, first, second = (name.encode() for name in sys.argv[1:])
here = os.open(directory, os.O_PATH)
print("ready", flush=True)
while True:
    libc.renameat2(here, first, here, second, 2)
"""


@pytest.fixture
def racer() -> Iterator[Any]:
    """A process that goes on exchanging two names of a directory (renameat2(2), RENAME_EXCHANGE)."""
    processes = []

    def start(directory: Path, first: str, second: str) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", RACER, str(directory), first, second], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_target_exchanged_for_a_link_while_it_is_mounted_on(bundle, ours, cid, outside, volume, racer) -> None:
    """CVE-2021-30465: a volume shared with another container, which exchanges a directory for a link to /."""
    shared = volume.parent / "shared"
    (shared / "target").mkdir(parents=True)
    (shared / "link").symlink_to(f"../../../../../../../../..{outside}")
    config = bundle.config("true")
    config["mounts"].append(bind(shared, "/shared"))
    for n in range(12):
        config["mounts"].append(bind(volume, f"/shared/target/{n}"))
        config["mounts"].append(bind(volume / "file", f"/shared/target/file{n}"))
    made = bundle(config=config)
    racer(shared, "target", "link")
    for n in range(6):
        ours.run(made, f"{cid}-{n}")
    assert os.listdir(outside) == ["ptmx"]


def test_a_dev_exchanged_for_a_link_while_nodes_are_made(bundle, ours, cid, outside, racer) -> None:
    made = bundle(config=without_dev(bundle.config("true")))
    (made / "rootfs/link").symlink_to(outside)
    racer(made / "rootfs", "dev", "link")
    for n in range(6):
        ours.run(made, f"{cid}-{n}")
    assert os.listdir(outside) == ["ptmx"]
    assert (outside / "ptmx").read_text() == "the host's\n"


def test_the_racer_wins_against_who_looks_up_twice(tmp_path, outside, racer) -> None:
    """So that the tests above would see it: a check by name and a write by name, here, lose."""
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(outside)
    racer(tmp_path, "target", "link")
    for n in range(20000):
        if not os.path.islink(tmp_path / "target"):
            try:
                (tmp_path / f"target/{n}").touch()
            except OSError:
                continue
        if len(os.listdir(outside)) > 1:
            return
    raise AssertionError("nothing was exchanged in time")
