"""Traffic control on the devices of one network namespace.

What a device sends waits in its queueing discipline, and tbf lets it out at the rate (tc-tbf(8)). What it receives
waits nowhere, so it is led through an ifb first, a device for just that, which has a tbf too (tc-mirred(8)). The
other way, to drop what comes too fast (police), makes TCP stutter below the rate, and is missing in small kernels.
"""

from __future__ import annotations

import errno
import os

from pyroute2 import protocols
from pyroute2.netlink.exceptions import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyroute2 import IPRoute

    from mydocker_bandwidth.rates import Limits

#: What the kernel must have for a step that begins with these words.
_NEEDED = {
    "make an ifb": "ifb (CONFIG_IFB)",
    "lead": "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32 or CONFIG_NET_ACT_MIRRED",
    "limit": "tbf (CONFIG_NET_SCH_TBF)",
}

_INGRESS = 0xFFFF0000
_INGRESS_PARENT = 0xFFFFFFF1
_ROOT = 0xFFFFFFFF


class Refused(NetlinkError):  # type: ignore[misc]
    """The kernel refused a step. ``step`` is as in "cannot <step>"."""

    def __init__(self, error: NetlinkError, step: str) -> None:
        super().__init__(error.code, str(error))
        self.step = step


def reason(error: NetlinkError) -> str:
    """Why the limits cannot be put in force, in the words of somebody who did not write this file."""
    step = getattr(error, "step", "limit the container's network")
    if error.code == errno.EEXIST:
        return f"cannot {step}: it has a queueing discipline of somebody else's"
    if error.code in (errno.ENOENT, errno.EOPNOTSUPP):
        what = next((name for begin, name in _NEEDED.items() if step.startswith(begin)), "traffic control")
        return f"cannot {step}: this kernel lacks {what}"
    return f"cannot {step}: {os.strerror(error.code)}"


class Device:
    """What was made for one device: enough to take it away again, and nothing that was there before."""

    def __init__(self, index: int, name: str, mtu: int) -> None:
        self.index = index
        self.name = name
        self.mtu = mtu
        #: "tc" or "link" and what its "del" takes, in the order in which it was made
        self.made: list[tuple[str, dict[str, int]]] = []


def shape(route: IPRoute, limits: Limits, shaped: dict[int, Device]) -> None:
    """Limit each device whose index is not in ``shaped``, and put it there.

    Loopback only where there is no other: what processes of one container tell each other is no network traffic, but
    alone it is all that there is to limit.
    """
    links = list(route.get_links())
    _forget(route, shaped, {link["index"] for link in links})
    devices = [link for link in links if _kind(link) != "ifb"]
    others = [link for link in devices if not link["flags"] & 0x8]  # IFF_LOOPBACK, netdevice(7)
    for link in others or devices:
        if link["index"] in shaped:
            continue
        device = Device(link["index"], link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU") or 1500)
        shaped[device.index] = device
        try:
            _shape_device(route, limits, device)
        except NetlinkError:
            if route.link_lookup(ifname=device.name) == [device.index]:
                raise
            # It went while we were at it, and its qdiscs with it.


def _forget(route: IPRoute, shaped: dict[int, Device], present: set[int]) -> None:
    """Take away what was made for devices that are gone. Another device may get the number of one."""
    gone = {index: shaped.pop(index) for index in [*shaped] if index not in present}
    unshape(route, gone)


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return (info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def _shape_device(route: IPRoute, limits: Limits, device: Device) -> None:
    if limits.receive:
        ifb = _make_ifb(route, device)
        _limit(route, limits, limits.receive, ifb, device.mtu, f"limit what {device.name} receives")
        _lead_through(route, device, ifb)
    if limits.send:
        _limit(route, limits, limits.send, device.index, device.mtu, f"limit what {device.name} sends")
        device.made.append(("tc", {"index": device.index, "parent": _ROOT}))


def _make_ifb(route: IPRoute, device: Device) -> int:
    name, step = f"ifb{device.index}", f"make an ifb for {device.name}"
    _step(step, route.link, "add", ifname=name, kind="ifb", mtu=device.mtu)
    index: int = route.link_lookup(ifname=name)[0]
    device.made.append(("link", {"index": index}))
    _step(step, route.link, "set", index=index, state="up")
    return index


def _lead_through(route: IPRoute, device: Device, ifb: int) -> None:
    """Send what the device receives to the ifb, from where it comes back as if from the device."""
    step = f"lead what {device.name} receives through an ifb"
    _step(step, route.tc, "add", "ingress", device.index)
    device.made.append(("tc", {"index": device.index, "parent": _INGRESS_PARENT, "handle": _INGRESS}))
    redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": ifb}
    everything = {"protocol": protocols.ETH_P_ALL, "keys": ["0x0/0x0+0"], "prio": 1, "target": 0x10000}
    _step(step, route.tc, "add-filter", "u32", device.index, parent=_INGRESS, action=redirect, **everything)


def _limit(route: IPRoute, limits: Limits, rate: int, index: int, mtu: int, step: str) -> None:
    burst, queue = limits.burst_at(rate, mtu), limits.queue_at(rate, mtu)
    _step(step, route.tc, "add", "tbf", index, handle=0x10000, rate=rate // 8, burst=burst, limit=queue)


def _step(step: str, function: Any, *arguments: Any, **keywords: Any) -> None:
    try:
        function(*arguments, **keywords)
    except NetlinkError as e:
        raise Refused(e, step) from e


def unshape(route: IPRoute, shaped: dict[int, Device]) -> None:
    """Take away what `shape` made. A device that has gone has taken its own with it."""
    for device in shaped.values():
        for kind, what in reversed(device.made):
            try:
                getattr(route, kind)("del", **what)
            except NetlinkError as e:
                if e.code not in (errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.EINVAL):
                    raise
    shaped.clear()


def figures(route: IPRoute, shaped: dict[int, Device]) -> dict[str, int]:
    """Bytes through the limits in each direction, link layer included, and packets dropped at them."""
    found = {"sent_bytes": 0, "received_bytes": 0, "dropped_packets": 0}
    ifbs = {what["index"] for device in shaped.values() for kind, what in device.made if kind == "link"}
    for qdisc in route.get_qdiscs():
        if qdisc.get_attr("TCA_KIND") == "tbf" and (qdisc["index"] in shaped or qdisc["index"] in ifbs):
            stats = qdisc.get_attr("TCA_STATS2")
            name = "received_bytes" if qdisc["index"] in ifbs else "sent_bytes"
            found[name] += stats.get_attr("TCA_STATS_BASIC")["bytes"]
            found["dropped_packets"] += stats.get_attr("TCA_STATS_QUEUE")["drops"]
    return found
