"""``linux.memoryPolicy`` of config.json: its names, and what set_mempolicy(2) takes for them."""

from __future__ import annotations

from mydocker.linux import numa

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def parse(entry: Mapping[str, Any]) -> tuple[int, int]:
    """(mode with its flags, mask of the nodes). ValueError with the key and the reason."""
    mode, flags = entry.get("mode") or "", entry.get("flags") or ()
    if mode not in numa.MODES:
        raise ValueError("mode", f'invalid memory policy mode "{mode}": write one of {", ".join(numa.MODES)}')
    number = numa.MODES[mode]
    for flag in flags:
        if flag not in numa.FLAGS:
            raise ValueError("flags", f'invalid memory policy flag "{flag}": write one of {", ".join(numa.FLAGS)}')
        number |= numa.FLAGS[flag]
    nodes = _mask(entry.get("nodes") or "")
    if mode in numa.WITHOUT_NODES and nodes:
        raise ValueError("nodes", f"invalid memory policy: {mode} mode requires 0 nodes but got {nodes.bit_count()}")
    if mode not in numa.WITHOUT_NODES and not nodes:
        raise ValueError("nodes", f"invalid memory policy: {mode} mode requires at least one node")
    return number, nodes


def _mask(text: str) -> int:
    mask = 0
    for part in text.split(",") if text.strip() else ():
        first, dash, last = (word.strip() for word in part.partition("-"))
        last = last if dash else first
        if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
            raise ValueError("nodes", f'invalid memory policy node "{part}": write numbers and ranges, as in 0-3,7')
        low, high = int(first[:20]), int(last[:20])
        if not low <= high < numa.MOST_NODES:
            most = numa.MOST_NODES - 1
            raise ValueError("nodes", f'invalid memory policy node "{part}": a range grows, and ends at {most}')
        mask |= (2 << high) - (1 << low)
    return mask
