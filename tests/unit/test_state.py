"""The record of a container on disk, and what a killed runtime leaves."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import claims, plain_json, state
from mydocker.errors import StateError
from mydocker.linux.process import start_time


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "state")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def killed_runtime(root: str, name: str, **fields: object) -> None:
    """What a runtime that was killed in the middle of a run leaves in ``root``."""
    pid = os.fork()
    if pid == 0:
        try:
            claim = state.claim(name, root)
            claim.write(state.Record(id=name, runtime=os.getpid(), **fields))  # type: ignore[arg-type]
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert os.path.exists(f"{root}/{name}/state.json")


def test_a_claim_ends_without_a_trace(root: str) -> None:
    claim = state.claim(None, root)
    claim.write(state.Record(id=claim.id, runtime=os.getpid()))
    assert sorted(os.listdir(root)) == sorted([claim.id, claims.FILE])
    claim.release()
    assert not os.path.exists(root)


def test_random_ids_differ(root: str) -> None:
    made = [state.claim(None, root) for _ in range(20)]
    assert len({claim.id for claim in made}) == 20
    for claim in made:
        claim.release()


def test_a_name_belongs_to_one_container_at_a_time(root: str) -> None:
    claim = state.claim("web", root)
    with pytest.raises(StateError, match='"web" is in use'):
        state.claim("web", root)
    claim.release()
    state.claim("web", root).release()


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "0", "x" * 128])
def test_names_that_docker_takes_are_taken(name: str) -> None:
    assert state.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "_a", "a b", "a\n", "é", "x" * 129, "../x", "a\0"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(StateError, match="name"):
        state.check_name(name)


@given(st.text(max_size=30))
def test_a_name_is_one_plain_component_of_a_path(name: str) -> None:
    try:
        state.check_name(name)
    except StateError:
        return
    assert os.path.basename(name) == name
    assert name not in (".", "..")
    assert name.isprintable()


@given(st.binary(max_size=60), st.integers(0, 1 << 40))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, command: bytes, number: int) -> None:
    root = str(tmp_path_factory.mktemp("state"))
    claim = state.claim("c", root)
    record = state.Record(id="c", runtime=1, start_time=number, created=0.25, command=os.fsdecode(command))
    claim.write(record)
    with open(f"{claim.path}/state.json", encoding="utf-8", errors="surrogateescape") as f:
        assert json.load(f) == record.asdict()
    claim.release()


def test_what_was_announced_counts_until_there_is_a_whole_record(root: str) -> None:
    claim = state.claim("c", root)
    announced = state.Record(id="c", runtime=os.getpid(), command="x" * 1000, cgroup="a/c")
    claim.announce(announced)
    assert os.listdir(claim.path) == ["lock"]
    assert state.read(claim.path) == announced
    assert state.find("c", root) == announced
    record = Path(claim.path, "state.json")
    for unfinished in (b"", b'{"id":"c","runtime":1,'):
        record.write_bytes(unfinished)
        assert state.read(claim.path) == announced
    record.unlink()
    assert not claim.changed()
    claim.write(announced.replace(pid=1, start_time=2))
    assert state.read(claim.path) == announced.replace(pid=1, start_time=2)
    assert not claim.changed()
    claim.release()


def test_what_was_announced_is_gone_with_the_record(root: str) -> None:
    """Else a container would be on record again while it is removed."""
    claim = state.claim("c", root)
    claim.announce(state.Record(id="c", runtime=os.getpid()))
    claim.write(state.Record(id="c", runtime=os.getpid(), pid=1))
    Path(claim.path, "state.json").unlink()
    assert state.read(claim.path) is None
    claim.release()


def test_a_reader_finds_the_record_that_was_made_while_it_looked(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = state.claim("c", root)
    record = state.Record(id="c", runtime=os.getpid(), pid=1)
    claim.announce(record.replace(pid=0))
    real = open

    def open_(path: str, *args: object, **kwargs: object) -> object:
        if path.endswith("/lock"):
            claim.write(record)
        return real(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(state, "open", open_, raising=False)
    assert state.read(claim.path) == record
    monkeypatch.undo()
    claim.release()


@pytest.mark.parametrize("step", ["announce", "write"])
def test_a_record_that_does_not_fit_is_an_error(root: str, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The file system takes a part of it, and then no more."""
    claim = state.claim("c", root)
    record = state.Record(id="c", runtime=os.getpid())
    if step == "write":
        claim.announce(record)
    answers = [10]
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if not answers:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, bytes(data)[: answers.pop()])

    monkeypatch.setattr(state.os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        getattr(claim, step)(record)
    monkeypatch.undo()
    assert state.read(claim.path) == (record if step == "write" else None)
    assert not claim.changed(), "nobody else has done that"
    claim.release()


def test_what_was_announced_by_a_killed_runtime_is_removed(root: str, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    if os.fork() == 0:
        try:
            state.claim("gone", root).announce(state.Record(id="gone", runtime=os.getpid(), pidfile=str(pidfile)))
            (tmp_path / f"pid.{os.getpid()}.new").touch()  # is being written
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    assert list(tmp_path.glob("pid.*"))
    assert state.recover(root) == ["gone"]
    assert not list(tmp_path.glob("pid.*"))


def test_the_record_of_a_live_container_is_left_alone(root: str) -> None:
    claim = state.claim("alive", root)
    claim.write(state.Record(id="alive", runtime=os.getpid()))
    assert state.recover(root) == []
    assert os.path.exists(f"{claim.path}/state.json")
    claim.release()


def test_what_was_open_in_it_can_be_closed_later(root: str) -> None:
    claim = state.claim("short", root)
    claim.write(state.Record(id="short", runtime=os.getpid()))
    kept: list[int] = []
    claim.release(kept.append)
    assert not os.path.exists(root)
    assert [os.fstat(fd).st_nlink for fd in kept] == [0, 0]
    state.claim("short", root).release()
    for fd in kept:
        os.close(fd)


def test_what_is_unfinished_is_not_held_by_what_is_closed_later(root: str) -> None:
    claim = state.claim("stays", root)
    claim.write(state.Record(id="stays", runtime=os.getpid()))
    claim.unfinished = True
    kept: list[int] = []
    claim.release(kept.append)
    assert state.recover(root) == ["stays"]
    for fd in kept:
        os.close(fd)


def test_a_leftover_is_removed(root: str) -> None:
    killed_runtime(root, "gone")
    killed_runtime(root, "too")
    assert sorted(state.recover(root)) == ["gone", "too"]
    assert os.listdir(root) == []


def test_its_name_can_be_used_again_after_recovery(root: str) -> None:
    killed_runtime(root, "web")
    state.recover(root)
    state.claim("web", root).release()


def test_the_process_of_a_leftover_is_killed(root: str, sleeper: subprocess.Popen[bytes]) -> None:
    killed_runtime(root, "gone", pid=sleeper.pid, start_time=start_time(sleeper.pid))
    state.recover(root)
    assert sleeper.wait(10) == -signal.SIGKILL


def test_another_process_with_the_same_pid_is_not_killed(root: str, sleeper: subprocess.Popen[bytes]) -> None:
    killed_runtime(root, "gone", pid=sleeper.pid, start_time=start_time(sleeper.pid) - 1)
    assert state.recover(root) == ["gone"]
    assert sleeper.poll() is None


def test_the_pid_file_of_a_leftover_is_removed_unless_it_is_somebody_elses(root: str, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.pid", tmp_path / "theirs.pid"
    ours.write_text("4194305\n")
    theirs.write_text("4194306\n")
    killed_runtime(root, "a", pid=4194305, start_time=1, pidfile=str(ours))
    killed_runtime(root, "b", pid=4194305, start_time=1, pidfile=str(theirs))
    state.recover(root)
    assert not ours.exists()
    assert theirs.exists()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b'{"pid": 1', b"\xff\xfe"])
def test_a_record_that_was_not_finished_is_removed(root: str, content: bytes | None) -> None:
    killed_runtime(root, "gone")
    path = Path(root, "gone/state.json")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    state.recover(root)
    assert os.listdir(root) == []


def test_a_directory_without_a_lock_is_removed(root: str) -> None:
    """The runtime was killed between making the directory and the lock in it."""
    killed_runtime(root, "abc")
    Path(root, "abc/state.json").unlink()
    Path(root, "abc/lock").unlink()
    state.recover(root)
    assert os.listdir(root) == []


def test_what_is_not_ours_is_left_alone(root: str) -> None:
    killed_runtime(root, "gone")
    os.makedirs(f"{root}/other")
    Path(root, "other/file").touch()
    Path(root, "note").touch()
    state.recover(root)
    assert sorted(os.listdir(root)) == ["note", "other"]
    assert os.listdir(f"{root}/other") == ["file"]


@pytest.mark.parametrize("root", ["/dev/null/state", "/proc/1/nothing/here", "/proc/nothing"])
def test_a_place_that_cannot_hold_the_state_is_named(root: str) -> None:
    with pytest.raises(StateError, match=root):
        state.claim(None, root)


def test_a_pid_file_that_was_being_written_is_removed(root: str, tmp_path: Path) -> None:
    killed_runtime(root, "a", pid=4194305, start_time=1, pidfile=str(tmp_path / "pid"))
    runtime = json.loads(Path(root, "a/state.json").read_text())["runtime"]
    (tmp_path / f"pid.{runtime}.new").touch()
    state.recover(root)
    assert list(tmp_path.glob("pid*")) == []


def _claim_again_and_again(root: str, count: int) -> None:
    for _ in range(count):
        state.recover(root)
        state.claim(None, root).release()


def test_claims_and_recoveries_at_once_do_not_disturb_each_other(root: str) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_claim_again_and_again, args=(root, 200)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert not os.path.exists(root) or os.listdir(root) == []


def test_a_pid_file_is_whole_and_removed_only_while_it_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    state.write_pidfile(str(path), 123)
    assert path.read_text() == "123\n"
    state.remove_pidfile(str(path), 999)
    assert path.exists()
    state.remove_pidfile(str(path), 123)
    assert list(tmp_path.iterdir()) == []


def test_a_pid_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="--pidfile"):
        state.write_pidfile(str(tmp_path / "no/such/pid"), 1)
    (tmp_path / "directory").mkdir()
    with pytest.raises(StateError, match="--pidfile"):
        state.write_pidfile(str(tmp_path / "directory"), 1)
    assert os.listdir(tmp_path) == ["directory"]


def test_state_is_in_the_environments_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYDOCKER_STATE_DIR", "/x")
    assert state.default_root() == "/x"
    monkeypatch.delenv("MYDOCKER_STATE_DIR")
    assert state.default_root() == "/run/mydocker"


def test_start_time_is_the_one_of_the_process(sleeper: subprocess.Popen[bytes]) -> None:
    stat = Path(f"/proc/{sleeper.pid}/stat").read_text()
    assert start_time(sleeper.pid) == int(stat.rpartition(")")[2].split()[19])
    with pytest.raises(ProcessLookupError):
        start_time(4194305)


def test_start_time_of_a_process_whose_name_has_blanks_and_brackets(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 (x"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", "import time; time.sleep(1000)"]) as process:
        assert start_time(process.pid) >= start_time(os.getpid())
        process.kill()


def test_a_running_container_is_found_with_what_its_record_says(root: str) -> None:
    claim = state.claim("web", root)
    record = state.Record(
        id="web",
        runtime=os.getpid(),
        cgroup="mydocker/web",
        created=12.5,
        command='sh -c "a\nb"',
        limits={"memory": "100m", "ulimit": ["nofile=10", 'a"b']},
    )
    claim.write(record)
    assert state.find("web", root) == record
    claim.release()


def test_running_containers_come_in_the_order_of_their_start(root: str) -> None:
    made = [state.claim(name, root) for name in ("c", "a", "b")]
    for created, claim in enumerate(made):
        claim.write(state.Record(id=claim.id, runtime=os.getpid(), created=float(created)))
    assert [record.id for record in state.running(root)] == ["c", "a", "b"]
    for claim in made:
        claim.release()


def test_what_a_killed_runtime_has_left_does_not_run(root: str) -> None:
    killed_runtime(root, "dead")
    assert state.running(root) == []
    with pytest.raises(StateError, match='no container named "dead" is running'):
        state.find("dead", root)
    assert state.recover(root) == ["dead"], "looking for it has removed or locked it"


def test_a_container_that_is_not_there_is_named_with_those_that_are(root: str) -> None:
    assert state.running(root) == []
    claim = state.claim("web", root)
    claim.write(state.Record(id="web", runtime=os.getpid()))
    with pytest.raises(StateError, match='no container named "wbe" is running: there are web'):
        state.find("wbe", root)
    claim.release()


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.lists(st.text()))))
def test_limits_are_written_as_json(limits: dict[str, str | list[str]]) -> None:
    assert json.loads(plain_json.dumps({"limits": limits, "pid": 1, "created": 0.5})) == {
        "limits": limits,
        "pid": 1,
        "created": 0.5,
    }
