"""The same bundle run by runc and by mydocker-oci: what a process inside sees, and what the outside sees, agree.

`CASES` are containers that run, `REFUSED` those that do not. Where the two differ and are meant to, `DELIBERATE` says
so with the reason.
"""

from __future__ import annotations

import copy
import glob
import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocker.oci.config import HOOKS

#: What is looked at in every container, by as few processes as will do. Each part begins with a line ``=== NAME``.
PROBE = r"""
part() { echo "=== $1"; }
part files
cd /proc/self 2>/dev/null && grep -Hs '' mountinfo status limits cgroup uid_map gid_map oom_score_adj personality \
  timens_offsets stat sessionid loginuid /proc/sys/kernel/hostname /proc/sys/kernel/domainname; cd "$OLDPWD"
part links; stat -c '%N' /proc/$$/cwd /proc/$$/root /proc/$$/ns/* /dev/* 2>/dev/null
part environ; cat -v /proc/$$/environ
part cmdline; head -n 1 /proc/$$/cmdline | cat -v
part here; echo "$PWD"; umask; uname -n
part descriptors; for fd in 0 1 2 3 4 5 6 7 8 9 10; do [ -e /proc/$$/fd/$fd ] && echo $fd; done
part mounted; stat -c '%n|%F|%a|%u:%g|%t:%T' $(cut -d ' ' -f 5 /proc/self/mountinfo)
part nodes; stat -c '%n|%F|%a|%u:%g|%t:%T' /dev /dev/* / /* 2>/dev/null
part writes; for d in / /tmp /proc/sys/kernel /sys /dev; do if true 2>/dev/null >$d/touched; then echo "$d"; fi; done
part interfaces; echo /sys/class/net/*
part extra
"""

#: The lines of ``status`` that are the process's own.
OF_STATUS = (
    "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters Umask SigIgn SigBlk "
    "Cpus_allowed_list Mems_allowed_list NSpid THP_enabled"
).split()

#: Where mydocker-oci is meant to differ, and why, by part and case.
DELIBERATE = {
    "nodes of mqueue-in-user-namespace": "the namespaces are made in one call by the runtime's user, to whom the "
    "directory of the queues (of mode 1777) then belongs; runc becomes root of the user namespace between two calls",
    "mounted of mqueue-in-user-namespace": "as above",
    "mountinfo of masked-and-readonly": "of what is both, runc masks last; here it is made read-only last, empty too",
}

#: What runs here though runc refuses it, and why it may.
RUNS_HERE = {
    "root-by-link": "a root that is a symbolic link is opened once, before anything is done: it leads where it leads",
    "namespaces-mount-only": "a container needs no /proc of its own: nothing in the container's root is relied on",
    "tmpfs-defaults": "an option of mount(8) that means nothing; later versions of runc take it",
    "bind-without-word": "the type bind says as much as the option",
    "root-unbindable": "the specification has it; runc 1.1 makes the root unbindable before it binds it",
    "device-of-the-defaults": "a device in the list does not take another's right to be used",
    "seccomp-flags": "the specification has them; runc 1.1 does not know them",
    "seccomp-flag-spec-allow": "as seccomp-flags",
    "user-without-maps": "the specification needs none: root is the caller then, and there is nobody else, as for crun",
    "unified-on-v1": "a limit that a v1 controller has as well is converted, as the specification allows",
}

#: What is refused here though runc runs it, and why.
REFUSED_HERE = {
    "tmpfs-in-proc": "what is mounted in /proc may make other files of it somebody else's (CVE-2019-16884)",
    "maps-without-user": "ids that are mapped in no namespace are a mistake: later versions of runc refuse it too",
    "rlimit-twice": "the specification wants an error",
    "masked-relative": "the specification wants absolute paths",
    "namespace-relative-path": "the specification wants an absolute path",
    "errno-of-kill": "the specification wants an error: the action returns none",
    "version-later": "it may ask for what is not known here",
    "hook-timeout-of-nothing": "the specification wants more than 0",
}

CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


class Case:
    """One config: what is changed in that of the factory, and what else is looked at inside.

    ``look``    lines of shell whose output is compared too. ``HOST`` in a string of the config is a directory of the
                host that has ``files`` in it (a name that ends in / is a directory).
    ``args``    run in place of the probe: then the output is compared as a whole.
    """

    def __init__(
        self,
        name: str,
        change: Callable[[dict[str, Any]], None] | None = None,
        *,
        look: str = "",
        args: list[str] | None = None,
        files: tuple[str, ...] = (),
        rootfs: str = "",
        sense: str = "",
        ignore: tuple[str, ...] = (),
        **put: Any,
    ) -> None:
        self.name = name
        self.change = change
        self.look = look
        self.args = args
        self.files = files
        self.rootfs = rootfs
        self.sense = sense
        self.ignore = ignore
        self.put = put

    def __repr__(self) -> str:
        return self.name


def mount(destination: str, fstype: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": fstype, "source": source, "options": list(options)}


def add_mount(*entry: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["mounts"].append(mount(*entry))

    return change


def add_mounts(*entries: tuple[Any, ...]) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["mounts"] += [mount(*entry) for entry in entries]

    return change


def without_mount(*destinations: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["mounts"] = [entry for entry in config["mounts"] if entry["destination"] not in destinations]

    return change


def namespaces(*kinds: str, **paths: str) -> list[dict[str, str]]:
    return [*({"type": kind} for kind in kinds), *({"type": kind, "path": path} for kind, path in paths.items())]


ALL = ("pid", "network", "ipc", "uts", "mount")
TWO_MAPS = [{"containerID": 0, "hostID": 100000, "size": 1000}, {"containerID": 1000, "hostID": 200000, "size": 64536}]
ONE_MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def _without_gid_of_devpts(config: dict[str, Any]) -> None:
    """For a user namespace that has no group 5."""
    devpts = next(entry for entry in config["mounts"] if entry["type"] == "devpts")
    devpts["options"].remove("gid=5")


def in_user_namespace(maps: list[dict[str, int]]) -> dict[str, Any]:
    return {
        "linux__namespaces": namespaces(*ALL, "user"),
        "linux__uidMappings": maps,
        "linux__gidMappings": maps,
    }


def capabilities(**sets: str) -> dict[str, list[str]]:
    return {name: [f"CAP_{word}" for word in words.split()] for name, words in sets.items()}


def process_cases() -> list[Case]:
    sets = "CHOWN KILL SETUID SETGID NET_RAW"
    return [
        Case("plain"),
        Case("arguments", args=["printf", "[%s]", "", " two  words ", "a\nb", "ü€", "'\"$`\\", "--", "*"]),
        Case("program-by-path", args=["/bin/echo", "by", "path"]),
        Case("program-relative-to-cwd", args=["./busybox", "echo", "here"], process__cwd="/bin"),
        Case("exit-code", args=["sh", "-c", "exit 42"]),
        Case(
            "exit-by-signal",
            args=["sh", "-c", "kill -TERM $$"],
            linux__namespaces=namespaces("network", "ipc", "uts", "mount"),
        ),
        Case("first-process-ignores-signals", args=["sh", "-c", "kill -TERM $$; echo alive"]),
        Case("exit-by-kill", args=["sh", "-c", "sleep 0; exit 137"]),
        Case("no-path-in-env", args=["/bin/sh", "-c", "echo $HOME; env"], process__env=["A=b"]),
        Case(
            "path-of-two",
            args=["only"],
            process__env=["PATH=/nowhere:/opt"],
            rootfs="mkdir opt; printf '#!/bin/sh\\necho found\\n' >opt/only; chmod +x opt/only",
        ),
        Case(
            "env-odd",
            process__env=["PATH=/bin", "EMPTY=", "TWO=a=b", "SPACE= x y ", "LINES=a\nb", "ü=ö", "lower.dot=1"],
        ),
        Case("env-twice", process__env=["PATH=/bin", "A=1", "A=2"]),
        Case("env-home-of-root", process__env=["PATH=/bin"]),
        Case("env-home-of-alice", process__env=["PATH=/bin"], process__user={"uid": 1000, "gid": 1000}),
        Case("env-home-of-nobody", process__env=["PATH=/bin"], process__user={"uid": 4242, "gid": 4242}),
        Case("env-home-empty", process__env=["PATH=/bin", "HOME="]),
        Case("env-none", args=["/bin/sh", "-c", "cat -v /proc/self/environ"], process__env=None),
        Case("cwd", process__cwd="/tmp"),
        Case("cwd-made", process__cwd="/not/there/yet", look="stat -c '%n %a %u:%g' /not /not/there /not/there/yet"),
        Case("cwd-by-link", process__cwd="/link", rootfs="ln -s /tmp link"),
        Case("cwd-in-mount", add_mount("/mnt", "tmpfs", "tmpfs", "mode=755"), process__cwd="/mnt"),
        Case("user", process__user={"uid": 1000, "gid": 1000}),
        Case("user-groups", process__user={"uid": 1000, "gid": 100, "additionalGids": [29, 5, 4000000]}),
        Case("user-groups-of-root", process__user={"uid": 0, "gid": 0, "additionalGids": [0, 10]}),
        Case("user-unknown", process__user={"uid": 4242, "gid": 4243}),
        Case("user-gid-only", process__user={"uid": 0, "gid": 1000}),
        Case("umask-private", process__user={"uid": 0, "gid": 0, "umask": 0o077}),
        Case("umask-none", process__user={"uid": 0, "gid": 0, "umask": 0}),
        Case("umask-of-user", process__user={"uid": 1000, "gid": 1000, "umask": 0o027}),
        Case("capabilities-none", process__capabilities={}),
        Case("capabilities-absent", process__capabilities=None),
        Case("capabilities-null", lambda c: c["process"].update(capabilities=None)),
        Case("capabilities-bounding-only", process__capabilities=capabilities(bounding=sets)),
        Case("capabilities-permitted-only", process__capabilities=capabilities(bounding=sets, permitted=sets)),
        Case(
            "capabilities-inheritable",
            process__capabilities=capabilities(bounding=sets, effective=sets, permitted=sets, inheritable="KILL CHOWN"),
        ),
        Case("capabilities-ambient", process__capabilities=capabilities(**dict.fromkeys(CAPABILITY_SETS, sets))),
        Case(
            "capabilities-ambient-of-user",
            process__user={"uid": 1000, "gid": 1000},
            process__capabilities=capabilities(**dict.fromkeys(CAPABILITY_SETS, "NET_BIND_SERVICE KILL")),
        ),
        Case("capabilities-of-user", process__user={"uid": 1000, "gid": 1000}),
        Case("capabilities-of-user-kept", process__user={"uid": 1000, "gid": 1000}, process__noNewPrivileges=False),
        Case(
            "capabilities-unknown",
            process__capabilities=capabilities(bounding="CHOWN NO_SUCH", effective="CHOWN", permitted="CHOWN"),
        ),
        Case(
            "capabilities-lower-case",
            process__capabilities={
                "bounding": ["cap_chown", "CAP_KILL"],
                "effective": ["CAP_KILL"],
                "permitted": ["CAP_KILL"],
            },
        ),
        Case("new-privileges", process__noNewPrivileges=False),
        Case("new-privileges-absent", process__noNewPrivileges=None),
        *(
            Case(f"rlimit-{name.lower()}", process__rlimits=[{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard}])
            for name, soft, hard in (
                ("CORE", 0, 0),
                ("CPU", 30, 60),
                ("DATA", 2**30, 2**31),
                ("FSIZE", 2**20, 2**30),
                ("LOCKS", 10, 20),
                ("MEMLOCK", 4096, 8192),
                ("MSGQUEUE", 1000, 2000),
                ("NICE", 0, 0),
                ("NOFILE", 64, 100),
                ("NPROC", 900, 1000),
                ("RSS", 2**30, 2**64 - 1),
                ("RTPRIO", 0, 0),
                ("RTTIME", 1000000, 2000000),
                ("SIGPENDING", 100, 200),
                ("STACK", 2**22, 2**23),
            )
        ),
        Case(
            "rlimits",
            process__rlimits=[
                {"type": "RLIMIT_NOFILE", "soft": 50, "hard": 50},
                {"type": "RLIMIT_CORE", "soft": 1, "hard": 2},
            ],
        ),
        Case("rlimits-empty", process__rlimits=[]),
        Case("oom-score", process__oomScoreAdj=500),
        Case("oom-score-highest", process__oomScoreAdj=1000),
        Case("oom-score-same", process__oomScoreAdj=0),
    ]


def root_cases() -> list[Case]:
    return [
        Case("root-readonly", root__readonly=True),
        Case("root-by-absolute-path", lambda c: c["root"].update(path="BUNDLE/rootfs")),
        Case("root-by-dots", lambda c: c["root"].update(path="./rootfs/../rootfs/")),
        Case("root-by-link", lambda c: c["root"].update(path="linked"), rootfs="ln -s rootfs ../linked"),
        Case("hostname", hostname="another.name"),
        Case("hostname-none", hostname=None),
        Case("hostname-empty", hostname=""),
        Case("hostname-longest", hostname="h" * 64),
        Case(
            "unknown-properties",
            lambda c: c.update(windows={"x": 1}, surprise=[1]) or c["linux"].update(later={"a": 1}),
        ),
        Case(
            "nulls",
            lambda c: (
                c.update(hooks=None, annotations=None)
                or c["linux"].update(resources=None, seccomp=None, devices=None, sysctl=None)
            ),
        ),
        Case("newer-version", ociVersion="1.1.0"),
        Case("pre-release", ociVersion="1.0.2-dev"),
    ]


def namespace_cases() -> list[Case]:
    here = f"/proc/{os.getpid()}/ns"
    return [
        *(
            Case(
                f"namespaces-without-{kind}",
                without_mount("/sys") if kind == "network" else None,
                linux__namespaces=namespaces(*(other for other in ALL if other != kind)),
                **({"hostname": None} if kind == "uts" else {}),
            )
            for kind in ALL
            if kind != "mount"
        ),
        Case(
            "namespaces-mount-only",
            without_mount("/sys", "/proc"),
            hostname=None,
            linux__namespaces=namespaces("mount"),
        ),
        Case("namespaces-cgroup", linux__namespaces=namespaces(*ALL, "cgroup")),
        Case("namespaces-order", linux__namespaces=namespaces("mount", "uts", "network", "ipc", "pid")),
        Case(
            "namespaces-join-network",
            without_mount("/sys"),
            linux__namespaces=namespaces("pid", "ipc", "uts", "mount", network=f"{here}/net"),
        ),
        Case("namespaces-join-ipc", linux__namespaces=namespaces("pid", "network", "uts", "mount", ipc=f"{here}/ipc")),
        Case("namespaces-join-pid", linux__namespaces=namespaces("ipc", "network", "uts", "mount", pid=f"{here}/pid")),
        Case(
            "namespaces-join-uts",
            hostname=None,
            linux__namespaces=namespaces("pid", "network", "ipc", "mount", uts=f"{here}/uts"),
        ),
        Case("namespaces-join-cgroup", linux__namespaces=namespaces(*ALL, cgroup=f"{here}/cgroup")),
        Case("namespaces-empty-path", linux__namespaces=namespaces("pid", "ipc", "uts", "mount", network="")),
        Case("user-namespace", **in_user_namespace(ONE_MAP)),
        Case("user-namespace-two-ranges", **in_user_namespace(TWO_MAPS)),
        Case(
            "user-namespace-user",
            process__user={"uid": 1000, "gid": 1000, "additionalGids": [29]},
            **in_user_namespace(TWO_MAPS),
        ),
        Case(
            "user-namespace-root-alone",
            without_mount("/dev/pts"),
            **in_user_namespace([{"containerID": 0, "hostID": 0, "size": 1}]),
        ),
        Case("user-namespace-of-all", **in_user_namespace([{"containerID": 0, "hostID": 0, "size": 4294967295}])),
        Case("user-namespace-readonly", root__readonly=True, **in_user_namespace(ONE_MAP)),
        Case(
            "user-namespace-cgroup",
            **{**in_user_namespace(ONE_MAP), "linux__namespaces": namespaces(*ALL, "user", "cgroup")},
        ),
        Case(
            "user-namespace-ambient",
            process__capabilities=capabilities(**dict.fromkeys(CAPABILITY_SETS, "CHOWN SYS_ADMIN")),
            **in_user_namespace(ONE_MAP),
        ),
        Case(
            "user-namespace-masked",
            linux__maskedPaths=["/proc/kcore", "/sys/firmware", "/tmp"],
            linux__readonlyPaths=["/proc/sys"],
            **in_user_namespace(ONE_MAP),
        ),
    ]


def mount_cases() -> list[Case]:
    words = (
        "ro nosuid nodev noexec noatime strictatime relatime nodiratime sync dirsync mode=700 size=1m nr_inodes=20 "
        "uid=5 gid=6 nosymfollow norelatime atime diratime defaults silent private slave shared unbindable rprivate "
        "rslave rshared runbindable lazytime async suid dev exec rw"
    ).split()
    look = "grep -c ' /mnt' /proc/self/mountinfo; echo /mnt/*; touch /mnt/x && echo written"
    return [
        *(
            Case(f"tmpfs-{word.replace('=', '-')}", add_mount("/mnt", "tmpfs", "tmpfs", word), look=look)
            for word in words
        ),
        Case(
            "tmpfs-many",
            add_mount("/mnt", "tmpfs", "source", "nosuid", "nodev", "noexec", "noatime", "mode=1770", "size=64k"),
        ),
        Case("tmpfs-last-word-wins", add_mount("/mnt", "tmpfs", "tmpfs", "ro", "rw", "nodev", "dev", "noexec")),
        Case("tmpfs-default-mode", add_mount("/tmp", "tmpfs", "tmpfs"), look="stat -c %a /tmp"),
        Case(
            "tmpfs-copied-up",
            add_mount("/etc", "tmpfs", "tmpfs", "tmpcopyup"),
            look="stat -c '%n %a %s' /etc/*; cat /etc/passwd",
        ),
        Case("bind", add_mount("/mnt", "bind", "HOST", "bind"), files=("file",), look="ls /mnt; touch /mnt/x"),
        Case("bind-recursive", add_mount("/mnt", "bind", "HOST", "rbind"), files=("file",), look="ls /mnt"),
        Case("bind-without-word", add_mount("/mnt", "bind", "HOST"), files=("file",), look="ls /mnt"),
        Case(
            "bind-type-none",
            add_mount("/mnt", "none", "HOST", "rbind", "ro"),
            files=("file",),
            look="ls /mnt; touch /mnt/x",
        ),
        Case("bind-type-empty", add_mount("/mnt", "", "HOST", "bind"), files=("file",), look="ls /mnt"),
        Case(
            "bind-readonly",
            add_mount("/mnt", "bind", "HOST", "bind", "ro"),
            files=("file",),
            look="touch /mnt/x || echo refused",
        ),
        Case("bind-attributes", add_mount("/mnt", "bind", "HOST", "rbind", "nosuid", "nodev", "noexec"), look=look),
        Case("bind-noatime", add_mount("/mnt", "bind", "HOST", "rbind", "noatime")),
        Case(
            "bind-file",
            add_mount("/etc/one", "bind", "HOST/file", "bind"),
            files=("file",),
            look="cat /etc/one; stat -c %F /etc/one",
        ),
        Case(
            "bind-file-over-file",
            add_mount("/etc/passwd", "bind", "HOST/file", "bind", "ro"),
            files=("file",),
            look="cat /etc/passwd",
        ),
        Case(
            "bind-relative-source",
            add_mount("/mnt", "bind", "beside", "bind"),
            rootfs="mkdir ../beside; touch ../beside/f",
            look="ls /mnt",
        ),
        *(
            Case(f"bind-{word}", add_mount("/mnt", "bind", "HOST", "rbind", word), files=("file",))
            for word in ("private", "slave", "shared", "rprivate", "rslave", "rshared", "unbindable")
        ),
        *(
            Case(f"bind-recursively-{word}", add_mount("/mnt", "bind", "HOST", "rbind", word))
            for word in ("rro", "rnosuid", "rnodev", "rnoexec", "rnoatime")
        ),
        Case(
            "bind-of-link",
            add_mount("/mnt", "bind", "HOST/link", "bind"),
            files=("there/", "there/f", "link->there"),
            look="ls /mnt",
        ),
        Case(
            "bind-then-readonly-remount",
            add_mounts(("/mnt", "bind", "HOST", "bind"), ("/mnt", "bind", "HOST", "bind", "remount", "ro")),
            look="touch /mnt/x || echo refused",
        ),
        Case(
            "mounts-nested",
            add_mounts(
                ("/a", "tmpfs", "one", "mode=755"), ("/a/b", "tmpfs", "two", "mode=700"), ("/a/b/c", "tmpfs", "three")
            ),
            look="ls -ld /a /a/b /a/b/c | cut -c1-10",
        ),
        Case("mounts-over-each-other", add_mounts(("/a", "tmpfs", "one"), ("/a", "tmpfs", "two", "ro"))),
        Case("mounts-in-order", add_mounts(("/a/b", "tmpfs", "lower"), ("/a", "tmpfs", "upper")), look="ls /a"),
        Case("mount-relative-destination", add_mount("mnt/deep", "tmpfs", "tmpfs")),
        Case("mount-dots-in-destination", add_mount("/mnt/../other/./x", "tmpfs", "tmpfs"), look="ls -d /mnt /other/x"),
        Case("mount-slashes-in-destination", add_mount("//mnt//x/", "tmpfs", "tmpfs")),
        Case(
            "mount-through-link",
            add_mount("/link/x", "tmpfs", "tmpfs"),
            rootfs="mkdir real; ln -s /real link",
            look="ls -d /real/x",
        ),
        Case("mount-on-link", add_mount("/link", "tmpfs", "tmpfs"), rootfs="mkdir real; ln -s real link"),
        Case(
            "mount-on-dangling-link",
            add_mount("/link", "tmpfs", "tmpfs"),
            rootfs="ln -s nowhere link",
            look="ls -d /nowhere",
        ),
        Case(
            "mount-through-link-outside",
            add_mount("/link/x", "tmpfs", "tmpfs"),
            rootfs="ln -s ../../../../../../tmp link",
            look="ls -d /tmp/x",
        ),
        Case("mount-with-spaces", add_mount("/a b/ü", "tmpfs", "so urce"), look="ls -d '/a b/ü'"),
        Case("tmpfs-in-proc", add_mount("/proc/sys", "tmpfs", "tmpfs")),
        Case("mqueue", add_mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")),
        Case(
            "cgroup-readonly",
            add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
            look="ls /sys/fs/cgroup | grep -v unified; cat /sys/fs/cgroup/memory/cgroup.procs | wc -l",
        ),
        Case(
            "cgroup-writable",
            add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev"),
            look="mkdir /sys/fs/cgroup/pids/below && rmdir /sys/fs/cgroup/pids/below && echo made",
        ),
        Case(
            "cgroup-in-namespace",
            add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro"),
            linux__namespaces=namespaces(*ALL, "cgroup"),
            look="ls /sys/fs/cgroup | grep -v unified; wc -l </sys/fs/cgroup/memory/cgroup.procs",
        ),
        Case("without-dev", without_mount("/dev", "/dev/pts", "/dev/shm")),
        Case("without-devpts", without_mount("/dev/pts")),
        Case("without-sys", without_mount("/sys")),
        Case(
            "dev-bound",
            lambda c: (
                without_mount("/dev", "/dev/pts", "/dev/shm")(c),
                add_mount("/dev", "bind", "/dev", "rbind", "rslave")(c),
            ),
            ignore=("nodes", "links"),
        ),
        Case(
            "dev-readonly", lambda c: next(m for m in c["mounts"] if m["destination"] == "/dev")["options"].append("ro")
        ),
        Case(
            "proc-readonly",
            lambda c: next(m for m in c["mounts"] if m["destination"] == "/proc").update(options=["ro", "nosuid"]),
        ),
        Case(
            "sys-bound",
            lambda c: (
                without_mount("/sys")(c),
                add_mount("/sys", "none", "/sys", "rbind", "nosuid", "noexec", "nodev", "ro")(c),
            ),
        ),
        Case(
            "bind-in-readonly-root",
            add_mount("/tmp", "bind", "HOST", "bind", "rw"),
            root__readonly=True,
            look="touch /tmp/x && echo written",
        ),
        Case(
            "bind-in-user-namespace",
            add_mount("/mnt", "bind", "HOST", "rbind", "ro"),
            files=("file",),
            look="ls /mnt",
            rootfs="mkdir mnt",
            **in_user_namespace(ONE_MAP),
        ),
        Case(
            "tmpfs-in-user-namespace",
            add_mount("/mnt", "tmpfs", "tmpfs", "mode=755", "noexec"),
            rootfs="mkdir mnt",
            **in_user_namespace(ONE_MAP),
        ),
        Case(
            "mqueue-in-user-namespace",
            add_mount("/dev/mqueue", "mqueue", "mqueue", "nosuid"),
            **in_user_namespace(ONE_MAP),
        ),
        *(
            Case(f"root-{kind}", linux__rootfsPropagation=kind)
            for kind in ("private", "slave", "shared", "unbindable", "rprivate", "rslave", "rshared", "")
        ),
        Case(
            "root-shared-with-bind",
            add_mount("/mnt", "bind", "HOST", "rbind", "rshared"),
            linux__rootfsPropagation="shared",
        ),
        Case(
            "root-slave-with-bind",
            add_mount("/mnt", "bind", "HOST", "rbind", "rslave"),
            linux__rootfsPropagation="rslave",
        ),
    ]


def path_cases() -> list[Case]:
    look = (
        "cat /masked /dir/f /proc/kcore 2>&1 | head -c 100; ls /dir; touch /ro/x /rofile || echo refused; cat /rofile"
    )
    tree = "echo secret >masked; mkdir dir ro; echo inside >dir/f; echo text >rofile"
    return [
        Case("masked", linux__maskedPaths=["/masked", "/dir", "/proc/kcore"], rootfs=tree, look=look),
        Case("masked-missing", linux__maskedPaths=["/nowhere", "/no/where"], look="ls /nowhere /no || echo missing"),
        Case(
            "masked-by-link",
            linux__maskedPaths=["/link"],
            rootfs=f"{tree}; ln -s /masked link",
            look="cat /link /masked",
        ),
        Case("masked-twice", linux__maskedPaths=["/masked", "/masked"], rootfs=tree, look=look),
        Case(
            "masked-defaults",
            linux__maskedPaths=["/proc/acpi", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            look="ls /sys/firmware; cat /proc/keys",
        ),
        Case("readonly", linux__readonlyPaths=["/ro", "/rofile"], rootfs=tree, look=look),
        Case("readonly-missing", linux__readonlyPaths=["/nowhere"]),
        Case(
            "readonly-defaults",
            linux__readonlyPaths=["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            look="echo x >/proc/sys/kernel/domainname || echo refused",
        ),
        Case(
            "readonly-of-mount", add_mount("/mnt", "tmpfs", "tmpfs", "nosuid", "noexec"), linux__readonlyPaths=["/mnt"]
        ),
        Case(
            "masked-and-readonly",
            linux__maskedPaths=["/dir"],
            linux__readonlyPaths=["/dir", "/ro"],
            rootfs=tree,
            look=look,
        ),
    ]


def device_cases() -> list[Case]:
    def device(path: str, kind: str = "c", major: int = 1, minor: int = 3, **more: Any) -> dict[str, Any]:
        return {"path": path, "type": kind, "major": major, "minor": minor, **more}

    look = "stat -c '%n|%F|%a|%u:%g|%t:%T' /dev/x /x /deep/x 2>/dev/null"
    allowed = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"},
        ]
    }
    tries = (
        "for d in null zero random; do head -c 1 /dev/$d >/dev/null 2>&1; echo $d $?; done; "
        "head -c 1 /dev/x >/dev/null 2>&1; echo x $?; mknod /tmp/made c 1 3; echo made $?; head -c 1 /tmp/made; "
        "echo read $?; mknod /tmp/b b 1 0; echo b $?"
    )
    return [
        Case("device-character", linux__devices=[device("/dev/x", fileMode=0o600, uid=5, gid=6)], look=look),
        Case("device-default-mode", linux__devices=[device("/dev/x")], look=look),
        Case("device-block", linux__devices=[device("/dev/x", "b", 7, 0, fileMode=0o660)], look=look),
        Case("device-unbuffered", linux__devices=[device("/dev/x", "u", 1, 5, fileMode=0o644)], look=look),
        Case("device-fifo", linux__devices=[{"path": "/dev/x", "type": "p", "fileMode": 0o622}], look=look),
        Case("device-elsewhere", linux__devices=[device("/deep/x", fileMode=0o666)], look=look),
        Case("device-of-the-defaults", linux__devices=[device("/dev/null", fileMode=0o600, uid=1, gid=1)]),
        Case(
            "device-in-user-namespace",
            linux__devices=[device("/dev/kmsg", minor=11, fileMode=0o666)],  # a bind of the host's
            **in_user_namespace(ONE_MAP),
        ),
        Case(
            "devices-two",
            linux__devices=[device("/dev/x", fileMode=0o666), device("/x", minor=5, fileMode=0o444)],
            look=look,
        ),
        Case("device-rules-default", linux__resources={"devices": [{"allow": False, "access": "rwm"}]}, look=tries),
        Case("device-rules-absent", linux__resources={}, look=tries),
        Case(
            "device-rules-allow-one",
            linux__devices=[device("/dev/x", "c", 10, 200, fileMode=0o666)],
            linux__resources=allowed,
            look=tries,
        ),
        Case("device-rules-allow-all", linux__resources={"devices": [{"allow": True, "access": "rwm"}]}, look=tries),
        Case(
            "device-rules-order",
            linux__resources={
                "devices": [
                    {"allow": True, "type": "a", "access": "rwm"},
                    {"allow": False, "type": "c", "major": 1, "minor": 8, "access": "rw"},
                ]
            },
            look=tries,
        ),
        Case(
            "device-in-list-not-in-rules",
            linux__devices=[device("/dev/x", "c", 10, 229)],
            linux__resources={"devices": [{"allow": False, "access": "rwm"}]},
            look=tries,
        ),
    ]


def sysctl_cases() -> list[Case]:
    def case(name: str, values: dict[str, str], **more: Any) -> Case:
        paths = [f"/proc/sys/{key.replace('.', '/') if '/' not in key else key}" for key in values]
        return Case(f"sysctl-{name}", linux__sysctl=values, look=f"cat {' '.join(paths)}", **more)

    return [
        case("shm", {"kernel.shmmax": "123456789", "kernel.shm_rmid_forced": "1"}),
        case("msg", {"kernel.msgmax": "5000", "kernel.sem": "1000 2000 30 40"}),
        case("mqueue", {"fs.mqueue.msg_max": "20"}),
        case("net", {"net.ipv4.ip_forward": "1", "net.core.somaxconn": "77"}),
        case("slashes", {"net/ipv4/ip_forward": "1"}),
        case("domainname", {"kernel.domainname": "example.org"}),
        case("in-user-namespace", {"net.ipv4.ip_forward": "1"}, **in_user_namespace(ONE_MAP)),
    ]


def resource_cases() -> list[Case]:
    def case(name: str, resources: dict[str, Any], *files: str) -> Case:
        look = "\n".join(f"echo {file} $(sort /sys/fs/cgroup/{file} 2>&1)" for file in files)
        return Case(
            f"resources-{name}",
            add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro"),
            linux__resources=resources,
            look=look,
        )

    memory = [
        f"memory/memory.{name}"
        for name in (
            "limit_in_bytes",
            "memsw.limit_in_bytes",
            "soft_limit_in_bytes",
            "swappiness",
            "oom_control",
            "use_hierarchy",
        )
    ]
    cpu = ["cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpu/cpu.idle"]
    cpuset = ["cpuset/cpuset.cpus", "cpuset/cpuset.mems"]
    every = [*memory, *cpu, *cpuset, "pids/pids.max", "blkio/blkio.bfq.weight", "devices/devices.list"]
    return [
        case("none", {}, *every),
        case("memory", {"memory": {"limit": 100 << 20}}, *memory),
        case("memory-unlimited", {"memory": {"limit": -1}}, *memory),
        case("memory-swap", {"memory": {"limit": 100 << 20, "swap": 200 << 20}}, *memory),
        case("memory-swap-unlimited", {"memory": {"limit": 100 << 20, "swap": -1}}, *memory),
        case("memory-reservation", {"memory": {"reservation": 50 << 20}}, *memory),
        case("memory-swappiness", {"memory": {"limit": 64 << 20, "swappiness": 10}}, *memory),
        case("memory-no-oom-killer", {"memory": {"limit": 64 << 20, "disableOOMKiller": True}}, *memory),
        case("memory-odd", {"memory": {"limit": 100_000_001}}, *memory),
        case("cpu-shares", {"cpu": {"shares": 512}}, *cpu),
        case("cpu-quota", {"cpu": {"quota": 50000, "period": 100000}}, *cpu),
        case("cpu-quota-alone", {"cpu": {"quota": 20000}}, *cpu),
        case("cpu-period-alone", {"cpu": {"period": 50000}}, *cpu),
        case("cpu-quota-unlimited", {"cpu": {"quota": -1}}, *cpu),
        case("cpuset", {"cpu": {"cpus": "0", "mems": "0"}}, *cpuset),
        case("cpuset-empty", {"cpu": {"cpus": "", "mems": ""}}, *cpuset),
        case("pids", {"pids": {"limit": 50}}, "pids/pids.max"),
        case("pids-unlimited", {"pids": {"limit": -1}}, "pids/pids.max"),
        case("pids-zero", {"pids": {"limit": 0}}, "pids/pids.max"),
        case("zeros", {"memory": {"limit": 0}, "cpu": {"shares": 0, "quota": 0, "period": 0}}, *memory, *cpu),
        case(
            "many",
            {"memory": {"limit": 64 << 20}, "cpu": {"shares": 100, "quota": 30000}, "pids": {"limit": 20}},
            *every,
        ),
        Case("cgroup-path-deep", lambda c: c["linux"].update(cgroupsPath=c["linux"]["cgroupsPath"] + "/one/two")),
        Case(
            "cgroup-path-in-namespace",
            lambda c: c["linux"].update(cgroupsPath=c["linux"]["cgroupsPath"] + "/deep"),
            linux__namespaces=namespaces(*ALL, "cgroup"),
        ),
    ]


def seccomp_cases() -> list[Case]:
    def profile(default: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "defaultAction": f"SCMP_ACT_{default}",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": list(rules),
            **more,
        }

    def rule(names: str, action: str, *args: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "names": names.split(),
            "action": f"SCMP_ACT_{action}",
            **({"args": list(args)} if args else {}),
            **more,
        }

    def arg(index: int, op: str, value: int, **more: int) -> dict[str, Any]:
        return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, **more}

    look = (
        "mkdir /tmp/a 2>&1; echo mkdir $?; chmod 700 /tmp 2>&1; echo chmod $?; kill -0 $$ 2>&1; echo kill $?; "
        "hostname other 2>&1; echo hostname $?; ln /bin/busybox /tmp/l 2>&1; echo ln $?"
    )

    def case(name: str, seccomp: dict[str, Any], **more: Any) -> Case:
        return Case(f"seccomp-{name}", linux__seccomp=seccomp, look=look, **more)

    return [
        case("allow-all", profile("ALLOW")),
        case("errno", profile("ALLOW", rule("mkdir mkdirat", "ERRNO"))),
        case("errno-number", profile("ALLOW", rule("mkdir mkdirat", "ERRNO", errnoRet=28))),
        case("errno-zero", profile("ALLOW", rule("chmod fchmodat", "ERRNO", errnoRet=0))),
        case("kill", profile("ALLOW", rule("mkdir mkdirat", "KILL"))),
        case("kill-process", profile("ALLOW", rule("mkdir mkdirat", "KILL_PROCESS"))),
        case("kill-thread", profile("ALLOW", rule("mkdir mkdirat", "KILL_THREAD"))),
        case("trap", profile("ALLOW", rule("mkdir mkdirat", "TRAP"))),
        case("log", profile("ALLOW", rule("mkdir mkdirat", "LOG"))),
        case("log-by-default", profile("LOG")),
        case("trace", profile("ALLOW", rule("mkdir mkdirat", "TRACE"))),
        case("argument-equal", profile("ALLOW", rule("chmod", "ERRNO", arg(1, "EQ", 0o700)))),
        case("argument-not-equal", profile("ALLOW", rule("chmod", "ERRNO", arg(1, "NE", 0o700)))),
        case("argument-masked", profile("ALLOW", rule("chmod", "ERRNO", arg(1, "MASKED_EQ", 0o700, valueTwo=0o700)))),
        case("arguments-two", profile("ALLOW", rule("kill", "ERRNO", arg(0, "GT", 0), arg(1, "EQ", 0)))),
        case(
            "arguments-same-index", profile("ALLOW", rule("chmod", "ERRNO", arg(1, "EQ", 0o700), arg(1, "EQ", 0o755)))
        ),
        case("unknown-syscall", profile("ALLOW", rule("mkdir no_such_call", "ERRNO"))),
        case(
            "many-rules",
            profile(
                "ALLOW",
                rule("mkdir", "ERRNO"),
                rule("chmod fchmodat", "ERRNO", errnoRet=5),
                rule("link linkat", "ERRNO", errnoRet=7),
            ),
        ),
        case("same-as-default", profile("ALLOW", rule("mkdir", "ALLOW"))),
        case(
            "without-no-new-privileges",
            profile("ALLOW", rule("mkdir mkdirat", "ERRNO")),
            process__noNewPrivileges=False,
        ),
        case("of-user", profile("ALLOW", rule("mkdir mkdirat", "ERRNO")), process__user={"uid": 1000, "gid": 1000}),
        case("flags", profile("ALLOW", rule("mkdir mkdirat", "ERRNO"), flags=["SECCOMP_FILTER_FLAG_LOG"])),
        case(
            "flag-spec-allow",
            profile("ALLOW", rule("mkdir mkdirat", "ERRNO"), flags=["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        ),
        case(
            "architectures",
            profile(
                "ALLOW", rule("mkdir", "ERRNO"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
            ),
        ),
        case("in-user-namespace", profile("ALLOW", rule("mkdir mkdirat", "ERRNO")), **in_user_namespace(ONE_MAP)),
        case("empty", {}),
    ]


def generated_cases(count: int = 40) -> list[Case]:
    """Configs put together by chance, the same in each run: what is right alone has to be right beside others."""
    cases = []
    for number in range(count):
        chance = random.Random(number)
        caps = [
            f"CAP_{n}"
            for n in chance.sample(
                "CHOWN KILL SETUID SETGID NET_RAW MKNOD SYS_CHROOT DAC_OVERRIDE FOWNER".split(), chance.randint(0, 6)
            )
        ]
        uid = chance.choice([0, 0, 1000, 7])
        changes: dict[str, Any] = {
            "process__user": {
                "uid": uid,
                "gid": chance.choice([0, 1000, 29]),
                "additionalGids": chance.sample(range(1, 60), chance.randint(0, 5)),
            },
            "process__capabilities": {
                name: caps for name in CAPABILITY_SETS if chance.random() < 0.8 or name in ("bounding", "permitted")
            },
            "process__noNewPrivileges": chance.random() < 0.5,
            "process__cwd": chance.choice(["/", "/tmp", "/bin", "/made/by/it"]),
            "process__env": ["PATH=/bin:/sbin", *(f"V{n}={'x' * n}" for n in range(chance.randint(0, 5)))],
            "root__readonly": chance.random() < 0.3,
            "linux__rootfsPropagation": chance.choice(["", "private", "slave", "shared"]),
            "linux__maskedPaths": chance.sample(
                ["/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/scsi", "/nowhere"], chance.randint(0, 4)
            ),
            "linux__readonlyPaths": chance.sample(
                ["/proc/sys", "/proc/irq", "/proc/bus", "/etc"], chance.randint(0, 3)
            ),
        }
        if "ambient" in changes["process__capabilities"]:
            changes["process__capabilities"]["inheritable"] = caps
        if chance.random() < 0.5:
            changes["process__user"]["umask"] = chance.choice([0, 0o22, 0o77, 0o27])
        if chance.random() < 0.6:
            changes["process__rlimits"] = [
                {"type": f"RLIMIT_{name}", "soft": low, "hard": low * 2}
                for name, low in chance.sample(
                    [("NOFILE", 100), ("CORE", 0), ("STACK", 4 << 20), ("NPROC", 400), ("FSIZE", 1 << 20)], 2
                )
            ]
        if chance.random() < 0.4:
            changes["process__oomScoreAdj"] = chance.randint(0, 1000)
        if chance.random() < 0.4:
            changes["linux__sysctl"] = {"kernel.msgmax": str(chance.randint(1000, 9000)), "net.ipv4.ip_forward": "1"}
        if chance.random() < 0.4:
            changes["linux__resources"] = {
                "memory": {"limit": chance.randint(20, 99) << 20},
                "pids": {"limit": chance.randint(20, 99)},
            }
        if chance.random() < 0.3:
            changes.update(in_user_namespace(chance.choice([ONE_MAP, TWO_MAPS])))
        elif chance.random() < 0.4:
            changes["linux__namespaces"] = namespaces(*ALL, "cgroup")
        words = ["ro", "nosuid", "nodev", "noexec", "noatime", "mode=755"]
        extra = [("/mnt/t", "tmpfs", "tmpfs", *chance.sample(words, chance.randint(0, 4)))]
        if chance.random() < 0.6:
            extra.append(
                (
                    "/mnt/b",
                    "bind",
                    "HOST",
                    "rbind",
                    *chance.sample(["ro", "nosuid", "nodev", "noexec", "rslave", "rprivate"], chance.randint(0, 3)),
                )
            )
        chance.shuffle(extra)
        # In a user namespace runc makes directories as its root, who is not the owner of the bundle.
        rootfs = "mkdir -p mnt/t mnt/b made/by/it" if "linux__uidMappings" in changes else ""
        name = f"generated-{number}"
        cases.append(Case(name, add_mounts(*extra), files=("file",), look="ls /mnt/b", rootfs=rootfs, **changes))
    return cases


CASES = [
    *process_cases(),
    *root_cases(),
    *namespace_cases(),
    *mount_cases(),
    *path_cases(),
    *device_cases(),
    *sysctl_cases(),
    *resource_cases(),
    *seccomp_cases(),
    *generated_cases(),
]

#: Containers that are not to run: ``sense`` has words that both say, of which ``|`` parts alternatives.
REFUSED = [
    Case("no-root", root=None, sense="root"),
    Case("root-missing", lambda c: c["root"].update(path="nowhere"), sense="nowhere"),
    Case("no-arguments", lambda c: c["process"].update(args=[]), sense="args"),
    Case("no-cwd", process__cwd=None, sense="cwd"),
    Case("cwd-relative", process__cwd="tmp", sense="cwd absolute"),
    Case("cwd-not-directory", process__cwd="/bin/busybox", sense="/bin/busybox"),
    Case("not-found", args=["/no/such/program"], sense="exec: /no/such/program no such file or directory"),
    Case("not-found-in-path", args=["nosuchprogram"], sense="exec: nosuchprogram executable file not found in $PATH"),
    Case("not-executable", args=["/etc/passwd"], sense="exec: /etc/passwd permission denied"),
    Case("is-directory", args=["/tmp"], sense="/tmp directory|denied"),
    Case("bad-format", args=["/bad"], rootfs="printf 'no program' >bad; chmod +x bad", sense="exec format error"),
    Case(
        "interpreter-missing",
        args=["/script"],
        rootfs="printf '#!/no/shell\\n' >script; chmod +x script",
        sense="no such file or directory",
    ),
    Case("env-without-equals", process__env=["PATH=/bin", "WRONG"], sense="invalid environment variable"),
    Case("rlimit-unknown", process__rlimits=[{"type": "RLIMIT_NO", "soft": 1, "hard": 1}], sense="RLIMIT_NO"),
    Case(
        "rlimit-soft-above-hard", process__rlimits=[{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}], sense="rlimit"
    ),
    Case("wrong-type", lambda c: c["process"].update(cwd=1), sense="cwd"),
    Case("wrong-type-of-list", lambda c: c.update(mounts={}), sense="mounts"),
    Case("negative-uid", process__user={"uid": -1, "gid": 0}, sense="uid"),
    Case("uid-too-large", process__user={"uid": 2**32, "gid": 0}, sense="uid"),
    Case("namespace-unknown", linux__namespaces=namespaces(*ALL, "planet"), sense="planet"),
    Case("namespace-twice", linux__namespaces=namespaces(*ALL, "pid"), sense="ns|namespace"),
    Case(
        "namespace-path-missing",
        linux__namespaces=namespaces("pid", "ipc", "uts", "mount", network="/no/such/ns"),
        sense="/no/such/ns",
    ),
    Case(
        "namespace-path-of-other-kind",
        linux__namespaces=namespaces("pid", "ipc", "uts", "mount", network=f"/proc/{os.getpid()}/ns/ipc"),
        sense="net|network",
    ),
    Case(
        "namespace-path-no-namespace",
        linux__namespaces=namespaces("pid", "ipc", "uts", "mount", network="/etc/passwd"),
        sense="namespace|setns",
    ),
    Case("hostname-without-uts", linux__namespaces=namespaces("pid", "network", "ipc", "mount"), sense="hostname uts"),
    Case(
        "masked-without-mount",
        linux__namespaces=namespaces("pid", "network", "ipc", "uts"),
        linux__maskedPaths=["/proc/kcore"],
        sense="mnt|mount namespace",
    ),
    Case("user-with-one-map", linux__namespaces=namespaces(*ALL, "user"), linux__uidMappings=ONE_MAP, sense="map"),
    Case("maps-overlap", **in_user_namespace([ONE_MAP[0], ONE_MAP[0]]), sense="invalid argument|overlap"),
    Case("sysctl-of-host", linux__sysctl={"vm.swappiness": "10"}, sense="vm.swappiness namespace"),
    Case("sysctl-unknown", linux__sysctl={"net.no.such": "1"}, sense="net/no/such|net.no.such"),
    Case(
        "sysctl-without-network",
        without_mount("/sys"),
        linux__namespaces=namespaces("pid", "ipc", "uts", "mount"),
        linux__sysctl={"net.ipv4.ip_forward": "1"},
        sense="net.ipv4.ip_forward namespace",
    ),
    Case(
        "sysctl-without-ipc",
        linux__namespaces=namespaces("pid", "network", "uts", "mount"),
        linux__sysctl={"kernel.shmmax": "1"},
        sense="kernel.shmmax namespace",
    ),
    Case("sysctl-hostname", linux__sysctl={"kernel.hostname": "x"}, sense="kernel.hostname"),
    Case("sysctl-value", linux__sysctl={"kernel.shmmax": "word"}, sense="invalid argument"),
    Case("propagation-unknown", linux__rootfsPropagation="sideways", sense="sideways"),
    Case("mount-type-unknown", add_mount("/mnt", "nosuchfs", "x"), sense="/mnt no such device"),
    Case(
        "mount-source-missing",
        add_mount("/mnt", "bind", "/no/such/source", "bind"),
        sense="/no/such/source no such file or directory",
    ),
    Case("mount-option-unknown", add_mount("/mnt", "tmpfs", "tmpfs", "nosuchoption"), sense="/mnt invalid argument"),
    Case("mount-option-value", add_mount("/mnt", "tmpfs", "tmpfs", "size=large"), sense="/mnt invalid argument"),
    Case("mount-in-proc", add_mount("/proc/self/attr", "bind", "HOST", "bind"), sense="/proc"),
    Case(
        "mount-file-on-directory",
        add_mount("/etc", "bind", "HOST/file", "bind"),
        files=("file",),
        sense="/etc not a directory",
    ),
    Case(
        "mount-directory-on-file", add_mount("/etc/passwd", "bind", "HOST", "bind"), sense="/etc/passwd not a directory"
    ),
    Case("proc-on-link", rootfs="rmdir proc; ln -s tmp proc", sense="proc"),
    Case(
        "device-type-unknown",
        linux__devices=[{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}],
        sense="device|devices",
    ),
    Case("seccomp-action-unknown", linux__seccomp={"defaultAction": "SCMP_ACT_MAYBE"}, sense="SCMP_ACT_MAYBE"),
    Case(
        "seccomp-operator-unknown",
        linux__seccomp={
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {
                    "names": ["mkdir"],
                    "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NEAR"}],
                }
            ],
        },
        sense="SCMP_CMP_NEAR",
    ),
    Case(
        "seccomp-architecture-unknown",
        linux__seccomp={
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_ABACUS"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
        },
        sense="SCMP_ARCH_ABACUS",
    ),
    Case(
        "seccomp-notify-by-default",
        linux__seccomp={"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/nobody"},
        sense="SCMP_ACT_NOTIFY",
    ),
    Case("memory-too-small", linux__resources={"memory": {"limit": 1024}}, sense="memory"),
    Case(
        "memory-swap-below-limit",
        linux__resources={"memory": {"limit": 100 << 20, "swap": 50 << 20}},
        sense="memory|swap",
    ),
    Case("swappiness-too-high", linux__resources={"memory": {"swappiness": 101}}, sense="swappiness"),
    Case("cpu-period-too-short", linux__resources={"cpu": {"quota": 1000, "period": 10}}, sense="cpu|period"),
    Case("cpuset-impossible", linux__resources={"cpu": {"cpus": "4000"}}, sense="cpu"),
    Case("cpuset-no-list", linux__resources={"cpu": {"cpus": "some"}}, sense="cpu"),
    *(
        Case(
            f"hook-{kind}-fails",
            hooks={kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo its words >&2; exit 3"]}]},
            sense="hook exit status 3 its words",
        )
        for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")
    ),
    Case("hook-missing", hooks={"createRuntime": [{"path": "/no/such/hook"}]}, sense="hook no such file or directory"),
    Case(
        "hook-too-long",
        hooks={"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1}]},
        sense="hook",
    ),
]


def seen(bundle: Path, name: str, config: dict[str, Any], done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the probe has written, by part, in a form in which two runs can agree."""
    output = done.stdout.replace(str(bundle), "BUNDLE").replace(name, "ID")
    texts = {}
    for text in output.split("=== ")[1:]:
        part, _, content = text.partition("\n")
        texts[part] = content.replace("\0", "\n").splitlines()
    if not texts:
        return {"exit code": done.returncode, "output": output, "words": done.stderr}
    for line in texts.pop("files"):
        file, _, content = line.partition(":")
        texts.setdefault(file, []).append(content)
    parts: dict[str, Any] = {part: NORMAL[part](lines) if part in NORMAL else lines for part, lines in texts.items()}
    for part in ("mountinfo", "mounted"):
        parts[part] = [meant for line in parts.get(part, ()) if (meant := as_meant(line, config["linux"]))]
    return {**parts, "exit code": done.returncode}


def as_meant(line: str, linux: dict[str, Any]) -> str:
    """A line about a mount without what is deliberately different.

    A masked path is covered by the host's /dev/null, checked to be that, not by the container's (CVE-2025-31133), or by
    a tmpfs with attributes of its own. On a hybrid host the v2 hierarchy is shown beside the others, and the directory
    in which they are is read-only where the mount is; hierarchies with a name have ``cgroup`` as their source. A root
    that is to be shared is in a peer group of its own, as the specification says; runc 1.1 leaves it private.
    """
    place = line.partition(" on " if " on " in line else "|")[0]
    if place == "/sys/fs/cgroup/unified":
        return ""
    if place == "/sys/fs/cgroup":
        return "/sys/fs/cgroup"
    if place == "/" and "shared" in linux.get("rootfsPropagation", ""):
        return line.replace(" shared - ", " - ")
    if (place in linux.get("maskedPaths", ()) and " tmpfs " in line) or (": /null " in line and place != "/dev/null"):
        return f"{place} masked"
    return line.replace(" - cgroup systemd ", " - cgroup cgroup ")


def normal_mountinfo(lines: list[str]) -> list[str]:
    """Without numbers that are the kernel's choice: each mount by its place, in the order of the places."""
    fields = [line.split(" ") for line in lines]
    places = {line[0]: line[4] for line in fields}
    found = []
    for line in fields:
        dash = line.index("-")
        peers = sorted(field.partition(":")[0] for field in line[6:dash])
        fstype, source, words = line[dash + 1 : dash + 4]
        # The mode of a tmpfs may be given or set later: the part "mounted" has what it is.
        options = sorted(word for word in words.split(",") if not (fstype == "tmpfs" and word.startswith("mode=")))
        flags = " ".join([line[5], *peers])
        found.append(
            f"{line[4]} on {places.get(line[1], '')}: {line[3]} {flags} - {fstype} {source} {','.join(options)}"
        )
    return sorted(found)


def normal_links(lines: list[str]) -> list[str]:
    """Where links lead; of a namespace only whether it is the runtime's."""
    found = []
    for line in lines:
        link, arrow, target = line.replace("'", "").partition(" -> ")
        place, _, name = link.rpartition("/")
        if place.endswith("/ns"):
            found.append(f"{name} {'as outside' if target == os.readlink(f'/proc/self/ns/{name}') else 'own'}")
        elif arrow:
            found.append(f"{name} {target}")
    return sorted(found)


def normal_status(lines: list[str]) -> list[str]:
    """Of the PIDs only how many namespaces deep they are."""
    pairs = [line.partition(":") for line in lines]
    own = {key: value.strip() for key, _, value in pairs if key in OF_STATUS}
    return [f"{key} {len(value.split()) if key == 'NSpid' else value}" for key, value in own.items()]


def normal_stat(lines: list[str]) -> str:
    """Priority, nice value, real-time priority and policy (proc(5))."""
    fields = lines[0].rpartition(")")[2].split()
    return " ".join(fields[position] for position in (15, 16, 37, 38))


NORMAL: dict[str, Callable[[list[str]], Any]] = {
    "mountinfo": normal_mountinfo,
    "links": normal_links,
    "status": normal_status,
    "stat": normal_stat,
    "mounted": sorted,
    "nodes": sorted,
}


def differences(theirs: dict[str, Any], own: dict[str, Any], case: Case) -> list[str]:
    """What one has seen and the other has not, by part, but for what is deliberate."""
    for who, view, other in (("runc", theirs, own), ("ours", own, theirs)):
        if "output" in view and "output" not in other:
            return [f"{who} alone ends with {view['exit code']} and says {view['output']}{view['words']}"]
    found = []
    for part in sorted({*theirs, *own} - {*case.ignore, "words"}):
        if theirs.get(part) != own.get(part) and f"{part} of {case}" not in DELIBERATE:
            before, after = (lines_of(view.get(part)) for view in (theirs, own))
            found += [f"{part}: runc: {line}" for line in before if line not in after]
            found += [f"{part}: ours: {line}" for line in after if line not in before]
            if sorted(before) == sorted(after):
                found.append(f"{part}: the order differs: {before} and {after}")
    return found


def lines_of(value: object) -> list[str]:
    if isinstance(value, dict):
        return [f"{key} {entry}" for key, entry in value.items()]
    return [str(line) for line in value] if isinstance(value, list) else str(value).splitlines()


def bundle_of(case: Case, bundle: Any, config: dict[str, Any]) -> Path:
    """A bundle of its own for one runtime: both find a root in which nothing was made yet."""
    made: Path = bundle(config=config)
    host = made / "host"
    host.mkdir()
    for name in case.files:
        link, arrow, target = name.partition("->")
        if arrow:
            (host / link).symlink_to(target)
        elif name.endswith("/"):
            (host / name).mkdir()
        else:
            (host / name).write_text(f"{name}\n")
    if case.rootfs:
        subprocess.run(case.rootfs, shell=True, check=True, cwd=made / "rootfs")
    text = (made / "config.json").read_text()
    (made / "config.json").write_text(text.replace("HOST", str(host)).replace("BUNDLE", str(made)))
    return made


def config_of(case: Case, bundle: Any) -> dict[str, Any]:
    config = bundle.config(*(case.args if case.args is not None else ["sh", "-c", f"{PROBE}\n{case.look}\nexit 0"]))
    if case.change is not None:
        case.change(config)
    for place, value in case.put.items():
        outer, inner = config, place.split("__")
        for key in inner[:-1]:
            outer = outer[key]
        if value is None:
            outer.pop(inner[-1], None)
        else:
            outer[inner[-1]] = copy.deepcopy(value)
    return config


#: What one of the two refuses on purpose: these and those of `CASES` that are in `RUNS_HERE` and `REFUSED_HERE`.
APART = [
    Case("unified-on-v1", linux__resources={"unified": {"memory.max": "100000000"}}),
    Case("user-without-maps", _without_gid_of_devpts, linux__namespaces=namespaces(*ALL, "user")),
    Case("maps-without-user", linux__uidMappings=ONE_MAP, linux__gidMappings=ONE_MAP, sense="user namespace"),
    Case(
        "rlimit-twice",
        process__rlimits=[{"type": "RLIMIT_CORE", "soft": n, "hard": n} for n in (2, 1)],
        sense="rlimits[1].type twice",
    ),
    Case("masked-relative", linux__maskedPaths=["proc/kcore"], sense="maskedPaths[0] absolute"),
    Case(
        "namespace-relative-path",
        linux__namespaces=namespaces(
            "pid", "network", "uts", "mount", ipc=f"../../../../../../proc/{os.getpid()}/ns/ipc"
        ),
        sense="namespaces[4].path",
    ),
    Case(
        "errno-of-kill",
        linux__seccomp={
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1}],
        },
        sense="syscalls[0].errnoRet SCMP_ACT_KILL",
    ),
    Case("version-later", ociVersion="1.4.0", sense="ociVersion 1.4.0"),
    Case(
        "hook-timeout-of-nothing",
        hooks={"poststop": [{"path": "/bin/true", "timeout": 0}]},
        sense="hooks.poststop[0].timeout",
    ),
]
ONE_RUNS = [case for case in (*CASES, *APART) if case.name in RUNS_HERE or case.name in REFUSED_HERE]
BOTH_RUN = [case for case in CASES if case not in ONE_RUNS]


def left_behind(runtime: Any, config: dict[str, Any], name: str) -> list[str]:
    """The container's state and its cgroups, which are gone when the container is."""
    places = [f"{place}{config['linux']['cgroupsPath']}" for place in glob.glob("/sys/fs/cgroup/*")]
    return [place for place in (f"{runtime.root}/{name}", *places) if os.path.exists(place)]


@pytest.mark.parametrize("case", BOTH_RUN, ids=repr)
def test_same_inside(case: Case, bundle: Any, runc: Any, ours: Any, cid: str) -> None:
    config = config_of(case, bundle)
    views = []
    for runtime in (runc, ours):
        made = bundle_of(case, bundle, config)
        done = runtime.run(made, cid)
        assert left_behind(runtime, config, cid) == []
        assert case.args or "=== extra" in done.stdout, done
        views.append(seen(made, cid, config, done))
    found = differences(*views, case)
    assert not found, "\n".join(found)


def assert_refused(case: Case, done: subprocess.CompletedProcess[str]) -> None:
    """The exit code is 1, and of each word in ``sense`` (or of one of its alternatives) there is something said."""
    assert done.returncode == 1, done
    message = done.stderr.replace('\\"', '"').lower()
    for words in case.sense.lower().split(" "):
        assert any(word in message for word in words.split("|")), (words, message)


@pytest.mark.parametrize("case", REFUSED, ids=repr)
def test_same_refusals(case: Case, bundle: Any, runc: Any, ours: Any, cid: str) -> None:
    config = config_of(case, bundle)
    for runtime in (runc, ours):
        made = bundle_of(case, bundle, config)
        assert_refused(case, runtime.run(made, cid))
        if runtime is ours:  # runc does leave some
            assert left_behind(runtime, config, cid) == []


@pytest.mark.parametrize("case", ONE_RUNS, ids=repr)
def test_refused_by_one(case: Case, bundle: Any, runc: Any, ours: Any, cid: str) -> None:
    config = config_of(case, bundle)
    theirs, own = (runtime.run(bundle_of(case, bundle, config), cid) for runtime in (runc, ours))
    if case.name in REFUSED_HERE:
        assert theirs.returncode == 0, theirs
        assert_refused(case, own)
    else:
        assert theirs.returncode == 1, theirs
        assert own.returncode == 0, own
    assert left_behind(ours, config, cid) == []


def test_every_deliberate_difference_is_one() -> None:
    """The tables have no entry that no case is about."""
    names = {case.name for case in ONE_RUNS}
    assert {*RUNS_HERE, *REFUSED_HERE} == names
    assert {entry.partition(" of ")[2] for entry in DELIBERATE} <= {case.name for case in BOTH_RUN}


#: Of a state: what is another in each container, or runtime. Debian's runc cannot look the owner's name up.
NOT_COMPARED = ("pid", "created", "bundle", "rootfs", "ociVersion", "owner")


def plain_state(runtime: Any, name: str, made: Path) -> dict[str, Any]:
    """The state without what differs from one container to the next."""
    state: dict[str, Any] = runtime.state(name)
    assert (state["pid"] > 0) == (state["status"] != "stopped")
    assert state["bundle"] == str(made)
    assert state["rootfs"] == str(made / "rootfs")
    # RFC 3339 with fractions, in UTC.
    assert len(state["created"].partition("Z")[0].partition(".")[0]) == len("2000-01-01T00:00:00")
    return {key: "" if key in NOT_COMPARED else state[key] for key in state}


def test_states(bundle: Any, runc: Any, ours: Any, cid: str, stopped: Any) -> None:
    told = []
    for runtime in (runc, ours):
        made = bundle("sleep", "100", annotations={"a.b": "c d", "e": ""})
        assert runtime.create(made, cid).returncode == 0
        states = [plain_state(runtime, cid, made)]
        assert runtime("start", cid).returncode == 0
        states.append(plain_state(runtime, cid, made))
        listed = json.loads(runtime("list", "--format", "json").stdout)
        assert [entry["id"] for entry in listed] == [cid]
        states.append({key: "" if key in NOT_COMPARED else value for key, value in listed[0].items()})
        assert runtime("list", "--quiet").stdout.split() == [cid]
        pids = json.loads(runtime("ps", "--format", "json", cid).stdout)
        assert pids == [runtime.state(cid)["pid"]]
        assert runtime("pause", cid).returncode == 0
        states.append(plain_state(runtime, cid, made))
        assert runtime("resume", cid).returncode == 0
        assert runtime("kill", cid, "KILL").returncode == 0
        stopped(runtime, cid)
        states.append(plain_state(runtime, cid, made))
        assert runtime("delete", cid).returncode == 0
        told.append(states)
    assert [state["status"] for state in told[1]] == ["created", "running", "running", "paused", "stopped"]
    assert told[0] == told[1]


#: What is tried in which state, and words that both say. A verb with a ``+`` is to succeed.
TRIES = {
    "nothing": {
        "state ID": "does not exist",
        "start ID": "does not exist",
        "kill ID": "does not exist",
        "delete ID": "does not exist",
        "+delete --force ID": "",
        "pause ID": "does not exist",
        "resume ID": "does not exist",
        "ps ID": "does not exist",
        "exec ID true": "does not exist",
        "update --pids-limit 10 ID": "does not exist",
        "events --stats ID": "does not exist",
        "state": "requires|argument",
        "state ../x": "id",
        "start": "requires|argument",
        "list --nonsense": "nonsense",
        "+list": "",
    },
    "created": {
        "create --bundle BUNDLE ID": "exists|already",
        "run --bundle BUNDLE ID": "exists|already",
        "resume ID": "paused",
        "kill ID NONSENSE": "signal",
        "+ps ID": "",
        "+exec ID true": "",
        "+update --pids-limit 20 ID": "",
        "+start ID": "",
    },
    "running": {
        "start ID": "running|not stopped|created",
        "create --bundle BUNDLE ID": "exists|already",
        "delete ID": "running|stopped",
        "resume ID": "paused",
        "exec ID /no/such": "no such file",
        "exec ID nosuch": "not found",
        "exec ID": "requires|argument|args",
        "exec --cwd /no/such ID true": "",
        "exec --user nobody ID true": "nobody",
        "+kill ID 0": "",
        "+pause ID": "",
        "exec ID true": "paused|frozen",
        "+resume ID": "",
        "+exec ID true": "",
        "update --memory nonsense ID": "nonsense",
        "update --resources /no/such ID": "/no/such",
        "+kill ID KILL": "",
    },
    "stopped": {
        "start ID": "stopped",
        "kill ID KILL": "not running|no such process|finished",
        "pause ID": "not running|stopped",
        "resume ID": "paused",
        "exec ID true": "not running|stopped",
        "+state ID": "",
        "+delete ID": "",
        "delete ID": "does not exist",
    },
}


@pytest.mark.parametrize("status", TRIES)
def test_same_answers(status: str, bundle: Any, runc: Any, ours: Any, cid: str, stopped: Any) -> None:
    codes = []
    for runtime in (runc, ours):
        made = bundle("sleep", "100")
        if status != "nothing":
            assert runtime.create(made, cid).returncode == 0
        if status in ("running", "stopped"):
            assert runtime("start", cid).returncode == 0
        if status == "stopped":
            assert runtime("kill", cid, "KILL").returncode == 0
            stopped(runtime, cid)
        answers = []
        for line, sense in TRIES[status].items():
            words = [word.replace("ID", cid).replace("BUNDLE", str(made)) for word in line.lstrip("+").split()]
            done = runtime(*words)
            answers.append(f"{line}: {done.returncode}")
            assert (done.returncode == 0) == line.startswith("+"), (line, done)
            assert any(word in done.stderr.lower() for word in sense.split("|")), (line, done)
        codes.append(answers)
    assert codes[0] == codes[1]


#: Options of ``exec``, and what the process is; in place of options an object for ``--process``.
EXECS: dict[str, list[str] | dict[str, Any]] = {
    "plain": [],
    "cwd": ["--cwd", "/tmp"],
    "env": ["--env", "A=b c", "--env", "PATH=/bin"],
    "user": ["--user", "1000"],
    "user-and-group": ["-u", "1000:29"],
    "groups": ["-g", "5", "-g", "6"],
    "capability": ["--cap", "CAP_SYS_ADMIN", "--cap", "CAP_NET_ADMIN"],
    "no-new-privileges": ["--no-new-privs"],
    "process": {"cwd": "/tmp", "args": ["sh", "-c", PROBE], "env": ["PATH=/bin", "X=y"], "user": {"uid": 0, "gid": 0}},
    "process-of-user": {
        "cwd": "/",
        "args": ["sh", "-c", PROBE],
        "env": ["PATH=/bin"],
        "user": {"uid": 1000, "gid": 29, "additionalGids": [7, 8]},
        "capabilities": capabilities(**dict.fromkeys(CAPABILITY_SETS, "CHOWN")),
        # Not two: Go's own start-up may raise the soft limit once more, in runc's init.
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 50}],
        "noNewPrivileges": True,
    },
}


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        *(("plain", kind) for kind in EXECS),
        *(("user-namespace", kind) for kind in ("plain", "user", "process-of-user")),
    ],
)
def test_same_inside_of_exec(where: str, kind: str, bundle: Any, runc: Any, ours: Any, cid: str) -> None:
    case = next(case for case in CASES if case.name == where)
    config = config_of(case, bundle)
    config["process"]["args"] = ["sleep", "100"]
    given = EXECS[kind]
    views = []
    for runtime in (runc, ours):
        made = bundle_of(case, bundle, config)
        assert runtime.create(made, cid).returncode == 0
        assert runtime("start", cid).returncode == 0
        if isinstance(given, dict):
            (made / "process.json").write_text(json.dumps(given))
            done = runtime("exec", "--process", made / "process.json", cid)
        else:
            done = runtime("exec", *given, cid, "sh", "-c", PROBE)
        views.append(seen(made, cid, config, done))
        assert runtime("exec", cid, "sh", "-c", "exit 9").returncode == 9
        assert runtime("delete", "--force", cid).returncode == 0
    found = differences(*views, case)
    assert not found, "\n".join(found)


def test_same_states_for_hooks(bundle: Any, runc: Any, ours: Any, cid: str) -> None:
    """Each kind is told the same of the container, at the same time, and runs in the same namespaces.

    But for the status, which here is what the specification says, and where ``createContainer`` runs: in the bundle, as
    crun has it, where runc is in the root.
    """
    told = []
    for runtime in (runc, ours):
        made = bundle("true", annotations={"key": "value"})
        config = json.loads((made / "config.json").read_text())
        look = "cat; echo; readlink /proc/self/ns/mnt; readlink /proc/self/ns/uts; echo $0 $2; pwd; env"
        script = f"{{ {look}; }} >>$1/$2.$3"
        host = made / "rootfs"  # startContainer sees the container's root
        for kind in HOOKS:
            place = "/tmp" if kind == "startContainer" else str(host / "tmp")
            arguments = ["sh", "-c", script, "name", place, kind]
            config.setdefault("hooks", {})[kind] = [
                {"path": "/bin/sh", "args": [*arguments, "1"], "env": ["A=b"]},
                {"path": "/bin/sh", "args": [*arguments, "2"]},
            ]
        (made / "config.json").write_text(json.dumps(config))
        assert runtime.create(made, cid).returncode == 0
        assert runtime("start", cid, cwd=made).returncode == 0
        assert runtime("delete", "--force", cid, cwd=made).returncode == 0
        seen_by = {}
        for file in sorted((host / "tmp").iterdir()):
            kind = file.name.partition(".")[0]
            text, _, rest = file.read_text().partition("\n")
            state = json.loads(text)
            assert state["bundle"] == str(made)
            assert state["id"] == cid
            # Of a process that has ended; of the container's first process, there; and as the host knows it.
            pid = state.get("pid", 0)
            assert {"poststop": pid == 0, "createContainer": pid == 1, "startContainer": pid == 1}.get(kind, pid > 1)
            if runtime is ours:
                assert state["status"] == {"poststart": "running", "poststop": "stopped"}.get(kind, "created")
            lines = rest.replace(str(made), "BUNDLE").splitlines()
            if kind == "createContainer":
                lines.remove("BUNDLE/rootfs")
            namespaces_of = [os.readlink(f"/proc/self/ns/{name}") in lines for name in ("mnt", "uts")]
            others = sorted(line for line in lines if not line.startswith(("mnt:", "uts:", "PWD=", "_=", "SHLVL=")))
            seen_by[file.name] = (sorted({*state} - {"pid"}), state["annotations"], namespaces_of, others)
        told.append(seen_by)
    assert len(told[1]) == 12
    assert told[1] == told[0]
