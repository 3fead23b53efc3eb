"""Network devices and their addresses, by rtnetlink(7). Loaded only where devices are moved.

A `Netlink` stays in the network namespace that its maker was in when he made it (network_namespaces(7)).
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_AF_NETLINK, _NETLINK_ROUTE = 16, 0
# include/uapi/linux/netlink.h
_REQUEST, _ACK, _DUMP, _REPLACE, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x400
_ERROR, _DONE = 2, 3
# include/uapi/linux/rtnetlink.h
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 18, 20, 22
_SCOPE_UNIVERSE = 0
# include/uapi/linux/if_link.h, if_addr.h, if.h
_IFLA_IFNAME, _IFLA_NET_NS_FD = 3, 28
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_PERMANENT = 0x80
_IFF_UP = 1

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")

_LARGEST = 1 << 16  # of a part of an answer; the kernel's are half of that (netlink(7))


class Address(Value):
    """An address of a device, in the kernel's own numbers and bytes."""

    family: int
    prefix: int
    attributes: tuple[tuple[int, bytes], ...]


class Netlink:
    """Questions and orders to one network namespace. Each raises OSError with the kernel's errno."""

    def __init__(self) -> None:
        flags = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_AF_NETLINK, flags, _NETLINK_ROUTE)
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def devices(self) -> dict[str, int]:
        """The name of each device, and its index."""
        found = {}
        for body in self._ask(_GETLINK, _DUMP, _LINK.pack(0, 0, 0, 0, 0)):
            index = _LINK.unpack_from(body)[2]
            name = dict(_attributes(body, _LINK.size)).get(_IFLA_IFNAME, b"")
            found[os.fsdecode(name.rstrip(b"\0"))] = index
        return found

    def lasting_addresses(self, index: int) -> list[Address]:
        """Addresses of a device that somebody has given it, and that mean the same in another namespace.

        Not those that the kernel has worked out or got, nor those of a link or a host (rtnetlink(7), ifa_scope).
        """
        found = []
        for body in self._ask(_GETADDR, _DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, prefix, flags, scope, owner = _ADDRESS.unpack_from(body)
            attributes = dict(_attributes(body, _ADDRESS.size))
            if _IFA_FLAGS in attributes:  # more of them than fit into the header
                (flags,) = struct.unpack("=I", attributes[_IFA_FLAGS])
            if owner == index and scope == _SCOPE_UNIVERSE and flags & _IFA_F_PERMANENT:
                kept = tuple(
                    (kind, attributes[kind])
                    for kind in (_IFA_LOCAL, _IFA_ADDRESS, _IFA_BROADCAST)
                    if kind in attributes
                )
                found.append(Address(family=family, prefix=prefix, attributes=kept))
        return found

    def shut(self, index: int) -> None:
        self._order(_NEWLINK, 0, _LINK.pack(0, 0, index, 0, _IFF_UP))

    def bring_up(self, index: int) -> None:
        self._order(_NEWLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))

    def move(self, index: int, namespace: int, name: str) -> None:
        """Move a device that is down into the namespace behind the descriptor, and name it there, in one call."""
        body = _LINK.pack(0, 0, index, 0, 0)
        body += _attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace))
        body += _attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
        self._order(_NEWLINK, 0, body)

    def add_address(self, index: int, address: Address) -> None:
        body = _ADDRESS.pack(address.family, address.prefix, _IFA_F_PERMANENT, _SCOPE_UNIVERSE, index)
        body += b"".join(_attribute(kind, data) for kind, data in address.attributes)
        self._order(_NEWADDR, _CREATE | _REPLACE, body)

    def _order(self, kind: int, flags: int, body: bytes) -> None:
        for _ in self._ask(kind, flags | _ACK, body):
            pass

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        """Send a request; the bodies of the answers."""
        self._number += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._number, 0) + body)
        while True:
            data = self._socket.recv(_LARGEST)
            while data:
                length, answer, _, number, _ = _HEADER.unpack_from(data)
                if length < _HEADER.size:
                    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
                content, data = data[_HEADER.size : length], data[_aligned(length) :]
                if number != self._number:
                    continue
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    (code,) = struct.unpack_from("=i", content)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield content


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _attribute(kind: int, data: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(data)
    return (_ATTRIBUTE.pack(length, kind) + data).ljust(_aligned(length), b"\0")


def _attributes(body: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    while start + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, body[start + _ATTRIBUTE.size : start + length]
        start += _aligned(length)
