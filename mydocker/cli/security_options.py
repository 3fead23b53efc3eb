"""The texts of ``--security-opt``, which are Docker's (docs.docker.com, "docker container run")."""

from __future__ import annotations

import os

from mydocker import labels
from mydocker.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: What a container is labelled with if only a part is given, as in ``label=level:s0:c1`` (container-selinux).
_LABEL = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}

_KNOWN = "seccomp=FILE|unconfined, no-new-privileges[=true|false], apparmor=PROFILE or label=LABEL"


def fields(texts: Sequence[str]) -> dict[str, Any]:
    """The fields of `mydocker.spec.Spec` that the texts set. Of two about one thing the last counts."""
    found: dict[str, Any] = {}
    parts: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            key, _, value = text.partition(":")  # Docker's old form
        if key == "no-new-privileges":
            found["no_new_privileges"] = _truth(text, value or "true")
        elif not value:
            raise UsageError(f'--security-opt: "{text}" is not a security option: use {_KNOWN}')
        elif key == "seccomp":
            found["seccomp"] = _profile(value)
        elif key == "apparmor":
            found["apparmor_profile"] = value
        elif key == "label":
            _add_label(parts, text, value)
        else:
            raise UsageError(f'--security-opt: "{key}" is not something that mydocker can set: use {_KNOWN}')
    if parts and "disable" not in parts:
        found["selinux_label"] = ":".join({**_LABEL, **parts}.values())
    labels.check(found.get("apparmor_profile", ""), found.get("selinux_label", ""))
    return found


def _truth(text: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise UsageError(f'--security-opt: "{text}" is neither true nor false: write no-new-privileges=true')
    return value == "true"


def _profile(value: str) -> str:
    if value == "unconfined":
        return value
    return "default" if value == "builtin" else os.path.abspath(value)


def _add_label(parts: dict[str, str], text: str, value: str) -> None:
    key, _, part = value.partition(":")
    if value == "disable":
        parts["disable"] = ""
    elif key in _LABEL and part:
        parts[key] = part
    else:
        raise UsageError(f'--security-opt: "{text}" is not a label: write label=disable, or label=type:T and so on')
