"""Runs from Python by the helper process: what a program may do, and what may be done to it, meanwhile."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker import api, state
from mydocker.cgroups.layout import Layout
from mydocker.linux import batch
from mydocker.spawning import client

Eventually = Callable[..., object]
Sleeper = Callable[[Path, str], Callable[[], mydocker.Result]]

#: For programs of their own: who started this process, and what it has made.
HEAD = """
import json, os, signal, subprocess, sys, threading, time
import mydocker
from mydocker import api
"""


def helper() -> int:
    """The PID of this process's helper, 0 if there is none."""
    return api.means().helper.pid


def known(pid: int) -> set[str]:
    """What a helper has open for itself."""
    return {"/dev/null", f"/proc/{pid}/mountinfo"}


def say(*words: str) -> list[str]:
    return ["echo", *words]


def program(source: str, *, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """A Python program that uses mydocker, to its end."""
    settings = {"capture_output": True, "text": True, "timeout": 60, "check": False, **options}
    command = [sys.executable, "-c", HEAD + textwrap.dedent(source)]
    done: subprocess.CompletedProcess[str] = subprocess.run(command, **settings)  # type: ignore[call-overload]  # noqa: PLW1510
    assert done.returncode == 0 or not check, done.stderr
    return done


def children_of(pid: int) -> list[str]:
    return [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def _running_pids() -> list[int]:
    return [record.pid for record in state.running(state.default_root())]


def output_of(argv: list[str], **options: object) -> str:
    result = mydocker.run(argv, capture_output=True, text=True, **options)  # type: ignore[arg-type]
    assert result.exit_code == 0, result
    assert isinstance(result.stdout, str)
    return result.stdout


@pytest.fixture
def sleeper(eventually: Eventually) -> Iterator[Sleeper]:
    """Starts a container that runs until a file is there, in a thread; what it returns ends it and gives its Result."""
    threads = []

    def start(tmp: Path, name: str) -> Callable[[], mydocker.Result]:
        results: list[mydocker.Result] = []
        begun, end = tmp / f"{name}.begun", tmp / f"{name}.end"
        script = 'touch "$1"; while ! [ -e "$2" ]; do sleep 0.01; done'

        def body() -> None:
            results.append(mydocker.run(["sh", "-c", script, "sh", str(begun), str(end)]))

        thread = threading.Thread(target=body)
        threads.append((thread, end))
        thread.start()
        eventually(begun.exists)

        def finish() -> mydocker.Result:
            end.touch()
            thread.join()
            return results[0]

        return finish

    yield start
    for thread, end in threads:
        end.touch()
        thread.join()


class TestTheHelper:
    def test_one_serves_all_runs_and_a_thread_gets_it_too(self) -> None:
        mydocker.run(["true"])
        first = helper()
        assert first > 0
        thread = threading.Thread(target=mydocker.run, args=(["true"],))
        thread.start()
        thread.join()
        assert helper() == first

    def test_the_command_is_a_child_of_the_program(self, tmp_path: Path) -> None:
        pidfile = tmp_path / "pid"
        script = 'cat "$1"; read -r _ <"$2"'
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        seen = []

        def look() -> None:
            with gate.open("w"):
                seen.extend(children_of(os.getpid()))

        thread = threading.Thread(target=look)
        thread.start()
        pid = output_of(["sh", "-c", f"{script} || true", "sh", str(pidfile), str(gate)], pidfile=pidfile).strip()
        thread.join()
        assert pid in seen

    def test_a_large_program_with_threads_never_forks(self, tmp_path: Path) -> None:
        """Counted by what a fork calls: the kernel's own count is of the threads, too."""
        seen = program(
            """
            forks = []
            os.register_at_fork(before=lambda: forks.append(1))
            from mydocker.linux import process
            process.clone = lambda *_: forks.append(2)
            go = threading.Event()
            ballast = b"x" * (64 << 20)
            threads = [threading.Thread(target=go.wait) for _ in range(64)]
            for thread in threads:
                thread.start()
            codes = [mydocker.run(["sh", "-c", f"exit {n}"], memory="50m").exit_code for n in range(5)]
            with mydocker.Spawner(prepare=2, memory="50m") as spawner:
                codes += [spawner.run(["sh", "-c", f"exit {n}"]).exit_code for n in range(5)]
            go.set()
            print(codes, forks)
            """
        )
        assert seen.stdout == "[0, 1, 2, 3, 4, 0, 1, 2, 3, 4] []\n"

    def test_it_holds_no_descriptor_of_the_program_and_is_in_a_session_of_its_own(self, tmp_path: Path) -> None:
        with (tmp_path / "open").open("w") as f:
            os.set_inheritable(f.fileno(), True)
            mydocker.run(["true"])
        held = {os.readlink(f"/proc/{helper()}/fd/{fd}") for fd in os.listdir(f"/proc/{helper()}/fd")}
        assert "/dev/null" in held
        assert not [place for place in held if place.startswith(("/", "pipe:")) and place not in known(helper())]
        assert os.getsid(helper()) == helper()

    @pytest.mark.parametrize(("own", "waiting"), [(os.SCHED_OTHER, os.SCHED_BATCH), (os.SCHED_IDLE, os.SCHED_IDLE)])
    def test_it_takes_nobodys_cpu_and_its_children_have_the_programs_policy(self, own: int, waiting: int) -> None:
        """By another policy than SCHED_OTHER a process preempts nobody when it is woken (sched(7))."""
        seen = program(
            f"""
            os.sched_setscheduler(0, {own}, os.sched_param(0))
            os.nice(1)
            def policies():
                stat = ["cut", "-d ", "-f19,41", "/proc/self/stat"]  # proc_pid_stat(5)
                print(mydocker.run(stat, capture_output=True, text=True).stdout.strip())
                until = time.monotonic() + 30
                while os.sched_getscheduler(api.means().helper.pid) != {waiting}:
                    assert time.monotonic() < until
            for _ in range(4):  # by itself, and as a spare child
                policies()
            """
        )
        assert seen.stdout.splitlines() == [f"1 {own}"] * 4

    def test_killed_it_is_replaced(self) -> None:
        mydocker.run(["true"])
        for _ in range(3):
            first = helper()
            os.kill(first, signal.SIGKILL)
            for _ in range(2):  # the first may be the last one's spare child
                assert output_of(say("again")) == "again\n"
            assert helper() not in (0, first)

    def test_what_runs_goes_on_without_it(self, sleeper: Sleeper, tmp_path: Path) -> None:
        """In a program whose helper was not started by the main thread: with that thread end its children."""
        finish = sleeper(tmp_path, "one")
        os.kill(helper(), signal.SIGKILL)
        another = sleeper(tmp_path, "two")
        api.close()
        for end in (finish, another):
            result = end()
            assert (result.reason, result.exit_code) == ("exited", 0)

    def test_it_ends_although_a_fork_holds_its_connection(self) -> None:
        mydocker.run(["true"])
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        api.close()
        assert helper() == 0
        os.close(writer)
        os.close(reader)
        os.waitpid(pid, 0)

    def test_where_none_can_be_started(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The program clones for itself. An executable that is no interpreter may be this very program."""
        for executable in (str(tmp_path / "packed-program"), "/nowhere/python3", "/bin/false-python", "", None):
            if executable == str(tmp_path / "packed-program"):
                Path(executable).write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
                Path(executable).chmod(0o755)
            monkeypatch.setattr(sys, "executable", executable)
            assert output_of(say("without")) == "without\n"
            assert helper() == 0
        assert not (tmp_path / "executed").exists()

    def test_one_that_ends_at_once(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        fake = tmp_path / "python-that-is-none"
        fake.write_text(f"#!/bin/sh\necho started >>{tmp_path}/log\n")
        fake.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(fake))
        monkeypatch.setattr(api, "_shared", [])
        for _ in range(3):
            assert output_of(say("without")) == "without\n"
        assert (tmp_path / "log").read_text().count("started") <= 4

    def test_a_program_that_is_its_own_interpreter_does_not_start_itself_for_ever(self, tmp_path: Path) -> None:
        """Whatever it does with its arguments: here, nothing, and it runs a container once more."""
        packed = tmp_path / "python-program"
        body = f"import sys, os\nsys.executable = {str(packed)!r}\nopen({str(tmp_path / 'log')!r}, 'a').write('x')\n"
        body += "import mydocker\nmydocker.run(['true'])\n"
        packed.write_text(f"#!/bin/sh\nexec {sys.executable} -c \"$(cat {tmp_path}/body)\"\n")
        packed.chmod(0o755)
        (tmp_path / "body").write_text(body)
        subprocess.run([packed], check=True, timeout=60)
        assert len((tmp_path / "log").read_text()) <= 4


class TestKilledHelpers:
    def test_at_any_moment(self, tmp_path: Path) -> None:
        """While threads run commands and the helper is killed again and again: each runs once, or not at all."""
        stop = threading.Event()
        log = tmp_path / "log"
        log.touch()
        wrong: list[object] = []
        ran: list[str] = []

        def runs(thread: int) -> None:
            for n in range(8):
                word = f"{thread}.{n}"
                try:
                    result = mydocker.run(["sh", "-c", f"echo {word} >>{log}; exit 7"], memory="50m" if n % 2 else None)
                except mydocker.MydockerError as error:
                    wrong.append(error)
                    continue
                if (result.exit_code, result.reason) != (7, "exited"):
                    wrong.append(result)
                ran.append(word)

        def kills() -> None:
            chance = random.Random(1)
            while not stop.is_set():
                pid = helper()
                if pid:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                time.sleep(chance.uniform(0.005, 0.06))

        killer = threading.Thread(target=kills)
        threads = [threading.Thread(target=runs, args=(n,)) for n in range(8)]
        for thread in (killer, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        killer.join()
        assert wrong == []
        assert sorted(log.read_text().split()) == sorted(ran)
        assert len(ran) == 64

    def test_between_clone_and_answer(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The child of which it had no time to tell has the same pipes as the next one, and is ended first; what it
        has said is not taken for what that says."""
        mydocker.run(["true"])
        real = client._answer
        asked: list[tuple[int, int]] = []

        def late(connection: client._Connection, messages: int) -> object:
            answer = real(connection, messages)
            asked.append(answer)
            if len(asked) > 1:
                return answer
            os.close(answer[1])
            time.sleep(0.1)  # until it has reported that it is ready
            raise client._Lost

        monkeypatch.setattr(client, "_answer", late)
        log = tmp_path / "log"
        with pytest.raises(mydocker.CommandNotFound):
            mydocker.run(["no-such-command"])
        asked.clear()
        assert mydocker.run(["sh", "-c", f"echo once >>{log}"], memory="50m").exit_code == 0
        assert log.read_text() == "once\n"
        assert len(asked) == 2

    def test_what_it_has_not_told_of_is_found_while_it_opens_and_closes(self) -> None:
        """Descriptors that are gone before they are looked at do not hide the one that is looked for."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(writer, 200)
            os.close(reader)
            os.close(writer)
            while True:
                pair = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
                for fd in pair:
                    os.close(fd)
        try:
            pipe = f"pipe:[{os.fstat(writer).st_ino}]"
            os.close(writer)
            assert all(client._has_open(pid, pipe) for _ in range(500))
            assert not client._has_open(pid, "pipe:[1]")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reader)

    def test_killed_when_nothing_runs_any_more(self) -> None:
        """The cgroup that it would have removed is removed: no test leaves one."""
        mydocker.run(["true"], memory="50m")
        os.kill(helper(), signal.SIGKILL)
        api.close()
        assert helper() == 0

    def test_an_interrupt_in_the_middle_leaves_no_answer_for_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mydocker.run(["true"])
        real = client._answer

        def interrupted(*_: object) -> object:
            raise KeyboardInterrupt

        monkeypatch.setattr(client, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mydocker.run(["true"], memory="50m")
        monkeypatch.setattr(client, "_answer", real)
        assert output_of(say("right")) == "right\n"

    def test_the_programs_descriptors_are_used_up(self, tmp_path: Path) -> None:
        """At whichever number of free descriptors it fails, there is no child left that is nobody's."""
        seen = program(
            """
            import resource
            mydocker.run(["true"])
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            held = [os.open("/dev/null", os.O_RDONLY)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            mydocker.run(["true"])
            while True:
                try:
                    held.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
            failed = 0
            while True:
                try:
                    assert mydocker.run(["sh", "-c", "exit 5"], capture_output=True).exit_code == 5
                    break
                except mydocker.MydockerError:
                    failed += 1
                os.close(held.pop())
            api.close()
            children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
            print(failed > 5, children)
            """
        )
        assert seen.stdout == "True []\n", seen
        mydocker.run(["true"])  # removes what one had just begun


class TestTheProgram:
    def test_killed_takes_all_with_it_and_the_next_run_cleans_up(
        self, eventually: Eventually, state_dir: Path, tmp_path: Path
    ) -> None:
        source = """
            def long():
                script = f"touch {sys.argv[1]}/$0; sleep 1000"
                mydocker.run(["sh", "-c", script, threading.current_thread().name], memory="50m")
            with mydocker.Spawner(prepare=2, memory="50m"):
                for n in range(3):
                    threading.Thread(target=long, name=f"begun{n}").start()
                time.sleep(1000)
            """
        command = [sys.executable, "-c", HEAD + textwrap.dedent(source), str(tmp_path)]
        with subprocess.Popen(command) as process:
            try:
                eventually(lambda: len(list(tmp_path.glob("begun*"))) == 3)
                eventually(lambda: len(children_of(process.pid)) >= 6)  # theirs, what stands by, and the helper
                children = children_of(process.pid)
            finally:
                process.kill()
        eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))
        mydocker.run(["true"])
        assert not state_dir.exists() or os.listdir(state_dir) == []

    def test_a_fork_of_it_has_a_helper_of_its_own(self) -> None:
        mydocker.run(["true"])
        mine = helper()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.write(writer, json.dumps([output_of(say("forked"), memory="50m"), helper()]).encode())
                api.close()
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        assert os.waitpid(pid, 0)[1] == 0
        with open(reader, "rb") as pipe:
            words, theirs = json.loads(pipe.read())
        assert words == "forked\n"
        assert theirs not in (0, mine)
        assert output_of(say("still mine")) == "still mine\n"
        assert helper() == mine

    def test_it_forks_while_its_threads_run(self) -> None:
        """A fork has none of the threads, and waits for no lock that one of them held."""
        seen = program(
            """
            mydocker.run(["true"], memory="50m", pids_limit=20)  # imports: no fork sees the end of those
            stop = threading.Event()
            def busy():
                while not stop.is_set():
                    mydocker.run(["true"], memory="50m")
            threads = [threading.Thread(target=busy) for _ in range(4)]
            for thread in threads:
                thread.start()
            codes = []
            for n in range(10):
                pid = os.fork()
                if pid == 0:
                    os._exit(mydocker.run(["sh", "-c", f"exit {n}"], pids_limit=20).exit_code)
                codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            stop.set()
            for thread in threads:
                thread.join()
            print(codes)
            """
        )
        assert seen.stdout == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n", seen.stderr

    def test_multiprocessing(self) -> None:
        mydocker.run(["true"])
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_exit_code, range(6)) == [0, 1, 2, 3, 4, 5]
            pool.close()
            pool.join()

    @pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
    def test_with_closed_standard_descriptors(self, closed: tuple[int, ...], tmp_path: Path) -> None:
        seen = tmp_path / "seen"
        program(
            f"""
            for fd in {closed}:
                os.close(fd)
            listing = ["sh", "-c", "ls -l /proc/self/fd; exit 3"]
            with mydocker.Spawner(prepare=1) as spawner:
                results = [spawner.run(listing, capture_output=True, text=True),
                           mydocker.run(listing, capture_output=True, text=True)]
                plain = spawner.run(["sh", "-c", f"readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >{seen}"])
            assert all(result.exit_code == 3 and len(result.stdout.splitlines()) <= 5 for result in results), results
            """,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            capture_output=False,
        )
        assert set(seen.read_text().split()) <= {"/dev/null", str(seen)}

    def test_that_ignores_sigchld_gets_a_named_error_and_leaves_nothing(self) -> None:
        seen = program(
            """
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            for _ in range(3):
                try:
                    mydocker.run(["true"])
                except mydocker.SetupError as error:
                    print("SIGCHLD" in str(error))
            api.close()
            print(open(f"/proc/self/task/{os.getpid()}/children").read().split())
            """
        )
        assert seen.stdout == "True\nTrue\nTrue\n[]\n"

    def test_a_thread_that_starts_runs_may_end_before_its_siblings(self, sleeper: Sleeper, tmp_path: Path) -> None:
        thread = threading.Thread(target=mydocker.run, args=(["true"],))
        thread.start()
        thread.join()
        finish = sleeper(tmp_path, "one")
        assert finish().reason == "exited"

    def test_a_real_interrupt_ends_the_run(self) -> None:
        seen = program(
            """
            mydocker.run(["true"])
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            for n in range(20):
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.0003 * n)
                try:
                    mydocker.run(["sleep", "1000"])
                except KeyboardInterrupt:
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            result = mydocker.run(["echo", "x"], capture_output=True)
            api.close()
            print(result.stdout, open(f"/proc/self/task/{os.getpid()}/children").read().split())
            """
        )
        assert seen.stdout == "b'x\\n' []\n", seen.stderr
        mydocker.run(["true"])  # removes what an interrupted one had just begun


def _exit_code(number: int) -> int:
    try:
        return mydocker.run(["sh", "-c", f"exit {number}"]).exit_code
    finally:
        api.close()


class TestWhatChildrenInherit:
    """Each was changed after the helper was started."""

    def test_limits_of_the_process(self) -> None:
        assert output_of(["sh", "-c", "ulimit -c"]) != "4321\n"
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (4321 * 512, hard))
            assert output_of(["sh", "-c", "ulimit -c"]) == "4321\n"
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))

    def test_cpus(self) -> None:
        whole = os.sched_getaffinity(0)
        if len(whole) < 2:
            pytest.skip("there is one CPU")
        mydocker.run(["true"])
        try:
            for cpu in (*sorted(whole), min(whole)):
                os.sched_setaffinity(0, {cpu})
                assert output_of(["grep", "Cpus_allowed_list", "/proc/self/status"]).split()[1] == str(cpu)
        finally:
            os.sched_setaffinity(0, whole)

    def test_niceness_and_namespaces(self, rootfs: Path) -> None:
        seen = program(
            """
            def show(*argv, **options):
                print(mydocker.run(argv, capture_output=True, text=True, **options).stdout.strip())
            show("true")
            os.nice(3)
            show("nice")
            import ctypes
            libc = ctypes.CDLL(None)
            assert libc.unshare(0x40000000) == 0  # CLONE_NEWNET
            show("readlink", "/proc/self/ns/net", network="host")
            print(os.readlink("/proc/self/ns/net"))
            assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
            assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
            assert libc.mount(b"only-here", b"/mnt", b"tmpfs", 0, None) == 0
            show("grep", "-c", "only-here", "/proc/self/mountinfo")
            """
        )
        lines = seen.stdout.splitlines()
        assert lines[1] == "3", seen
        assert lines[2] == lines[3]
        assert lines[4] == "1"

    def test_mounts_in_what_it_shows(self, rootfs: Path, tmp_path: Path) -> None:
        """And the spare child serves where others change."""
        (rootfs / "mnt").mkdir(exist_ok=True)
        (tmp_path / "a volume").mkdir()
        (tmp_path / "elsewhere").mkdir()
        seen = program(
            f"""
            import ctypes
            from mydocker.spawning.client import Helper
            libc = ctypes.CDLL(None)
            assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
            assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
            root, volume, elsewhere = {str(rootfs)!r}, {str(tmp_path / "a volume")!r}, {str(tmp_path / "elsewhere")!r}
            take = Helper.take_spare
            taken = []
            def take_spare(*arguments):
                taken.append(take(*arguments))
                return taken[-1]
            Helper.take_spare = take_spare
            def show():
                script = "ls -d /mnt/mark /v/mark 2>/dev/null; true"
                mounts = [mydocker.Volume(source=volume, destination="/v")]
                out = mydocker.run(["sh", "-c", script], rootfs=root, mounts=mounts, capture_output=True, text=True)
                print(*out.stdout.split(), int(taken[-1]))
            def mount(place):
                assert libc.mount(b"here", place.encode(), b"tmpfs", 0, None) == 0
                open(place + "/mark", "w").close()
            for _ in range(3):
                show()
            mount(elsewhere)
            show()
            mount(root + "/mnt")
            show()
            mount(volume)
            show()
            show()
            for place in (volume, root + "/mnt"):
                assert libc.umount2(place.encode(), 2) == 0
            show()
            """
        )
        assert seen.stdout.splitlines() == [
            *("0", "0", "1"),
            "1",
            "/mnt/mark 0",
            "/mnt/mark /v/mark 0",
            "/mnt/mark /v/mark 1",
            "0",
        ], seen

    @pytest.mark.vm
    def test_a_spare_one_shows_the_cgroups_of_its_container(self, run: Callable[..., Any], rootfs: Path) -> None:
        """What it shows beforehand is where the last container had no cgroup of its own."""
        script = """
            cat /proc/self/cgroup
            for name in memory.limit_in_bytes pids.max cpu.shares memory.max cgroup.procs; do
                for file in /sys/fs/cgroup/*/$name /sys/fs/cgroup/$name; do
                    [ -e $file ] && echo $file $(sort -n $file | head -n 1)
                done
            done
            sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | grep cgroup | sort
        """
        cloned = []
        real = client.Helper.clone

        def clone(*arguments: Any) -> object:
            cloned.append(True)
            return real(*arguments)

        def expected(limits: dict[str, Any]) -> str:
            flags = [f"--{field.replace('_', '-')}={value}" for field, value in limits.items()]
            done: str = run("--rootfs", rootfs, *flags, "sh", "-c", script).stdout
            return done

        first: dict[str, Any] = {"memory": "50m"}
        second = {**first, "pids_limit": 20}
        third = {"cpu_shares": 300}
        shown = {str(limits): expected(limits) for limits in ({}, first, second, third)}
        by_spare = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "_KEPT", 60.0)
            patch.setattr(client.Helper, "clone", clone)
            for limits in ({}, {}, {}, first, first, first, second, second, first, {}, third, third):
                cloned.clear()
                assert output_of(["sh", "-c", script], rootfs=rootfs, **limits) == shown[str(limits)], limits
                by_spare.append(not cloned)
                time.sleep(0.01)
        if batch.code_page() and Layout.read().version("memory") == 1:
            # Two of a kind are asked for one by one, and each that has a cgroup where none before it had one.
            assert "".join("yn"[not spare] for spare in by_spare) == "nnynnynyyyny"

    def test_a_spare_one_is_made_while_one_takes_long(
        self, sleeper: Sleeper, tmp_path: Path, eventually: Eventually
    ) -> None:
        sleeper(tmp_path, "first")()
        finish = sleeper(tmp_path, "second")
        helper = api.means().helper
        others = {str(helper.pid), *(str(pid) for pid in _running_pids())}
        eventually(lambda: len(set(children_of(os.getpid())) - others) == 1)
        assert any(kind.spare is not None for kind in helper._kinds)
        finish()

    def test_the_cgroup(self, layout: object, name: str, eventually: Eventually) -> None:
        """A program that moves itself into a cgroup takes what it runs with it."""
        base = Path(layout.require("pids").base, "mydocker")  # type: ignore[attr-defined]
        place = base / name
        place.mkdir(parents=True)
        try:
            seen = program(
                f"""
                mydocker.run(["true"])
                with open("{place}/cgroup.procs", "w") as f:
                    f.write("0")
                print(mydocker.run(["cat", "/proc/self/cgroup"], capture_output=True).stdout)
                with open("{place}/cgroup.procs") as f:
                    print(len(f.read().split()))
                """
            )
            assert seen.stdout.splitlines()[-1] == "2", seen  # itself, and its helper
        finally:
            eventually(lambda: not (place / "cgroup.procs").read_text())  # the helper ends a moment after its program
            place.rmdir()
            with contextlib.suppress(OSError):  # others on this host may have theirs in it
                base.rmdir()
