"""What a child is doing at the moment."""

from __future__ import annotations


class Step:
    """What is being done, for the report of a failure: ``cannot <doing>: <the kernel's reason>``."""

    __slots__ = ("doing",)

    def __init__(self) -> None:
        self.doing = ""
