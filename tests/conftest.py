"""What all tests share: mydocker as a command, a small rootfs, waiting."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mydocker.cgroups.layout import Layout

#: Hosts of each cgroup layout that do not exist, and the way of a limit on them.
pytest_plugins = ["mydocker.testing.pytest_plugin"]

#: Seconds after which something that does not happen never will. In a virtual machine Python is 12 times slower.
PATIENCE = 60

APPLETS = (
    "awk cat chmod chown cp cut dd df echo env false find grep head hostname id kill ln ls mkdir mknod mount mv nproc "
    "od printenv ps pwd readlink rm rmdir sed seq sh sleep sort stat stty tail test touch tr true tty umount uname wc"
).split()

# No test fails for the time it takes.
settings.register_profile("mydocker", deadline=None)
settings.load_profile("mydocker")



@pytest.fixture
def interrupted() -> Callable[[Callable[[int], object]], None]:
    """Calls something again and again, with the number of the call, and interrupts it some microseconds later."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def again_and_again(work: Callable[[int], object]) -> None:
        before = signal.signal(signal.SIGALRM, interrupt)
        seen = 0
        gc.disable()  # what is called when it runs is not what is interrupted
        try:
            for n in range(4000):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.000002 + n % 60 * 0.000001)
                    work(n)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    seen += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            gc.enable()
        assert seen > 100

    return again_and_again


@pytest.fixture(autouse=True)
def no_configuration_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this host's configuration sets for every run is not what the tests are about."""
    monkeypatch.setenv("MYDOCKER_CONFIG", "")


@pytest.fixture
def layout() -> Layout:
    """The cgroup hierarchies of this host."""
    return Layout.read()


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``mydocker run`` with these arguments, as a process of its own: its exit code, stdout and stderr.

    Bytes that are not UTF-8 come as surrogates.
    """

    def run_to_end(*arguments: str | bytes | Path, **options: object) -> subprocess.CompletedProcess[str]:
        settings: dict[str, object] = {
            "encoding": "utf-8",
            "errors": "surrogateescape",
            "timeout": PATIENCE,
            "check": False,
            **({} if "input" in options else {"stdin": subprocess.DEVNULL}),
            **({} if "stdout" in options else {"capture_output": True}),
            **options,
        }
        return subprocess.run([sys.executable, "-m", "mydocker", "run", *arguments], **settings)  # type: ignore[call-overload, no-any-return]  # noqa: PLW1510

    return run_to_end


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """As ``run``, and does not wait for the end. What still runs when the test ends is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start_only(*arguments: str | bytes | Path, **options: object) -> subprocess.Popen[str]:
        settings: dict[str, object] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "encoding": "utf-8",
            "errors": "surrogateescape",
        }
        command = [sys.executable, "-m", "mydocker", "run", *arguments]
        processes.append(subprocess.Popen(command, **{**settings, **options}))  # type: ignore[call-overload]
        return processes[-1]

    yield start_only
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def eventually() -> Callable[..., object]:
    """Call a function again and again until its answer is true; the answer."""

    def wait_for(condition: Callable[[], object], what: str = "") -> object:
        end = time.monotonic() + PATIENCE
        while True:
            answer = condition()
            if answer:
                return answer
            if time.monotonic() > end:
                raise AssertionError(f"this did not happen: {what or condition}")
            time.sleep(0.005)

    return wait_for


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A static busybox: the host's, that of the virtual machine, or Debian's, downloaded once and not installed."""
    cached = (Path(request.config.rootpath) / ".pytest_cache").joinpath("d", "busybox")
    for candidate in (shutil.which("busybox"), "/run/vm/busybox", cached):
        if candidate is not None and os.path.exists(candidate) and _is_static(Path(candidate)):
            return Path(candidate)
    scratch = tmp_path_factory.mktemp("busybox")
    # apt drops its privileges for downloads and then cannot write into a directory that is root's alone.
    download = ["apt-get", "download", "-qq", "-oAPT::Sandbox::User=root", "busybox-static"]
    for attempt in (download, ["apt-get", "update", "-qq"], download):
        if subprocess.run(attempt, cwd=scratch, check=False).returncode == 0 and attempt is download:
            break
    (package,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, scratch / "root"], check=True)
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as beside:
        shutil.copy(scratch / "root/bin/busybox", f"{beside}/busybox")
        os.rename(f"{beside}/busybox", cached)
    return cached


def _is_static(program: Path) -> bool:
    """Whether an ELF file names no loader: it has no PT_INTERP segment, whose content is the loader's path."""
    with program.open("rb") as f:
        head = f.read(4096)
    return head.startswith(b"\x7fELF") and b"/ld" not in head


@pytest.fixture(scope="session")
def rootfs_template(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rootfs") / "root"
    for directory in ("bin", "etc", "root", "tmp", "home/alice"):
        (root / directory).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nalice:x:1000:\naudio:x:29:alice\n")
    (root / "tmp").chmod(0o1777)
    return root


@pytest.fixture
def rootfs(rootfs_template: Path, tmp_path: Path) -> Path:
    """A root directory with busybox and the users root and alice, for this test alone."""
    root = tmp_path / "rootfs"
    shutil.copytree(rootfs_template, root, symlinks=True)
    return root


PLUGIN = """
from mydocker import ResourceField, hookimpl
from mydocker.resources import parse_integer

@hookimpl
def mydocker_fields():
    return [ResourceField(name="{field}", flags=({flags}), parse=parse_integer, metavar="N", help="Some limit.")]
"""


class PluginSite:
    """A directory of sys.path in which packages with plugins are put by hand, as pip would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, source: str, *, version: str = "1.0", target: str = "", module: str = "") -> Path:
        """A package ``name`` with one module and the entry point of the same name for it; returns the module."""
        module = module or f"{name}_module"
        file = self.path / f"{module}.py"
        file.write_text(source)
        metadata = self.path / f"{name}_dist-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[mydocker.subsystems]\n{name} = {target or module}\n")
        return file

    def add_simple(self, name: str, *, field: str = "", flags: str = "", version: str = "1.0") -> Path:
        """A package with a plugin that declares one field and does nothing."""
        return self.add(
            name,
            PLUGIN.format(field=field or name, flags=flags or f'"--{name}",'),
            version=version,
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginSite]:
    """A `PluginSite`, for this process and those that it starts, with a cache of its own and with nothing of it left
    in ``sys.modules``."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MYDOCKER_DISABLE_PLUGINS", raising=False)
    (tmp_path / "cache").mkdir()
    before = set(sys.modules)
    yield PluginSite(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
