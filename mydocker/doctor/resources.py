"""What limits need besides cgroups: huge pages, disks, loop devices, resource limits of processes."""

from __future__ import annotations

from mydocker.doctor.check import not_needed, ok, warning
from mydocker.resources import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mydocker.doctor.check import Check
    from mydocker.doctor.host import Host

_HUGE_PAGES = "/sys/kernel/mm/hugepages"
#: Block devices that have no scheduler of their own or are not disks.
_NOT_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")


def checks(host: Host) -> Iterator[Check]:
    yield huge_pages(host)
    yield io_schedulers(host)
    yield loop_devices(host)
    yield open_files(host)


def huge_pages(host: Host) -> Check:
    sizes = []
    for entry in host.names(_HUGE_PAGES):
        size = entry.removeprefix("hugepages-").removesuffix("kB")
        if size.isdecimal():
            free = host.read(f"{_HUGE_PAGES}/{entry}/nr_hugepages") or "0"
            sizes.append((int(size) << 10, free))
    if not sizes:
        return not_needed("huge pages", "this kernel has none, so there is nothing to limit")
    return ok("huge pages", ", ".join(f"{number} of {format_size(size)}" for size, number in sorted(sizes)))


def io_schedulers(host: Host) -> Check:
    """Weights of disk use need a scheduler that honours them (block/bfq-iosched.rst), or io.cost on v2."""
    name = "io schedulers"
    disks = {}
    for disk in host.names("/sys/block"):
        words = (host.read(f"/sys/block/{disk}/queue/scheduler") or "").split()
        if words and not disk.startswith(_NOT_DISKS):
            disks[disk] = words
    if not disks:
        return not_needed(name, "there is no disk here with a scheduler")
    active = {disk: _active(words) for disk, words in disks.items()}
    listed = ", ".join(f"{disk} has {scheduler}" for disk, scheduler in active.items())
    first = next((disk for disk, scheduler in active.items() if scheduler != "bfq"), None)
    if first is None:
        return ok(name, f"{listed}, which honours weights")
    load = "" if any("bfq" in word for word in disks[first]) else "modprobe bfq, then "
    return warning(
        name,
        f"{listed}; weights of disk use take effect with bfq only, limits of bytes and operations with any",
        f"{load}echo bfq > /sys/block/{first}/queue/scheduler",
    )


def _active(words: list[str]) -> str:
    """The scheduler in brackets: ``none [mq-deadline] bfq``."""
    return next((word.strip("[]") for word in words if word.startswith("[")), words[0])


def loop_devices(host: Host) -> Check:
    """A file as a disk: what bounds a directory by a file system of its own."""
    name = "loop devices"
    if not host.exists("/dev/loop-control"):
        return not_needed(name, "there is no /dev/loop-control", "modprobe loop if a plugin asks for one")
    if not host.writable("/dev/loop-control"):
        return not_needed(name, f"{host.user} may not use them", "run mydocker as root if a plugin asks for one")
    return ok(name, f"{host.user} can make them")


def open_files(host: Host) -> Check:
    """Hard resource limits are raised with CAP_SYS_RESOURCE only (getrlimit(2)); ``nofile`` up to fs.nr_open."""
    name = "rlimits"
    _, hard = host.limit("RLIMIT_NOFILE")
    most = host.read("/proc/sys/fs/nr_open") or "unlimited"
    has = "unlimited" if hard < 0 else str(hard)
    if host.can("CAP_SYS_RESOURCE"):
        return ok(name, f"hard limits can be raised; that of open files is {has}, and {most} is the most")
    return warning(
        name,
        f"{host.user} cannot raise a hard limit: --ulimit goes up to those of this process, {has} for open files",
        "raise them where this process comes from (limits.conf(5), LimitNOFILE= of a service), or add CAP_SYS_RESOURCE",
    )
