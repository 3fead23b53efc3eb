"""The flags for devices: what is a value, what is allowed by it, what is written on v1."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import CgroupError, LimitError, ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Layout
from mydocker.cgroups.v2 import Core
from mydocker.spec import Spec, Volume
from subsystems import devices

FIELDS = {field.name: field for field in devices.mydocker_fields()}
NULL = ("c", 1, 3)


def config(**texts):
    return ResourceConfig({name: FIELDS[name].value_of(text) for name, text in texts.items()})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/dev/fuse", ("/dev/fuse", "/dev/fuse", "rwm")),
        ("/dev/fuse:/dev/f", ("/dev/fuse", "/dev/f", "rwm")),
        ("/dev/fuse:r", ("/dev/fuse", "/dev/fuse", "r")),
        ("/dev/fuse:/dev/f:mw", ("/dev/fuse", "/dev/f", "wm")),
    ],
)
def test_devices_that_are_given(text, value):
    assert devices.parse_device(text) == value


@pytest.mark.parametrize(
    "text", ["", "fuse", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/dev/b:rr", "/dev/a:/dev/b:r:w", ":/dev/a", "/dev/a:"]
)
def test_what_is_no_device(text):
    with pytest.raises(ValueError, match="is not of the form HOST"):
        devices.parse_device(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("c 10:200 rwm", ("c", 10, 200, "rwm")),
        ("b 8:* r", ("b", 8, None, "r")),
        ("a *:* mwr", ("a", None, None, "rwm")),
        (" c  4095:1048575  m ", ("c", 4095, 1048575, "m")),
    ],
)
def test_rules(text, value):
    assert devices.parse_rule(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not of the form TYPE MAJOR:MINOR ACCESS"),
        ("c 1:3", "is not of the form"),
        ("d 1:3 r", "is not of the form"),
        ("c 1 r", "is not of the form"),
        ("c 1:3 x", "is not of the form"),
        ("c 1:3 rwmr", "is not of the form"),
        ("c 4096:3 r", "4096 is not a major number"),
        ("c 1:1048576 r", "1048576 is not a minor number"),
        ("c -1:3 r", "-1 is not a major number"),
        ("c 1: r", "is not a minor number"),
    ],
)
def test_what_is_no_rule(text, words):
    with pytest.raises(ValueError, match=words):
        devices.parse_rule(text)


NUMBERS = st.none() | st.integers(0, 4095)


@given(
    kind=st.sampled_from("bc"),
    major=NUMBERS,
    minor=NUMBERS,
    access=st.sets(st.sampled_from("rwm"), min_size=1).map(devices._ordered),
)
def test_a_rule_reads_as_v1_writes_it(kind, major, minor, access):
    assert devices.parse_rule(devices.text_of((kind, major, minor), access)) == (kind, major, minor, access)


@given(text=st.text())
@pytest.mark.parametrize("field", FIELDS)
def test_any_text_is_a_value_or_refused_with_a_reason(field, text):
    try:
        FIELDS[field].value_of(text)
    except LimitError as error:
        assert error.reason


def test_a_letter_of_an_engine_that_means_nothing_takes_nothing_more_and_denies_nothing_less():
    rule = {"type": "c", "major": 1, "minor": 11, "access": "rwa"}
    texts = devices.rules_from_oci([{**rule, "allow": True}, {**rule, "allow": False}], None)
    assert texts in (None, ["allow c 1:11 rw", "deny c 1:11 rwm"]), "None: a plain user restricts none"


def test_dockers_defaults_come_with_every_rule():
    _, rules = devices.decision_of(config(device_cgroup_rule="c 10:200 rw"))
    assert rules["c", 10, 200] == "rw"
    assert rules[NULL] == "rwm"
    assert rules["c", None, None] == rules["b", None, None] == "m"
    assert ("b", 8, 0) not in rules
    assert ("c", 1, 1) not in rules


def test_rules_for_the_same_devices_are_one():
    _, rules = devices.decision_of(config(device_cgroup_rule=["c 10:200 r", "c 10:200 w", "a 7:* r"]))
    assert rules["c", 10, 200] == "rw"
    assert rules["c", 7, None] == rules["b", 7, None] == "r"


def test_a_node_is_allowed_by_its_number():
    assert devices.decision_of(config(device="/dev/tty:/dev/other:r"))[1]["c", 5, 0] == "rwm"  # by default
    assert devices.decision_of(config(device="/dev/null"))[1][NULL] == "rwm"


def test_a_directory_stands_for_the_devices_in_it():
    found = [host for host, _, _ in devices._nodes(config(device="/dev:/dev/all:r"))]
    assert "/dev/null" in found
    assert all(not stat.S_ISREG(os.lstat(path).st_mode) for path in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/no/such", "/no/such: No such file or directory"),
        ("/etc/passwd", "/etc/passwd is not a device; use --volume"),
        ("/etc", "there is no device in /etc"),
    ],
)
def test_what_is_no_device_of_this_host(text, words, cgroup_layout):
    with pytest.raises(LimitError, match=words) as caught:
        devices.mydocker_validate(config(device=text), cgroup_layout.layout)
    assert caught.value.field == "device"


def test_two_devices_at_one_place(cgroup_v2):
    with pytest.raises(LimitError, match="/dev/null and /dev/zero cannot both be /dev/x"):
        devices.mydocker_validate(config(device=["/dev/null:/dev/x", "/dev/zero:/dev/x"]), cgroup_v2.layout)


def test_the_nodes_are_bound_in_a_root_of_its_own():
    limits = config(device=["/dev/null:/dev/x:r", "/dev/zero"])
    own = devices.mydocker_amend(limits, Spec(args=(b"true",), overlay=True))
    assert own is not None
    assert own.mounts == (
        Volume(source="/dev/null", destination="/dev/x"),
        Volume(source="/dev/zero", destination="/dev/zero"),
    )
    host = devices.mydocker_amend(limits, Spec(args=(b"true",)))
    assert host is not None
    assert host.mounts == (Volume(source="/dev/null", destination="/dev/x"),)
    assert devices.mydocker_amend(config(device_cgroup_rule="c 1:3 r"), Spec(args=(b"true",), overlay=True)) is None


def test_what_v1_is_told(limit_journey, cgroup_v1):
    container = limit_journey(devices, host=cgroup_v1, device_cgroup_rule="c 10:200 rw")
    writes = [(write.name, write.value) for write in cgroup_v1.writes if write.name.startswith("devices.")]
    assert writes[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 10:200 rw") in writes
    assert ("devices.allow", "c 1:3 rwm") in writes
    assert container.attached("devices")


def test_v1_never_denies_what_stays_allowed(limit_journey, cgroup_v1):
    container = limit_journey(devices, host=cgroup_v1, device_cgroup_rule=["c 10:200 rw", "b 8:0 rwm"])
    before = len(cgroup_v1.writes)
    container.update(device_cgroup_rule=["c 10:200 r", "c 10:229 rw"])
    writes = [(write.name, write.value) for write in cgroup_v1.writes[before:]]
    assert writes == [
        ("devices.allow", "c 10:229 rw"),
        ("devices.deny", "c 10:200 w"),
        ("devices.deny", "b 8:0 rwm"),
    ]


def test_in_every_layout(limit_journey):
    container = limit_journey(devices, device_cgroup_rule="c 10:200 rw")
    container.update(device_cgroup_rule="c 10:229 rw")
    assert container.attached("devices" if container.version("devices") else "cgroup")


def test_a_host_without_cgroups():
    for field, text in (("device", "/dev/null"), ("device_cgroup_rule", "c 1:3 r")):
        with pytest.raises(UnsupportedLimit, match="no devices controller") as caught:
            devices.mydocker_validate(config(**{field: text}), Layout.of([]))
        assert caught.value.field == field


def test_what_it_would_do(cgroup_v2):
    lines = devices.mydocker_explain(config(device="/dev/null:/dev/x", device_cgroup_rule="b 8:* r"), cgroup_v2.layout)
    assert lines[0] == "bind /dev/null on /dev/x"
    assert "eBPF program" in lines[1] and "b 8:* r" in lines[1]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EINVAL, UnsupportedLimit, "this kernel has no eBPF programs for the devices of a cgroup"),
        (errno.EPERM, UnsupportedLimit, "it takes an eBPF program, which needs root"),
        (errno.E2BIG, LimitError, "rules are more than the kernel lets a program decide on"),
        (errno.ENOMEM, CgroupError, "no memory"),
    ],
)
@pytest.mark.cgroup_layout("v2")
def test_what_the_kernel_says_to_a_program(limit_journey, monkeypatch, number, kind, words):
    def refuse(*_, **__):
        raise CgroupError("no memory", number)

    monkeypatch.setattr(Core, "allow_devices", refuse)
    with pytest.raises(kind, match=words) as caught:
        limit_journey(devices, device_cgroup_rule="c 10:200 rw")
    if kind is not CgroupError:
        assert caught.value.flag == "--device-cgroup-rule"


ALWAYS = [devices.text_of((kind, major, minor), access) for kind, major, minor, access in devices._OF_ENGINES]


@pytest.mark.parametrize(
    ("rules", "everybody", "exceptions"),
    [
        (["deny a *:* rwm"], False, []),
        (["allow a *:* rwm"], True, None),
        (["allow a *:* rwm", "deny a *:* rwm"], False, []),
        (["deny a *:* rwm", "allow c 240:* r", "allow c 240:5 w"], False, ["c 240:* r", "c 240:5 w"]),
        (["allow c 240:5 rwm", "deny c 240:5 w"], False, ["c 240:5 rm"]),
        (["allow c 240:5 rwm", "allow b 240:5 r", "deny c *:* rwm"], False, ["b 240:5 r"]),
        (["allow a 240:5 r", "deny b 240:* r"], False, ["c 240:5 r"]),
        (["allow a *:* rwm", "deny c 240:5 w", "deny b *:* m"], True, ["c 240:5 w"]),
        (["allow a *:* rwm", "deny c 240:* w", "allow c 240:* w"], True, []),
        (["deny a *:* rw"], False, []),
    ],
)
def test_rules_count_in_their_order(rules, everybody, exceptions):
    allows, found = devices.decision_of(config(device_rule=rules))
    texts = [devices.text_of(key, access) for key, access in found.items()]
    assert allows is everybody
    if exceptions is not None:
        always = [] if everybody else ALWAYS
        assert set(texts) == set(exceptions).union(always)


@pytest.mark.parametrize(
    "rules",
    [
        ["allow c 240:* rw", "deny c 240:5 w"],
        ["allow b *:* rwm", "deny b 8:* m"],
        ["allow c 240:* r", "deny c *:5 r"],
        ["allow a *:* rwm", "deny c 240:* w", "allow c 240:5 w"],
        ["allow a *:* rwm", "deny c 1:* r"],
    ],
)
def test_the_kernel_knows_no_holes(rules, cgroup_layout):
    with pytest.raises(LimitError, match=r"takes a part of .* back, and the kernel knows no such holes") as caught:
        devices.mydocker_validate(config(device_rule=rules), cgroup_layout.layout)
    assert caught.value.field == "device_rule"


@pytest.mark.parametrize("text", ["", "c 1:3 r", "permit c 1:3 r", "allow", "allow x 1:3 r", "deny a *:*"])
def test_what_is_no_rule_of_the_whole(text):
    with pytest.raises(ValueError, match=r"does not begin with allow or deny|is not of the form"):
        devices.parse_device_rule(text)


def test_what_v1_is_told_of_all_rules(limit_journey, cgroup_v1):
    container = limit_journey(devices, host=cgroup_v1, device_rule=["allow a *:* rwm", "deny c 240:5 w"])
    writes = [(write.name, write.value) for write in cgroup_v1.writes if write.name.startswith("devices.")]
    assert writes == [("devices.deny", "c 240:5 w")]
    container.update(device_rule=["deny a *:* rwm", "allow c 240:6 r"])
    writes = [(write.name, write.value) for write in cgroup_v1.writes if write.name.startswith("devices.")][1:]
    assert writes[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 240:6 r") in writes
    container.update(device_rule=["allow a *:* rwm"])
    assert container.read("devices.list").split("\n")[0] == "a *:* rwm"


@pytest.mark.cgroup_layout("v2")
def test_what_the_program_on_v2_is_made_of(limit_journey, monkeypatch):
    told = []
    monkeypatch.setattr(Core, "allow_devices", lambda _, rules, others=False: told.append((list(rules), others)))
    monkeypatch.setattr(Core, "allow_all_devices", lambda _: told.append("all"))
    container = limit_journey(devices, device_rule=["allow a *:* rwm"])
    container.update(device_rule=["allow a *:* rwm", "deny c 240:5 w"])
    assert told == ["all", ([(2, 240, 5, 4)], True)]
