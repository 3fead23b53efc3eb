"""What is the same on cgroup v1 and v2: clamps of the CPU's utilization, rdma, misc, the sizes of huge pages."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mydocker.testing.kernel_file import KernelFile, lines, number, refuse, text_of

if TYPE_CHECKING:
    from mydocker.testing.hierarchy import FakeDirectory
    from mydocker.testing.kernel_file import Writer


def toggle(otherwise: int) -> Writer:
    """0 or 1."""

    def write(_directory: FakeDirectory, text: str) -> str:
        value = number(text.strip(), signed=True)
        if value not in (0, 1):
            refuse(otherwise)
        return str(value)

    return write


def set_period_of(text: str) -> int:
    """A period of the CPU bandwidth controller, microseconds: 1 ms to 1 s (sched-bwc.rst)."""
    period = number(text.strip())
    if not 1000 <= period <= 1000000:
        refuse(errno.EINVAL)
    return period


def huge_page_bytes(name: str) -> int:
    """``2MB`` in bytes."""
    return int(name[:-2]) << {"KB": 10, "MB": 20, "GB": 30}[name[-2:]]


def _clamp(_directory: FakeDirectory, text: str) -> str:
    """Per cent with at most two decimals, or ``max`` (cgroup-v2.rst, cpu.uclamp.min)."""
    if text.strip() == "max":
        return "max"
    whole, _, fraction = text.strip().partition(".")
    if not whole.isdecimal() or len(fraction) > 2 or (fraction and not fraction.isdecimal()):
        refuse(errno.EINVAL)
    hundredths = int(whole) * 100 + int(fraction.ljust(2, "0"))
    if hundredths > 10000:
        refuse(errno.ERANGE)
    return "max" if hundredths == 10000 else f"{hundredths // 100}.{hundredths % 100:02}"


CLAMPS = (KernelFile("cpu.uclamp.min", "0.00", _clamp), KernelFile("cpu.uclamp.max", "max", _clamp))


def _set_rdma(directory: FakeDirectory, text: str) -> str:
    """rdma.rst: ``DEVICE hca_handle=N hca_object=N``."""
    device, *pairs = text.split() or [""]
    if device not in directory.host.rdma_devices:
        refuse(errno.ENODEV)
    entries = lines(directory.read("rdma.max"))
    limits = dict(pair.split("=", 1) for pair in entries[device].split())
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in limits or not (value == "max" or value.isdecimal()):
            refuse(errno.EINVAL)
        limits[key] = value
    entries[device] = " ".join(f"{key}={value}" for key, value in limits.items())
    return text_of(entries)


def _per_rdma_device(amount: str) -> str:
    return f"hca_handle={amount} hca_object={amount}"


RDMA = (
    KernelFile(
        "rdma.max",
        lambda directory: text_of({device: _per_rdma_device("max") for device in directory.host.rdma_devices}),
        _set_rdma,
    ),
    KernelFile(
        "rdma.current",
        lambda directory: text_of({device: _per_rdma_device("0") for device in directory.host.rdma_devices}),
    ),
)


def _set_misc(directory: FakeDirectory, text: str) -> str:
    """misc in cgroup-v2.rst: ``RESOURCE N`` or ``RESOURCE max``."""
    resource, _, amount = text.strip().partition(" ")
    amount = amount.strip()
    if resource not in directory.host.misc_resources:
        refuse(errno.EINVAL)
    if amount != "max":
        amount = str(number(amount))
    return text_of({**lines(directory.read("misc.max")), resource: amount})


MISC = (
    KernelFile(
        "misc.max",
        lambda directory: text_of(dict.fromkeys(directory.host.misc_resources, "max")),
        _set_misc,
    ),
    KernelFile(
        "misc.current",
        lambda directory: text_of(dict.fromkeys(directory.host.misc_resources, "0")),
    ),
    KernelFile("misc.events", ""),
    KernelFile(
        "misc.capacity",
        lambda directory: text_of({name: str(amount) for name, amount in directory.host.misc_resources.items()}),
        where="root",
    ),
)
