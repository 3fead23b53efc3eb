"""Children that go to their command by machine code do as those do in which the interpreter does it."""

from __future__ import annotations

import errno
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker import api, table, waiting
from mydocker.cgroups.layout import Layout
from mydocker.linux import rights
from mydocker.plan import Plan
from mydocker.spawning import client
from mydocker.spec import Tmpfs, Volume

Outcome = tuple[object, ...]


def _tmpfs(destination: str, **options: Any) -> Tmpfs:
    return Tmpfs(destination=destination, **options)


def _volume(source: str, destination: str, **options: Any) -> Volume:
    return Volume(source=source, destination=destination, **options)


def outcome(run: Callable[..., mydocker.Result], argv: list[str], **options: Any) -> Outcome:
    try:
        result = run(argv, capture_output=True, text=True, **options)
    except mydocker.MydockerError as error:
        return type(error), str(error)
    return result.exit_code, result.stdout, result.stderr


def by_interpreter(argv: list[str], **options: Any) -> mydocker.Result:
    """A traced run's child tells of each step, and so takes each by itself."""
    return mydocker.run(argv, trace=True, **options)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no machine code for this machine")
def test_it_is_what_stands_by_and_what_runs(rootfs: Path) -> None:
    with mydocker.Spawner(prepare=1, rootfs=rootfs, memory="50m") as spawner:
        pool = spawner._pool
        assert pool is not None
        assert all(container.child.landing for container in pool._ready)
        assert spawner.run(["true"]).exit_code == 0


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Directories for PATH in which the command is what their names say."""
    found = {name: tmp_path / name for name in ("none", "good", "plain", "directory", "script", "file", "other", "odd")}
    for place in found.values():
        place.mkdir()
    found["file"].rmdir()
    found["file"].write_text("")
    (found["good"] / "it").symlink_to("/bin/echo")
    (found["plain"] / "it").write_text("no program")
    (found["directory"] / "it").mkdir()
    (found["script"] / "it").write_text("#!/no/such/interpreter\n")
    (found["script"] / "it").chmod(0o755)
    (found["other"] / "it").write_text("neither one thing nor the other")
    (found["other"] / "it").chmod(0o755)
    (found["odd"] / "it").write_bytes(b"#!/bin/sh\nprintf '%s|' \"$@\"; env\n")
    (found["odd"] / "it").chmod(0o755)
    return found


@pytest.mark.parametrize(
    "path",
    [
        ["good"],
        ["none", "good"],
        ["file", "good"],
        ["plain", "good"],
        ["directory", "good"],
        ["plain", "none"],
        ["directory"],
        ["none"],
        ["script", "good"],
        ["other", "good"],
        ["none", "odd"],
        [],
    ],
    ids="-".join,
)
def test_a_command_is_looked_up_alike(places: dict[str, Path], path: list[str]) -> None:
    env = {"PATH": ":".join(str(places[name]) for name in path), "A": "b", "B": "", "PWD": "/"}
    argv = ["it", "", "two words", "\udcff", "x" * 5000]
    assert outcome(mydocker.run, argv, env=env) == outcome(by_interpreter, argv, env=env)


@pytest.mark.parametrize(
    "argv", [["/bin/echo", "a"], ["./echo", "a"], ["/etc/passwd"], ["/etc/passwd/x"], ["/"], ["x" * 300]]
)
def test_a_path_is_taken_alike(argv: list[str]) -> None:
    assert outcome(mydocker.run, argv, cwd="/bin") == outcome(by_interpreter, argv, cwd="/bin")


def test_without_a_path_in_the_environment(rootfs: Path) -> None:
    for env in ({}, {"PATH": ""}, {"XPATH": "/none"}):
        kind = {"rootfs": rootfs, "env": env}
        assert outcome(mydocker.run, ["sh", "-c", "echo $0 $PATH"], **kind) == outcome(
            by_interpreter, ["sh", "-c", "echo $0 $PATH"], **kind
        )


@pytest.mark.parametrize("size", [0, 1, 65_000, 65_536, 100_000])
@pytest.mark.parametrize("count", [1, 20])
def test_arguments_of_any_size_arrive_exactly(size: int, count: int) -> None:
    words = ["".join(chr(33 + (n + at) % 90) for at in range(size)) for n in range(count)]
    script = "import hashlib, sys; print(hashlib.sha256(repr(sys.argv[1:]).encode()).hexdigest())"
    expected = outcome(by_interpreter, [sys.executable, "-c", script, *words])
    assert expected[0] == 0
    assert outcome(mydocker.run, [sys.executable, "-c", script, *words]) == expected


def test_more_arguments_than_the_kernel_takes() -> None:
    words = ["x" * 100_000] * 90  # more than there is room for where they land
    assert sum(map(len, words)) > table.ROOM
    for argv in (["true", *words], ["true", "x" * 200_000], ["no-such-command", *words]):
        found = outcome(mydocker.run, argv)
        assert found == outcome(by_interpreter, argv)
        assert isinstance(found[0], type)


@pytest.mark.parametrize(
    "options",
    [
        {"cwd": "/no/such/place"},
        {"cwd": "/proc/self/fd/4"},
        {"user": "1234:1234", "cwd": "/root"},
        {"hostname": "h" * 64},
        {"hostname": "h" * 65},
        {"network": "host", "user": "nobody"},
        {"cap_drop": ["ALL"]},
        {"cap_add": ["ALL"], "seccomp": "unconfined"},
        {"memory": "50m", "cpu_shares": 512, "pids_limit": 20, "cpuset_cpus": "0"},
        {"readonly": True},
        {"privileged": True},
        {"cwd": "/etc/passwd"},
        {"mounts": [_tmpfs("/tmp", size=1 << 20), _volume("/usr", "/root", readonly=True)]},
        {"mounts": [_tmpfs("/dev/shm", mode=0o700, exec=True), _volume("/etc/hostname", "/etc/hosts")]},
    ],
    ids=str,
)
def test_what_it_has_and_what_is_refused_is_alike(options: dict[str, Any], rootfs: Path) -> None:
    look = (
        "hostname; pwd; id; ulimit -a; umask; grep -e Cap -e Sec -e NoNew -e Groups /proc/self/status; "
        "ls /sys/fs/cgroup /dev /proc/self/fd; cut -d' ' -f4- /proc/self/mountinfo; cat /proc/net/dev"
    )
    os.chmod(rootfs, 0o755)
    for path in ("etc/hosts", "etc/passwd"):
        (rootfs / path).touch()
    for path in ("tmp", "root"):
        (rootfs / path).mkdir(exist_ok=True)
    for root in ({}, {"rootfs": rootfs}):
        if root and "user" in options:
            continue
        argv = ["sh", "-c", look]
        found = outcome(mydocker.run, argv, **root, **options)
        expected = outcome(by_interpreter, argv, **root, **options)
        if root and "hostname" not in options:  # it is the container's id
            found, expected = (
                (code, str(out).partition("\n")[2], *rest) for code, out, *rest in (found, expected)
            )
        assert found == expected


def test_each_has_a_session_keyring_of_its_own() -> None:
    session = "import ctypes; print(ctypes.CDLL(None).syscall(250 if 'x86' in {0!r} else 219, 0, -3, 0))"
    argv = [sys.executable, "-c", session.format(platform.machine())]
    run = partial(mydocker.run, argv, seccomp="unconfined", capture_output=True, check=True)
    found = [int(run(trace=trace).stdout) for trace in (True, False, False, False)]
    assert min(found) > 0
    assert len(set(found)) == len(found)


@pytest.fixture(params=["traced", "first", "from a spare child"])
def once(request: pytest.FixtureRequest) -> Callable[..., mydocker.Result]:
    """Runs by the interpreter, by machine code, and by what machine code has set up before."""
    if request.param == "traced":
        return by_interpreter
    if request.param == "first":
        return mydocker.run

    def run(argv: list[str], **options: Any) -> mydocker.Result:
        for _ in range(2):
            mydocker.run(["true"], **options)
        return mydocker.run(argv, **options)

    return run


def test_a_volume_that_holds_the_root_shows_what_the_host_has_there(
    once: Callable[..., mydocker.Result], rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the container's /proc, without what is to protect it. The state is what a root is put together in."""
    outer = rootfs.parent
    (outer / "state").mkdir()
    monkeypatch.setenv("MYDOCKER_STATE_DIR", str(outer / "state/here"))
    (rootfs / "outer").mkdir()
    for options in ({"rootfs": rootfs}, {"rootfs": rootfs, "readonly": True}):
        argv = ["sh", "-c", f"grep ' /outer' /proc/self/mountinfo; ls /outer/{rootfs.name}/proc"]
        result = once(argv, capture_output=True, text=True, mounts=[_volume(str(outer), "/outer")], **options)
        assert result.exit_code == 0
        assert [line.split()[4] for line in str(result.stdout).splitlines()] == ["/outer"]


def test_a_volume_of_the_root_is_as_the_host_has_it(once: Callable[..., mydocker.Result], rootfs: Path) -> None:
    (rootfs / "data").mkdir()
    (rootfs / "place").mkdir()
    mounts = [_volume(str(rootfs / "data"), "/place")]
    argv = ["sh", "-c", "touch /place/written && ! touch /data/refused 2>/dev/null"]
    assert once(argv, rootfs=rootfs, readonly=True, mounts=mounts).exit_code == 0
    assert os.listdir(rootfs / "data") == ["written"]


def test_a_volume_of_all_the_host_has_a_proc_that_is_protected(
    once: Callable[..., mydocker.Result], tmp_path: Path
) -> None:
    argv = ["sh", "-c", 'grep -F " $1/proc/sys ro," /proc/self/mountinfo; cat "$1/proc/keys"', "sh", str(tmp_path)]
    result = once(argv, capture_output=True, text=True, mounts=[_volume("/", str(tmp_path))])
    assert result.exit_code == 0
    assert len(str(result.stdout).splitlines()) == 1


def _refusals(number: int) -> list[int]:
    """Of the kinds of container that were run last: how often one could not be set up by machine code."""
    return [kind.refusals for kind in api.means().helper._kinds[:number]]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no machine code for this machine")
def test_it_sets_itself_up_in_memory_of_its_own(rootfs: Path) -> None:
    """Of the helper's it never has any: what waits for its cgroups has a few pages."""
    mydocker.run(["true"], rootfs=rootfs)
    mydocker.run(["true"], rootfs=rootfs)
    kind = api.means().helper._kinds[0]
    assert kind.spare is not None
    assert kind.connection is not None
    child = kind.spare.child
    api.means().helper._take_answer(kind.connection, child)
    maps = Path(f"/proc/{child.pid}/maps").read_text()
    try:
        assert "[stack]" in maps
        assert "[heap]" not in maps
        helpers = Path(f"/proc/{api.means().helper.pid}/maps").read_text()
        assert len(maps.splitlines()) < len(helpers.splitlines()) / 3  # what is beside the stack of a thread is kept
    finally:
        kind.spare.end()
        kind.spare = None
    assert _refusals(1) == [0]


def test_the_interpreter_does_what_machine_code_cannot(rootfs: Path) -> None:
    for _ in range(3):
        mounts = [_tmpfs("/not/there/before"), _volume("/etc", "/nor/this")]
        result = mydocker.run(["stat", "/not/there/before", "/nor/this/passwd"], rootfs=rootfs, mounts=mounts)
        assert result.exit_code == 0
        in_dev = [_tmpfs("/dev/a place")]
        assert mydocker.run(["stat", "/dev/a place"], rootfs=rootfs, mounts=in_dev).exit_code == 0
        assert mydocker.run(["true"], rootfs=rootfs).exit_code == 0
    if platform.machine() == "x86_64":
        assert _refusals(3) == [0, 2, 1]  # what was missing in the root is there now, in /dev it never is


def _open_files() -> int:
    """But for the list of children that the thread which was the helper's parent reads until it ends."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += not os.readlink(f"/proc/self/fd/{fd}").endswith("/children")
        except OSError:  # it was that, or this list
            pass
    return found


def test_an_order_that_cannot_be_prepared_leaves_nothing_open(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    api.close()
    before = _open_files()
    for _ in range(2):
        mydocker.run(["true"], rootfs=rootfs)
    with monkeypatch.context() as patch:
        patch.setattr(rights, "pair", refuse)  # of which a run that has a spare child has no need itself
        assert mydocker.run(["true"], rootfs=rootfs).exit_code == 0
    assert mydocker.run(["true"], rootfs=rootfs).exit_code == 0
    api.close()
    assert _open_files() == before


def test_kinds_in_turns(rootfs: Path) -> None:
    """The memory that a child gets is another for each kind, and all of it where the interpreter is to run."""
    for _ in range(4):
        for options in ({}, {"rootfs": rootfs}, {"init": True}, {"overlay": True}, {"memory": "50m"}):
            result = mydocker.run(["sh", "-c", "date > /dev/null; echo well"], capture_output=True, **options)
            assert (result.exit_code, result.stdout) == (0, b"well\n")


def test_one_that_waits_ends_with_its_program(tmp_path: Path, eventually: Callable[..., object]) -> None:
    """And executes nothing: neither what waits for its cgroups nor what waits for its command."""
    log = tmp_path / "log"
    source = f"""if True:
        import mydocker, os, signal
        for _ in range(3):
            mydocker.run(["true"])
        with mydocker.Spawner(prepare=2, memory="50m") as spawner:
            with open({str(log)!r}, "w") as file:
                me = f"/proc/self/task/{{os.getpid()}}/children"
                file.write(open(me).read())
            os.kill(os.getpid(), signal.SIGKILL)
        """
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", source])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    children = log.read_text().split()
    assert len(children) >= 3  # two that stand by, the helper, and mostly a spare one
    eventually(lambda: not any(os.path.exists(f"/proc/{child}") for child in children))
    mydocker.run(["true"])  # removes what it has left


def test_a_helper_of_many_kinds_of_container_stays_small(tmp_path: Path) -> None:
    """And where there is no memory for the tables of one, the interpreter does without."""
    for number in range(70):
        place = tmp_path / str(number)
        place.mkdir()
        result = mydocker.run(["pwd"], cwd=place, capture_output=True, text=True)
        assert result.stdout == f"{place}\n"
    with open(f"/proc/{api.means().helper.pid}/status") as status:
        sizes = dict(line.split(":", 1) for line in status)
    assert int(sizes["VmSize"].split()[0]) < 450_000  # KiB: some thirty times 8 MiB, and not seventy


def test_a_spare_child_that_fails_names_the_step(
    rootfs: Path, eventually: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls are others than those of a child that is made for its container."""
    monkeypatch.setattr(client, "_KEPT", 60.0)
    for _ in range(2):
        mydocker.run(["true"], rootfs=rootfs, cwd="/work", memory="50m")

    def waits() -> bool:
        """In its recvmsg(2), x86-64's call of the number 47 (proc_pid_syscall(5))."""
        calls = []
        for task in Path("/proc/self/task").iterdir():
            calls += [Path(f"/proc/{pid}/syscall").read_text() for pid in (task / "children").read_text().split()]
        return any(call.startswith("47 ") for call in calls)

    eventually(waits)
    (rootfs / "work").rmdir()
    plans: list[Plan] = []
    real = waiting.failed_step

    def failed_step(plan: Plan, outcome: int) -> object:
        plans.append(plan)
        return real(plan, outcome)

    monkeypatch.setattr(waiting, "failed_step", failed_step)
    with pytest.raises(mydocker.MydockerError, match="cannot enter the working directory /work: No such file"):
        mydocker.run(["true"], rootfs=rootfs, cwd="/work", memory="50m")
    assert [plan.entered for plan in plans] == [(Layout.read().require("memory").mountpoint,)]
    assert mydocker.run(["true"], rootfs=rootfs, cwd="/work", memory="50m").exit_code == 0


def test_without_memory_for_the_tables() -> None:
    mydocker.run(["true"])
    helper = api.means().helper.pid
    with open(f"/proc/{helper}/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    _, hard = resource.prlimit(helper, resource.RLIMIT_AS)
    resource.prlimit(helper, resource.RLIMIT_AS, (size + (4 << 20), hard))
    for _ in range(3):
        result = mydocker.run(["echo", "well"], cwd="/etc", capture_output=True, text=True)
        assert (result.exit_code, result.stdout) == (0, "well\n")
    assert api.means().helper.pid == helper
