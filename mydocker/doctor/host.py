"""The host as the checks see it: files of the kernel, trials, who asks. Tests put another in its place."""

from __future__ import annotations

import os
import shutil

from mydocker.cgroups.layout import Layout
from mydocker.doctor import trials
from mydocker.linux import capabilities
from mydocker.plugins import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.doctor.trials import Outcome


class Host:
    """What this process can learn of its host, without changing it. What cannot be read is not there."""

    def __init__(self) -> None:
        self.uid = os.geteuid()
        self.release = os.uname().release
        self.machine = os.uname().machine
        self.layout = Layout.read()
        self.permitted = capabilities.permitted()
        self._outcomes: dict[str, Outcome] = {}

    @property
    def login(self) -> str:
        """The name of who asks in /etc/passwd, or the number."""
        import pwd

        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def user(self) -> str:
        """How sentences name who asks: ``root``, ``user nobody``."""
        return "root" if self.is_root else f"user {self.login}"

    def can(self, capability: str) -> bool:
        """Whether this process has the capability."""
        return bool(self.permitted & capabilities.mask([capability]))

    @property
    def is_root(self) -> bool:
        """Whether containers can be made without a user namespace of their own."""
        return self.uid == 0

    def kernel_is(self, version: str) -> bool:
        """Whether this kernel is of that version, ``5.12``, or newer."""
        return _numbers(self.release) >= _numbers(version)

    def read(self, path: str) -> str | None:
        """The text of a file, stripped; None if there is none, or it cannot be read."""
        try:
            with open(path, errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def names(self, directory: str) -> list[str]:
        """What is in a directory, sorted; nothing if it cannot be read."""
        try:
            return sorted(os.listdir(directory))
        except OSError:
            return []

    def writable(self, path: str) -> bool:
        """Whether this user may write there; False where the file system is read-only."""
        return os.access(path, os.W_OK, effective_ids=True)

    def attribute(self, path: str, name: str) -> str | None:
        """An extended attribute of a file, or None."""
        try:
            return os.getxattr(path, name).decode(errors="replace")
        except OSError:
            return None

    def program(self, name: str) -> str | None:
        """The path of a program that is installed, or None."""
        return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin")

    def limit(self, name: str) -> tuple[int, int]:
        """The soft and the hard value of a resource limit (getrlimit(2)), -1 for none."""
        import resource

        return resource.getrlimit(getattr(resource, name))

    def trial(self, name: str) -> Outcome:
        """What came of a trial of `trials.TRIALS`, or of ``container --option``; made once."""
        if name not in self._outcomes:
            try:
                first, *options = name.split()
                contained = first == "container"
                made = trials.run_container(*options) if contained else trials.forked(trials.TRIALS[name])
            except OSError as error:
                made = trials.Outcome(errno=error.errno or 5, text=f"it cannot be tried: {error_text(error)}")
            self._outcomes[name] = made
        return self._outcomes[name]


def _numbers(version: str) -> tuple[int, ...]:
    """``6.1.0-49-amd64`` as (6, 1)."""
    numbers = []
    for part in version.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits or "0"))
    return tuple(numbers)
