"""Which devices the container may use: ``--device``, ``--device-cgroup-rule``, ``--device-rule``.

Without any of them, no cgroup restricts devices: a container has no CAP_MKNOD, so it has the nodes that it is given.
With one of the first two, it may use Docker's default devices and those that are named, and no other, whatever nodes it
has or makes. ``--device-rule`` is all of it: rules that allow or deny, of which the last one that matches counts.

v1 has the controller devices (cgroup-v1/devices.rst), which is told whether it allows or denies, and exceptions. v2 has
none: there the kernel asks an eBPF program of the cgroup (cgroup-v2.rst, "Device controller"). An open for reading and
writing needs one rule that allows both, on either version.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker import (
    CgroupError,
    LimitError,
    Probe,
    ResourceField,
    UnsupportedLimit,
    hookimpl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from mydocker import Amendment, ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.spec import Spec

    #: (``b`` or ``c``, major or None for all, minor or None for all)
    Key = tuple[str, int | None, int | None]
    #: some of r, w and m, in this order
    Rules = dict[Key, str]
    #: whether it allows, kind (``a`` for both), major, minor, access
    Rule = tuple[bool, str, int | None, int | None, str]
    #: whether all devices are allowed but for the exceptions, or none but for them
    Decision = tuple[bool, Rules]

_FIELDS = ("device", "device_cgroup_rule", "device_rule")
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

#: What every container of an engine may use (runtime spec, config-linux.md, "Default Devices"; the network device tun
#: and the right to make nodes are runc's). Behind the rules of an engine, as runc puts them.
_OF_ENGINES = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
    ("c", 10, 200, "rwm"),
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


def parse_device_rule(text: str) -> Rule:
    """``allow c 10:200 rwm``, ``deny a *:* rwm``."""
    verb, _, rule = text.strip().partition(" ")
    if verb not in ("allow", "deny"):
        raise ValueError(f'"{text}" does not begin with allow or deny, as in allow c 10:200 rwm')
    return (verb == "allow", *parse_rule(rule))


def rules_from_oci(rules: list[dict[str, Any]] | None, version: str | None) -> list[str] | None:
    """All rules of config.json in their order; without any, nothing is allowed but the devices of every container.

    ``version``, which is in every config.json, has this called for those without a rule too. A plain user, and root of
    a user namespace, can restrict no devices and makes no nodes: engines send them the same list all the same.
    """
    if os.geteuid() != 0 or _in_user_namespace():
        return None
    return [_rule_text(rule) for rule in rules or ()] or ["deny a *:* rwm"]


def _rule_text(rule: dict[str, Any]) -> str:
    """No number, or one below 0, is every number."""
    numbers = (rule.get("major"), rule.get("minor"))
    text = ":".join("*" if number is None or number < 0 else str(number) for number in numbers)
    access = rule.get("access") or "rwm"
    if not rule["allow"] and "a" in access:  # runc passes the letter over; whoever meant all has it
        access = "rwm"
    verb = "allow" if rule["allow"] else "deny"
    return f"{verb} {rule.get('type') or 'a'} {text} {_ordered(access)}"


def _in_user_namespace() -> bool:
    """The first one has all numbers, as they are (user_namespaces(7))."""
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except FileNotFoundError:  # a kernel without user namespaces
        return False


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
            kind="multiple",
            complete="file",
        ),
        ResourceField(
            name="device_cgroup_rule",
            flags=("--device-cgroup-rule",),
            parse=parse_rule,
            metavar="'TYPE MAJOR:MINOR rwm'",
            help="Allow devices by number, as in 'c 10:200 rwm' or 'b 8:* r'; others but the usual ones are refused.",
            kind="multiple",
        ),
        ResourceField(
            name="device_rule",
            flags=("--device-rule",),
            parse=parse_device_rule,
            metavar="'VERB TYPE MAJOR:MINOR rwm'",
            help="All rules in order, the last one that matches counts, as in 'deny a *:* rwm' and 'allow c 10:200 r'.",
            oci="linux.resources.devices ociVersion",
            kind="multiple",
            from_oci=rules_from_oci,
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
    decision_of(config)


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
    nodes = [(host, container) for host, container, _ in _nodes(config) if spec.own_root or host != container]
    if not nodes:
        return None
    from mydocker import Amendment, Volume  # which most containers do without

    return Amendment(mounts=tuple(Volume(source=host, destination=container) for host, container in nodes))


def decision_of(config: ResourceConfig) -> Decision:
    """What all rules come to: those of ``--device-rule`` and the devices of every container, else Docker's default, and
    what the other flags name. `LimitError` for what the kernel cannot be told.
    """
    own: tuple[Rule, ...] = config.get("device_rule", ())
    default = _OF_ENGINES if own else _DEFAULT
    everybody = False
    exceptions: Rules = {}
    for allows, kind, major, minor, access in (
        *own,
        *((True, *rule) for rule in (*default, *config.get("device_cgroup_rule", ()), *_rules_of_nodes(config))),
    ):
        if (kind, major, minor, access) == ("a", None, None, "rwm"):
            everybody, exceptions = allows, {}
            continue
        for each in ("b", "c") if kind == "a" else (kind,):
            if allows != everybody:
                key = (each, major, minor)
                exceptions[key] = _ordered(exceptions.get(key, "") + access)
            else:
                _take_out(exceptions, (each, major, minor), access)
    return everybody, exceptions


def _take_out(exceptions: Rules, key: Key, access: str) -> None:
    """Devices of ``key`` are no exceptions any longer. The kernel knows no exceptions from exceptions."""
    for other, there in list(exceptions.items()):
        left = "".join(letter for letter in there if letter not in access)
        numbers = list(zip(key[1:], other[1:], strict=True))
        if left == there or key[0] != other[0]:
            continue
        if all(mine in (None, theirs) for mine, theirs in numbers):
            del exceptions[other]
            if left:
                exceptions[other] = left
        elif all(theirs is None or mine in (None, theirs) for mine, theirs in numbers):
            deed = f'"{text_of(key, access)}" takes a part of "{text_of(other, there)}" back'
            raise LimitError("device_rule", f"{deed}, and the kernel knows no such holes: name the devices one by one")


def _rules_of_nodes(config: ResourceConfig) -> Iterator[tuple[str, int, int, str]]:
    for host, _, access in _nodes(config):
        status = _status(host)
        kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
        yield kind, os.major(status.st_rdev), os.minor(status.st_rdev), access


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller(_controller_name(cgroup.layout))
    if controller.version == 1:
        _set_v1(controller, decision_of(config))
    else:
        cgroup.claim("device rules")
        _set_v2(controller, config)


def _set_v1(controller: Controller, decision: Decision) -> None:
    """``a`` resets the list; then come the exceptions."""
    everybody, exceptions = decision
    if not everybody:
        controller.set_property("devices.deny", "a")
        _allow_v1(controller, exceptions)
        return
    if not controller.get_property("devices.list").startswith("a"):
        _allow_v1(controller, {("a", None, None): "rwm"})
    _deny_v1(controller, exceptions)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """What is open stays open: the kernel asks when a device is opened. A device that is new is allowed, and no node
    for it appears in the container.
    """
    controller = cgroup.controller(_controller_name(cgroup.layout))
    limited = any(field in previous for field in _FIELDS)
    if controller.version == 1:
        _update_v1(controller, decision_of(config), decision_of(previous) if limited else (True, {}), cgroup)
    else:
        cgroup.claim("device rules")
        cgroup.on_undo(lambda: _set_v2(controller, previous) if limited else controller.allow_all_devices())
        _set_v2(controller, config)


def _update_v1(controller: Controller, decision: Decision, former: Decision, cgroup: ContainerCgroup) -> None:
    """Exceptions are added and taken away one by one, so that what stays allowed is allowed at each moment."""
    if decision[0] or former[0]:
        cgroup.on_undo(lambda: _set_v1(controller, former))
        _set_v1(controller, decision)
        return
    more, less = _without(decision[1], former[1]), _without(former[1], decision[1])
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

    everybody, exceptions = decision_of(config)
    if everybody and not exceptions:
        controller.allow_all_devices()
        return
    kinds = {"b": bpf.BLOCK, "c": bpf.CHARACTER}
    letters = {"r": bpf.READ, "w": bpf.WRITE, "m": bpf.MKNOD}
    rules = [
        (kinds[kind], major, minor, sum(letters[letter] for letter in access))
        for (kind, major, minor), access in exceptions.items()
    ]
    field = next(field for field in reversed(_FIELDS) if field in config)
    try:
        controller.allow_devices(rules, others=everybody)
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
        everybody, exceptions = decision_of(config)
        rules = ", ".join(text_of(key, access) for key, access in exceptions.items())
        which = f"{'all but ' if rules else 'all'}{rules}" if everybody else rules
        lines.append(f"attach to the cgroup an eBPF program that allows {which}")
    return lines
