"""Capabilities by name (capabilities(7), include/uapi/linux/capability.h)."""

from __future__ import annotations

import errno
import struct

from mydocker.linux.batch import Batch
from mydocker.linux.libc import architecture_number, c_char_p, create_string_buffer, function
from mydocker.linux.process import PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAPBSET_DROP, prctl

_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT_RAISE = 2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: By number, from 0.
NAMES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID "
    "CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW "
    "CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT "
    "CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD "
    "CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG "
    "CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
).split()

#: The mask of all of them, which is what the first process of a user namespace has.
ALL = (1 << len(NAMES)) - 1

#: The mask of the one that makes mounts.
SYS_ADMIN = 1 << NAMES.index("CAP_SYS_ADMIN")

#: CAP_SYSLOG: those up to it are in every kernel that can run a container.
_OLDEST = NAMES.index("CAP_SYSLOG")

_PRCTL = architecture_number(157, 167)
_CAPSET = architecture_number(126, 91)

_HEADER_V3 = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process

_capget = function("capget", c_char_p, c_char_p)
_capset = function("capset", c_char_p, c_char_p)


def mask(names: Iterable[str]) -> int:
    """The bit mask of capabilities by name; ValueError (from ``list.index``) for a name that is none."""
    bits = 0
    for name in names:
        bits |= 1 << NAMES.index(name)
    return bits


def permitted() -> int:
    """The mask of this process's permitted set."""
    return _capabilities()[1]


def inheritable() -> int:
    """The mask of this process's inheritable set."""
    return _capabilities()[2]


def _capabilities() -> tuple[int, int, int]:
    data = create_string_buffer(24)
    _capget(_HEADER_V3, data)
    effective, permitted, inheritable, *high = struct.unpack("=6I", data.raw)
    return effective | high[0] << 32, permitted | high[1] << 32, inheritable | high[2] << 32


def last() -> int:
    """The number of the last capability that this kernel has."""
    with open("/proc/sys/kernel/cap_last_cap") as f:
        return int(f.read())


def keep_over_setuid(*, keep: bool) -> None:
    """Whether the permitted set outlives the change to a user other than root (prctl(2), PR_SET_KEEPCAPS)."""
    prctl(_PR_SET_KEEPCAPS, int(keep))


def set_sets(permitted: int, effective: int, inheritable: int) -> None:
    """capset(2) of this process."""
    _capset(_HEADER_V3, _packed(permitted, effective, inheritable))


def _packed(permitted: int, effective: int, inheritable: int) -> bytes:
    """struct __user_cap_data_struct, twice (capget(2))."""
    sets = (effective, permitted, inheritable)
    return struct.pack("=6I", *(bits & 0xFFFFFFFF for bits in sets), *(bits >> 32 for bits in sets))


def raise_ambient(bits: int) -> None:
    """Put ``bits``, which the permitted and the inheritable set must have, into the ambient set."""
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def drop_bounding(keep: int) -> None:
    """Take everything but ``keep`` out of the bounding set, and everything out of the ambient set."""
    known = _dropping.get(keep)
    if known is not None:
        known.run({})
        return
    for number in range(64):  # to put the calls together takes longer than to make them once
        if not keep >> number & 1:
            try:
                prctl(PR_CAPBSET_DROP, number)
            except OSError as e:
                if e.errno != errno.EINVAL or number <= _OLDEST:
                    raise
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


_dropping: dict[int, Batch] = {}


def dropping(keep: int) -> Batch:
    """The calls of `drop_bounding`: worked out once in a process."""
    batch = _dropping.get(keep)
    if batch is None:
        batch = _dropping[keep] = Batch()
        add_dropping(batch, keep)
        batch.freeze()
    return batch


def add_dropping(batch: Batch, keep: int, name: str = "") -> None:
    """The calls of `drop_bounding`. ``name``: what they are for."""
    for number in range(64):
        if not keep >> number & 1:
            # A kernel before CAP_BPF, or one after us, has others: EINVAL is past its last one.
            failing = errno.EINVAL if number > _OLDEST else 0
            batch.call(_PRCTL, PR_CAPBSET_DROP, number, failing=failing, name=name)
    batch.call(_PRCTL, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, name=name)


def add_setting(batch: Batch, bits: int, name: str = "") -> None:
    """The call of `set_exact`."""
    batch.call(_CAPSET, _HEADER_V3, _packed(bits, bits, 0), name=name)


def set_exact(bits: int) -> None:
    """Make ``bits`` the permitted and the effective set, and the inheritable set empty (CVE-2022-24769)."""
    set_sets(bits, bits, 0)
