"""The flags of block I/O: what is a value, which device is meant, what is written on v1 and on v2."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Layout
from subsystems import io

FIELDS = {field.name: field for field in io.mydocker_fields()}
KEYS = ("rbps", "wbps", "riops", "wiops")


def config(**texts):
    return ResourceConfig({name: FIELDS[name].value_of(text) for name, text in texts.items()})


@pytest.fixture(autouse=True)
def devices(tmp_path, monkeypatch):
    """A host whose block devices are 8:0 with a partition 8:1, and 8:16."""
    known = tmp_path / "block"
    known.mkdir()
    for number, name in (("8:0", "sda"), ("8:16", "sdb"), ("8:1", "sda/sda1")):
        (tmp_path / name).mkdir()
        (known / number).symlink_to(tmp_path / name)
    (tmp_path / "sda/sda1/partition").write_text("1\n")
    monkeypatch.setattr(io, "_BLOCK_DEVICES", str(known))


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("blkio_weight", "10", 10),
        ("blkio_weight", "1000", 1000),
        ("blkio_weight", "0", 0),
        ("io_weight", "1", 1),
        ("io_weight", "10000", 10000),
        ("io_bfq_weight", "1000", 1000),
        ("blkio_weight_device", "/dev/sda:300", (("/dev/sda", 300),)),
        ("device_read_bps", "/dev/sda:1mb", (("/dev/sda", 1 << 20),)),
        ("device_read_bps", "8:0:1.5k", (("8:0", 1536),)),
        (
            "device_write_bps",
            ["/dev/sda:1", "/dev/disk/by-id/a:b:2g"],
            (("/dev/sda", 1), ("/dev/disk/by-id/a:b", 2 << 30)),
        ),
        ("device_read_iops", "/dev/sda:1000", (("/dev/sda", 1000),)),
        ("device_read_iops", "/dev/sda:max", (("/dev/sda", None),)),
        ("device_write_bps", "8:0:max", (("8:0", None),)),
        ("device_write_iops", "259:0:7", (("259:0", 7),)),
        ("io_max", "8:0 rbps=1m riops=max", (("8:0", {"rbps": 1 << 20, "riops": None}),)),
        ("io_max", " /dev/sda  wiops=5 ", (("/dev/sda", {"wiops": 5}),)),
    ],
)
def test_values(field, text, value):
    assert FIELDS[field].value_of(text) == value


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("blkio_weight", "9", "9 is not between 10 and 1000; 0 is"),
        ("blkio_weight", "1001", "is not between 10 and 1000"),
        ("blkio_weight", "much", "is not a whole number"),
        ("io_weight", "0", "is not between 1 and 10000"),
        ("io_weight", "10001", "is not between 1 and 10000"),
        ("io_bfq_weight", "1001", "is not between 1 and 1000"),
        ("blkio_weight_device", "/dev/sda", "is not of the form DEVICE:WEIGHT"),
        ("blkio_weight_device", "/dev/sda:0", "0 is not between 10 and 1000"),
        ("device_read_bps", "/dev/sda", "is not of the form DEVICE:RATE"),
        ("device_read_bps", "sda:1m", "the device is a path, or its number as in 8:0"),
        ("device_read_bps", "8:0", "is not of the form DEVICE:RATE"),
        ("device_read_bps", "/dev/sda:", "is not of the form DEVICE:RATE"),
        ("device_read_bps", "/dev/sda:0", "a rate of 0 would stop all"),
        ("device_read_bps", "/dev/sda:quick", "is not a size"),
        ("device_read_iops", "/dev/sda:1m", "is not a whole number"),
        ("device_read_iops", "/dev/sda:-1", "must be above 0"),
        ("io_max", "8:0", "is not a device with its rates"),
        ("io_max", "8:0 rbps", "is not a device with its rates"),
        ("io_max", "8:0 speed=1", "write one or more of rbps, wbps, riops, wiops"),
        ("io_max", "8:0 rbps=1 rbps=2", "is not a device with its rates"),
        ("io_max", "sda rbps=1", "is not a device with its rates"),
        ("io_max", "8:0 riops=0", "a rate of 0 would stop all"),
        ("io_max", "", "is not a device with its rates"),
    ],
)
def test_what_is_refused(field, text, words):
    with pytest.raises(LimitError) as caught:
        FIELDS[field].value_of(text)
    assert words in caught.value.reason
    assert caught.value.field == field


@given(text=st.text())
@pytest.mark.parametrize("field", FIELDS)
def test_any_text_is_a_value_or_refused_with_a_reason(field, text):
    try:
        FIELDS[field].value_of(text)
    except LimitError as error:
        assert error.reason


@given(
    device=st.sampled_from(["/dev/sda", "8:0", "/dev/a b:c"]),
    rate=st.integers(1, 1 << 40),
)
def test_a_device_keeps_its_name_and_rate(device, rate):
    assert io.parse_device_bytes(f"{device}:{rate}") == (device, rate)
    assert io.parse_device_operations(f"{device}:{rate}") == (device, rate)


@given(rates=st.dictionaries(st.sampled_from(KEYS), st.none() | st.integers(1, 1 << 40), min_size=1))
def test_io_max_reads_what_the_kernel_writes(rates):
    text = " ".join(f"{key}={'max' if rate is None else rate}" for key, rate in rates.items())
    assert io.parse_io_max(f"8:0 {text}") == ("8:0", rates)


@pytest.mark.parametrize(("docker", "weight"), [(10, 1), (500, 4950), (1000, 10000)])
def test_dockers_weights_on_the_scale_of_io_weight(docker, weight):
    assert io._converted(docker, "io.weight") == weight
    assert io._converted(docker, "io.bfq.weight") == docker


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("9:9", "there is no block device 9:9 on this host"),
        ("8:1", "8:1 is a partition, and the kernel limits whole disks only: give its disk, /dev/sda"),
        ("/dev/null", "/dev/null is not a block device"),
        ("/dev/no/such", "/dev/no/such: No such file or directory"),
    ],
)
def test_what_is_no_whole_disk(device, words, cgroup_layout):
    with pytest.raises(LimitError) as caught:
        io.mydocker_validate(config(device_read_bps=f"{device}:1m"), cgroup_layout.layout)
    assert words in caught.value.reason


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ({"blkio_weight": "100", "io_weight": "100"}, "blkio_weight"),
        ({"blkio_weight": "100", "io_bfq_weight": "100"}, "blkio_weight"),
        ({"device_read_bps": "8:0:1m", "io_max": "8:0 rbps=2m"}, "io_max"),
    ],
)
def test_what_contradicts_itself(texts, field, cgroup_v2):
    with pytest.raises(LimitError) as caught:
        io.mydocker_validate(config(**texts), cgroup_v2.layout)
    assert caught.value.field == field


WRITTEN = {
    1: {
        "blkio.throttle.read_bps_device": "8:0 1048576",
        "blkio.throttle.write_bps_device": "8:16 2097152",
        "blkio.throttle.read_iops_device": "8:0 30",
        "blkio.throttle.write_iops_device": "8:0 0",
        "blkio.bfq.weight": "300",
        "blkio.bfq.weight_device": "8:16 200",
    },
    2: {"io.bfq.weight": "8:16 200"},
}


def test_what_is_written(limit_journey):
    container = limit_journey(
        io,
        device_read_bps="8:0:1m",
        device_write_bps="8:16:2m",
        io_max="8:0 riops=30 wiops=max",
        blkio_weight="300",
        blkio_weight_device="8:16:200",
    )
    version = container.version("io") or container.version("blkio")
    assert container.written.items() >= WRITTEN[version].items()
    if version == 2:
        assert container.read("io.max").splitlines() == [
            "8:0 rbps=1048576 wbps=max riops=30 wiops=max",
            "8:16 rbps=max wbps=2097152 riops=max wiops=max",
        ]
        assert container.read("io.bfq.weight").splitlines() == ["default 300", "8:16 200"]
    assert container.attached("blkio" if version == 1 else "io")


def test_an_update_lifts_what_is_not_named_any_more(limit_journey):
    container = limit_journey(
        io, device_read_bps=["8:0:1m", "8:16:1m"], blkio_weight="300", blkio_weight_device="8:0:50"
    )
    container.update(device_read_bps=["8:16:5m"], blkio_weight="0", blkio_weight_device=None)
    rates = "blkio.throttle.read_bps_device" if container.version("blkio") == 1 else "io.max"
    if container.version("blkio") == 1:
        assert container.read(rates) == "8:16 5242880"
        assert container.read("blkio.bfq.weight") == "100"
    else:
        assert container.read(rates) == "8:16 rbps=5242880 wbps=max riops=max wiops=max"
        assert container.read("io.bfq.weight").splitlines()[0] == "default 100"
    container.update(device_read_bps=["8:16:max"])
    assert container.read(rates) == ""


def test_an_update_that_fails_leaves_every_device_as_it_was(fake_host, limit_journey):
    container = limit_journey(io, device_read_bps=["8:0:1m", "8:16:1m"])
    container.host.block_devices = frozenset({"8:0"})  # removed meanwhile
    with pytest.raises(Exception, match="8:16"):
        container.update(device_read_bps=["8:0:5m", "8:16:5m"])
    file = "blkio.throttle.read_bps_device" if container.version("blkio") == 1 else "io.max"
    assert {line.split()[0]: "1048576" in line for line in container.read(file).splitlines()} == {
        "8:0": True,
        "8:16": True,
    }


def test_weights_without_bfq(fake_host, limit_journey):
    """v2 has the cost model's weight too; on v1 there is none."""
    host = fake_host("v2", without=["io.bfq.*"])
    assert limit_journey(io, host=host, blkio_weight="500").written["io.weight"] == "4950"
    for kind, texts, words in (
        ("v1", {"blkio_weight": "500"}, "no blkio.bfq.weight on cgroup v1"),
        ("v1", {"blkio_weight_device": "8:0:500"}, "no blkio.bfq.weight_device on cgroup v1"),
        ("v1", {"io_bfq_weight": "500"}, "no blkio.bfq.weight on cgroup v1"),
        ("v2", {"io_bfq_weight": "500"}, "no io.bfq.weight on cgroup v2"),
    ):
        with pytest.raises(UnsupportedLimit, match=words) as caught:
            limit_journey(io, host=fake_host(kind, without=["io.bfq.*", "blkio.bfq.*"]), **texts)
        assert caught.value.field in texts


@pytest.mark.parametrize("field", ["device_read_bps", "device_write_iops", "io_max"])
def test_a_kernel_without_throttling(field, fake_host, limit_journey):
    text = "8:0 rbps=1m" if field == "io_max" else "8:0:1000"
    for kind in ("v1", "v2"):
        with pytest.raises(UnsupportedLimit, match="CONFIG_BLK_DEV_THROTTLING") as caught:
            limit_journey(io, host=fake_host(kind, without=["io.max", "blkio.throttle.*"]), **{field: text})
        assert caught.value.field == field


def test_io_weight_is_of_v2(cgroup_v1):
    with pytest.raises(UnsupportedLimit, match=r"io\.weight is a file of cgroup v2"):
        io.mydocker_validate(config(io_weight="100"), cgroup_v1.layout)


def test_a_host_without_the_controller():
    for field, text in (("blkio_weight", "100"), ("device_read_bps", "8:0:1m"), ("io_max", "8:0 rbps=1m")):
        with pytest.raises(UnsupportedLimit, match="no io controller") as caught:
            io.mydocker_validate(config(**{field: text}), Layout.of([]))
        assert caught.value.field == field
    assert "no io controller" in io.mydocker_probe(Layout.of([])).problem


def test_figures(limit_journey):
    container = limit_journey(io, device_read_bps="8:0:1m")
    if container.version("blkio") == 1:
        for file, (read, write) in {"io_service_bytes": (4096, 512), "io_serviced": (3, 1)}.items():
            container.report(
                f"blkio.throttle.{file}_recursive",
                f"8:0 Read {read}\n8:0 Write {write}\n8:0 Total 9\n8:16 Read {read}\n8:16 Write 0\nTotal 9\n",
            )
    else:
        container.report(
            "io.stat",
            "8:0 rbytes=4096 wbytes=512 rios=3 wios=1 dbytes=0 dios=0\n8:16 rbytes=4096 wbytes=0 rios=3 wios=0\n7:0\n",
        )
    container.end()
    figures = {key: value for key, value in container.usage.items() if key != "pressure"}
    assert figures == {"read_bytes": 8192, "written_bytes": 512, "read_operations": 6, "write_operations": 1}
    assert (container.figures.io_read_bytes, container.figures.io_writes) == (8192, 1)


@pytest.mark.cgroup_layout("v1")
def test_no_figures_where_the_kernel_does_not_count(limit_journey):
    """Since Linux 6.10 it counts for no device on v1 before somebody limits its rate."""
    container = limit_journey(io, io_bfq_weight="100")
    container.end()
    assert "read_bytes" not in container.usage
    assert container.figures.io_read_bytes is None


@pytest.mark.cgroup_layout("v1")
def test_no_figures_of_the_container_are_zero_where_the_kernel_counts(limit_journey):
    container = limit_journey(io, io_bfq_weight="100")
    container.host.report("blkio.throttle.io_service_bytes", "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n")
    container.end()
    assert container.usage["read_bytes"] == 0


def test_paths_are_devices_by_their_number(tmp_path, monkeypatch):
    """Whatever the name: the number of the node counts."""
    found = next((f"/dev/{name}" for name in os.listdir("/dev") if name.startswith(("loop", "vd", "sd", "nvme"))), None)
    if found is None or not os.path.exists(found):
        pytest.skip("/dev has no block device")
    monkeypatch.setattr(io, "_BLOCK_DEVICES", "/no/such")
    link = tmp_path / "disk"
    link.symlink_to(found)
    try:
        number = io._number("io_max", str(link))
    except LimitError as error:
        assert "is not a block device" in error.reason  # /dev/loop-control
    else:
        status = os.stat(found)
        assert number == f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
