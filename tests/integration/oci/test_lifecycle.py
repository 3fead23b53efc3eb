"""The life of a container of an engine: its states, who may do what when, and what is left when a verb is killed."""

from __future__ import annotations

import array
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocker import state

pytestmark = pytest.mark.vm_once

KILLS = 25


def ok(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    for word in words:
        assert word in done.stderr.replace('\\"', '"')


@pytest.fixture
def sleeper(bundle: Any) -> Path:
    """A bundle whose command waits for TERM."""
    found: Path = bundle("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
    return found


class TestStates:
    def test_of_one_life(self, ours: Any, sleeper: Path, cid: str, stopped: Callable[[Any, str], None]) -> None:
        ok(ours.create(sleeper, cid))
        created = ours.state(cid)
        assert created["status"] == "created"
        assert (created["id"], created["bundle"]) == (cid, str(sleeper))
        assert created["rootfs"] == str(sleeper / "rootfs")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", created["created"])
        assert created["owner"] == "root"
        pid = created["pid"]
        assert Path(f"/proc/{pid}/cgroup").read_text() != Path("/proc/self/cgroup").read_text()
        ok(ours("start", cid))
        assert ours.state(cid) == {**created, "status": "running"}
        ok(ours("pause", cid))
        assert ours.state(cid)["status"] == "paused"
        ok(ours("resume", cid))
        ok(ours("kill", cid, "KILL"))
        stopped(ours, cid)
        assert ours.state(cid) == {**created, "status": "stopped", "pid": 0}
        assert ours.cgroups_of(sleeper)
        ok(ours("delete", cid))
        refused(ours("state", cid), "does not exist")
        assert not ours.cgroups_of(sleeper)
        assert not (ours.root / cid).exists()

    def test_as_with_runc(
        self, ours: Any, runc: Any, bundle: Any, cid: str, stopped: Callable[[Any, str], None]
    ) -> None:
        path = bundle("sleep", "1000", annotations={"one": "1"})
        seen = []
        order: list[list[str]] = []
        for runtime in (ours, runc):
            ok(runtime.create(path, cid))
            states = [runtime.state(cid)]
            ok(runtime("start", cid))
            states.append(runtime.state(cid))
            ok(runtime("kill", cid, "SIGKILL"))
            stopped(runtime, cid)
            states.append(runtime.state(cid))
            ok(runtime("delete", cid))
            for each in states:
                order.append(list(each))
                assert each.pop("ociVersion")
                assert each.pop("created")
                assert each.pop("pid") >= 0
                each.pop("owner")  # runc leaves it empty
            seen.append(states)
        assert seen[0] == seen[1]
        assert len({tuple(keys) for keys in order}) == 1, "in the same order, which some match as a text"

    def test_stopped_is_also_what_nobody_reaps(self, ours: Any, bundle: Any, cid: str) -> None:
        """A zombie: its parent, as an engine's shim may, takes its time."""
        path = bundle("true")
        reaper = subprocess.Popen(
            ["python3", "-c", PARENT, *map(str, ours.command), "--root", ours.root, "create", "-b", path, cid],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reaper.stdout is not None
        try:
            assert reaper.stdout.readline() == "created\n"
            ok(ours("start", cid))
            pid = json.loads((ours.root / cid / "state.json").read_text())["pid"]
            until(lambda: "State:\tZ" in Path(f"/proc/{pid}/status").read_text())
            assert ours.state(cid)["status"] == "stopped"
            refused(ours("kill", cid), "container not running")
            ok(ours("delete", cid))
        finally:
            reaper.kill()
            reaper.wait()
            reaper.stdout.close()

    def test_a_created_container_ends_by_a_signal(
        self, ours: Any, sleeper: Path, cid: str, stopped: Callable[[Any, str], None]
    ) -> None:
        ok(ours.create(sleeper, cid))
        ok(ours("kill", cid, "TERM"))
        stopped(ours, cid)
        refused(ours("start", cid), "cannot start a container that has stopped")
        ok(ours("delete", cid))

    def test_a_bundle_that_changes_after_create_has_no_effect(self, ours: Any, bundle: Any, cid: str) -> None:
        path = bundle("sh", "-c", "echo first > /said")
        ok(ours.create(path, cid))
        config = json.loads((path / "config.json").read_text())
        config["process"]["args"] = ["sh", "-c", "echo second > /said"]
        config["hooks"] = {"poststart": [{"path": "/no/such/hook"}]}
        (path / "config.json").write_text(json.dumps(config))
        ok(ours("start", cid))
        until(lambda: (path / "rootfs/said").exists() and (path / "rootfs/said").read_text() == "first\n")


PARENT = """
import ctypes, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
subprocess.run(sys.argv[1:], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print("created", flush=True)
time.sleep(100)
"""


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestWhatIsRefused:
    @pytest.mark.parametrize("verb", ["state", "start", "kill", "delete", "pause", "resume", "ps", "update"])
    def test_verbs_of_a_container_that_is_not_there(self, ours: Any, cid: str, verb: str) -> None:
        refused(ours(verb, cid), "does not exist")

    def test_but_delete_force(self, ours: Any, cid: str) -> None:
        ok(ours("delete", "--force", cid))

    def test_an_id_that_is_in_use(self, ours: Any, sleeper: Path, bundle: Any, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        refused(ours.create(bundle("true"), cid), "container with given ID already exists")
        assert ours.state(cid)["bundle"] == str(sleeper)

    @pytest.mark.parametrize("name", ["a/b", "..", ".", "", "a b", "ä", "@roots", "a\nb"])
    def test_what_is_no_id(self, ours: Any, bundle: Any, name: str) -> None:
        refused(ours.create(bundle("true"), name))
        assert not ours.root.exists() or os.listdir(ours.root) == []

    def test_what_is_no_id_is_named(self, ours: Any, bundle: Any) -> None:
        refused(ours.create(bundle("true"), "a/b"), "'a/b': invalid character `/` in the ID: use letters")

    @pytest.mark.parametrize("name", ["-x", "_a", "a+b", "A.b-c_d", "." * 3, "x" * 200])
    def test_what_is_one(self, ours: Any, bundle: Any, name: str) -> None:
        ok(ours.create(bundle("true"), name, "--"))
        ok(ours("delete", "--", name))

    def test_start_twice(self, ours: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        ok(ours("start", cid))
        refused(ours("start", cid), "cannot start an already running container")
        assert ours.state(cid)["status"] == "running"

    def test_delete_of_one_that_runs(self, ours: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        ok(ours("start", cid))
        refused(ours("delete", cid), f"cannot delete container {cid} that is not stopped: running")
        ok(ours("pause", cid))
        refused(ours("delete", cid), "that is not stopped: paused")
        ok(ours("delete", "--force", cid))
        assert not ours.cgroups_of(sleeper)

    def test_delete_of_one_that_somebody_has_frozen_elsewhere(self, ours: Any, sleeper: Path, cid: str) -> None:
        """In a v1 cgroup that is not the container's, where what is killed ends only when it is thawed."""
        ok(ours.create(sleeper, cid))
        own = next((path for path in ours.cgroups_of(sleeper) if os.path.exists(f"{path}/freezer.state")), "")
        if not own:
            pytest.skip("there is no v1 freezer here")
        elsewhere = Path(f"{own}-elsewhere")
        elsewhere.mkdir()
        try:
            (elsewhere / "cgroup.procs").write_text(str(ours.state(cid)["pid"]))
            (elsewhere / "freezer.state").write_text("FROZEN")
            ok(ours("delete", "--force", cid))
            refused(ours("state", cid), "does not exist")
            assert (elsewhere / "cgroup.procs").read_text() == ""
        finally:
            (elsewhere / "freezer.state").write_text("THAWED")
            until(lambda: not (elsewhere / "cgroup.procs").read_text())
            elsewhere.rmdir()
        assert not ours.cgroups_of(sleeper)

    def test_delete_of_all_that_match(self, ours: Any, sleeper: Path, bundle: Any, cid: str) -> None:
        names = [f"{cid}-a1", f"{cid}-a2", f"{cid}-b"]
        for name in names:
            ok(ours.create(bundle("true", linux__cgroupsPath=f"/{cid}/{name}"), name))
        ok(ours("delete", "--force", "--regex", f"^{cid}-a[0-9]$"))
        assert ours("list", "-q").stdout.split() == names[2:]
        ok(ours("delete", "--regex", "of no container"))
        refused(ours("delete", "--regex", "["), "'[' is not a regular expression")
        ok(ours("start", names[2]))
        ok(ours("delete", "--force", "--regex", "."))
        assert ours("list", "-q").stdout == ""

    def test_delete_of_all_that_match_keeps_what_runs(self, ours: Any, sleeper: Path, bundle: Any, cid: str) -> None:
        other = bundle("true", linux__cgroupsPath=f"/{cid}/b")
        for path, name in ((sleeper, f"{cid}-a"), (other, f"{cid}-b")):
            ok(ours.create(path, name))
        ok(ours("start", f"{cid}-a"))
        refused(ours("delete", "--regex", cid), f"{cid}-a: cannot delete container {cid}-a that is not stopped")
        assert ours("list", "-q").stdout.split() == [f"{cid}-a"]

    def test_a_terminal_that_nobody_would_hold(self, ours: Any, bundle: Any, cid: str) -> None:
        refused(ours.create(bundle("true", process__terminal=True), cid), "console socket")
        refused(ours.create(bundle("true"), cid, "--console-socket", "/no/such"), "console socket")

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            (["/x"], 'exec: "/x": stat /x: no such file or directory'),
            (["x"], 'exec: "x": executable file not found in $PATH'),
            (["/etc/plain"], 'exec: "/etc/plain": permission denied'),
        ],
    )
    def test_a_command_that_is_not_there_fails_create(
        self, ours: Any, bundle: Any, cid: str, command: list[str], words: str
    ) -> None:
        path = bundle(*command)
        (path / "rootfs/etc").mkdir(exist_ok=True)
        (path / "rootfs/etc/plain").write_text("x")
        refused(ours.create(path, cid), words)
        assert not (ours.root / cid).exists()
        assert not ours.cgroups_of(path)

    def test_the_words_of_a_failure_under_a_parent_that_ignores_the_end_of_children(
        self, ours: Any, bundle: Any, cid: str
    ) -> None:
        """A kernel that reaps for it would forget the child, and with that what was made for it."""
        mount = {"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["mode=none"]}
        path = bundle("true")
        config = json.loads((path / "config.json").read_text())
        config["mounts"].append(mount)
        (path / "config.json").write_text(json.dumps(config))
        ignore = lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # noqa: E731
        refused(ours("create", "--bundle", path, cid, preexec_fn=ignore), 'error mounting "tmpfs" to rootfs at "/x"')
        assert ours.cgroups_of(path) == []

    def test_a_config_without_a_process(self, ours: Any, bundle: Any, cid: str) -> None:
        ok(ours.create(bundle("true", process=None), cid))
        refused(ours("start", cid), "process")
        assert ours.state(cid)["status"] == "created"
        ok(ours("delete", cid))


class TestErrors:
    def test_json_log_has_one_object(self, ours: Any, bundle: Any, cid: str, tmp_path: Path) -> None:
        """Podman takes the whole file for one object."""
        log = tmp_path / "log.json"
        path = bundle("/x", process__capabilities={"bounding": ["CAP_NO_SUCH"]})
        done = ours("--log", log, "--log-format", "json", "create", "-b", path, cid)
        refused(done, "no such file or directory")
        found = json.loads(log.read_text())
        assert found["level"] == "error"
        assert 'exec: "/x": stat /x: no such file or directory' in found["msg"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", found["time"])

    def test_json_log_of_a_line_that_cannot_be_read(self, ours: Any, tmp_path: Path) -> None:
        log = tmp_path / "log.json"
        refused(ours("--log-format=json", f"--log={log}", "create", "--no-such", "x"))
        assert json.loads(log.read_text())["level"] == "error"

    def test_text(self, ours: Any, cid: str, tmp_path: Path) -> None:
        log = tmp_path / "log"
        refused(ours("--log", log, "state", cid), "does not exist")
        assert re.fullmatch(rf'time="[^"]+" level=error msg="container \\"{cid}\\" does not exist"\n', log.read_text())
        assert "level=error" in ours("state", cid).stderr

    def test_debug_says_more(self, ours: Any, bundle: Any, cid: str, tmp_path: Path) -> None:
        log = tmp_path / "log.json"
        ours("--debug", "--log", log, "--log-format", "json", "run", "-b", bundle("true"), cid)
        for line in log.read_text().splitlines():
            json.loads(line)

    def test_version(self, ours: Any) -> None:
        lines = ours("--version").stdout.splitlines()
        assert lines[0].startswith("mydocker-oci version ")
        assert "spec: 1.2.0" in lines
        assert ours("-v").stdout.splitlines() == lines

    @pytest.mark.parametrize(
        "words", [["no-such-verb"], ["start"], ["start", "a", "b"], ["--root"], ["--rootless=x", "list"]]
    )
    def test_what_is_no_command_line(self, ours: Any, words: list[str]) -> None:
        refused(ours(*words), "level=error")

    @pytest.mark.parametrize("verb", ["create", "run", "start", "state", "kill", "delete", "list", "exec", "update"])
    def test_help(self, ours: Any, verb: str) -> None:
        assert ok(ours(verb, "--help")).stdout.startswith(f"Usage: mydocker-oci {verb}")


class TestSignals:
    @pytest.mark.parametrize("text", ["15", "TERM", "SIGTERM", "sigterm", None])
    def test_by_number_and_name(
        self, ours: Any, sleeper: Path, cid: str, text: str | None, stopped: Callable[[Any, str], None]
    ) -> None:
        ok(ours.create(sleeper, cid))
        ok(ours("start", cid))
        until(lambda: catches(ours.state(cid)["pid"], signal.SIGTERM))
        ok(ours("kill", cid, *([text] if text else [])))
        stopped(ours, cid)
        refused(ours("kill", cid, "KILL"), "container not running")

    @pytest.mark.parametrize("text", ["65", "NOSUCH", "SIG", "-9", "RTMIN+99", ""])
    def test_what_is_none(self, ours: Any, sleeper: Path, cid: str, text: str) -> None:
        ok(ours.create(sleeper, cid))
        refused(ours("kill", cid, text))
        assert ours.state(cid)["status"] == "created"

    def test_all(self, ours: Any, bundle: Any, cid: str, stopped: Callable[[Any, str], None]) -> None:
        path = bundle("sh", "-c", "sleep 1000 & sleep 1000 & wait; sleep 1000")
        ok(ours.create(path, cid))
        ok(ours("start", cid))
        procs = Path(ours.cgroups_of(path)[0], "cgroup.procs")
        until(lambda: len(procs.read_text().split()) == 3)
        first, *others = sorted(map(int, procs.read_text().split()))
        ok(ours("kill", "--all", cid, "TERM"))
        until(lambda: not any(map(alive, others)))
        assert alive(first), "the kernel drops what PID 1 has no handler for"
        ok(ours("kill", "--all", cid, "KILL"))
        stopped(ours, cid)
        ok(ours("kill", "--all", cid, "KILL"))

    def test_kill_of_one_that_is_paused(
        self, ours: Any, sleeper: Path, cid: str, stopped: Callable[[Any, str], None]
    ) -> None:
        ok(ours.create(sleeper, cid))
        ok(ours("start", cid))
        ok(ours("pause", cid))
        ok(ours("kill", cid, "KILL"))
        stopped(ours, cid)

    def test_kill_without_a_pid_namespace_kills_all(
        self, ours: Any, bundle: Any, cid: str, stopped: Callable[[Any, str], None]
    ) -> None:
        kinds = [{"type": kind} for kind in ("network", "ipc", "uts", "mount")]
        path = bundle("sh", "-c", "sleep 1000 & sleep 1000", linux__namespaces=kinds)
        ok(ours.create(path, cid))
        ok(ours("start", cid))
        procs = Path(ours.cgroups_of(path)[0], "cgroup.procs")
        until(lambda: len(procs.read_text().split()) == 2)
        ok(ours("kill", cid, "KILL"))
        stopped(ours, cid)
        until(lambda: not procs.read_text().split())


    def test_kill_of_what_the_first_process_has_left(
        self, ours: Any, bundle: Any, cid: str, stopped: Callable[[Any, str], None]
    ) -> None:
        """Without a PID namespace the others live on."""
        kinds = [{"type": kind} for kind in ("network", "ipc", "uts", "mount")]
        path = bundle("sh", "-c", "sleep 1000 & sleep 1000", linux__namespaces=kinds)
        ok(ours.create(path, cid))
        ok(ours("start", cid))
        procs = Path(ours.cgroups_of(path)[0], "cgroup.procs")
        until(lambda: len(procs.read_text().split()) == 2)
        os.kill(ours.state(cid)["pid"], signal.SIGKILL)
        stopped(ours, cid)
        assert procs.read_text().split()
        refused(ours("kill", cid, "TERM"), "container not running")
        ok(ours("kill", cid, "KILL"))
        until(lambda: not procs.read_text().split())
        refused(ours("kill", cid, "KILL"), "container not running")


def only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until(lambda: bool(children.read_text().split()))
    return int(children.read_text().split()[0])


def waits_on_a_socket(pid: int) -> bool:
    asleep = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "S"
    return asleep and any(os.readlink(link).startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir())


def catches(pid: int, number: int) -> bool:
    line = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


class TestRun:
    @pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)])
    def test_exit_status_is_the_commands(self, ours: Any, bundle: Any, cid: str, script: str, code: int) -> None:
        # Not PID 1 itself, which no signal of its own ends.
        done = ours.run(bundle("sh", "-c", f"sh -c '{script}'; exit $?"), cid)
        assert done.returncode == code, done.stderr
        assert not (ours.root / cid).exists()

    def test_streams(self, ours: Any, bundle: Any, cid: str) -> None:
        done = ours.run(bundle("sh", "-c", "cat; echo to stderr >&2"), cid, input="through\n")
        assert (done.stdout, done.stderr, done.returncode) == ("through\n", "to stderr\n", 0)

    def test_keep(self, ours: Any, bundle: Any, cid: str) -> None:
        assert ours.run(bundle("sh", "-c", "exit 3"), cid, "--keep").returncode == 3
        assert ours.state(cid)["status"] == "stopped"

    def test_detach(self, ours: Any, sleeper: Path, cid: str, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        ok(
            ours.run(
                sleeper, cid, "--detach", "--pid-file", pid_file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        found = ours.state(cid)
        assert found["status"] == "running"
        assert pid_file.read_text() == str(found["pid"])

    def test_signals_are_passed_on(self, ours: Any, sleeper: Path, cid: str) -> None:
        runtime = subprocess.Popen(
            [*ours.command, "--root", ours.root, "run", "-b", sleeper, cid], stdin=subprocess.DEVNULL
        )
        until(lambda: (ours.root / cid / "state.json").exists() and ours("state", cid).returncode == 0)
        until(lambda: ours.state(cid)["status"] == "running" and catches(ours.state(cid)["pid"], signal.SIGTERM))
        runtime.send_signal(signal.SIGTERM)
        assert runtime.wait(30) == 7

    def test_a_failed_command_leaves_nothing(self, ours: Any, bundle: Any, cid: str) -> None:
        path = bundle("sh", hooks__startContainer=[{"path": "/bin/false"}])
        refused(ours.run(path, cid), "startContainer")
        assert not (ours.root / cid).exists()
        assert not ours.cgroups_of(path)

    def test_terminal(self, ours: Any, bundle: Any, cid: str) -> None:
        done = ours.run(bundle("sh", "-c", "tty; test -c /dev/console && echo console", process__terminal=True), cid)
        assert done.stdout.replace("\r", "") == "/dev/pts/0\nconsole\n", done.stderr


class TestFiles:
    def test_pid_file_holds_the_number_alone(self, ours: Any, sleeper: Path, cid: str, tmp_path: Path) -> None:
        """An engine reads it with a function that takes no line break."""
        ok(ours.create(sleeper, cid, "--pid-file", tmp_path / "pid"))
        assert (tmp_path / "pid").read_text() == str(ours.state(cid)["pid"])

    def test_pidfd_socket(self, ours: Any, sleeper: Path, cid: str, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            ok(ours.create(sleeper, cid, "--pidfd-socket", tmp_path / "s"))
            with listener.accept()[0] as connection:
                _, fds, _, _ = socket.recv_fds(connection, 100, 1)
        signal.pidfd_send_signal(fds[0], signal.SIGKILL)
        os.close(fds[0])
        until(lambda: ours.state(cid)["status"] == "stopped")

    def test_console_socket(self, ours: Any, bundle: Any, cid: str, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            path = bundle(
                "sh", "-c", "stty size", process__terminal=True, process__consoleSize={"height": 7, "width": 9}
            )
            ok(ours.create(path, cid, "--console-socket", tmp_path / "s"))
            with listener.accept()[0] as connection:
                _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
        master = array.array("i", ancillary[0][2])[0]
        ok(ours("start", cid))
        said = b""
        while b"\n" not in said:
            said += os.read(master, 100)
        os.close(master)
        assert said == b"7 9\r\n"

    def test_preserved_descriptors(self, ours: Any, bundle: Any, cid: str, tmp_path: Path) -> None:
        (tmp_path / "one").write_text("one\n")
        as_three = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
        path = bundle("sh", "-c", "cat <&3; ls /proc/self/fd")
        command = [*ours.command, "--root", ours.root, "run", "--preserve-fds", "1", "-b", path, cid]
        with (tmp_path / "one").open() as f:
            done = subprocess.run(
                [sys.executable, "-c", as_three, str(f.fileno()), *command],
                capture_output=True, text=True, timeout=60, pass_fds=(f.fileno(),), check=False,
            )  # fmt: skip
        # The last is of ls itself. What was not to be preserved is not there.
        assert done.stdout.split() == ["one", "0", "1", "2", "3", "4"], done.stderr

    def test_of_the_descriptors_to_be_preserved_some_may_lack(self, ours: Any, bundle: Any, cid: str) -> None:
        """No descriptor of ours takes their place, of which there are some between 3 and 12."""
        path = bundle("sh", "-c", 'ls /proc/self/fd; echo "$LISTEN_FDS $LISTEN_PID"')
        calls = ['exec 5< /dev/null; exec "$@"', "sh", *ours.command, "--root", ours.root, "run", "-b", path]
        for options, variables in ((["--preserve-fds", "9"], {}), ([], {"LISTEN_FDS": "9"})):
            command = ["sh", "-c", *calls, *options, cid]
            done = subprocess.run(
                command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.stdout.split() == ["0", "1", "2", "3", "5", *(["9", "1"] if variables else [])], done.stderr

    def test_the_init_holds_only_what_it_needs(self, ours: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        pid = ours.state(cid)["pid"]
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2]
        kinds = sorted(re.sub(r"[\d\[\]]|^/.*/", "", target) for target in held)
        assert kinds == ["anon_inode:signalfd", "socket:", "waiting"], held


class TestNamespaces:
    @pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "cgroup", "mount", "user", "time"])
    def test_by_path(self, ours: Any, bundle: Any, cid: str, kind: str) -> None:
        file, flag = {"network": ("net", "--net"), "mount": ("mnt", "--mount"), "time": ("time", "-T")}.get(
            kind, (kind, f"--{kind}")
        )
        flags = [flag, "--map-root-user"] if kind == "user" else [flag]
        # Its child is in what was made, also where that is for children alone (PID, time).
        owner = subprocess.Popen(["unshare", *flags, "--fork", "--kill-child", "sleep", "1000"])
        try:
            path = f"/proc/{only_child(owner.pid)}/ns/{file}"
            until(lambda: os.readlink(path) != os.readlink(f"/proc/self/ns/{file}"))
            namespaces = [{"type": each} for each in ("mount", "pid") if each != kind]
            namespaces.append({"type": kind, "path": path})
            mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]
            if kind in ("pid", "user"):  # a procfs of that PID namespace takes a user namespace that owns it
                mounts = [{"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}]
            config = {"linux__namespaces": namespaces, "mounts": mounts, "hostname": None}
            done = ours.run(bundle("readlink", f"/proc/self/ns/{file}", **config), cid)
            assert done.stdout.strip() == os.readlink(path), done.stderr
        finally:
            owner.kill()
            owner.wait()

    def test_a_path_of_another_kind_is_refused_by_name(self, ours: Any, bundle: Any, cid: str) -> None:
        for path, words in (
            (f"/proc/{os.getpid()}/ns/ipc", "of type ipc, not network"),
            ("/etc/passwd", "not a namespace"),
            ("/no/such", "no such file"),
        ):
            kinds = [{"type": "mount"}, {"type": "network", "path": path}]
            refused(
                ours.create(bundle("true", linux__namespaces=kinds, hostname=None), cid), "linux.namespaces[1]", words
            )

    def test_user_namespace_with_offsets_of_the_clocks(self, ours: Any, bundle: Any, cid: str) -> None:
        kinds = [{"type": kind} for kind in ("pid", "mount", "user", "time")]
        maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        path = bundle(
            "sh", "-c", "cut -d. -f1 /proc/uptime; id -u; cat /proc/self/uid_map",
            linux__namespaces=kinds, linux__uidMappings=maps, linux__gidMappings=maps,
            linux__timeOffsets={"boottime": {"secs": 1_000_000}}, hostname=None,
        )  # fmt: skip
        done = ours.run(path, cid)
        uptime, uid, *mapped = done.stdout.split()
        assert int(uptime) >= 1_000_000, done.stderr
        assert (uid, mapped) == ("0", ["0", "100000", "1000"])

    def test_sysctls_are_the_namespaces_own(self, ours: Any, bundle: Any, cid: str) -> None:
        before = Path("/proc/sys/kernel/msgmax").read_text()
        wanted = {"kernel.msgmax": "4097", "net.ipv4.ip_forward": "1", "net/ipv4/conf/lo/log_martians": "1"}
        files = "/proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/lo/log_martians"
        done = ours.run(bundle("sh", "-c", f"cat {files}", linux__sysctl=wanted), cid)
        assert done.stdout.split() == ["4097", "1", "1"], done.stderr
        assert Path("/proc/sys/kernel/msgmax").read_text() == before
        refused(ours.run(bundle("true", linux__sysctl={"vm.swappiness": "1"}), cid), "vm.swappiness")

    def test_names(self, ours: Any, bundle: Any, cid: str) -> None:
        script = "hostname; cat /proc/sys/kernel/domainname; ip -o link | grep -c UP"
        done = ours.run(bundle("sh", "-c", script, hostname="one", domainname="two.example"), cid)
        assert done.stdout.split() == ["one", "two.example", "1"], done.stderr


class TestTwoAtOnce:
    def test_of_two_creates_one_wins(self, ours: Any, sleeper: Path, cid: str) -> None:
        for _ in range(5):
            calls = [
                subprocess.Popen(
                    [*ours.command, "--root", ours.root, "create", "-b", sleeper, cid],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
                for _ in range(4)
            ]  # fmt: skip
            assert sorted(call.wait(60) for call in calls) == [0, 1, 1, 1]
            assert ours.state(cid)["status"] == "created"
            ok(ours("delete", cid))

    def test_of_two_starts_one_wins(self, ours: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        pid = ours.state(cid)["pid"]
        os.kill(pid, signal.SIGSTOP)  # so that all of them have said "start" before the first is heard
        calls = [
            subprocess.Popen(
                [*ours.command, "--root", ours.root, "start", cid], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for _ in range(4)
        ]
        for call in calls:
            until(lambda pid=call.pid: waits_on_a_socket(pid))
        os.kill(pid, signal.SIGCONT)
        assert sorted(call.wait(60) for call in calls) == [0, 1, 1, 1]
        assert ours.state(cid)["status"] == "running"

    def test_deletes_at_once(self, ours: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        calls = [
            subprocess.Popen(
                [*ours.command, "--root", ours.root, "delete", "--force", cid],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for _ in range(4)
        ]  # fmt: skip
        assert [call.wait(60) for call in calls] == [0, 0, 0, 0]
        assert not ours.cgroups_of(sleeper)


class TestKilledVerbs:
    """kill -9 of a verb at many points: then ``delete --force`` leaves nothing, and the id is free."""

    @staticmethod
    def killed_after(seconds: float, ours: Any, *words: str | Path) -> None:
        call = subprocess.Popen(
            [*ours.command, "--root", ours.root, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(seconds)
        call.kill()
        call.wait()

    @staticmethod
    def seconds(ours: Any, *words: str | Path) -> float:
        start = time.monotonic()
        ok(ours(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return time.monotonic() - start

    @staticmethod
    def nothing_is_left(ours: Any, path: Path, cid: str) -> None:
        pids = [pid for group in ours.cgroups_of(path) for pid in Path(group, "cgroup.procs").read_text().split()]
        ok(ours("delete", "--force", cid))
        assert not (ours.root / cid).exists()
        assert not ours.cgroups_of(path)
        assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe") and alive(int(pid))]

    def test_create(self, ours: Any, sleeper: Path, cid: str) -> None:
        whole = self.seconds(ours, "create", "-b", sleeper, cid)
        self.nothing_is_left(ours, sleeper, cid)
        for number in range(KILLS):
            self.killed_after(whole * number / KILLS, ours, "create", "-b", sleeper, cid)
            assert ours("state", cid).returncode in (0, 1)
            self.nothing_is_left(ours, sleeper, cid)
        ok(ours.create(sleeper, cid))

    def test_start(self, ours: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        whole = self.seconds(ours, "start", cid)
        for number in range(KILLS):
            self.nothing_is_left(ours, sleeper, cid)
            ok(ours.create(sleeper, cid))
            self.killed_after(whole * number / KILLS, ours, "start", cid)
            until(lambda: ours.state(cid)["status"] in ("created", "running"))
            if ours.state(cid)["status"] == "created":
                done = ours("start", cid)  # unless the other's word has come meanwhile
                assert done.returncode == 0 or "already running" in done.stderr
            until(lambda: ours.state(cid)["status"] == "running")

    def test_start_before_it_was_answered(self, ours: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(os.path.relpath(ours.root / cid / "start"))
            s.send(b"g")
        until(lambda: ours.state(cid)["status"] == "running")

    def test_delete(self, ours: Any, sleeper: Path, cid: str) -> None:
        ok(ours.create(sleeper, cid))
        whole = self.seconds(ours, "delete", "--force", cid)
        for number in range(KILLS):
            ok(ours.create(sleeper, cid))
            self.killed_after(whole * number / KILLS, ours, "delete", "--force", cid)
            self.nothing_is_left(ours, sleeper, cid)

    def test_run(self, ours: Any, bundle: Any, cid: str) -> None:
        path = bundle("true")
        whole = self.seconds(ours, "run", "-b", path, cid)
        for number in range(KILLS):
            self.killed_after(whole * number / KILLS, ours, "run", "-b", path, cid)
            self.nothing_is_left(ours, path, cid)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class TestOneStore:
    """What `mydocker` and `mydocker-oci` have in common."""

    def test_containers_of_engines_are_found(self, ours: Any, sleeper: Path, cid: str, state_dir: Path) -> None:
        ok(ours.create(sleeper, cid))
        ok(ours("start", cid))
        assert [record.id for record in state.running(str(state_dir))] == [cid]
        assert state.find(cid, str(state_dir)).pid == ours.state(cid)["pid"]
        assert state.recover(str(state_dir)) == []
        assert ours.state(cid)["status"] == "running"
        ok(ours("delete", "--force", cid))
        assert state.running(str(state_dir)) == []

    def test_in_the_store_of_mydocker_itself(self, ours: Any, sleeper: Path, cid: str, state_dir: Path) -> None:
        ours.root = state_dir
        ok(ours.create(sleeper, cid))
        assert state.recover(str(state_dir)) == []
        assert state.leftovers(str(state_dir)) == []
        ok(ours("start", cid))
        assert [record.id for record in state.running(str(state_dir))] == [cid]
        ok(ours("delete", "--force", cid))

    def test_list(self, ours: Any, sleeper: Path, cid: str) -> None:
        assert ours("list", "--quiet").stdout == ""
        assert ours("list", "--format", "json").stdout == "null\n"
        ok(ours.create(sleeper, cid))
        assert ours("list", "-q").stdout == f"{cid}\n"
        found = json.loads(ours("list", "--format=json").stdout)
        assert [(each["id"], each["status"]) for each in found] == [(cid, "created")]
        head, row = ours("list").stdout.splitlines()
        assert head.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        assert row.split()[0] == cid
