"""spec: write a config.json to begin with, for a bundle whose root is in rootfs."""

from __future__ import annotations

import os

from mydocker import plain_json
from mydocker.errors import OciError
from mydocker.oci.container import SPEC_VERSION
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.oci.main import Call

OPTIONS = (
    Option(names=("--bundle", "-b"), metavar="DIR", help="the directory of the bundle (default: where you are)"),
    Option(names=("--rootless",), kind="flag", help="one that a plain user can run"),
)
ARGUMENTS = ""

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")


def main(call: Call) -> int:
    bundle = call.options.get("bundle", "")
    path = os.path.join(bundle, "config.json")
    text = plain_json.dumps(_rootless() if call.options.get("rootless") else _default(), indent=2) + "\n"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise OciError(f"File {path} exists. Remove it first") from None
    except OSError as e:
        raise OciError(f"cannot write {path}: {e.strerror}") from e
    with open(fd, "w") as f:
        f.write(text)
    return 0


def _default() -> dict[str, Any]:
    """A shell, read-only and with few capabilities: what people begin with when they make a bundle by hand."""
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": list(_CAPABILITIES),
                "effective": list(_CAPABILITIES),
                "permitted": list(_CAPABILITIES),
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "mydocker",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                "/dev/pts",
                "devpts",
                "devpts",
                *("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            ),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": _namespaces("pid", "network", "ipc", "uts", "mount"),
            "maskedPaths": [
                *(f"/proc/{name}" for name in ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list")),
                *(f"/proc/{name}" for name in ("timer_stats", "sched_debug", "scsi")),
                "/sys/firmware",
            ],
            "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
        },
    }


def _namespaces(*kinds: str) -> list[dict[str, str]]:
    """These, and one of cgroups where the host has v2 alone: as from runc, whose callers add it on v1 if they want."""
    from mydocker.cgroups.layout import Layout

    more = ("cgroup",) if Layout.read().kind == "v2" else ()
    return [{"type": kind} for kind in (*kinds, *more)]


def _mount(destination: str, fstype: str, source: str, *options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": fstype, "source": source}
    if options:
        mount["options"] = list(options)
    return mount


def _rootless() -> dict[str, Any]:
    """In a user namespace where root is the caller and nobody else is, on the host's network, without limits."""
    config = _default()
    mounts = []
    for mount in config["mounts"]:
        if mount["destination"] == "/dev/pts":
            mount["options"].remove("gid=5")  # no group but the caller's is mapped
        elif mount["destination"] == "/sys":
            # A new sysfs shows a network namespace, and only who made that one may mount it.
            mount = _mount("/sys", "none", "/sys", "rbind", "nosuid", "noexec", "nodev", "ro")
        mounts.append(mount)
    config["mounts"] = mounts
    linux = config["linux"]
    del linux["resources"]
    linux["namespaces"] = _namespaces("pid", "ipc", "uts", "mount", "user")
    for name, host_id in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
        linux[name] = [{"containerID": 0, "hostID": host_id, "size": 1}]
    return config
