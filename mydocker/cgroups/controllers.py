# mypy: disallow-subclassing-any=False
"""The typed files of a cgroup: cgroupspy's ``Controller`` and file descriptors, corrected and extended.

cgroupspy has the v1 controllers of its time. Corrected here: a write is one write(2) that never creates a file,
a refusal is a `CgroupError` with the value, the file and the kernel's reason, ``list_interfaces`` sees inherited
files, two blkio files have names without a trailing blank, two files that only take writes are not read. Added:
pids, freezer, hugetlb, and all of v2. The controllers themselves are in `mydocker.cgroups.v1` and `.v2`.

It costs 2 ms to import, so a plugin is given a `mydocker.cgroups.plain.Plain` first.
"""

from __future__ import annotations

import os

from mydocker.cgroups import spy
from mydocker.cgroups.plain import Directory, Files, parse_keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class ValueOrMaxFile(spy.interfaces.BaseFileInterface):
    """An integer, or ``max`` for no limit, which is None in Python."""

    def sanitize_get(self, value: str) -> int | None:
        return None if value == "max" else int(value)

    def sanitize_set(self, value: int | None) -> str:
        return "max" if value is None else str(int(value))


class QuotaPeriodFile(spy.interfaces.BaseFileInterface):
    """``cpu.max``: quota and period in microseconds; quota is None for ``max``."""

    def sanitize_get(self, value: str) -> tuple[int | None, int]:
        quota, period = value.split()
        return (None if quota == "max" else int(quota)), int(period)

    def sanitize_set(self, value: tuple[int | None, int]) -> str:
        quota, period = value
        return f"{'max' if quota is None else int(quota)} {int(period)}"


class FlatKeyedFile(spy.interfaces.BaseFileInterface):
    """Lines of ``KEY VALUE``, integers or ``max`` (None). Read-only."""

    readonly = True

    def sanitize_get(self, value: str) -> dict[str, int | None]:
        return parse_keyed(value)


class KeyedLimitsFile(FlatKeyedFile):
    """Lines of ``KEY VALUE``, integers or ``max`` (None). Written with one key at a time: ``{"sev": 2}``."""

    readonly = False

    def sanitize_set(self, value: Mapping[str, int | None]) -> str:
        ((key, number),) = value.items()
        return f"{key} {'max' if number is None else int(number)}"


class NestedKeyedFile(spy.interfaces.BaseFileInterface):
    """Lines of ``KEY SUBKEY=VALUE …``: io.max, io.stat, the pressure files.

    Reads as a dict of dicts of text. Written with one key at a time, ``{"8:0": {"rbps": 1048576}}``: the kernel
    takes one device for each write.
    """

    def sanitize_get(self, value: str) -> dict[str, dict[str, str]]:
        lines = (line.split() for line in value.splitlines() if line)
        return {key: dict(pair.split("=", 1) for pair in pairs) for key, *pairs in lines}

    def sanitize_set(self, value: Mapping[str, Mapping[str, Any]]) -> str:
        if len(value) != 1:
            raise ValueError(f"{os.fsdecode(self.filename)} takes one key for each write, not {len(value)}")
        ((key, pairs),) = value.items()
        return f"{key} " + " ".join(f"{name}={'max' if number is None else number}" for name, number in pairs.items())


class WordsFile(spy.interfaces.BaseFileInterface):
    """Words with blanks between: cgroup.controllers. Written as text (``+memory -io``)."""

    def sanitize_get(self, value: str) -> tuple[str, ...]:
        return tuple(value.split())


class Controller(Files, spy.controllers.Controller):
    """The files that every cgroup has, and the means to read and write the others.

    ``version`` is that of the hierarchy. Errors of the kernel are raised as `CgroupError`.
    """

    version: int = 0

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self.path: str = os.fsdecode(node.full_path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def __setattr__(self, name: str, value: Any) -> None:
        """Only what is a file: a limit that is assigned to a misspelt name would be in force nowhere."""
        if name not in ("node", "path"):
            known = next((cls.__dict__[name] for cls in type(self).__mro__ if name in cls.__dict__), None)
            if not isinstance(known, spy.interfaces.BaseFileInterface):
                raise AttributeError(
                    f"{type(self).__name__} of cgroup v{self.version} has no file by the name of {name}: "
                    "set_property() takes any file by the kernel's name"
                )
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{type(self).__name__} of cgroup v{type(self).version} has no file by the name of {name}: "
            "get_property() takes any file by the kernel's name"
        )

    def get_content(self, key: str) -> Any:
        """The value of the interface named ``key``, None if there is none or the kernel does not offer it."""
        interface = self.get_interface(key)
        if interface is None or interface.writeonly or not self.has(os.fsdecode(interface.filename)):
            return None
        return getattr(self, key)

    def get_interface(self, key: str) -> Any:
        """The descriptor named ``key``, inherited ones too, or None."""
        return self.list_interfaces().get(key)

    def list_interfaces(self) -> dict[str, Any]:
        """All descriptors by name, inherited ones too."""
        found: dict[str, Any] = {}
        for cls in reversed(type(self).__mro__):
            for name, value in cls.__dict__.items():
                if isinstance(value, spy.interfaces.BaseFileInterface):
                    found[name] = value
                else:
                    found.pop(name, None)
        return found

    def parent(self) -> Controller:
        """The same controller of the cgroup above. For reading: a write of a plugin is a PermissionError."""
        return type(self)(self._other(self.path.rpartition("/")[0]))

    def children(self) -> list[Controller]:
        """The same controller of the cgroups directly below this one, as they are now. For reading, as `parent`."""
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [type(self)(self._other(f"{self.path}/{name}")) for name in names]

    def _other(self, path: str) -> Any:
        """A node for another cgroup; those of cgroupspy's tree do not make one."""
        other = getattr(self.node, "other", Directory)
        return other(path)


def controller_class(name: str, version: int) -> type[Controller]:
    """The class of the controller ``name``. One that is not known here has the common files."""
    if version == 1:
        from mydocker.cgroups.v1 import CONTROLLERS, Other
    else:
        from mydocker.cgroups.v2 import CONTROLLERS, Other
    return CONTROLLERS.get(name, Other)
