"""The configuration file: limits for every run, and which plugins may be there.

::

    [limits]                       # field to value, as the flag or the keyword takes it; a flag given wins
    memory = "512m"
    pids_limit = 200
    ulimit = ["nofile=1024"]

    [plugins]
    allow = ["memory", "cpu"]      # only these; what else is installed is not even imported
    disable = ["scratch"]          # not these

It is the file that ``$MYDOCKER_CONFIG`` names (empty: none), else ``$XDG_CONFIG_HOME/mydocker/config.toml`` (by default
in ~/.config) of a plain user who has one, else /etc/mydocker/config.toml. Its absence costs a run one stat(2).
"""

from __future__ import annotations

import os

from mydocker.errors import UsageError
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VARIABLE = "MYDOCKER_CONFIG"
SYSTEM_FILE = "/etc/mydocker/config.toml"


class Config(Value):
    """What the file says. ``path`` is empty where there is none; ``allow`` is None where every plugin may be there."""

    path: str = ""
    limits: Mapping[str, Any] = {}
    allow: tuple[str, ...] | None = None
    disable: tuple[str, ...] = ()

    def with_defaults(
        self, given: Mapping[str, Any], flags: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """The values and flags for `Registry.parse`, with those of the file for what was not given."""
        own = {name: value for name, value in self.limits.items() if name not in given}
        if not own:
            return given, flags
        return {**own, **given}, {**{name: f"{self.path}: {name}" for name in own}, **flags}


NONE = Config()


def load() -> Config:
    """Read the file. `UsageError` if it cannot be read, is not TOML, or holds what it may not."""
    path = file()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else -1
    except FileNotFoundError:
        if os.environ.get(VARIABLE):
            raise UsageError(f"{VARIABLE}: {path} does not exist") from None
        return NONE
    except OSError as e:
        raise UsageError(f"cannot read the configuration {path}: {e.strerror}") from e
    if fd < 0:
        return NONE
    status = os.fstat(fd)
    with open(fd, "rb") as stream:
        if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
            raise UsageError(
                f"the configuration {path} can be changed by others: make it yours or root's, and chmod go-w {path}"
            )
        return _parse(path, stream.read())


def file() -> str:
    """The path of the file to read, whether it is there or not; empty for none."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return os.path.abspath(named) if named else ""
    if os.geteuid() != 0:
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        own = f"{home}/mydocker/config.toml"
        if os.path.exists(own):
            return own
    return SYSTEM_FILE


def _parse(path: str, content: bytes) -> Config:
    import tomllib

    try:
        tables = tomllib.loads(content.decode())
    except ValueError as e:
        raise UsageError(f"the configuration {path} is not TOML: {e}") from None
    _refuse_unknown(path, "", tables, ("limits", "plugins"))
    limits, plugins = tables.get("limits", {}), tables.get("plugins", {})
    for name, table in (("limits", limits), ("plugins", plugins)):
        if not isinstance(table, dict):
            raise UsageError(f"the configuration {path}: {name} is a table: write [{name}]")
    _refuse_unknown(path, "plugins.", plugins, ("allow", "disable"))
    for name, value in limits.items():
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(one, (str, int, float)) for one in several):
            raise UsageError(f"the configuration {path}: limits.{name} is no text, no number and no list of them")
    allow = plugins.get("allow")
    return Config(
        path=path,
        limits=limits,
        allow=None if allow is None else _names(path, "allow", allow),
        disable=_names(path, "disable", plugins.get("disable", [])),
    )


def _refuse_unknown(path: str, table: str, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in found:
        if name not in known:
            choice = " and ".join(known)
            raise UsageError(f"the configuration {path} has {table}{name}, which is unknown: it may have {choice}")


def _names(path: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UsageError(f'the configuration {path}: plugins.{key} is a list of names of plugins, as in ["memory"]')
    return tuple(value)
