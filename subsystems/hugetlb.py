"""How much memory in huge pages the container may use: ``--hugetlb-limit SIZE=BYTES``, for each size of pages.

Kernel documentation: cgroup-v1/hugetlb.rst, cgroup-v2.rst ("HugeTLB"). A limit bounds what is in use, and what is
reserved by mmap(2), where the kernel can (Linux 5.7): then mmap fails with ENOMEM. Where it cannot, the process that
touches a page too many is killed by SIGBUS.
"""

from __future__ import annotations

import os

from mydocker import CgroupError, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.resources import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

_HUGE_PAGES = "/sys/kernel/mm/hugepages"
#: version -> (limit of what is in use, limit of what is reserved)
_FILES = {
    1: ("hugetlb.{}.limit_in_bytes", "hugetlb.{}.rsvd.limit_in_bytes"),
    2: ("hugetlb.{}.max", "hugetlb.{}.rsvd.max"),
}


def parse_hugetlb(text: str) -> tuple[str, int | None]:
    """``2MB=64m``: the size of the pages as the kernel writes it, and bytes, a multiple of it; None for ``max``."""
    size, equals, limit = text.strip().partition("=")
    if not equals or not size.strip() or not limit.strip():
        raise ValueError(f'"{text}" is not of the form SIZE=BYTES, as in 2MB=64m')
    page = parse_size(size)
    if not page:
        raise ValueError(f'"{text}": there are no pages of 0 bytes')
    number = None if limit.strip() == "max" else parse_size(limit)
    if number and number % page:
        raise ValueError(f"{limit.strip()} is no multiple of {page_name(page)}, the size that is given for the pages")
    return page_name(page), number


def hugetlb_from_oci(limits: list[dict[str, Any]]) -> list[str]:
    """Whole pages, as the kernel cuts them; the largest number that there is stands for none."""
    found = []
    for limit in limits:
        size, number = str(limit["pageSize"]), int(limit["limit"])
        found.append(f"{size}={'max' if number >= 1 << 63 else f'{number - number % (parse_size(size) or 1)}b'}")
    return found


def page_name(size: int) -> str:
    """``2MB``, ``1GB``, ``64KB``: how the kernel names files after a size of pages (mm/hugetlb_cgroup.c, mem_fmt)."""
    for unit, shift in (("GB", 30), ("MB", 20)):
        if size >= 1 << shift:
            return f"{size >> shift}{unit}"
    return f"{size >> 10}KB"


def page_sizes() -> list[str]:
    """The sizes of huge pages that this kernel has, the smallest first."""
    try:
        names = os.listdir(_HUGE_PAGES)
    except OSError:
        return []
    sizes = (int(name.removeprefix("hugepages-").removesuffix("kB")) for name in names)
    return [page_name(size << 10) for size in sorted(sizes)]


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="hugetlb_limit",
            flags=("--hugetlb-limit",),
            parse=parse_hugetlb,
            metavar="SIZE=BYTES",
            help="The most memory in huge pages of one size (b, k, m, g), as in 2MB=64m. May be given for each size.",
            oci="linux.resources.hugepageLimits",
            kind="multiple",
            from_oci=hugetlb_from_oci,
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("hugetlb").version
    except CgroupError as e:
        return Probe(controllers=("hugetlb",), problem=str(e))
    sizes = page_sizes()
    files = tuple(name.format(size) for size in sizes for name in _FILES[version])
    problem = "" if sizes else "this kernel has no huge pages"
    return Probe(controllers=("hugetlb",), version=version, files=files, problem=problem)


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    layout.require_for("hugetlb", config, "hugetlb_limit")
    sizes = page_sizes()
    limits: dict[str, int | None] = {}
    for size, limit in config.get("hugetlb_limit", ()):
        if size not in sizes:
            raise UnsupportedLimit(
                "hugetlb_limit", f"this kernel has no pages of {size}; it has pages of {', '.join(sizes) or 'no size'}"
            )
        if limits.setdefault(size, limit) != limit:
            raise LimitError("hugetlb_limit", f"the limit for pages of {size} is given twice, and not the same")


@hookimpl
def mydocker_account(cgroup: ContainerCgroup) -> None:
    if cgroup.layout.find("hugetlb") and _pool_is_filled():
        cgroup.controller("hugetlb")


def _pool_is_filled() -> bool:
    """Whether there are huge pages to be had: most hosts set none aside, and then there is nothing to count."""
    for directory in os.listdir(_HUGE_PAGES) if os.path.isdir(_HUGE_PAGES) else ():
        for name in ("nr_hugepages", "nr_overcommit_hugepages"):
            with open(f"{_HUGE_PAGES}/{directory}/{name}") as file:
                if file.read().strip() != "0":
                    return True
    return False


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("hugetlb")
    for size, limit in config["hugetlb_limit"]:
        _set(controller, size, limit)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """A limit below what is in use takes no page away: it refuses new ones."""
    controller = cgroup.controller("hugetlb")
    wanted = dict(config.get("hugetlb_limit", ()))
    for size in {**dict(previous.get("hugetlb_limit", ())), **wanted}:
        _set(controller, size, wanted.get(size))


def _set(controller: Controller, size: str, limit: int | None) -> None:
    used, reserved = (name.format(size) for name in _FILES[controller.version])
    controller.require_for("hugetlb_limit", used)
    text = str(limit) if limit is not None else "-1" if controller.version == 1 else "max"
    controller.set_property(used, text)
    if controller.has(reserved):
        controller.set_property(reserved, text)


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("hugetlb", pid)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """For each size of pages ``current_bytes`` and ``limit_hits``, and on v1 ``peak_bytes``; without sizes not used."""
    if not cgroup.has("hugetlb"):
        return {}
    controller = cgroup.controller("hugetlb")
    figures = _figures_v1 if controller.version == 1 else _figures_v2
    limited = {size for size, _ in config.get("hugetlb_limit", ())}
    found = {size: figures(controller, size) for size in page_sizes()}
    return {size: of for size, of in found.items() if size in limited or any(of.values())}


def _figures_v1(controller: Controller, size: str) -> dict[str, int]:
    names = {
        "current_bytes": f"hugetlb.{size}.usage_in_bytes",
        "peak_bytes": f"hugetlb.{size}.max_usage_in_bytes",
        "limit_hits": f"hugetlb.{size}.failcnt",
    }
    return {figure: int(controller.get_property(name)) for figure, name in names.items() if controller.has(name)}


def _figures_v2(controller: Controller, size: str) -> dict[str, int]:
    """hugetlb.SIZE.events counts what was refused, here and in nested cgroups."""
    if not controller.has(f"hugetlb.{size}.current"):
        return {}
    events = dict(line.split() for line in controller.get_property(f"hugetlb.{size}.events").splitlines())
    return {
        "current_bytes": int(controller.get_property(f"hugetlb.{size}.current")),
        "limit_hits": int(events["max"]),
    }
