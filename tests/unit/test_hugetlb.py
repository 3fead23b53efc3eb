"""The flag for huge pages: what is a value, what is written on v1 and on v2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Layout
from subsystems import hugetlb

(FIELD,) = hugetlb.mydocker_fields()


def config(*texts):
    return ResourceConfig({"hugetlb_limit": FIELD.value_of(list(texts))})


@pytest.fixture(autouse=True)
def sizes(tmp_path, monkeypatch):
    """A kernel with pages of 2 MB and 1 GB."""
    for name in ("hugepages-2048kB", "hugepages-1048576kB"):
        (tmp_path / "pages" / name).mkdir(parents=True)
    monkeypatch.setattr(hugetlb, "_HUGE_PAGES", str(tmp_path / "pages"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2MB=64m", ("2MB", 64 << 20)),
        ("2m=2m", ("2MB", 2 << 20)),
        ("2048k = 0", ("2MB", 0)),
        ("1g=3g", ("1GB", 3 << 30)),
        ("64KB=128k", ("64KB", 128 << 10)),
        ("1gb=1024m", ("1GB", 1 << 30)),
        ("2MB=max", ("2MB", None)),
    ],
)
def test_values(text, value):
    assert hugetlb.parse_hugetlb(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2MB", "is not of the form SIZE=BYTES"),
        ("=2m", "is not of the form SIZE=BYTES"),
        ("2MB=", "is not of the form SIZE=BYTES"),
        ("big=2m", "is not a size"),
        ("2MB=much", "is not a size"),
        ("2MB=3m", "3m is no multiple of 2MB, the size that is given for the pages"),
        ("0=3m", "there are no pages of 0 bytes"),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        hugetlb.parse_hugetlb(text)


@given(text=st.text())
def test_any_text_is_a_value_or_refused_with_a_reason(text):
    try:
        FIELD.value_of(text)
    except LimitError as error:
        assert error.reason


@given(shift=st.integers(10, 40), pages=st.integers(0, 1000))
def test_sizes_are_named_as_the_kernel_names_them(shift, pages):
    name, limit = hugetlb.parse_hugetlb(f"{1 << shift}={pages << shift}")
    assert hugetlb.parse_hugetlb(f"{name}={limit}") == (name, limit)
    assert limit == pages << shift


def test_what_is_written(limit_journey):
    container = limit_journey(hugetlb, hugetlb_limit=["2MB=4m", "1GB=0"])
    suffix = "limit_in_bytes" if container.version("hugetlb") == 1 else "max"
    assert container.read(f"hugetlb.2MB.{suffix}") == str(4 << 20)
    assert container.read(f"hugetlb.1GB.{suffix}") == "0"
    assert container.read(f"hugetlb.2MB.rsvd.{suffix}") == str(4 << 20)
    assert container.attached("hugetlb")


def test_an_update_lifts_what_is_not_named_any_more(limit_journey):
    container = limit_journey(hugetlb, hugetlb_limit=["2MB=4m", "1GB=0"])
    container.update(hugetlb_limit=["2MB=2m"])
    suffix = "limit_in_bytes" if container.version("hugetlb") == 1 else "max"
    assert container.read(f"hugetlb.2MB.{suffix}") == str(2 << 20)
    assert container.read(f"hugetlb.1GB.{suffix}") != "0"
    container.update(hugetlb_limit=["2MB=max"])
    now = container.read(f"hugetlb.2MB.{suffix}")
    assert now == "max" if suffix == "max" else int(now) > 1 << 62


def test_a_kernel_that_does_not_limit_reservations(fake_host, limit_journey):
    for kind in ("v1", "v2"):
        container = limit_journey(hugetlb, host=fake_host(kind, without=["*.rsvd.*"]), hugetlb_limit="2MB=4m")
        assert list(container.written.values()) == [str(4 << 20)]


@pytest.mark.parametrize(
    ("texts", "kind", "words"),
    [
        (["16MB=16m"], UnsupportedLimit, "this kernel has no pages of 16MB; it has pages of 2MB, 1GB"),
        (["2MB=2m", "2m=4m"], LimitError, "the limit for pages of 2MB is given twice"),
    ],
)
def test_what_this_host_cannot_do(texts, kind, words, cgroup_layout):
    with pytest.raises(kind, match=words) as caught:
        hugetlb.mydocker_validate(config(*texts), cgroup_layout.layout)
    assert caught.value.field == "hugetlb_limit"


def test_a_host_without_the_controller():
    with pytest.raises(UnsupportedLimit, match="no hugetlb controller"):
        hugetlb.mydocker_validate(config("2MB=2m"), Layout.of([]))
    assert "no hugetlb controller" in hugetlb.mydocker_probe(Layout.of([])).problem


def test_figures(limit_journey):
    container = limit_journey(hugetlb, hugetlb_limit="2MB=4m")
    if container.version("hugetlb") == 1:
        container.report("hugetlb.2MB.usage_in_bytes", 2 << 20)
        container.report("hugetlb.2MB.failcnt", 3)
    else:
        container.report("hugetlb.2MB.current", 2 << 20)
        container.report("hugetlb.2MB.events", "max 3")
    container.end()
    assert container.usage.keys() == {"2MB"}
    assert container.usage["2MB"].items() >= {"current_bytes": 2 << 20, "limit_hits": 3}.items()
