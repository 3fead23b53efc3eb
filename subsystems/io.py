"""Block I/O: weights, and rates of bytes and operations for each device.

Kernel documentation: cgroup-v1/blkio-controller.rst, cgroup-v2.rst ("IO"), block/bfq-iosched.rst. The flags with
``blkio`` and ``device`` in their names are Docker's.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker import CgroupError, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.cgroups.pressure import stall_seconds
from mydocker.resources import parse_integer, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

    #: (device as ``8:0``, key of io.max) -> bytes or operations in a second, None for no limit
    Rates = dict[tuple[str, str], int | None]
    #: kernel file -> device as ``8:0``, or empty for all -> weight
    Weights = dict[str, dict[str, int]]

#: Docker's weights, 500 in the middle; 0 leaves the kernel's default.
DOCKER_WEIGHT = range(10, 1000 + 1)
#: What io.weight and io.bfq.weight take.
WEIGHT = range(1, 10000 + 1)
BFQ_WEIGHT = range(1, 1000 + 1)
#: Weight of a cgroup for which none is set, in any of the files (but for the v1 file of the old scheduler CFQ).
DEFAULT_WEIGHT = 100

#: Field to the key of io.max that it sets.
_THROTTLES = {
    "device_read_bps": "rbps",
    "device_write_bps": "wbps",
    "device_read_iops": "riops",
    "device_write_iops": "wiops",
}
_V1_THROTTLES = {
    "rbps": "blkio.throttle.read_bps_device",
    "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device",
    "wiops": "blkio.throttle.write_iops_device",
}
_NO_THROTTLE = "it is compiled without CONFIG_BLK_DEV_THROTTLING"
_NO_BFQ = "it takes the I/O scheduler BFQ: load its module, bfq"
_NO_COST = "it is compiled without CONFIG_BLK_CGROUP_IOCOST"
_BLOCK_DEVICES = "/sys/dev/block"


def parse_docker_weight(text: str) -> int:
    weight = parse_integer(text)
    if weight and weight not in DOCKER_WEIGHT:
        raise ValueError(
            f"{weight} is not between {DOCKER_WEIGHT[0]} and {DOCKER_WEIGHT[-1]}; 0 is the kernel's default"
        )
    return weight


def parse_weight(text: str) -> int:
    weight = parse_integer(text)
    if weight not in WEIGHT:
        raise ValueError(f"{weight} is not between {WEIGHT[0]} and {WEIGHT[-1]}; a container has {DEFAULT_WEIGHT}")
    return weight


def parse_bfq_weight(text: str) -> int:
    weight = parse_integer(text)
    if weight not in BFQ_WEIGHT:
        raise ValueError(
            f"{weight} is not between {BFQ_WEIGHT[0]} and {BFQ_WEIGHT[-1]}; a container has {DEFAULT_WEIGHT}"
        )
    return weight


def parse_device_weight(text: str) -> tuple[str, int]:
    """``/dev/sda:300``: the device as it was given, and its weight."""
    device, number = _device_and(text, "DEVICE:WEIGHT, as in /dev/sda:300")
    weight = parse_docker_weight(number)
    if not weight:
        raise ValueError(f"0 is not between {DOCKER_WEIGHT[0]} and {DOCKER_WEIGHT[-1]}")
    return device, weight


def parse_device_bytes(text: str) -> tuple[str, int | None]:
    """``/dev/sda:10mb``: the device as it was given, and bytes in a second; None for ``max``."""
    device, number = _device_and(text, "DEVICE:RATE, as in /dev/sda:10mb")
    return device, _rate(number, parse_size)


def parse_device_operations(text: str) -> tuple[str, int | None]:
    """``/dev/sda:1000``: the device as it was given, and operations in a second; None for ``max``."""
    device, number = _device_and(text, "DEVICE:RATE, as in /dev/sda:1000")
    return device, _rate(number, parse_integer)


def parse_io_max(text: str) -> tuple[str, dict[str, int | None]]:
    """``/dev/sda rbps=10m wiops=100``, as io.max of cgroup v2 takes it, and with units. ``max`` (None) is no limit."""
    words = text.split()
    wrong = ValueError(
        f'"{text}" is not a device with its rates: write one or more of {", ".join(_V1_THROTTLES)} after it, '
        "as in '/dev/sda rbps=10m wiops=100'"
    )
    if len(words) < 2 or not _is_device(words[0]):
        raise wrong
    rates: dict[str, int | None] = {}
    for word in words[1:]:
        key, equals, number = word.partition("=")
        if not equals or key not in _V1_THROTTLES or key in rates:
            raise wrong
        parse = parse_size if key.endswith("bps") else parse_integer
        rates[key] = _rate(number, parse)
    return words[0], rates


def _device_and(text: str, form: str) -> tuple[str, str]:
    device, colon, value = text.strip().rpartition(":")
    if not colon or not _is_device(device) or not value:
        raise ValueError(f'"{text}" is not of the form {form}; the device is a path, or its number as in 8:0')
    return device, value


def _is_device(text: str) -> bool:
    major, colon, minor = text.partition(":")
    return text.startswith("/") or bool(colon and (major + minor).isascii() and major.isdigit() and minor.isdigit())


def _rate(text: str, parse: Callable[[str], int]) -> int | None:
    if text.strip() == "max":
        return None
    rate = parse(text)
    if rate < 1:
        raise ValueError(f"a rate of {text.strip()} would stop all input and output: it must be above 0, or max")
    return rate


def weight_from_oci(weight: int | None, unified_weight: str | None, unified_bfq: str | None) -> str | None:
    """0 is not set. ``unified`` wins, as runc has it."""
    return str(weight) if weight and unified_weight is None and unified_bfq is None else None


def device_weights_from_oci(devices: list[dict[str, Any]]) -> list[str]:
    """``leafWeight`` was the scheduler CFQ's, which Linux 5.0 took away."""
    for device in devices:
        if device.get("leafWeight"):
            raise ValueError(f"leafWeight of {_text(device)}: this kernel has no leaf weights")
    return [f"{_text(device)}:{device['weight']}" for device in devices if device.get("weight")]


def rates_from_oci(devices: list[dict[str, Any]]) -> list[str]:
    """A rate of 0 is none, as v1 has it."""
    return [f"{_text(device)}:{device['rate'] or 'max'}" for device in devices]


def _text(device: dict[str, Any]) -> str:
    return f"{device['major']}:{device['minor']}"


def lines_from_unified(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def weight_from_unified(text: str) -> str:
    """``default 100`` is the same as ``100``."""
    return text.removeprefix("default").strip()


def _rate_field(name: str, parse: Callable[[str], Any], metavar: str, text: str, oci: str) -> ResourceField:
    return ResourceField(
        name=name,
        flags=("--" + name.replace("_", "-"),),
        parse=parse,
        metavar=metavar,
        help=text,
        oci=f"linux.resources.blockIO.{oci}",
        kind="multiple",
        complete="file",
        from_oci=rates_from_oci,
    )


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    size = "bytes in a second (b, k, m, g), as in /dev/sda:10mb"
    count = "operations in a second, as in /dev/sda:1000"
    return (
        ResourceField(
            name="blkio_weight",
            flags=("--blkio-weight",),
            parse=parse_docker_weight,
            metavar="N",
            help="Share of the disks when others want them too: 10 to 1000, relative to theirs; 0 is the default.",
            oci="linux.resources.blockIO.weight linux.resources.unified.io.weight "
            "linux.resources.unified.io.bfq.weight",
            from_oci=weight_from_oci,
        ),
        ResourceField(
            name="blkio_weight_device",
            flags=("--blkio-weight-device",),
            parse=parse_device_weight,
            metavar="DEVICE:N",
            help="The same for one device, as in /dev/sda:300.",
            oci="linux.resources.blockIO.weightDevice",
            kind="multiple",
            complete="file",
            from_oci=device_weights_from_oci,
        ),
        _rate_field(
            "device_read_bps",
            parse_device_bytes,
            "DEVICE:RATE",
            f"The most that is read from a device: {size}.",
            "throttleReadBpsDevice",
        ),
        _rate_field(
            "device_write_bps",
            parse_device_bytes,
            "DEVICE:RATE",
            f"The most that is written to a device: {size}.",
            "throttleWriteBpsDevice",
        ),
        _rate_field(
            "device_read_iops",
            parse_device_operations,
            "DEVICE:RATE",
            f"The most reads from a device: {count}.",
            "throttleReadIOPSDevice",
        ),
        _rate_field(
            "device_write_iops",
            parse_device_operations,
            "DEVICE:RATE",
            f"The most writes to a device: {count}.",
            "throttleWriteIOPSDevice",
        ),
        ResourceField(
            name="io_max",
            flags=("--io-max",),
            parse=parse_io_max,
            metavar="'DEVICE KEY=RATE ...'",
            help="All rates of a device in a second, as in '/dev/sda rbps=10m wbps=max riops=100 wiops=100'.",
            oci="linux.resources.unified.io.max",
            kind="multiple",
            from_oci=lines_from_unified,
        ),
        ResourceField(
            name="io_weight",
            flags=("--io-weight",),
            parse=parse_weight,
            metavar="N",
            help="Share of disks with a cost model (cgroup v2): 1 to 10000, relative to the others' 100.",
            oci="linux.resources.unified.io.weight",
            from_oci=weight_from_unified,
        ),
        ResourceField(
            name="io_bfq_weight",
            flags=("--io-bfq-weight",),
            parse=parse_bfq_weight,
            metavar="N",
            help="Share of disks that the scheduler BFQ serves: 1 to 1000, relative to the others' 100.",
            oci="linux.resources.unified.io.bfq.weight",
            from_oci=weight_from_unified,
        ),
    )


_FIELDS = ("blkio_weight", "blkio_weight_device", *_THROTTLES, "io_max", "io_weight", "io_bfq_weight")


def _name(layout: Layout) -> str:
    """What the controller is called here: ``blkio`` on v1, ``io`` on v2."""
    return "blkio" if layout.find("blkio") else "io"


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    name = _name(layout)
    try:
        version = layout.require(name).version
    except CgroupError as e:
        return Probe(controllers=(name,), problem=str(e))
    if version == 1:
        files = (*_V1_THROTTLES.values(), "blkio.bfq.weight", "blkio.bfq.weight_device")
    else:
        files = ("io.max", "io.weight", "io.bfq.weight")
    return Probe(controllers=(name,), version=version, files=files)


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    name = _name(layout)
    hierarchy = layout.require_for(name, config, *_FIELDS)
    _refuse_two_weights(config)
    rates = _rates(config)
    for device, _ in config.get("blkio_weight_device", ()):
        _number("blkio_weight_device", device)
    if hierarchy is not None and hierarchy.version == 1:
        if "io_weight" in config:
            raise UnsupportedLimit(
                "io_weight",
                "io.weight is a file of cgroup v2, and the controller is on v1 here: use --blkio-weight",
            )
        for field in (*_THROTTLES, "io_max"):
            if field in config:
                layout.root(name).require_for(field, *{_V1_THROTTLES[key] for _, key in rates}, why=_NO_THROTTLE)


def _refuse_two_weights(config: ResourceConfig) -> None:
    """--blkio-weight is written to a file that one of the other two is for."""
    for other in ("io_weight", "io_bfq_weight"):
        if "blkio_weight" in config and other in config:
            flag = "--" + other.replace("_", "-")
            raise LimitError("blkio_weight", f"it cannot be combined with {flag}: both set the weight of the container")


def _rates(config: ResourceConfig) -> Rates:
    """The rates that are set, by device number. `LimitError` for what is no whole disk, or is set in two ways."""
    rates: Rates = {}
    for field, key in _THROTTLES.items():
        for device, rate in config.get(field, ()):
            rates[_number(field, device), key] = rate
    for device, several in config.get("io_max", ()):
        number = _number("io_max", device)
        for key, rate in several.items():
            if rates.setdefault((number, key), rate) != rate:
                raise LimitError("io_max", f"{key} of {device} is set to another rate too: give it once")
    return rates


def _number(field: str, device: str) -> str:
    """``8:0`` for a path or for itself. `LimitError` if there is no such block device, or it is a partition."""
    number = device
    if device.startswith("/"):
        try:
            status = os.stat(device)
        except OSError as e:
            raise LimitError(field, f"{device}: {os.strerror(e.errno or 0)}") from e
        if not stat.S_ISBLK(status.st_mode):
            raise LimitError(field, f"{device} is not a block device; lsblk lists those of this host")
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    known = f"{_BLOCK_DEVICES}/{number}"
    if os.path.isdir(_BLOCK_DEVICES) and not os.path.exists(known):
        raise LimitError(field, f"there is no block device {device} on this host; lsblk lists those that there are")
    if os.path.exists(f"{known}/partition"):
        disk = os.path.basename(os.path.dirname(os.path.realpath(known)))
        raise LimitError(
            field, f"{device} is a partition, and the kernel limits whole disks only: give its disk, /dev/{disk}"
        )
    return number


@hookimpl
def mydocker_account(cgroup: ContainerCgroup) -> None:
    name = _name(cgroup.layout)
    if cgroup.layout.find(name):
        cgroup.controller(name)


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller(_name(cgroup.layout))
    _require_throttles(config, controller)
    _write_rates(controller, _rates(config))
    for file, weights in _weights(config, controller).items():
        _write_weights(controller, file, weights)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """What is no longer set gets the kernel's default back: no rate, and the weight of all others."""
    controller = cgroup.controller(_name(cgroup.layout))
    _require_throttles(config, controller)
    _change_rates(cgroup, controller, _rates(config), _rates(previous))
    wanted, former = _weights(config, controller), _weights(previous, controller)
    for file in {**former, **wanted}:
        _change_weights(cgroup, controller, file, wanted.get(file, {}), former.get(file, {}))


def _require_throttles(config: ResourceConfig, controller: Controller) -> None:
    for field in (*_THROTTLES, "io_max"):
        if field in config and controller.version == 2:
            controller.require_for(field, "io.max", why=_NO_THROTTLE)


def _write_rates(controller: Controller, rates: Rates) -> None:
    """v1 has a file for each kind of rate, where 0 lifts it; v2 one for all, where a device takes one write."""
    if controller.version == 1:
        for (device, key), rate in rates.items():
            _write(controller, _V1_THROTTLES[key], device, str(rate or 0))
        return
    for device in dict.fromkeys(device for device, _ in rates):
        own = {key: rate for (other, key), rate in rates.items() if other == device}
        text = " ".join(f"{key}={'max' if rate is None else rate}" for key, rate in own.items())
        _write(controller, "io.max", device, text)


def _change_rates(cgroup: ContainerCgroup, controller: Controller, wanted: Rates, former: Rates) -> None:
    every = {**former, **wanted}
    changed: Rates = {key: wanted.get(key) for key in every if wanted.get(key) != former.get(key)}
    # A file with lines for several devices is not put back as a whole.
    cgroup.on_undo(lambda: _write_rates(controller, {key: former.get(key) for key in changed}))
    _write_rates(controller, changed)


def _weights(config: ResourceConfig, controller: Controller) -> Weights:
    """The weights that are set, as the files here take them. `UnsupportedLimit` if there is no file for one."""
    found: Weights = {}
    if config.get("blkio_weight"):
        file = _docker_file(controller, "blkio_weight", "")
        found.setdefault(file, {})[""] = _converted(config["blkio_weight"], file)
    for device, weight in config.get("blkio_weight_device", ()):
        file = _docker_file(controller, "blkio_weight_device", "_device")
        found.setdefault(file, {})[_number("blkio_weight_device", device)] = _converted(weight, file)
    if "io_weight" in config:
        controller.require_for("io_weight", "io.weight", why=_NO_COST)
        found.setdefault("io.weight", {})[""] = config["io_weight"]
    if "io_bfq_weight" in config:
        file = "blkio.bfq.weight" if controller.version == 1 else "io.bfq.weight"
        controller.require_for("io_bfq_weight", file, why=_NO_BFQ)
        found.setdefault(file, {})[""] = config["io_bfq_weight"]
    return found


def _docker_file(controller: Controller, field: str, suffix: str) -> str:
    """Where a weight of Docker's goes: BFQ's file, or the other one where there is no BFQ (as runc has it)."""
    if controller.version == 1:
        # blkio.weight was the scheduler CFQ's, until Linux 5.0.
        files = [f"blkio.bfq.weight{suffix}", f"blkio.weight{suffix}"]
    else:
        files = ["io.bfq.weight", "io.weight"]
    for file in files:
        if controller.has(file):
            return file
    controller.require_for(field, files[0], why=_NO_BFQ)
    return files[0]


def _converted(weight: int, file: str) -> int:
    """Docker's 10 to 1000 spread over the 1 to 10000 of io.weight (runc's ConvertBlkIOToIOWeightValue)."""
    return 1 + (weight - 10) * 9999 // 990 if file == "io.weight" else weight


def _write_weights(controller: Controller, file: str, weights: Mapping[str, int | None]) -> None:
    """None is the default again, for which CFQ has words of its own."""
    cfq = file.startswith("blkio.weight")
    for device, weight in weights.items():
        if device:
            default = "0" if cfq else "default"
            _write(controller, file, device, default if weight is None else str(weight))
        else:
            controller.set_property(file, (500 if cfq else DEFAULT_WEIGHT) if weight is None else weight)


def _change_weights(
    cgroup: ContainerCgroup,
    controller: Controller,
    file: str,
    wanted: Mapping[str, int],
    former: Mapping[str, int],
) -> None:
    every = {**former, **wanted}
    changed = {device: wanted.get(device) for device in every if wanted.get(device) != former.get(device)}
    cgroup.on_undo(lambda: _write_weights(controller, file, {device: former.get(device) for device in changed}))
    _write_weights(controller, file, changed)


def _write(controller: Controller, file: str, device: str, value: str) -> None:
    try:
        controller.set_property(file, f"{device} {value}")
    except CgroupError as e:
        if e.errno == errno.EOPNOTSUPP:
            scheduler = f"{_BLOCK_DEVICES}/{device}/queue/scheduler"
            raise UnsupportedLimit(
                "blkio_weight_device",
                f"nothing shares {device} out by weight: have BFQ serve it, echo bfq >{scheduler}",
            ) from e
        if e.errno == errno.ENODEV:
            raise CgroupError(f"{e}; {device} is no whole disk, or has been removed", e.errno) from e
        raise


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach(_name(cgroup.layout), pid)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """``read_bytes``, ``written_bytes``, ``read_operations``, ``write_operations`` on all devices, and ``pressure``.

    A device that lies on another one, such as a loop device, counts beside it. Not there where the kernel does not
    count: on v1 it does so for a device since somebody limited its rate (from Linux 6.10 on).
    """
    figures: dict[str, Any] = {}
    name = _name(cgroup.layout)
    if cgroup.has(name):
        controller = cgroup.controller(name)
        figures.update(_figures_v1(controller) if controller.version == 1 else _figures_v2(controller))
    pressure = stall_seconds(cgroup, "io")
    if pressure:
        figures["pressure"] = pressure
    return figures


def _figures_v1(controller: Controller) -> dict[str, int]:
    if controller.has("blkio.throttle.io_service_bytes_recursive"):
        sizes = [controller.throttle_io_service_bytes_recursive]
        counts = [controller.throttle_io_serviced_recursive]
    elif controller.has("blkio.throttle.io_service_bytes"):  # before Linux 4.16 there is no other
        everywhere = (controller, *controller.below())
        sizes = [cgroup.throttle_io_service_bytes for cgroup in everywhere]
        counts = [cgroup.throttle_io_serviced for cgroup in everywhere]
    else:
        return {}
    counts_at_all = _counts_v1(controller)  # asked for in any case: what is asked is the same for all containers
    if not any(sizes) and not counts_at_all:
        return {}
    return {
        "read_bytes": _sum(sizes, "Read"),
        "written_bytes": _sum(sizes, "Write"),
        "read_operations": _sum(counts, "Read"),
        "write_operations": _sum(counts, "Write"),
    }


def _counts_v1(controller: Controller) -> bool:
    """Whether the kernel counts at all: then some cgroup above has figures."""
    above = controller.parent()
    while above.has("blkio.throttle.io_service_bytes"):
        if above.throttle_io_service_bytes:
            return True
        above = above.parent()
    return False


def _figures_v2(controller: Controller) -> dict[str, int]:
    devices = [of for of in controller.stat.values() if "rbytes" in of]  # others have a line without figures
    return {
        figure: sum(int(of[key]) for of in devices)
        for figure, key in (
            ("read_bytes", "rbytes"),
            ("written_bytes", "wbytes"),
            ("read_operations", "rios"),
            ("write_operations", "wios"),
        )
    }


def _sum(figures: list[dict[str, dict[str, int]]], key: str) -> int:
    return sum(of.get(key, 0) for found in figures for of in found.values())
