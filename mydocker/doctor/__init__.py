"""What this host offers, and what to do about what is missing: ``mydocker doctor``.

Each module here has ``checks(host)`` for one group of the report. A check reads files of the kernel or asks for a
trial, which is made in a child that is killed if it does not answer (`mydocker.doctor.trials`). Nothing is made that
stays.
"""

from __future__ import annotations

from mydocker.doctor import cgroups, installation, kernel, namespaces, plugins, resources, security
from mydocker.doctor.check import Check, warning
from mydocker.doctor.host import Host
from mydocker.plugins import error_text
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mydocker.doctor.check import Status

#: The groups of the report, in its order.
GROUPS: dict[str, Callable[[Host], Iterable[Check]]] = {
    "mydocker": installation.checks,
    "kernel": kernel.checks,
    "namespaces": namespaces.checks,
    "security": security.checks,
    "cgroups": cgroups.checks,
    "resources": resources.checks,
    "limits": plugins.checks,
}

#: The checks without which no run works.
_DECISIVE = ("container", "state directory")
STATUSES: tuple[Status, ...] = ("ok", "warning", "missing", "not needed")


class Report(Value):
    """The checks by group, for one user of one host: ``login``, whom sentences name ``user``."""

    login: str
    user: str
    groups: dict[str, tuple[Check, ...]]

    @property
    def works(self) -> bool:
        """Whether ``mydocker run`` works here for this user: one was tried, with its state in a place of its own."""
        return all(check.status == "ok" for check in self.groups["mydocker"] if check.name in _DECISIVE)

    def count(self, status: Status) -> int:
        return sum(check.status == status for checks in self.groups.values() for check in checks)


def examine(host: Host | None = None) -> Report:
    """Make every check. Never raises: a check that fails is a line of the report."""
    host = host or Host()
    groups = {name: tuple(_checks(name, make, host)) for name, make in GROUPS.items()}
    return Report(login=host.login, user=host.user, groups=groups)


def _checks(group: str, make: Callable[[Host], Iterable[Check]], host: Host) -> list[Check]:
    found: list[Check] = []
    try:
        for check in make(host):
            found.append(check)
    except Exception as error:
        advice = "report it, with this line, to whoever maintains mydocker"
        found.append(warning(group, f"the other checks of this group failed: {error_text(error)}", advice))
    return found
