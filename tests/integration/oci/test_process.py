"""What config.json's ``process`` makes of a container's first process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mydocker.linux.capabilities import NAMES, permitted
from mydocker.linux.scheduling import ioprio_get, sched_getattr

SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")

STATUS = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Sig(Blk|Ign|Cgt))' /proc/$$/status; umask; pwd; echo $HOME"


def both(ours: Any, runc: Any, cid: str, bundle: Path) -> tuple[list[tuple[int, str]], list[str]]:
    """What the two make of one bundle: ours first, (exit code, output) each, and what they say."""
    results = []
    said = []
    for runtime in (ours, runc):
        done = runtime.run(bundle, cid)
        results.append((done.returncode, done.stdout))
        said.append(done.stderr)
        runtime("delete", "--force", cid)
    return results, said


def message(stderr: str) -> str:
    """What the runtime says of the command."""
    return "exec: " + stderr.replace('\\"', '"').partition("exec: ")[2].rstrip('"\n')


class TestUser:
    @pytest.mark.parametrize(
        "user",
        [
            {"uid": 0, "gid": 0},
            {"uid": 1000, "gid": 1000, "additionalGids": [29, 5], "umask": 0o077},
            {"uid": 2_000_000_000, "gid": 2_000_000_001, "umask": 0},
            {"uid": 0, "gid": 0, "additionalGids": list(range(100, 164))},
        ],
        ids=lambda user: str(user["uid"]),
    )
    def test_as_with_runc(self, user: dict[str, Any], ours: Any, runc: Any, cid: str, bundle: Any) -> None:
        made = bundle("sh", "-c", STATUS, process__user=user, process__env=["PATH=/bin"])
        results, _ = both(ours, runc, cid, made)
        assert results[0] == results[1]
        assert results[0][0] == 0

    def test_no_such_id_in_the_user_namespace(self, ours: Any, cid: str, bundle: Any) -> None:
        maps = [{"containerID": 0, "hostID": 0, "size": 10}]
        made = bundle("true", process__user={"uid": 50, "gid": 0}, linux__uidMappings=maps, linux__gidMappings=maps)
        config = json.loads((made / "config.json").read_text())
        config["linux"]["namespaces"].append({"type": "user"})
        (made / "config.json").write_text(json.dumps(config))
        done = ours.run(made, cid)
        assert done.returncode == 1
        assert "setuid to 50: invalid argument" in done.stderr

    def test_pipes_are_the_users(self, ours: Any, cid: str, bundle: Any) -> None:
        made = bundle("sh", "-c", "echo again > /dev/stdout", process__user={"uid": 1000, "gid": 1000})
        config = json.loads((made / "config.json").read_text())
        config["process"]["capabilities"] = {}
        (made / "config.json").write_text(json.dumps(config))
        done = ours.run(made, cid)
        assert (done.stdout, done.stderr) == ("again\n", "")

    def test_files_of_the_caller_stay_his(self, ours: Any, cid: str, bundle: Any, tmp_path: Path) -> None:
        made = bundle("true", process__user={"uid": 1000, "gid": 1000})
        with (tmp_path / "output").open("w") as f:
            assert ours.run(made, cid, stdout=f).returncode == 0
        assert (tmp_path / "output").stat().st_uid == 0


class TestCapabilities:
    NAMES = ("CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN", "CAP_NET_RAW")

    @pytest.mark.parametrize("uid", [0, 1000])
    @pytest.mark.parametrize("no_new_privs", [True, False])
    @pytest.mark.parametrize(
        "sets",
        [
            None,
            {},
            dict.fromkeys(SETS, NAMES),
            {"bounding": NAMES, "permitted": NAMES[:2], "effective": NAMES[:1]},
            {"bounding": NAMES, "permitted": NAMES, "effective": (), "inheritable": NAMES[1:], "ambient": NAMES},
            {"permitted": NAMES, "effective": NAMES},
        ],
        ids=("missing", "empty", "all five", "nested", "ambient", "no bounding"),
    )
    def test_as_with_runc(
        self, sets: Any, no_new_privs: bool, uid: int, ours: Any, runc: Any, cid: str, bundle: Any
    ) -> None:
        made = bundle(
            *("sh", "-c", STATUS),
            process__capabilities=sets,
            process__noNewPrivileges=no_new_privs,
            process__user={"uid": uid, "gid": uid},
        )
        results, _ = both(ours, runc, cid, made)
        assert results[0] == results[1]
        assert results[0][0] == 0

    def test_unknown_ones_are_a_warning(self, ours: Any, cid: str, bundle: Any) -> None:
        sets = {"bounding": ["CAP_NONSENSE", "CAP_KILL"], "permitted": ["CAP_NONSENSE"]}
        made = bundle("grep", "CapBnd", "/proc/self/status", process__capabilities=sets)
        done = ours.run(made, cid)
        assert int(done.stdout.split()[1], 16) == 1 << 5
        assert "CAP_NONSENSE" in done.stderr
        assert "level=warning" in done.stderr


class TestWorkingDirectory:
    def test_made_where_it_is_missing(self, ours: Any, runc: Any, cid: str, bundle: Any) -> None:
        seen = []
        for runtime in (ours, runc):
            made = bundle("stat", "-c", "%n %u %g %a", ".", "/a", "/a/b", process__cwd="/a/b/c")
            done = runtime.run(made, cid)
            assert done.returncode == 0, done.stderr
            seen.append(done.stdout)
        assert seen[0] == seen[1] == ". 0 0 755\n/a 0 0 755\n/a/b 0 0 755\n"

    def test_made_in_a_root_that_is_then_readonly(self, ours: Any, cid: str, bundle: Any) -> None:
        made = bundle("sh", "-c", "pwd; touch here", process__cwd="/a/b", root__readonly=True)
        done = ours.run(made, cid)
        assert done.stdout == "/a/b\n"
        assert "Read-only file system" in done.stderr

    def test_not_made_outside_by_a_link(self, ours: Any, cid: str, bundle: Any, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        made = bundle("pwd", process__cwd="/link/made")
        (made / "rootfs/link").symlink_to(outside)
        done = ours.run(made, cid)
        assert os.listdir(outside) == []
        assert done.returncode != 0 or (made / f"rootfs{outside}/made").is_dir()

    @pytest.mark.parametrize("uid", [0, 1000])
    @pytest.mark.parametrize("mode", [0o700, 0o711])
    @pytest.mark.parametrize("capabilities", [[], ["CAP_DAC_OVERRIDE"]], ids=("none", "dac"))
    @pytest.mark.parametrize("owner", [0, 1000])
    def test_rights_are_as_with_runc(
        self, owner: int, capabilities: list[str], mode: int, uid: int, ours: Any, runc: Any, cid: str, bundle: Any
    ) -> None:
        sets = dict.fromkeys(("bounding", "permitted", "effective"), capabilities)
        made = bundle(
            *("sh", "-c", "pwd; ls"),
            process__cwd="/home/private",
            process__user={"uid": uid, "gid": uid},
            process__capabilities=sets,
        )
        directory = made / "rootfs/home/private"
        directory.mkdir()
        (directory / "file").touch()
        os.chown(directory, owner, owner)
        directory.chmod(mode)
        results, said = both(ours, runc, cid, made)
        assert results[0] == results[1], said

    def test_file(self, ours: Any, runc: Any, cid: str, bundle: Any) -> None:
        results, _ = both(ours, runc, cid, bundle("true", process__cwd="/etc/passwd"))
        assert results[0] == results[1] == (1, "")

    @pytest.mark.parametrize("place", ["/proc/self/fd", "/proc/1/fd", "/dev/fd"])
    def test_descriptors_of_the_runtime_are_no_way_out(self, place: str, ours: Any, cid: str, bundle: Any) -> None:
        """CVE-2024-21626."""
        for number in range(3, 20):
            done = ours.run(bundle("ls", "-d", ".", process__cwd=f"{place}/{number}"), cid)
            assert done.returncode == 1, done.stdout


class TestLookUp:
    """A command that cannot be executed fails ``create``, in the words that engines tell 127 from 126 by."""

    @pytest.mark.parametrize(
        ("args", "user"),
        [
            (["nonsense"], 0),
            (["/nonsense"], 0),
            (["/etc/passwd"], 0),
            (["/etc/passwd/x"], 0),
            ([""], 0),
            (["private/x"], 1000),
            (["/private/x"], 1000),
            (["/private/x"], 0),
            (["mine"], 1000),
            (["mine"], 0),
            (["./bin/true"], 0),
            (["bin/true"], 0),
        ],
        ids=str,
    )
    def test_as_with_runc(self, args: list[str], user: int, ours: Any, runc: Any, cid: str, bundle: Any) -> None:
        made = bundle(*args, process__user={"uid": user, "gid": user}, process__env=["PATH=/none:/private:/bin"])
        (made / "rootfs/private").mkdir(mode=0o700)
        (made / "rootfs/bin/mine").write_bytes((made / "rootfs/bin/busybox").read_bytes())
        (made / "rootfs/bin/mine").chmod(0o744)
        results, said = both(ours, runc, cid, made)
        assert message(said[0]) == message(said[1])
        assert results[0] == results[1]

    def test_without_a_path(self, ours: Any, cid: str, bundle: Any) -> None:
        done = ours.create(bundle("true", process__env=["A=1"]), cid)
        assert done.returncode == 1
        assert 'exec: "true": executable file not found in $PATH' in done.stderr.replace("\\", "")

    def test_directory(self, ours: Any, cid: str, bundle: Any) -> None:
        done = ours.create(bundle("/bin"), cid)
        assert done.returncode == 1
        assert 'exec: "/bin": is a directory' in done.stderr.replace("\\", "")

    def test_what_the_kernel_refuses_fails_start(self, ours: Any, cid: str, bundle: Any) -> None:
        made = bundle("noise")
        (made / "rootfs/bin/noise").write_bytes(b"\x7f\n")
        (made / "rootfs/bin/noise").chmod(0o755)
        assert ours.create(made, cid).returncode == 0
        done = ours("start", cid)
        assert done.returncode == 1
        assert "exec /bin/noise: exec format error" in done.stderr


class TestByPid:
    def test_scheduler_priorities_and_oom_score(self, ours: Any, cid: str, bundle: Any) -> None:
        made = bundle(
            *("sleep", "1000"),
            process__scheduler={"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            process__ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0},
            process__oomScoreAdj=321,
        )
        assert ours.create(made, cid).returncode == 0
        assert ours("start", cid).returncode == 0
        pid = ours.state(cid)["pid"]
        attributes = sched_getattr(pid)
        assert (attributes.policy, attributes.nice, attributes.flags) == (3, 3, 1)
        assert ioprio_get(pid) == (3, 0)
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "321\n"

    def test_rlimits_that_the_runtime_itself_could_not_live_with(self, ours: Any, cid: str, bundle: Any) -> None:
        rlimits = [
            {"type": "RLIMIT_NOFILE", "soft": 4, "hard": 5},
            {"type": "RLIMIT_AS", "soft": 20_000_000, "hard": 30_000_000},
            {"type": "RLIMIT_DATA", "soft": 5_000_000, "hard": 5_000_000},
            {"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_NPROC", "soft": 1, "hard": 1},
        ]
        done = ours.run(bundle("cat", "/proc/self/limits", process__rlimits=rlimits), cid)
        assert done.returncode == 0, done.stderr
        rows = {line[:26].strip(): line[26:].split()[:2] for line in done.stdout.splitlines()}
        assert rows["Max open files"] == ["4", "5"]
        assert rows["Max address space"] == ["20000000", "30000000"]
        assert rows["Max data size"] == ["5000000", "5000000"]
        assert rows["Max file size"] == ["0", "0"]
        assert rows["Max processes"] == ["1", "1"]

    def test_personality(self, ours: Any, cid: str, bundle: Any) -> None:
        made = bundle("cat", "/proc/self/personality", linux__personality={"domain": "LINUX32"})
        assert ours.run(made, cid).stdout == "00000008\n"

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"process__oomScoreAdj": -900}, "oom"),
            ({"process__rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": (1 << 64) - 1}]}, "NOFILE"),
            ({"process__scheduler": {"policy": "SCHED_RR", "priority": 0}}, "process.scheduler"),
            ({"process__apparmorProfile": "nonsense"}, "apparmor"),
            ({"process__selinuxLabel": "a:b:c:d"}, "process.selinuxLabel"),
        ],
        ids=lambda value: "".join(value) if isinstance(value, dict) else "",
    )
    def test_what_this_host_cannot_do_is_refused_by_name(
        self, change: dict[str, Any], named: str, ours: Any, cid: str, bundle: Any
    ) -> None:
        done = ours.create(bundle("sleep", "1000", **change), cid)
        assert done.returncode == 1
        assert named.lower() in done.stderr.lower()
        assert "does not exist" in ours("state", cid).stderr


def test_environment_is_as_with_runc(ours: Any, runc: Any, cid: str, bundle: Any) -> None:
    env = ["PATH=/bin", "A=1", "B=two words", "A=3", "C=", "D=a=b", "HOME="]
    made = bundle("sh", "-c", "env | sort", process__env=env)
    results, _ = both(ours, runc, cid, made)
    assert results[0] == results[1]
    assert "A=3\n" in results[0][1]


def test_nothing_of_the_runtime_can_be_read_before_start(ours: Any, cid: str, bundle: Any) -> None:
    """The first process waits as a copy of the runtime (CVE-2016-9962, CVE-2019-5736)."""
    assert ours.create(bundle("sleep", "1000"), cid).returncode == 0
    script = "readlink /proc/1/exe; readlink /proc/1/fd/*; cat /proc/1/environ; : > /proc/1/exe"
    done = ours("exec", cid, "sh", "-c", script)
    assert done.stdout == ""
    assert done.stderr.count("ermission denied") >= 2, done.stderr


def test_capabilities_that_root_lacks_here_are_left_out(ours: Any, cid: str, bundle: Any) -> None:
    """As in a container in which engines run: the runtime specification wants a warning and no failure."""
    sets = dict.fromkeys(("bounding", "permitted", "effective"), NAMES)
    done = ours.run(bundle("grep", "CapPrm", "/proc/self/status", process__capabilities=sets), cid)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1], 16) == permitted()


class TestCpus:
    """The runtime's own binding is not the container's."""

    CPUS = "exec grep -h Cpus_allowed_list /proc/self/status"

    @pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one CPU")
    def test_all_that_the_cpuset_has(self, ours: Any, bundle: Any, cid: str) -> None:
        every = sorted(os.sched_getaffinity(0))
        bound = type(ours)(["taskset", "-c", str(every[0]), *ours.command], ours.root)
        for cpus in (None, str(every[1])):
            made = bundle("sh", "-c", f"({self.CPUS}); exec sleep 1000", linux__resources={"cpu": {"cpus": cpus}})
            config = json.loads((made / "config.json").read_text())
            if cpus is None:
                del config["linux"]["resources"]
            (made / "config.json").write_text(json.dumps(config))
            assert bound.create(made, cid).returncode == 0
            assert bound("start", cid).returncode == 0
            wanted = {int(cpus)} if cpus else set(every)
            assert os.sched_getaffinity(ours.state(cid)["pid"]) == wanted
            assert bound("exec", cid, "sh", "-c", self.CPUS).stdout.split()[1] == cpus_text(wanted)
            assert ours("delete", "--force", cid).returncode == 0

    @pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one CPU")
    def test_a_deadline_and_some_cpus(self, ours: Any, bundle: Any, cid: str) -> None:
        wanted = {"policy": "SCHED_DEADLINE", "runtime": 42000, "deadline": 1000000, "period": 1000000}
        first = str(min(os.sched_getaffinity(0)))
        made = bundle("true", process__scheduler=wanted, linux__resources={"cpu": {"cpus": first}})
        done = ours.run(made, cid)
        assert done.returncode == 1
        assert "process scheduler can't be used together with AllowedCPUs" in done.stderr


def cpus_text(cpus: set[int]) -> str:
    from mydocker.resources import format_cpu_list

    return format_cpu_list(cpus)


class TestMemoryPolicy:
    SHOW = "head -n 1 /proc/self/numa_maps | cut -d ' ' -f 2"

    @pytest.mark.parametrize(
        ("policy", "seen"),
        [
            ({"mode": "MPOL_DEFAULT"}, "default"),
            ({"mode": "MPOL_LOCAL"}, "local"),
            ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
            ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
            ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "prefer=relative:0"),
        ],
        ids=lambda value: value["mode"] if isinstance(value, dict) else "",
    )
    @pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="the kernel knows no memory nodes")
    def test_of_the_command_and_of_exec(
        self, policy: dict[str, Any], seen: str, ours: Any, bundle: Any, cid: str
    ) -> None:
        made = bundle("sh", "-c", f"{self.SHOW}; {self.SHOW} >/seen; exec sleep 1000", linux__memoryPolicy=policy)
        assert ours.create(made, cid).returncode == 0
        assert ours("start", cid).returncode == 0
        assert ours("exec", cid, "sh", "-c", self.SHOW).stdout == f"{seen}\n"
        maps = Path(f"/proc/{ours.state(cid)['pid']}/numa_maps").read_text()
        assert maps.split()[1] == seen

    def test_what_the_kernel_refuses_is_named(self, ours: Any, bundle: Any, cid: str) -> None:
        made = bundle("touch", "/ran", linux__memoryPolicy={"mode": "MPOL_BIND", "nodes": "1023"})
        done = ours.run(made, cid)
        assert done.returncode == 1
        assert "linux.memoryPolicy" in done.stderr
        assert not (made / "rootfs/ran").exists()


def test_what_is_not_executed_is_said_in_its_place(ours: Any, bundle: Any, cid: str, tmp_path: Path) -> None:
    """As the command's own words, and in the log in the log's form."""
    made = bundle("/script")
    script = made / "rootfs/script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    said = "exec /script: no such file or directory"
    assert ours.run(made, cid).stderr == f"{said}\n"
    log = tmp_path / "log"
    done = ours("--log", log, "--log-format", "json", "run", "-b", made, cid)
    assert (done.returncode, done.stderr) == (1, f"{said}\n")
    assert json.loads(log.read_text())["msg"] == said
