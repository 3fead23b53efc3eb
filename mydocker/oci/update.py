"""update: change the limits of a container, all that are asked for or none."""

from __future__ import annotations

import os
import sys

from mydocker import plain_json, plugins, state, updating
from mydocker.errors import OciError
from mydocker.oci import config as configs
from mydocker.oci import container, resources
from mydocker.oci.options import Option
from mydocker.resources import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.oci.main import Call

ARGUMENTS = "CONTAINER-ID"

#: Option to the place below ``linux.resources`` that it sets, and what its value is.
_SINGLE = {
    "blkio-weight": ("blockIO", "weight", "number"),
    "cpu-period": ("cpu", "period", "number"),
    "cpu-quota": ("cpu", "quota", "number"),
    "cpu-burst": ("cpu", "burst", "number"),
    "cpu-share": ("cpu", "shares", "number"),
    "cpu-rt-period": ("cpu", "realtimePeriod", "number"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", "number"),
    "cpu-idle": ("cpu", "idle", "number"),
    "cpuset-cpus": ("cpu", "cpus", "list"),
    "cpuset-mems": ("cpu", "mems", "list"),
    "memory": ("memory", "limit", "size"),
    "memory-reservation": ("memory", "reservation", "size"),
    "memory-swap": ("memory", "swap", "size"),
    "pids-limit": ("pids", "limit", "number"),
}
_HELP = {
    "number": ("N", "{1} of {0}"),
    "list": ("LIST", "{1} of {0}, as in 0-2,4"),
    "size": ("SIZE", "{1} of {0}, in bytes or with a unit, as in 100m; -1 for none"),
}
#: What neither the spec's resources nor any kernel has any longer: taken and passed over, as runc does.
_OBSOLETE = ("kernel-memory", "kernel-memory-tcp")
_SCHEMATA = {"l3-cache-schema": "l3CacheSchema", "mem-bw-schema": "memBwSchema"}

OPTIONS = (
    Option(
        names=("--resources", "-r"),
        metavar="FILE|-",
        help="a file with linux.resources as JSON, or - for stdin; no other option counts then",
    ),
    *(
        Option(names=(f"--{name}",), metavar=_HELP[kind][0], help=_HELP[kind][1].format(group, key))
        for name, (group, key, kind) in _SINGLE.items()
    ),
    *(Option(names=(f"--{name}",), metavar="SCHEMA", help=f"intelRdt.{key}") for name, key in _SCHEMATA.items()),
    *(Option(names=(f"--{name}",), metavar="SIZE", help="obsolete, without effect") for name in _OBSOLETE),
)


def main(call: Call) -> int:
    found = container.find(call)
    wanted = _wanted(call)
    schemata = [text for name in _SCHEMATA if (text := call.options.get(name.replace("-", "_")))]
    if schemata and not found.record.oci.get("resctrl"):
        raise OciError("--l3-cache-schema, --mem-bw-schema: the container has no linux.intelRdt to be changed")
    for name in _OBSOLETE:
        if _given(call, name):
            call.log.warning(f"--{name} is without effect: no kernel has that limit any longer")
    found.require("created", "running", "paused")
    found.ensure_watched()
    registry = plugins.load()
    lock = state.lock_for_update(found.id, os.path.dirname(found.path))
    try:
        found.reload()
        _lift_swap_too(wanted)
        texts, flags = resources.changes(wanted, registry, found.record.limits)
        if texts:
            updating.change_record(found.record, registry, texts, flags, lock)
            _tell_systemd(found)
        if schemata:
            from mydocker.oci import intel_rdt

            with intel_rdt.Tree.of_host() as tree:
                intel_rdt.set_schemata(schemata, intel_rdt.as_recorded(found.record.oci["resctrl"]), tree)
    finally:
        os.close(lock)
    return 0


def _given(call: Call, name: str) -> bool:
    return name.replace("-", "_") in call.options


def _wanted(call: Call) -> dict[str, Any]:
    """The object of ``linux.resources`` with what is to change."""
    source = call.options.get("resources")
    if source is not None:
        return _read(str(source))
    wanted: dict[str, dict[str, Any]] = {}
    for name, (group, key, kind) in _SINGLE.items():
        text = call.options.get(name.replace("-", "_"))
        if text:
            wanted.setdefault(group, {})[key] = _value(name, kind, text)
    return wanted


def _lift_swap_too(wanted: dict[str, Any]) -> None:
    """Without a limit of memory there is none of memory and swap together: who lifts the one means both, as in runc."""
    memory = wanted.get("memory") or {}
    if (memory.get("limit") or 0) < 0 and not memory.get("swap"):
        wanted["memory"] = {**memory, "swap": -1}


def _value(name: str, kind: str, text: str) -> int | str:
    if kind == "list":
        return text
    try:
        if kind == "size" and text != "-1":
            return parse_size(text)
        return int(text)
    except ValueError:
        raise OciError(f"invalid value for {name}: {text}") from None


def _read(source: str) -> dict[str, Any]:
    try:
        if source == "-":
            text = sys.stdin.read()
        else:
            with open(source, encoding="utf-8") as file:
                text = file.read()
        found = plain_json.loads(text)
    except OSError as e:
        raise OciError(f"--resources: open {source}: {(e.strerror or str(e)).lower()}") from e
    except ValueError as e:
        raise OciError(f"--resources: {source} is no JSON: {e}") from e
    configs.validate_resources(found)
    return dict(found)


def _tell_systemd(found: container.Container) -> None:
    """What systemd was not told, it would undo at its next reload."""
    if found.record.oci.get("unit"):
        from mydocker.oci.systemd import tell

        found.reload()
        tell(found.record)
