"""A pen: namespaces and cgroups of its own in which an engine may do as it likes.

Mounts, network, process numbers and /run are the pen's; its cgroup namespace begins at a cgroup in each hierarchy that
was made for it. What an engine does to iptables, bridges, mounts or cgroups stays there, and ends with the pen's PID 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: Engines are looked for where Debian puts them, and not in /usr/local.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

#: Of a cgroup that is a pen's. The PID of its owner follows.
PREFIX = "mydocker-test-engines-"

#: Options of a v1 hierarchy that do not say which it is.
UNNAMING = ("rw", "ro", "clone_children", "xattr", "release_agent")


class Pen:
    """The place of one engine. ``run`` runs a program in it."""

    def __init__(self, name: str) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{name}"
        self.environment = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/run"}
        self.hierarchies = _hierarchies()
        self.unshare: subprocess.Popen[str] | None = None
        self.pid = 0
        self.servers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Pen:
        for place, kind, _ in self.hierarchies:
            _make_cgroup(Path(place, self.name), kind)
        options = (
            "--mount --net --cgroup --pid --ipc --uts --fork --kill-child --mount-proc --propagation slave".split()
        )
        self.unshare = subprocess.Popen(
            ["unshare", *options, sys.executable, "-I", HERE / "pen-init", *map(" ".join, self.hierarchies)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
            preexec_fn=self._enter_cgroups,  # noqa: PLW1509 (one thread)
        )
        assert self.unshare.stdout is not None
        if self.unshare.stdout.readline() != "ready\n":
            raise RuntimeError("the pen was not made: see its stderr")
        (pid,) = Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children").read_text().split()
        self.pid = int(pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End whatever runs in the pen and remove its cgroups."""
        if self.unshare is not None:
            assert self.unshare.stdin is not None and self.unshare.stdout is not None
            self.unshare.stdin.close()
            self.unshare.wait(timeout=60)
            self.unshare.stdout.close()
            self.unshare = None
        while self.servers:
            self.servers.pop().wait(timeout=60)
        for place, _, _ in self.hierarchies:
            _remove_cgroups(Path(place, self.name))

    def _enter_cgroups(self) -> None:
        for place, kind, _ in self.hierarchies:
            # On v2 a cgroup with processes of its own can have no controllers below it.
            leaf = "pen" if kind == "cgroup2" else ""
            Path(place, self.name, leaf, "cgroup.procs").write_text("0")

    def command(self, *command: str | Path) -> list[str]:
        """The command line that runs a command in the pen."""
        return ["nsenter", f"--target={self.pid}", *"-m -n -C -p -i -u --".split(), *map(str, command)]

    def run(self, *command: str | Path, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in the pen; its stdout and stderr come together, as in a terminal."""
        return subprocess.run(
            self.command(*command),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            check=check,
            timeout=timeout,
            preexec_fn=self._enter_cgroups,
        )

    def start(self, *command: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a server in the pen. It ends with the pen."""
        with log.open("wb") as f:
            server = subprocess.Popen(
                self.command(*command),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=f,
                stderr=f,
                preexec_fn=self._enter_cgroups,  # noqa: PLW1509 (one thread)
            )
        self.servers.append(server)
        return server

    def snapshot(self) -> set[str]:
        """What is there: mounts, cgroups and processes of the pen, and mydocker's records of containers."""
        mounts = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        cgroups = {
            directory.removeprefix(f"{place}/{self.name}")
            for place, _, _ in self.hierarchies
            for directory, _, _ in os.walk(f"{place}/{self.name}")
        }
        records = Path(f"/proc/{self.pid}/root/run/mydocker").glob("*")
        return {
            *(f"mount {line.split()[4]}" for line in mounts),
            *(f"cgroup {cgroup}" for cgroup in cgroups),
            *(f"process {process}" for process in self._processes()),
            *(f"record {path.name}" for path in records),
        }

    def _processes(self) -> list[str]:
        """By their cgroups, which also a process that nobody knows any more cannot leave."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if f"/{self.name}" in Path(f"/proc/{pid}/cgroup").read_text():
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(command)
            except OSError:  # ended meanwhile
                pass
        return found


def _hierarchies() -> list[tuple[str, str, str]]:
    """Mount point, file system type and options of each cgroup hierarchy of this host."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        place = mount.split()[4]
        if kind in ("cgroup", "cgroup2") and place.startswith("/sys/fs/cgroup"):
            named = [o for o in options.split(",") if o.split("=")[0] not in UNNAMING]
            found[place] = (place, kind, ",".join(named) if kind == "cgroup" else "")
    return list(found.values())


def _make_cgroup(cgroup: Path, kind: str) -> None:
    cgroup.mkdir()
    if kind == "cgroup2":
        (cgroup / "pen").mkdir()
    for name in ("cpuset.cpus", "cpuset.mems"):
        # On v1 a cgroup without CPUs or memory nodes takes no process.
        if kind == "cgroup" and (cgroup / name).exists():
            (cgroup / name).write_text((cgroup.parent / name).read_text())


def remove_abandoned_pens() -> None:
    """Remove the cgroups of pens whose owner was killed. What ran in them ended with it."""
    for place, _, _ in _hierarchies():
        for cgroup in Path(place).glob(f"{PREFIX}*"):
            if not Path("/proc", cgroup.name.removeprefix(PREFIX).split("-")[0]).exists():
                _remove_cgroups(cgroup)


def _remove_cgroups(top: Path) -> None:
    for directory, _, _ in os.walk(top, topdown=False):
        _remove_cgroup(directory)


def _remove_cgroup(directory: str) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError:  # EBUSY as long as the last process is going
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
