"""mydocker as a plain user: one with subordinate ids, and one without even a line in /etc/passwd."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mydocker.cgroups.layout import Hierarchy, Layout

PATIENCE = 60
TOKEN = "MYDOCKER_TEST_TOKEN"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED = ("mydocker", "subsystems", "cgroupspy", "click", "pluggy", "pythonjsonlogger")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of mydocker and of what it needs that every user can read: the installed one may be below /root."""
    directory = Path(tempfile.mkdtemp(prefix="mydocker-package-"))
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    points = importlib.metadata.entry_points(group="mydocker.subsystems")
    lines = [f"{point.name} = {point.value}" for point in points if point.value.startswith("subsystems.")]
    metadata = directory / "mydocker-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mydocker\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("\n".join(["[mydocker.subsystems]", *lines, ""]))
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
    yield directory
    shutil.rmtree(directory)


class PlainUser:
    """Who is not root: runs mydocker, and everything else, with his ids and nothing of root's."""

    def __init__(self, uid: int, gid: int, name: str, home: Path, package: Path, python: str) -> None:
        self.uid, self.gid, self.name = uid, gid, name
        self.home = home
        self.python = python
        self.runtime = home / "run"
        self.runtime.mkdir()
        os.chown(self.runtime, uid, gid)
        self.environment = {
            "PATH": SYSTEM_PATH,
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PYTHONPATH": str(package),
            "PYTHONDONTWRITEBYTECODE": "1",
            TOKEN: os.environ[TOKEN],
        }

    def command(self, arguments: tuple[str | Path, ...]) -> list[str]:
        """The command line, for root, of `arguments` as this user."""
        drop = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        return [*drop, *(str(argument) for argument in arguments)]

    def _options(self, options: dict[str, object]) -> dict[str, object]:
        environment = {**self.environment, **options.pop("env", {})}  # type: ignore[dict-item]
        given = {"stdin": subprocess.DEVNULL} if "input" not in options else {}
        return {"cwd": self.home, "env": environment, "text": True, **given, **options}

    def call(self, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        """Any command."""
        settings = {"timeout": PATIENCE, "capture_output": True, "check": False, **self._options(options)}
        return subprocess.run(self.command(arguments), **settings)  # type: ignore[call-overload, no-any-return]  # noqa: PLW1510

    def run(self, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        """``mydocker run`` with these arguments."""
        return self.call(self.python, "-m", "mydocker", "run", *arguments, **options)

    def start(self, *arguments: str | Path, **options: object) -> subprocess.Popen[str]:
        """As `run`, and does not wait for the end."""
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **self._options(options)}
        command = self.command((self.python, "-m", "mydocker", "run", *arguments))
        return subprocess.Popen(command, **settings)  # type: ignore[call-overload, no-any-return]

    def own(self, path: Path) -> Path:
        """Give a file or a tree to this user."""
        subprocess.run(["chown", "-hR", f"{self.uid}:{self.gid}", path], check=True)
        return path


@pytest.fixture(scope="session")
def python() -> str:
    """A Python that every user can execute: that of the tests, or the system's."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        probe = [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(probe, user=65534, cwd="/", env={}, capture_output=True, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip("no Python 3.11 or newer here can be executed by a plain user")


@pytest.fixture(scope="session")
def account() -> Iterator[tuple[int, int, str]]:
    """(uid, gid, name) of a user who is made for these tests, with subordinate ids."""
    assert shutil.which("newuidmap"), "these tests need the package uidmap: apt-get install uidmap"
    name = f"mydocker-t{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    try:
        for file, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
            if f"{name}:" not in Path(file).read_text():
                subprocess.run(["usermod", option, "1700000000-1700065535", name], check=True)
        ids = (int(subprocess.check_output(["id", flag, name])) for flag in ("-u", "-g"))
        yield (*ids, name)  # type: ignore[misc]
    finally:
        subprocess.run(["userdel", name], check=True)


@pytest.fixture
def new_user(package: Path, python: str) -> Iterator[Callable[[int, int, str], PlainUser]]:
    """Makes a `PlainUser` with a home directory."""
    users: list[PlainUser] = []

    def make(uid: int, gid: int, name: str) -> PlainUser:
        home = Path(tempfile.mkdtemp(prefix="mydocker-home-"))
        home.chmod(0o755)
        os.chown(home, uid, gid)
        users.append(PlainUser(uid, gid, name, home, package, python))
        return users[-1]

    yield make
    for user in users:
        left = list(user.runtime.glob("mydocker/*"))
        shutil.rmtree(user.home)
        assert left == [], "this state is left"


@pytest.fixture
def stranger(new_user: Callable[[int, int, str], PlainUser]) -> PlainUser:
    """A user id without a line in /etc/passwd: there are no subordinate ids."""
    return new_user(1234567, 1234567, "1234567")


@pytest.fixture
def alice(new_user: Callable[[int, int, str], PlainUser], account: tuple[int, int, str]) -> PlainUser:
    """A user with 65536 subordinate ids."""
    return new_user(*account)


@pytest.fixture(params=["one id", "subordinate ids"])
def user(request: pytest.FixtureRequest) -> PlainUser:
    """Each kind of user in turn."""
    name = "stranger" if request.param == "one id" else "alice"
    found: PlainUser = request.getfixturevalue(name)
    return found


@pytest.fixture
def users_rootfs(user: PlainUser, rootfs_template: Path) -> Path:
    """A root directory of the user's own."""
    root = user.home / "rootfs"
    shutil.copytree(rootfs_template, root, symlinks=True)
    return user.own(root)


@pytest.fixture
def prepare_cgroup(layout: Layout) -> Iterator[Callable[[PlainUser, str], tuple[Hierarchy, Path]]]:
    """Prepares a cgroup for a user as docs/rootless.md tells root to, in the hierarchy of a controller."""
    made: list[Path] = []

    def make(user: PlainUser, controller: str) -> tuple[Hierarchy, Path]:
        hierarchy = layout.require(controller)
        place = Path(hierarchy.base, f"mydocker-{user.uid}")
        if hierarchy.version == 2:
            Path(hierarchy.base, "cgroup.subtree_control").write_text(f"+{controller}")
        place.mkdir()
        made.append(place)
        names = ["", "cgroup.procs"]
        if hierarchy.version == 2:
            names += ["cgroup.threads", "cgroup.subtree_control"]
        for name in names:
            os.chown(place / name, user.uid, user.gid)
        return hierarchy, place

    yield make
    for place in made:
        for directory, _, _ in os.walk(place, topdown=False):
            os.rmdir(directory)
