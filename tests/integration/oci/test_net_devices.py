"""``linux.netDevices``: devices of a host that is a network namespace of the test's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("ip") is None, reason="devices are made by ip, of the package iproute2")

SHOW = "ip link; ip -o addr"


@pytest.fixture
def on_host(ours: Any) -> Callable[..., Any]:
    """Our runtime on a host with the pair of devices ``one`` and ``two``, and what ``script`` adds to it."""

    def make(script: str = ":") -> Any:
        setup = f'ip link add one type veth peer name two && {{ {script}; }} && exec "$@"'
        return type(ours)(["unshare", "--net", "sh", "-ec", setup, "sh", *ours.command], ours.root)

    return make


@pytest.mark.parametrize(("name", "shown"), [("", "one"), ("eth0", "eth0"), ("net%d", "net0")])
def test_a_device_comes_with_its_addresses_and_is_up(
    name: str, shown: str, on_host: Callable[..., Any], bundle: Any, cid: str
) -> None:
    runtime = on_host(
        "ip addr add 10.11.12.13/24 broadcast 10.11.12.255 dev one; ip addr add 10.99.0.1 peer 10.99.0.2/32 dev one;"
        " ip addr add fd00::13/64 dev one; ip addr add 169.254.1.1/16 scope link dev one; ip link set one up"
    )
    made = bundle("sh", "-c", SHOW, linux__netDevices={"one": {"name": name} if name else {}})
    done = runtime.run(made, cid)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if f" {shown}" in line]
    assert "UP" in lines[0].split("<")[1].split(">")[0].split(",")
    addresses = " ".join(lines[1:])
    assert "inet 10.11.12.13/24 brd 10.11.12.255 " in addresses
    assert "inet 10.99.0.1 peer 10.99.0.2/32 " in addresses
    assert "inet6 fd00::13/64 " in addresses
    assert "169.254.1.1" not in addresses, "an address of that link alone"


def test_in_a_user_namespace_they_are_its_roots(on_host: Callable[..., Any], bundle: Any, cid: str) -> None:
    config = bundle.config("sh", "-c", "ip link set eth1 down && ip -o link")
    config["process"]["capabilities"] = {kind: ["CAP_NET_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    config["linux"]["namespaces"].append({"type": "user"})
    for name in ("uidMappings", "gidMappings"):
        config["linux"][name] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    config["linux"]["netDevices"] = {"one": {"name": "eth0"}, "two": {"name": "eth1"}}
    done = on_host().run(bundle(config=config), cid)
    assert done.returncode == 0, done.stderr
    assert " eth0@" in done.stdout
    assert " eth1@" in done.stdout


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ({"three": {}}, "linux.netDevices.three: the host has no network device of this name"),
        ({"one": {"name": "lo"}}, "linux.netDevices.one: cannot move it into the container as lo: the container has"),
        ({"lo": {"name": "lo2"}}, "linux.netDevices.lo: cannot move it into the container as lo2"),
    ],
)
def test_what_cannot_be_moved(
    devices: dict[str, Any], words: str, on_host: Callable[..., Any], bundle: Any, cid: str, ours: Any
) -> None:
    done = on_host().run(bundle("true", linux__netDevices=devices), cid)
    assert done.returncode == 1
    assert words in done.stderr
    assert "does not exist" in ours("state", cid).stderr


def test_the_hosts_own_namespace_is_no_place_to_move_to(on_host: Callable[..., Any], bundle: Any, cid: str) -> None:
    config = bundle.config("true")
    (network,) = (entry for entry in config["linux"]["namespaces"] if entry["type"] == "network")
    network["path"] = "/proc/self/ns/net"
    config["linux"]["netDevices"] = {"one": {"name": "eth0"}}
    done = on_host().run(bundle(config=config), cid)
    assert done.returncode == 1
    assert "without a private network namespace" in done.stderr


def test_hooks_find_them_moved(on_host: Callable[..., Any], bundle: Any, cid: str, tmp_path: Any) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"ip -o link show one > {tmp_path}/seen 2>&1 || true"]}
    made = bundle("true", linux__netDevices={"one": {}}, hooks={"createRuntime": [hook | {"env": ["PATH=/sbin:/bin"]}]})
    done = on_host().run(made, cid)
    assert done.returncode == 0, done.stderr
    assert "does not exist" in (tmp_path / "seen").read_text()
