"""``--ulimit``: what is written, and what of it cannot be put in force."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocker import ConflictError, LimitError, ResourceConfig
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout
from mydocker.testing import FakeHost, Journey
from subsystems import ulimit


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nofile=1024", ("nofile", 1024, 1024)),
        ("nofile=1024:2048", ("nofile", 1024, 2048)),
        ("core=0:unlimited", ("core", 0, -1)),
        ("core=-1", ("core", -1, -1)),
        ("core=unlimited:-1", ("core", -1, -1)),
        ("RLIMIT_CORE=5", ("core", 5, 5)),
        (" cpu=1 ", ("cpu", 1, 1)),
        ("as=9223372036854775807", ("as", 2**63 - 1, 2**63 - 1)),
    ],
)
def test_dockers_grammar(text: str, value: tuple[str, int, int]) -> None:
    assert ulimit.parse_ulimit(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nofile", 'has no "="'),
        ("", 'has no "="'),
        ("files=1", '"files" is not one of them: write NAME=SOFT'),
        ("NOFILE=1", '"NOFILE" is not one of them'),
        ("nofile=", "not a whole number"),
        ("nofile=1:", "not a whole number"),
        ("nofile=1:2:3", "not a whole number"),
        ("nofile=1k", "not a whole number"),
        ("core=-2", "-2 is not a limit"),
        (f"core={2**63}", "is not a limit"),
        ("core=2:1", "the soft limit, 2, is more than the hard limit, 1"),
        ("core=unlimited:1", "the soft limit, unlimited, is more than the hard limit, 1"),
        ("nofile=2", "not enough for stdin, stdout and stderr"),
        ("rss=100", "rss cannot be put in force: .* use --memory"),
        ("locks=100", "locks cannot be put in force"),
    ],
)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ulimit.parse_ulimit(text)


@given(st.text())
def test_any_other_text_is_refused_with_a_reason(text: str) -> None:
    try:
        name, soft, hard = ulimit.parse_ulimit(text)
    except ValueError as e:
        assert str(e)
    else:
        assert name in ulimit.NAMES
        assert hard == -1 or 0 <= soft <= hard


def config(*texts: str) -> ResourceConfig:
    return ResourceConfig({"ulimit": tuple(map(ulimit.parse_ulimit, texts))})


def test_more_files_than_the_kernel_allows_anybody() -> None:
    for text in ("nofile=unlimited", f"nofile=10:{2**40}"):
        with pytest.raises(LimitError, match=r"more than this kernel allows any process, \d+: .* fs.nr_open"):
            ulimit.mydocker_validate(config(text))


def test_a_hard_limit_that_may_not_be_raised_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 1000))
    monkeypatch.setattr(ulimit, "_may_raise", lambda: False)
    ulimit.mydocker_validate(config("core=1000"))
    for text in ("core=1001", "core=10:unlimited"):
        with pytest.raises(LimitError, match=r"more than the hard limit here, 1000, .* CAP_SYS_RESOURCE"):
            ulimit.mydocker_validate(config(text))
    monkeypatch.setattr(ulimit, "_may_raise", lambda: True)
    ulimit.mydocker_validate(config("core=unlimited"))


def test_the_last_of_one_name_counts() -> None:
    assert ulimit.mydocker_explain(config("core=1", "nofile=64", "core=2:3")) == [
        "prlimit(RLIMIT_CORE): soft 2, hard 3",
        "prlimit(RLIMIT_NOFILE): soft 64, hard 64",
    ]


def test_a_user_without_capabilities_may_not_raise() -> None:
    script = "import os; from subsystems import ulimit; os.getuid() or os.setuid(65534); print(ulimit._may_raise())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\n"


def test_it_is_in_force_for_the_first_process(cgroup_v2: FakeHost) -> None:
    with Journey(cgroup_v2, ulimit, ulimit=["nofile=50:60", "core=0"]) as container:
        assert resource.prlimit(container.pid, resource.RLIMIT_NOFILE) == (50, 60)
        assert resource.prlimit(container.pid, resource.RLIMIT_CORE) == (0, 0)
        assert not container.cgroup.exists


def test_two_plugins_for_one_limit_of_a_process() -> None:
    cgroup = ContainerCgroup(Layout.of([]), "mydocker/test")
    cgroup.for_plugin("other").claim("rlimit nofile")
    with pytest.raises(ConflictError, match="the plugins other and ulimit both set the rlimit nofile"):
        ulimit.mydocker_apply(config("nofile=64"), cgroup.for_plugin("ulimit"), os.getpid())
