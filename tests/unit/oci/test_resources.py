"""config.json to the fields of plugins: special values, annotations, what an update changes, a stranger's plugin."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import plugins
from mydocker.cgroups.layout import Hierarchy, Layout
from mydocker.errors import LimitError, MydockerError, OciError, PluginError
from mydocker.oci import resources
from mydocker.oci.cgroup_path import expand_slice, place_of
from mydocker.plugins import Registry
from mydocker.spec import Tmpfs, Volume

BUILT_IN = plugins.load()


def texts(linux_resources: dict[str, Any], registry: Registry = BUILT_IN, **others: Any) -> dict[str, Any]:
    config = {"linux": {"resources": linux_resources}, **others}
    return dict(resources.to_config(config, registry).texts)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({}, {}),
        ({"memory": {}, "cpu": {}, "pids": {}, "devices": [], "unified": {}}, {}),
        ({"memory": {"limit": 1 << 30}}, {"memory": "1073741824b", "memory_swap": "-1"}),
        ({"memory": {"limit": 1 << 30, "swap": 1 << 31}}, {"memory": "1073741824b", "memory_swap": "2147483648b"}),
        ({"memory": {"limit": -1}}, {"memory": "-1"}),
        ({"memory": {"limit": -1, "swap": -1}}, {"memory": "-1", "memory_swap": "-1"}),
        ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, {}),
        ({"memory": {"swap": -1}}, {"memory_swap": "-1"}),
        ({"memory": {"reservation": -1}}, {"memory_reservation": "-1"}),
        ({"memory": {"swappiness": (1 << 64) - 1}}, {}),
        ({"memory": {"swappiness": 0}}, {"memory_swappiness": "0"}),
        ({"memory": {"disableOOMKiller": False}}, {"oom_kill_disable": "false"}),
        ({"memory": {"checkBeforeUpdate": True, "useHierarchy": True, "kernel": 5, "kernelTCP": 5}}, {}),
        ({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}}, {}),
        ({"cpu": {"realtimeRuntime": 0, "realtimePeriod": 0}}, {}),
        ({"cpu": {"shares": 512, "quota": -5, "period": 1000}},
         {"cpu_shares": "512", "cpu_quota": "-1", "cpu_period": "1000"}),
        ({"cpu": {"idle": 1, "shares": 300}}, {"cpu_idle": "true"}),
        ({"cpu": {"idle": 0, "shares": 300}}, {"cpu_idle": "false", "cpu_shares": "300"}),
        ({"cpu": {"quota": 5000, "burst": 0}}, {"cpu_quota": "5000", "cpu_burst": "0"}),
        ({"pids": {"limit": 0}}, {}),
        ({"pids": {"limit": -1}}, {"pids_limit": "-1"}),
        ({"blockIO": {"weight": 0}}, {}),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 300}, {"major": 8, "minor": 16}]}},
         {"blkio_weight_device": ["8:0:300"]}),
        ({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0}]}},
         {"device_read_bps": ["8:0:max"]}),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 5 << 20}]}, {"hugetlb_limit": ["2MB=4194304b"]}),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": (1 << 64) - 1}]}, {"hugetlb_limit": ["2MB=max"]}),
        ({"rdma": {"mlx5_0": {"hcaHandles": 2}, "mlx5_1": {}}}, {"rdma": ["mlx5_0 hca_handle=2"]}),
        ({"network": {"classID": 0, "priorities": []}}, {}),
        ({"network": {"classID": 5, "priorities": [{"name": "lo", "priority": 1}]}},
         {"net_cls_classid": "5", "net_prio": ["lo=1"]}),
    ],
)  # fmt: skip
def test_values_as_engines_write_them(value, found):
    assert texts(value) == found


@pytest.mark.parametrize(
    ("unified", "typed", "found"),
    [
        ({"memory.max": "max"}, {"memory": {"limit": 1 << 30}}, {"memory": "-1"}),
        ({"memory.max": "1073741824"}, {}, {"memory": "1073741824", "memory_swap": "-1"}),
        ({"memory.max": "2147483648"}, {"memory": {"limit": 1 << 30, "swap": 1 << 31}},
         {"memory": "2147483648", "memory_swap": f"{3 << 30}b"}),
        ({"memory.swap.max": "0"}, {"memory": {"limit": 1 << 30, "swap": 1 << 31}},
         {"memory": "1073741824b", "memory_swap_max": "0"}),
        ({"memory.low": "max"}, {"memory": {"reservation": 1 << 30}}, {"memory_low": "max"}),
        ({"memory.oom.group": "1"}, {}, {"memory_oom_group": "true"}),
        ({"cpu.max": "5000"}, {"cpu": {"quota": 7, "period": 8}}, {"cpu_quota": "5000", "cpu_period": "100000"}),
        ({"cpu.max": "max 5000"}, {}, {"cpu_quota": "-1", "cpu_period": "5000"}),
        ({"cpu.weight": "7"}, {"cpu": {"shares": 512}}, {"cpu_weight": "7"}),
        ({"pids.max": "max"}, {"pids": {"limit": 5}}, {"pids_limit": "-1"}),
        ({"cpuset.cpus": "0"}, {"cpu": {"cpus": "1"}}, {"cpuset_cpus": "0"}),
        ({"io.max": "8:0 rbps=max wiops=1\n8:16 wbps=5"}, {}, {"io_max": ["8:0 rbps=max wiops=1", "8:16 wbps=5"]}),
        ({"io.weight": "default 50"}, {"blockIO": {"weight": 10}}, {"io_weight": "50"}),
        ({"misc.max": "sev 2\nsev_es max"}, {}, {"misc": ["sev=2", "sev_es=max"]}),
        ({"hugetlb.2MB.max": "0", "a.b": " as it is"}, {}, {"cgroup_conf": ["hugetlb.2MB.max=0", "a.b= as it is"]}),
    ],
)  # fmt: skip
def test_files_of_cgroup_v2_win(unified, typed, found):
    assert texts({**typed, "unified": unified}) == found


def test_files_of_cgroup_v2_need_one():
    v1 = Layout.of([Hierarchy(version=1, mountpoint="/x", controllers=("memory",), own="/", base="/x")])
    config = {"linux": {"resources": {"unified": {"memory.high": "5m"}}}}
    with pytest.raises(OciError, match=r"invalid configuration: linux\.resources\.unified is for cgroup v2"):
        resources.to_config(config, BUILT_IN, v1)


def test_rules_for_devices_are_there_for_every_container(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("subsystems.devices._in_user_namespace", lambda: False)
    assert texts({}, ociVersion="1.0") == {"device_rule": ["deny a *:* rwm"]}
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": -1, "access": "r"}]
    assert texts({"devices": rules}, ociVersion="1.0") == {"device_rule": ["deny a *:* rwm", "allow c 1:* r"]}
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert texts({"devices": rules}, ociVersion="1.0") == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"memory": {"limit": 5}}, r"^linux\.resources\.memory\.limit: 5 bytes is less than"),
        ({"cpu": {"idle": 2}}, r"^linux\.resources\.cpu\.idle: 2 is neither"),
        ({"cpu": {"cpus": "x"}}, r"^linux\.resources\.cpu\.cpus: "),
        ({"unified": {"high": "2"}}, r"^linux\.resources\.unified: the specified key has not the form .* `high`"),
        ({"unified": {"memory.oom.group": "2"}}, r"^linux\.resources\.unified\.memory\.oom\.group: "),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 5}]}}, "leafWeight of 8:0"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(value, words):
    with pytest.raises(LimitError, match=words):
        texts(value)


def without(name: str) -> Registry:
    registry = copy.copy(BUILT_IN)
    registry.plugins = tuple(plugin for plugin in BUILT_IN.plugins if plugin.name != name)
    registry._fields = {field.name: (field, plugin) for plugin in registry.plugins for field in plugin.fields}
    return registry


@pytest.mark.parametrize(
    ("plugin", "value"),
    [
        ("memory", {"memory": {"limit": 1 << 30}}),
        ("pids", {"pids": {"limit": 5}}),
        ("devices", {"devices": [{"allow": False, "access": "rwm"}]}),
        ("hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
        ("cgroup_conf", {"unified": {"x.y": "1"}}),
    ],
)
def test_what_no_plugin_puts_in_force_is_refused(plugin, value):
    with pytest.raises(OciError, match="there is no plugin here that puts it in force"):
        texts(value, without(plugin))


def test_what_asks_for_nothing_needs_no_plugin():
    assert texts({"memory": {"limit": 0, "disableOOMKiller": False}}, without("memory")) == {}
    assert texts({"unified": {"memory.high": "5m"}}, without("cgroup_conf")) == {"memory_high": "5m"}


def test_annotations():
    annotations = {"mydocker.memory": "1g", "mydocker.cpu-shares": "5", "mydocker.io/x": "?", "else": "y"}
    config = {"annotations": annotations, "linux": {"resources": {"memory": {"limit": 1 << 21, "swap": 1 << 31}}}}
    found = resources.to_config(config, BUILT_IN)
    assert found.texts == {"memory": "1g", "memory_swap": "2147483648b", "cpu_shares": "5"}
    assert found.flag("memory") == "annotation mydocker.memory"


@pytest.mark.parametrize(
    ("text", "values"), [("nofile=5", ["nofile=5"]), ('["nofile=5", "core=0"]', ["nofile=5", "core=0"]), ("[", ["["])]
)
def test_an_annotation_that_is_several(text, values):
    config = {"annotations": {"mydocker.ulimit": text}, "process": {"rlimits": []}}
    if values == ["["]:
        with pytest.raises(LimitError, match=r"^annotation mydocker\.ulimit: "):
            resources.to_config(config, BUILT_IN)
        return
    assert resources.to_config(config, BUILT_IN).texts["ulimit"] == values
    assert config["process"] == {}, "the plugin has taken it over"


def test_a_whole_object_of_process_is_taken_over():
    scheduler = {"policy": "SCHED_DEADLINE", "runtime": 1000500, "deadline": 2000000, "period": 3000000, "nice": 3}
    process = {"scheduler": scheduler, "oomScoreAdj": 1}
    config: dict[str, Any] = {"annotations": {"mydocker.nice": "5"}, "process": process}
    found = resources.to_config(config, BUILT_IN)
    assert found.texts["nice"] == "5"
    assert found["sched_policy"] == ("deadline", 1000500, 2000000, 3000000)
    assert config["process"] == {"oomScoreAdj": 1}


def test_what_stands_below_process_is_not_for_plugins_without_an_annotation():
    config = {"process": {"oomScoreAdj": 5, "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]}}
    assert resources.to_config(config, BUILT_IN).texts == {}
    assert config["process"]["oomScoreAdj"] == 5


@pytest.mark.parametrize(
    "annotations", [{"mydocker.nothing": "1"}, {"mydocker.cpu-shares": "5", "mydocker.cpu_shares": "5"}]
)
def test_an_annotation_that_is_no_limit(annotations):
    with pytest.raises(OciError, match=r"annotations? mydocker\."):
        resources.to_config({"annotations": annotations}, BUILT_IN)


@pytest.mark.parametrize(
    ("delta", "present", "found"),
    [
        ({"memory": {"limit": 1 << 30}}, (), {"memory": "1073741824b", "memory_swap": "-1"}),
        ({"memory": {"limit": 1 << 30}}, ("memory", "memory_swap"), {"memory": "1073741824b"}),
        ({"memory": {"limit": 1 << 30, "swap": 0}}, ("memory_swap",), {"memory": "1073741824b"}),
        ({"memory": {"limit": 1 << 30, "swap": -1}}, ("memory_swap",), {"memory": "1073741824b", "memory_swap": "-1"}),
        ({"memory": {"swap": -1}}, ("memory", "memory_swap"), {"memory_swap": "-1"}),
        ({"cpu": {"idle": 0}}, ("cpu_idle",), {"cpu_idle": "false"}),
        ({"unified": {"cpu.max": "5000"}}, ("cpu_quota", "cpu_period"), {"cpu_quota": "5000", "cpu_period": "100000"}),
        ({"devices": [{"allow": False, "access": "rwm"}]}, ("device_rule",), {}),
    ],
)  # fmt: skip
def test_what_an_update_changes(delta, present, found):
    texts, flags = resources.changes(delta, BUILT_IN, present)
    assert texts == found
    assert set(flags) == set(found)


def stranger(oci: str, from_oci: str, kind: str = "value") -> Registry:
    field = ("tasks", ("--tasks",), "mydocker.resources:parse_integer", "N", "Tasks.", oci, kind, "", from_oci, False)
    return Registry((("tasks", "mydocker-tasks", "1", "m", (field,), {}),))


def test_a_strangers_field():
    assert texts({}, stranger("annotations.org.tasks", ""), annotations={"org.tasks": "5"}) == {"tasks": "5"}
    assert texts({"x": {"y": [1, 2]}}, stranger("linux.resources.x.y", "", "multiple")) == {"tasks": ["1", "2"]}
    assert texts({"x": "-7"}, stranger("linux.resources.x", "builtins:str")) == {"tasks": "-7"}


def test_a_strangers_field_of_several_places():
    registry = stranger("linux.resources.a linux.resources.b", "operator:contains")
    assert texts({}, registry) == {}
    with pytest.raises(PluginError, match=r"plugin tasks .mydocker-tasks 1. failed in the from_oci of tasks: Type"):
        texts({"b": 5}, registry)


def test_a_strangers_field_for_what_is_no_text():
    with pytest.raises(PluginError, match="without a from_oci"):
        texts({"x": {"y": 1}}, stranger("linux.resources.x", ""))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 65), 1 << 65) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(value=JSON, path=st.sampled_from(sorted({path for field in BUILT_IN.fields for path in field.oci.split()})))
def test_any_value_is_a_limit_or_an_error_of_ours(value, path):
    config: dict[str, Any] = {}
    inner = config
    *outer, last = path.split(".") if ".unified." not in path else [*path.split(".")[:3], path.split("unified.")[1]]
    for key in outer:
        inner = inner.setdefault(key, {})
    inner[last] = value
    try:
        resources.to_config(config, BUILT_IN)
    except MydockerError as error:
        assert str(error)


def test_what_plugins_add_is_put_into_the_config():
    config: dict[str, Any] = {
        "mounts": [{"destination": "/dev"}, {"destination": "/dev/shm/below"}, {"destination": "/x"}],
        "process": {"env": ["A=1"], "args": ["x"]},
    }
    spec = resources.spec_of(config)
    assert (spec.args, spec.env, spec.network) == ((b"x",), (b"A=1",), "host")
    volume = Volume(source="/host", destination="/y", readonly=True)
    amended = spec.replace(mounts=(Tmpfs(destination="/dev/shm", size=5), volume), extra_env=(b"B=\xff",))
    resources.amend(config, amended)
    assert [mount["destination"] for mount in config["mounts"]] == ["/dev", "/dev/shm", "/dev/shm/below", "/x", "/y"]
    assert "size=5" in config["mounts"][1]["options"]
    assert config["mounts"][4]["options"] == ["rbind", "rprivate", "ro"]
    assert config["process"]["env"] == ["A=1", "B=\udcff"]


@pytest.mark.parametrize(
    ("path", "systemd", "found"),
    [
        (None, False, "mydocker/id"),
        ("/a/b", False, "a/b"),
        ("/a/../b", False, "b"),
        ("a/b", False, "mydocker/a/b"),
        ("../b", False, "mydocker/b"),
        ("/../../b", False, "b"),
        ("system.slice:docker:x", False, "mydocker/system.slice:docker:x"),
        ("a-b.slice:docker:x", True, "a.slice/a-b.slice/docker-x.scope"),
        ("-.slice:docker:x", True, "docker-x.scope"),
        ("a.slice::x", True, "a.slice/x.scope"),
    ],
)
def test_where_the_cgroup_is(path, systemd, found):
    assert place_of({"linux": {"cgroupsPath": path}}, "id", systemd=systemd).path == found


@pytest.mark.parametrize("name", ["", "a", "a.service", "a--b.slice", "-a.slice", "a/b.slice", ".slice"])
def test_what_is_no_slice(name):
    with pytest.raises(OciError, match="invalid slice name"):
        expand_slice(name)
