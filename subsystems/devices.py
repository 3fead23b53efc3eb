"""Which devices the container may use: ``--device``, ``--device-cgroup-rule``.

Without either, no cgroup restricts devices: a container has no CAP_MKNOD, so it has the nodes that it is given. With
one of them, it may use Docker's default devices and those that are named, and no other, whatever nodes it has or makes.

v1 has the controller devices (cgroup-v1/devices.rst), which is told exceptions. v2 has none: there the kernel asks an
eBPF program of the cgroup (cgroup-v2.rst, "Device controller"). An open for reading and writing needs one rule that
allows both, on either version.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker import (
    Amendment,
    CgroupError,
    LimitError,
    Probe,
    ResourceField,
    UnsupportedLimit,
    Volume,
    hookimpl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.spec import Spec

    #: (``b`` or ``c``, major or None for all, minor or None for all)
    Key = tuple[str, int | None, int | None]
    #: which of r, w and m are allowed, in this order
    Rules = dict[Key, str]

_FIELDS = ("device", "device_cgroup_rule")
#: To what the kernel counts (include/linux/kdev_t.h): 12 and 20 bits.
_MAJORS, _MINORS = range(1 << 12), range(1 << 20)

#: Docker's (moby, oci/devices_linux.go): nodes may be made; null, zero, full, random, urandom, tty, console and the
#: pseudo-terminals may be used.
_DEFAULT = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)


def parse_device(text: str) -> tuple[str, str, str]:
    """``HOST[:CONTAINER][:ACCESS]``: the paths there and here, and some of ``rwm`` (docker run --device)."""
    host, *rest = text.split(":")
    access = "rwm"
    if rest and _is_access(rest[-1]):
        access = _ordered(rest.pop())
    container = rest.pop() if rest else host
    if rest or not host.startswith("/") or not container.startswith("/"):
        raise ValueError(
            f'"{text}" is not of the form HOST[:CONTAINER[:ACCESS]]: write paths that begin with / and some of rwm, '
            "as in /dev/fuse or /dev/sdb:/dev/disk:r"
        )
    return host, container, access


def parse_rule(text: str) -> tuple[str, int | None, int | None, str]:
    """``c 10:200 rwm``: kind (``a`` for both), major and minor (None for ``*``), access (Docker's grammar)."""
    words = text.split()
    numbers = words[1].split(":") if len(words) == 3 else ()
    if len(numbers) != 2 or words[0] not in ("a", "b", "c") or not _is_access(words[2]):
        raise ValueError(
            f'"{text}" is not of the form TYPE MAJOR:MINOR ACCESS: the type is c, b or a, a number may be *, and the '
            "access some of rwm, as in c 10:200 rwm"
        )
    major, minor = _number(numbers[0], _MAJORS, "major"), _number(numbers[1], _MINORS, "minor")
    return words[0], major, minor, _ordered(words[2])


def _number(text: str, offered: range, what: str) -> int | None:
    if text == "*":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) in offered):
        raise ValueError(f"{text} is not a {what} number of a device: write one of 0 to {offered[-1]}, or *")
    return int(text)


def _is_access(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def _ordered(access: Iterable[str]) -> str:
    return "".join(letter for letter in "rwm" if letter in access)


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="device",
            flags=("--device",),
            parse=parse_device,
            metavar="HOST[:CONTAINER[:rwm]]",
            help="Give a device of the host to the container, which may then use no others but the usual ones.",
            oci="linux.devices",
            kind="multiple",
            complete="file",
        ),
        ResourceField(
            name="device_cgroup_rule",
            flags=("--device-cgroup-rule",),
            parse=parse_rule,
            metavar="'TYPE MAJOR:MINOR rwm'",
            help="Allow devices by number, as in 'c 10:200 rwm' or 'b 8:* r'; others but the usual ones are refused.",
            oci="linux.resources.devices",
            kind="multiple",
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    if layout.find("devices") is not None:
        return Probe(controllers=("devices",), version=1, files=("devices.allow", "devices.deny"))
    if layout.find("cgroup") is not None:
        return Probe(controllers=("cgroup",), version=2)
    return Probe(controllers=("devices",), problem="neither the controller devices nor cgroup v2 is mounted")


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    if _controller_name(layout) == "devices":
        layout.require_for("devices", config, *_FIELDS)
    places: dict[str, str] = {}
    for host, container, _ in _nodes(config):
        if places.setdefault(container, host) != host:
            raise LimitError("device", f"{places[container]} and {host} cannot both be {container} in the container")


def _controller_name(layout: Layout) -> str:
    """``devices`` where v1 has it, else the v2 cgroup itself; ``devices`` where there is neither."""
    return "devices" if layout.find("devices") or not layout.find("cgroup") else "cgroup"


def _nodes(config: ResourceConfig) -> Iterator[tuple[str, str, str]]:
    """The devices of ``--device``, one by one: a directory stands for all in it."""
    for host, container, access in config.get("device", ()):
        mode = _status(host).st_mode
        if stat.S_ISDIR(mode):
            found = list(_below(host))
            if not found:
                raise LimitError("device", f"there is no device in {host}")
            for path in found:
                yield path, container.rstrip("/") + path.removeprefix(host.rstrip("/")), access
        elif not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            raise LimitError("device", f"{host} is not a device; use --volume for files and directories")
        else:
            yield host, container, access


def _below(directory: str) -> Iterator[str]:
    for top, _, names in os.walk(directory):
        for name in sorted(names):
            mode = os.lstat(f"{top}/{name}").st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                yield f"{top.rstrip('/')}/{name}"


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as e:
        raise LimitError("device", f"{path}: {os.strerror(e.errno or 0)}") from e


@hookimpl
def mydocker_amend(config: ResourceConfig, spec: Spec) -> Amendment | None:
    """Bind the host's nodes: the container need not make any. On the host's own root they are there already."""
    mounts = tuple(
        Volume(source=host, destination=container)
        for host, container, _ in _nodes(config)
        if spec.own_root or host != container
    )
    return Amendment(mounts=mounts) if mounts else None


def rules_of(config: ResourceConfig) -> Rules:
    """All that is allowed: the defaults and what the flags name. Rules for the same devices are one rule."""
    rules: Rules = {}
    for kind, major, minor, access in (*_DEFAULT, *config.get("device_cgroup_rule", ()), *_rules_of_nodes(config)):
        for each in ("b", "c") if kind == "a" else (kind,):
            key = (each, major, minor)
            rules[key] = _ordered(rules.get(key, "") + access)
    return rules


def _rules_of_nodes(config: ResourceConfig) -> Iterator[tuple[str, int, int, str]]:
    for host, _, access in _nodes(config):
        status = _status(host)
        kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
        yield kind, os.major(status.st_rdev), os.minor(status.st_rdev), access


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller(_controller_name(cgroup.layout))
    if controller.version == 1:
        controller.set_property("devices.deny", "a")
        _allow_v1(controller, rules_of(config))
    else:
        cgroup.claim("device rules")
        _set_v2(controller, config)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """What is open stays open: the kernel asks when a device is opened. A device that is new is allowed, and no node
    for it appears in the container.
    """
    controller = cgroup.controller(_controller_name(cgroup.layout))
    limited = any(field in previous for field in _FIELDS)
    if controller.version == 1:
        _update_v1(controller, config, rules_of(previous) if limited else None, cgroup)
    else:
        cgroup.claim("device rules")
        cgroup.on_undo(lambda: _set_v2(controller, previous) if limited else controller.allow_all_devices())
        _set_v2(controller, config)


def _update_v1(controller: Controller, config: ResourceConfig, former: Rules | None, cgroup: ContainerCgroup) -> None:
    """Exceptions are added and taken away one by one, so that what stays allowed is allowed at each moment."""
    rules = rules_of(config)
    if former is None:
        cgroup.on_undo(lambda: controller.set_property("devices.allow", "a"))
        controller.set_property("devices.deny", "a")
        _allow_v1(controller, rules)
        return
    more, less = _without(rules, former), _without(former, rules)
    cgroup.on_undo(lambda: _deny_v1(controller, more))
    cgroup.on_undo(lambda: _allow_v1(controller, less))
    _allow_v1(controller, more)
    _deny_v1(controller, less)


def _without(rules: Rules, others: Rules) -> Rules:
    """What ``rules`` allow and ``others`` do not, rule by rule."""
    left = {
        key: "".join(letter for letter in access if letter not in others.get(key, "")) for key, access in rules.items()
    }
    return {key: access for key, access in left.items() if access}


def text_of(key: Key, access: str) -> str:
    """A rule as v1 takes it: ``c 1:3 rwm``."""
    kind, *numbers = key
    return f"{kind} {':'.join('*' if number is None else str(number) for number in numbers)} {access}"


def _allow_v1(controller: Controller, rules: Rules) -> None:
    for key, access in rules.items():
        rule = text_of(key, access)
        try:
            controller.set_property("devices.allow", rule)
        except CgroupError as e:
            if e.errno != errno.EPERM:
                raise
            raise CgroupError(
                f'the container cannot be allowed "{rule}": a cgroup above {controller.path} does not have that itself',
                e.errno,
            ) from e


def _deny_v1(controller: Controller, rules: Rules) -> None:
    for key, access in rules.items():
        controller.set_property("devices.deny", text_of(key, access))


def _set_v2(controller: Controller, config: ResourceConfig) -> None:
    from mydocker.linux import bpf

    kinds = {"b": bpf.BLOCK, "c": bpf.CHARACTER}
    letters = {"r": bpf.READ, "w": bpf.WRITE, "m": bpf.MKNOD}
    rules = [
        (kinds[kind], major, minor, sum(letters[letter] for letter in access))
        for (kind, major, minor), access in rules_of(config).items()
    ]
    field = next(field for field in reversed(_FIELDS) if field in config)
    try:
        controller.allow_devices(rules)
    except CgroupError as e:
        if e.errno == errno.E2BIG:
            raise LimitError(field, f"{len(rules)} rules are more than the kernel lets a program decide on") from e
        if e.errno == errno.EINVAL:
            raise UnsupportedLimit(
                field, "this kernel has no eBPF programs for the devices of a cgroup (CONFIG_CGROUP_BPF)"
            ) from e
        if e.errno == errno.EPERM:
            raise UnsupportedLimit(
                field, "on cgroup v2 it takes an eBPF program, which needs root (CAP_BPF and CAP_NET_ADMIN) on the host"
            ) from e
        raise


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach(_controller_name(cgroup.layout), pid)


@hookimpl
def mydocker_explain(config: ResourceConfig, layout: Layout) -> list[str]:
    lines = [f"bind {host} on {container}" for host, container, _ in _nodes(config)]
    if _controller_name(layout) == "cgroup":
        rules = ", ".join(text_of(key, access) for key, access in rules_of(config).items())
        lines.append(f"attach to the cgroup an eBPF program that allows {rules}")
    return lines
