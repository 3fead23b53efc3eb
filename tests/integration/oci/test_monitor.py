"""One process watches all containers of a root for a plugin that allows it, and fails closed."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PLUGIN = '''
import os, time
from mydocker import ResourceField, Verdict, Watch, hookimpl

MYDOCKER_SHARED_WATCH = True

@hookimpl
def mydocker_fields():
    return [ResourceField(name="dog", flags=("--dog",), parse=str, metavar="FILE", help="Do what stands there.")]

@hookimpl
def mydocker_watch(config):
    def word():
        try:
            return open(config["dog"]).read()
        except FileNotFoundError:
            return ""
    def check():
        if word() == "stop":
            return Verdict.stop("bark", "bark")
        if word() == "raise":
            raise RuntimeError("ill")
        if word() == "hang":
            time.sleep(1000)
        return 0.02
    if word() == "refuse":
        raise RuntimeError("no dog today")
    if word() == "never":
        time.sleep(1000)
    ends = os.pipe()
    return Watch(check=check, fd=ends[0], close=lambda: [os.close(end) for end in ends])
'''


class Dogs:
    """Containers with a plugin that does with each what the test tells it to."""

    def __init__(self, directory: Path, ours, bundle) -> None:
        self.directory = directory
        self.module = directory / "site/dog.py"
        self.ours = ours
        self._bundle = bundle
        self._prefix = f"mydocker-test-{os.urandom(4).hex()}-"

    def install(self, code: str) -> None:
        """As long ago as packages usually are: what is as young as the process that imports it is not shared."""
        self.module.write_text(code)
        os.utime(self.module, (1e9, 1e9 + len(code)))

    def create(self, name: str):
        return self.ours.create(self._made(name, "sleep 1000"), self._prefix + name)

    def run(self, name: str, command: str):
        return self.ours.run(self._made(name, command), self._prefix + name)

    def _made(self, name: str, command: str) -> Path:
        return self._bundle("sh", "-c", command, annotations={"mydocker.dog": str(self.directory / name)})

    def start(self, *names: str) -> None:
        for name in names:
            created = self.create(name)
            assert created.returncode == 0, created.stderr
            assert self.call("start", name).returncode == 0

    def call(self, verb: str, name: str, *arguments: str):
        return self.ours(verb, self._prefix + name, *arguments)

    def tell(self, name: str, word: str) -> None:
        new = self.directory / f"{name}.new"
        new.write_text(word)
        new.rename(self.directory / name)

    def status(self, name: str) -> str:
        return str(self.ours.state(self._prefix + name)["status"])

    def await_end(self, name: str) -> None:
        until(lambda: self.status(name) == "stopped")

    def monitors(self) -> set[int]:
        """Those that were started by these containers, without threads that are yet to be asked for their name."""
        return {
            int(pid)
            for pid in os.listdir("/proc")
            if pid.isdecimal() and content(f"{pid}/comm") == b"mydocker-watch\n"
            if b"PYTHONPATH=%b\0" % os.fsencode(self.module.parent) in content(f"{pid}/environ")
        }

    def sockets(self) -> list[str]:
        return [name for name in os.listdir(self.ours.root) if name.startswith("@")]


def content(path: str) -> bytes:
    try:
        return Path("/proc", path).read_bytes()
    except OSError:
        return b""


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def dogs(tmp_path: Path, ours, bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dogs]:
    found = Dogs(tmp_path, ours, bundle)
    info = tmp_path / "site/dog-1.dist-info"
    info.mkdir(parents=True)
    found.install(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dog\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mydocker.subsystems]\ndog = dog\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield found
    ours.clean()
    until(lambda: not found.monitors())


def test_one_for_all_which_ends_with_the_last_and_leaves_nothing(dogs):
    dogs.start("a", "b", "c")
    (monitor,) = dogs.monitors()
    (name,) = dogs.sockets()
    assert stat.S_IMODE((dogs.ours.root / name).stat().st_mode) == 0o600
    dogs.tell("b", "stop")
    dogs.await_end("b")
    assert (dogs.status("a"), dogs.status("c")) == ("running", "running")
    dogs.tell("a", "stop")
    dogs.await_end("a")
    assert dogs.monitors() == {monitor}
    dogs.tell("c", "stop")
    until(lambda: not dogs.monitors())
    assert dogs.sockets() == []


def test_what_a_watch_has_open_is_closed_when_its_container_ends(dogs):
    dogs.start("stays")
    (monitor,) = dogs.monitors()
    threads, descriptors = (lambda what=what: len(os.listdir(f"/proc/{monitor}/{what}")) for what in ("task", "fd"))
    before = threads(), descriptors()
    for name in ("a", "b"):
        dogs.start(name)
        assert dogs.monitors() == {monitor}
        dogs.call("kill", name, "KILL")
        dogs.await_end(name)
    until(lambda: (threads(), descriptors()) == before)


@pytest.mark.parametrize("ill", ["raise", "hang"])
def test_a_plugin_that_fails_over_one_container_disturbs_no_other(dogs, monkeypatch, ill):
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "2")
    dogs.start("ill", "well", "other")
    assert len(dogs.monitors()) == 1
    dogs.tell("ill", ill)
    dogs.await_end("ill")
    assert dogs.status("well") == "running"
    dogs.tell("well", "stop")
    dogs.await_end("well")
    assert dogs.status("other") == "running"


@pytest.mark.parametrize(("word", "words"), [("refuse", "no dog today"), ("never", "did not return in 2 seconds")])
def test_create_fails_if_the_plugin_does_not_say_what_to_watch(dogs, monkeypatch, word, words):
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "2")
    dogs.start("well")
    dogs.tell("ill", word)
    created = dogs.create("ill")
    assert created.returncode == 1
    assert words in created.stderr
    assert "does not exist" in dogs.call("state", "ill").stderr
    dogs.tell("well", "stop")
    dogs.await_end("well")
    until(lambda: not dogs.monitors())


def test_in_the_foreground(dogs):
    done = dogs.run("a", "exit 3")
    assert (done.returncode, done.stderr) == (3, "")
    until(lambda: not dogs.monitors())


def test_another_environment_has_another_monitor(dogs, monkeypatch):
    dogs.start("a")
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "5")
    dogs.start("b")
    monkeypatch.setenv("PWD", "/somewhere/else")  # which says nothing of a plugin's surroundings
    dogs.start("c")
    assert len(dogs.monitors()) == 2


def test_changed_code_has_another_monitor(dogs):
    dogs.start("old")
    dogs.install(PLUGIN.replace("bark", "meow").replace('== "stop"', '== "go away"'))
    dogs.start("new", "newer")
    assert len(dogs.monitors()) == 2
    dogs.tell("newer", "go away")
    dogs.await_end("newer")
    dogs.tell("old", "stop")
    dogs.await_end("old")
    dogs.tell("new", "go away")
    dogs.await_end("new")


def test_the_next_container_takes_those_over_whose_monitor_was_killed(dogs):
    dogs.start("a", "b")
    (monitor,) = dogs.monitors()
    os.kill(monitor, signal.SIGKILL)
    until(lambda: not dogs.monitors())
    dogs.tell("b", "refuse")  # what cannot be watched any more is killed
    dogs.start("c")
    assert len(dogs.monitors()) == 1
    dogs.await_end("b")
    assert dogs.status("a") == "running"
    dogs.tell("a", "stop")
    dogs.await_end("a")


def test_no_verb_lets_a_container_run_that_nobody_watches(dogs):
    dogs.start("running")
    assert dogs.create("created").returncode == 0
    (monitor,) = dogs.monitors()
    os.kill(monitor, signal.SIGKILL)
    until(lambda: not dogs.monitors())
    assert dogs.call("exec", "running", "true").returncode == 0
    (second,) = dogs.monitors()
    dogs.tell("running", "stop")
    dogs.await_end("running")
    os.kill(second, signal.SIGKILL)
    until(lambda: not dogs.monitors())
    dogs.tell("created", "refuse")
    started = dogs.call("start", "created")
    assert started.returncode == 1
    assert "the process that watched the container was killed, and so is the container now" in started.stderr
    dogs.await_end("created")


def test_signals_that_end_a_session_do_not_end_the_monitor(dogs):
    dogs.start("a")
    (monitor,) = dogs.monitors()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(monitor, number)
    dogs.tell("a", "stop")
    dogs.await_end("a")


def test_containers_that_come_and_go_at_once_are_all_watched(dogs):
    """A monitor that is about to end, and one who looks for it."""
    dogs.start("first")
    for number in range(6):
        dogs.tell("first" if not number else f"c{number - 1}", "stop")
        dogs.start(f"c{number}")
    dogs.tell("c5", "stop")
    for number in range(6):
        dogs.await_end(f"c{number}")
    until(lambda: not dogs.monitors())
    assert dogs.sockets() == []
