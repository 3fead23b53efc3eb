"""config.json: each rule by a config that breaks it, and that nothing but a named error ever comes of any JSON."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker.errors import OciError
from mydocker.oci import config as oci_config
from mydocker.oci import namespaces
from mydocker.oci.config import HOOKS, NAMESPACES, load, sysctl_parts, validate, validate_process, validate_resources

EVERYTHING: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4]},
        "args": ["sh", "-c", "true"],
        "env": ["PATH=/bin", "EMPTY="],
        "cwd": "/",
        "capabilities": {
            name: ["CAP_KILL"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
        ],
        "noNewPrivileges": True,
        "apparmorProfile": "some-profile",
        "selinuxLabel": "system_u:system_r:container_t:s0",
        "oomScoreAdj": -999,
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "nice": 0,
            "priority": 0,
            "flags": ["SCHED_FLAG_RECLAIM"],
            "runtime": 1,
            "deadline": 2,
            "period": 3,
        },
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-3,7", "final": "0"},
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "example.org",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["ro"]},
        {
            "destination": "/data",
            "source": "/data",
            "options": ["bind"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        },
    ],
    "hooks": {kind: [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}] for kind in HOOKS},
    "annotations": {"org.example.key": "value", "empty": ""},
    "linux": {
        "namespaces": [
            {"type": "pid"},
            {"type": "network", "path": "/run/netns/a"},
            *({"type": kind} for kind in ("ipc", "uts", "mount", "user", "cgroup", "time")),
        ],
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 1}, "boottime": {"secs": 7}},
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0},
            {"path": "/dev/fifo", "type": "p"},
        ],
        "netDevices": {"eth0": {"name": "container0"}, "eth1": {}},
        "cgroupsPath": "/some/where",
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": -1, "minor": 3}],
            "memory": {
                "limit": 2**30,
                "reservation": -1,
                "swap": 2**31,
                "kernel": -1,
                "kernelTCP": -1,
                "swappiness": 60,
                "disableOOMKiller": False,
                "useHierarchy": True,
                "checkBeforeUpdate": True,
            },
            "cpu": {
                "shares": 1024,
                "quota": -1,
                "burst": 5,
                "period": 100000,
                "realtimeRuntime": 1,
                "realtimePeriod": 2,
                "cpus": "0-1",
                "mems": "0",
                "idle": 1,
            },
            "pids": {"limit": -1},
            "blockIO": {
                "weight": 10,
                "leafWeight": 10,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 600}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "64KB", "limit": 2**64 - 1}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
            "unified": {"io.max": "259:0 rbps=2097152"},
        },
        "intelRdt": {
            "closID": "guaranteed",
            "l3CacheSchema": "L3:0=7f0",
            "memBwSchema": "MB:0=20",
            "enableCMT": True,
            "enableMBM": False,
        },
        "sysctl": {
            "net.ipv4.ip_forward": "1",
            "kernel.shmmax": "5",
            "fs.mqueue.msg_max": "1",
            "kernel.domainname": "x",
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_RISCV64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/agent",
            "listenerMetadata": "for it",
            "syscalls": [
                {
                    "names": ["mkdir"],
                    "action": "SCMP_ACT_NOTIFY",
                    "args": [{"index": 5, "value": 2**64 - 1, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
                },
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            ],
        },
        "rootfsPropagation": "slave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "system_u:object_r:container_file_t:s0",
        "personality": {"domain": "LINUX32", "flags": []},
    },
}

NOTHING = object()


def changed(place: str, value: Any, base: dict[str, Any] = EVERYTHING) -> dict[str, Any]:
    """The config with one value in it replaced; `NOTHING` removes it. ``linux.devices.0.path`` is a place."""
    config = copy.deepcopy(base)
    inner: Any = config
    *outer, last = place.split("/")
    for name in outer:
        inner = inner[int(name) if isinstance(inner, list) else name]
    if isinstance(inner, list):
        inner[int(last)] = value
    elif value is NOTHING:
        del inner[last]
    else:
        inner[last] = value
    return config


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(OciError) as caught:
        validate(config)
    return str(caught.value)


def test_a_config_with_everything_in_it_is_valid() -> None:
    config = copy.deepcopy(EVERYTHING)
    validate(config)
    assert config == EVERYTHING


def test_the_least_config_is_valid() -> None:
    validate({"ociVersion": "1.0.0", "root": {"path": "rootfs"}})


@pytest.mark.parametrize(
    "version", ["1.0.0", "1.0.2-dev", "1.1.0-rc.3", "1.2.0", "1.2.1", "1.2.0+build.5", "1.0.1-0.a-b", "1.3.0"]
)
def test_versions_of_the_specification(version: str) -> None:
    validate(changed("ociVersion", version))


@pytest.mark.parametrize(
    "version",
    [
        "1.4.0",
        "2.0.0",
        "0.9.0",
        "1",
        "1.0",
        "1.0.0.0",
        "v1.0.0",
        "01.0.0",
        "1.0.x",
        "",
        "1.0.0-",
        "1.0.0-ä",
        "1.0." + "9" * 5000,
    ],
)
def test_versions_that_are_not_taken(version: str) -> None:
    assert refusal(changed("ociVersion", version)).startswith("ociVersion: ")


#: Place, what is put there, where the error is (the place if empty), and a word of what it says.
WRONG: list[tuple[str, Any, str, str]] = [
    ("ociVersion", NOTHING, "", "required"),
    ("ociVersion", 1, "", "must be a string, not 1"),
    ("root", NOTHING, "", "required"),
    ("root/path", NOTHING, "root.path", "required"),
    ("root/path", "", "root.path", "empty"),
    ("root/readonly", "yes", "root.readonly", 'must be true or false, not the string "yes"'),
    ("process", [], "process", "must be an object, not a list"),
    ("process/args", [], "process.args", "empty"),
    ("process/args", NOTHING, "process.args", "required"),
    ("process/args", "sh", "process.args", "must be a list"),
    ("process/args/1", 1, "process.args[1]", "must be a string"),
    ("process/args/1", None, "process.args[1]", "not null"),
    ("process/args/1", "a\0b", "process.args[1]", "NUL"),
    ("process/args/1", "\ud800", "process.args[1]", "surrogate"),
    ("process/cwd", NOTHING, "process.cwd", "required"),
    ("process/cwd", "tmp", "process.cwd", "absolute"),
    ("process/cwd", "", "process.cwd", "absolute"),
    ("process/env/0", "PATH", "process.env[0]", "missing '='"),
    ("process/env/0", "=x", "process.env[0]", "name cannot be empty"),
    ("process/terminal", 1, "process.terminal", "true or false"),
    ("process/consoleSize/height", -1, "process.consoleSize.height", "from 0"),
    ("process/consoleSize/height", 65536, "process.consoleSize.height", "more than a terminal can have"),
    ("process/consoleSize/width", NOTHING, "process.consoleSize.width", "required"),
    ("process/user/uid", -1, "process.user.uid", "from 0 to 4294967294"),
    ("process/user/uid", 2**32 - 1, "process.user.uid", "from 0 to 4294967294"),
    ("process/user/uid", True, "process.user.uid", "must be a whole number, not true"),
    ("process/user/uid", 1.0, "process.user.uid", "must be a whole number, not 1.0"),
    ("process/user/additionalGids/1", "5", "process.user.additionalGids[1]", "whole number"),
    ("process/user/umask", 2**32, "process.user.umask", "from 0"),
    ("process/capabilities", ["CAP_KILL"], "process.capabilities", "must be an object"),
    ("process/capabilities/ambient/0", 5, "process.capabilities.ambient[0]", "string"),
    ("process/rlimits/1/type", "RLIMIT_FILES", "process.rlimits[1].type", "RLIMIT_NOFILE"),
    ("process/rlimits/1/type", "RLIMIT_NOFILE", "process.rlimits[1].type", "twice"),
    ("process/rlimits/1/soft", -1, "process.rlimits[1].soft", "from 0 to 18446744073709551615, not -1"),
    ("process/rlimits/1/hard", 2**64, "process.rlimits[1].hard", "from 0 to 18446744073709551615"),
    ("process/rlimits/0/soft", 3, "process.rlimits[0].soft", "above the hard limit, 2"),
    ("process/rlimits/0/soft", NOTHING, "process.rlimits[0].soft", "required"),
    ("process/oomScoreAdj", 1001, "process.oomScoreAdj", "from -1000 to 1000"),
    ("process/scheduler/policy", "SCHED_FAST", "process.scheduler.policy", "SCHED_FIFO"),
    ("process/scheduler/policy", NOTHING, "process.scheduler.policy", "required"),
    ("process/scheduler/nice", 20, "process.scheduler.nice", "from -20 to 19"),
    ("process/scheduler/flags/0", "FAST", "process.scheduler.flags[0]", "SCHED_FLAG"),
    ("process/scheduler/runtime", -1, "process.scheduler.runtime", "from 0"),
    ("process/ioPriority/class", "BE", "process.ioPriority.class", "IOPRIO_CLASS_BE"),
    ("process/ioPriority/priority", 8, "process.ioPriority.priority", "from 0 to 7"),
    ("process/execCPUAffinity/final", "all", "process.execCPUAffinity.final", "0-3,7"),
    ("hostname", 5, "", "string"),
    ("hostname", "ü" * 33, "", "64 bytes"),
    ("domainname", "d" * 65, "", "64 bytes"),
    ("mounts", {}, "", "must be a list, not an object"),
    ("mounts/0/destination", NOTHING, "mounts[0].destination", "required"),
    ("mounts/0/destination", "", "mounts[0].destination", "empty"),
    ("mounts/0/options/0", 1, "mounts[0].options[0]", "string"),
    ("mounts/1/gidMappings", NOTHING, "mounts[1].gidMappings", "required where uidMappings"),
    ("mounts/1/uidMappings/0/size", 0, "mounts[1].uidMappings[0].size", "from 1"),
    ("hooks/prestart", {}, "hooks.prestart", "must be a list"),
    ("hooks/prestart/0/path", "bin/true", "hooks.prestart[0].path", "absolute"),
    ("hooks/poststop/0/path", NOTHING, "hooks.poststop[0].path", "required"),
    ("hooks/startContainer/0/timeout", 0, "hooks.startContainer[0].timeout", "from 1"),
    ("annotations", {"a": 1}, "annotations.a", "must be a string, not 1"),
    ("annotations", {"a/b": 1}, 'annotations["a/b"]', "string"),
    ("annotations", {"": "x"}, 'annotations[""]', "empty"),
    ("linux/namespaces/0/type", "net", "linux.namespaces[0].type", "network"),
    ("linux/namespaces/0", {"type": "network"}, "linux.namespaces[1].type", "twice"),
    ("linux/namespaces/0", {}, "linux.namespaces[0].type", "required"),
    ("linux/namespaces/1/path", "run/netns/a", "linux.namespaces[1].path", "begin with /"),
    ("linux/uidMappings/0/size", 2**32 - 1, "linux.uidMappings[0].hostID", "past the last"),
    ("linux/uidMappings/0/hostID", NOTHING, "linux.uidMappings[0].hostID", "required"),
    ("linux/gidMappings", [], "linux.gidMappings", "required where uidMappings is given"),
    ("linux/timeOffsets", {"realtime": {"secs": 1}}, "linux.timeOffsets.realtime", "monotonic"),
    ("linux/timeOffsets/monotonic/nanosecs", 10**9, "linux.timeOffsets.monotonic.nanosecs", "to 999999999"),
    ("linux/devices/0/type", "x", "linux.devices[0].type", "c, b, u or p"),
    ("linux/devices/0/path", "dev/fuse", "linux.devices[0].path", "absolute"),
    ("linux/devices/0/major", NOTHING, "linux.devices[0].major", "required unless the type is p"),
    ("linux/devices/0/minor", -1, "linux.devices[0].minor", "from 0 to 1048575"),
    ("linux/devices/0/uid", 2**32 - 1, "linux.devices[0].uid", "from 0"),
    ("linux/netDevices", {"a" * 16: {}}, f"linux.netDevices.{'a' * 16}", "network device"),
    ("linux/netDevices/eth0/name", "a/b", "linux.netDevices.eth0.name", "is no name"),
    ("linux/cgroupsPath", ["a"], "linux.cgroupsPath", "string"),
    ("linux/resources/devices/0/allow", NOTHING, "linux.resources.devices[0].allow", "required"),
    ("linux/resources/devices/0/access", "rwx", "linux.resources.devices[0].access", "r, w and m"),
    ("linux/resources/devices/0/type", "d", "linux.resources.devices[0].type", "a, b or c"),
    ("linux/resources/memory/limit", 2**63, "linux.resources.memory.limit", "from -9223372036854775808"),
    ("linux/resources/memory/swappiness", 101, "linux.resources.memory.swappiness", "from 0 to 100"),
    ("linux/resources/memory/disableOOMKiller", 0, "linux.resources.memory.disableOOMKiller", "true or false"),
    ("linux/resources/cpu/shares", -2, "linux.resources.cpu.shares", "from 0"),
    ("linux/resources/cpu/quota", "max", "linux.resources.cpu.quota", "whole number"),
    ("linux/resources/cpu/cpus", 0, "linux.resources.cpu.cpus", "string"),
    ("linux/resources/pids/limit", NOTHING, "linux.resources.pids.limit", "required"),
    ("linux/resources/blockIO/weight", 2**16, "linux.resources.blockIO.weight", "to 65535"),
    (
        "linux/resources/blockIO/weightDevice/0/weight",
        NOTHING,
        "linux.resources.blockIO.weightDevice[0]",
        "weight or leafWeight",
    ),
    (
        "linux/resources/blockIO/throttleReadBpsDevice/0/rate",
        NOTHING,
        "linux.resources.blockIO.throttleReadBpsDevice[0].rate",
        "required",
    ),
    (
        "linux/resources/hugepageLimits/0/pageSize",
        "2M",
        "linux.resources.hugepageLimits[0].pageSize",
        "64KB, 2MB or 1GB",
    ),
    (
        "linux/resources/hugepageLimits/0/pageSize",
        "KB",
        "linux.resources.hugepageLimits[0].pageSize",
        "64KB, 2MB or 1GB",
    ),
    ("linux/resources/hugepageLimits/0/limit", NOTHING, "linux.resources.hugepageLimits[0].limit", "required"),
    ("linux/resources/network/classID", 2**32, "linux.resources.network.classID", "from 0"),
    ("linux/resources/network/priorities/0/name", NOTHING, "linux.resources.network.priorities[0].name", "required"),
    ("linux/resources/rdma/mlx5_1", {}, "linux.resources.rdma.mlx5_1", "hcaHandles or hcaObjects"),
    ("linux/resources/unified", {"../memory.max": "1"}, 'linux.resources.unified["../memory.max"]', "cgroup file"),
    ("linux/resources/unified", {"..": "1"}, 'linux.resources.unified[".."]', "cgroup file"),
    ("linux/intelRdt/closID", "..", "linux.intelRdt.closID", "directory"),
    ("linux/intelRdt/closID", "a/b", "linux.intelRdt.closID", "directory"),
    ("linux/intelRdt/memBwSchema", "L3:0=1", "linux.intelRdt.memBwSchema", "MB:"),
    ("linux/intelRdt/memBwSchema", "MB:0=20\nL3:0=1", "linux.intelRdt.memBwSchema", "one line"),
    ("linux/sysctl", {"vm.swappiness": "1"}, 'linux.sysctl["vm.swappiness"]', "separate kernel namespace"),
    ("linux/sysctl", {"kernel.hostname": "x"}, 'linux.sysctl["kernel.hostname"]', '"hostname"'),
    (
        "linux/sysctl",
        {"net/../kernel/core_pattern": "x"},
        'linux.sysctl["net/../kernel/core_pattern"]',
        "kernel parameter",
    ),
    ("linux/sysctl", {"net..x": "x"}, 'linux.sysctl["net..x"]', "kernel parameter"),
    ("linux/sysctl", {"net": "x"}, "linux.sysctl.net", "kernel parameter"),
    ("linux/sysctl", {"net.a": 1}, 'linux.sysctl["net.a"]', "string"),
    ("linux/seccomp/defaultAction", NOTHING, "linux.seccomp.defaultAction", "required"),
    ("linux/seccomp/defaultAction", "SCMP_ACT_NO", "linux.seccomp.defaultAction", "SCMP_ACT_ERRNO"),
    ("linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY", "linux.seccomp.defaultAction", "agent"),
    ("linux/seccomp/defaultAction", "SCMP_ACT_KILL", "linux.seccomp.defaultErrnoRet", "returns no errno"),
    ("linux/seccomp/architectures/0", "X86", "linux.seccomp.architectures[0]", "SCMP_ARCH_X86"),
    ("linux/seccomp/flags/0", "LOG", "linux.seccomp.flags[0]", "SECCOMP_FILTER_FLAG_LOG"),
    ("linux/seccomp/listenerPath", NOTHING, "linux.seccomp.listenerPath", "listenerMetadata"),
    ("linux/seccomp/syscalls/0/names", [], "linux.seccomp.syscalls[0].names", "empty"),
    ("linux/seccomp/syscalls/0/action", NOTHING, "linux.seccomp.syscalls[0].action", "required"),
    ("linux/seccomp/syscalls/1/action", "SCMP_ACT_ALLOW", "linux.seccomp.syscalls[1].errnoRet", "returns no errno"),
    ("linux/seccomp/syscalls/0/args/0/index", 6, "linux.seccomp.syscalls[0].args[0].index", "from 0 to 5"),
    ("linux/seccomp/syscalls/0/args/0/op", "EQ", "linux.seccomp.syscalls[0].args[0].op", "SCMP_CMP_EQ"),
    ("linux/seccomp/syscalls/0/args/0/value", NOTHING, "linux.seccomp.syscalls[0].args[0].value", "required"),
    ("linux/rootfsPropagation", "all", "linux.rootfsPropagation", "rshared"),
    ("linux/maskedPaths/0", "proc/kcore", "linux.maskedPaths[0]", "absolute"),
    ("linux/readonlyPaths/0", "proc/sys", "linux.readonlyPaths[0]", "absolute"),
    ("linux/mountLabel", 1, "linux.mountLabel", "string"),
    ("linux/memoryPolicy", {}, "linux.memoryPolicy.mode", "invalid memory policy mode"),
    ("linux/memoryPolicy", {"mode": "BIND", "nodes": "0"}, "linux.memoryPolicy.mode", "invalid memory policy mode"),
    ("linux/memoryPolicy", {"mode": "MPOL_BIND"}, "linux.memoryPolicy.nodes", "at least one node"),
    ("linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "1-0"}, "linux.memoryPolicy.nodes", "memory policy node"),
    ("linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0-98765"}, "linux.memoryPolicy.nodes", "policy node"),
    ("linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "zero"}, "linux.memoryPolicy.nodes", "policy node"),
    ("linux/memoryPolicy", {"mode": "MPOL_DEFAULT", "nodes": "0-7"}, "linux.memoryPolicy.nodes", "0 nodes but got 8"),
    ("linux/memoryPolicy", {"mode": "MPOL_LOCAL", "flags": ["F"]}, "linux.memoryPolicy.flags", "policy flag"),
    ("linux/personality/domain", "BSD", "linux.personality.domain", "LINUX32"),
    ("linux/personality/domain", NOTHING, "linux.personality.domain", "required"),
    ("linux/personality/flags", ["X"], "linux.personality.flags", "empty"),
]


@pytest.mark.parametrize(("place", "value", "where", "words"), WRONG)
def test_what_is_wrong_is_named(place: str, value: Any, where: str, words: str) -> None:
    told, _, why = refusal(changed(place, value)).partition(": ")
    assert told == (where or place)
    assert words in why


def without(kind: str) -> dict[str, Any]:
    return changed("linux/namespaces", [entry for entry in EVERYTHING["linux"]["namespaces"] if entry["type"] != kind])


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("uts", "hostname"),
        ("mount", "linux.maskedPaths"),
        ("user", "linux.uidMappings"),
        ("time", "linux.timeOffsets"),
        ("network", "linux.netDevices"),
        ("ipc", 'linux.sysctl["kernel.shmmax"]'),
    ],
)
def test_what_only_a_namespace_can_have_needs_one(kind: str, where: str) -> None:
    assert refusal(without(kind)).startswith(f"{where}: ")


def test_a_time_namespace_of_somebody_else_has_its_offsets() -> None:
    config = changed("linux/namespaces/7", {"type": "time", "path": "/proc/1/ns/time"})
    assert refusal(config).startswith("linux.timeOffsets: ")


def test_the_maps_of_a_user_namespace_that_is_joined_are_its_own() -> None:
    config = changed("linux/namespaces/5", {"type": "user", "path": "/proc/1/ns/user"})
    del config["linux"]["uidMappings"], config["linux"]["gidMappings"]
    validate(config)


def test_the_runtimes_own_network_namespace_by_its_path_is_not_the_containers() -> None:
    config = changed("linux/namespaces/1/path", f"/proc/{os.getpid()}/ns/net")
    assert refusal(config).startswith('linux.sysctl["net.ipv4.ip_forward"]: ')


def test_null_is_absent_and_is_removed() -> None:
    config = changed("hooks", None)
    config["linux"]["seccomp"] = config["linux"]["resources"]["memory"]["limit"] = None
    config["process"]["capabilities"] = None
    validate(config)
    assert "hooks" not in config
    assert "seccomp" not in config["linux"]
    assert "limit" not in config["linux"]["resources"]["memory"]
    assert "capabilities" not in config["process"]
    assert refusal(changed("root", None)).startswith("root: is required")


def test_a_name_in_other_letter_case_is_the_propertys() -> None:
    """As Go's decoder has it, and so runc and the engines: a limit that is passed over would not be in force."""
    resources: dict[str, Any] = {"CPU": {"Cpus": "0"}, "hugepageLimits": [{"pagesize": "2MB", "LIMIT": 1}]}
    config: dict[str, Any] = {"ociVersion": "1.0.2", "ROOT": {"Path": "rootfs"}, "linux": {"resources": resources}}
    oci_config.validate(config)
    assert config["root"] == {"path": "rootfs"}
    assert config["linux"]["resources"] == {
        "cpu": {"cpus": "0"},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
    }
    with pytest.raises(OciError, match=r"linux\.resources\.CPU: is there as cpu too"):
        oci_config.validate({**config, "linux": {"resources": {"cpu": {}, "CPU": {}}}})
    with pytest.raises(OciError, match=r"linux\.resources\.cpu\.shares: must be"):
        oci_config.validate({**config, "linux": {"resources": {"Cpu": {"Shares": "many"}}}})


def test_unknown_properties_and_other_systems_are_ignored() -> None:
    config = changed("windows", 5)
    config.update(vm=[], solaris="x", zos=1, surprise={"a": None})
    config["process"]["later"] = {"x": [1]}
    before = copy.deepcopy(config)
    validate(config)
    assert config == before


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("hostname", ""),
        ("linux/namespaces/1/path", ""),
        ("linux/rootfsPropagation", "rslave"),
        ("linux/rootfsPropagation", ""),
        ("linux/cgroupsPath", ""),
        ("linux/cgroupsPath", "system.slice:prefix:name"),
        ("mounts/0/destination", "proc"),
        ("mounts/0/type", ""),
        ("process/capabilities/bounding/0", "CAP_OF_TOMORROW"),
        ("process/user", NOTHING),
        ("process/rlimits", []),
        ("process/apparmorProfile", ""),
        ("process/consoleSize", {"height": 0, "width": 0}),
        ("linux/resources/devices/0/type", ""),
        ("linux/resources/devices/0/access", ""),
        ("linux/resources/pids/limit", 0),
        ("linux/uidMappings/0", {"containerID": 0, "hostID": 0, "size": 2**32 - 1}),
        ("linux/intelRdt/schemata", ["L3:0=f", "MB:0=20"]),
        ("linux/sysctl", {"net/ipv4/conf/eth0.1/forwarding": "1"}),
        ("linux/sysctl", {"net.ipv4.conf.eth0/1.forwarding": "1"}),
    ],
)
def test_what_engines_write_is_taken(place: str, value: Any) -> None:
    validate(changed(place, value))


def test_an_empty_seccomp_section_is_none() -> None:
    config = changed("linux/seccomp", {})
    validate(config)
    assert "seccomp" not in config["linux"]


def test_swappiness_of_minus_one_leaves_it() -> None:
    config = changed("linux/resources/memory/swappiness", 2**64 - 1)
    validate(config)
    assert "swappiness" not in config["linux"]["resources"]["memory"]


def test_a_size_without_a_terminal_does_not_matter() -> None:
    config = changed("process/consoleSize/height", 10**6)
    config["process"]["terminal"] = False
    validate(config)


def test_sections_on_their_own() -> None:
    validate_process(copy.deepcopy(EVERYTHING["process"]))
    validate_resources(copy.deepcopy(EVERYTHING["linux"]["resources"]))
    with pytest.raises(OciError, match=r"^cwd: "):
        validate_process({"args": ["a"], "cwd": "x"})
    with pytest.raises(OciError, match=r"^pids.limit: "):
        validate_resources({"pids": {"limit": "many"}})
    with pytest.raises(OciError, match=r"^process: "):
        validate_process([])  # type: ignore[arg-type]


def test_every_kind_of_namespace_that_can_be_made_may_be_asked_for() -> None:
    assert set(NAMESPACES) == set(namespaces.KINDS)


def test_sysctl_names() -> None:
    assert sysctl_parts("net.ipv4.ip_forward") == ["net", "ipv4", "ip_forward"]
    assert sysctl_parts("net/ipv4/conf/eth0.1/forwarding") == ["net", "ipv4", "conf", "eth0.1", "forwarding"]
    assert sysctl_parts("net.ipv4.conf.eth0/1.forwarding") == ["net", "ipv4", "conf", "eth0.1", "forwarding"]
    for name in ("", "a", ".a", "a.", "a..b", "a/../b", "/a/b", "a/./b", "a.//.b"):
        with pytest.raises(ValueError):
            sysctl_parts(name)


@given(st.text(alphabet="a./", max_size=12))
def test_no_name_of_a_sysctl_leads_elsewhere(name: str) -> None:
    try:
        parts = sysctl_parts(name)
    except ValueError:
        return
    path = "/proc/sys/" + "/".join(parts)
    assert os.path.normpath(path) == path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: str = "") -> list[str]:
    found = [path] if path else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        if "/" not in str(name):
            found += places(entry, f"{path}/{name}" if path else str(name))
    return found


@given(json_values)
def test_any_json_is_valid_or_refused(value: Any) -> None:
    for check in (validate, validate_process, validate_resources):
        try:
            check(copy.deepcopy(value))
        except OciError as e:
            assert "\n" not in str(e)


@given(st.data())
def test_any_value_at_any_place_is_valid_or_refused(data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(places(EVERYTHING)))
    config = changed(place, data.draw(json_values))
    try:
        validate(config)
    except OciError as e:
        assert "\n" not in str(e)
        assert len(str(e)) < 600


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(OciError, match=r"JSON specification file config\.json not found.*" + str(path)):
        load(str(tmp_path))
    with pytest.raises(OciError, match=f"bundle {tmp_path}/none: no such directory"):
        load(f"{tmp_path}/none")
    for text, words in (("{", "is not JSON"), ("[]", "JSON object"), ("", "is not JSON"), ("[" * 100_000, "nested")):
        path.write_text(text)
        with pytest.raises(OciError, match=words):
            load(str(tmp_path))
    path.write_text(json.dumps(EVERYTHING, indent=4))
    assert load(str(tmp_path)) == EVERYTHING
    path.write_bytes(b'{"ociVersion": "1.0.0", "root": {"path": "r\xff"}}')
    assert os.fsencode(load(str(tmp_path))["root"]["path"]) == b"r\xff"
    path.unlink()
    path.mkdir()
    with pytest.raises(OciError, match="cannot read"):
        load(str(tmp_path))


def test_namespaces_by_kind() -> None:
    found = oci_config.namespaces(EVERYTHING)
    assert found["network"] == "/run/netns/a"
    assert found["pid"] == ""
    assert oci_config.namespaces({"linux": {}}) == {}
