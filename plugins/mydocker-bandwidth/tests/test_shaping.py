"""Limits in real network namespaces that the tests make, measured by real transfers between two of them."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import mydocker_bandwidth
import pytest
from mydocker_bandwidth.rates import Limits

from mydocker import LimitError, ResourceConfig

if TYPE_CHECKING:
    from mydocker_bandwidth.container import ShapedNamespace

    from mydocker import Result

T = TypeVar("T")

#: Bits per second: a transfer of some seconds' worth, and little to do for a busy machine.
SLOW, QUICK = 4_000_000, 16_000_000


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    from mydocker_bandwidth import _problem

    problem = _problem(Limits(send=SLOW, receive=SLOW))
    if problem:
        pytest.skip(problem)


class Namespace:
    """A network namespace with one device, ``fd`` is its descriptor."""

    def __init__(self, fd: int, address: str) -> None:
        self.fd = fd
        self.address = address

    def inside(self, work: Callable[[], T]) -> T:
        """Do it in a thread that is in the namespace."""
        from mydocker.linux.process import CLONE_NEWNET, setns

        def body() -> T:
            setns(self.fd, CLONE_NEWNET)
            return work()

        return in_a_thread(body)


def new_namespace() -> int:
    from mydocker.linux.process import CLONE_NEWNET, unshare

    def body() -> int:
        unshare(CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return in_a_thread(body)


def in_a_thread(body: Callable[[], T]) -> T:
    """Do it in a thread that ends with it: what it enters, nobody else is in."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(body).result()


def connect(here: Namespace, there: Namespace, *, name: str = "eth0") -> None:
    """A pair of devices, one end in each namespace, with addresses, up."""
    from pyroute2 import IPRoute

    def make() -> None:
        with IPRoute() as route:
            route.link("add", ifname=name, kind="veth", peer={"ifname": name, "net_ns_fd": there.fd})

    def address(own: str) -> None:
        with IPRoute() as route:
            (index,) = route.link_lookup(ifname=name)
            route.addr("add", index=index, address=own, prefixlen=24)
            route.link("set", index=index, state="up")

    here.inside(make)
    here.inside(lambda: address(here.address))
    there.inside(lambda: address(there.address))


@pytest.fixture
def outside() -> Iterator[Namespace]:
    """Somebody to talk to."""
    namespace = Namespace(new_namespace(), "10.86.0.1")
    yield namespace
    os.close(namespace.fd)


@pytest.fixture
def engines(outside: Namespace) -> Iterator[Namespace]:
    """A namespace as an engine has it ready for a container: connected to `outside`."""
    namespace = Namespace(new_namespace(), "10.86.0.2")
    connect(namespace, outside)
    yield namespace
    os.close(namespace.fd)


@pytest.fixture
def shape() -> Iterator[Callable[..., ShapedNamespace]]:
    """Limit a namespace that stays, as the plugin does it; undone at the end of the test."""
    from mydocker_bandwidth.container import ShapedNamespace

    made: list[ShapedNamespace] = []

    def put_in_force(namespace: Namespace, **limits: int) -> ShapedNamespace:
        made.append(namespace.inside(lambda: ShapedNamespace(Limits(**limits), outlives_container=True)))
        made[-1].shape_all()
        return made[-1]

    yield put_in_force
    for shaped in made:
        shaped.release()


def rate_of_transfer(sender: Namespace, receiver: Namespace, rate: int, seconds: float = 1.5) -> float:
    """Bits per second of a TCP transfer that takes so long at ``rate``: content alone, after the first burst."""
    size = int(rate / 8 * seconds)
    with receiver.inside(lambda: socket.create_server((receiver.address, 0))) as listening:
        address = listening.getsockname()
        with sender.inside(lambda: socket.create_connection(address, timeout=60)) as out:
            incoming = listening.accept()[0]
            thread = threading.Thread(target=lambda: (out.sendall(bytes(size)), out.shutdown(socket.SHUT_WR)))
            thread.start()
            with incoming:
                incoming.settimeout(60)
                rate = measured(incoming, 64 << 10)
            thread.join()
    return rate


def measured(incoming: socket.socket, burst: int) -> float:
    received = 0
    while received < burst:
        received += len(incoming.recv(1 << 16))
    began, before = time.monotonic(), received
    while chunk := incoming.recv(1 << 16):
        received += len(chunk)
    return (received - before) * 8 / (time.monotonic() - began)


def is_about(measured_rate: float, rate: int) -> bool:
    """Above it never, below it by the headers, and by what a busy machine makes of TCP."""
    return 0.7 * rate < measured_rate < 1.03 * rate


def test_each_direction_has_its_rate(
    engines: Namespace, outside: Namespace, shape: Callable[..., ShapedNamespace]
) -> None:
    shape(engines, send=SLOW, receive=QUICK)
    assert is_about(rate_of_transfer(engines, outside, SLOW), SLOW)
    assert is_about(rate_of_transfer(outside, engines, QUICK), QUICK)


@pytest.mark.parametrize("direction", ["send", "receive"])
def test_a_direction_without_a_rate_is_not_limited(
    engines: Namespace, outside: Namespace, shape: Callable[..., ShapedNamespace], direction: str
) -> None:
    shape(engines, **{direction: SLOW})
    sender, receiver = (outside, engines) if direction == "send" else (engines, outside)
    assert rate_of_transfer(sender, receiver, QUICK) > 2 * QUICK
    assert is_about(rate_of_transfer(receiver, sender, SLOW), SLOW)


def test_a_burst_passes_at_once(engines: Namespace, outside: Namespace, shape: Callable[..., ShapedNamespace]) -> None:
    shape(engines, send=SLOW, burst=1 << 20)
    assert rate_of_transfer(engines, outside, SLOW) > 2 * SLOW  # it takes 1.5 s, most of which is the burst


def test_a_device_that_comes_later_is_limited_too(
    engines: Namespace, outside: Namespace, shape: Callable[..., ShapedNamespace]
) -> None:
    shaped = shape(engines, send=SLOW, receive=SLOW)
    shaped.shape_new()
    later = Namespace(engines.fd, "10.87.0.2")
    connect(later, Namespace(outside.fd, "10.87.0.1"), name="eth1")
    assert shaped.events.recv(1 << 16, socket.MSG_PEEK)
    shaped.shape_new()
    assert is_about(rate_of_transfer(later, Namespace(outside.fd, "10.87.0.1"), SLOW), SLOW)
    with pytest.raises(BlockingIOError):
        for _ in range(100):  # its own changes are events as well, and come to an end
            shaped.events.recv(1 << 16, socket.MSG_PEEK)
            shaped.shape_new()


def test_a_device_that_goes_is_no_error(
    engines: Namespace, outside: Namespace, shape: Callable[..., ShapedNamespace]
) -> None:
    from pyroute2 import IPRoute

    shaped = shape(engines, send=SLOW, receive=SLOW)

    def delete() -> None:
        with IPRoute() as route:
            route.link("del", index=route.link_lookup(ifname="eth0")[0])

    engines.inside(delete)
    shaped.shape_new()
    assert engines.inside(state)[0] == ["lo", "ifb1"]  # alone again, loopback is limited
    assert set(shaped.figures()) == {"sent_bytes", "received_bytes", "dropped_packets"}


def test_a_device_that_takes_the_number_of_another_is_limited(
    engines: Namespace, outside: Namespace, shape: Callable[..., ShapedNamespace]
) -> None:
    from pyroute2 import IPRoute

    shaped = shape(engines, send=SLOW, receive=SLOW)

    def replace() -> None:
        with IPRoute() as route:
            (index,) = route.link_lookup(ifname="eth0")
            route.link("del", index=index)
            shaped.shape_new()
            route.link("add", index=index, ifname="eth7", kind="veth", peer={"ifname": "eth8"})

    engines.inside(replace)
    shaped.shape_new()
    _, qdiscs = engines.inside(state)
    # Two on each end of the new pair, and two on loopback, which was alone for a moment.
    assert [kind for _, kind, _ in qdiscs].count("tbf") == 6


def test_what_went_through_is_counted(
    engines: Namespace, outside: Namespace, shape: Callable[..., ShapedNamespace]
) -> None:
    shaped = shape(engines, send=QUICK, receive=QUICK)
    rate_of_transfer(engines, outside, QUICK)
    figures = shaped.figures()
    content = QUICK // 8 * 1.5
    assert content <= figures["sent_bytes"] < 1.3 * content
    assert 0 < figures["received_bytes"] < 0.2 * content


def test_at_the_end_the_namespace_is_as_it_was(engines: Namespace, outside: Namespace) -> None:
    from mydocker_bandwidth.container import ShapedNamespace

    before = engines.inside(state)
    shaped = engines.inside(lambda: ShapedNamespace(Limits(send=SLOW, receive=SLOW), outlives_container=True))
    shaped.shape_all()
    assert engines.inside(state) != before
    shaped.release()
    assert engines.inside(state) == before


def state() -> tuple[list[str], list[tuple[int, str, int]]]:
    """The devices, and the queueing disciplines on them."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        names = [link.get_attr("IFLA_IFNAME") for link in route.get_links()]
        return names, [(qdisc["index"], qdisc.get_attr("TCA_KIND"), qdisc["handle"]) for qdisc in route.get_qdiscs()]


def test_what_somebody_else_has_put_on_a_device_is_refused_and_left_there(
    engines: Namespace, outside: Namespace
) -> None:
    from mydocker_bandwidth.container import ShapedNamespace
    from pyroute2 import IPRoute

    def theirs() -> None:
        with IPRoute() as route:
            (index,) = route.link_lookup(ifname="eth0")
            route.tc("add", "tbf", index, handle=0x70000, rate=10**6, burst=10**5, limit=10**6)

    engines.inside(theirs)
    before = engines.inside(state)
    shaped = engines.inside(lambda: ShapedNamespace(Limits(send=SLOW, receive=SLOW), outlives_container=True))
    with pytest.raises(LimitError, match="cannot limit what eth0 sends: it has a queueing discipline of somebody"):
        shaped.shape_all()
    shaped.release()
    assert engines.inside(state) == before


def test_the_hosts_own_namespace_is_refused() -> None:
    from mydocker_bandwidth.container import ShapedNamespace

    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(LimitError, match="in the host's network"):
        ShapedNamespace(Limits(send=SLOW), outlives_container=True)
    assert os.listdir("/proc/self/fd") == descriptors


def test_nothing_of_it_is_left_in_this_process(run_container: Callable[..., Result]) -> None:
    run_container(["true"], net_rate="10mbit")

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    descriptors, threads = held()
    for _ in range(3):
        run_container(["true"], net_rate="10mbit")
    end = time.monotonic() + 10  # what serves the runs goes some seconds after the last one
    while (held()[0] > descriptors or held()[1] > threads) and time.monotonic() < end:
        time.sleep(0.01)
    assert held()[0] <= descriptors
    assert held()[1] <= threads


def test_the_hooks_in_a_namespace_that_an_engine_has_made(engines: Namespace, outside: Namespace) -> None:
    """As a run calls them, with the network that an engine names in its configuration."""
    before = engines.inside(state)
    config = ResourceConfig({"net_rate": QUICK, "net_rate_in": SLOW})
    cgroup: Any = SimpleNamespace(path="mydocker/engines", claim=lambda what: None)
    spec: Any = SimpleNamespace(network="/run/netns/engines")
    work = mydocker_bandwidth.mydocker_amend(config, spec, cgroup).network
    assert work is not None
    engines.inside(lambda: work(os.getpid()))
    (watch,) = mydocker_bandwidth.mydocker_watch(config, cgroup)
    assert watch.check() is None
    assert is_about(rate_of_transfer(engines, outside, QUICK), QUICK)
    assert is_about(rate_of_transfer(outside, engines, SLOW), SLOW)
    assert mydocker_bandwidth.mydocker_usage(config, cgroup)["sent_bytes"] > QUICK // 8
    mydocker_bandwidth.mydocker_remove(cgroup)
    assert engines.inside(state) == before
    mydocker_bandwidth.mydocker_remove(cgroup)  # nothing was made for it: nothing to undo
