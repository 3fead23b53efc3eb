"""Both readers of a command line, click's and the fast one, understand every line alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mydocker.cli import app, fast
from mydocker.cli.options import OPTIONS, Parsed
from mydocker.errors import UsageError
from mydocker.plugins import Registry, load

INTEGER = "mydocker.resources:parse_integer"
FLAG = "mydocker.resources:parse_flag"
REGISTRY = Registry(
    (
        (
            "cpu",
            "d",
            "1",
            "m",
            (
                ("shares", ("-c", "--cpu-shares", "-cpushare"), INTEGER, "N", "CPU.", "", "value", "", "", False),
                ("idle", ("--cpu-idle", "-idle", "-x"), FLAG, "", "Idle.", "", "flag", "", "", False),
            ),
            {},
        ),
        (
            "memory",
            "d",
            "1",
            "m",
            (
                ("memory", ("-m", "--memory", "-mem"), INTEGER, "SIZE", "Memory.", "", "value", "", "", False),
                ("swap", ("--memory-swap",), INTEGER, "SIZE", "Swap.", "", "value", "", "", False),
                ("pages", ("--pages", "-p"), INTEGER, "N", "Pages.", "", "multiple", "2MB 1GB", "", False),
            ),
            {},
        ),
    )
)
FLAGS = [flag for option in OPTIONS for flag in option.flags] + [f for field in REGISTRY.fields for f in field.flags]

words = st.sampled_from(["", "-", "--", "ls", "-l", "100m", "A=B", "=", "-=", "--=", "run", "\udcff", "x y", "-1", "é"])
attached = st.builds("{}{}{}".format, st.sampled_from(FLAGS), st.sampled_from(["=", ""]), words)
clusters = st.text("titmvewuc=-x", min_size=1, max_size=6).map(lambda letters: f"-{letters}")
arguments = st.one_of(st.sampled_from(FLAGS), attached, clusters, words, st.text(max_size=3))
lines = st.builds(
    lambda before, rest: [*before, "run", *rest],
    st.one_of(st.just([]), st.lists(arguments, max_size=3)),
    st.lists(arguments, max_size=8),
)


@cache
def application(registry: Registry) -> app.click.Command:
    return app.application(lambda: registry)


def read_with_click(line: Sequence[str], registry: Registry = REGISTRY) -> Parsed | None:
    seen: list[Parsed] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "execute", lambda parsed, _registry: seen.append(parsed) or 0)
        patch.setattr(app, "configure_logs", lambda _options: None)
        try:
            application(registry).main(list(line), "mydocker", complete_var="_NOT_SET", standalone_mode=False)
        except app.click.ClickException:
            return None
    return seen[0] if seen else None


@settings(deadline=None)
@given(lines)
@example(["run", "-ti", "-mem", "100m", "-cpushare", "512", "sh"])
@example(["run", "-mem=100m", "ls"])
@example(["run", "-m=100m", "-m100m", "-tim", "5", "ls", "-m", "6"])
@example(["run", "--memory", "1", "-mem", "2", "--memory", "3", "ls"])
@example(["run", "-e", "A", "-eB=1", "--env=C", "--", "-ls", "--", "-t"])
@example(["run", "-e", "--", "-v", "-t", "ls"])
@example(["run", "--name=", "--name", "", ""])
@example(["--debug", "--log-level", "x", "run", "--log-level", "info", "ls", "--debug"])
@example(["--", "run", "--", "ls"])
@example(["run", "--tty=1", "ls"])
@example(["run", "-"])
@example(["run", "--memor", "1", "ls"])
@example(["run", "--"])
@example(["run", "-p", "1", "--pages=2", "-ip3", "-txi", "-idle", "ls"])
@example(["run", "-idle=1", "ls"])
@example(["run", "--cpu-idle=false", "-xt", "ls"])
@example(["run", "-x", "-x=false", "ls"])
@example(["run", "-x=", "-t=", "ls"])
def test_both_readers_understand_every_line_alike(line: list[str]) -> None:
    assert fast.read(line, REGISTRY) == read_with_click(line)


INSTALLED = load()
INSTALLED_FLAGS = [flag for option in OPTIONS for flag in option.flags] + [
    flag for field in INSTALLED.fields for flag in field.flags
]
#: Flags as they are, cut short, with one letter too many, and with something attached.
near_flags = st.builds(
    lambda flag, cut, more: flag[: len(flag) - cut] + more,
    st.sampled_from(INSTALLED_FLAGS),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from(["", "", "", "=", "=1", "1", "m", "=true", "=false", "==", " "]),
)


@settings(deadline=None)
@given(st.lists(st.one_of(near_flags, near_flags, clusters, words), max_size=10))
def test_both_readers_understand_the_installed_limits_alike(line: list[str]) -> None:
    assert fast.read(["run", *line], INSTALLED) == read_with_click(["run", *line], INSTALLED)


@pytest.mark.parametrize(
    "form", ["{0} 1 ls", "{0}=1 ls", "{0}1 ls", "{0} ls", "{0}", "{0}= ls", "-t{0} 1 ls", "-ti {0} 1 {0} 2 ls"]
)
def test_both_readers_understand_each_flag_alike(form: str) -> None:
    for flag in INSTALLED_FLAGS:
        line = ["run", *form.format(flag).split()]
        assert fast.read(line, INSTALLED) == read_with_click(line, INSTALLED), line


def read(*line: str) -> Parsed:
    parsed = fast.read(["run", *line], REGISTRY)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("line", "limits", "flags"),
    [
        ("-mem 100m ls", {"memory": "100m"}, {"memory": "-mem"}),
        ("-m 100m ls", {"memory": "100m"}, {"memory": "-m"}),
        ("-m100m ls", {"memory": "100m"}, {"memory": "-m"}),
        ("-mem=100m ls", {"memory": "100m"}, {"memory": "-mem"}),
        ("--memory=100m ls", {"memory": "100m"}, {"memory": "--memory"}),
        ("-m 1 --memory 2 -mem 3 ls", {"memory": "3"}, {"memory": "-mem"}),
        ("-cpushare 512 -c 7 ls", {"shares": "7"}, {"shares": "-c"}),
        ("ls -mem 100m", {}, {}),
        ("--pages 1 -p2 --pages=3 ls", {"pages": ["1", "2", "3"]}, {"pages": "--pages"}),
        ("-m=100m ls", {"memory": "100m"}, {"memory": "-m"}),
        ("-p=1 -p==2 ls", {"pages": ["1", "=2"]}, {"pages": "-p"}),
        ("--cpu-idle=false ls", {"idle": "false"}, {"idle": "--cpu-idle"}),
        ("--cpu-idle=false -x ls", {"idle": "true"}, {"idle": "-x"}),
        ("-x=false ls", {"idle": "false"}, {"idle": "-x"}),
        ("-idle ls", {"idle": "true"}, {"idle": "-idle"}),
        ("-txi ls", {"idle": "true"}, {"idle": "-x"}),
    ],
)
def test_limits_are_read_with_the_flag_as_it_was_typed(
    line: str, limits: dict[str, str], flags: dict[str, str]
) -> None:
    parsed = read(*line.split())
    assert (parsed.limits, parsed.flags) == (limits, flags)


@pytest.mark.parametrize("cluster", ["-ti", "-it", "-t -i", "--tty --interactive", "-i --tty"])
def test_switches_may_be_put_together(cluster: str) -> None:
    assert read(*cluster.split(), "sh").options == {"tty": True, "interactive": True}


def test_everything_after_the_command_belongs_to_it() -> None:
    assert read("-t", "ls", "-t", "--", "-mem", "1").command == ["ls", "-t", "--", "-mem", "1"]
    assert read("-t", "--", "-t", "--", "x").command == ["-t", "--", "x"]


def test_options_that_may_be_repeated_keep_their_order_and_the_others_their_last_value() -> None:
    parsed = read("-e", "A=1", "--env=B=2", "-eC", "--name", "one", "--name=two", "true")
    assert parsed.options == {"env": ["A=1", "B=2", "C"], "name": "two"}


def test_options_before_the_subcommand_count_unless_they_are_given_again() -> None:
    parsed = fast.read(["--debug", "--log-level=info", "run", "--log-level", "error", "ls"], REGISTRY)
    assert parsed is not None
    assert parsed.options == {"debug": True, "log_level": "error"}


@pytest.mark.parametrize(
    "line", ["", "--help", "run", "run -t", "run --help ls", "run -mem", "run --no ls", "subsystems", "--no run ls"]
)
def test_what_is_unusual_is_left_to_click(line: str) -> None:
    assert fast.read(line.split(), REGISTRY) is None


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["run"], "there is no command to run; write mydocker run [OPTIONS] COMMAND [ARG...]"),
        (["run", "--tty"], "there is no command to run; write mydocker run [OPTIONS] COMMAND [ARG...]"),
        (["run", "-mem"], "option '-mem' requires an argument; see mydocker run --help"),
        (["run", "--tty=1", "ls"], "option '--tty' does not take a value; see mydocker run --help"),
        (["run", "--memry", "1", "ls"], "there is no option --memry, did you mean --memory"),
        (["run", "-y", "ls"], "there is no option -y; see mydocker run --help"),
        (["rum", "ls"], "no such command 'rum'"),
        (["subsystems", "--format", "xml"], "invalid value for '--format'"),
    ],
)
def test_a_mistake_is_one_sentence(line: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        app.main(line, lambda: REGISTRY)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
