"""config.json: read, and checked whole against the runtime specification before anything is done.

The check is one table of rules, `_CONFIG`, laid out as the file is. What the table does not name is ignored, as the
specification says of unknown properties (config.md, "Extensibility"), and so are the sections of other systems.

A property that is null is taken for absent, as Go's decoder does, and is removed: nobody after this meets one.
"""

from __future__ import annotations

import os

from mydocker import plain_json
from mydocker.errors import OciError
from mydocker.oci.process import DOMAINS, IO_CLASSES, POLICIES, RLIMITS, SCHEDULER_FLAGS
from mydocker.oci.rules import (
    Wrong,
    boolean,
    check_whole,
    form,
    integer,
    list_of,
    map_of,
    object_of,
    one_of,
    short,
    string,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.oci.rules import Rule

_UINT16 = 2**16 - 1
_UINT32 = 2**32 - 1
_UINT64 = 2**64 - 1

#: config-linux.md, "Namespaces".
NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")

#: config.md, "POSIX-platform Hooks", in the order in which they run.
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

#: The values that mount(8) has for the propagation of a whole tree are taken too, as engines write them.
PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable")

#: The sysctls of an IPC namespace (ipc_namespaces(7)) that have no prefix of their own.
_IPC_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced".split()
)


def load(bundle: str, file: str = "config.json") -> dict[str, Any]:
    """The config of the bundle, validated. OciError if it cannot be read, or is not valid."""
    path = os.path.join(bundle, file)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            text = f.read()
    except FileNotFoundError:
        if not os.path.isdir(bundle):
            raise OciError(f"bundle {bundle}: no such directory") from None
        raise OciError(f"JSON specification file {os.path.basename(path)} not found: there is no {path}") from None
    except OSError as e:
        raise OciError(f"cannot read {path}: {e.strerror}") from e
    config = parse(text, path)
    validate(config)
    _complete_maps(config)
    return config


def _complete_maps(config: dict[str, Any]) -> None:
    """A new user namespace without maps has root alone, who is the caller: as for crun, and what any caller may map."""
    linux = config.get("linux", {})
    if namespaces(config).get("user") == "" and not linux.get("uidMappings"):
        for name, own in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
            linux[name] = [{"containerID": 0, "hostID": own, "size": 1}]


def parse(text: str, what: str) -> dict[str, Any]:
    """The JSON object that ``text`` is. OciError, which says ``what`` is wrong, if it is none."""
    try:
        value = plain_json.loads(text)
    except ValueError as e:
        raise OciError(f"{what} is not JSON: {e}") from None
    except RecursionError:
        raise OciError(f"{what} is not a config: its objects are nested too deep") from None
    if not isinstance(value, dict):
        raise OciError(f"{what} must hold a JSON object")
    return value


def validate(config: dict[str, Any]) -> None:
    """OciError, which names the place in the file, if the config is not one of the runtime specification 1.2.

    ``process`` may lack, as the specification has it for a container that is only created. Removes properties that
    are null.
    """
    check_whole(_CONFIG, config, "config.json")


def validate_process(process: dict[str, Any]) -> None:
    """The same for an object ``process`` on its own, such as ``exec --process`` reads."""
    check_whole(_PROCESS, process, "process")


def validate_resources(resources: dict[str, Any]) -> None:
    """The same for an object ``linux.resources`` on its own, such as ``update --resources`` reads."""
    check_whole(_RESOURCES, resources, "resources")


def namespaces(config: dict[str, Any]) -> dict[str, str]:
    """The namespaces of a validated config that are not the runtime's: type to path, which is empty for a new one."""
    return {entry["type"]: entry.get("path", "") for entry in config.get("linux", {}).get("namespaces", ())}


def sysctl_parts(name: str) -> list[str]:
    """A sysctl's path below /proc/sys, in parts. ValueError if it is none.

    Whichever of ``.`` and ``/`` comes first separates; the other then stands for itself, as in ``net/ipv4/eth0.1/x``
    (sysctl.d(5)).
    """
    dot, slash = name.find("."), name.find("/")
    by_dot = slash < 0 or 0 <= dot < slash
    parts = name.split("." if by_dot else "/")
    if by_dot:
        parts = [part.replace("/", ".") for part in parts]
    if any(part in ("", ".", "..") or "/" in part for part in parts) or len(parts) < 2:
        raise ValueError(name)
    return parts


_INT32 = integer(-(2**31), 2**31 - 1)
_INT64 = integer(-(2**63), 2**63 - 1)
_U16 = integer(0, _UINT16)
_U32 = integer(0, _UINT32)
_U64 = integer(0, _UINT64)
#: The last of 32 bits is no id: to setresuid(2) it means "leave it", which here is root.
_ID = integer(0, _UINT32 - 1)
_STRINGS = list_of(string)
_ABSOLUTE = form(lambda s: s.startswith("/"), "must be an absolute path: it must begin with /")
_NOT_EMPTY = form(bool, "must not be empty")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and (text == "0" or text[0] != "0")


def _version(value: Any) -> None:
    """Semantic Versioning 2.0.0, and a version that these rules are for.

    A config is for runtimes of its own version or a later one of the same major version (config.md, "Specification
    version"). Of 1.3, which engines write by now, the properties are known too: those that cannot be are refused.
    """
    string(value)
    core, plus, build = value.partition("+")
    core, minus, pre_release = core.partition("-")
    numbers = core.split(".")
    tails = [*(pre_release.split(".") if minus else ()), *(build.split(".") if plus else ())]
    if (
        len(numbers) != 3
        or not all(_is_number(number) for number in numbers)
        or not all(tail.isascii() and tail.replace("-", "a").isalnum() for tail in tails)
    ):
        raise Wrong(f'"{short(value)}" is not a version in the form of 1.2.0')
    if numbers[0] != "1" or int(numbers[1]) > 3:
        raise Wrong(f'version "{short(value)}" is not supported: it must be 1.0.0 or later and below 1.4')


def _variable(value: Any) -> None:
    string(value)
    if value.find("=") <= 0:
        what = "name cannot be empty" if value.startswith("=") else "missing '='"
        raise Wrong(f'invalid environment variable "{short(value)}": {what}')


def _limits_differ(rlimits: Any) -> None:
    """Each limit once (config.md: "MUST generate an error"), the soft one at most the hard one (getrlimit(2))."""
    list_of(_RLIMIT)(rlimits)
    seen = set()
    for position, entry in enumerate(rlimits):
        if entry["type"] in seen:
            raise Wrong(f"{entry['type']} is there twice: keep one of them", "type", position)
        seen.add(entry["type"])
        if entry["soft"] > entry["hard"]:
            raise Wrong(f"{entry['soft']} is above the hard limit, {entry['hard']}", "soft", position)


def _fits_terminal(process: Any) -> None:
    """The size counts only where there is a terminal (config.md), which has 16 bits for it (ioctl_tty(2))."""
    if process.get("terminal"):
        for name, cells in process.get("consoleSize", {}).items():
            if name in ("height", "width") and cells > _UINT16:
                raise Wrong(f"{cells} is more than a terminal can have, {_UINT16}", name, "consoleSize")


def _is_cpu_list(text: str) -> bool:
    digits = text.replace(",", "").replace("-", "").replace(" ", "")
    return not text or (digits.isascii() and digits.isdecimal())


_CPU_LIST = form(_is_cpu_list, "is not a list of CPUs like 0-3,7")

_RLIMIT = object_of({"type": one_of(RLIMITS), "soft": _U64, "hard": _U64}, ("type", "soft", "hard"))

_PROCESS = object_of(
    {
        "terminal": boolean,
        "consoleSize": object_of({"height": _U64, "width": _U64}, ("height", "width")),
        "user": object_of({"uid": _ID, "gid": _ID, "umask": _U32, "additionalGids": list_of(_ID), "username": string}),
        "args": list_of(string, least=1),
        "env": list_of(_variable),
        "cwd": _ABSOLUTE,
        # What no kernel knows is warned of, not refused (config.md, "Linux Process").
        "capabilities": object_of(
            dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), _STRINGS)
        ),
        "rlimits": _limits_differ,
        "noNewPrivileges": boolean,
        "apparmorProfile": string,
        "selinuxLabel": string,
        "oomScoreAdj": integer(-1000, 1000),
        "scheduler": object_of(
            {
                "policy": one_of(POLICIES),
                "nice": integer(-20, 19),
                "priority": _INT32,
                "flags": list_of(one_of(SCHEDULER_FLAGS)),
                "runtime": _U64,
                "deadline": _U64,
                "period": _U64,
            },
            ("policy",),
        ),
        "ioPriority": object_of({"class": one_of(IO_CLASSES), "priority": integer(0, 7)}, ("class",)),
        "execCPUAffinity": object_of({"initial": _CPU_LIST, "final": _CPU_LIST}),
    },
    ("args", "cwd"),
    also=_fits_terminal,
)


def _maps_both(mount: Any, *where: str) -> None:
    """Both maps or none (config.md, "Mounts")."""
    for given, other in (("uidMappings", "gidMappings"), ("gidMappings", "uidMappings")):
        if mount.get(given) and not mount.get(other):
            raise Wrong(f"is required where {given} is given, and is not there", other, *where)


def _in_range(mapping: Any) -> None:
    for name in ("containerID", "hostID"):
        if mapping[name] + mapping["size"] > _UINT32 + 1:
            raise Wrong(f"the map's {mapping['size']} ids from {mapping[name]} on go past the last, {_UINT32}", name)


_ID_MAPS = list_of(
    object_of(
        {"containerID": _U32, "hostID": _U32, "size": integer(1, _UINT32)},
        ("containerID", "hostID", "size"),
        also=_in_range,
    )
)

_MOUNT = object_of(
    {
        "destination": _NOT_EMPTY,
        "type": string,
        "source": string,
        "options": _STRINGS,
        "uidMappings": _ID_MAPS,
        "gidMappings": _ID_MAPS,
    },
    ("destination",),
    also=_maps_both,
)

_HOOK = object_of(
    {"path": _ABSOLUTE, "args": _STRINGS, "env": _STRINGS, "timeout": integer(1, 2**31 - 1)},
    ("path",),
)


def _is_page_size(text: str) -> bool:
    return text[-2:] in ("KB", "MB", "GB") and text[:-2].isdecimal() and text.isascii() and text[0] != "0"


def _has_one_of(*names: str) -> Rule:
    def check(value: Any) -> None:
        if not any(name in value for name in names):
            raise Wrong(f"must have {' or '.join(names)}")

    return check


def _swappiness_left(memory: Any) -> None:
    """A percentage; or -1 as 64 bits without a sign, by which engines say that they leave it as it is."""
    if memory.get("swappiness") == _UINT64:
        del memory["swappiness"]
    elif memory.get("swappiness", 0) > 100:
        raise Wrong(f"must be from 0 to 100, not {memory['swappiness']}", "swappiness")


_BLOCK_DEVICE: dict[str, Rule] = {"major": _INT64, "minor": _INT64}
_THROTTLES = list_of(object_of({**_BLOCK_DEVICE, "rate": _U64}, ("major", "minor", "rate")))

_RESOURCES = object_of(
    {
        "devices": list_of(
            object_of(
                {
                    "allow": boolean,
                    "type": form(lambda s: s in ("", "a", "b", "c"), "is not a type of device: it must be a, b or c"),
                    "major": _INT64,
                    "minor": _INT64,
                    "access": form(lambda s: not s.strip("rwma") and s != "a", "is not made of r, w and m"),
                },
                ("allow",),
            )
        ),
        "memory": object_of(
            {
                **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _INT64),
                "swappiness": _U64,
                **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), boolean),
            },
            also=_swappiness_left,
        ),
        "cpu": object_of(
            {
                **dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), _U64),
                **dict.fromkeys(("quota", "realtimeRuntime", "idle"), _INT64),
                "cpus": string,
                "mems": string,
            }
        ),
        "pids": object_of({"limit": _INT64}, ("limit",)),
        "blockIO": object_of(
            {
                "weight": _U16,
                "leafWeight": _U16,
                "weightDevice": list_of(
                    object_of(
                        {**_BLOCK_DEVICE, "weight": _U16, "leafWeight": _U16},
                        ("major", "minor"),
                        also=_has_one_of("weight", "leafWeight"),
                    )
                ),
                "throttleReadBpsDevice": _THROTTLES,
                "throttleWriteBpsDevice": _THROTTLES,
                "throttleReadIOPSDevice": _THROTTLES,
                "throttleWriteIOPSDevice": _THROTTLES,
            }
        ),
        "hugepageLimits": list_of(
            object_of(
                {"pageSize": form(_is_page_size, "is not a page size like 64KB, 2MB or 1GB"), "limit": _U64},
                ("pageSize", "limit"),
            )
        ),
        "network": object_of(
            {
                "classID": _U32,
                "priorities": list_of(object_of({"name": _NOT_EMPTY, "priority": _U32}, ("name", "priority"))),
            }
        ),
        "rdma": map_of(
            object_of({"hcaHandles": _U32, "hcaObjects": _U32}, also=_has_one_of("hcaHandles", "hcaObjects")),
            _NOT_EMPTY,
        ),
        # Each name is a file of the container's cgroup, which a slash would leave.
        "unified": map_of(
            string,
            form(lambda s: s not in ("", ".", "..") and "/" not in s, "is not the name of a cgroup file"),
        ),
    }
)


def _returns_errno(rule: Any, action: str, number: str) -> None:
    """A number to return is an error with an action that returns none (config-linux.md, "Seccomp")."""
    if number in rule and rule[action] not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        raise Wrong(f"{rule[action]} returns no errno: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do", number)


def _syscall_sound(rule: Any) -> None:
    _returns_errno(rule, "action", "errnoRet")


def _seccomp_sound(seccomp: Any) -> None:
    action = seccomp.get("defaultAction")
    if action is None:
        if seccomp.get("syscalls"):
            raise Wrong("is required, and is not there", "defaultAction")
        return
    if action == "SCMP_ACT_NOTIFY":
        raise Wrong("SCMP_ACT_NOTIFY cannot be the default: the agent could not be told of the call", "defaultAction")
    _returns_errno(seccomp, "defaultAction", "defaultErrnoRet")
    if seccomp.get("listenerMetadata") and not seccomp.get("listenerPath"):
        raise Wrong("is required where listenerMetadata is given, and is not there", "listenerPath")


def _seccomp(value: Any) -> None:
    """The rules of what few containers but engines' have: the names are loaded with what compiles them."""
    from mydocker.seccomp.names import ACTIONS, ARCHITECTURES, FLAGS, OPERATORS

    syscall = object_of(
        {
            "names": list_of(_NOT_EMPTY, least=1),
            "action": one_of(ACTIONS),
            "errnoRet": _U32,
            "args": list_of(
                object_of(
                    {"index": integer(0, 5), "value": _U64, "valueTwo": _U64, "op": one_of(OPERATORS)},
                    ("index", "value", "op"),
                )
            ),
        },
        ("names", "action"),
        also=_syscall_sound,
    )
    object_of(
        {
            "defaultAction": one_of(ACTIONS),
            "defaultErrnoRet": _U32,
            "architectures": list_of(one_of(ARCHITECTURES)),
            "flags": list_of(one_of(FLAGS)),
            "listenerPath": string,
            "listenerMetadata": string,
            "syscalls": list_of(syscall),
        },
        also=_seccomp_sound,
    )(value)


def _types_differ(entries: Any) -> None:
    list_of(_NAMESPACE)(entries)
    seen = set()
    for position, entry in enumerate(entries):
        if entry["type"] in seen:
            raise Wrong(f"the namespace {entry['type']} is there twice: keep one of them", "type", position)
        seen.add(entry["type"])


def _has_numbers(device: Any) -> None:
    if device["type"] != "p":
        for name in ("major", "minor"):
            if name not in device:
                raise Wrong("is required unless the type is p, and is not there", name)


def _is_sysctl(name: str) -> bool:
    try:
        return bool(sysctl_parts(name))
    except ValueError:
        return False


def _is_interface(name: str) -> bool:
    """What the kernel takes for the name of a network device (dev_valid_name)."""
    return (
        0 < len(name.encode(errors="surrogateescape")) < 16
        and name not in (".", "..")
        and not any(c in "/:" or c.isspace() for c in name)
    )


_INTERFACE = form(_is_interface, "is not a name for a network device")
_CLOCK = form(lambda s: s in ("monotonic", "boottime"), "has no offset: only monotonic and boottime have")
_NAMESPACE = object_of(
    {"type": one_of(NAMESPACES), "path": form(lambda s: not s or s.startswith("/"), "must begin with /")}, ("type",)
)
_PATHS = list_of(_ABSOLUTE)


def _no_flags(value: Any) -> None:
    if value:
        raise Wrong("must be empty: no flags are defined")


def _memory_policy(value: Any) -> None:
    """The names are loaded for the few containers that have one."""
    from mydocker.oci import memory_policy

    object_of({"mode": string, "nodes": string, "flags": _STRINGS})(value)
    try:
        memory_policy.parse(value)
    except ValueError as e:
        key, reason = e.args
        raise Wrong(reason, key) from None


def _schemata(value: Any) -> None:
    """A list of lines since version 1.3; what came before it had one string."""
    if type(value) is list:
        _STRINGS(value)
    else:
        string(value)


def _drop_empty_seccomp(linux: Any) -> None:
    """A section without an action is none: some engines write an empty one."""
    if "defaultAction" not in linux.get("seccomp", {"defaultAction": ""}):
        del linux["seccomp"]


_LINUX = object_of(
    {
        "namespaces": _types_differ,
        "uidMappings": _ID_MAPS,
        "gidMappings": _ID_MAPS,
        "timeOffsets": map_of(object_of({"secs": _INT64, "nanosecs": integer(0, 10**9 - 1)}), _CLOCK),
        "devices": list_of(
            object_of(
                {
                    "type": form(lambda s: s in tuple("cbup"), "is not a type of device: it must be c, b, u or p"),
                    "path": _ABSOLUTE,
                    # The bits that a dev_t has (include/linux/kdev_t.h).
                    "major": integer(0, 2**12 - 1),
                    "minor": integer(0, 2**20 - 1),
                    "fileMode": _U32,
                    "uid": _ID,
                    "gid": _ID,
                },
                ("type", "path"),
                also=_has_numbers,
            )
        ),
        "netDevices": map_of(object_of({"name": form(lambda s: not s or _is_interface(s), "is no name")}), _INTERFACE),
        "cgroupsPath": string,
        "resources": _RESOURCES,
        "intelRdt": object_of(
            {
                # "/" is the group of everybody.
                "closID": form(
                    lambda s: s == "/" or (s not in (".", "..") and "/" not in s), "is not the name of a directory"
                ),
                "l3CacheSchema": string,
                "memBwSchema": form(
                    lambda s: not s or (s.startswith("MB:") and "\n" not in s), "must be one line that begins with MB:"
                ),
                "schemata": _schemata,
                "enableCMT": boolean,
                "enableMBM": boolean,
                "enableMonitoring": boolean,
            }
        ),
        "sysctl": map_of(string, form(_is_sysctl, "is not the name of a kernel parameter")),
        "seccomp": _seccomp,
        "rootfsPropagation": one_of(PROPAGATIONS),
        "maskedPaths": _PATHS,
        "readonlyPaths": _PATHS,
        "mountLabel": string,
        "memoryPolicy": _memory_policy,
        "personality": object_of({"domain": one_of(DOMAINS), "flags": _no_flags}, ("domain",)),
    },
    also=_drop_empty_seccomp,
)


def _fits_namespaces(config: Any) -> None:
    """What only a namespace can have needs one that is not the runtime's."""
    linux = config.get("linux", {})
    own = namespaces(config)
    for name in ("hostname", "domainname"):
        if config.get(name) and "uts" not in own:
            raise Wrong(f"unable to set {name} without a private UTS namespace: add one to linux.namespaces", name)
    if "mount" not in own:
        for name in ("maskedPaths", "readonlyPaths"):
            if linux.get(name):
                raise Wrong("unable to restrict paths without a private mount namespace", name, "linux")
    _fits_user_namespace(linux, own)
    if linux.get("timeOffsets") and own.get("time") != "":
        why = "unable to set clocks without a new time namespace: add one, without a path, to linux.namespaces"
        raise Wrong(why, "timeOffsets", "linux")
    if linux.get("netDevices") and "network" not in own:
        raise Wrong("unable to move network devices without a private network namespace", "netDevices", "linux")
    for name in linux.get("sysctl", ()):
        _fits_sysctl(name, own)


def _fits_user_namespace(linux: Any, own: dict[str, str]) -> None:
    for name in ("uidMappings", "gidMappings"):
        if linux.get(name) and "user" not in own:
            raise Wrong("ids are mapped, and there is no user namespace in linux.namespaces", name, "linux")
    if own.get("user") == "":
        _maps_both(linux, "linux")


def _fits_sysctl(name: str, own: dict[str, str]) -> None:
    """A kernel parameter that is not a namespace's own would be the host's."""
    known = ".".join(sysctl_parts(name))
    if known == "kernel.hostname":
        raise Wrong('conflicts with the property "hostname", which is to be used instead', name, "sysctl", "linux")
    if known.startswith("net."):
        kind = "network"
    elif known in _IPC_SYSCTLS or known.startswith("fs.mqueue."):
        kind = "ipc"
    elif known == "kernel.domainname":
        kind = "uts"
    else:
        raise Wrong("is not in a separate kernel namespace: it would be set on the host", name, "sysctl", "linux")
    if kind not in own or (kind == "network" and _is_own_network(own["network"])):
        why = f"is not in a separate kernel namespace: add {kind} to linux.namespaces"
        raise Wrong(why, name, "sysctl", "linux")


def _is_own_network(path: str) -> bool:
    """Whether the path is that of the runtime's own network namespace."""
    if not path:
        return False
    try:
        return os.path.samestat(os.stat(path), os.stat("/proc/self/ns/net"))
    except OSError:
        return False  # whoever opens it says so


#: The kernel's __NEW_UTS_LEN.
_UTS_NAME = form(lambda s: len(s.encode(errors="surrogateescape")) <= 64, "is longer than the 64 bytes of a host name")

_CONFIG = object_of(
    {
        "ociVersion": _version,
        "root": object_of({"path": _NOT_EMPTY, "readonly": boolean}, ("path",)),
        "mounts": list_of(_MOUNT),
        "process": _PROCESS,
        "hostname": _UTS_NAME,
        "domainname": _UTS_NAME,
        "hooks": object_of({name: list_of(_HOOK) for name in HOOKS}),
        "annotations": map_of(string, _NOT_EMPTY),
        "linux": _LINUX,
    },
    ("ociVersion", "root"),
    also=_fits_namespaces,
)
