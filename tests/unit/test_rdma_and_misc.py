"""The flags for RDMA devices and for what the controller misc counts: values, and what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Layout
from subsystems import misc, rdma

(RDMA,) = rdma.mydocker_fields()
(MISC,) = misc.mydocker_fields()


@pytest.fixture(autouse=True)
def adapters(tmp_path, monkeypatch):
    """A host with the RDMA devices mlx5_0 and mlx5_1."""
    for name in ("mlx5_0", "mlx5_1"):
        (tmp_path / "infiniband" / name).mkdir(parents=True)
    monkeypatch.setattr(rdma, "_DEVICES", str(tmp_path / "infiniband"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mlx5_0 hca_handle=2 hca_object=2000", ("mlx5_0", {"hca_handle": 2, "hca_object": 2000})),
        ("mlx5_0 hca_object=max", ("mlx5_0", {"hca_object": None})),
        (" mlx5_0  hca_handle=0", ("mlx5_0", {"hca_handle": 0})),
    ],
)
def test_values_of_rdma(text, value):
    assert rdma.parse_rdma(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not of the form 'DEVICE hca_handle=N"),
        ("mlx5_0", "is not of the form"),
        ("hca_handle=2", "is not of the form"),
        ("mlx5_0 hca_handle", "is not of the form"),
        ("mlx5_0 handles=2", "is not of the form"),
        ("mlx5_0 hca_handle=2 hca_handle=3", "is not of the form"),
        ("mlx5_0 hca_handle=few", "is not a whole number"),
        ("mlx5_0 hca_handle=-1", "is not between 0 and"),
        ("mlx5_0 hca_handle=2147483648", "is not between 0 and"),
    ],
)
def test_what_rdma_refuses(text, words):
    with pytest.raises(ValueError, match=words):
        rdma.parse_rdma(text)


@pytest.mark.parametrize(
    ("text", "value"), [("sev=2", ("sev", 2)), ("sev_es=max", ("sev_es", None)), ("tdx=0", ("tdx", 0))]
)
def test_values_of_misc(text, value):
    assert misc.parse_misc(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sev", "is not of the form RESOURCE=N"),
        ("=2", "is not of the form RESOURCE=N"),
        ("se v=2", "is not of the form RESOURCE=N"),
        ("sev=many", "is not a whole number"),
        ("sev=-1", "is not between 0 and"),
    ],
)
def test_what_misc_refuses(text, words):
    with pytest.raises(ValueError, match=words):
        misc.parse_misc(text)


@given(text=st.text())
@pytest.mark.parametrize("field", [RDMA, MISC], ids=["rdma", "misc"])
def test_any_text_is_a_value_or_refused_with_a_reason(field, text):
    try:
        field.value_of(text)
    except LimitError as error:
        assert error.reason


def test_what_is_written_for_rdma(limit_journey, fake_host, cgroup_layout):
    host = fake_host(cgroup_layout.layout.kind, rdma_devices=["mlx5_0", "mlx5_1"])
    container = limit_journey(rdma, host=host, rdma=["mlx5_0 hca_handle=2 hca_object=2000", "mlx5_1 hca_object=7"])
    assert container.read("rdma.max").splitlines() == [
        "mlx5_0 hca_handle=2 hca_object=2000",
        "mlx5_1 hca_handle=max hca_object=7",
    ]
    assert container.attached("rdma")
    container.update(rdma=["mlx5_1 hca_handle=3"])
    assert container.read("rdma.max").splitlines() == [
        "mlx5_0 hca_handle=max hca_object=max",
        "mlx5_1 hca_handle=3 hca_object=max",
    ]
    container.report("rdma.current", "mlx5_0 hca_handle=1 hca_object=20")
    container.end()
    assert container.usage["mlx5_0"] == {"hca_handle": 1, "hca_object": 20}


def test_an_rdma_update_that_fails_is_undone(limit_journey, fake_host, cgroup_layout):
    host = fake_host(cgroup_layout.layout.kind, rdma_devices=["mlx5_0", "mlx5_1"])
    container = limit_journey(rdma, host=host, rdma=["mlx5_0 hca_handle=2", "mlx5_1 hca_handle=2"])
    host.rdma_devices = ("mlx5_0",)  # removed meanwhile
    with pytest.raises(Exception, match=r"rdma\.max"):
        container.update(rdma=["mlx5_0 hca_handle=5", "mlx5_1 hca_handle=5"])
    assert container.read("rdma.max").splitlines() == [
        "mlx5_0 hca_handle=2 hca_object=max",
        "mlx5_1 hca_handle=2 hca_object=max",
    ]


@pytest.mark.parametrize(
    ("texts", "kind", "words"),
    [
        (["mlx9 hca_handle=2"], UnsupportedLimit, "no RDMA device mlx9; there are mlx5_0, mlx5_1"),
        (["mlx5_0 hca_handle=2", "mlx5_0 hca_object=2"], LimitError, "the limits of mlx5_0 are given twice"),
    ],
)
def test_which_devices_there_are(texts, kind, words, cgroup_layout):
    with pytest.raises(kind, match=words):
        rdma.mydocker_validate(ResourceConfig({"rdma": RDMA.value_of(texts)}), cgroup_layout.layout)


def test_what_is_written_for_misc(limit_journey, fake_host, cgroup_layout):
    host = fake_host(cgroup_layout.layout.kind, misc_resources={"sev": 16, "sev_es": 4})
    container = limit_journey(misc, host=host, misc=["sev=2", "sev_es=1"])
    assert dict(line.split() for line in container.read("misc.max").splitlines()) == {"sev": "2", "sev_es": "1"}
    assert container.attached("misc")
    container.update(misc=["sev=3"])
    assert dict(line.split() for line in container.read("misc.max").splitlines()) == {"sev": "3", "sev_es": "max"}
    container.report("misc.current", "sev 1\nsev_es 0")
    container.end()
    assert container.usage == {"sev": 1, "sev_es": 0}


@pytest.mark.parametrize(
    ("texts", "kind", "words"),
    [
        (["tdx=2"], UnsupportedLimit, "no resource tdx for the controller misc; there are sev"),
        (["sev=2", "sev=3"], LimitError, "the limit for sev is given twice"),
    ],
)
def test_which_resources_there_are(texts, kind, words, cgroup_layout):
    with pytest.raises(kind, match=words):
        misc.mydocker_validate(ResourceConfig({"misc": MISC.value_of(texts)}), cgroup_layout.layout)


@pytest.mark.parametrize(
    ("plugin", "field", "text"), [(rdma, RDMA, "mlx5_0 hca_handle=2"), (misc, MISC, "sev=2")], ids=["rdma", "misc"]
)
def test_a_host_without_the_controller(plugin, field, text):
    with pytest.raises(UnsupportedLimit, match=f"no {field.name} controller"):
        plugin.mydocker_validate(ResourceConfig({field.name: field.value_of(text)}), Layout.of([]))
    assert f"no {field.name} controller" in plugin.mydocker_probe(Layout.of([])).problem
