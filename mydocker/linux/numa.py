"""From which memory nodes a process gets its memory: set_mempolicy(2)."""

from __future__ import annotations

from mydocker.linux.libc import architecture_number, c_char_p, c_int, c_ulong, system_call

#: include/uapi/linux/mempolicy.h
MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
#: Those that are about no nodes.
WITHOUT_NODES = frozenset(("MPOL_DEFAULT", "MPOL_LOCAL"))
#: The most nodes that a kernel is built for (NODES_SHIFT).
MOST_NODES = 1024

_set_mempolicy = system_call(architecture_number(238, 237), c_int, c_char_p, c_ulong)


def set_policy(mode: int, nodes: int) -> None:
    """``mode`` with its flags, and the mask of the nodes. For this process, and for what it executes."""
    mask = nodes.to_bytes(MOST_NODES // 8, "little") if nodes else None
    # The kernel reads one bit less than it is told (mm/mempolicy.c, get_nodes).
    _set_mempolicy(mode, mask, MOST_NODES + 1 if nodes else 0)
