"""The limits of a container: what config.json asks for, as the fields of the plugins.

Each field says by its ``oci`` where in config.json it stands, and by its ``from_oci`` how it is written there; so this
knows no limit by name, and a stranger's plugin takes part. What the spec has below ``linux.resources`` and no plugin
here puts in force is refused, not passed over. An annotation ``mydocker.<field>`` sets any field.

What stands below ``process`` (rlimits, oomScoreAdj, scheduler, ioPriority) is applied by `mydocker.oci.process`, which
also does so for ``exec``; only where an annotation sets such a field does its plugin take over the whole of it.
"""

from __future__ import annotations

import os

from mydocker.errors import LimitError, MydockerError, OciError, PluginError
from mydocker.plugins import error_text
from mydocker.resources import ResourceConfig
from mydocker.spec import Spec, Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from mydocker.cgroups.layout import Layout
    from mydocker.plugins import Plugin, Registry
    from mydocker.resources import ResourceField
    from mydocker.spec import Tmpfs

    Texts = dict[str, str | list[str]]

PREFIX = "mydocker."

_RESOURCES = "linux.resources"

#: What the runtime spec 1.2 has there (config-linux.md, "Control groups"). What it does not have is an unknown
#: property, which a runtime has to ignore.
_SPECIFIED = {
    "devices": (),
    "memory": ("limit", "reservation", "swap", "swappiness", "disableOOMKiller"),
    "cpu": ("shares", "quota", "burst", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle"),
    "blockIO": (
        "weight",
        "leafWeight",
        "weightDevice",
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteIOPSDevice",
    ),
    "hugepageLimits": (),
    "network": ("classID", "priorities"),
    "pids": ("limit",),
    "rdma": (),
    "unified": (),
}
# Not in the list: memory.kernel and memory.kernelTCP, which the spec calls not recommended and kernels no longer have;
# memory.useHierarchy, which they no longer let anybody turn off; memory.checkBeforeUpdate, which is what every update
# here does.


def to_config(config: Mapping[str, Any], registry: Registry, layout: Layout | None = None) -> ResourceConfig:
    """The limits that ``config``, a whole config.json, asks for.

    With ``layout``, what is for cgroup v2 alone is refused on a host without that. What a plugin takes over from
    ``process`` is removed from ``config``. Raises `LimitError` with the place in config.json in front, and with the
    plugin's own reason; `OciError` for what no plugin here puts in force.
    """
    annotated = _annotated(config.get("annotations") or {}, registry)
    if layout is not None:
        _require_v2(config, layout)
    texts, flags = _written(config, registry, _owned_keys(registry, annotated))
    _refuse_what_nobody_owns(config, registry)
    for name, (key, given) in annotated.items():
        former = texts.get(name)
        if registry.field(name)[0].kind == "multiple" and former is not None:
            given = [*(former if isinstance(former, list) else [former]), *given]
        texts[name] = given
        flags[name] = f"annotation {key}"
    for key in _owned_keys(registry, annotated):
        config["process"].pop(key, None)
    return registry.parse(texts, flags)


def changes(
    resources: Mapping[str, Any], registry: Registry, present: Iterable[str] = ()
) -> tuple[Texts, dict[str, str]]:
    """What an update with ``resources``, the object of ``linux.resources``, changes: texts and flags, by field.

    ``present``: the fields that the container has already. What is not in ``resources`` stays as it is, and so do the
    devices: engines send the list of a container without what else it was given (as runc has it).
    """
    delta = {"linux": {"resources": {key: value for key, value in resources.items() if key != "devices"}}}
    texts, flags = _written(delta, registry, ())
    _refuse_what_nobody_owns(delta, registry)
    first = {field.oci.partition(" ")[0] for field in registry.fields}
    for name in present:
        if name in texts:
            # A value that follows from another field's alone is no change of this one; 0 there is not set.
            main, *others = registry.field(name)[0].oci.split()
            own = [main, *(path for path in others if path not in first)]
            if len(own) <= len(others) and not any(find(delta, path) for path in own):
                del texts[name], flags[name]
    return texts, flags


def find(config: Mapping[str, Any], path: str) -> Any:
    """What config.json has at ``path``, None if nothing. Keys may have points in them, as those of ``unified``."""
    found: Any = config
    while path:
        if not isinstance(found, dict):
            return None
        if path in found:
            return found[path]
        key, _, path = path.partition(".")
        found = found.get(key)
    return found


def _owned_keys(registry: Registry, annotated: Iterable[str]) -> set[str]:
    """The keys of ``process`` that a plugin takes over, because an annotation sets a field there."""
    paths = (registry.field(name)[0].oci.split(".") for name in annotated)
    return {path[1] for path in paths if path[0] == "process" and len(path) > 1}


def _annotated(annotations: Mapping[str, str], registry: Registry) -> dict[str, tuple[str, Any]]:
    """Field to the annotation's key and its value. The namespace is ours: a key that names no field is refused, for it
    would be a limit that is not in force."""
    found: dict[str, tuple[str, Any]] = {}
    for key, text in annotations.items():
        name = key.removeprefix(PREFIX).replace("-", "_")
        if not key.startswith(PREFIX) or not name.isidentifier():
            continue
        try:
            field, _ = registry.field(name)
        except MydockerError as e:
            raise OciError(f"annotation {key}: {e}") from None
        if name in found:
            raise OciError(f"annotations {found[name][0]} and {key} are the same field: give one of them")
        found[name] = (key, _several(text) if field.kind == "multiple" else text)
    return found


def _several(text: str) -> list[str]:
    """The values of a field that may be given several times: a JSON list of texts, or one text."""
    if text.lstrip().startswith("["):
        import json

        try:
            values = json.loads(text)
        except ValueError:
            return [text]
        if isinstance(values, list):
            return [str(value) for value in values]
    return [text]


def _require_v2(config: Mapping[str, Any], layout: Layout) -> None:
    if find(config, f"{_RESOURCES}.unified") and layout.find("cgroup") is None:
        raise OciError(
            f"invalid configuration: {_RESOURCES}.unified is for cgroup v2, and this host has v1 only"
        )


def _written(
    config: Mapping[str, Any], registry: Registry, taken_over: Iterable[str]
) -> tuple[Texts, dict[str, str]]:
    """What config.json asks for by the fields' paths: texts, and the path that stands for the field in errors."""
    texts: Texts = {}
    flags: dict[str, str] = {}
    claimed = {path for field in registry.fields for path in field.oci.split()}
    for plugin in registry.plugins:
        for field in plugin.fields:
            paths = field.oci.split()
            if not paths or (paths[0].startswith("process.") and paths[0].split(".")[1] not in taken_over):
                continue
            values = [_unclaimed(find(config, path), path, claimed) for path in paths]
            if all(value is None for value in values):
                continue
            where = next(path for path, value in zip(paths, values, strict=True) if value is not None)
            text = _text(plugin, field, values, where)
            if text is not None:
                texts[field.name] = text
                flags[field.name] = where
    return texts, flags


def _unclaimed(value: Any, path: str, claimed: set[str]) -> Any:
    """An object without what other fields claim in it; None for an empty one or an empty list, which ask nothing."""
    if isinstance(value, dict):
        value = {key: entry for key, entry in value.items() if f"{path}.{key}" not in claimed and entry is not None}
    return None if value in ({}, []) else value


def _text(plugin: Plugin, field: ResourceField, values: list[Any], where: str) -> str | list[str] | None:
    if field.from_oci is None:
        return _plain(plugin, field, values[0], where)
    try:
        return field.from_oci(*values)
    except ValueError as e:
        raise LimitError(field.name, str(e), where) from e
    except MydockerError:
        raise
    except Exception as e:
        raise PluginError(f"{plugin} failed in the from_oci of {field.name}: {error_text(e)}") from e


def _plain(plugin: Plugin, field: ResourceField, value: Any, where: str) -> str | list[str] | None:
    """Texts, numbers and truth values are their own texts. An empty text asks for nothing."""
    if isinstance(value, list) and field.kind == "multiple":
        return [_one(plugin, field, entry, where) for entry in value]
    return _one(plugin, field, value, where) if value != "" else None


def _one(plugin: Plugin, field: ResourceField, value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    raise PluginError(f"{plugin} declares {where} for {field.name} without a from_oci, and what is there is no text")


def _refuse_what_nobody_owns(config: Mapping[str, Any], registry: Registry) -> None:
    """A limit whose plugin is turned off, or that this version does not have, is not passed over."""
    claimed = {path for field in registry.fields for path in field.oci.split()}
    for path in _specified_paths():
        value = find(config, path)
        # 0, false and nothing at all do not ask for anything.
        if value and path not in claimed and (not isinstance(value, dict) or _unclaimed(value, path, claimed)):
            raise OciError(f"{path}: there is no plugin here that puts it in force: see mydocker subsystems")


def _specified_paths() -> Iterator[str]:
    for key, properties in _SPECIFIED.items():
        if not properties:
            yield f"{_RESOURCES}.{key}"
        for name in properties:
            yield f"{_RESOURCES}.{key}.{name}"


def spec_of(config: Mapping[str, Any]) -> Spec:
    """What `mydocker.limits.Limits` and the plugins are to know of the container. Its mounts are not in it: what a
    plugin adds goes over what the engine has there by default.
    """
    process = config.get("process") or {}
    namespaces = (config.get("linux") or {}).get("namespaces") or ()
    return Spec(
        args=tuple(_encoded(process.get("args") or ())),
        env=tuple(_encoded(process.get("env") or ())),
        rootfs=str((config.get("root") or {}).get("path", "")),
        hostname=config.get("hostname"),
        network="none" if any(one.get("type") == "network" for one in namespaces) else "host",
        terminal=bool(process.get("terminal")),
    )


def amend(config: dict[str, Any], spec: Spec) -> None:
    """Put into ``config`` what plugins have added to what `spec_of` made: mounts, and variables."""
    mounts = [*(config.get("mounts") or ())]
    for entry in spec.mounts:
        mounts.insert(_position(mounts, entry.destination), _mount(entry))
    if spec.mounts:
        config["mounts"] = mounts
    if spec.extra_env:
        process = config["process"]
        process["env"] = [
            *(process.get("env") or ()),
            *(variable.decode(errors="surrogateescape") for variable in spec.extra_env),
        ]


def _encoded(texts: Iterable[str]) -> Iterator[bytes]:
    return (text.encode(errors="surrogateescape") for text in texts)


def _position(mounts: list[dict[str, Any]], destination: str) -> int:
    """Over what is mounted there or above, and under what is mounted below."""
    below = f"{destination.rstrip('/')}/"
    return next((n for n, one in enumerate(mounts) if str(one["destination"]).startswith(below)), len(mounts))


def _mount(entry: Volume | Tmpfs) -> dict[str, Any]:
    options = ["ro"] if entry.readonly else []
    if isinstance(entry, Volume):
        return {
            "destination": entry.destination,
            "type": "bind",
            "source": os.path.abspath(entry.source),
            "options": ["rbind", "rprivate", *options],
        }
    options += ["nosuid", "nodev", f"mode={entry.mode:o}", *(() if entry.exec else ("noexec",))]
    if entry.size is not None:
        options.append(f"size={entry.size}")
    return {"destination": entry.destination, "type": "tmpfs", "source": "tmpfs", "options": options}
