"""Runs from Python that are over in a moment: what is on disk of them, what a kill leaves, what ends later."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker import api, claims, handoff, runner, state
from mydocker.cgroups.layout import Layout
from mydocker.linux import batch, process
from mydocker.spawning import client, spare

Eventually = Callable[..., object]

#: Longer than any test takes.
NEVER = 1000.0

pytestmark = pytest.mark.skipif(not batch.code_page(), reason="a spare child takes machine code")


@pytest.fixture
def alike(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keywords of runs, of which the next one takes a spare child."""
    monkeypatch.setattr(client, "_KEPT", 60.0)
    keywords = {"rootfs": rootfs, "memory": "50m"}
    for _ in range(2):
        mydocker.run(["true"], **keywords)
    return keywords


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories of containers that are made from now on."""
    found: list[str] = []
    real = state._make_directory

    def make(root: str, wanted: str) -> int:
        found.append(wanted)
        return real(root, wanted)

    monkeypatch.setattr(state, "_make_directory", make)
    return found


def spare_pid() -> int:
    """The PID of the spare child, once the helper has answered; who takes it has less to read then."""
    helper = api.means().helper
    (spare,) = (kind.spare for kind in helper._kinds if kind.spare is not None)
    connection = helper._connection
    assert connection is not None
    if not spare.child.pid:
        helper._take_answer(connection, spare.child)
    return spare.child.pid


def cgroups_of(name: str) -> list[str]:
    found = (f"{hierarchy.base}/mydocker/{name}" for hierarchy in Layout.read().hierarchies)
    return [directory for directory in found if os.path.isdir(directory)]


def at_handoff(monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> None:
    real = handoff.send

    def send(*arguments: Any) -> None:
        look()
        real(*arguments)

    monkeypatch.setattr(handoff, "send", send)


class TestWhatIsOnDisk:
    def test_nothing_but_a_line_where_there_are_cgroups_only(
        self, alike: dict[str, Any], made: list[str], state_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "_LONG", NEVER)
        seen: list[str] = []
        at_handoff(monkeypatch, lambda: seen.extend(os.listdir(state_dir)))
        result = mydocker.run(["true"], **alike)
        assert seen == [claims.FILE]
        assert made == []
        assert not state_dir.exists()
        assert result.usage.plugins["memory"]["limit_bytes"] == 50 << 20

    @pytest.mark.parametrize(
        "more",
        [
            {"name": "chosen"},
            {"cgroup_parent": "mydocker/short-runs"},
            {"memory_reservation": "20m"},
            {"accounting": True},
            {"memory": None},
            {"memory": None, "ulimit": ["nofile=100"]},
        ],
        ids=str,
    )
    def test_a_directory_where_a_kill_would_leave_what_no_name_tells(
        self, alike: dict[str, Any], made: list[str], more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keywords = {**alike, **more}
        for _ in range(2):
            mydocker.run(["true"], **keywords)
        made.clear()
        monkeypatch.setattr(runner, "_LONG", NEVER)
        announced: list[state.Record] = []
        real = state.Claim.announce

        def announce(self: state.Claim, record: state.Record) -> None:
            announced.append(record)
            real(self, record)

        monkeypatch.setattr(state.Claim, "announce", announce)
        mydocker.run(["true"], **keywords)
        assert len(made) == 1
        assert [record.id for record in announced] == made

    def test_a_spare_child_is_named_from_the_start_and_seen_later(
        self, rootfs: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the name alone it would not be found: it has no cgroup."""
        monkeypatch.setattr(client, "_KEPT", 60.0)
        for _ in range(2):
            mydocker.run(["true"], rootfs=rootfs)
        monkeypatch.setattr(runner, "_LONG", NEVER)
        taken: list[int] = []
        real = client.Helper.take_spare

        def take_spare(self: client.Helper, *arguments: Any) -> bool:
            found = real(self, *arguments)
            taken.append(arguments[2].pid)
            return found

        monkeypatch.setattr(client.Helper, "take_spare", take_spare)
        seen: list[Any] = []

        def look() -> None:
            (directory,) = (path for path in state_dir.iterdir() if path.name != claims.FILE)
            assert [path.name for path in directory.iterdir()] == ["lock"]
            record = state._read(str(directory))
            assert record is not None
            seen.extend((record["pid"], record["start_time"] == process.start_time(taken[0])))
            seen.append(state.find(directory.name, str(state_dir)).pid)

        at_handoff(monkeypatch, look)
        mydocker.run(["true"], rootfs=rootfs)
        assert seen == [taken[0], True, 0]

    @pytest.mark.parametrize("limits", [{}, {"memory": "50m"}], ids=str)
    def test_who_takes_long_is_on_record(
        self, alike: dict[str, Any], rootfs: Path, state_dir: Path, eventually: Eventually, limits: dict[str, Any]
    ) -> None:
        for _ in range(2):
            mydocker.run(["true"], rootfs=rootfs, **limits)
        reader, writer = os.pipe()
        results: list[mydocker.Result] = []
        command = ["sh", "-c", "read line; exit $line"]
        thread = threading.Thread(
            target=lambda: results.append(mydocker.run(command, rootfs=rootfs, stdin=reader, **limits))
        )
        thread.start()
        try:
            records: list[state.Record] = []
            eventually(lambda: records.extend(state.running(str(state_dir))) or (records and records[-1].pid))
            record = records[-1]
            assert record.command == "sh -c read line; exit $line"
            assert process.start_time(record.pid) == record.start_time
            assert dict(record.limits) == limits
            assert bool(record.writers) == bool(limits)
            mydocker.pause(record.id)
            mydocker.unpause(record.id)
        finally:
            os.write(writer, b"7\n")
            thread.join()
            os.close(reader)
            os.close(writer)
        assert results[0].exit_code == 7

    def test_a_record_that_cannot_be_kept_does_not_end_the_command(
        self, alike: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "_LONG", 0.0)

        def write(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(state.Claim, "write", write)
        result = mydocker.run(["sh", "-c", "sleep 0.05; exit 3"], **alike)
        assert result.exit_code == 3


class TestKilled:
    PROGRAM = """
        import os, signal, sys
        import mydocker
        from mydocker import handoff, runner
        runner._LONG = 1000.0
        keywords = dict(rootfs=sys.argv[1], memory="50m", pids_limit=20)
        for _ in range(2):
            mydocker.run(["true"], **keywords)
        real = handoff.send
        def send(*arguments):
            print(open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read(), flush=True)
            if sys.argv[2] == "after":
                real(*arguments)
                sys.stdin.read(1)
            os.kill(os.getpid(), signal.SIGKILL)
        handoff.send = send
        mydocker.run(["sh", "-c", "echo runs; exec sleep 1000"], stdout=1, **keywords)
    """

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_what_has_a_name_only_is_found_by_it(self, rootfs: Path, state_dir: Path, moment: str) -> None:
        """The one that was killed had no time to make a directory."""
        arguments = [sys.executable, "-c", textwrap.dedent(self.PROGRAM), str(rootfs), moment]
        pipe = subprocess.PIPE
        with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            assert program.stdout.readline().split()
            if moment == "after":
                assert program.stdout.readline() == "runs\n"
            (name,) = _names(state_dir)
            assert len(cgroups_of(name)) > 0
            program.stdin.close()
        assert os.listdir(state_dir) == [claims.FILE]
        assert len(cgroups_of(name)) > 0, "nobody has removed them yet"
        mydocker.run(["true"])
        assert cgroups_of(name) == []
        assert not state_dir.exists()

    def test_a_chosen_name_that_has_no_directory_stands_for_nothing(self, state_dir: Path, layout: Layout) -> None:
        """The cgroup of that name may be of a container whose state is elsewhere."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MYDOCKER_STATE_DIR", str(state_dir) + "-of-another")
            name = f"{os.getpid():012x}"
            command = [sys.executable, "-m", "mydocker", "run", "-i", "--name", name, "-m", "50m", "cat"]
            with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
                assert other.stdin is not None
                try:
                    for _ in range(1000):
                        if cgroups_of(name):
                            break
                        time.sleep(0.01)
                    patch.setenv("MYDOCKER_STATE_DIR", str(state_dir))
                    _left_by_a_killed_process(state_dir, name)
                    mydocker.run(["true"])
                    assert cgroups_of(name) != []
                finally:
                    other.stdin.close()
                assert other.wait() == 0

    def test_a_process_that_has_lost_its_lock_is_left_alone(
        self, alike: dict[str, Any], state_dir: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
    ) -> None:
        """Whoever closes a file loses all locks that its process has there (fcntl(2))."""
        monkeypatch.setattr(runner, "_LONG", NEVER)

        def look() -> None:
            (state_dir / claims.FILE).read_bytes()
            assert run("true").returncode == 0
            assert len(_names(state_dir)) == 1

        at_handoff(monkeypatch, look)
        result = mydocker.run(["true"], **alike)
        assert (result.exit_code, result.reason) == (0, "exited")
        assert not state_dir.exists()

    @pytest.mark.parametrize("files", [[], ["lock"]], ids=str)
    def test_a_directory_without_a_record_goes_with_its_cgroups(
        self, state_dir: Path, layout: Layout, files: list[str]
    ) -> None:
        """It was about to be made when the command took long already."""
        name = "0123456789ab"
        _left_by_a_killed_process(state_dir, name, b"%d 1" % os.getpid())
        (state_dir / name).mkdir()
        for file in files:
            (state_dir / name / file).touch()
        hierarchy = layout.require("pids")
        directory = Path(hierarchy.base, "mydocker", name)
        directory.mkdir(parents=True)
        mydocker.run(["true"])
        assert not directory.exists()
        assert not state_dir.exists()


class TestWhatEndsLater:
    def test_no_mount_namespace_is_held(self, alike: dict[str, Any], eventually: Eventually) -> None:
        """Its end is put off until the next child is asked for, and no longer."""
        held: list[str] = []
        real = client.Order.hold_mounts

        def hold_mounts(self: client.Order, pid: int) -> None:
            real(self, pid)
            held.append(os.readlink(f"/proc/{pid}/ns/mnt"))
            assert held[-1] in _links(os.getpid())
            fork = os.fork()
            if fork == 0:
                os._exit(held[-1] in _links(os.getpid()))
            assert os.waitpid(fork, 0)[1] == 0, "a fork of the program would hold it as long as it lives"

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client.Order, "hold_mounts", hold_mounts)
            mydocker.run(["true"], **alike)
            with pytest.raises(mydocker.CommandNotFound):
                mydocker.run(["no-such-command"], **alike)
            mydocker.run(["sleep", "0.02"], **alike)
        assert len(held) == 3
        assert not set(held) & _links(os.getpid())
        helper = api.means().helper.pid
        eventually(lambda: not set(held) & _links(helper))
        assert not set(held) & _links(spare_pid())

    def test_the_next_child_is_asked_for_while_one_is_frozen(
        self, alike: dict[str, Any], name: str, eventually: Eventually
    ) -> None:
        """Before it has its command: who runs others of the kind does not wait for that."""
        results: list[mydocker.Result] = []
        thread = threading.Thread(
            target=lambda: results.append(mydocker.run(["true"], name=name, frozen=True, **alike))
        )
        kinds = api.means().helper._kinds
        taken = [kind.spare for kind in kinds]
        thread.start()
        try:
            eventually(lambda: any(kind.spare is not None and kind.spare not in taken for kind in kinds))
            assert results == []
        finally:
            eventually(lambda: _unpaused(name))
            thread.join()
        assert results[0].exit_code == 0

    def test_a_spare_child_of_no_use_is_gone_when_the_run_has_ended(
        self, alike: dict[str, Any], rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed: list[int] = []
        real = spare.Spare.kill

        def kill(self: spare.Spare) -> None:
            killed.append(self.child.pid)
            api.means().helper._reap()  # another thread does at this moment
            real(self)

        monkeypatch.setattr(spare.Spare, "kill", kill)
        shutil.copytree(rootfs.rename(tmp_path / "another"), rootfs, symlinks=True)
        mydocker.run(["true"], **alike)
        (pid,) = killed
        assert not os.path.exists(f"/proc/{pid}"), "it is there as long as nobody has waited for it"


def _unpaused(name: str) -> bool:
    try:
        mydocker.unpause(name)
    except mydocker.StateError:
        return False  # it is not frozen yet
    return True


def _names(state_dir: Path) -> list[str]:
    """Of the claims in the table."""
    content = (state_dir / claims.FILE).read_bytes()
    lines = [content[at : at + 128] for at in range(128, len(content), 128)]
    return [line.partition(b"\0")[0].decode() for line in lines if line[0]]


def _left_by_a_killed_process(state_dir: Path, name: str, note: bytes = b"") -> None:
    state_dir.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            claims.enter(str(state_dir), name, note)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def _links(pid: int) -> set[str]:
    """What the process has open."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    return found
