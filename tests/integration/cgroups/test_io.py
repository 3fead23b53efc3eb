"""Rates of block I/O, measured on a loop device of the test's own; weights, by the kernel's files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mydocker import LimitError, UnsupportedLimit
from subsystems import io

pytestmark = pytest.mark.vm

MIB = 1 << 20
#: Bytes, or operations, in a second at most. An emulated machine beside others may not do four times as many.
RATE = 2 * MIB
OPERATIONS = 60

# Reads or writes blocks past the page cache; says how many it did in a second.
TRANSFER = """
import mmap, os, sys, time
path, way, size, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
fd = os.open(path, (os.O_RDONLY if way == "read" else os.O_WRONLY) | os.O_DIRECT)
block = mmap.mmap(-1, size)
start = time.monotonic()
for number in range(count):
    os.preadv(fd, [block], number * size) if way == "read" else os.pwritev(fd, [block], number * size)
print(count / (time.monotonic() - start))
"""


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(8 * MIB))
    return path


@pytest.fixture
def disk(image):
    """The path of a block device."""
    command = ["losetup", "--find", "--show", "--partscan", str(image)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield found
    subprocess.run(["losetup", "--detach", found], check=True)


@pytest.fixture
def number(disk):
    """The number of the block device, as in ``7:0``."""
    return (Path("/sys/block") / Path(disk).name / "dev").read_text().strip()


@pytest.fixture
def partition(disk):
    """The number of a partition of the block device."""
    subprocess.run(["addpart", disk, "1", "8", "4096"], check=True)
    name = Path(disk).name
    return (Path("/sys/block") / name / f"{name}p1/dev").read_text().strip()


@pytest.fixture
def limits(limited):
    return limited(io)


@pytest.fixture
def transfer(hold, disk):
    """A held process that reads or writes."""

    def start(way, size, count):
        return hold(sys.executable, "-Sc", TRANSFER, disk, way, str(size), str(count))

    return start


def version(layout):
    found = layout.find("blkio") or layout.find("io")
    return found.version


@pytest.mark.parametrize("way", ["read", "write"])
@pytest.mark.parametrize("form", ["device", "io_max", "number"])
def test_bytes_in_a_second(limits, transfer, disk, number, way, form):
    """Far below what the disk does without the rate, and about as much as that."""
    _, unlimited = transfer(way, 65536, 64).finish()
    rate = min(RATE, int(float(unlimited) * 65536 / 8))
    if form == "io_max":
        texts = {"io_max": f"{disk} {way[0]}bps={rate}"}
    else:
        texts = {f"device_{way}_bps": f"{number if form == 'number' else disk}:{rate}"}
    _, measured = limits.run(transfer(way, 65536, 64), **texts)
    assert rate / 4 < float(measured) * 65536 < rate * 2


@pytest.mark.parametrize("way", ["read", "write"])
def test_operations_in_a_second(limits, transfer, disk, way):
    _, unlimited = transfer(way, 4096, 120).finish()
    rate = min(OPERATIONS, int(float(unlimited) / 8))
    _, measured = limits.run(transfer(way, 4096, 120), **{f"device_{way}_iops": f"{disk}:{rate}"})
    assert rate / 4 < float(measured) < rate * 2


def test_one_way_leaves_the_other_alone(limits, transfer, disk):
    _, measured = limits.run(transfer("write", 65536, 64), device_read_bps=f"{disk}:64k")
    assert float(measured) * 65536 > 4 * 65536


def test_an_update_changes_and_lifts_the_rate(limits, transfer, sleeper, disk):
    config = limits.prepare(device_read_bps=f"{disk}:64k")
    limits.attach(config, sleeper)
    rates = []
    for text in ("512k", "1g"):
        config = limits.update(config, sleeper, device_read_bps=f"{disk}:{text}")
        held = transfer("read", 65536, 16)
        limits.attach(config, held)
        rates.append(float(held.finish()[1]) * 65536)
    assert MIB / 8 < rates[0] < MIB < rates[1]


def test_figures(limits, transfer, disk):
    """Bytes and operations of both ways, in the cgroup and in what is nested in it."""
    config = limits.prepare(io_max=f"{disk} rbps=1g wbps=1g")
    for way, count in (("read", 40), ("write", 24)):
        held = transfer(way, 4096, count)
        limits.attach(config, held)
        held.finish()
    usage = limits.usage(config)
    assert usage["read_bytes"] >= 40 * 4096
    assert usage["written_bytes"] == 24 * 4096
    assert usage["read_operations"] >= 40
    assert usage["write_operations"] == 24


def test_figures_without_a_limit(limits, transfer, layout):
    """On v1 the kernel may not count without (Linux 6.10); then there are none."""
    limits.account()
    held = transfer("write", 4096, 24)
    limits.cgroup.attach("blkio" if version(layout) == 1 else "io", held.pid)
    held.finish()
    usage = limits.usage({})
    if version(layout) == 2:
        assert usage["written_bytes"] == 24 * 4096
    else:
        assert usage.get("written_bytes", 0) in (0, 24 * 4096)


def test_a_partition_is_no_disk(limits, disk, partition):
    with pytest.raises(LimitError, match=f"{partition} is a partition, .* give its disk, {disk}"):
        limits.prepare(device_read_bps=f"{partition}:2m")


def test_the_kernels_own_word_about_partitions(limits, partition, monkeypatch):
    """Where /sys does not tell, the kernel refuses."""
    monkeypatch.setattr(io, "_BLOCK_DEVICES", "/no/such")
    with pytest.raises(Exception, match=f"{partition} is no whole disk"):
        limits.prepare(device_read_bps=f"{partition}:2m")


def has_bfq(limits):
    controller = limits.cgroup.controller(io._name(limits.cgroup.layout))
    return controller.has("blkio.bfq.weight") or controller.has("io.bfq.weight")


def read(limits, layout, name):
    controller = limits.cgroup.controller("blkio" if version(layout) == 1 else "io")
    return controller.get_property(name)


def test_weight_of_docker(limits, layout):
    """BFQ's, or that of the cost model, or a refusal that names what the kernel lacks."""
    if has_bfq(limits):
        limits.prepare(blkio_weight="300")
        file = "blkio.bfq.weight" if version(layout) == 1 else "io.bfq.weight"
        assert read(limits, layout, file).removeprefix("default ") == "300"
    elif version(layout) == 2:
        limits.prepare(blkio_weight="300")
        assert read(limits, layout, "io.weight") == "default 2930"
    else:
        with pytest.raises(UnsupportedLimit, match=r"no blkio\.bfq\.weight on cgroup v1"):
            limits.prepare(blkio_weight="300")


def test_weight_of_bfq(limits, layout):
    if has_bfq(limits):
        limits.prepare(io_bfq_weight="300")
        file = "blkio.bfq.weight" if version(layout) == 1 else "io.bfq.weight"
        assert read(limits, layout, file).removeprefix("default ") == "300"
    else:
        with pytest.raises(UnsupportedLimit, match=r"bfq\.weight on cgroup v"):
            limits.prepare(io_bfq_weight="300")


def test_weight_of_the_cost_model(limits, layout):
    if version(layout) == 1:
        with pytest.raises(UnsupportedLimit, match=r"io\.weight is a file of cgroup v2"):
            limits.prepare(io_weight="300")
    else:
        limits.prepare(io_weight="300")
        assert read(limits, layout, "io.weight") == "default 300"


def test_weight_of_a_device(limits, layout, disk, number, sleeper):
    """The kernel takes it where BFQ serves the device (on v2 the cost model's otherwise), and gives it up again."""
    scheduler = Path("/sys/block") / Path(disk).name / "queue/scheduler"
    try:
        scheduler.write_text("bfq")
    except OSError:
        pytest.skip("this kernel does not have the I/O scheduler BFQ")
    config = limits.prepare(blkio_weight_device=f"{disk}:200")
    file = "blkio.bfq.weight_device" if version(layout) == 1 else "io.bfq.weight"
    assert f"{number} 200" in read(limits, layout, file).splitlines()
    limits.attach(config, sleeper)
    limits.update(config, sleeper, io_bfq_weight="300")
    assert f"{number} 200" not in read(limits, layout, file)


def test_a_device_whose_scheduler_knows_no_weights(limits, layout, disk):
    (Path("/sys/block") / Path(disk).name / "queue/scheduler").write_text("none")
    there = has_bfq(limits) or version(layout) == 2
    words = "out by weight: have BFQ serve it" if there else r"no blkio\.bfq\.weight_device"
    with pytest.raises(UnsupportedLimit, match=words) as caught:
        limits.prepare(blkio_weight_device=f"{disk}:200")
    assert caught.value.field == "blkio_weight_device"
