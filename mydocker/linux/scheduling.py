"""How the kernel schedules a thread: its policy, its nice value, its io priority. For what ``os`` has no function.

A limit may import this module: see docs/plugins.md.
"""

from __future__ import annotations

import struct

from mydocker.linux.libc import architecture_number, c_char_p, c_int, c_uint, create_string_buffer, system_call
from mydocker.value import Value

SCHED_OTHER = 0
SCHED_FIFO = 1
SCHED_RR = 2
SCHED_BATCH = 3
SCHED_ISO = 4  # reserved (include/uapi/linux/sched.h): the kernel has it not
SCHED_IDLE = 5
SCHED_DEADLINE = 6

IOPRIO_CLASS_NONE = 0
IOPRIO_CLASS_RT = 1
IOPRIO_CLASS_BE = 2
IOPRIO_CLASS_IDLE = 3
_IOPRIO_CLASS_SHIFT = 13
_IOPRIO_WHO_PROCESS = 1

_sched_setattr = system_call(architecture_number(314, 274), c_int, c_char_p, c_uint)
_sched_getattr = system_call(architecture_number(315, 275), c_int, c_char_p, c_uint, c_uint)
_ioprio_set = system_call(architecture_number(251, 30), c_int, c_int, c_int)
_ioprio_get = system_call(architecture_number(252, 31), c_int, c_int)

#: Flags of sched_setattr(2).
SCHED_FLAG_RESET_ON_FORK = 0x01
SCHED_FLAG_RECLAIM = 0x02
SCHED_FLAG_DL_OVERRUN = 0x04
SCHED_FLAG_KEEP_POLICY = 0x08
SCHED_FLAG_KEEP_PARAMS = 0x10
SCHED_FLAG_UTIL_CLAMP_MIN = 0x20
SCHED_FLAG_UTIL_CLAMP_MAX = 0x40

# struct sched_attr of sched_setattr(2), without what came after Linux 3.14: the clamps of Linux 5.3.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_CLAMPS = struct.Struct("=II")


class SchedAttr(Value):
    """The attributes of sched_setattr(2). ``nice`` counts for OTHER and BATCH, ``priority`` for FIFO and RR.

    ``runtime``, ``deadline`` and ``period``, of DEADLINE, are nanoseconds. For OTHER and BATCH ``runtime`` is since
    Linux 6.12 the length of a slice, 0 for the kernel's own.
    """

    policy: int = SCHED_OTHER
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0


def sched_setattr(thread: int, attributes: SchedAttr) -> None:
    """Set all attributes of one thread, 0 for the caller."""
    clamps = b""
    if attributes.flags & (SCHED_FLAG_UTIL_CLAMP_MIN | SCHED_FLAG_UTIL_CLAMP_MAX):
        clamps = _CLAMPS.pack(0, 0)  # where the flags are set, the kernel takes no shorter struct
    size = _ATTRIBUTES.size + len(clamps)
    _sched_setattr(thread, _ATTRIBUTES.pack(size, *attributes.asdict().values()) + clamps, 0)


def sched_getattr(thread: int) -> SchedAttr:
    """The attributes of one thread, 0 for the caller."""
    buffer = create_string_buffer(_ATTRIBUTES.size)
    _sched_getattr(thread, buffer, len(buffer), 0)
    return SchedAttr(**dict(zip(SchedAttr._fields, _ATTRIBUTES.unpack(buffer.raw)[1:], strict=True)))


def ioprio_set(thread: int, io_class: int, level: int) -> None:
    """Set the io priority of one thread, 0 for the caller (ioprio_set(2))."""
    _ioprio_set(_IOPRIO_WHO_PROCESS, thread, io_class << _IOPRIO_CLASS_SHIFT | level)


def ioprio_get(thread: int) -> tuple[int, int]:
    """(class, level) of the io priority of one thread, 0 for the caller. NONE: it follows from the nice value."""
    value = _ioprio_get(_IOPRIO_WHO_PROCESS, thread)
    return value >> _IOPRIO_CLASS_SHIFT, value & (1 << _IOPRIO_CLASS_SHIFT) - 1
