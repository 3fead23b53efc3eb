"""Network devices of the host that a container gets (config-linux.md, "Network Devices"; spec 1.3).

They are moved before any hook runs, keep the addresses that somebody has given them, and are up when the command runs.
What becomes of them with the container is the kernel's affair: a device of hardware goes back to the initial network
namespace, and others end with the container's (network_namespaces(7)).
"""

from __future__ import annotations

import os

from mydocker.errors import OciError
from mydocker.linux import process
from mydocker.linux.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def check(wanted: Mapping[str, Any]) -> None:
    """Refuse what is known to be wrong before anything exists. OciError, by the device's name."""
    here = Netlink()
    try:
        _find(here, wanted)
    finally:
        here.close()


def _find(here: Netlink, wanted: Mapping[str, Any]) -> dict[str, int]:
    devices = here.devices()
    for name in wanted:
        if name not in devices:
            raise OciError(f"linux.netDevices.{name}: the host has no network device of this name")
    return devices


def move(wanted: Mapping[str, Any], pid: int) -> None:
    """Move them into the network namespace of the process. OciError, by the device's name, for what is refused."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    here = Netlink()
    try:
        if os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/net")):
            raise OciError("linux.netDevices: unable to move network devices without a private network namespace")
        there = _netlink_in(namespace)
        try:
            devices = _find(here, wanted)
            for name, properties in wanted.items():
                _move(here, there, namespace, name, devices[name], properties.get("name") or name)
        finally:
            there.close()
    finally:
        here.close()
        os.close(namespace)


def _netlink_in(namespace: int) -> Netlink:
    """This process is there for this one call only; if it could not come back, it must not go on."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        process.setns(namespace, process.CLONE_NEWNET)
        try:
            return Netlink()
        finally:
            process.setns(own, process.CLONE_NEWNET)
    finally:
        os.close(own)


def _move(here: Netlink, there: Netlink, namespace: int, name: str, index: int, new_name: str) -> None:
    doing = f"move it into the container as {new_name}"
    before = there.devices()
    # The kernel would find out when the device has gone already. %d in a name is for a number that it chooses.
    if new_name in before:
        raise OciError(f"linux.netDevices.{name}: cannot {doing}: the container has a device of this name")
    try:
        addresses = here.lasting_addresses(index)
        here.shut(index)  # only then it can be renamed
        here.move(index, namespace, new_name)
        doing = "find it in the container"
        (moved,) = there.devices().items() - before.items()
        doing = "give it its addresses"
        for address in addresses:
            there.add_address(moved[1], address)
        doing = "bring it up"
        there.bring_up(moved[1])
    except OSError as e:
        raise OciError(f"linux.netDevices.{name}: cannot {doing}: {(e.strerror or str(e)).lower()}") from e
    except ValueError:
        raise OciError(f"linux.netDevices.{name}: cannot {doing}: its devices have changed meanwhile") from None
