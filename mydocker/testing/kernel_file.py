"""One kernel file of an imitated cgroup, and how the kernel reads the values that are written to it.

Each function here refuses with the errno of the kernel function it stands for: ``kstrtoull`` and ``kstrtoll``
(lib/kstrtox.c), ``page_counter_memparse`` (mm/page_counter.c), ``cpulist_parse`` (lib/bitmap-str.c),
``blkg_conf_prep`` (block/blk-cgroup.c).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from mydocker.resources import format_cpu_list

if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.testing.hierarchy import FakeDirectory

    #: Takes the cgroup and the text, and returns what the file then holds; None if its content stays as it is.
    Writer = Callable[[FakeDirectory, str], str | None]

PAGE = os.sysconf("SC_PAGESIZE")
#: What a v1 memory file says when there is no limit: the largest number of whole pages.
UNLIMITED = (2**63 - 1) // PAGE * PAGE


@dataclass(frozen=True)
class KernelFile:
    """A file: where there is one, what a new one holds, and what becomes of what is written to it.

    ``write`` None: it is read-only. ``where``: whether the root of the hierarchy has it, the cgroups below, or both.
    """

    name: str
    content: str | Callable[[FakeDirectory], str] = ""
    write: Writer | None = None
    where: Literal["below", "root", "everywhere"] = "below"

    def is_in(self, directory: FakeDirectory) -> bool:
        return self.where == "everywhere" or (self.where == "root") == directory.is_root

    def first_content(self, directory: FakeDirectory) -> str:
        return self.content if isinstance(self.content, str) else self.content(directory)


def refuse(number: int) -> NoReturn:
    """Answer as the kernel does with this errno."""
    raise OSError(number, os.strerror(number))


def keep(_directory: FakeDirectory, text: str) -> str:
    """Any text is taken as it is."""
    return text


def ignore(_directory: FakeDirectory, _text: str) -> None:
    """The write has an effect that no file shows."""


def reset(_directory: FakeDirectory, _text: str) -> str:
    """Whatever is written, the counter starts again."""
    return "0"


def number(text: str, *, signed: bool = False) -> int:
    """A whole number in C's notation."""
    sign, digits = (text[:1], text[1:]) if text[:1] in ("+", "-") else ("", text)
    if not (digits.isascii() and digits.isalnum()) or (sign == "-" and not signed):
        refuse(errno.EINVAL)
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") and len(digits) > 1 else 10
    try:
        value = int(digits, base)
    except ValueError:
        refuse(errno.EINVAL)
    if value >= (1 << 63 if signed else 1 << 64):
        refuse(errno.ERANGE)
    return -value if sign == "-" else value


def number_between(low: int, high: int, otherwise: int = errno.ERANGE) -> Writer:
    def write(_directory: FakeDirectory, text: str) -> str:
        value = number(text.strip(), signed=True)
        if not low <= value <= high:
            refuse(otherwise)
        return str(value)

    return write


def max_or_number(highest: int, otherwise: int = errno.EINVAL) -> Writer:
    """``max``, or a number from 0 on."""

    def write(_directory: FakeDirectory, text: str) -> str:
        if text.strip() == "max":
            return "max"
        value = number(text.strip(), signed=True)
        if not 0 <= value <= highest:
            refuse(otherwise)
        return str(value)

    return write


def pages(text: str, unlimited: str, size: int = PAGE) -> int:
    """Bytes, rounded down to whole pages of ``size``; what is ``unlimited``, or more than that, is `UNLIMITED`."""
    text = text.strip()
    if text == unlimited:
        return UNLIMITED
    digits = text[:-1] if text[-1:].upper() in ("K", "M", "G", "T", "P", "E") else text
    factor = 1 << 10 * (1 + "KMGTPE".index(text[-1].upper())) if digits != text else 1
    value = number(digits) * factor if digits else 0
    return UNLIMITED if value >= UNLIMITED else value // size * size


def bytes_or_max(_directory: FakeDirectory, text: str) -> str:
    """A limit in bytes of cgroup v2."""
    value = pages(text, "max")
    return "max" if value == UNLIMITED else str(value)


def numbers(text: str, below: int) -> set[int]:
    """A list such as ``0-3,7``, each number smaller than ``below``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.strip().partition("-")
        if not part.strip():
            continue
        low = number(first)
        high = number(last) if dash else low
        if low > high:
            refuse(errno.EINVAL)
        if high >= below:
            refuse(errno.ERANGE)
        found.update(range(low, high + 1))
    return found


def list_of(found: set[int]) -> str:
    return format_cpu_list(found)


def lines(text: str) -> dict[str, str]:
    """Lines of ``KEY VALUE`` as a dict."""
    return dict(line.partition(" ")[::2] for line in text.splitlines() if line)


def text_of(entries: dict[str, str]) -> str:
    return "\n".join(f"{key} {value}".rstrip() for key, value in entries.items())


def device_of(directory: FakeDirectory, text: str) -> tuple[str, str]:
    """``8:0 VALUE`` as the device and the value; ENODEV for one that the host has not."""
    device, _, value = text.strip().partition(" ")
    major, colon, minor = device.partition(":")
    if not (colon and major.isdecimal() and minor.isdecimal()):
        refuse(errno.EINVAL)
    if device not in directory.host.block_devices:
        refuse(errno.ENODEV)
    return device, value.strip()
