"""The mounts of config.json: what a process in the container sees of them, and what they do."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

BINDS: list[list[str]] = [
    ["bind"],
    ["rbind"],
    ["rbind", "ro"],
    ["bind", "ro", "nosuid", "nodev", "noexec"],
    ["bind", "ro", "rw"],
    ["bind", "noexec", "exec", "nosuid", "suid", "nodev", "dev"],
    ["bind", "noatime"],
    ["bind", "strictatime"],
    ["bind", "nodiratime"],
    ["bind", "relatime", "nodiratime"],
    ["bind", "norelatime"],
    ["bind", "sync", "silent", "lazytime"],
    ["bind", "defaults"],
    ["bind", "a-word-for-no-one"],
    ["rbind", "private"],
    ["rbind", "rprivate"],
    ["rbind", "slave"],
    ["rbind", "rslave"],
    ["rbind", "shared"],
    ["rbind", "rshared"],
    ["rbind", "unbindable"],
    ["rbind", "runbindable"],
    ["bind", "rro"],
    ["bind", "ro", "rrw"],
    ["rbind", "rnosuid", "rnodev", "rnoexec"],
    ["rbind", "rnoatime"],
    ["rbind", "rstrictatime"],
    ["rbind", "rrelatime"],
    ["rbind", "rnodiratime"],
    ["rbind", "noatime", "rnodiratime"],
]

TMPFS: list[list[str]] = [
    [],
    ["size=1m", "mode=0700", "uid=5", "gid=6"],
    ["size=1m,mode=0711"],
    ["nr_inodes=100"],
    ["ro"],
    ["ro", "noexec"],
    ["noatime"],
    ["strictatime"],
    ["nodiratime"],
    ["noatime", "strictatime"],
    ["relatime", "noatime"],
    ["sync"],
    ["dirsync"],
    ["sync", "async"],
    ["lazytime"],
    ["iversion", "silent"],
    ["loud", "noiversion", "nolazytime"],
    ["acl"],
    ["rprivate"],
    ["shared"],
    ["unbindable"],
    ["tmpcopyup"],
]

OTHERS: list[dict[str, Any]] = [
    {"type": "tmpfs", "source": "a name"},
    {"type": "proc", "source": "proc", "options": ["ro", "nosuid", "nodev", "noexec"]},
    {"type": "proc", "source": "p"},
    {"type": "sysfs", "source": "sysfs"},
    {"type": "mqueue", "source": "mqueue", "options": ["nosuid"]},
    {"type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0600", "mode=0600"]},
    {"type": "ramfs", "source": "ramfs", "options": ["nodev"]},
]


def seen(mountinfo: str, below: str) -> dict[str, list[str]]:
    """Of each mount below a directory, in order: its root, its options and propagation, type, source, and its
    file system's options."""
    found: dict[str, list[str]] = {}
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        dash = fields.index("-")
        if fields[4].startswith(below):
            propagation = [tag.split(":")[0] for tag in fields[6:dash]]
            found.setdefault(fields[4], []).append(" ".join([fields[3], fields[5], *propagation, *fields[dash + 1 :]]))
    return found


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    source = tmp_path / "volume"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("content\n")
    return source


def in_mount_namespace(script: str, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script where what it mounts is seen by nobody else."""
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script],
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def on_terminal(command: list[Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["script", "-qec", shlex.join(map(str, command)), "/dev/null"],
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def bind(source: Path | str, destination: str, *options: str) -> dict[str, Any]:
    return {"type": "bind", "source": str(source), "destination": destination, "options": list(options)}


@pytest.mark.parametrize("kind", ["bind", "file", "tmpfs", "others"])
def test_a_process_sees_the_mounts_that_it_sees_with_runc(kind: str, bundle, ours, runc, cid, volume) -> None:
    if kind == "bind":
        mounts = [bind(volume, f"/m/{n:02}", *options) for n, options in enumerate(BINDS)]
    elif kind == "file":
        mounts = [bind(volume / "file", f"/m/{n:02}", *options) for n, options in enumerate(BINDS[:16])]
    elif kind == "tmpfs":
        mounts = [
            {"type": "tmpfs", "source": "tmpfs", "destination": f"/m/{n:02}", "options": options}
            for n, options in enumerate(TMPFS)
        ]
    else:
        mounts = [{"destination": f"/m/{n:02}", **entry} for n, entry in enumerate(OTHERS)]
    config = bundle.config("cat", "/proc/self/mountinfo")
    config["mounts"] += mounts
    of_ours = ours.run(bundle(config=config), cid)
    of_runc = runc.run(bundle(config=config), cid)
    assert (of_ours.returncode, of_ours.stderr) == (0, "")
    mine, theirs = seen(of_ours.stdout, "/m"), seen(of_runc.stdout, "/m")
    assert len(mine) == len(mounts)
    for n, entry in enumerate(mounts):
        assert mine[f"/m/{n:02}"] == theirs[f"/m/{n:02}"], entry


def test_the_mounts_of_a_usual_config_are_those_of_runc(bundle, ours, runc, cid) -> None:
    config = bundle.config("cat", "/proc/self/mountinfo")
    config["root"]["readonly"] = True
    config["linux"]["readonlyPaths"] = ["/proc/bus", "/proc/sys", "/proc/sysrq-trigger", "/proc/none"]
    of_ours = ours.run(bundle(config=config), cid)
    of_runc = runc.run(bundle(config=config), cid)
    mine, theirs = seen(of_ours.stdout, "/"), seen(of_runc.stdout, "/")
    mine["/"], theirs["/"] = ([line.partition(" ")[2] for line in found["/"]] for found in (mine, theirs))
    assert mine == theirs


def test_a_later_mount_covers_an_earlier_one(bundle, ours, cid, volume) -> None:
    mounts = [
        bind(volume, "/m", "bind"),
        {"type": "tmpfs", "source": "tmpfs", "destination": "/m/below", "options": ["ro"]},
        bind(volume / "file", "/m/below/deep/name", "bind"),
        bind(volume, "relative", "bind"),
        bind(volume, "/a/b/../../tidy", "bind"),
    ]
    config = bundle.config("cat", "/m/file", "/m/below/deep/name", "/relative/file", "/tidy/file")
    config["mounts"] += mounts
    done = ours.run(bundle(config=config), cid)
    assert (done.stdout, done.stderr) == ("content\n" * 4, "")
    assert os.listdir(volume / "below") == []


def test_the_size_of_a_tmpfs_holds(bundle, ours, cid) -> None:
    config = bundle.config("sh", "-c", "dd if=/dev/zero of=/m/x bs=64k count=32 2>&1; stat -c '%s %a %u %g' /m/x /m")
    config["mounts"].append(
        {"type": "tmpfs", "destination": "/m", "options": ["size=1m", "mode=0750", "uid=5", "gid=6"]}
    )
    done = ours.run(bundle(config=config), cid)
    assert "No space left on device" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["1048576 644 0 0", "60 750 5 6"]


def test_a_tmpfs_takes_the_mode_of_what_it_covers(bundle, ours, cid) -> None:
    config = bundle.config("stat", "-c", "%a", "/tmp", "/home/alice", "/new")
    for destination in ("/tmp", "/home/alice", "/new"):
        config["mounts"].append({"type": "tmpfs", "source": "tmpfs", "destination": destination})
    made = bundle(config=config)
    (made / "rootfs/home/alice").chmod(0o2711)
    assert ours.run(made, cid).stdout.split() == ["1777", "2711", "1777"]


@pytest.mark.vm
def test_what_tmpcopyup_copies_counts_for_the_limit_of_memory(bundle, ours, cid) -> None:
    """A root is as large as its maker likes."""
    limit = {"limit": 40 << 20, "swap": 40 << 20}
    made = bundle("touch", "/ran", linux__resources={"memory": limit})
    (made / "rootfs/large").mkdir()
    (made / "rootfs/large/file").write_bytes(os.urandom(1 << 20) * 64)
    assert ours.run(made, cid).returncode == 0
    assert (made / "rootfs/ran").exists()
    (made / "rootfs/ran").unlink()
    config = json.loads((made / "config.json").read_text())
    config["mounts"].append({"type": "tmpfs", "source": "tmpfs", "destination": "/large", "options": ["tmpcopyup"]})
    (made / "config.json").write_text(json.dumps(config))
    done = ours.run(made, cid)
    assert done.returncode == 1, done
    assert "was killed while it was set up" in done.stderr
    assert not (made / "rootfs/ran").exists()


def test_tmpcopyup_brings_the_content_along(bundle, ours, cid) -> None:
    look = "cd /etc; cat passwd deep/file; stat -c '%F %a %u %g %n' passwd deep deep/file link pipe; readlink link"
    config = bundle.config("sh", "-c", f"{look}; echo changed > /etc/passwd; grep ' /etc ' /proc/self/mountinfo")
    config["mounts"].append({"type": "tmpfs", "source": "tmpfs", "destination": "/etc", "options": ["tmpcopyup", "ro"]})
    config["mounts"][-1]["options"].remove("ro")
    made = bundle(config=config)
    etc = made / "rootfs/etc"
    (etc / "passwd").write_text("the users\n")
    (etc / "deep").mkdir(mode=0o700)
    (etc / "deep/file").write_text("deep\n")
    (etc / "deep/file").chmod(0o4755)
    os.chown(etc / "deep", 7, 8)
    (etc / "link").symlink_to("/nowhere")
    os.mkfifo(etc / "pipe", 0o640)
    done = ours.run(made, cid)
    assert done.stdout.splitlines()[:8] == [
        "the users",
        "deep",
        "regular file 644 0 0 passwd",
        "directory 700 7 8 deep",
        "regular file 4755 0 0 deep/file",
        "symbolic link 777 0 0 link",
        "fifo 640 0 0 pipe",
        "/nowhere",
    ], done.stderr
    assert " - tmpfs tmpfs " in done.stdout
    assert (etc / "passwd").read_text() == "the users\n"


def test_attributes_do_what_they_say(bundle, ours, cid, volume) -> None:
    """ro, noexec, nodev and nosymfollow, each by what is refused then."""
    (volume / "script").write_text("#!/bin/sh\necho ran\n")
    (volume / "script").chmod(0o755)
    (volume / "link").symlink_to("file")
    os.mknod(volume / "null", 0o020666, os.makedev(1, 3))
    tries = "touch {0}/new; {0}/script; true > {0}/null; cat {0}/link; true"
    config = bundle.config(
        "sh", "-c", "exec 2>&1; " + "; ".join(f"echo {d}; {tries.format(d)}" for d in ("/free", "/tied"))
    )
    config["mounts"].append(bind(volume, "/free", "bind"))
    config["mounts"].append(bind(volume, "/tied", "bind", "ro", "noexec", "nodev", "nosymfollow"))
    lines = ours.run(bundle(config=config), cid).stdout.splitlines()
    assert lines[:3] == ["/free", "ran", "content"]
    assert [line.rpartition(": ")[2] for line in lines[4:]] == [
        "Read-only file system",
        "Permission denied",
        "Permission denied",
        "Too many levels of symbolic links",
    ]


@pytest.mark.parametrize(
    ("options", "above", "below"),
    [
        (["rbind"], "written", "written"),
        (["rbind", "ro"], "Read-only file system", "written"),
        (["rbind", "rro"], "Read-only file system", "Read-only file system"),
        (["rbind", "rro", "rw"], "Read-only file system", "Read-only file system"),
    ],
)
def test_the_recursive_options_reach_what_is_mounted_below(
    options: list[str], above: str, below: str, bundle, ours, cid, volume
) -> None:
    script = "exec 2>&1; for d in /m /m/below; do (echo x > $d/new) && echo written; done; true"
    config = bundle.config("sh", "-c", script)
    config["mounts"].append(bind(volume, "/m", *options))
    run = [*ours.command, "--root", ours.root, "run", "--bundle", bundle(config=config), cid]
    done = in_mount_namespace('mount -t tmpfs tmpfs "$below"; exec $run', below=volume / "below", run=words(run))
    assert [line.rpartition(": ")[2] for line in done.stdout.splitlines()] == [above, below], done.stderr


def words(command: list[Any]) -> str:
    text = [str(word) for word in command]
    assert not any(set(word) & set(" *?[") for word in text)
    return " ".join(text)


@pytest.mark.parametrize(
    ("option", "in_container", "on_host"),
    [("rprivate", False, False), ("rslave", True, False), ("rshared", True, True), ("", True, False)],
)
def test_mounts_reach_as_far_as_the_propagation_says(
    option: str, in_container: bool, on_host: bool, bundle, ours, cid, volume
) -> None:
    """What the host mounts in a volume after ``create``, and what the container mounts there."""
    (volume / "host").mkdir()
    (volume / "container").mkdir()
    script = "mount -t tmpfs tmpfs /m/container && : > /m/container/here; [ ! -e /m/host/here ] || : > /m/file-seen"
    config = bundle.config("sh", "-c", script)
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
    config["mounts"].append(bind(volume, "/m", "rbind", *([option] if option else [])))
    if option == "rshared":
        config["linux"]["rootfsPropagation"] = "rshared"  # as engines set it: else all is a slave of the host's
    outer = """
        mount --bind "$volume" "$volume"; mount --make-shared "$volume"
        $ours create --bundle "$bundle" "$cid" > /dev/null
        mount -t tmpfs tmpfs "$volume/host"; : > "$volume/host/here"
        $ours start "$cid"
        while [ "$($ours state "$cid" | grep -c stopped)" = 0 ]; do sleep 0.1; done
        [ ! -e "$volume/file-seen" ] || echo in the container
        [ ! -e "$volume/container/here" ] || echo on the host
        $ours delete "$cid"
    """
    runtime = words([*ours.command, "--root", ours.root])
    done = in_mount_namespace(outer, volume=volume, ours=runtime, bundle=bundle(config=config), cid=cid)
    expected = ["in the container"] * in_container + ["on the host"] * on_host
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")


def test_a_root_stays_a_slave_of_the_host_where_that_is_asked(bundle, ours, cid) -> None:
    for propagation in (None, "slave", "rslave"):
        made = bundle("cat", "/proc/self/mountinfo", linux__rootfsPropagation=propagation)
        run = words([*ours.command, "--root", ours.root, "run", "--bundle", made, cid])
        done = in_mount_namespace("mount --make-rshared /; exec $run", run=run)
        assert seen(done.stdout, "/")["/"][0].split()[2] == "master", (propagation, done.stderr)


@pytest.mark.parametrize(
    ("propagation", "expected"),
    [
        (None, "private"),
        ("private", "private"),
        ("rprivate", "private"),
        ("slave", "private"),
        ("rslave", "private"),
        ("shared", "shared"),
        ("rshared", "shared"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ],
)
def test_the_propagation_of_the_root(propagation: str | None, expected: str, bundle, ours, cid) -> None:
    """By what happens in the container: the root is bound, and something is mounted below the root."""
    script = """
        mkdir -p /copy /new; mount --bind / /copy 2> /dev/null || { echo unbindable; exit; }
        mount -t tmpfs tmpfs /new; : > /new/here; [ -e /copy/new/here ] && echo shared || echo private
    """
    config = bundle.config("sh", "-c", script)
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
    made = bundle(config=config, linux__rootfsPropagation=propagation)
    done = ours.run(made, cid)
    assert (done.stdout.split(), done.stderr) == ([expected], "")
    assert not (made / "rootfs/new/here").exists()


def test_a_shared_root_leaves_no_mount_on_the_host(bundle, ours, cid, volume) -> None:
    """The rootfs lies on a mount that is shared with the host, a volume is one, and the config shares all."""
    config = bundle.config("true")
    config["mounts"].append(bind(volume, "/m", "rbind"))
    made = bundle(config=config, linux__rootfsPropagation="rshared")
    outer = """
        for m in "$bundle" "$volume"; do mount --bind "$m" "$m"; mount --make-shared "$m"; done
        mount -t tmpfs tmpfs "$volume/below"; cp /proc/self/mountinfo "$bundle/before"
        $run; diff "$bundle/before" /proc/self/mountinfo && echo unchanged
    """
    run = words([*ours.command, "--root", ours.root, "run", "--bundle", made, cid])
    done = in_mount_namespace(outer, bundle=made, volume=volume, run=run)
    assert (done.stdout, done.stderr) == ("unchanged\n", "")


def test_a_read_only_root(bundle, ours, cid) -> None:
    config = bundle.config("sh", "-c", "echo x > /new; echo x > /tmp/new && cat /tmp/new")
    config["mounts"].append({"type": "tmpfs", "source": "tmpfs", "destination": "/tmp"})
    done = ours.run(bundle(config=config, root__readonly=True), cid)
    assert done.stdout == "x\n"
    assert "Read-only file system" in done.stderr


def test_the_rootfs_by_a_link_and_by_an_absolute_path(bundle, ours, cid, tmp_path) -> None:
    made = bundle("cat", "/mark", root__path="current")
    (made / "rootfs/mark").write_text("inside\n")
    (made / "current").symlink_to("rootfs")
    assert ours.run(made, cid).stdout == "inside\n"
    absolute = bundle("cat", "/mark", root__path=str(made / "rootfs"))
    assert ours.run(absolute, cid).stdout == "inside\n"


def test_remount_changes_what_is_there(bundle, ours, cid) -> None:
    config = bundle.config("cat", "/proc/self/mountinfo")
    config["mounts"].append(bind("", "/dev/shm", "bind", "remount", "ro", "nosuid"))
    config["mounts"].append(
        {"type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": ["remount", "nosuid", "size=128k"]}
    )
    found = seen(ours.run(bundle(config=config), cid).stdout, "/dev")
    assert found["/dev/shm"][0].startswith("/ ro,nosuid,relatime tmpfs shm rw")
    assert "size=128k" in found["/dev"][0]


def test_overlay_with_more_options_than_fsconfig_takes(bundle, ours, cid, volume) -> None:
    """fsconfig(2) takes 255 bytes a value; layers of images have longer lists."""
    layers = [volume / f"layer{n:02}" for n in range(20)]
    for layer in layers:
        layer.mkdir()
        (layer / f"of-{layer.name}").touch()
    (volume / "upper").mkdir()
    (volume / "work").mkdir()
    config = bundle.config("sh", "-c", "ls /m | wc -l; touch /m/new; grep ' /m ' /proc/self/mountinfo")
    options = [f"lowerdir={':'.join(map(str, layers))}", f"upperdir={volume}/upper", f"workdir={volume}/work"]
    config["mounts"].append(
        {"type": "overlay", "source": "overlay", "destination": "/m", "options": [*options, "nodev", "private"]}
    )
    done = ours.run(bundle(config=config), cid)
    assert done.stdout.split()[0] == "20", done.stderr
    assert " rw,nodev,relatime - overlay overlay " in done.stdout
    assert (volume / "upper/new").exists()


def test_without_pivot_root(bundle, ours, cid) -> None:
    script = "ls /; grep -c . /proc/self/mountinfo; mount | grep -c ' on /proc '"
    done = ours.run(bundle("sh", "-c", script), cid, "--no-pivot")
    assert done.returncode == 0, done.stderr
    assert {"bin", "proc", "sys"} <= set(done.stdout.split())
    refused = ours.run(bundle("true", linux__rootfsPropagation="private"), cid, "--no-pivot")
    assert "rootfsPropagation of [r]private is not safe without pivot_root" in refused.stderr


def test_without_pivot_root_the_hosts_proc_is_out_of_reach(bundle, ours, cid) -> None:
    """Else root of a new user namespace can mount a /proc without what covers the container's: the kernel lets it if
    the namespace has one that is not covered, and below a moved root the host's still is."""
    config = bundle.config("sh", "-c", "exec 2>&1; busybox unshare -mrpf mount -t proc none /proc; echo end")
    for kind in ("bounding", "permitted", "effective"):
        config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
    config["linux"]["maskedPaths"] = ["/proc/timer_list"]
    done = ours.run(bundle(config=config), cid, "--no-pivot")
    assert "mount: permission denied" in done.stdout, (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("entry", "words_of_error"),
    [
        ({"type": "bind", "source": "/nonexistent/source", "options": ["bind"]}, "no such file or directory"),
        ({"type": "bind", "source": "/etc", "destination": "/bin/busybox", "options": ["bind"]}, "not a directory"),
        ({"type": "bind", "source": "/etc/passwd", "destination": "/bin", "options": ["bind"]}, "not a directory"),
        ({"type": "nosuchfs", "source": "x"}, "no such device"),
        ({"type": "tmpfs", "options": ["a-word-for-no-one"]}, "unknown parameter 'a-word-for-no-one'"),
        ({"type": "tmpfs", "options": ["mode=9"]}, "bad value for 'mode'"),
        ({"source": "x"}, "a mount needs a type, or the option bind"),
        ({"type": "bind", "options": ["bind"]}, "a bind mount needs a source"),
        ({"type": "bind", "source": "/etc", "options": ["bind", "tmpcopyup"]}, "tmpcopyup is an option of tmpfs"),
        ({"type": "tmpfs", "options": ["idmap"]}, "only a bind mount can be id-mapped"),
        ({"type": "bind", "source": "/etc", "options": ["bind", "idmap"]}, "uidmappings"),
        ({"type": "tmpfs", "destination": "/proc"}, "cannot be mounted because it is not of type proc"),
        ({"type": "bind", "source": "/etc", "destination": "/proc", "options": ["bind"]}, "not of type proc"),
        (
            {"type": "bind", "source": "/etc/passwd", "destination": "/proc/version", "options": ["bind"]},
            "inside /proc",
        ),
        ({"type": "tmpfs", "destination": "/proc/sys"}, "inside /proc"),
    ],
)
def test_what_cannot_be_mounted_is_named(entry: dict[str, Any], words_of_error: str, bundle, ours, cid) -> None:
    entry = {"destination": "/m", **entry}
    config = bundle.config("true")
    config["mounts"].append(entry)
    done = ours.run(bundle(config=config), cid)
    assert done.returncode == 1
    assert words_of_error in done.stderr.lower()
    assert entry["destination"] in done.stderr
    assert cid not in (os.listdir(ours.root) if ours.root.exists() else [])


@pytest.mark.parametrize("name", ["cpuinfo", "meminfo", "stat", "uptime", "loadavg"])
def test_the_files_of_lxcfs_may_cover_those_of_proc(name: str, bundle, ours, cid, volume) -> None:
    config = bundle.config("cat", f"/proc/{name}")
    config["mounts"].append(bind(volume / "file", f"/proc/{name}", "bind"))
    assert ours.run(bundle(config=config), cid).stdout == "content\n"


def test_the_default_devices_and_links(bundle, ours, runc, cid) -> None:
    script = "cd /dev; stat -c '%n %F %a %t %T %u %g' *; for l in fd stdin stdout stderr ptmx; do readlink $l; done"
    made = bundle("sh", "-c", script)
    mine, theirs = (runtime.run(made, cid).stdout.splitlines() for runtime in (ours, runc))
    assert len(mine) > 10
    assert mine == theirs


def test_devices_of_the_config(bundle, ours, runc, cid) -> None:
    devices = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/deep/er/loop", "type": "b", "major": 7, "minor": 0},
        {"path": "/run/pipe", "type": "p", "fileMode": 0o600},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 5},
    ]
    script = "stat -c '%n %F %a %t %T %u %g' " + " ".join(device["path"] for device in devices)
    config = bundle.config("sh", "-c", script)
    config["linux"]["devices"] = devices
    mine, theirs = (runtime.run(bundle(config=config), cid) for runtime in (ours, runc))
    assert mine.stdout.splitlines()[0] == "/dev/fuse character special file 640 a e5 7 8", mine.stderr
    assert (mine.stdout, mine.stderr) == (theirs.stdout, theirs.stderr)


def test_a_file_in_the_place_of_a_device_gives_way(bundle, ours, cid) -> None:
    config = bundle.config("stat", "-c", "%F %t %T", "/dev/null")
    config["mounts"] = [entry for entry in config["mounts"] if not entry["destination"].startswith("/dev")]
    made = bundle(config=config)
    (made / "rootfs/dev/null").write_text("not a device")
    assert ours.run(made, cid).stdout == "character special file 1 3\n"


def test_a_dev_that_is_elsewhere_in_the_root(bundle, ours, cid) -> None:
    config = bundle.config("sh", "-c", "ls -l /elsewhere/null /elsewhere/fd; echo x > /dev/null; ls /dev/pts")
    config["mounts"] = [entry for entry in config["mounts"] if entry["destination"] != "/dev"]
    made = bundle(config=config)
    (made / "rootfs/dev").rmdir()
    (made / "rootfs/elsewhere").mkdir()
    (made / "rootfs/dev").symlink_to("elsewhere")
    done = ours.run(made, cid)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[0] for line in done.stdout.splitlines()] == ["l", "c", "p"]  # the last is pts/ptmx


def test_a_bind_of_dev_gets_no_nodes(bundle, ours, cid, volume) -> None:
    config = bundle.config("ls", "/dev")
    config["mounts"] = [entry for entry in config["mounts"] if not entry["destination"].startswith("/dev")]
    config["mounts"].append(bind(volume, "/dev", "rbind"))
    assert ours.run(bundle(config=config), cid).stdout.split() == ["below", "file"]
    assert sorted(os.listdir(volume)) == ["below", "file"]


@pytest.mark.parametrize(
    ("host", "options", "expected", "in_user_namespace"),
    [
        ("ro,noexec,nosymfollow,nodiratime", ["bind"], "ro,noexec,nodiratime,relatime,nosymfollow", None),
        ("ro,noexec,nosymfollow", ["bind", "dev"], "rw,relatime", "ro,noexec,relatime"),
        ("nodev,nosymfollow", ["bind", "ro", "symfollow"], "ro,relatime", "ro,nodev,relatime"),
        ("ro", ["bind", "rw"], "rw,relatime", "refused"),
        ("noatime", ["bind", "atime"], "rw,noatime", None),
        ("noatime", ["bind", "norelatime"], "rw,noatime", None),
        ("noatime", ["bind", "relatime"], "rw,relatime", "refused"),
        ("noatime", ["bind", "nodiratime"], "rw,nodiratime,relatime", "refused"),
        ("nodiratime", ["bind", "diratime"], "rw,nodiratime,relatime", None),
        ("nodiratime", ["bind", "strictatime"], "rw", "refused"),
        ("strictatime", ["bind", "nostrictatime"], "rw", None),
        ("strictatime", ["bind", "ro"], "ro", None),
        ("nosuid,nodev,noexec,noatime", ["bind", "dev", "suid", "exec"], "rw,noatime", "refused"),
    ],
)
def test_a_bind_of_a_mount_with_attributes(
    host: str, options: list[str], expected: str, in_user_namespace: str | None, bundle, ours, cid, volume
) -> None:
    """What is not named is taken off, times of access are kept; in a user namespace all that is locked is kept."""
    script = """
        mount -t tmpfs -o strictatime tmpfs "$volume"
        [ "$host" = strictatime ] || mount -o remount,bind,relatime "$volume"
        mount -o "remount,bind,$host" "$volume"; exec $run
    """
    for wanted in (expected, in_user_namespace or expected):
        config = bundle.config("cat", "/proc/self/mountinfo")
        config["mounts"].append(bind(volume, "/m", *options))
        if wanted is not expected or in_user_namespace is None:
            config = user_namespace(config) if "user" not in str(config["linux"]["namespaces"]) else config
        made = bundle(config=config)
        open_to_all(made / "rootfs", volume)
        run = words([*ours.command, "--root", ours.root, "run", "--bundle", made, cid])
        done = in_mount_namespace(script, volume=volume, host=host, run=run)
        if wanted == "refused":
            assert "operation not permitted" in done.stderr
        else:
            assert seen(done.stdout, "/m")["/m"][0].split()[1] == wanted, done.stderr


@pytest.mark.parametrize("options", [["rbind"], ["rbind", "idmap"]])
def test_a_source_that_an_earlier_mount_has_made(options: list[str], bundle, ours, cid, volume) -> None:
    """Sources are looked up when it is their turn; and a destination may be given as the host knows it."""
    made = bundle("true")
    rootfs = made / "rootfs"
    config = json.loads((made / "config.json").read_text())
    config["process"]["args"] = ["cat", "/final/below/file"]
    config["mounts"] += [
        bind(volume, "/mnt", "bind"),
        bind(volume, "/mnt/below", "bind"),
        bind(rootfs / "mnt", f"{rootfs}/final", *options),
    ]
    if "idmap" in options:
        maps = [{"containerID": 0, "hostID": 0, "size": 1000}]
        config["mounts"][-1].update(uidMappings=maps, gidMappings=maps)
    (made / "config.json").write_text(json.dumps(config))
    done = ours.run(made, cid)
    assert (done.stdout, done.stderr) == ("content\n", "")


def test_in_a_user_namespace_ids_are_mapped_of_what_mounts_have_made(bundle, ours, cid, volume) -> None:
    """Only outside of it ids can be mapped, and outside the container's mounts are not there."""
    made = bundle("true")
    config = user_namespace(json.loads((made / "config.json").read_text()))
    config["process"]["args"] = ["sh", "-c", "cat /one/file; stat -c %u /one/file /two/file /mnt/file"]
    config["mounts"] += [
        bind(volume, "/mnt", "bind"),
        bind(made / "rootfs/mnt", "/one", "rbind", "idmap"),
        bind(made / "rootfs/mnt", "/two", "rbind", "ridmap"),
    ]
    (made / "rootfs/mnt").mkdir(exist_ok=True)
    open_to_all(made / "rootfs")
    (made / "config.json").write_text(json.dumps(config))
    done = ours.run(made, cid)
    assert (done.stdout.split(), done.stderr) == (["content", "0", "0", "65534"], "")
    config["mounts"].append(bind(made / "rootfs/mnt/missing", "/three", "rbind", "idmap"))
    (made / "config.json").write_text(json.dumps(config))
    refused = ours.run(made, cid)
    assert refused.returncode == 1
    assert "its ids cannot be mapped, or it is not there" in refused.stderr


def test_a_target_below_a_link_that_leads_nowhere_yet(bundle, ours, cid, volume) -> None:
    config = bundle.config("cat", "/run/made/for/it/hosts", "/run/dir/file")
    config["mounts"] += [bind(volume / "file", "/etc/hosts", "bind"), bind(volume, "/etc/dir", "bind")]
    made = bundle(config=config)
    (made / "rootfs/jump").symlink_to("/run/made/for")
    (made / "rootfs/etc/hosts").symlink_to("../jump/it/hosts")
    (made / "rootfs/etc/dir").symlink_to("/run/dir")
    done = ours.run(made, cid)
    assert (done.stdout, done.stderr) == ("content\n" * 2, "")


def test_a_mount_on_the_root(bundle, ours, cid, tmp_path, bundle_template) -> None:
    (bundle_template / "other").touch()
    config = bundle.config("sh", "-c", "echo *; touch /new; cat /proc/self/mountinfo")
    config["mounts"].insert(0, bind(bundle_template, "/", "bind"))
    config["linux"]["maskedPaths"] = ["/etc/passwd"]
    done = ours.run(bundle(config=config), cid)
    (bundle_template / "other").unlink()
    (bundle_template / "new").unlink()
    assert "other" in done.stdout.split("\n")[0].split(), done.stderr
    config["mounts"][0] = {"type": "tmpfs", "source": "tmpfs", "destination": "/", "options": ["tmpcopyup"]}
    made = bundle(config=config)
    done = ours.run(made, cid)
    assert done.returncode == 0, done.stderr
    assert " / / rw,relatime - tmpfs tmpfs" in done.stdout
    assert not (made / "rootfs/new").exists()


def test_links_copied_and_not_followed(bundle, ours, cid, volume) -> None:
    (volume / "link").symlink_to("nowhere")
    config = bundle.config("sh", "-c", "readlink /copied; readlink /bound")
    config["mounts"] += [
        bind(volume / "link", "/copied", "rbind", "copy-symlink"),
        bind(volume / "link", "/bound", "bind", "src-nofollow", "dest-nofollow"),
    ]
    made = bundle(config=config)
    (made / "rootfs/bound").symlink_to("elsewhere")
    done = ours.run(made, cid)
    assert (done.stdout.split(), done.stderr) == (["nowhere"] * 2, "")


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_a_bind_of_what_is_neither_file_nor_directory(kind: str, bundle, ours, cid, volume) -> None:
    if kind == "fifo":
        os.mkfifo(volume / "it")
    else:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(volume / "it"))
    config = bundle.config("stat", "-c", "%F", "/it")
    config["mounts"].append(bind(volume / "it", "/it", "bind", "ro", "rro"))
    assert ours.run(bundle(config=config), cid).stdout.strip() == kind


def test_directories_on_the_way_take_the_group_of_a_directory_that_hands_it_on(bundle, ours, cid) -> None:
    config = bundle.config("stat", "-c", "%a", "/setgid/a", "/setgid/a/b")
    config["mounts"].append({"type": "tmpfs", "source": "tmpfs", "destination": "/setgid/a/b/c"})
    made = bundle(config=config)
    (made / "rootfs/setgid").mkdir()
    (made / "rootfs/setgid").chmod(0o7755)
    assert ours.run(made, cid).stdout.split() == ["2755", "2755"]


def test_the_standard_streams_are_the_containers_null(bundle, ours, cid) -> None:
    done = ours.run(bundle("sh", "-c", "stat -L -c %d /dev/null; stat -L -c %d /proc/self/fd/0"), cid)
    container, stream = done.stdout.split()
    assert container == stream


MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def user_namespace(config: dict[str, Any]) -> dict[str, Any]:
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = MAPS
    return config


def open_to_all(rootfs: Path, *others: Path) -> None:
    """Let root of the user namespace own the rootfs, and reach it and other directories of the test."""
    for path in (rootfs, *rootfs.rglob("*")):
        os.lchown(path, 100000, 100000)
    for parent in (parent for directory in (rootfs, *others) for parent in directory.parents):
        if parent.owner() == "root" and parent.stat().st_mode & 0o777 == 0o700:
            parent.chmod(0o711)


def test_in_a_user_namespace_the_hosts_devices_are_shown(bundle, ours, cid) -> None:
    config = user_namespace(
        bundle.config(
            "sh", "-c", "stat -c '%F %t %T' /dev/null /dev/pipe; echo x > /dev/null && cat /proc/self/uid_map"
        )
    )
    config["linux"]["devices"] = [{"path": "/dev/pipe", "type": "p"}]
    made = bundle(config=config)
    open_to_all(made / "rootfs")
    done = ours.run(made, cid)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["character special file 1 3", "fifo 0 0"], done.stderr
    assert lines[2].split() == ["0", "100000", "65536"]


def test_in_a_user_namespace_a_device_that_the_host_has_not_there_is_made(bundle, ours, cid) -> None:
    """mknod(2) is refused inside. The host has another /dev/zero, and no /dev/mine."""
    config = user_namespace(bundle.config("sh", "-c", "stat -c '%F %t:%T %a %u:%g' /dev/zero /dev/mine; cat /dev/mine"))
    config["linux"]["devices"] = [
        {"path": "/dev/zero", "type": "c", "major": 1, "minor": 11},
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 10, "gid": 11},
    ]
    made = bundle(config=config)
    open_to_all(made / "rootfs")
    done = ours.run(made, cid)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["character special file 1:b 666 0:0", "character special file 1:3 640 10:11"],
    ), done.stderr


def test_in_a_user_namespace_no_device_is_made_for_an_owner_that_it_has_not(bundle, ours, cid) -> None:
    config = user_namespace(bundle.config("true"))
    config["linux"]["devices"] = [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 11, "uid": 65536}]
    made = bundle(config=config)
    open_to_all(made / "rootfs")
    done = ours.run(made, cid)
    assert done.returncode == 1
    assert "make the device /dev/zero: the host's device of this path is another" in done.stderr


def test_in_a_user_namespace_a_source_that_its_root_cannot_reach(bundle, ours, cid, volume) -> None:
    (volume / "below").chmod(0o755)
    closed = volume.parent / "closed"
    closed.mkdir(mode=0o700)
    os.rename(volume, closed / "volume")
    config = user_namespace(bundle.config("cat", "/m/file"))
    config["mounts"].append(bind(closed / "volume", "/m", "rbind"))
    made = bundle(config=config)
    open_to_all(made / "rootfs")
    done = ours.run(made, cid)
    assert (done.stdout, done.stderr) == ("content\n", "")


def test_with_the_hosts_network_a_user_namespace_is_shown_the_hosts_sys(bundle, ours, cid) -> None:
    config = user_namespace(
        bundle.config("sh", "-c", "ls -d /sys/class/net/lo; touch /sys/x 2> /dev/null; cat /proc/self/mountinfo")
    )
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
    made = bundle(config=config)
    open_to_all(made / "rootfs")
    done = ours.run(made, cid)
    assert done.stdout.startswith("/sys/class/net/lo\n"), done.stderr
    assert seen(done.stdout.partition("\n")[2], "/sys")["/sys"][0].split()[1].startswith("ro,nosuid,nodev,noexec")


def test_with_the_hosts_processes_a_user_namespace_is_shown_the_hosts_proc(bundle, ours, cid) -> None:
    config = user_namespace(bundle.config("sh", "-c", "cat /proc/1/comm; wc -c < /proc/timer_list"))
    config["linux"]["namespaces"] = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "pid"]
    config["linux"]["maskedPaths"] = ["/proc/timer_list"]
    made = bundle(config=config)
    open_to_all(made / "rootfs")
    done = ours.run(made, cid)
    *_, first, masked = done.stdout.splitlines()
    assert (first, masked) == (Path("/proc/1/comm").read_text().strip(), "0"), done.stderr


def test_locked_flags_are_kept_when_a_bind_becomes_read_only(bundle, ours, cid, volume) -> None:
    """In a user namespace nobody may take off what the host has put on a mount; without need, nobody tries."""
    config = user_namespace(bundle.config("cat", "/proc/self/mountinfo"))
    config["mounts"].append(bind(volume, "/m", "bind", "ro"))
    config["mounts"].append(bind(volume, "/n", "bind", "rw"))
    made = bundle(config=config)
    open_to_all(made / "rootfs", volume)
    run = words([*ours.command, "--root", ours.root, "run", "--bundle", made, cid])
    mount = 'mount --bind "$volume" "$volume"; mount -o remount,bind,nosuid,nodev,noexec "$volume"; exec $run'
    done = in_mount_namespace(mount, volume=volume, run=run)
    assert seen(done.stdout, "/m")["/m"][0].split()[1] == "ro,nosuid,nodev,noexec,relatime", done.stderr
    assert seen(done.stdout, "/n")["/n"][0].split()[1] == "rw,nosuid,nodev,noexec,relatime"
    config["mounts"][-1]["options"] = ["bind", "exec"]
    refused = bundle(config=config)
    open_to_all(refused / "rootfs", volume)
    run = words([*ours.command, "--root", ours.root, "run", "--bundle", refused, cid])
    done = in_mount_namespace(mount, volume=volume, run=run)
    assert done.returncode == 1
    assert "/n" in done.stderr
    assert "operation not permitted" in done.stderr


@pytest.mark.parametrize("options", [["bind"], ["bind", "idmap"], ["rbind", "ridmap"]])
def test_an_id_mapped_mount(options: list[str], bundle, ours, cid, volume) -> None:
    """Ids of the disk are seen as the map says, and what is written gets those of the disk."""
    os.chown(volume / "file", 3, 4)
    os.chown(volume, 0, 0)
    config = bundle.config("sh", "-c", "stat -c '%u %g' /m/file /m; umask 0; echo x > /m/new; stat -c '%u %g' /m/new")
    config["process"]["user"] = {"uid": 5000, "gid": 6000}
    config["mounts"].append(
        {
            **bind(volume, "/m", *options),
            "uidMappings": [{"containerID": 0, "hostID": 5000, "size": 100}],
            "gidMappings": [{"containerID": 0, "hostID": 6000, "size": 100}],
        }
    )
    done = ours.run(bundle(config=config), cid)
    assert done.stdout.splitlines() == ["5003 6004", "5000 6000", "5000 6000"], done.stderr
    status = (volume / "new").stat()
    assert (status.st_uid, status.st_gid) == (0, 0)


def test_an_id_map_reaches_below_with_ridmap_only(bundle, ours, cid, volume) -> None:
    for options, expected in ((["rbind", "idmap"], "0"), (["rbind", "ridmap"], "5000")):
        config = bundle.config("stat", "-c", "%u", "/m/below")
        maps = [{"containerID": 0, "hostID": 5000, "size": 100}]
        config["mounts"].append({**bind(volume, "/m", *options), "uidMappings": maps, "gidMappings": maps})
        run = words([*ours.command, "--root", ours.root, "run", "--bundle", bundle(config=config), cid])
        done = in_mount_namespace('mount -t tmpfs tmpfs "$below"; exec $run', below=volume / "below", run=run)
        assert (done.stdout.strip(), done.stderr) == (expected, "")


def test_a_mount_takes_the_id_map_of_the_container(bundle, ours, cid, volume) -> None:
    """Owned by root on the disk, and by root in the container, whose root is somebody else on the host."""
    config = user_namespace(bundle.config("sh", "-c", "stat -c %u /m/file /plain/file; echo x > /m/new"))
    config["mounts"] += [bind(volume, "/m", "bind", "idmap"), bind(volume, "/plain", "bind")]
    made = bundle(config=config)
    open_to_all(made / "rootfs")
    done = ours.run(made, cid)
    assert done.stdout.split() == ["0", "65534"], done.stderr
    assert (volume / "new").stat().st_uid == 0


def test_hidden_paths_show_nothing(bundle, ours, cid) -> None:
    script = """
        exec 2>&1; wc -c < /secret; ls /hidden; wc -c < /proc/timer_list; ls /sys/firmware
        echo x > /hidden/new; stat -c '%t %T' /secret /proc/timer_list
    """
    made = bundle(
        "sh",
        "-c",
        script,
        linux__maskedPaths=[
            "/secret",
            "/hidden",
            "/link",
            "/proc/timer_list",
            "/sys/firmware",
            "/none",
            "/bin/sh/none",
        ],
    )
    (made / "rootfs/secret").write_text("secret")
    (made / "rootfs/hidden").mkdir()
    (made / "rootfs/hidden/file").touch()
    (made / "rootfs/behind").write_text("behind")
    (made / "rootfs/link").symlink_to("/behind")
    lines = ours.run(made, cid).stdout.splitlines()
    assert lines[:2] == ["0", "0"]
    assert lines[2].endswith("/hidden/new: Read-only file system")
    assert lines[3:] == ["1 3", "1 3"]


def test_read_only_paths_and_what_is_below_them(bundle, ours, cid, volume) -> None:
    script = (
        "exec 2>&1; echo x > /data/new; echo x > /data/v/new; echo 1 > /proc/sys/kernel/domainname; cat /data/v/file"
    )
    config = bundle.config("sh", "-c", script)
    config["mounts"].append(bind(volume, "/data/v", "bind"))
    config["linux"]["readonlyPaths"] = ["/data", "/proc/sys", "/none"]
    lines = ours.run(bundle(config=config), cid).stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["Read-only file system"] * 3 + ["content"]


def test_the_terminal_is_the_console(bundle, ours, cid) -> None:
    config = bundle.config("true")
    config["process"]["terminal"] = True
    config["mounts"] = [entry for entry in config["mounts"] if entry["destination"] != "/dev/pts"]
    done = on_terminal([*ours.command, "--root", ours.root, "run", "--bundle", bundle(config=config), cid])
    assert "there is no devpts on /dev/pts" in done.stdout
    config = bundle.config("sh", "-c", "stat -c '%F' /dev/console; tty; grep ' /dev/console ' /proc/self/mountinfo")
    config["process"]["terminal"] = True
    done = on_terminal([*ours.command, "--root", ours.root, "run", "--bundle", bundle(config=config), cid])
    kind, name = done.stdout.splitlines()[:2]
    assert kind.endswith("character special file")
    assert name.endswith("/dev/pts/0")
    assert " /0 /dev/console " in done.stdout


def test_the_config_is_left_as_it_was(bundle, ours, cid) -> None:
    made = bundle("true")
    before = json.loads((made / "config.json").read_text())
    ours.run(made, cid)
    assert json.loads((made / "config.json").read_text()) == before
