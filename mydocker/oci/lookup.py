"""Where the command is, and why it is not: in the words of runc, by which engines tell 127 from 126."""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class NotStarted(OSError):
    """The command cannot be started. ``str`` of it is what engines match on."""

    def __str__(self) -> str:
        return str(self.strerror)


class LookUpError(NotStarted):
    """There is no command of that name that could be executed: what engines tell 127 from 126 by."""

    def __init__(self, name: bytes, number: int, reason: str) -> None:
        super().__init__(number, f"exec: {quoted(name)}: {reason}")


def look_up(name: bytes, variables: Mapping[bytes, bytes]) -> bytes:
    """The path of the command as the kernel is to execute it, with the rights that this process has now.

    LookUpError in the words of Go's ``exec.LookPath``, which are what engines match on.
    """
    if b"/" in name:
        _check_executable(name, name)
        return name
    if name:
        for directory in variables.get(b"PATH", b"").split(b":"):
            candidate = os.path.normpath(os.path.join(directory or b".", name))
            try:
                _check_executable(name, candidate)
            except LookUpError:
                continue
            if not candidate.startswith(b"/"):
                reason = "cannot run executable found relative to current directory"
                raise LookUpError(name, errno.EACCES, reason)
            return candidate
    raise LookUpError(name, errno.ENOENT, "executable file not found in $PATH")


def _check_executable(name: bytes, path: bytes) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as e:
        number = e.errno or errno.EIO
        raise LookUpError(name, number, f"stat {os.fsdecode(path)}: {reason_of(e)}") from None
    if stat.S_ISDIR(mode):
        # Docker and Podman answer 126 to "permission denied"; only their later versions know a directory by its name.
        raise LookUpError(name, errno.EISDIR, "is a directory: permission denied")
    if not os.access(path, os.X_OK, effective_ids=True):
        raise LookUpError(name, errno.EACCES, "permission denied")


def encoded(text: str) -> bytes:
    """What config.json says, in the bytes that it has there, whatever the locale of whoever called the runtime."""
    return text.encode(errors="surrogateescape")


def quoted(data: bytes) -> str:
    """In double quotes, with what is in the way escaped: the form that engines know from Go."""
    text = data.decode(errors="backslashreplace").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text) + '"'


def reason_of(error: OSError) -> str:
    """The kernel's reason in the letters that engines match on."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
