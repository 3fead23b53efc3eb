"""The flag for any file of cgroup v2: what is a key, which files are refused, what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import CgroupError, ConflictError, LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Layout
from subsystems import cgroup_conf, hugetlb, memory

(FIELD,) = cgroup_conf.mydocker_fields()


def config(*texts):
    return ResourceConfig({"cgroup_conf": FIELD.value_of(list(texts))})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("memory.high=100m", ("memory.high", "100m")),
        ("io.max=8:0 rbps=1 wbps=max", ("io.max", "8:0 rbps=1 wbps=max")),
        ("hugetlb.2MB.max=", ("hugetlb.2MB.max", "")),
    ],
)
def test_values(text, value):
    assert cgroup_conf.parse_setting(text) == value


@pytest.mark.parametrize(
    "text", ["", "memory", "memory=1", "memory.high", ".high=1", "memory.=1", "a/b.c=1", "../x.y=1", "a b.c=1"]
)
def test_what_is_no_setting(text):
    with pytest.raises(ValueError, match="is not of the form KEY=VALUE"):
        cgroup_conf.parse_setting(text)


@given(text=st.text())
def test_a_key_never_leaves_the_cgroup(text):
    try:
        key, _ = cgroup_conf.parse_setting(text)
    except ValueError:
        return
    assert "/" not in key
    assert not key.startswith(".")


@pytest.mark.cgroup_layout("v2", "hybrid")
def test_what_is_written(limit_journey):
    container = limit_journey(cgroup_conf, cgroup_conf=["hugetlb.2MB.max=4194304", "cgroup.max.depth=3"])
    assert container.written == {"hugetlb.2MB.max": "4194304", "cgroup.max.depth": "3"}
    assert container.attached("cgroup")
    container.update(cgroup_conf=["hugetlb.2MB.max=2097152", "cgroup.max.depth=3"])
    assert container.written == {"hugetlb.2MB.max": "2097152", "cgroup.max.depth": "3"}


@pytest.mark.cgroup_layout("v2")
def test_a_key_may_be_given_for_each_device(limit_journey):
    container = limit_journey(cgroup_conf, cgroup_conf=["io.max=8:0 rbps=5", "io.max=8:16 wiops=6"])
    assert container.read("io.max").splitlines() == [
        "8:0 rbps=5 wbps=max riops=max wiops=max",
        "8:16 rbps=max wbps=max riops=max wiops=6",
    ]


@pytest.mark.parametrize(
    ("layout", "text", "kind", "words"),
    [
        ("v1", "memory.high=1", UnsupportedLimit, "memory.high is a file of cgroup v2, and this host has v1 only"),
        ("hybrid", "memory.high=1", UnsupportedLimit, "the controller memory is on v1 here: use a flag for it"),
        ("hybrid", "io.max=8:0 rbps=1", UnsupportedLimit, "the controller io is on v1 here"),
        ("v2", "foo.bar=1", UnsupportedLimit, "controller `foo` is not available; v2 has cpu, cpuset"),
        ("v2", "memory.limit_in_bytes=1", UnsupportedLimit, "no such file or directory: there is memory"),
        ("v2", "memory.high=lots", CgroupError, '--cgroup-conf memory.high: cannot write "lots"'),
        *(
            ("v2", f"cgroup.{name}=1", LimitError, f"cgroup.{name} is mydocker's own")
            for name in ("procs", "threads", "type", "kill", "freeze", "subtree_control")
        ),
    ],
)
@pytest.mark.cgroup_layout("v2")
def test_what_is_refused(layout, text, kind, words, fake_host, limit_journey):
    with pytest.raises(kind, match=words) as caught:
        limit_journey(cgroup_conf, host=fake_host(layout), cgroup_conf=text)
    if kind is not CgroupError:
        assert caught.value.field == "cgroup_conf"


@pytest.mark.cgroup_layout("v2")
def test_a_file_of_another_limit_is_a_conflict_that_names_both(limit_journey):
    with pytest.raises(ConflictError, match=r"cgroup_conf and memory both write .*memory\.max"):
        limit_journey(cgroup_conf, memory, cgroup_conf="memory.max=10000000", memory="100m")
    limit_journey(cgroup_conf, memory, cgroup_conf="memory.high=10000000", memory="100m")


@pytest.mark.cgroup_layout("hybrid")
def test_the_same_on_a_hybrid_host(limit_journey, monkeypatch, tmp_path):
    (tmp_path / "pages/hugepages-2048kB").mkdir(parents=True)
    monkeypatch.setattr(hugetlb, "_HUGE_PAGES", str(tmp_path / "pages"))
    with pytest.raises(ConflictError, match="cgroup_conf and hugetlb both write"):
        limit_journey(cgroup_conf, hugetlb, cgroup_conf="hugetlb.2MB.max=0", hugetlb_limit="2MB=2m")


def test_a_host_without_cgroup_v2():
    with pytest.raises(UnsupportedLimit, match="this host has v1 only"):
        cgroup_conf.mydocker_validate(config("memory.high=1"), Layout.of([]))
    assert cgroup_conf.mydocker_probe(Layout.of([])).problem
