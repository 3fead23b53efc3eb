# mypy: disallow-subclassing-any=False
"""The cgroups nested in a container's, as cgroupspy's ``Node`` tree. Off the run path: ``Node`` imports logging."""

from __future__ import annotations

import os

from cgroupspy.nodes import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from mydocker.cgroups.controllers import Controller


class Cgroup(Node):
    """An existing cgroup with those below it as ``children``.

    cgroupspy takes the controller from the name of a directory near the root, whatever is mounted there; here every
    node of a tree has the controller class that the tree is walked for.
    """

    def __init__(self, name: str, controller_class: type[Controller], parent: Cgroup | None = None) -> None:
        self._controller_class = controller_class
        super().__init__(name, parent)
        with os.scandir(os.fsdecode(self.full_path)) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        self.children = [Cgroup(name, controller_class, self) for name in names]

    def _get_controller_type(self) -> None:
        return None

    def _get_controller(self) -> Any:
        return self._controller_class(self)


def nested(controller: Controller) -> Iterator[Controller]:
    """The same controller of every cgroup below that of ``controller``."""
    for node in Cgroup(controller.path, type(controller)).walk():
        if node.parent is not None:
            yield node.controller
