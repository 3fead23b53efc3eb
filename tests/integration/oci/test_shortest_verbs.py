"""The program that does the shortest verbs without Python (bin/shortest_verbs.c): what it does, and what it leaves.

`program` is a copy of it beside which there is no Python program but one that tells what it was called with.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocker import state
from mydocker.oci import brief
from mydocker.oci.start import STARTING

pytestmark = pytest.mark.vm_once

INSTALLED = Path(sys.executable).with_name("mydocker-oci")
PYTHON = INSTALLED.with_suffix(".py")

#: With what the Python program is stood in for.
LEFT_TO_PYTHON = 99


def ok(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def program(ours: Any, tmp_path: Path) -> Any:
    """The program alone, on the same containers as ``ours``."""
    if not PYTHON.exists():
        pytest.skip("mydocker was installed without a C compiler: apt-get install gcc libc6-dev, and install it anew")
    assert INSTALLED.read_bytes()[:4] == b"\x7fELF"
    place = tmp_path / "program"
    place.mkdir()
    shutil.copy(INSTALLED, place / "mydocker-oci")
    stand_in = place / "mydocker-oci.py"
    stand_in.write_text(f"#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\nexit {LEFT_TO_PYTHON}\n")
    stand_in.chmod(0o755)
    return type(ours)([str(place / "mydocker-oci")], ours.root)


@pytest.fixture
def python(ours: Any, program: Any) -> Any:
    """The Python program alone."""
    return type(ours)([str(PYTHON)], ours.root)


@pytest.fixture
def sleeper(bundle: Any) -> Path:
    found: Path = bundle("sleep", "1000")
    return found


def is_left_to_python(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == LEFT_TO_PYTHON


class TestWhatItDoes:
    def test_a_life(
        self, ours: Any, program: Any, sleeper: Path, cid: str, stopped: Callable[[Any, str], None]
    ) -> None:
        ok(ours.create(sleeper, cid))
        assert program.state(cid)["status"] == "created"
        ok(program("start", cid))
        pid = program.state(cid)["pid"]
        assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        assert not (ours.root / cid / "start").exists()
        ok(program("kill", cid, "KILL"))
        stopped(program, cid)
        assert program.state(cid)["pid"] == 0
        assert ours.cgroups_of(sleeper)
        ok(program("delete", cid))
        assert not ours.cgroups_of(sleeper)
        assert not (ours.root / cid).exists()

    def test_state_in_the_very_words_of_python(
        self, ours: Any, program: Any, python: Any, bundle: Any, cid: str, stopped: Callable[[Any, str], None]
    ) -> None:
        notes = {"a": '"pid": 1,\n  "status": "created"', "\u00e9\n": "\\"}
        ok(ours.create(bundle("sleep", "1000", annotations=notes), cid))

        def compare(status: str) -> None:
            said = program("state", cid)
            assert json.loads(said.stdout)["status"] == status
            assert said.stdout == python("state", cid).stdout

        compare("created")
        ok(ours("pause", cid))
        compare("paused")
        ok(ours("resume", cid))
        ok(ours("start", cid))
        compare("running")
        ok(ours("kill", cid, "9"))
        stopped(ours, cid)
        compare("stopped")

    @pytest.mark.parametrize("begun", [False, True])
    def test_delete_by_force(self, ours: Any, program: Any, sleeper: Path, cid: str, begun: bool) -> None:
        ok(ours.create(sleeper, cid))
        pid = ours.state(cid)["pid"]
        if begun:
            ok(program("start", cid))
        ok(program("delete", "--force", cid))
        assert not ours.cgroups_of(sleeper)
        assert not (ours.root / cid).exists()
        assert not state.is_alive(pid, 0) and not Path(f"/proc/{pid}/root/bin").exists()

    @pytest.mark.parametrize(
        ("word", "number"), [((), 15), (("15",), 15), (("TERM",), 15), (("SIGKILL",), 9), (("10",), 10)]
    )
    def test_signals(
        self, ours: Any, program: Any, bundle: Any, cid: str, tmp_path: Path, word: tuple[str, ...], number: int,
        eventually: Any,
    ) -> None:
        trap = 'for s in 10 15; do trap "echo $s >/out/got; exit" $s; done'
        path = bundle("sh", "-c", f"{trap}; >/out/ready; while :; do sleep 0.01; done")
        config = json.loads((path / "config.json").read_text())
        config["mounts"].append({"destination": "/out", "type": "bind", "source": str(tmp_path), "options": ["rbind"]})
        (path / "config.json").write_text(json.dumps(config))
        ok(ours.create(path, cid))
        ok(program("start", cid))
        eventually((tmp_path / "ready").exists)
        ok(program("kill", cid, *word))
        eventually(lambda: program.state(cid)["status"] == "stopped")
        got = tmp_path / "got"
        assert (got.read_text() if got.exists() else "") == (f"{number}\n" if number != 9 else "")

    def test_options_of_engines(self, ours: Any, program: Any, sleeper: Path, cid: str, tmp_path: Path) -> None:
        ok(ours.create(sleeper, cid))
        log = tmp_path / "log"
        ok(program("--log", log, "--log-format=json", "--systemd-cgroup", "start", cid))
        assert log.read_text() == ""
        ok(program(f"--log={tmp_path / 'other'}", "--log-format", "text", "delete", "-f", cid))
        assert not (ours.root / cid).exists()

    def test_the_common_root_is_what_python_takes(self, program: Any, python: Any, sleeper: Path, cid: str) -> None:
        common = os.environ["MYDOCKER_STATE_DIR"]
        ok(python("--root", common, "create", "--bundle", sleeper, cid, stdout=subprocess.DEVNULL, stderr=None))
        done = subprocess.run([*program.command, "delete", "--force", cid], check=False, capture_output=True, text=True)
        ok(done)
        assert not Path(common, cid).exists()

    def test_what_was_noted_of_the_root_goes_with_the_last_container(
        self, ours: Any, program: Any, sleeper: Path, bundle: Any, cid: str
    ) -> None:
        links = Path(os.environ["MYDOCKER_STATE_DIR"], "@roots")
        other = f"{cid}-2"
        ok(ours.create(sleeper, cid))
        ok(ours.create(bundle("sleep", "1000"), other))
        assert [os.readlink(link) for link in links.iterdir()] == [str(ours.root)]
        ok(program("delete", "--force", cid))
        assert len(list(links.iterdir())) == 1
        ok(program("delete", "--force", other))
        assert not links.exists()


class TestWhatItLeaves:
    @pytest.mark.parametrize(
        "words",
        [
            (),
            ("--help",),
            ("--version",),
            ("list",),
            ("create", "x"),
            ("--debug", "state", "{}"),
            ("--root",),
            ("state",),
            ("state", "{}", "more"),
            ("state", "--", "{}"),
            ("state", "nobody"),
            ("state", ""),
            ("state", ".."),
            ("state", "../{}"),
            ("state", "-h"),
            ("--root", "/../nowhere", "state", "{}"),
            ("kill", "{}", "0"),
            ("kill", "{}", "65"),
            ("kill", "{}", "9x"),
            ("kill", "{}", "0009"),
            ("kill", "{}", ""),
            ("kill", "{}", "HUP"),
            ("kill", "--all", "{}"),
            ("delete", "{}"),  # it runs
            ("delete", "{}", "--force"),
            ("delete", "--force"),
            ("start", "{}"),  # it runs
            ("--log", "/nowhere/log", "state", "{}"),
            ("--log-format", "xml", "state", "{}"),
            ("state", "two words", "\n", "\udcff", ""),
        ],
    )
    def test_other_lines_word_for_word(
        self, ours: Any, program: Any, sleeper: Path, cid: str, words: tuple[str, ...]
    ) -> None:
        ok(ours.create(sleeper, cid))
        ok(ours("start", cid))
        if "-h" in words:  # which is no id, also if there is a container of that name
            shutil.copytree(ours.root / cid, ours.root / "-h", ignore=shutil.ignore_patterns("start"))
        given = ["--root", str(ours.root), *(word.replace("{}", cid) for word in words)]
        done = subprocess.run([*program.command, *given], check=False, capture_output=True)
        assert done.returncode == LEFT_TO_PYTHON
        assert done.stdout == b"".join(os.fsencode(word) + b"\0" for word in given)
        assert ours.state(cid)["status"] == "running"
        shutil.rmtree(ours.root / "-h", ignore_errors=True)

    def test_hooks(self, ours: Any, program: Any, bundle: Any, cid: str) -> None:
        for kind, verb, others in (("poststart", "start", ("state",)), ("poststop", "delete", ("state", "start"))):
            path = bundle("true", hooks={kind: [{"path": "/bin/true", "args": ["true"]}]})
            ok(ours.create(path, cid))
            for other in others:
                assert program(other, cid).returncode == 0
            assert is_left_to_python(program(verb, *(["--force"] if verb == "delete" else []), cid))
            ok(ours("delete", "--force", cid))

    def test_a_container_whose_limits_were_changed(self, ours: Any, program: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        ok(program("state", cid))
        ok(ours("update", "--pids-limit", "20", cid))
        for verb in ("state", "start", "kill", "delete"):
            assert is_left_to_python(program(verb, cid)), verb
        ok(ours("start", cid))
        ok(ours("delete", "--force", cid))
        assert not ours.cgroups_of(sleeper)

    def test_a_frozen_one(self, ours: Any, program: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        ok(ours("pause", cid))
        for words in (("start", cid), ("kill", cid), ("delete", "--force", cid)):
            assert is_left_to_python(program(*words)), words
        ok(ours("delete", "--force", cid))
        assert not ours.cgroups_of(sleeper)

    def test_what_goes_on_in_its_cgroup(
        self, ours: Any, program: Any, bundle: Any, cid: str, eventually: Any
    ) -> None:
        """Without a PID namespace the end of the first process is not that of the others."""
        path = bundle("sh", "-c", "sleep 1000 & exec sleep 1000")
        config = json.loads((path / "config.json").read_text())
        config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "pid"]
        (path / "config.json").write_text(json.dumps(config))
        ok(ours.create(path, cid))
        ok(program("start", cid))
        eventually(lambda: len(pids_of(ours, path)) == 2)
        assert is_left_to_python(program("kill", cid, "KILL"))
        os.kill(program.state(cid)["pid"], signal.SIGKILL)
        eventually(lambda: program.state(cid)["status"] == "stopped")
        assert is_left_to_python(program("delete", cid))
        assert len(pids_of(ours, path)) == 1
        ok(ours("delete", cid))
        assert not ours.cgroups_of(path)

    def test_a_container_in_use(self, ours: Any, program: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        lock = state.take_lock(f"{ours.root}/{cid}", 0, wait=False)
        assert lock is not None
        assert is_left_to_python(program("delete", "--force", cid))
        os.close(lock)
        updating = state.lock_for_update(cid, str(ours.root))
        assert is_left_to_python(program("delete", "--force", cid))
        os.close(updating)
        assert program.state(cid)["status"] == "created"
        ok(program("delete", "--force", cid))

    @pytest.mark.parametrize("change", ["another release", "no end", "cut", "for all to write"])
    def test_a_brief_that_is_not_to_be_followed(
        self, ours: Any, program: Any, sleeper: Path, cid: str, change: str
    ) -> None:
        ok(ours.create(sleeper, cid))
        file = ours.root / cid / "brief"
        content = file.read_bytes()
        assert content.startswith(brief.FORMAT.encode() + b"\0") and content.endswith(b"\0end 1\0")
        if change == "another release":
            file.write_bytes(content.replace(b" brief ", b".1 brief ", 1))
        elif change == "no end":
            file.write_bytes(content.removesuffix(b"end 1\0"))
        elif change == "cut":
            file.write_bytes(content[:-1])
        else:
            (ours.root / cid).chmod(0o777)
        for words in (("state", cid), ("start", cid), ("kill", cid), ("delete", "--force", cid)):
            assert is_left_to_python(program(*words)), words

    def test_a_process_that_has_the_pid_now(self, ours: Any, program: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        pid = ours.state(cid)["pid"]
        file = ours.root / cid / "brief"
        other = subprocess.Popen(["sleep", "1000"])
        try:
            file.write_bytes(file.read_bytes().replace(b"pid %d\0" % pid, b"pid %d\0" % other.pid))
            assert program.state(cid)["status"] == "stopped"
            assert is_left_to_python(program("kill", cid, "KILL"))
            assert is_left_to_python(program("start", cid))
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()


class TestWhatItBegins:
    @pytest.mark.parametrize("instead", [None, "a text that is no program", "a directory"])
    def test_a_command_that_cannot_be_executed(
        self, ours: Any, python: Any, bundle: Any, cid: str, instead: str | None, eventually: Any
    ) -> None:
        """The first process says why when it has taken the ``start``; Python, which has the words, goes on from there.

        ``create`` has looked the command up: it is there then, and at ``start`` it is not.
        """
        said = []
        for runtime in (ours, python):
            path = bundle("/command")
            command = path / "rootfs/command"
            shutil.copy(path / "rootfs/bin/busybox", command)
            ok(ours.create(path, cid))
            command.unlink()
            if instead == "a directory":
                command.mkdir()
            elif instead is not None:
                command.write_text(instead)
                command.chmod(0o755)
            done = runtime("start", cid)
            assert done.returncode == 1
            said.append(done.stderr)
            eventually(lambda: ours.state(cid)["status"] == "stopped")
            ok(ours("delete", cid))
        assert said[0] == said[1]
        assert "/command" in said[0]

    def test_two_at_once(self, ours: Any, program: Any, python: Any, sleeper: Path, cid: str) -> None:
        for _ in range(10):
            ok(ours.create(sleeper, cid))
            calls = [
                subprocess.Popen([*one.command, "--root", ours.root, "start", cid], stderr=subprocess.DEVNULL)
                for one in (ours, program, ours, python)
            ]
            codes = [call.wait() for call in calls]
            assert codes.count(0) == 1, codes
            assert ours.state(cid)["status"] == "running"
            ok(ours("delete", "--force", cid))


@pytest.mark.parametrize("itself", [False, True])
def test_without_its_python_program(program: Any, itself: bool) -> None:
    """As where somebody has copied the one and not the other, or to the other's name."""
    command = Path(program.command[0])
    other = command.with_suffix(".py")
    other.unlink()
    if itself:
        command.rename(other)
        command = other
    done = subprocess.run([command, "list"], check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "mydocker-oci.py" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", ["x", "-1", "99999999999", "900", "2"])
def test_a_connection_that_is_none(ours: Any, sleeper: Path, cid: str, number: str) -> None:
    """The variable is the program's alone, which puts it away where it has no connection to hand over."""
    ok(ours.create(sleeper, cid))
    environment = {**os.environ, STARTING: number}
    python = type(ours)([sys.executable, "-c", "from mydocker.oci.main import main; main()"], ours.root)
    done = python("start", cid, env=environment)
    assert done.returncode == 1 and STARTING in done.stderr
    assert ours.state(cid)["status"] == "created"
    if PYTHON.exists():
        ok(ours("update", "--pids-limit", "30", cid))  # so that Python does it
    else:
        environment = dict(os.environ)
    ok(ours("start", cid, env=environment))
    assert ours.state(cid)["status"] == "running"


def pids_of(ours: Any, path: Path) -> set[str]:
    return {pid for directory in ours.cgroups_of(path) for pid in Path(directory, "cgroup.procs").read_text().split()}
