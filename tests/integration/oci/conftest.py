"""Bundles, and the two runtimes that take them: ours, and runc to compare with."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker.linux import signals

#: Seconds for one call of a runtime.
PATIENCE = 60

#: What every id and every cgroup of these tests begins with.
PREFIX = "mydocker-test-"

DEFAULT_MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
]

#: Docker's default set.
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    ).split()
]


@pytest.fixture(autouse=True, scope="session")
def signals_of_the_c_library() -> None:
    """posix_spawn(3), as make uses it, leaves two signals ignored, which runc passes on and mydocker does not."""
    signals.default_of_libc()


class Runtime:
    """An OCI runtime with a state directory of its own. What it leaves behind is removed by `clean`."""

    def __init__(self, command: list[str], root: Path) -> None:
        self.command = command
        self.root = root

    def __call__(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """One call: its exit code, stdout and stderr."""
        settings: dict[str, Any] = {
            "text": True,
            "errors": "surrogateescape",
            "timeout": PATIENCE,
            **({} if "input" in options else {"stdin": subprocess.DEVNULL}),
            **({} if "stdout" in options else {"stdout": subprocess.PIPE}),
            **({} if "stderr" in options else {"stderr": subprocess.PIPE}),
            **options,
        }
        return subprocess.run([*self.command, "--root", self.root, *arguments], check=False, **settings)

    def run(self, bundle: Path, name: str, *options: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        """``run`` in the foreground."""
        return self("run", "--bundle", bundle, *options, name, **settings)

    def create(self, bundle: Path, name: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """``create``. The container's output is lost: a pipe for it would stay open in the container."""
        errors = bundle / "create.stderr"
        with errors.open("w") as f:
            done = self("create", "--bundle", bundle, *options, name, stdout=f, stderr=f)
        done.stderr = errors.read_text()
        return done

    def state(self, name: str) -> dict[str, Any]:
        done = self("state", name)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @staticmethod
    def cgroups_of(bundle: Path) -> list[str]:
        """The cgroups that there are now of the container of this bundle."""
        name = json.loads((bundle / "config.json").read_text())["linux"]["cgroupsPath"]
        return [f"{top}{name}" for top in cgroup_mounts() if os.path.isdir(f"{top}{name}")]

    def clean(self) -> None:
        """Delete every container, by the runtime if it can."""
        for name in os.listdir(self.root) if self.root.exists() else []:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self("delete", "--force", name)
        shutil.rmtree(self.root, ignore_errors=True)


class Bundles:
    """A factory of bundles: a config.json of a small container with changes, and a root with busybox."""

    def __init__(self, directory: Path, template: Path, cgroup: str) -> None:
        self._directory = directory
        self._template = template
        self._cgroup = cgroup
        self._made = 0

    def __call__(self, *args: str, config: dict[str, Any] | None = None, **changes: Any) -> Path:
        """The bundle of `config`, else of `self.config` with ``args`` as the command; ``changes`` are put over it.

        ``process__cwd="/"`` is the config's ``process.cwd``; None removes what is there.
        """
        self._made += 1
        bundle = self._directory / f"bundle{self._made}"
        shutil.copytree(self._template, bundle / "rootfs", symlinks=True)
        config = self.config(*args) if config is None else copy.deepcopy(config)
        for place, value in changes.items():
            put(config, place, value)
        (bundle / "config.json").write_text(json.dumps(config))
        return bundle

    def config(self, *args: str) -> dict[str, Any]:
        """A container with namespaces of its own, Docker's capabilities and a name."""
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": 0, "gid": 0},
                "args": list(args) or ["true"],
                "env": ["PATH=/bin", "HOME=/root"],
                "cwd": "/",
                "capabilities": {name: list(CAPABILITIES) for name in ("bounding", "effective", "permitted")},
                "noNewPrivileges": True,
            },
            "root": {"path": "rootfs", "readonly": False},
            "hostname": "box",
            "mounts": copy.deepcopy(DEFAULT_MOUNTS),
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
                "cgroupsPath": f"{self._cgroup}/{uuid.uuid4().hex[:12]}",
            },
        }


def put(config: dict[str, Any], place: str, value: Any) -> None:
    *outer, last = place.split("__")
    for name in outer:
        config = config.setdefault(name, {})
    if value is None:
        config.pop(last, None)
    else:
        config[last] = value


@pytest.fixture(scope="session")
def bundle_template(rootfs_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of every bundle, as small as a copy of it is quick."""
    root = tmp_path_factory.mktemp("bundle") / "rootfs"
    shutil.copytree(rootfs_template, root, symlinks=True)
    for directory in ("proc", "sys", "dev"):
        (root / directory).mkdir()
    return root


@pytest.fixture
def cgroup() -> Iterator[str]:
    """The path, below each hierarchy, of a cgroup for the containers of this test. It is removed with all in it."""
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    yield f"/{name}"
    for mounted in cgroup_mounts():
        remove_cgroup(mounted / name)


@pytest.fixture
def cid() -> Iterator[str]:
    """The id of a container, which is the name of its cgroup too where config.json names none."""
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    yield name
    for mounted in cgroup_mounts():
        remove_cgroup(mounted / name)


def cgroup_mounts() -> list[Path]:
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [Path(line[4]) for line in lines if line[line.index("-") + 1] in ("cgroup", "cgroup2")]


def remove_cgroup(top: Path) -> None:
    """Remove one of our own cgroups and those below it, and kill what is in them."""
    assert top.name.startswith(PREFIX), top
    for directory, _, _ in os.walk(top, topdown=False):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for state in ("freezer.state", "cgroup.freeze"):
                with contextlib.suppress(OSError):
                    Path(directory, state).write_text("THAWED" if state == "freezer.state" else "0")
            with contextlib.suppress(OSError):
                for pid in Path(directory, "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.01)
            else:
                break


@pytest.fixture
def bundle(bundle_template: Path, cgroup: str) -> Iterator[Bundles]:
    """Where others than root come too: in a user namespace runc opens the container's root by its path."""
    directory = Path(tempfile.mkdtemp(prefix="bundle-"))
    directory.chmod(0o755)
    yield Bundles(directory, bundle_template, cgroup)
    shutil.rmtree(directory)


@pytest.fixture
def ours(tmp_path: Path, bundle: Bundles, state_dir: Path) -> Iterator[Runtime]:
    """mydocker-oci."""
    script = Path(sys.executable).with_name("mydocker-oci")
    runtime = Runtime([str(script)], tmp_path / "ours")
    yield runtime
    runtime.clean()


@pytest.fixture
def runc(tmp_path: Path, bundle: Bundles) -> Iterator[Runtime]:
    """Debian's runc."""
    program = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip("runc is not installed, to compare with: apt-get install runc")
    runtime = Runtime([program], tmp_path / "runc")
    yield runtime
    runtime.clean()


@pytest.fixture
def stopped() -> Callable[[Runtime, str], None]:
    """Wait until a container's process has ended."""

    def wait(runtime: Runtime, name: str) -> None:
        end = time.monotonic() + PATIENCE
        while runtime.state(name)["status"] != "stopped":
            assert time.monotonic() < end, f"{name} goes on"
            time.sleep(0.01)

    return wait
