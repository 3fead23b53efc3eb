"""mydocker doctor on this host: each claim beside an independent look at the kernel."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocker import state
from mydocker.linux import mount, process

pytestmark = pytest.mark.vm

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

PATIENCE = 120
FLAGS = {"mnt": "-m", "uts": "-u", "ipc": "-i", "pid": "-pf", "net": "-n", "cgroup": "-C", "time": "-T", "user": "-U"}
CAP_SYS_RESOURCE = 24


class Examination:
    """What doctor says: its exit code and the checks by name."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stderr == ""
        self.report = json.loads(done.stdout)
        self.exit_code = done.returncode
        self._checks = {(check["group"], check["name"]): check for check in self.report["checks"]}

    def __getitem__(self, name: tuple[str, str]) -> dict[str, str]:
        return self._checks[name]

    def ok(self, group: str, name: str) -> bool:
        return self._checks[group, name]["status"] == "ok"

    def all(self, group: str) -> dict[str, dict[str, str]]:
        return {name: check for (own, name), check in self._checks.items() if own == group}


@pytest.fixture
def doctor() -> Callable[..., Examination]:
    def examine(*before: str, **options: Any) -> Examination:
        command = [*before, sys.executable, "-m", "mydocker", "doctor", "--format", "json"]
        settings = {"capture_output": True, "text": True, "timeout": PATIENCE, "check": False, **options}
        return Examination(subprocess.run(command, stdin=subprocess.DEVNULL, **settings))  # noqa: PLW1510

    return examine


def works(*command: str, **options: Any) -> bool:
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False, **options)
    return done.returncode == 0


def status_of(pid: int | str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def places() -> dict[str, str]:
    """Controller to ``v1 at MOUNTPOINT``, by nothing but mountinfo and cgroup.controllers."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = (part.split() for part in line.split(" - "))
        if after[0] == "cgroup":
            for word in after[2].split(","):
                found[word] = f"v1 at {before[4]}"
        elif after[0] == "cgroup2":
            for word in Path(before[4], "cgroup.controllers").read_text().split():
                found[word] = f"v2 at {before[4]}"
    return found


def test_its_verdict_is_that_of_a_run(doctor: Callable[..., Examination], run: Run) -> None:
    found = doctor()
    assert run("-w", "/", "true").returncode == 0
    assert (found.exit_code, found.report["works"]) == (0, True)
    assert found.ok("kernel", "overlayfs") == (run("--overlay", "-w", "/", "true").returncode == 0)
    assert found.report["user"] == "root"
    assert sum(found.report["summary"].values()) == len(found.report["checks"])


def test_every_check_has_a_fact_and_what_is_wrong_has_advice(doctor: Callable[..., Examination]) -> None:
    for check in doctor().report["checks"]:
        assert check["status"] in ("ok", "warning", "missing", "not needed"), check
        assert check["fact"] and not check["fact"].endswith("."), check
        assert "\n" not in check["fact"] + check["advice"], check
        if check["status"] in ("warning", "missing"):
            assert check["advice"], check


def test_controllers_are_where_mountinfo_has_them(doctor: Callable[..., Examination]) -> None:
    found, there = doctor(), places()
    checks = found.all("cgroups")
    for name in ("memory", "cpu", "cpuset", "pids", "hugetlb", "rdma", "misc", "cpuacct", "freezer", "devices"):
        if name in there:
            assert checks[name]["status"] == "ok", name
            assert checks[name]["fact"].startswith(there[name]), name
        else:
            assert checks[name]["status"] in ("missing", "not needed"), name
    disks = checks["blkio" if "blkio" in there else "io"]
    assert disks["fact"].startswith(there.get("blkio") or there["io"])


def test_the_layout_is_that_of_the_mounts(doctor: Callable[..., Examination]) -> None:
    kinds = {line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    expected = {
        (True, False): "cgroup v1: ",
        (False, True): "cgroup v2: ",
        (True, True): "cgroup v1 and v2 side by side: ",
    }["cgroup" in kinds, "cgroup2" in kinds]
    assert doctor()["cgroups", "layout"]["fact"].startswith(expected)


def test_namespaces_can_be_made_where_unshare_can(doctor: Callable[..., Examination]) -> None:
    found = doctor()
    for kind, flag in FLAGS.items():
        assert found.ok("namespaces", kind) == works("unshare", flag, "true"), kind


def test_without_the_capability_nothing_works(doctor: Callable[..., Examination]) -> None:
    drop = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all")
    found = doctor(*drop)
    assert found.exit_code == 1
    assert found["security", "capabilities"]["status"] == "missing"
    assert "CAP_SYS_ADMIN" in found["security", "capabilities"]["fact"]
    assert "root cannot start one" in found["mydocker", "container"]["fact"]
    assert found["namespaces", "uts"]["status"] == ("ok" if works(*drop, "unshare", "-Uu", "true") else "missing")


def test_capabilities_and_hard_limits(doctor: Callable[..., Examination]) -> None:
    found = doctor()
    permitted = int(status_of("self")["CapPrm"], 16)
    assert found.ok("resources", "rlimits") == bool(permitted >> CAP_SYS_RESOURCE & 1)
    assert ("CAP_SYS_RESOURCE" in found["security", "capabilities"]["fact"]) != found.ok("resources", "rlimits")
    limited = ("prlimit", "--nofile=200:200", "setpriv", "--bounding-set=-sys_resource", "--inh-caps=-all")
    assert not works(*limited, "prlimit", "--nofile=300:300", "true")
    assert "200 for open files" in doctor(*limited)["resources", "rlimits"]["fact"]


def test_swap_and_pressure(doctor: Callable[..., Examination], layout: Any) -> None:
    found = doctor()
    try:
        Path("/proc/pressure/memory").read_text()
        readable = True
    except OSError:
        readable = False
    assert found.ok("cgroups", "pressure") == readable
    if layout.version("memory") == 1:
        counted = Path(layout.find("memory").base, "memory.memsw.limit_in_bytes").exists()
        assert found.ok("cgroups", "swap accounting") == counted
    swaps = len(Path("/proc/swaps").read_text().splitlines()) - 1
    assert f"{swaps or 'no'} swap device" in found["cgroups", "swap accounting"]["fact"]


def test_swap_accounting_is_what_a_limit_finds(doctor: Callable[..., Examination], run: Run, layout: Any) -> None:
    limited = run("-w", "/", "-m", "64m", "--memory-swap", "96m", "true")
    assert (limited.returncode == 0) == doctor().ok("cgroups", "swap accounting"), limited.stderr


def test_huge_pages_and_schedulers(doctor: Callable[..., Examination]) -> None:
    found = doctor()
    pools = Path("/sys/kernel/mm/hugepages")
    sizes = len(list(pools.iterdir())) if pools.exists() else 0
    check = found["resources", "huge pages"]
    assert (check["status"] == "ok" and len(check["fact"].split(", ")) == sizes) or sizes == 0
    for file in Path("/sys/block").glob("[sv]d*/queue/scheduler"):
        (active,) = re.findall(r"\[(.*)\]", file.read_text())
        assert f"{file.parent.parent.name} has {active}" in found["resources", "io schedulers"]["fact"]


def test_every_limit_is_there_with_its_probe(doctor: Callable[..., Examination]) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "mydocker", "subsystems", "--format", "json"], capture_output=True, check=True, text=True
    )
    expected = {row["name"]: row["works"] for row in json.loads(listed.stdout)}
    assert {name: check["status"] == "ok" for name, check in doctor().all("limits").items()} == {
        name: True if answer is None else answer for name, answer in expected.items()
    }


def test_without_cgroup_mounts(doctor: Callable[..., Examination], run: Run) -> None:
    def cover() -> None:
        process.unshare(process.CLONE_NEWNS)
        mount.make_all_private()
        empty = mount.new_filesystem(b"tmpfs")
        mount.attach(empty, os.open("/sys/fs/cgroup", os.O_PATH | os.O_DIRECTORY))

    found = doctor(preexec_fn=cover)
    assert found["cgroups", "layout"]["status"] == found["cgroups", "memory"]["status"] == "missing"
    assert "mount cgroup2 on /sys/fs/cgroup" in found["cgroups", "layout"]["advice"]
    assert found["limits", "memory"]["status"] == "missing"
    assert found.report["works"] == (run("-w", "/", "true", preexec_fn=cover).returncode == 0)
    assert run("-w", "/", "-m", "64m", "true", preexec_fn=cover).returncode == 125


def test_with_sys_read_only(doctor: Callable[..., Examination], run: Run) -> None:
    def close() -> None:
        process.unshare(process.CLONE_NEWNS)
        mount.make_all_private()
        view = mount.clone_tree(mount.AT_FDCWD, b"/sys", recursive=True)
        mount.set_attributes(view, set_=mount.MOUNT_ATTR_RDONLY, recursive=True)
        mount.attach(view, os.open("/sys", os.O_PATH | os.O_DIRECTORY))

    found = doctor(preexec_fn=close)
    assert found["cgroups", "delegation"]["status"] == "missing"
    assert found["cgroups", "memory"]["advice"] == "see delegation"
    assert found["limits", "memory"]["status"] == "missing"
    assert found.report["works"] == (run("-w", "/", "true", preexec_fn=close).returncode == 0)
    assert run("-w", "/", "-m", "64m", "true", preexec_fn=close).returncode == 125


@pytest.mark.parametrize("place", ["/proc", "/sys", "/dev"])
def test_with_nothing_at(doctor: Callable[..., Examination], run: Run, place: str) -> None:
    def cover() -> None:
        process.unshare(process.CLONE_NEWNS)
        mount.make_all_private()
        mount.attach(mount.new_filesystem(b"tmpfs"), os.open(place, os.O_PATH | os.O_DIRECTORY))

    found = doctor(preexec_fn=cover)
    assert found["kernel", "/proc, /sys, /dev"]["fact"].startswith(f"{place} is not mounted")
    assert found.report["works"] == (run("-w", "/", "true", preexec_fn=cover).returncode == 0)
    assert found.ok("namespaces", "uts")


def test_inside_a_container_of_ours(run: Run) -> None:
    inside = run("-w", "/", sys.executable, "-m", "mydocker", "doctor", "--format", "json", timeout=PATIENCE)
    found = Examination(inside)
    again = run("-w", "/", sys.executable, "-m", "mydocker", "run", "true")
    assert found.report["works"] == (again.returncode == 0)
    assert found["security", "capabilities"]["status"] == "missing"


def test_what_a_killed_runtime_leaves_is_shown_and_left_alone(
    doctor: Callable[..., Examination], start: Start, run: Run, eventually: Callable[..., object], state_dir: Path
) -> None:
    assert doctor().ok("mydocker", "leftovers")
    runtime = start("--name", "left-alone", "-m", "64m", "-w", "/", "sleep", "1000")
    eventually(lambda: getattr(state.read(str(state_dir / "left-alone")), "pid", 0))
    assert doctor().ok("mydocker", "leftovers"), "it runs"
    runtime.kill()
    runtime.wait()
    check = doctor()["mydocker", "leftovers"]
    assert check["status"] == "warning" and "left-alone" in check["fact"]
    assert (state_dir / "left-alone/lock").exists()
    assert run("-w", "/", "true").returncode == 0  # as the advice says
    assert doctor().ok("mydocker", "leftovers")


def test_nothing_is_made_that_stays(
    doctor: Callable[..., Examination], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    for variable in ("XDG_CACHE_HOME", "TMPDIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    subtrees = {file: file.read_text() for file in Path("/sys/fs/cgroup").glob("**/cgroup.subtree_control")}
    assert doctor().exit_code == 0
    kept = [path.name for path in (tmp_path / "XDG_CACHE_HOME").rglob("*") if path.is_file()]
    assert all(name.startswith("code-") for name in kept), "the compiled code that any command keeps"
    assert list((tmp_path / "TMPDIR").iterdir()) == []
    assert not state_dir.exists()
    assert all(file.read_text() == text for file, text in subtrees.items() if file.exists())


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_on_a_terminal(variables: dict[str, str], coloured: bool) -> None:
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "", **variables}
    if not variables:
        environment.pop("NO_COLOR", None)
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "mydocker", "doctor"]
    with subprocess.Popen(command, stdout=slave, stderr=slave, env=environment) as process_:
        os.close(slave)
        shown = b""
        try:
            while data := os.read(master, 4096):
                shown += data
        except OSError:  # EIO: nobody has the other end any more
            pass
    os.close(master)
    text = shown.decode()
    assert ("\033[" in text) == coloured
    plain = re.sub("\033\\[[0-9;]*m", "", text)
    assert "mydocker run works here for root." in plain
    assert all(len(line.rstrip()) <= 80 or " " not in line.strip() for line in plain.splitlines() if "->" in line)
    assert process_.returncode == 0


def test_a_state_directory_that_cannot_be_made(doctor: Callable[..., Examination], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = doctor(env={**os.environ, "MYDOCKER_STATE_DIR": str(tmp_path / "file/state")})
    assert found["mydocker", "state directory"]["status"] == "missing"
    assert found.exit_code == 1


def test_temporary_files_need_a_place(doctor: Callable[..., Examination]) -> None:
    # as on a host whose file systems are read-only but for /run
    found = doctor(env={**os.environ, "TMPDIR": "/proc"})
    assert found.exit_code == 0
    assert not [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("mydocker-doctor-")]
