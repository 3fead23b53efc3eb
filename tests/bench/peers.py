"""What mydocker is measured beside: the other tools, and one container that is the same for all of them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "vm"))

import debian  # noqa: E402 (from tests/vm)
from measuring import tell  # noqa: E402

#: Where Debian puts them, and not in /usr/local.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = {"runc": "runc", "crun": "crun", "bwrap": "bubblewrap", "cc": "gcc"}

MYDOCKER = str(Path(sys.executable).with_name("mydocker"))
MYDOCKER_OCI = str(Path(sys.executable).with_name("mydocker-oci"))

#: Of every container that is measured: 100 MB of memory, half a CPU's worth of shares, 50 tasks.
FLAGS = ("-m", "100m", "--cpu-shares", "512", "--pids-limit", "50")
KEYWORDS = {"memory": "100m", "cpu_shares": 512, "pids_limit": 50}
_RESOURCES = {"memory": {"limit": 100 << 20}, "cpu": {"shares": 512}, "pids": {"limit": 50}}

_TRUE = "int main(void) { return 0; }\n"
#: Prints the time at which it began. Its first instructions are those before main, some microseconds.
_PAUSE = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
_CLOCK = """
#include <stdio.h>
#include <time.h>
int main(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	printf("%lld\\n", t.tv_sec * 1000000000LL + t.tv_nsec);
	return 0;
}
"""


def install() -> None:
    """What is missing, from Debian."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool, path=PATH) is None]
    if missing:
        debian.install(*missing)


class Peers:
    """A root directory, and how each tool runs a command in it."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.rootfs = scratch / "rootfs"
        for name in ("bin", "dev", "proc", "sys", "tmp"):
            (self.rootfs / name).mkdir(parents=True)
        for name, source in (("true", _TRUE), ("pause", _PAUSE), ("clock", _CLOCK)):
            self.compile(source, self.rootfs / "bin" / name, "-static")
        self._bundles = 0

    def add_busybox(self) -> Path:
        """A shell for the root directory."""
        debian.unpack("busybox-static", into=self.scratch / "busybox")
        busybox = Path(shutil.copy(self.scratch / "busybox/bin/busybox", self.rootfs / "bin/busybox"))
        (self.rootfs / "bin/sh").symlink_to("busybox")
        return busybox

    def compile(self, source: str | Path, program: Path, *options: str) -> Path:
        code = source.read_text() if isinstance(source, Path) else source
        command = ["cc", "-O2", *options, "-x", "c", "-", "-o", str(program)]
        subprocess.run(command, input=code, text=True, check=True, capture_output=True)
        return program

    @functools.cached_property
    def floor(self) -> tuple[Path, Path, int]:
        """The program of floor.c, the file with the seccomp program of mydocker's runs, and their capabilities."""
        from mydocker import seccomp
        from mydocker.linux import capabilities
        from mydocker.spec import resolve_capabilities

        mask = capabilities.mask(resolve_capabilities((), ())) & capabilities.permitted()
        compiled = seccomp.of_run("default", mask)
        assert compiled is not None
        program = self.scratch / "seccomp.bpf"
        program.write_bytes(compiled.program)
        return self.compile(HERE / "floor.c", self.scratch / "floor"), program, mask

    def bundle(self, *command: str, **resources: dict[str, int]) -> Path:
        """An OCI bundle as ``runc spec`` proposes it, without a terminal and with the limits."""
        self._bundles += 1
        bundle = self.scratch / f"bundle{self._bundles}"
        bundle.mkdir()
        subprocess.run([tool("runc"), "spec", "--bundle", str(bundle)], check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": list(command)}
        config["root"]["path"] = str(self.rootfs)
        config["linux"]["resources"] |= _RESOURCES | resources
        (bundle / "config.json").write_text(json.dumps(config))
        return bundle

    def runtimes(self, *names: str) -> list[str]:
        """Those that run on this host: crun knows no hybrid cgroups, for one."""
        bundle = self.bundle("true")
        return [name for name in names if self._runs(self.oci(name, "bench-try", bundle))]

    @staticmethod
    def _runs(command: list[str]) -> bool:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            tell(f"left out: {command[0]} says: {done.stderr.strip()}")
        return done.returncode == 0

    def mydocker(self, *command: str) -> list[str]:
        return [MYDOCKER, "run", "--rootfs", str(self.rootfs), *FLAGS, *command]

    def oci(self, runtime: str, name: str, bundle: Path) -> list[str]:
        """A whole run. The container is removed when its command ends, so that one name serves all."""
        return self.verb(runtime, "run", "--bundle", str(bundle), name)

    def verb(self, runtime: str, *words: str) -> list[str]:
        return [tool(runtime), "--root", str(self.scratch / f"state-of-{runtime}"), *words]

    def bwrap(self, *command: str) -> list[str]:
        """The same namespaces, a fresh /proc and /dev; it knows no limits."""
        return [
            *(tool("bwrap"), "--unshare-all", "--bind", str(self.rootfs), "/"),
            *("--proc", "/proc", "--dev", "/dev", "/bin/" + command[0], *command[1:]),
        ]


def tool(name: str) -> str:
    if name == "mydocker-oci":
        return MYDOCKER_OCI
    path = shutil.which(name, path=PATH)
    if path is None:
        raise debian.DebianError(f"there is no {name} here")
    return path


class Floor:
    """A process of floor.c, which waits to be asked."""

    def __init__(self, peers: Peers, *command: str) -> None:
        program, filter_, mask = peers.floor
        self._process = subprocess.Popen(
            [str(program), str(peers.rootfs), str(filter_), f"{mask:x}", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def once(self) -> float:
        """One container; the seconds that it took, without what it takes to ask for it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the floor has ended: see above")
        return int(line) / 1e9

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def prepared_host(*command_of_floor: str) -> Iterator[tuple[Peers, Floor | None]]:
    """The peers in a directory of their own, and the floor if it has a command. Nothing of it is left."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mydocker-bench-", dir="/run")))
        # What this host's configuration sets, and what else runs here, is not what is measured.
        os.environ["MYDOCKER_CONFIG"] = ""
        os.environ["MYDOCKER_STATE_DIR"] = str(scratch / "state")
        install()
        peers = Peers(scratch)
        floor = None
        if command_of_floor:
            floor = Floor(peers, *command_of_floor)
            stack.callback(floor.close)
        yield peers, floor
