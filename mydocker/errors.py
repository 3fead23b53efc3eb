"""The errors of mydocker. Each message is one sentence for the person who typed the command.

::

    MydockerError                    exit 125: the runtime failed
    ├── UsageError                   the command line or the call is wrong
    │   └── LimitError               the value of a limit is wrong; names its flag
    │       └── UnsupportedLimit     this kernel or this host lacks what the limit needs
    ├── PluginError                  a plugin raised; names it and its version
    │   └── ConflictError            two plugins claim one field, flag, kernel file or mount; names both
    ├── CgroupError                  a cgroup or a controller is missing, or the kernel refused a write
    │   └── CgroupDenied             no cgroup can be made: not delegated to this user, or mounted read-only
    ├── StateError                   the container's name is in use, or its record cannot be kept
    ├── SetupError                   a namespace, a mount or the rootfs could not be set up
    ├── HandoffError                 the child ended before it took its command
    ├── OciError                     exit 1: mydocker-oci refused or failed, in words that engines match on
    │   └── NotExecuted              the kernel did not execute the command, though it was found
    ├── CommandNotFound              exit 127: there is no such command
    ├── CommandNotExecutable         exit 126: it was found, and the kernel does not execute it
    └── RunFailed                    ``check=True`` was given and the command did not exit with 0

The exit codes are those of ``docker run`` (docs.docker.com, "Exit status").
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.result import Result


class MydockerError(Exception):
    """Base of all errors of mydocker. ``exit_code`` is what the command line ends with."""

    exit_code = 125


class UsageError(MydockerError):
    """The command line or the call is wrong: nothing was done."""


class LimitError(UsageError):
    """The value of a limit is wrong.

    A plugin raises it with the field's name and the reason, in the user's units; the core puts the flag
    in front that the user typed.
    """

    def __init__(self, field: str, reason: str, flag: str = "") -> None:
        super().__init__(field, reason, flag)
        self.field = field
        self.reason = reason
        self.flag = flag

    def __str__(self) -> str:
        return f"{self.flag or self.field}: {self.reason}"


class UnsupportedLimit(LimitError):
    """This kernel or this host lacks what the limit needs: a controller, a file, a device.

    The one error that ``--limits best-effort`` turns into a warning.
    """


class PluginError(MydockerError):
    """A plugin raised, or does not keep the contract of `mydocker.hookspecs`."""


class ConflictError(PluginError):
    """Two plugins claim the same field, flag, kernel file, mount or variable."""


class CgroupError(MydockerError):
    """A cgroup could not be made, or the kernel refused a value. ``errno`` is the kernel's, or 0."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class CgroupDenied(CgroupError):
    """This user may not make cgroups there, or nobody may: nothing is delegated, or they are mounted read-only."""


class StateError(MydockerError):
    """The container's record on disk: its name is in use, or it cannot be written."""


class SetupError(MydockerError):
    """The container's namespaces, mounts or rootfs could not be set up. ``errno`` is the kernel's, or 0."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class HandoffError(MydockerError):
    """The child ended, or did not answer, before it had its whole command: nothing of it ran."""


class OciError(MydockerError):
    """``mydocker-oci`` refused or failed. The words are those that engines know from runc, where they match on them."""

    exit_code = 1


class NotExecuted(OciError):
    """The kernel refused to execute a command that was found: a script without its interpreter, say."""


class CommandNotFound(MydockerError):
    """There is no such command in the container."""

    exit_code = 127


class CommandNotExecutable(MydockerError):
    """The command exists in the container and the kernel refuses to execute it."""

    exit_code = 126


class RunFailed(MydockerError):
    """``mydocker.run(..., check=True)`` and the command did not exit with 0. ``result`` is the `Result`."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result
        self.exit_code = result.exit_code

    def __str__(self) -> str:
        how = {
            "exited": f"exited with {self.result.exit_code}",
            "signaled": f"was killed by signal {self.result.signal}",
            "oom": "was killed because it ran out of memory",
            "timeout": "was killed at its timeout",
        }
        return f"the command {how.get(self.result.reason, self.result.reason)}"
