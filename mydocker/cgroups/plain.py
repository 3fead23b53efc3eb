"""The files of a cgroup by the kernel's names, and the directory that they are in.

`mydocker.cgroups.controllers` has the typed files besides, which take 2 ms to import. A plugin is given a `Plain`
controller, which becomes the typed one as soon as it is asked for a typed file: one that reads or writes a file by its
name alone spares a run the import.
"""

from __future__ import annotations

import os

from mydocker.cgroups import files
from mydocker.errors import UnsupportedLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from mydocker.cgroups.controllers import Controller


class Directory:
    """The directory of one cgroup: what a `Controller` needs of cgroupspy's ``Node``.

    ``Node`` itself imports logging, which costs more than a run may.
    """

    __slots__ = ("full_path",)

    def __init__(self, full_path: str) -> None:
        self.full_path = full_path

    def writing(self, path: str) -> None:
        """Called before the kernel file ``path`` of this cgroup is written. An error stops the write."""

    def other(self, path: str) -> Directory:
        """Another cgroup, as whoever has this one may see it."""
        return type(self)(path)


class ForeignDirectory(Directory):
    """A cgroup that is not the container's: a plugin may look at it, and nobody would undo what it wrote."""

    __slots__ = ()

    def writing(self, path: str) -> None:
        raise PermissionError(f"{path} is not of this container: a limit writes to cgroup.controller(…) alone")


def parse_keyed(text: str) -> dict[str, int | None]:
    """Lines of ``KEY VALUE``: integers, or ``max``, which is None."""
    words = text.split()
    if "max" not in words[1::2] and len(words) == 2 * len(text.splitlines()):
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))
    pairs = (line.split() for line in text.splitlines())
    return {key: None if number == "max" else int(number) for key, number in pairs}


class Files:
    """The means to read and write a cgroup's files by the kernel's names. Its refusals are raised as `CgroupError`."""

    version: int
    path: str
    node: Any

    def filepath(self, filename: str | bytes) -> str:
        """The full path of a file. ValueError for what is no file's name: it would lead to another cgroup."""
        name = filename if type(filename) is str else os.fsdecode(filename)
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f'"{name}" is not the name of a file of a cgroup')
        return f"{self.path}/{name}"

    def has(self, filename: str) -> bool:
        """Whether this kernel has the file for this cgroup. The root cgroup lacks most of them on v2."""
        return files.exists(f"{self.path}/{filename}")

    def require_for(self, field: str, *filenames: str, why: str = "") -> None:
        """An `UnsupportedLimit` for ``field`` if this cgroup lacks one of the files. ``why``: the likely reason.

        Of use in ``mydocker_validate`` for files that the base has too (v1), in ``mydocker_prepare`` and
        ``mydocker_update`` for the others.
        """
        for filename in filenames:
            if not self.has(filename):
                raise UnsupportedLimit(
                    field, f"this kernel has no {filename} on cgroup v{self.version}{f': {why}' if why else ''}"
                )

    def get_property(self, filename: str | bytes) -> str:
        """The text of a file, stripped. `CgroupError` if the kernel refuses."""
        return files.read(self.filepath(filename))

    def get_keyed(self, filename: str | bytes) -> dict[str, int | None]:
        """The lines ``KEY VALUE`` of a file (`parse_keyed`). `CgroupError` if the kernel refuses."""
        return parse_keyed(self.get_property(filename))

    def set_property(self, filename: str | bytes, value: object) -> None:
        """Write a file. `CgroupError` if the kernel refuses, `ConflictError` if another plugin wrote it."""
        path = self.filepath(filename)
        writing = getattr(self.node, "writing", None)
        if writing is not None:
            writing(path)
        files.write(path, str(value))

    def below(self) -> Iterator[Controller]:
        """The same controller of every cgroup nested in this one, which the container itself may have made."""
        if files.has_nested(self.path):  # mostly there is nothing to list
            from mydocker.cgroups.tree import nested

            yield from nested(self)  # type: ignore[arg-type]


class Plain(Files):
    """A controller of which no typed file has been asked for yet. Then its class is the typed one's."""

    #: which controller it is
    _name: str

    def __init__(self, node: Any) -> None:
        self.__dict__.update(node=node, path=os.fsdecode(node.full_path))

    def _become_typed(self) -> None:
        from mydocker.cgroups.controllers import controller_class

        object.__setattr__(self, "__class__", controller_class(self._name, self.version))

    def __getattr__(self, name: str) -> Any:
        self._become_typed()
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._become_typed()
        setattr(self, name, value)

    def __repr__(self) -> str:
        self._become_typed()
        return repr(self)


_classes: dict[tuple[str, int], type[Plain]] = {}


def controller_at(name: str, version: int, node: Any) -> Controller:
    """The controller ``name`` of the cgroup directory ``node``. One that is not known here gives the common files."""
    # A class for each, as the typed ones are: type(controller)(node) is the same controller of another cgroup.
    cls = _classes.get((name, version))
    if cls is None:
        cls = _classes[name, version] = type("Plain", (Plain,), {"_name": name, "version": version})
    return cls(node)  # type: ignore[return-value]
