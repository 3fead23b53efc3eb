"""Seccomp: which system calls a command may make.

`of_run` is for the people's command line, whose default is Docker's; `prepare` and `send_listener` are for config.json.
Both come to a `Filter`, which the child loads. To compile one takes some 40 ms, so the program is kept in a file
(`mydocker.cache_file`) until something changes that it depends on: the profile, the capabilities, the kernel,
libseccomp, or the code here. A run that finds it there loads neither libseccomp nor a reader of JSON.
"""

from __future__ import annotations

import marshal
import os
import sys

from mydocker import cache_file
from mydocker.errors import OciError, SetupError, UsageError
from mydocker.linux import seccomp as kernel
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

FORMAT = 1
DEFAULT, UNCONFINED = "default", "unconfined"

#: The code that decides what is in a program.
_CODE = ("bpf.py", "compiler.py", "default.py", "enosys.py", "names.py", "profile.py", "shrinking.py")
#: A profile is some 15 KB.
_LARGEST_PROFILE = 4 << 20

_NO_LIBRARY = (
    "the seccomp filter cannot be made, since this host has no libseccomp.so.2: install the package libseccomp2 "
    "(apt-get install libseccomp2)"
)


class Filter(Value):
    """A compiled filter.

    ``program``            BPF instructions, as the kernel takes them.
    ``flags``              of seccomp(2).
    ``listener_path``      socket of the agent that decides instead of the kernel, or empty; it gets the descriptor.
    ``listener_metadata``  what the agent is told with it.
    """

    program: bytes
    flags: int = 0
    listener_path: str = ""
    listener_metadata: str = ""

    def load(self) -> int:
        """Put it in force for this process and what it will start: the listener's descriptor, or -1.

        With no_new_privs as the last thing before the command, since the filter holds for what comes after it; else
        before CAP_SYS_ADMIN is given up (seccomp(2)). OSError.
        """
        fd = kernel.load(self.program, self.flags)
        return fd if self.listens else -1

    @property
    def listens(self) -> bool:
        """Whether `load` returns a descriptor, which is to be sent to the agent."""
        return bool(self.flags & kernel.NEW_LISTENER)


def of_run(profile: str | Mapping[str, Any], capabilities: int, *, privileged: bool = False) -> Filter | None:
    """The filter for a command with these capabilities (a mask), or None.

    ``profile``: ``default``, which ``privileged`` lifts; ``unconfined``; a file or a mapping in Docker's form or in the
    spec's. UsageError for a profile that is wrong, SetupError if there is no libseccomp to compile it with.
    """
    if profile == UNCONFINED or (privileged and profile == DEFAULT):
        return None
    about = "the default seccomp profile"
    if profile == DEFAULT:
        content = b""
    elif isinstance(profile, str):
        about = f"the seccomp profile {profile}"
        content = _read(profile)
    else:
        about = "the seccomp profile"
        content = repr(profile).encode(errors="surrogatepass")

    def compile_it() -> tuple[bytes, int]:
        from mydocker.linux.capabilities import NAMES
        from mydocker.seccomp import compiler
        from mydocker.seccomp import default as docker
        from mydocker.seccomp.profile import resolve

        rules = profile if not isinstance(profile, str) else docker.profile() if profile == DEFAULT else _parse(content)
        host = os.uname()
        names = [name for number, name in enumerate(NAMES) if capabilities >> number & 1]
        resolved = resolve(rules, names, host.machine, host.release)
        if resolved is None:
            return b"", 0
        program, flags = compiler.compile_filter(resolved)
        if flags & kernel.NEW_LISTENER:
            raise ValueError("SCMP_ACT_NOTIFY needs an agent and a config.json that names its socket: use mydocker-oci")
        return program, flags

    way_out = ", or run without a filter by --security-opt seccomp=unconfined"
    try:
        program, flags = _compiled((profile == DEFAULT, content, capabilities), compile_it, way_out)
    except ValueError as e:
        raise UsageError(f"{about}: {e}") from None
    return Filter(program=program, flags=flags) if program else None


def prepare(profile: Mapping[str, Any] | None) -> Filter | None:
    """The filter of ``linux.seccomp`` in config.json, or None if there is none. OciError if it cannot be made."""
    if not profile:
        return None
    path, metadata = profile.get("listenerPath") or "", profile.get("listenerMetadata") or ""
    if metadata and not path:
        raise OciError("linux.seccomp: listenerMetadata is set and listenerPath is not: nobody would get it")

    def compile_it() -> tuple[bytes, int]:
        from mydocker.seccomp import compiler

        return compiler.compile_filter(profile)

    try:
        program, flags = _compiled(("oci", repr(profile).encode(errors="surrogatepass")), compile_it)
    except ValueError as e:
        raise OciError(f"linux.seccomp: {e}") from None
    made = Filter(program=program, flags=flags)
    if not made.listens:
        return made  # "If the SCMP_ACT_NOTIFY action is not used this value is ignored" (listenerPath, config-linux.md)
    if not path:
        raise OciError("linux.seccomp: SCMP_ACT_NOTIFY is used and listenerPath is not set: nobody would answer")
    return made.replace(listener_path=path, listener_metadata=metadata)


def send_listener(filter_: Filter, fd: int, state: Mapping[str, Any], pid: int = 0) -> None:
    """Send the listener ``fd`` to the agent, with the container process state (config-linux.md).

    ``state`` is the container's, as ``state`` prints it; ``pid`` is that of the process if it is not the container's
    first one. The descriptor stays open here. OciError if the agent cannot be reached: nobody would answer.
    """
    from mydocker.seccomp import listener

    try:
        listener.send(filter_.listener_path, filter_.listener_metadata, fd, state, pid or state["pid"])
    except OSError as e:
        raise OciError(
            f"linux.seccomp: failed to connect with seccomp agent at listenerPath {filter_.listener_path}: "
            f"{(e.strerror or str(e)).lower()}"
        ) from e


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_PROFILE + 1)
    except OSError as e:
        raise UsageError(f"cannot read the seccomp profile {path}: {e.strerror}") from None
    if len(content) > _LARGEST_PROFILE:
        raise UsageError(f"the seccomp profile {path} is larger than {_LARGEST_PROFILE >> 20} MiB")
    return content


def _parse(content: bytes) -> Any:
    from mydocker import plain_json

    try:
        return plain_json.loads(content.decode())
    except ValueError as e:
        raise ValueError(f"it is not JSON: {e}") from None


def _compiled(
    about: tuple[Any, ...], compile_it: Callable[[], tuple[bytes, int]], way_out: str = ""
) -> tuple[bytes, int]:
    """Program and flags for what ``about`` names in full, from the file if it is still true.

    ``way_out``: what else there is to do where there is no libseccomp.
    """
    host = os.uname()
    here = os.path.dirname(__file__)
    code = [f"{here}/{name}" for name in _CODE]
    stamps = tuple(cache_file.stamp(path) for path in code)
    key = (FORMAT, sys.maxsize, host.machine, host.release, host.version, stamps, *about)
    name = cache_file.path("seccomp", repr(key).encode())
    if name is not None:
        kept = _kept(name, key)
        if kept is not None:
            return kept
    from mydocker.linux import libseccomp

    try:
        program, flags = compile_it()
    except libseccomp.Missing as e:
        raise SetupError(_NO_LIBRARY + way_out) from e
    try:
        if name is not None:
            _keep(name, key, (libseccomp.path(), *code), program, flags)
    except OSError:
        pass  # the next run compiles again
    return program, flags


def _kept(name: str, key: tuple[Any, ...]) -> tuple[bytes, int] | None:
    try:
        content = cache_file.read(name)
        if content is not None:
            known, library, stamp, program, flags = marshal.loads(content)
            # What an older one made is made anew by a newer one; where it is gone, there is nothing to make it with.
            if known == key and cache_file.stamp(library) in (stamp, None):
                return program, flags
    except Exception:
        pass  # whatever is wrong with the file, a new one is made
    return None


def _keep(name: str, key: tuple[Any, ...], files: tuple[str, ...], program: bytes, flags: int) -> None:
    now = cache_file.now()
    stamps = [cache_file.stamp(path) for path in files]
    if all(stamp is not None and cache_file.settled(stamp[0], now) for stamp in stamps):
        cache_file.write(name, marshal.dumps((key, files[0], stamps[0], program, flags)))
