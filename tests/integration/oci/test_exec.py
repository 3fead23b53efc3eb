"""``exec``: a process in a container that runs, from what it sees to what its caller gets."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocker.linux.capabilities import NAMES

#: What a process can say about itself. Lines that are its own (PIDs, counters) are left out.
SELF = """
id; umask; pwd; env | grep -v -e '^PWD=' -e '^SHLVL=' -e '^_=' | sort
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn|SigCgt)' /proc/$$/status
tail -n +2 /proc/$$/limits; cat /proc/$$/oom_score_adj
for kind in cgroup ipc mnt net pid time user uts; do
    test "$(readlink /proc/$$/ns/$kind)" = "$(readlink /proc/1/ns/$kind)" || echo "another $kind namespace"
done
ls /proc/$$/fd
"""

PROCESS: dict[str, Any] = {
    "args": ["sh", "-c", SELF],
    "cwd": "/tmp",
    "env": ["PATH=/bin", "A=one", "A=two", "B=with space"],
    "user": {"uid": 0, "gid": 0},
}

SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")
CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]


@pytest.fixture
def running(ours: Any, cid: str) -> Callable[[Path], str]:
    """A container of ours that runs the bundle's command: its id."""

    def start(bundle: Path) -> str:
        for done in (ours.create(bundle, cid), ours("start", cid)):
            assert done.returncode == 0, done.stderr
        return cid

    return start


@pytest.fixture
def box(running: Callable[[Path], str], bundle: Any) -> str:
    """A container that does nothing for a while."""
    return running(bundle("sleep", "1000"))


def process_file(directory: Path, **entries: Any) -> Path:
    path = directory / "process.json"
    path.write_text(json.dumps({**PROCESS, **entries}))
    return path


def in_user_namespace(bundle: Path) -> Path:
    """The same bundle, for a container with a user namespace."""
    config = json.loads((bundle / "config.json").read_text())
    maps = [{"containerID": 0, "hostID": 100000, "size": 5000}]
    config["linux"].update(uidMappings=maps, gidMappings=maps)
    config["linux"]["namespaces"].append({"type": "user"})
    (bundle / "config.json").write_text(json.dumps(config))
    for directory, below, files in os.walk(bundle / "rootfs"):
        for name in (".", *below, *files):
            os.chown(Path(directory, name), 100000, 100000, follow_symlinks=False)
    for parent in (bundle, *bundle.parents[:-2]):
        parent.chmod(0o755)
    return bundle


def say(*words: str) -> list[str]:
    return ["sh", "-c", *words]


def detached(ours: Any, directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``exec --detach``. A pipe for what it writes would be open for as long as the process lives."""
    with (directory / "stderr").open("w") as f:
        done: subprocess.CompletedProcess[str] = ours("exec", "--detach", *arguments, stdout=f, stderr=f)
    return done


class TestAsWithRunc:
    """The same call, by runc in a container of runc's: what the process sees agrees."""

    @staticmethod
    def both(ours: Any, runc: Any, cid: str, bundle: Path, *arguments: str | Path) -> None:
        seen = []
        for runtime in (ours, runc):
            for done in (runtime.create(bundle, cid), runtime("start", cid)):
                assert done.returncode == 0, done.stderr
            done = runtime("exec", *arguments)
            assert done.returncode == 0, done.stderr
            assert not done.stderr
            seen.append(done.stdout.splitlines())
            assert runtime("delete", "--force", cid).returncode == 0
        assert seen[0] == seen[1]
        assert len(seen[0]) > 30

    @pytest.mark.parametrize(
        "options",
        [
            [],
            ["--user", "1000:1000"],
            ["--user", "1000"],
            ["--user", "4242:17", "--additional-gids", "5", "--additional-gids", "6"],
            ["--cwd", "/tmp", "--env", "A=1", "--env", "A=2", "--env", "HOME="],
            ["--cap", "CAP_NET_ADMIN", "--cap", "CAP_SYS_PTRACE"],
            ["--cap", "CAP_NET_ADMIN", "--user", "1000:1000"],
            ["--no-new-privs"],
        ],
        ids=" ".join,
    )
    def test_options(self, options: list[str], ours: Any, runc: Any, cid: str, bundle: Any) -> None:
        made = bundle("sleep", "1000", process__noNewPrivileges=False, process__oomScoreAdj=77)
        self.both(ours, runc, cid, made, *options, cid, *say(SELF))

    @pytest.mark.parametrize(
        "entries",
        [
            {},
            {"user": {"uid": 1000, "gid": 1000, "additionalGids": [1, 2, 3]}},
            {"noNewPrivileges": True, "cwd": "/"},
            {"capabilities": {}},
            {"capabilities": {"bounding": CAPABILITIES, "permitted": CAPABILITIES[:2], "effective": CAPABILITIES[:1]}},
            {
                "user": {"uid": 1000, "gid": 1000},
                "capabilities": dict.fromkeys(SETS, CAPABILITIES),
            },
            {"user": {"uid": 1000, "gid": 1000}, "capabilities": {"bounding": CAPABILITIES, "ambient": CAPABILITIES}},
            {
                "rlimits": [
                    {"type": "RLIMIT_NOFILE", "soft": 200, "hard": 200},  # a Go program may raise its own
                    {"type": "RLIMIT_CORE", "soft": 0, "hard": 5},
                    {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 30},
                    {"type": "RLIMIT_AS", "soft": 1 << 33, "hard": 1 << 34},
                ]
            },
            {"env": ["PATH=/bin"]},
            {"env": ["PATH=/bin"], "user": {"uid": 1000, "gid": 1000}},
            {"env": ["PATH=/bin"], "user": {"uid": 4242, "gid": 0}},
        ],
        ids=lambda entries: ",".join(entries) or "default",
    )
    def test_process(
        self, entries: dict[str, Any], ours: Any, runc: Any, cid: str, bundle: Any, tmp_path: Path
    ) -> None:
        made = bundle("sleep", "1000", process__noNewPrivileges=False)
        self.both(ours, runc, cid, made, "--process", process_file(tmp_path, **entries), cid)

    @pytest.mark.parametrize(
        ("options", "command"),
        [
            ([], ["nonsense"]),
            ([], ["/nonsense"]),
            ([], ["/etc/passwd"]),
            ([], [""]),
            ([], []),
            (["--cwd", "/nonsense"], ["true"]),
            (["--cwd", "relative"], ["true"]),
            (["--user", "1000:1000"], ["/root/x"]),
        ],
        ids=lambda words: " ".join(words) or "none",
    )
    def test_words_of_failures(
        self, options: list[str], command: list[str], ours: Any, runc: Any, cid: str, bundle: Any
    ) -> None:
        made = bundle("sleep", "1000")
        (made / "rootfs/root").chmod(0o700)
        said = []
        for runtime in (ours, runc):
            for done in (runtime.create(made, cid), runtime("start", cid)):
                assert done.returncode == 0, done.stderr
            done = runtime("--log-format", "json", "exec", *options, cid, *command)
            assert done.returncode == 255
            said.append(json.loads(done.stderr.splitlines()[-1])["msg"])
            runtime("delete", "--force", cid)
        assert said[0] == said[1]


class TestCommand:
    def test_arguments_are_exact(self, ours: Any, box: str, tmp_path: Path) -> None:
        strange = ["", "a b", "new\nline", "quote'\"", "\udcff\udcfe", "$HOME", "-x"]
        args = ["sh", "-c", 'for word; do printf "<%s>" "$word"; done', "sh", *strange]
        done = ours("exec", "--process", process_file(tmp_path, args=args), box)
        assert done.stdout == "".join(f"<{word}>" for word in strange)
        assert ours("exec", box, *args[:-3], "--", "-p").stdout == "".join(
            f"<{word}>" for word in [*strange[:-3], "--", "-p"]
        )

    def test_input_and_outputs_are_the_callers(self, ours: Any, box: str) -> None:
        done = ours("exec", box, *say("cat; echo error >&2"), input="through\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "through\n", "error\n")

    def test_larger_than_a_pipe(self, ours: Any, box: str, tmp_path: Path) -> None:
        args = ["sh", "-c", "echo $#", "sh", *["x" * 1000] * 300]
        assert ours("exec", "--process", process_file(tmp_path, args=args), box).stdout == "300\n"

    @pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill $$", 143)])
    def test_exit_code(self, script: str, code: int, ours: Any, box: str) -> None:
        done = ours("exec", box, *say(script))
        assert (done.returncode, done.stderr) == (code, "")

    def test_not_a_program(self, ours: Any, bundle: Any, running: Callable[[Path], str]) -> None:
        made = bundle("sleep", "1000")
        for name, text in (("noise", "\x7f\n"), ("orphan", "#!/nonsense\n")):
            (made / "rootfs/bin" / name).write_text(text)
            (made / "rootfs/bin" / name).chmod(0o755)
        box = running(made)
        for name, reason in (("noise", "exec format error"), ("orphan", "no such file or directory")):
            done = ours("exec", box, name)
            assert done.returncode == 255
            assert f"unable to start container process: exec /bin/{name}: {reason}" in done.stderr

    def test_signals_are_passed_on(self, ours: Any, box: str) -> None:
        script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.01; done"
        with subprocess.Popen(
            [*ours.command, "--root", ours.root, "exec", box, *say(script)], stdout=subprocess.PIPE, text=True
        ) as caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "ready\n"
            caller.send_signal(signal.SIGTERM)
            assert caller.stdout.read() == "got\n"
        assert caller.returncode == 9

    def test_deadly_signal(self, ours: Any, box: str) -> None:
        with subprocess.Popen(
            [*ours.command, "--root", ours.root, "exec", box, *say("echo ready; sleep 1000")], stdout=subprocess.PIPE
        ) as caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == b"ready\n"
            caller.send_signal(signal.SIGINT)
        assert caller.returncode in (130, 137)  # of the shell, or of the sleep that it waits for

    def test_command_outlives_a_detached_exec(self, ours: Any, box: str, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        done = detached(ours, tmp_path, "--pid-file", pid_file, box, "sleep", "1000")
        assert done.returncode == 0
        text = pid_file.read_text()
        assert text.isdecimal(), "engines take the whole file for a number"
        assert Path(f"/proc/{text}/cmdline").read_bytes() == b"sleep\x001000\0"
        pids = json.loads(ours("ps", "--format", "json", box).stdout)
        assert sorted(pids) == sorted([int(text), ours.state(box)["pid"]])

    def test_detached_exec_that_fails(self, ours: Any, box: str, tmp_path: Path) -> None:
        pid_file, log = tmp_path / "pid", tmp_path / "log"
        done = ours("--log", log, "--log-format", "json", "exec", "--detach", "--pid-file", pid_file, box, "nonsense")
        assert done.returncode == 255
        assert not pid_file.exists()
        entry = json.loads(log.read_text())  # the whole file is one object, which podman relies on
        assert entry["level"] == "error"
        assert 'exec: "nonsense": executable file not found in $PATH' in entry["msg"]


class TestContainer:
    def test_unknown(self, ours: Any) -> None:
        done = ours("exec", "nobody", "true")
        assert done.returncode == 255
        assert "does not exist" in done.stderr

    def test_stopped(
        self, ours: Any, bundle: Any, running: Callable[[Path], str], stopped: Callable[[Any, str], None]
    ) -> None:
        name = running(bundle("true"))
        stopped(ours, name)
        done = ours("exec", name, "true")
        assert done.returncode == 255
        assert "container not running" in done.stderr

    def test_created(self, ours: Any, bundle: Any, cid: str) -> None:
        """A container that waits for ``start`` has all that a process needs."""
        assert ours.create(bundle("sleep", "1000"), cid).returncode == 0
        done = ours("exec", cid, "hostname")
        assert (done.returncode, done.stdout) == (0, "box\n")
        assert ours.state(cid)["status"] == "created"
        assert ours("start", cid).returncode == 0

    def test_its_user_namespace(self, ours: Any, bundle: Any, running: Callable[[Path], str], tmp_path: Path) -> None:
        made = in_user_namespace(bundle("sleep", "1000"))
        box = running(made)
        user = {"uid": 1000, "gid": 1000, "additionalGids": [29]}
        script = "id -u; id -G; cat /proc/self/uid_map; readlink /proc/self/ns/user; grep CapBnd /proc/self/status"
        done = ours("exec", "--process", process_file(tmp_path, args=say(script), user=user), box)
        assert done.returncode == 0, done.stderr
        uid, groups, id_map, namespace, bounding = done.stdout.splitlines()
        assert (uid, groups, id_map.split()) == ("1000", "1000 29", ["0", "100000", "5000"])
        assert namespace == os.readlink(f"/proc/{ours.state(box)['pid']}/ns/user")
        assert int(bounding.split()[1], 16) == 0xA80425FB  # Docker's default set
        done = ours("exec", "--user", "6000:6000", box, "id")
        assert done.returncode == 255
        assert "setgid to 6000: invalid argument" in done.stderr

    def test_its_time_and_cgroup_namespaces(self, ours: Any, bundle: Any, running: Callable[[Path], str]) -> None:
        made = bundle("sleep", "1000", linux__timeOffsets={"boottime": {"secs": 1_000_000, "nanosecs": 0}})
        config = json.loads((made / "config.json").read_text())
        config["linux"]["namespaces"] += [{"type": "time"}, {"type": "cgroup"}]
        (made / "config.json").write_text(json.dumps(config))
        box = running(made)
        script = "cut -d. -f1 /proc/uptime; readlink /proc/self/ns/cgroup; cut -d: -f3 /proc/self/cgroup | sort -u"
        uptime, namespace, paths = ours("exec", box, *say(script)).stdout.splitlines()
        assert int(uptime) > 1_000_000
        assert namespace == os.readlink(f"/proc/{ours.state(box)['pid']}/ns/cgroup")
        assert paths == "/"

    def test_its_seccomp_filter(self, ours: Any, bundle: Any, running: Callable[[Path], str]) -> None:
        rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        box = running(bundle("sleep", "1000", linux__seccomp=profile, process__noNewPrivileges=False))
        for options in ([], ["--no-new-privs"], ["--user", "1000:1000"], ["--cap", "CAP_SYS_ADMIN"]):
            done = ours("exec", *options, box, *say("grep Seccomp: /proc/self/status; mkdir /tmp/x"))
            assert done.stdout.split() == ["Seccomp:", "2"], options
            assert "Operation not supported" in done.stderr, options

    def test_filter_that_refuses_what_the_runtime_itself_does(
        self, ours: Any, bundle: Any, running: Callable[[Path], str]
    ) -> None:
        names = "chdir fchdir getcwd setuid setgid setresuid setresgid setgroups umask newfstatat faccessat2".split()
        rule = {"names": names, "action": "SCMP_ACT_ERRNO"}
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        box = running(bundle("sleep", "1000", linux__seccomp=profile, process__noNewPrivileges=False))
        assert ours("exec", "--user", "1000:1000", "--cwd", "/tmp", box, *say("echo runs")).stdout == "runs\n"


class TestResources:
    def test_what_is_set_by_pid(self, ours: Any, box: str, tmp_path: Path) -> None:
        entries: dict[str, Any] = {
            "args": ["sleep", "1000"],
            "oomScoreAdj": 55,
            "scheduler": {"policy": "SCHED_BATCH", "nice": 7},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
            "execCPUAffinity": {"initial": "0", "final": "1"},
        }
        pid_file = tmp_path / "pid"
        path = process_file(tmp_path, **entries)
        done = detached(ours, tmp_path, "--pid-file", pid_file, "--process", path, box)
        assert done.returncode == 0, (tmp_path / "stderr").read_text()
        pid = int(pid_file.read_text())
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "55\n"
        assert os.sched_getscheduler(pid) == os.SCHED_BATCH
        assert os.getpriority(os.PRIO_PROCESS, pid) == 7
        assert os.sched_getaffinity(pid) == {1}
        from mydocker.linux.scheduling import ioprio_get

        assert ioprio_get(pid) == (2, 6)

    def test_the_affinity_of_exec_is_not_that_of_the_first_process(
        self, ours: Any, bundle: Any, running: Callable[[Path], str]
    ) -> None:
        box = running(bundle("sleep", "1000", process__execCPUAffinity={"final": "0"}))
        assert os.sched_getaffinity(ours.state(box)["pid"]) == os.sched_getaffinity(0)
        done = ours("exec", box, *say("grep Cpus_allowed_list /proc/self/status"))
        assert done.stdout.split()[1] == "0"

    @pytest.mark.parametrize(
        ("entries", "named"),
        [
            ({"oomScoreAdj": -500}, "oom_score_adj to -500: permission denied"),
            ({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": (1 << 64) - 1}]}, "RLIMIT_NOFILE"),
            ({"scheduler": {"policy": "SCHED_FIFO", "priority": 100}}, "process.scheduler: error setting scheduler"),
            ({"execCPUAffinity": {"final": "8000"}}, "process.execCPUAffinity.final: cannot set the CPU affinity"),
        ],
        ids=lambda value: "".join(value) if isinstance(value, dict) else "",
    )
    def test_what_the_kernel_refuses_is_named(
        self, entries: dict[str, Any], named: str, ours: Any, box: str, tmp_path: Path
    ) -> None:
        done = ours("exec", "--process", process_file(tmp_path, args=["true"], **entries), box)
        assert done.returncode == 255
        assert named in done.stderr
        assert json.loads(ours("ps", "--format", "json", box).stdout) == [ours.state(box)["pid"]]


class TestDescriptors:
    @staticmethod
    def with_descriptor(ours: Any, *words: str) -> subprocess.CompletedProcess[str]:
        """A call by somebody who has descriptor 3 open, on /etc, and no other."""
        command = ["sh", "-c", 'exec 3</etc; exec "$@"', "sh", *ours.command, "--root", str(ours.root), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_none_of_the_callers(self, ours: Any, box: str) -> None:
        done = self.with_descriptor(ours, "exec", box, *say("ls /proc/$$/fd; :"))
        assert done.stdout.split() == ["0", "1", "2"]

    def test_those_that_are_to_be_preserved(self, ours: Any, box: str) -> None:
        done = self.with_descriptor(ours, "exec", "--preserve-fds", "1", box, *say("ls /proc/$$/fd; :"))
        assert done.stdout.split() == ["0", "1", "2", "3"]

    def test_one_that_was_not_passed(self, ours: Any, box: str, tmp_path: Path) -> None:
        """One of ours has its number, and does not go along: the log, which is opened first."""
        log = ("--log", str(tmp_path / "log"))
        done = self.with_descriptor(ours, *log, "exec", "--preserve-fds", "9", box, *say("ls /proc/$$/fd; :"))
        assert done.stdout.split() == ["0", "1", "2", "3"], done.stderr

    @pytest.mark.parametrize("place", ["/proc/self/fd", "/proc/self/../self/fd", "/dev/fd"])
    def test_no_way_out_by_the_working_directory(self, place: str, ours: Any, box: str, tmp_path: Path) -> None:
        """CVE-2024-21626: a directory of the host that the runtime has open, as the working directory."""
        for number in range(3, 16):
            done = self.with_descriptor(ours, "exec", "--cwd", f"{place}/{number}", box, *say("pwd; ls -d .; ls /"))
            assert done.returncode == 255, done.stdout
            assert re.search(r"chdir to cwd|outside of container", done.stderr), done.stderr


class TestProcessOfTheRuntime:
    """What is in the container before it is the command: a copy of the runtime (CVE-2016-9962, CVE-2019-5736)."""

    #: Without a fork, since there is not much time. What the runtime executes is empty by then: there is no line.
    SPY = """
    touch /tmp/found
    while :; do
        for directory in /proc/[0-9]*; do
            { read -r line || echo executable >> /tmp/found; } < $directory/exe
            { read -r line; case "$line" in *SECRET*) echo environment >> /tmp/found; esac; } < $directory/environ
        done 2> /dev/null
    done
    """

    @pytest.mark.parametrize("user_namespace", [False, True], ids=("hosts users", "own users"))
    def test_cannot_be_looked_into(
        self, user_namespace: bool, ours: Any, bundle: Any, running: Callable[[Path], str]
    ) -> None:
        """Not even by one who has every capability in a user namespace that the process has joined."""
        made = bundle("sh", "-c", self.SPY)
        if user_namespace:
            config = json.loads((made / "config.json").read_text())
            config["process"]["capabilities"] = dict.fromkeys(("bounding", "permitted", "effective"), NAMES)
            (made / "config.json").write_text(json.dumps(config))
            in_user_namespace(made)
        box = running(made)
        for _ in range(8):
            assert ours("exec", box, "true", env={**os.environ, "SECRET": "of the host"}).returncode == 0
        assert (made / "rootfs/tmp/found").read_text() == ""

    def test_of_a_container_that_joins(
        self,
        ours: Any,
        bundle: Any,
        running: Callable[[Path], str],
        stopped: Callable[[Any, str], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The first process of another container in the same user and PID namespaces, as in a pod."""
        made = in_user_namespace(bundle("sh", "-c", self.SPY))
        config = json.loads((made / "config.json").read_text())
        config["process"]["capabilities"] = dict.fromkeys(("bounding", "permitted", "effective"), NAMES)
        (made / "config.json").write_text(json.dumps(config))
        pid = ours.state(running(made))["pid"]
        other = in_user_namespace(bundle("true"))
        config = json.loads((other / "config.json").read_text())
        del config["linux"]["uidMappings"], config["linux"]["gidMappings"]
        for entry in config["linux"]["namespaces"]:
            if entry["type"] in ("user", "pid"):
                entry["path"] = f"/proc/{pid}/ns/{entry['type']}"
        (other / "config.json").write_text(json.dumps(config))
        monkeypatch.setenv("SECRET", "of the host")
        for number in range(5):
            name = f"{made.name}-{number}"
            done = ours.create(other, name)
            assert done.returncode == 0, done.stderr
            assert ours("start", name).returncode == 0
            stopped(ours, name)
            assert ours("delete", name).returncode == 0
        assert (made / "rootfs/tmp/found").read_text() == ""

    def test_tracer_gets_nothing(self, ours: Any, box: str) -> None:
        """It has a session of its own and no tracer, and blocks and ignores no signal."""
        done = ours("exec", box, *say("grep -E 'TracerPid|SigIgn|SigBlk' /proc/self/status; cat /proc/self/stat"))
        *lines, stat = done.stdout.splitlines()
        assert [int(line.split()[1], 16) for line in lines] == [0, 0, 0]
        _, _, _, _, _, session, *_ = stat.split()
        assert session not in ("0", "1")


def test_paused(ours: Any, box: str) -> None:
    assert ours("pause", box).returncode == 0
    try:
        done = ours("exec", box, "true")
        assert done.returncode == 255
        assert "cannot exec in a paused container (use --ignore-paused to override)" in done.stderr
        with subprocess.Popen(
            [*ours.command, "--root", ours.root, "exec", "--ignore-paused", box, "echo", "resumed"],
            stdout=subprocess.PIPE,
            text=True,
        ) as caller:
            time.sleep(0.3)
            assert caller.poll() is None
            assert ours("resume", box).returncode == 0
            assert caller.communicate(timeout=30)[0] == "resumed\n"
        assert caller.returncode == 0
    finally:
        ours("resume", box)


class TestPs:
    def test_table_and_list(self, ours: Any, box: str) -> None:
        pid = ours.state(box)["pid"]
        assert json.loads(ours("ps", "--format", "json", box).stdout) == [pid]
        head, line = ours("ps", box).stdout.splitlines()
        assert head.split()[:3] == ["UID", "PID", "PPID"]
        assert line.split()[1] == str(pid)
        assert line.endswith("sleep 1000")

    def test_options_of_ps(self, ours: Any, box: str) -> None:
        assert ours("ps", box, "-o", "comm,pid").stdout.splitlines()[1].split() == [
            "sleep",
            str(ours.state(box)["pid"]),
        ]
        done = ours("ps", box, "-o", "comm")
        assert done.returncode == 1
        assert "PID" in done.stderr

    def test_stopped(
        self, ours: Any, bundle: Any, running: Callable[[Path], str], stopped: Callable[[Any, str], None]
    ) -> None:
        name = running(bundle("true"))
        stopped(ours, name)
        assert json.loads(ours("ps", "--format", "json", name).stdout) == []

    def test_ps_asks_for_the_container_s_processes_and_not_for_all(
        self, ours: Any, box: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, real = tmp_path / "asked", shutil.which("ps")
        (tmp_path / "ps").write_text(f'#!/bin/sh\necho "$*" >>{asked}\nexec {real} "$@"\n')
        (tmp_path / "ps").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        pid = ours.state(box)["pid"]
        assert ours("ps", box).stdout.splitlines()[1].split()[1] == str(pid)
        assert asked.read_text() == f"-f -p {pid}\n"

    def test_a_ps_that_knows_no_list_of_processes_prints_all(
        self, ours: Any, box: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = ours.state(box)["pid"]
        (tmp_path / "ps").write_text(f'#!/bin/sh\n[ "$*" = -ef ] && printf "PID CMD\\n1 init\\n{pid} it\\n"\n')
        (tmp_path / "ps").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert ours("ps", box).stdout == f"PID CMD\n{pid} it\n"

    def test_unknown(self, ours: Any) -> None:
        done = ours("ps", "nobody")
        assert done.returncode == 1
        assert "does not exist" in done.stderr
