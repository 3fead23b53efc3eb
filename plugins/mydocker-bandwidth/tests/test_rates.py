"""Rates as they are written, and what follows from them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import mydocker_bandwidth
import pytest
from mydocker_bandwidth.rates import Limits, format_rate, parse_rate

from mydocker import LimitError, UnsupportedLimit
from mydocker.testing import Journey

Start = Callable[..., Journey]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10mbit", 10_000_000),
        ("10Mbit/s", 10_000_000),
        ("1.5gbit", 1_500_000_000),
        ("500 kbit", 500_000),
        ("8kibit", 8192),
        ("64000", 64_000),
        ("34gbit", 34_000_000_000),
    ],
)
def test_a_rate_is_bits_per_second(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "mbit", "1.2.3mbit", "10mb", "-1mbit", "1e9", "10 apples", "1.mbit", "٣mbit"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["0", "7999", "1kbit", "35gbit"])
def test_a_rate_that_the_kernel_cannot_keep_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not between 8kbit and 34gbit"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["10mbps", "1gbps", "10kbps"])
def test_a_unit_that_means_bits_to_some_and_bytes_to_others_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="may be bits or bytes"):
        parse_rate(text)


@pytest.mark.parametrize("rate", [8_000, 10_000_000, 1_500_000_000, 12_345_678])
def test_a_rate_is_written_as_it_is_read(rate: int) -> None:
    assert parse_rate(format_rate(rate)) == rate


def test_a_burst_has_room_for_a_frame_and_for_what_comes_in_10_ms() -> None:
    assert Limits().burst_at(8_000) == 16 << 10
    assert Limits().burst_at(8_000, mtu=65536) > 65536
    assert Limits().burst_at(10**9) == 10**9 // 8 // 100
    assert Limits(burst=2000).burst_at(10**9) == 2000
    assert Limits(burst=1000).burst_at(10**9, mtu=1500) > 1500


def test_a_direction_of_its_own_wins_over_both(limit_journey: Start) -> None:
    registry = limit_journey(mydocker_bandwidth).registry
    config = registry.parse({"net_rate": "10mbit", "net_rate_in": "1mbit", "net_burst": "64k"})
    limits = mydocker_bandwidth.limits_of(config)
    assert (limits.send, limits.receive, limits.burst) == (10_000_000, 1_000_000, 65536)
    one = mydocker_bandwidth.limits_of(registry.parse({"net_rate_out": "1mbit"}))
    assert (one.send, one.receive) == (1_000_000, 0)


def test_a_burst_without_a_rate_is_refused(limit_journey: Start) -> None:
    with pytest.raises(LimitError, match=r"^--net-burst: it belongs to a rate"):
        limit_journey(mydocker_bandwidth, net_burst="64k")


def test_it_explains_what_it_would_do(limit_journey: Start) -> None:
    container = limit_journey(mydocker_bandwidth)
    config = container.registry.parse({"net_rate": "10mbit", "net_rate_in": "1mbit"})
    assert mydocker_bandwidth.mydocker_explain(config, container.host.layout) == (
        "tbf on each device of the container's network namespace: send 10mbit, burst 16k",
        "an ifb for each device of the container's network namespace, with tbf: receive 1mbit, burst 16k",
        "watch the namespace for further devices",
    )


@pytest.mark.parametrize("rates", [{"net_rate": "1mbit"}, {"net_rate_in": "1mbit", "net_rate_out": "2mbit"}])
def test_what_this_kernel_lacks_is_named_and_best_effort_limits_go_without(
    limit_journey: Start, monkeypatch: pytest.MonkeyPatch, rates: dict[str, str]
) -> None:
    from mydocker_bandwidth import container, shaping
    from pyroute2.netlink.exceptions import NetlinkError

    def refused(enter: object, work: object) -> None:
        raise shaping.Refused(NetlinkError(errno.ENOENT, "no such file"), "limit what lo sends")

    monkeypatch.setattr(container, "in_thread", refused)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UnsupportedLimit) as caught:
        limit_journey(mydocker_bandwidth, **rates)
    assert str(caught.value).startswith(f"--{next(iter(rates)).replace('_', '-')}: ")
    assert caught.value.reason == "cannot limit what lo sends: this kernel lacks tbf (CONFIG_NET_SCH_TBF)"
    went_on = limit_journey(mydocker_bandwidth, limits="best-effort", net_burst="1m", **rates)
    assert set(went_on.unenforced) == {*rates, "net_burst"}
