"""The checks of mydocker doctor on hosts that are made up: what each absence leads to, and how it is printed."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mydocker import cli, doctor
from mydocker.cgroups.layout import Hierarchy, Layout
from mydocker.cli import doctor as printing
from mydocker.doctor import cgroups, installation, kernel, namespaces, resources, security, trials
from mydocker.doctor import plugins as plugin_checks
from mydocker.doctor.check import Check, missing, not_needed, ok, warning
from mydocker.doctor.host import Host
from mydocker.doctor.trials import Outcome
from mydocker.linux.capabilities import NAMES, mask
from mydocker.plugins import Registry

FINE = Outcome()
EPERM, ENOSYS = (Outcome(errno=number, text="as the kernel says") for number in (errno.EPERM, errno.ENOSYS))
STATUS = "Name:\tpython\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n"


class MadeUpHost(Host):
    """Root on a host that has all; a test takes something away. Files below ``real`` are read from there."""

    def __init__(self, real: Path) -> None:
        self.uid = 0
        self.release, self.machine = "6.1.0-49-amd64", "x86_64"
        self.layout = Layout.of(())
        self.permitted = mask(NAMES)
        self.real = str(real)
        self.files: dict[str, str] = {
            "/proc/self/status": STATUS,
            "/proc/self/cgroup": "",
            "/proc/filesystems": "nodev\toverlay\n",
            "/dev/ptmx": "",
            "/dev/pts": "",
            "/dev/null": "",
            "/sys/kernel": "",
            "/proc/self/ns": "",
            **{f"/proc/self/ns/{kind}": "" for kind in trials.NAMESPACES},
        }
        self.closed: set[str] = set()
        self.programs: tuple[str, ...] = ()
        self.attributes: dict[str, str] = {}
        self.outcomes: dict[str, Outcome] = {}

    @property
    def login(self) -> str:
        return "root" if self.uid == 0 else "alice"

    def become_alice(self) -> None:
        self.uid, self.permitted = 1000, 0

    def read(self, path: str) -> str | None:
        return super().read(path) if path.startswith(self.real) else self.files.get(path)

    def exists(self, path: str) -> bool:
        return super().exists(path) if path.startswith(self.real) else path in self.files

    def names(self, directory: str) -> list[str]:
        if directory.startswith(self.real):
            return super().names(directory)
        below = [path.removeprefix(f"{directory}/") for path in self.files if path.startswith(f"{directory}/")]
        return sorted({path.partition("/")[0] for path in below})

    def is_directory(self, path: str) -> bool:
        return super().is_directory(path) if path.startswith(self.real) else self.exists(path)

    def writable(self, path: str) -> bool:
        return self.exists(path) and not any(path.startswith(closed) for closed in self.closed)

    def attribute(self, path: str, name: str) -> str | None:
        return self.attributes.get(f"{path} {name}")

    def program(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.programs else None

    def limit(self, name: str) -> tuple[int, int]:
        return 1024, 4096

    def trial(self, name: str) -> Outcome:
        return self.outcomes.get(name, FINE)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUpHost:
    monkeypatch.setenv("MYDOCKER_STATE_DIR", str(tmp_path / "run/mydocker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MYDOCKER_CONFIG", "")
    return MadeUpHost(tmp_path)


@pytest.fixture
def hierarchy(host: MadeUpHost) -> Callable[..., Hierarchy]:
    """Adds a hierarchy to the host's layout: its directory, with the files that every cgroup has."""

    def add(version: int, name: str, *controllers: str, base: str = "", files: Mapping[str, str] | None = None) -> Any:
        mountpoint = Path(host.real, "cgroup", name)
        directory = mountpoint / base
        directory.mkdir(parents=True, exist_ok=True)
        everywhere = {"cgroup.procs": ""} | ({"cgroup.sane_behavior": "0"} if version == 1 else {})
        for place in {mountpoint, directory}:
            for file, text in everywhere.items():
                (place / file).write_text(text)
        for file, text in (files or {}).items():
            (mountpoint / file).parent.mkdir(parents=True, exist_ok=True)
            (mountpoint / file).write_text(text)
        added = Hierarchy(
            version=version, mountpoint=str(mountpoint), controllers=controllers, own=f"/{base}", base=str(directory)
        )
        host.layout = Layout.of((*host.layout.hierarchies, added))
        return added

    return add


def named(checks: Any, name: str) -> Check:
    (found,) = (check for check in checks if check.name == name)
    assert isinstance(found, Check)
    return found


def test_a_host_that_has_all_is_fine(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    (Path(host.real) / "run").mkdir()
    host.files |= {
        "/proc/sys/kernel/seccomp/actions_avail": "allow",
        "/sys/kernel/security/lsm": "capability,yama",
        "/proc/swaps": "Filename\n/dev/sda2 partition",
        "/proc/pressure/memory": "some avg10=0.00",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "4",
        "/sys/block/sda/queue/scheduler": "none mq-deadline [bfq]",
        "/dev/loop-control": "",
    }
    hierarchy(2, "v2", "cpuset", "cpu", "io", "memory", "pids", "hugetlb", "rdma", "misc")
    host.outcomes["clone into a cgroup"] = Outcome(errno=errno.EBADF, text="Bad file descriptor")
    report = doctor.examine(host)
    assert report.works
    found = [check for group in report.groups.values() for check in group]
    wrong = [check for check in found if check.status in ("warning", "missing")]
    assert [check for check in wrong if check not in report.groups["limits"]] == []


@pytest.mark.parametrize(
    ("release", "status"),
    [("5.12.0", "ok"), ("6.1.0-49-amd64", "ok"), ("10.0", "ok"), ("5.11.22", "missing"), ("4.18.0-553.el8", "missing")],
)
def test_the_kernel_must_have_the_youngest_system_call(host: MadeUpHost, release: str, status: str) -> None:
    host.release = release
    check = kernel.release(host)
    assert (check.status, check.advice) == (status, "" if status == "ok" else "boot Linux 5.12 or newer")


def test_without_the_kernels_file_systems_what_they_tell_is_not_taken_for_absent(host: MadeUpHost) -> None:
    assert kernel.views(host).status == "ok"
    del host.files["/sys/kernel"]
    assert (kernel.views(host).status, kernel.views(host).advice) == ("warning", "mount -t sysfs sysfs /sys")
    host.files = {path: text for path, text in host.files.items() if not path.startswith("/proc")}
    check = kernel.views(host)
    assert check.status == "missing" and check.fact.startswith("/proc and /sys are not mounted")
    assert check.advice == "mount -t proc proc /proc; mount -t sysfs sysfs /sys"
    assert {check.status for check in namespaces.checks(host)} == {"ok", "not needed"}
    assert security.seccomp(host).advice == cgroups.layout(host).advice.partition(";")[0] == "mount -t proc proc /proc"


def test_a_system_call_that_the_kernel_lacks_is_named(host: MadeUpHost) -> None:
    host.outcomes = {f"call {name}": Outcome(errno=errno.EINVAL, text="x") for name in ("openat2", "fsopen")}
    host.outcomes["call mount_setattr"] = ENOSYS
    assert kernel.system_calls(host, "openat2").status == "ok"
    check = kernel.system_calls(host, "mount API")
    assert (check.status, check.advice) == ("missing", "boot Linux 5.12 or newer")
    assert check.fact.startswith("this kernel does not have mount_setattr;")


@pytest.mark.parametrize("outcome", [ENOSYS, EPERM, Outcome(errno=errno.EIO, text="it ended with signal 31")])
def test_a_system_call_that_a_filter_refuses_is_the_filters_fault(host: MadeUpHost, outcome: Outcome) -> None:
    host.files["/proc/self/status"] = STATUS.replace("Seccomp:\t0", "Seccomp:\t2")
    host.outcomes["call clone3"] = outcome
    check = kernel.system_calls(host, "clone3")
    assert check.status == "missing"
    assert check.fact.startswith("clone3 ") and "seccomp filter" in check.fact
    assert "--security-opt seccomp=unconfined" in check.advice


def test_the_kernels_own_refusal_to_a_plain_user_is_not_taken_for_absence(host: MadeUpHost) -> None:
    host.become_alice()
    host.outcomes["call fsopen"] = EPERM
    assert kernel.system_calls(host, "mount API").status == "ok"


def test_clone_into_a_cgroup_is_convenient_and_not_needed(host: MadeUpHost) -> None:
    host.outcomes["clone into a cgroup"] = Outcome(errno=errno.E2BIG, text="Argument list too long")
    assert kernel.clone_into_cgroup(host).status == "not needed"
    host.outcomes["clone into a cgroup"] = Outcome(errno=errno.EBADF, text="Bad file descriptor")
    assert kernel.clone_into_cgroup(host).status == "ok"


def test_overlay(host: MadeUpHost) -> None:
    assert kernel.overlay(host) == ok("overlayfs", "root has started a container with --overlay")
    host.outcomes["container --overlay"] = EPERM
    check = kernel.overlay(host)
    assert (check.status, check.fact) == ("missing", "root cannot use --overlay: as the kernel says")
    host.files["/proc/filesystems"] = "nodev\ttmpfs\n"
    assert "modprobe overlay" in kernel.overlay(host).advice
    # Where no container starts, the mount alone is tried.
    host.outcomes["container"] = EPERM
    assert kernel.overlay(host) == ok("overlayfs", "root can mount a copy-on-write view of a directory")


def test_without_devpts_there_is_no_terminal(host: MadeUpHost) -> None:
    assert kernel.terminal(host).status == "ok"
    host.closed.add("/dev/ptmx")
    assert kernel.terminal(host).status == "warning"
    del host.files["/dev/pts"]
    check = kernel.terminal(host)
    assert check.status == "missing" and "mount -t devpts devpts /dev/pts" in check.advice


@pytest.mark.parametrize("kind", [kind for kind in trials.NAMESPACES if kind not in ("user", "time")])
def test_a_namespace_that_the_kernel_lacks(host: MadeUpHost, kind: str) -> None:
    del host.files[f"/proc/self/ns/{kind}"]
    check = named(namespaces.checks(host), kind)
    assert check.status == "missing" and check.advice.startswith("boot a kernel that was built with CONFIG_")


def test_the_time_namespace_is_not_needed(host: MadeUpHost) -> None:
    del host.files["/proc/self/ns/time"]
    assert named(namespaces.checks(host), "time").status == "not needed"


def test_root_without_the_capability_cannot_make_a_namespace(host: MadeUpHost) -> None:
    host.permitted &= ~mask(["CAP_SYS_ADMIN"])
    host.outcomes = {name: EPERM for name in trials.TRIALS if name.startswith("namespace")}
    check = named(namespaces.checks(host), "uts")
    assert check.status == "missing"
    host.outcomes["namespace user"] = FINE
    assert "CAP_SYS_ADMIN" in named(namespaces.checks(host), "uts").advice


def test_a_namespace_that_the_sysctl_forbids(host: MadeUpHost) -> None:
    host.outcomes["namespace net"] = Outcome(errno=errno.ENOSPC, text="No space left on device")
    host.files["/proc/sys/user/max_net_namespaces"] = "0"
    assert named(namespaces.checks(host), "net") == missing(
        "net",
        "root can make none for the network: No space left on device",
        "sysctl -w user.max_net_namespaces=10000",
    )


def test_a_plain_user_makes_namespaces_in_one_of_his_own(host: MadeUpHost) -> None:
    host.become_alice()
    host.outcomes = {f"namespace {kind}": EPERM for kind in trials.NAMESPACES if kind != "user"}
    checks = list(namespaces.checks(host))
    assert named(checks, "user") == ok("user", "user alice can make one, and is its root")
    assert named(checks, "pid") == ok("pid", "user alice can make one for process numbers in a user namespace")


@pytest.mark.parametrize(
    ("file", "text", "advice"),
    [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("/nothing", "", "look for a seccomp filter or a security module of the outer container"),
    ],
)
def test_why_a_plain_user_can_make_no_user_namespace(host: MadeUpHost, file: str, text: str, advice: str) -> None:
    host.become_alice()
    host.files[file] = text
    host.outcomes = {f"namespace {kind}": EPERM for kind in trials.NAMESPACES}
    checks = list(namespaces.checks(host))
    user = named(checks, "user")
    assert user.status == "missing"
    assert user.advice.startswith(advice) and user.advice.endswith(", or run mydocker as root")
    assert named(checks, "mnt").advice == "see user"


def test_a_user_namespace_without_capabilities_in_it_is_of_no_use(host: MadeUpHost) -> None:
    host.become_alice()
    host.outcomes["capabilities in a user namespace"] = EPERM
    host.files["/proc/sys/kernel/apparmor_restrict_unprivileged_userns"] = "1"
    check = namespaces.user_namespace(host)
    assert check.status == "missing" and "has no capabilities in it" in check.fact and "AppArmor" in check.advice


def test_root_does_without_user_namespaces(host: MadeUpHost) -> None:
    host.outcomes["namespace user"] = EPERM
    assert namespaces.user_namespace(host).status == "warning"
    del host.files["/proc/self/ns/user"]
    assert namespaces.user_namespace(host).status == "not needed"


def test_subordinate_ids(host: MadeUpHost) -> None:
    assert namespaces.subordinate_ids(host).status == "not needed"
    host.become_alice()
    assert namespaces.subordinate_ids(host) == ok("subordinate ids", "containers of user alice have them")
    host.outcomes["subordinate ids"] = Outcome(value="/etc/subuid has no ids for alice")
    nothing = namespaces.subordinate_ids(host)
    assert nothing.status == "warning" and nothing.fact.startswith("/etc/subuid has no ids for alice: a container")
    assert "the package uidmap" in nothing.advice and nothing.advice.endswith("--add-subgids 100000-165535 alice")
    host.programs = ("newuidmap", "newgidmap")
    host.files |= {"/etc/subuid": "bob:1:2\nalice:100000:65536", "/etc/subgid": "alice2:1:2"}
    assert namespaces.subordinate_ids(host).advice.startswith("usermod --add-subuids")
    host.files["/etc/subgid"] = "1000:100000:65536"
    host.outcomes["subordinate ids"] = Outcome(value="no_new_privs is set")
    assert namespaces.subordinate_ids(host).advice == "start mydocker from a login of user alice"


def test_capabilities_that_root_lacks_are_named_with_their_use(host: MadeUpHost) -> None:
    assert security.capability_set(host).status == "ok"
    host.permitted &= ~mask(["CAP_SYS_RESOURCE"])
    check = security.capability_set(host)
    assert check.status == "warning" and "CAP_SYS_RESOURCE, to raise hard limits" in check.fact
    host.permitted &= ~mask(["CAP_SYS_ADMIN"])
    check = security.capability_set(host)
    assert check.status == "missing" and check.advice.endswith("--cap-add SYS_ADMIN")


def test_the_bounding_set_bounds_the_container(host: MadeUpHost) -> None:
    assert security.bounding_set(host).status == "ok"
    host.files["/proc/self/status"] = f"CapBnd:\t{mask(NAMES) & ~mask(['CAP_CHOWN']):016x}\n"
    check = security.bounding_set(host)
    assert check.status == "warning" and check.fact.startswith("it lacks CAP_CHOWN,")
    del host.files["/proc/self/status"]
    assert security.bounding_set(host).advice == "mount -t proc proc /proc"


def test_no_new_privileges(host: MadeUpHost) -> None:
    host.files["/proc/self/status"] = STATUS.replace("NoNewPrivs:\t0", "NoNewPrivs:\t1")
    assert security.no_new_privileges(host).status == "ok"
    host.become_alice()
    assert "newuidmap" in security.no_new_privileges(host).fact


def test_seccomp(host: MadeUpHost) -> None:
    assert "CONFIG_SECCOMP_FILTER" in security.seccomp(host).advice
    host.files["/proc/sys/kernel/seccomp/actions_avail"] = "errno allow"
    assert security.seccomp(host) == ok("seccomp", "filters can be set: errno allow")
    host.files["/proc/self/status"] = STATUS.replace("Seccomp:\t0", "Seccomp:\t2")
    assert security.seccomp(host).status == "warning"


def test_the_library_that_compiles_filters(host: MadeUpHost) -> None:
    host.outcomes["libseccomp"] = Outcome(value="2.5.4")
    assert security.seccomp_library(host).fact.startswith("version 2.5.4 is there")
    host.outcomes["libseccomp"] = Outcome(errno=errno.EIO, text="Missing: no such file")
    assert security.seccomp_library(host).status == "missing"
    assert "libseccomp2" in security.seccomp_library(host).advice
    assert trials.forked(trials.TRIALS["libseccomp"]).value.count(".") == 2


def test_security_modules(host: MadeUpHost) -> None:
    assert [check.status for check in security.security_modules(host)] == ["not needed"]
    host.files["/sys/kernel/security/lsm"] = "capability,apparmor"
    host.files["/sys/module/apparmor/parameters/enabled"] = "Y"
    checks = list(security.security_modules(host))
    assert [check.fact for check in checks] == [
        "this kernel runs capability, apparmor",
        "it is enabled and lets this process do as it likes (unconfined)",
    ]
    host.files["/proc/self/attr/current"] = "docker-default (enforce)\0"
    confined = named(security.security_modules(host), "AppArmor")
    assert confined.status == "warning" and "docker-default (enforce)," in confined.fact


@pytest.mark.parametrize(
    ("enforce", "context", "status"),
    [
        ("0", "system_u:system_r:container_t:s0", "ok"),
        ("1", "unconfined_u:unconfined_r:unconfined_t:s0", "ok"),
        ("1", "system_u:system_r:container_t:s0:c1,c2", "warning"),
    ],
)
def test_selinux(host: MadeUpHost, enforce: str, context: str, status: str) -> None:
    host.files |= {"/sys/fs/selinux/enforce": enforce, "/proc/self/attr/current": f"{context}\0"}
    check = named(security.security_modules(host), "SELinux")
    assert check.status == status and context in check.fact


def test_a_host_without_cgroups(host: MadeUpHost) -> None:
    check = cgroups.layout(host)
    assert check.status == "missing" and "mount cgroup2 on /sys/fs/cgroup; in a container, start" in check.advice
    del host.files["/proc/self/cgroup"]
    assert "CONFIG_CGROUPS" in cgroups.layout(host).advice
    statuses = {check.name: check.status for check in cgroups.checks(host)}
    assert statuses["memory"] == statuses["freezer"] == "missing"
    assert named(cgroups.checks(host), "memory").advice == "see layout"
    assert statuses["delegation"] == statuses["killing"] == statuses["swap accounting"] == "not needed"


def test_each_controller_is_where_the_layout_has_it(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    memory = hierarchy(1, "memory", "memory")
    hierarchy(1, "systemd", "name=systemd")
    unified = hierarchy(2, "unified", "io")
    checks = list(cgroups.checks(host))
    places = f"1 v1 hierarchy and v2 at {unified.mountpoint}"
    assert named(checks, "layout") == ok("layout", f"cgroup v1 and v2 side by side: {places}")
    assert named(checks, "memory").fact == f"v1 at {memory.mountpoint}; containers are made in {memory.base}/mydocker"
    assert named(checks, "io").fact.startswith(f"v2 at {unified.mountpoint};")
    assert named(checks, "cpu").status == "missing"
    assert named(checks, "freezer").status == named(checks, "devices").status == "not needed"
    assert named(checks, "misc").status == "not needed"


def test_blkio_is_how_v1_calls_io(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    hierarchy(1, "disks", "blkio")
    assert named(cgroups.checks(host), "blkio").status == "ok"


@pytest.mark.parametrize(
    ("line", "why", "way"),
    [
        ("pids 0 1 0", "it is switched off", "boot this kernel without cgroup_disable=pids"),
        ("pids 4 1 1", "it is on a cgroup v1 hierarchy that is not mounted here", "mount that, or boot with"),
        ("memory 0 1 1", "this kernel does not have it", "boot a kernel that was built with it"),
    ],
)
def test_why_a_controller_is_missing(
    host: MadeUpHost, hierarchy: Callable[..., Hierarchy], line: str, why: str, way: str
) -> None:
    hierarchy(2, "v2", "memory")
    host.files["/proc/cgroups"] = f"#subsys_name hierarchy num_cgroups enabled\n{line}"
    check = named(cgroups.checks(host), "pids")
    assert check.status == "missing"
    assert check.fact == f"there is no such controller: {why}" and check.advice.startswith(way)


def test_root_in_a_container_with_read_only_cgroups(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    host.closed.add(hierarchy(2, "v2", "memory", files={"cgroup.type": "domain"}).mountpoint)
    checks = list(cgroups.checks(host))
    assert "seen from a container" in named(checks, "layout").fact
    assert named(checks, "memory").advice == "see delegation"
    delegation = named(checks, "delegation")
    assert delegation.status == "missing" and "--privileged" in delegation.advice


def test_nothing_is_delegated_to_a_plain_user_by_systemd(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    host.become_alice()
    host.closed.add(hierarchy(2, "v2", "memory", files={"cgroup.controllers": "memory pids"}).mountpoint)
    host.files["/run/systemd/system"] = ""
    check = cgroups.delegation(host)
    assert check.status == "missing"
    assert check.advice.startswith("loginctl enable-linger alice, then systemd-run --user --scope -p Delegate=yes")
    host.files["/run/user/1000"] = ""
    assert cgroups.delegation(host).advice.startswith("systemd-run --user --scope")


@pytest.mark.parametrize("version", [1, 2])
def test_nothing_is_delegated_and_there_is_no_systemd(
    host: MadeUpHost, hierarchy: Callable[..., Hierarchy], version: int
) -> None:
    host.become_alice()
    place = hierarchy(version, "cgroups", "memory").mountpoint
    host.closed.add(place)
    check = cgroups.delegation(host)
    assert check.status == "missing"
    assert check.advice.startswith(f"as root, cd {place} && ")
    if version == 1:
        assert check.advice.endswith("&& mkdir mydocker-1000 && chown 1000 mydocker-1000 mydocker-1000/cgroup.procs")
    else:
        assert 'echo "+memory" > cgroup.subtree_control && mkdir -p mydocker-1000/shell && ' in check.advice


def test_a_prepared_cgroup_of_v2_is_of_use_to_who_is_in_it(
    host: MadeUpHost, hierarchy: Callable[..., Hierarchy]
) -> None:
    host.become_alice()
    prepared = hierarchy(2, "v2", "memory", base="mydocker-alice")
    assert cgroups.delegation(host).status == "ok"
    host.layout = Layout.of([prepared.replace(own="/somewhere")])
    check = cgroups.delegation(host)
    assert check.status == "missing" and "this process is not in it" in check.fact
    assert check.advice.endswith(f"echo $PID_OF_A_SHELL > {prepared.base}/shell/cgroup.procs")
    assert named(cgroups.checks(host), "memory").status == "missing"
    host.layout = Layout.of([prepared.replace(own="/mydocker-alice/shell")])
    assert cgroups.delegation(host).status == "ok"
    host.layout = Layout.of([prepared.replace(own="/mydocker-alice2")])
    assert cgroups.delegation(host).status == "missing"


def test_a_subtree_without_all_controllers(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    host.become_alice()
    top = {"cgroup.controllers": "cpuset cpu io memory pids"}
    delegated = hierarchy(2, "v2", "memory", "pids", base="user@1000.service", files=top)
    host.attributes[f"{delegated.base} user.delegate"] = "1"
    host.files["/run/systemd/system"] = ""
    check = cgroups.delegation(host)
    assert check.status == "warning"
    assert check.fact == f"user alice may make cgroups in {delegated.base} (by systemd), which lacks cpuset, cpu, io"
    assert "Delegate=memory pids cpuset cpu io below [Service]" in check.advice
    del host.files["/run/systemd/system"]
    assert "+cpuset +cpu +io" in cgroups.delegation(host).advice
    Path(delegated.mountpoint, "cgroup.controllers").write_text("memory pids")
    assert cgroups.delegation(host).status == "ok"


def test_one_hierarchy_of_two_is_delegated(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    host.become_alice()
    memory = hierarchy(1, "memory", "memory")
    delegated = hierarchy(2, "unified", "hugetlb", base="mydocker-1000")
    host.closed.add(memory.mountpoint)
    check = cgroups.delegation(host)
    assert check.status == "warning"
    assert check.fact == f"user alice may make cgroups in {delegated.base}, and none for memory"
    assert check.advice.startswith(f"as root, cd {memory.mountpoint} && mkdir mydocker-1000 && chown 1000 ")


def test_killing(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    hierarchy(1, "memory", "memory")
    assert cgroups.kill(host).status == "warning"
    hierarchy(1, "freezer", "freezer")
    assert "freezer of v1" in cgroups.kill(host).fact
    unified = hierarchy(2, "v2")
    assert cgroups.kill(host).status == "ok"  # nothing but the root can be seen, and the kernel is young enough
    host.release = "5.13.0"
    assert cgroups.kill(host).status == "warning"
    Path(unified.mountpoint, "some").mkdir()
    for name in ("cgroup.type", "cgroup.kill"):
        Path(unified.mountpoint, "some", name).touch()
    assert cgroups.kill(host).status == "ok"  # a kernel that had it ported back


def test_device_programs(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    hierarchy(2, "v2")
    assert cgroups.device_programs(host).status == "ok"
    host.outcomes["device program"] = EPERM
    assert "CAP_BPF" in cgroups.device_programs(host).advice
    host.become_alice()
    assert cgroups.device_programs(host).advice == "run mydocker as root to limit devices"
    hierarchy(1, "devices", "devices")
    assert cgroups.device_programs(host).status == "not needed"


def test_swap_accounting_on_v1(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    base = hierarchy(1, "memory", "memory").base
    assert cgroups.swap(host).status == "not needed"
    host.files["/proc/swaps"] = "Filename Type Size"
    check = cgroups.swap(host)
    assert (check.status, check.advice) == ("missing", "boot with swapaccount=1")
    Path(base, "memory.memsw.limit_in_bytes").touch()
    assert cgroups.swap(host) == ok(
        "swap accounting", "the kernel counts swap for each cgroup; this host has no swap devices"
    )


def test_swap_accounting_on_v2(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    hierarchy(2, "v2", "memory")
    host.files["/proc/swaps"] = "Filename Type Size\n/dev/sda2 partition 1"
    assert cgroups.swap(host).fact.endswith("this host has 1 swap device")
    host.files["/proc/cmdline"] = "quiet swapaccount=0"
    assert cgroups.swap(host).status == "missing"
    hierarchy(2, "v2", files={"system.slice/memory.max": "max", "system.slice/memory.swap.max": "max"})
    assert cgroups.swap(host).status == "ok"


def test_pressure(host: MadeUpHost) -> None:
    assert "CONFIG_PSI" in cgroups.pressure(host).advice
    host.files["/proc/pressure/memory"] = "some avg10=0.00"
    assert cgroups.pressure(host).status == "ok"


def test_huge_pages(host: MadeUpHost) -> None:
    assert resources.huge_pages(host).status == "not needed"
    host.files["/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"] = "0"
    host.files["/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"] = "12"
    assert resources.huge_pages(host) == ok("huge pages", "12 of 2m, 0 of 1g")


def test_io_schedulers(host: MadeUpHost) -> None:
    host.files["/sys/block/loop0/queue/scheduler"] = "[none]"
    assert resources.io_schedulers(host).status == "not needed"
    host.files["/sys/block/sda/queue/scheduler"] = "[mq-deadline] none"
    check = resources.io_schedulers(host)
    assert check.status == "warning" and check.fact.startswith("sda has mq-deadline;")
    assert check.advice == "modprobe bfq, then echo bfq > /sys/block/sda/queue/scheduler"
    host.files["/sys/block/sda/queue/scheduler"] = "[mq-deadline] bfq none"
    assert resources.io_schedulers(host).advice == "echo bfq > /sys/block/sda/queue/scheduler"
    host.files["/sys/block/sda/queue/scheduler"] = "mq-deadline [bfq] none"
    assert resources.io_schedulers(host).status == "ok"


def test_resource_limits(host: MadeUpHost) -> None:
    assert resources.open_files(host).status == "ok"
    host.permitted = 0
    assert "4096 for open files" in resources.open_files(host).fact


def test_a_container_that_cannot_be_started_decides(host: MadeUpHost) -> None:
    host.outcomes["container"] = Outcome(errno=errno.EIO, text="cannot mount /proc: Operation not permitted")
    report = doctor.examine(host)
    assert not report.works
    check = named(report.groups["mydocker"], "container")
    assert check.fact == "root cannot start one: cannot mount /proc: Operation not permitted"


def test_where_things_are_kept(host: MadeUpHost, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = list(installation.checks(host))
    assert [check.status for check in checks] == ["ok"] * 5
    host.closed.add(host.real)
    checks = list(installation.checks(host))
    assert named(checks, "state directory").status == "missing"
    assert "MYDOCKER_STATE_DIR" in named(checks, "state directory").advice
    assert "XDG_CACHE_HOME" in named(checks, "plugin cache").advice
    monkeypatch.setattr(installation.cache_file, "directory", lambda: None)
    assert named(installation.checks(host), "plugin cache").advice == "set HOME"


def test_what_killed_ones_have_left(host: MadeUpHost) -> None:
    left = Path(host.real, "run/mydocker/judge-7")
    left.mkdir(parents=True)
    (left / "lock").touch()
    check = installation.leftovers(host)
    assert check.status == "warning" and "judge-7" in check.fact and check.advice.endswith("mydocker run true")
    assert (left / "lock").exists()


def test_a_configuration_that_is_wrong(host: MadeUpHost, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(host.real, "config.toml")
    file.write_text("[limits\n")
    monkeypatch.setenv("MYDOCKER_CONFIG", str(file))
    check = named(installation.checks(host), "configuration")
    assert check.status == "missing" and str(file) in check.fact
    file.write_text('[limits]\nmemory = "64m"\n')
    assert named(installation.checks(host), "configuration").fact == f"{file}; limits for every run: memory"


def test_broken_plugins_are_named_and_the_others_are_asked(host: MadeUpHost, site: Any) -> None:
    site.add_simple("fine")
    site.add("wrong", "import nothing_of_that_name")
    site.add("ends", "import os; os._exit(3)")
    site.add_simple("rival", flags='"--fine",')
    checks = list(plugin_checks.checks(host))
    assert named(checks, "fine").fact.startswith("fine-dist 1.0, --fine; it does not say what it needs")
    assert "wrong-dist 1.0" in named(checks, "wrong").fact and "nothing_of_that_name" in named(checks, "wrong").fact
    assert named(checks, "ends").fact == "the process that tried it ended with status 3"
    assert "--fine" in named(checks, "rival").fact
    for name in ("wrong", "ends", "rival"):
        assert f"MYDOCKER_DISABLE_PLUGINS={name} is set" in named(checks, name).advice


def test_a_plugin_that_hangs_is_given_up(host: MadeUpHost, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_checks, "PATIENCE", 1.0)
    site.add("hangs", "import time; time.sleep(1000)")
    assert named(plugin_checks.checks(host), "hangs").fact == "there was no answer within 1 s"


def test_plugins_that_are_turned_off(host: MadeUpHost, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("wrong", "import nothing_of_that_name")
    monkeypatch.setenv("MYDOCKER_DISABLE_PLUGINS", "wrong,memroy")
    checks = list(plugin_checks.checks(host))
    assert "wrong" in named(checks, "turned off").fact
    assert named(checks, "unknown names").fact.startswith("memroy: no plugin has the name")
    assert not [check for check in checks if check.name == "wrong"]


FIELD = (
    "number", ("-n", "--number"), "mydocker.resources:parse_integer",
    "N", "Some number.", "", "value", "", "", False,
)


def test_what_plugins_answer(host: MadeUpHost, hierarchy: Callable[..., Hierarchy]) -> None:
    (plugin,) = Registry((("numbers", "dist", "1.5", "m", (FIELD,), {}),)).plugins

    def answered(outcome: Outcome) -> Check:
        return plugin_checks.check(host, plugin, outcome)

    assert answered(Outcome(value=(("memory",), 2, (), ""))) == ok("numbers", "dist 1.5, -n; by memory, on v2")
    assert answered(Outcome(value=((), None, (), "there is no Tuesday here"))).fact == (
        "-n cannot be used: there is no Tuesday here"
    )
    assert "maintains dist" in answered(Outcome(errno=errno.EIO, text="boom")).advice
    host.become_alice()
    host.closed.add(hierarchy(1, "memory", "memory").base)
    assert answered(Outcome(value=(("memory",), 1, (), ""))) == missing(
        "numbers", "-n cannot be used by user alice, who may not make cgroups for memory", "see delegation"
    )


def test_a_check_that_fails_is_a_line_of_the_report(host: MadeUpHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_host: Host) -> Any:
        yield ok("one", "fine")
        raise ValueError("no such thing")

    monkeypatch.setitem(doctor.GROUPS, "kernel", wrong)
    first, second = doctor.examine(host).groups["kernel"]
    assert (first.name, second.status) == ("one", "warning")
    assert "ValueError: no such thing" in second.fact


@pytest.mark.parametrize(
    ("trial", "number", "text"),
    [
        (lambda: None, 0, ""),
        (lambda: trials.process.unshare(-1), errno.EINVAL, "Invalid argument"),
        (lambda: sys.exit(3), errno.EIO, "SystemExit: 3"),
        (lambda: trials.os.kill(trials.os.getpid(), 9), errno.EIO, "the process that tried it ended with signal 9"),
        (lambda: trials.time.sleep(100), errno.ETIMEDOUT, "there was no answer within 0.2 s"),
    ],
)
def test_trials_come_to_an_end(trial: Callable[[], Any], number: int, text: str) -> None:
    outcome = trials.forked(trial, 0.2 if number == errno.ETIMEDOUT else 20)
    assert (outcome.errno, outcome.text) == (number, text)


def test_a_trial_brings_its_answer_whatever_its_size() -> None:
    assert trials.forked(lambda: ("x" * 1_000_000, (1, None))).value == ("x" * 1_000_000, (1, None))


REPORT = doctor.Report(
    login="alice",
    user="user alice",
    groups={
        "mydocker": (ok("container", "alice has started one"),),
        "kernel": (
            missing("memory", "v1 at /x, where alice may not make cgroups", "see delegation"),
            warning("rlimits", "some fact that is long enough for two lines of a narrow terminal", "do what helps"),
            not_needed("time", "nothing"),
        ),
    },
)


def test_the_table() -> None:
    assert printing.to_table(REPORT, 60).splitlines() == [
        "mydocker",
        "  ok          container  alice has started one",
        "",
        "kernel",
        "  missing     memory     v1 at /x, where alice may not make",
        "                         cgroups (see delegation)",
        "  warning     rlimits    some fact that is long enough for",
        "                         two lines of a narrow terminal",
        "                         -> do what helps",
        "  not needed  time       nothing",
        "",
        "1 ok, 1 warning, 1 missing, 1 not needed. mydocker run works here for user alice.",
    ]
    assert "\033" not in printing.to_table(REPORT, None)
    assert "\033[31m" in printing.to_table(REPORT, None, coloured=True)


@pytest.mark.parametrize(
    ("terminal", "variables", "coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colour_is_for_terminals(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, terminal: bool, variables: dict[str, str], coloured: bool
) -> None:
    monkeypatch.setattr(printing, "examine", lambda: REPORT)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert cli.command(["doctor"]) == 0
    assert ("\033[" in capsys.readouterr().out) == coloured


def test_json_and_the_exit_code(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "examine", lambda: REPORT)
    assert cli.command(["doctor", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["works"] is True and printed["user"] == "alice"
    assert printed["summary"] == {"ok": 1, "warning": 1, "missing": 1, "not needed": 1}
    assert printed["checks"][1] == {
        "group": "kernel",
        "name": "memory",
        "status": "missing",
        "fact": "v1 at /x, where alice may not make cgroups",
        "advice": "see delegation",
    }
    ill = REPORT.replace(groups={"mydocker": (missing("container", "it does not start", "do something"),)})
    monkeypatch.setattr(printing, "examine", lambda: ill)
    assert cli.command(["doctor"]) == 1
    assert "mydocker run does not work here for user alice." in capsys.readouterr().out
