"""Which containers may have one monitor (`mydocker.oci.monitor`): those whose own ones would all be alike.

A monitor is a fork of the ``create`` that needed it first, and has what that had: its environment, namespaces, rights,
limits, cgroups, and the code that it had imported. `key` stands for all but the last; whether the code is still what
the disk has, the monitor finds out by `Code`.
"""

from __future__ import annotations

import os
import sys
import time

from mydocker.cache_file import stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mydocker.cache_file import Stamp
    from mydocker.plugins import Plugin, Registry

#: What a shell or an engine says of one process alone (bash(1), sd_listen_fds(3)).
_OF_ONE_PROCESS = ("_", "PWD", "OLDPWD", "SHLVL", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

#: Lines of /proc/self/status (proc(5)).
_STATUS = (b"Umask:", b"Uid:", b"Gid:", b"Groups:", b"Cap", b"NoNewPrivs:", b"Seccomp:", b"Cpus_allowed:")

#: The cgroup is among them: who ends all that is in one (systemd, the OOM killer) ends the monitors of the containers
#: that were made from there, and no others.
_FILES = ("cgroup", "limits", "oom_score_adj", "attr/current")


def key(registry: Registry, watching: Iterable[Plugin]) -> str:
    """The same text for all processes whose containers one monitor may have, for these plugins that watch."""
    from _blake2 import blake2b

    own = "/proc/self"
    environment = sorted(entry for entry in os.environ.items() if entry[0] not in _OF_ONE_PROCESS)
    root = os.stat(f"{own}/root/.")
    interpreter = (sys.executable, sys.version, repr(sys.flags), __file__, *sys.path)
    names = [plugin.name for plugin in watching]
    parts = [
        repr((environment, interpreter, registry.table, names, root.st_dev, root.st_ino)).encode(),
        *(os.readlink(f"{own}/ns/{name}").encode() for name in sorted(os.listdir(f"{own}/ns"))),
        *(line for line in _content(f"{own}/status").splitlines() if line.startswith(_STATUS)),
        *(_content(f"{own}/{name}") for name in _FILES),
    ]
    return blake2b(b"\0\n".join(parts), digest_size=16).hexdigest()


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:  # a kernel without it, or without a security module
        return b""


class Code:
    """The modules that this process has imported, as files."""

    def __init__(self) -> None:
        from mydocker.linux.process import start_time

        age = time.clock_gettime(time.CLOCK_BOOTTIME) - start_time(os.getpid()) / os.sysconf("SC_CLK_TCK")
        self._began = time.time_ns() - int(age * 1e9)
        self._stamps: dict[str, Stamp] = {}
        self._ever_changed = False
        self.has_changed()

    def has_changed(self) -> bool:
        """Whether a file is not (or perhaps not) what was imported. To be asked from the start, and now and then."""
        for module in list(sys.modules.values()):
            try:
                file = getattr(module, "__file__", None)
            except Exception:  # a module is what somebody has put there
                continue
            if not isinstance(file, str):
                continue
            found = stamp(file)
            if file not in self._stamps:
                self._stamps[file] = found
                self._ever_changed |= found is not None and not self._is_older(found[0])
            elif self._stamps[file] != found:
                self._ever_changed = True
        return self._ever_changed

    def _is_older(self, changed: int) -> bool:
        """Than this process. A file system that knows whole seconds only would give a later change the same time."""
        return changed < self._began - (2_000_000_000 if changed % 1_000_000_000 == 0 else 0)
