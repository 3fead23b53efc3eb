"""What a person may write for sizes, durations, numbers, CPUs and lists of CPUs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import LimitError, ResourceField
from mydocker.resources import (
    format_cpu_list,
    format_size,
    parse_cpu_list,
    parse_cpus,
    parse_duration,
    parse_integer,
    parse_size,
    parse_size_or_unlimited,
)

PARSERS = [
    parse_size,
    parse_size_or_unlimited,
    parse_duration,
    parse_integer,
    parse_cpus,
    parse_cpu_list,
]


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text() | st.text("0123456789.,-+ kmgbs", max_size=12))
def test_any_text_gives_a_value_or_a_reason(parse, text):
    try:
        parse(text)
    except ValueError as e:
        assert f'"{text}"' in str(e), "the reason quotes what was typed"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100m", 100 << 20),
        ("100M", 100 << 20),
        ("100mb", 100 << 20),
        ("100MiB", 100 << 20),
        ("1.5g", 3 << 29),
        ("0.5k", 512),
        (".5k", 512),
        ("7", 7),
        ("7b", 7),
        (" 2 g ", 2 << 30),
        ("1t", 1 << 40),
        ("1p", 1 << 50),
        ("8388607t", 8388607 << 40),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "m", "12x", "1.2.3m", "-1", "1e3", "1,5g", "0x10", "1.", "1 m m", "nan", "inf", "\u0661m", "1bb", "9" * 5000],
)
def test_what_is_not_a_size(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", [str(1 << 63), "8388608t", "9" * 400 + "g"])
def test_a_size_that_the_kernel_cannot_count(text):
    with pytest.raises(ValueError, match="more than the kernel can count"):
        parse_size(text)


@given(size=st.integers(0, (1 << 63) - 1))
def test_a_formatted_size_parses_to_itself(size):
    assert parse_size(format_size(size)) == size


@given(whole=st.integers(0, 10**6), unit=st.sampled_from("bkmgt"))
def test_units_are_powers_of_1024(whole, unit):
    assert parse_size(f"{whole}{unit}") == whole * 1024 ** "bkmgt".index(unit)


@pytest.mark.parametrize("text", ["-1", "unlimited", " -1 "])
def test_no_limit(text):
    assert parse_size_or_unlimited(text) == -1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("1.5", 1.5), ("10s", 10), ("500ms", 0.5), ("1m30s", 90), ("2h", 7200), ("1d", 86400), ("5us", 5e-6)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "1x", "-1s", "1m-30s", "1 m", "0", "0s", "1e9", "9999999999", "1s2", "1..5s"]
)
def test_what_is_not_a_duration(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@given(minutes=st.integers(0, 999), seconds=st.integers(1, 59))
def test_parts_of_a_duration_add_up(minutes, seconds):
    assert parse_duration(f"{minutes}m{seconds}s") == minutes * 60 + seconds


@given(number=st.integers(-(10**18), 10**18))
def test_integers(number):
    assert parse_integer(f" {number} ") == number


@pytest.mark.parametrize("text", ["", "-", "1.0", "1e3", "0x1", "--1", "+-1", "²", "1_000", "9" * 5000])
def test_what_is_not_an_integer(text):
    with pytest.raises(ValueError, match="is not a whole number"):
        parse_integer(text)


@pytest.mark.parametrize(("text", "cpus"), [("0.5", 0.5), ("2", 2.0), (".25", 0.25), ("1.50", 1.5)])
def test_cpus(text, cpus):
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "1e1", "half", "1,5", "nan", "1."])
def test_what_is_not_a_number_of_cpus(text):
    with pytest.raises(ValueError, match="is not a number of CPUs"):
        parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0", (0,)), ("0-2,4", (0, 1, 2, 4)), ("4,0-2", (0, 1, 2, 4)), ("1,1", (1,)), (" 0 - 1 , 3", None), ("3-3", (3,))],
)
def test_cpu_lists(text, cpus):
    if cpus is None:
        with pytest.raises(ValueError, match="is not a list"):
            parse_cpu_list(text)
    else:
        assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize("text", ["", ",", "1,", "3-1", "-1", "1-", "a", "0-65536", "1-2-3", "999999999999"])
def test_what_is_not_a_cpu_list(text):
    with pytest.raises(ValueError, match="is not a list"):
        parse_cpu_list(text)


@given(cpus=st.sets(st.integers(0, 2000), min_size=1))
def test_a_formatted_cpu_list_parses_to_itself(cpus):
    assert parse_cpu_list(format_cpu_list(cpus)) == tuple(sorted(cpus))


@given(cpus=st.sets(st.integers(0, 2000), min_size=1))
def test_a_formatted_cpu_list_has_no_neighbours_apart(cpus):
    ranges = [part.split("-") for part in format_cpu_list(cpus).split(",")]
    assert all(int(a[-1]) + 1 < int(b[0]) for a, b in itertools.pairwise(ranges))


def test_an_error_names_the_flag_that_was_typed():
    field = ResourceField(name="memory", flags=("-m", "-mem"), parse=parse_size, metavar="SIZE", help="")
    with pytest.raises(LimitError, match=r'^-mem: "12x" is not a size'):
        field.value_of("12x", "-mem")
    with pytest.raises(LimitError, match=r"^-m: "):
        field.value_of("12x")
