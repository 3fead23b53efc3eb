"""linux.resources and annotations: the limits by what they do, and their kernel files beside runc's."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

LAYOUT = Layout.read()
#: A major number that no driver has: what may be opened answers ENXIO, and what may not EPERM.
NOBODY = 240


def directory(controller: str, cgroup: str) -> Path:
    """The cgroup in the hierarchy of the controller."""
    hierarchy = LAYOUT.find(controller)
    assert hierarchy is not None, controller
    return Path(f"{hierarchy.mountpoint}{cgroup}")


def path_of(bundle: Path) -> str:
    return json.loads((bundle / "config.json").read_text())["linux"]["cgroupsPath"]


def test_the_kernel_ends_what_takes_too_much_memory(ours, bundle, cid):
    made = bundle(
        "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1",
        linux__resources={"memory": {"limit": 30 << 20, "swap": 30 << 20}},
    )  # fmt: skip
    assert ours.run(made, cid).returncode == 137
    assert ours.run(bundle("true", linux__resources={"memory": {"limit": 30 << 20}}), cid).returncode == 0


@pytest.mark.parametrize("limit", [512 << 10, 1 << 20])
def test_a_small_command_starts_under_the_smallest_limits(ours, bundle, cid, limit):
    """What the set-up takes is not the container's; by ``run`` and by ``create`` and ``start``."""
    memory = {"linux__resources": {"memory": {"limit": limit}}}
    assert ours.run(bundle("sh", "-c", "echo started", **memory), cid).stdout == "started\n"
    made = bundle("sh", "-c", "echo started >/file", **memory)
    assert ours.create(made, cid).returncode == 0
    assert ours("start", cid).returncode == 0
    end = time.monotonic() + 30
    while json.loads(ours("state", cid).stdout)["status"] != "stopped":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert (made / "rootfs/file").read_text() == "started\n"


def test_too_many_processes_are_refused(ours, bundle, cid):
    script = "for n in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; kill -9 -1"
    made = bundle("sh", "-c", script, linux__resources={"pids": {"limit": 4}})
    assert "fork" in ours.run(made, cid).stderr
    made = bundle("sh", "-c", script, linux__resources={"pids": {"limit": 40}})
    assert "fork" not in ours.run(made, cid).stderr


def test_a_quota_holds_a_loop_back(ours, bundle, cid):
    made = bundle(
        "sh", "-c", "while :; do :; done", linux__resources={"cpu": {"quota": 10000, "period": 100000}}
    )
    assert ours.create(made, cid).returncode == 0
    assert ours("start", cid).returncode == 0
    stat = directory("cpu", path_of(made)) / "cpu.stat"
    end = time.monotonic() + 30
    while int(dict(line.split() for line in stat.read_text().splitlines())["nr_throttled"]) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_container_stays_on_its_cpus(ours, bundle, cid):
    made = bundle("grep", "Cpus_allowed_list", "/proc/self/status", linux__resources={"cpu": {"cpus": "0"}})
    assert ours.run(made, cid).stdout.split() == ["Cpus_allowed_list:", "0"]


def opened(ours, bundle, cid, rules: list[dict[str, Any]] | None, *devices: tuple[int, int]) -> list[bool]:
    """Which of the devices a container with these rules may read."""
    script = "".join(
        f"mknod /tmp{major}_{minor} c {major} {minor}; head -c 1 /tmp{major}_{minor} >/dev/null; "
        for major, minor in devices
    )
    changes = {"linux__resources": {"devices": rules}} if rules is not None else {}
    done = ours.run(bundle("sh", "-c", script, **changes), cid)
    assert done.returncode in (0, 1), done.stderr
    return [f"/tmp{major}_{minor}: Operation not permitted" not in done.stderr for major, minor in devices]


DENY_ALL = {"allow": False, "access": "rwm"}


def character(allow: bool, minor: int | None, access: str = "rwm") -> dict[str, Any]:
    rule = {"allow": allow, "type": "c", "major": NOBODY, "access": access}
    return rule if minor is None else {**rule, "minor": minor}


@pytest.mark.parametrize(
    ("rules", "fifth", "sixth"),
    [
        (None, False, False),
        ([], False, False),
        ([DENY_ALL], False, False),
        ([DENY_ALL, character(True, 5)], True, False),
        ([DENY_ALL, character(True, None)], True, True),
        ([DENY_ALL, character(True, 5), character(False, 5)], False, False),
        ([DENY_ALL, character(True, 5), character(True, 6), character(False, None)], False, False),
        ([DENY_ALL, character(True, 5, "w")], False, False),
        ([character(True, 5), DENY_ALL], False, False),
        ([{"allow": True, "access": "rwm"}], True, True),
        ([{"allow": True, "access": "rwm"}, character(False, 5)], False, True),
        ([{"allow": True, "access": "rwm"}, character(False, 5, "w")], True, True),
        ([DENY_ALL, {"allow": True, "type": "a", "major": NOBODY, "minor": -1, "access": "r"}], True, True),
    ],
)
def test_rules_for_devices_count_in_their_order(ours, bundle, cid, rules, fifth, sixth):
    assert opened(ours, bundle, cid, rules, (NOBODY, 5), (NOBODY, 6)) == [fifth, sixth]


def test_the_usual_devices_are_there_whatever_the_rules_say(ours, bundle, cid):
    made = bundle("sh", "-c", "echo x >/dev/null; head -c 1 /dev/zero | wc -c; head -c1 /dev/urandom | wc -c",
                  linux__resources={"devices": [DENY_ALL]})  # fmt: skip
    assert ours.run(made, cid).stdout.split() == ["1", "1"]


def test_a_hole_in_a_rule_is_refused(ours, bundle, cid):
    made = bundle(linux__resources={"devices": [DENY_ALL, character(True, None), character(False, 5)]})
    refused = ours.run(made, cid)
    assert refused.returncode == 1
    assert f"c {NOBODY}:5 rwm" in refused.stderr
    assert "name the devices one by one" in refused.stderr


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory": {"limit": 1000}}, "linux.resources.memory.limit: 1000 bytes is less than the minimum, 512k"),
        ({"memory": {"limit": 64 << 20, "swap": 32 << 20}}, "linux.resources.memory.swap: 32m is less than"),
        ({"cpu": {"cpus": "0,4000"}}, "linux.resources.cpu.cpus: CPU 4000 is not available"),
        ({"cpu": {"shares": 1}}, "linux.resources.cpu.shares: 1 is not between 2 and 262144"),
        ({"blockIO": {"leafWeight": 300}}, "linux.resources.blockIO.leafWeight: there is no plugin here"),
        ({"rdma": {"none0": {"hcaHandles": 3}}}, "linux.resources.rdma: "),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}, "linux.resources.hugepageLimits: "),
    ],
)
def test_what_cannot_be_is_refused_by_its_place(ours, bundle, cid, resources, words):
    refused = ours("create", "--bundle", bundle(linux__resources=resources), cid)
    assert refused.returncode == 1
    assert words in refused.stderr
    assert "does not exist" in ours("state", cid).stderr


def test_a_limit_without_its_plugin_is_refused(ours, bundle, cid):
    env = {**os.environ, "MYDOCKER_DISABLE_PLUGINS": "pids"}
    refused = ours("create", "--bundle", bundle(linux__resources={"pids": {"limit": 5}}), cid, env=env)
    assert refused.returncode == 1
    assert "linux.resources.pids.limit: there is no plugin here that puts it in force" in refused.stderr


def test_an_unknown_property_is_passed_over(ours, bundle, cid):
    memory = {"kernel": 1 << 20, "kernelTCP": 1 << 20, "future": 3}
    made = bundle(linux__resources={"memory": memory, "magic": {"x": 1}})
    assert ours.run(made, cid).returncode == 0


@pytest.mark.parametrize("key", ["mydocker.pids_limit", "mydocker.pids-limit"])
def test_an_annotation_sets_a_limit_and_wins(ours, bundle, cid, key):
    made = bundle("sleep", "100", annotations={key: "7"}, linux__resources={"pids": {"limit": 100}})
    assert ours.create(made, cid).returncode == 0
    assert (directory("pids", path_of(made)) / "pids.max").read_text() == "7\n"


def test_an_annotation_takes_over_what_process_says(ours, bundle, cid):
    made = bundle(
        "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c",
        annotations={"mydocker.ulimit": '["nofile=300:400"]'},
        process__rlimits=[{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
    )  # fmt: skip
    assert ours.run(made, cid).stdout.split() == ["300", "400", "0"]


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"mydocker.memory": "10"}, "annotation mydocker.memory: 10 bytes is less than the minimum, 512k"),
        ({"mydocker.memroy": "10m"}, "annotation mydocker.memroy: there is no limit named memroy"),
        ({"mydocker.cpu_shares": "5", "mydocker.cpu-shares": "6"}, "are the same field"),
        ({"mydocker.frozen": "true"}, "a limit has frozen the container"),
    ],
)
def test_an_annotation_that_is_wrong(ours, bundle, cid, annotations, words):
    refused = ours("create", "--bundle", bundle(annotations=annotations), cid)
    assert refused.returncode == 1
    assert words in refused.stderr
    assert "does not exist" in ours("state", cid).stderr


def test_a_mount_that_a_plugin_adds(ours, bundle, cid):
    made = bundle("sh", "-c", "df -k /dev/shm | tail -1", annotations={"mydocker.shm_size": "3m"})
    assert ours.run(made, cid).stdout.split()[1] == "3072"


def test_a_container_has_a_cgroup_in_every_hierarchy(ours, bundle, cid, cgroup):
    made = bundle("sleep", "100", linux__cgroupsPath=f"{cgroup}/a/b")
    assert ours.create(made, cid).returncode == 0
    pid = str(ours.state(cid)["pid"])
    for hierarchy in LAYOUT.hierarchies:
        assert Path(f"{hierarchy.mountpoint}{cgroup}/a/b/cgroup.procs").read_text().split() == [pid]
    assert ours("delete", "--force", cid).returncode == 0
    for hierarchy in LAYOUT.hierarchies:
        assert not os.path.exists(f"{hierarchy.mountpoint}{cgroup}"), "its parents were made for it"


def test_what_an_engine_has_made_stays(ours, bundle, cid, cgroup):
    parents = [Path(f"{hierarchy.mountpoint}{cgroup}") for hierarchy in LAYOUT.hierarchies]
    for parent in parents:
        parent.mkdir()
        (parent / "it").mkdir()
    made = bundle("sleep", "100", linux__cgroupsPath=f"{cgroup}/it")
    assert ours.create(made, cid).returncode == 0
    assert ours("delete", "--force", cid).returncode == 0
    assert all(parent.exists() for parent in parents)
    assert not any((parent / "it").exists() for parent in parents)


def test_a_cgroup_with_processes_in_it_is_nobodys_to_take(ours, bundle, cid, cgroup):
    parent = directory("memory", cgroup)
    parent.mkdir()
    (parent / "it").mkdir()
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        (parent / "it" / "cgroup.procs").write_text(str(sleeper.pid))
        refused = ours("create", "--bundle", bundle(linux__cgroupsPath=f"{cgroup}/it"), cid)
        assert refused.returncode == 1
        assert "container's cgroup is not empty: 1 process(es) found" in refused.stderr
        assert ours("delete", "--force", cid).returncode == 0
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize("path", [None, "relative/path"])
def test_other_places_are_below_ours(ours, bundle, cid, path):
    made = bundle("sleep", "100", linux__cgroupsPath=path)
    assert ours.create(made, cid).returncode == 0
    assert directory("memory", f"/mydocker/{path or cid}").is_dir()
    assert ours("delete", "--force", cid).returncode == 0


@pytest.mark.parametrize("path", ["/", "/a\nb"])
def test_a_path_that_is_no_place(ours, bundle, cid, path):
    assert ours("create", "--bundle", bundle(linux__cgroupsPath=path), cid).returncode == 1


MEMORY_FILES = (
    *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness"),
    *("memory.max", "memory.swap.max", "memory.low", "memory.high", "memory.min", "memory.oom_control"),
)
FILES = {
    "memory": MEMORY_FILES,
    "cpu": (
        *("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"),
        *("cpu.idle", "cpu.max", "cpu.max.burst"),
    ),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "pids": ("pids.max",),
    "devices": ("devices.list",),
    "blkio": tuple(f"blkio.throttle.{what}_device" for what in ("read_bps", "write_bps", "read_iops", "write_iops")),
    "io": ("io.max",),
    "hugetlb": ("hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"),
}


def a_disk() -> dict[str, int]:
    """Major and minor of some whole disk."""
    for name in sorted(os.listdir("/sys/block")):
        major, minor = Path(f"/sys/block/{name}/dev").read_text().split(":")
        return {"major": int(major), "minor": int(minor)}
    pytest.skip("this machine has no block device")


def kernel_files(cgroup: str) -> dict[str, list[str]]:
    found = {}
    for controller, names in FILES.items():
        if LAYOUT.find(controller) is None:
            continue
        for name in names:
            file = directory(controller, cgroup) / name
            if file.exists():
                found[name] = sorted(file.read_text().splitlines())
    return found


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"memory": {"limit": 64 << 20}},
        {"memory": {"limit": 64 << 20, "swap": 64 << 20}},
        {"memory": {"limit": 64 << 20, "swap": 100 << 20, "reservation": 32 << 20}},
        {"memory": {"limit": 64 << 20, "swap": -1}},
        {"memory": {"limit": -1, "swap": -1}},
        {"memory": {"limit": -1}},
        {"memory": {"limit": 0, "swap": 0, "reservation": 0}},
        {"memory": {"reservation": 32 << 20}},
        {"cpu": {"shares": 0, "quota": 0, "period": 0}},
        {"cpu": {"quota": 20000}},
        {"cpu": {"quota": 20000, "period": 50000}},
        {"cpu": {"quota": -1}},
        {"cpu": {"quota": -1, "period": 50000}},
        {"cpu": {"cpus": "0", "mems": "0"}},
        {"cpu": {"cpus": "", "mems": ""}},
        {"pids": {"limit": 30}},
        {"pids": {"limit": -1}},
        {"pids": {"limit": 0}},
        {"devices": [DENY_ALL]},
        {"devices": [DENY_ALL, character(True, 5), character(True, None, "r")]},
        {"devices": [{"allow": True, "access": "rwm"}]},
        {"blockIO": {"throttleReadBpsDevice": [{"rate": 1 << 20}], "throttleWriteIOPSDevice": [{"rate": 100}]}},
    ],
)
def test_the_kernels_files_are_as_with_runc(ours, runc, bundle, cid, resources):
    for rules in resources.get("blockIO", {}).values():
        for rule in rules:
            rule.update(a_disk())
    seen = []
    for runtime in (ours, runc):
        made = bundle("sleep", "100", linux__resources=resources)
        done = runtime.create(made, cid)
        assert done.returncode == 0, done.stderr
        seen.append(kernel_files(path_of(made)))
        assert runtime("delete", "--force", cid).returncode == 0
    # On a hybrid host runc leaves the controllers of v2 off.
    mine = {name: lines for name, lines in seen[0].items() if name in seen[1]}
    assert mine == seen[1]


def test_files_of_cgroup_v2_by_name(ours, bundle, cid):
    """They win over the property that means the same, as in runc; what no plugin has a field for is written too."""
    unified = {
        "memory.max": "67108864", "memory.high": "50331648", "memory.swap.max": "0", "cpu.weight": "42",
        "cpu.max": "5000 50000", "pids.max": "42", "cgroup.max.descendants": "7",
    }  # fmt: skip
    typed = {"memory": {"limit": 32 << 20}, "cpu": {"shares": 500, "quota": 7000}, "pids": {"limit": 5}}
    made = bundle("sleep", "100", linux__resources={**typed, "unified": unified})
    done = ours.create(made, cid)
    if LAYOUT.kind != "v2":
        assert done.returncode == 1
        assert "cgroup v2" in done.stderr or "on v1" in done.stderr or "v2 only" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    found = directory("cgroup", path_of(made))
    assert {name: (found / name).read_text().strip() for name in unified} == unified


@pytest.mark.parametrize("options", [["rw"], ["ro"]])
def test_the_container_owns_a_cgroup_that_it_may_write(ours, bundle, cid, options):
    if LAYOUT.find("cgroup") is None:
        pytest.skip("this host has no cgroup v2")
    made = bundle("sleep", "100", process__user={"uid": 7, "gid": 7})
    config = json.loads((made / "config.json").read_text())
    config["linux"]["namespaces"] += [{"type": "cgroup"}, {"type": "user"}]
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", *options]}
    config["mounts"].append(mount)
    (made / "config.json").write_text(json.dumps(config))
    done = ours.create(made, cid)
    assert done.returncode == 0, done.stderr
    found = directory("cgroup", path_of(made))
    owner = 100007 if options == ["rw"] else 0
    assert found.stat().st_uid == owner
    assert (found / "cgroup.procs").stat().st_uid == owner
    assert (found / "cgroup.freeze").stat().st_uid == 0
