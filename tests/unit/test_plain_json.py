from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import plain_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_what_is_written_is_what_json_reads(value: object) -> None:
    assert json.loads(plain_json.dumps(value)) == value
    assert json.loads(plain_json.dumps(value, indent=2)) == value


@given(values)
def test_what_json_writes_is_read(value: object) -> None:
    assert plain_json.loads(f" \n{json.dumps(value)}\t\r\n") == value
    assert plain_json.loads(json.dumps(value, ensure_ascii=False, indent=3)) == value


@pytest.mark.parametrize("text", ["", "{", '{"a":}', "{} x", "nul", "[1,]", '"\n"', "'a'"])
def test_an_error_has_the_words_of_json(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as found:
        plain_json.loads(text)
    assert str(found.value) == str(expected.value)


def test_what_is_not_of_json_but_is_read_by_everybody() -> None:
    assert plain_json.loads("[Infinity, -Infinity]") == [math.inf, -math.inf]


def test_a_value_that_has_no_json() -> None:
    with pytest.raises(TypeError):
        plain_json.dumps({"a": object()})


def test_an_error_is_json_s_own_where_json_was_not_loaded_before() -> None:
    """The C scanner looks for the class of its error in a module that only `json` loads."""
    script = "from mydocker.plain_json import loads\ntry: loads('{')\nexcept ValueError as e: print(type(e).__name__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command, env=environment, text=True) == "JSONDecodeError\n"
