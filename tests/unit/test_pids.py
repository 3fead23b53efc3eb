"""The flag for the number of tasks: what is a value."""

from __future__ import annotations

import pytest

from mydocker import ResourceConfig, UnsupportedLimit
from mydocker.cgroups.layout import Layout
from subsystems import pids


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("100", 100), ("4194304", 4194304), ("0", -1), ("-1", -1), ("unlimited", -1)]
)
def test_values(text, value):
    assert pids.parse_pids(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [("-2", "-2 is not between 1 and 4194304"), ("4194305", "is not between"), ("ten", "is not a whole number")],
)
def test_what_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        pids.parse_pids(text)


def test_a_host_without_the_controller():
    assert "no pids controller" in pids.mydocker_probe(Layout.of([])).problem
    with pytest.raises(UnsupportedLimit, match="no pids controller"):
        pids.mydocker_validate(ResourceConfig({"pids_limit": 5}), Layout.of([]))


def test_the_flag_and_where_an_engine_puts_it():
    (field,) = pids.mydocker_fields()
    assert (field.flags, field.oci.split()[0]) == (("--pids-limit", "-pids"), "linux.resources.pids.limit")
