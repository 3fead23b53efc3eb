"""What the options of ``mydocker run`` mean, and what is done with the result."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mydocker import cli, plugins, runner
from mydocker.cli import run
from mydocker.cli.options import Parsed
from mydocker.errors import CommandNotFound, SetupError, UsageError
from mydocker.plugins import Registry
from mydocker.resources import ResourceConfig
from mydocker.result import Result, Usage
from mydocker.spec import DEFAULT_CAPABILITIES, Spec, Tmpfs, Volume

if TYPE_CHECKING:
    from mydocker.runner import Means, Observer


def spec(**options: Any) -> Spec:
    return run.to_spec(Parsed(options=options, limits={}, flags={}, command=["ls", "\udcff"]))


def test_a_plain_command_is_a_plain_spec() -> None:
    assert spec() == Spec(args=(b"ls", b"\xff"))


def test_options_reach_the_spec() -> None:
    made = spec(
        tty=True,
        rootfs="/r",
        read_only=True,
        overlay=True,
        workdir="/w",
        user="1:2",
        hostname="h",
        network="host",
        init=True,
        timeout="1m30s",
        stop_timeout="500ms",
        name="n",
        pidfile="/p",
        cgroup_parent="/a/b/",
        privileged=True,
    )
    assert made == Spec(
        args=(b"ls", b"\xff"),
        terminal=True,
        rootfs="/r",
        readonly=True,
        overlay=True,
        cwd="/w",
        user="1:2",
        hostname="h",
        network="host",
        init=True,
        timeout=90.0,
        stop_timeout=0.5,
        name="n",
        pidfile="/p",
        cgroup_parent="a/b",
        privileged=True,
    )


def test_relative_paths_of_the_host_are_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = spec(rootfs="r", pidfile="../p", volume=["./v:/v", "w:/w"])
    assert made.rootfs == f"{tmp_path}/r"
    assert made.pidfile == f"{tmp_path.parent}/p"
    assert [mount.source for mount in made.mounts if isinstance(mount, Volume)] == [f"{tmp_path}/v", f"{tmp_path}/w"]


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/a:/b", Volume(source="/a", destination="/b")),
        ("/a:/b:ro", Volume(source="/a", destination="/b", readonly=True)),
        ("/a/../c:/b/:rw", Volume(source="/c", destination="/b")),
        ("/a:/b/./c//../d", Volume(source="/a", destination="/b/d")),
        ("/a://b", Volume(source="/a", destination="/b")),
    ],
)
def test_volumes(text: str, volume: Volume) -> None:
    assert run.parse_volume(text) == volume


@pytest.mark.parametrize(
    ("text", "tmpfs"),
    [
        ("/t", Tmpfs(destination="/t")),
        ("/t:size=64m,mode=755", Tmpfs(destination="/t", size=64 << 20, mode=0o755)),
        ("/t/:ro,exec", Tmpfs(destination="/t", readonly=True, exec=True)),
        ("/t:rw,noexec,nosuid,nodev", Tmpfs(destination="/t")),
    ],
)
def test_tmpfs(text: str, tmpfs: Tmpfs) -> None:
    assert run.parse_tmpfs(text) == tmpfs


def test_mounts_come_in_an_order_in_which_none_hides_another() -> None:
    made = run.mounts(["/x:/a/b/c", "/x:/a"], ["/a/b", "/z"])
    assert [mount.destination for mount in made] == ["/a", "/z", "/a/b", "/a/b/c"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"volume": ["/a"]}, '--volume: "/a" is not a volume: write SRC:DST'),
        ({"volume": [":/a"]}, '--volume: ":/a" is not a volume'),
        ({"volume": ["/a:"]}, '--volume: "/a:" is not a volume'),
        ({"volume": ["/a:/b:rx"]}, '--volume: "rx" in "/a:/b:rx" is not a mode: use ro or rw'),
        ({"volume": ["/a:/b:"]}, '--volume: "" in "/a:/b:" is not a mode'),
        ({"volume": ["/a:b"]}, '--volume: "b" is not a place in the container'),
        ({"volume": ["/a:/b/.."]}, '--volume: "/b/.." is not a place in the container'),
        ({"volume": ["/a:/b"], "tmpfs": ["/b/"]}, "--volume, --tmpfs: /b is given twice"),
        ({"tmpfs": ["t"]}, '--tmpfs: "t" is not a place in the container'),
        ({"tmpfs": ["/t:size=x"]}, '--tmpfs: "x" is not a size'),
        ({"tmpfs": ["/t:size=0"]}, "--tmpfs: size=0 is no limit"),
        ({"tmpfs": ["/t:mode=9"]}, '--tmpfs: "9" is not a mode'),
        ({"tmpfs": ["/t:mode=17777"]}, '--tmpfs: "17777" is not a mode'),
        ({"tmpfs": ["/t:suid"]}, '--tmpfs: "suid" is not an option: use size=SIZE'),
        ({"workdir": "tmp"}, '--workdir: "tmp" is not a path in the container'),
        ({"hostname": "h" * 65}, "--hostname: a host name has at most 64 bytes"),
        ({"hostname": "é" * 33}, "--hostname: a host name has at most 64 bytes"),
        ({"network": "bridge"}, '--network: "bridge" is not a network that mydocker can give: use none or host'),
        ({"timeout": "soon"}, '--timeout: "soon" is not a duration'),
        ({"name": "a/b"}, '--name: "a/b" is not a name for a container'),
        ({"timeout": "0"}, '--timeout: "0" is not a duration'),
        ({"stop_timeout": "-1"}, '--stop-timeout: "-1" is not a duration'),
        ({"cgroup_parent": "a/../../b"}, '--cgroup-parent: "a/../../b" is not a cgroup'),
        ({"cgroup_parent": "/"}, '--cgroup-parent: "/" is not a cgroup'),
        ({"cap_add": ["NET_ADMIN", "FLY"]}, '--cap-add: "FLY" is not a capability'),
        ({"env": ["=a"]}, '--env: "=a" has no name before "="'),
        ({"env": [""]}, '--env: "" has no name'),
        ({"env_file": ["/does/not/exist"]}, "--env-file: cannot read /does/not/exist: No such file or directory"),
        ({"rootfs": ""}, "--rootfs: its value is empty"),
        ({"user": ""}, "--user: its value is empty"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_flag(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec(**options)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["0", "0s"])
def test_a_stop_timeout_of_zero_kills_at_once(text: str) -> None:
    assert spec(stop_timeout=text).stop_timeout == 0


def test_capabilities_are_added_and_dropped() -> None:
    made = spec(cap_add=["net_admin"], cap_drop=["CAP_CHOWN"]).capabilities
    assert set(made) == {*DEFAULT_CAPABILITIES, "CAP_NET_ADMIN"} - {"CAP_CHOWN"}


def test_variables_are_taken_exactly_and_a_name_alone_takes_the_hosts_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"FROM_HOST", b"h=\xff")
    monkeypatch.delenv("NOT_ON_HOST", raising=False)
    assert spec(env=["A=1=2", "B=", "FROM_HOST", "NOT_ON_HOST", "C=\udcfe"]).extra_env == (
        b"A=1=2",
        b"B=",
        b"FROM_HOST=h=\xff",
        b"C=\xfe",
    )


def test_an_env_file_is_read_as_docker_does_and_env_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HOST", "host")
    file = tmp_path / "env"
    file.write_bytes(
        b'\xef\xbb\xbfA=first\n\n# a comment\n  # another\n  B="quoted" value # no comment \r\nC=\nFROM_HOST\nD=\xff'
    )
    assert spec(env_file=[str(file)], env=["A=last"]).extra_env == (
        b"A=first",
        b'B="quoted" value # no comment ',
        b"C=",
        b"FROM_HOST=host",
        b"D=\xff",
        b"A=last",
    )


@pytest.mark.parametrize(("line", "words"), [("a b=c", 'the name "a b" has a space'), ("=c", "has no name before")])
def test_a_wrong_line_of_an_env_file_is_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "env").write_text(line)
    with pytest.raises(UsageError, match=words):
        spec(env_file=[str(tmp_path / "env")])


class Runs:
    """Stands for the runner: notes what it was asked for, and answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[Spec, ResourceConfig, bool]] = []
        self.answer: Result | BaseException = Result(args=("true",), id="x", exit_code=0)
        self.observer: Observer | None = None

    def __call__(
        self,
        spec: Spec,
        config: ResourceConfig,
        registry: Registry,
        *,
        stdin: bool,
        observer: Observer | None,
        means: Means,
        figures: bool,
    ) -> Result:
        self.asked.append((spec, config, stdin))
        self.observer = observer
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    fields = (
        ("number", ("--number", "-n"), "mydocker.resources:parse_integer", "N", "One.", "", "value", "", "", False),
    )
    monkeypatch.setattr(plugins, "load", lambda: Registry((("p", "d", "1", "m", fields, {}),)))
    monkeypatch.setattr(runner, "run_foreground", made := Runs())
    return made


def test_a_profile_is_kept_by_an_observer_and_drawn_at_the_end(runs: Runs, tmp_path: Path) -> None:
    runs.answer = Result(args=("true",), id="x", exit_code=42)
    assert cli.command(["run", "--profile", str(tmp_path / "x.svg"), "true"]) == 42
    assert runs.asked[0][0].accounting
    assert runs.observer is not None
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")
    assert cli.command(["run", "true"]) == 42
    assert (runs.observer, runs.asked[1][0].accounting) == (None, False)


def test_the_runner_is_asked_and_its_exit_code_returned(runs: Runs) -> None:
    runs.answer = Result(args=("true",), id="x", exit_code=42)
    assert cli.command(["run", "-i", "-n", "7", "sh", "-c", "exit 42"]) == 42
    assert runs.asked == [(Spec(args=(b"sh", b"-c", b"exit 42")), ResourceConfig({"number": 7}), True)]
    assert runs.asked[0][1].flag("number") == "-n"
    assert cli.command(["run", "true"]) == 42
    assert runs.asked[1][2] is False


def test_a_terminal_is_refused_without_one(runs: Runs, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(os, "isatty", lambda _fd: False)
    assert cli.command(["run", "-t", "true"]) == 125
    assert capfd.readouterr().err == "mydocker: the input device is not a TTY\n"
    assert runs.asked == []
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 0)
    assert cli.command(["run", "-t", "true"]) == 0


def test_the_result_is_written_as_json_and_replaces_the_file(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    runs.answer = Result(args=("true",), id="x", exit_code=3, usage=Usage(oom_kills=1), limits={"number": 7})
    assert cli.command(["run", "--result", str(file), "true"]) == 3
    written = json.loads(file.read_text())
    assert (written["exit_code"], written["oom_kills"], written["limits"]) == (3, 1, {"number": 7})
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_result_goes_through_a_link_and_into_a_pipe(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert cli.command(["run", "--result", str(tmp_path / "link"), "true"]) == 0
    assert json.loads((tmp_path / "target").read_text())["exit_code"] == 0
    assert (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert cli.command(["run", "--result", str(tmp_path / "pipe"), "true"]) == 0
        assert json.loads(os.read(reader, 65536))["exit_code"] == 0
    finally:
        os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_the_result_can_go_to_a_descriptor_and_leaves_what_is_behind_it(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("w") as log:
        log.write("before\n")
        log.flush()
        assert cli.command(["run", "--result", f"/dev/fd/{log.fileno()}", "true"]) == 0
        assert cli.command(["run", "--result", f"/proc/self/fd/{log.fileno()}", "true"]) == 0
    first, *written = file.read_text().splitlines()
    assert first == "before"
    assert [json.loads(line)["exit_code"] for line in written] == [0, 0]
    assert cli.command(["run", "--result", "/dev/fd/99", "true"]) == 125


@pytest.mark.parametrize(
    ("arguments", "answer", "code", "text"),
    [
        ([], SetupError("no namespaces"), 125, "no namespaces"),
        ([], CommandNotFound("nothing: command not found"), 127, "nothing: command not found"),
        ([], ZeroDivisionError("odd"), 125, "ZeroDivisionError: odd"),
        (["-n", "x"], None, 125, '-n: "x" is not a whole number'),
        (["-v", "x"], None, 125, '--volume: "x" is not a volume'),
    ],
)
def test_a_failure_of_mydocker_is_a_result_too(
    runs: Runs, tmp_path: Path, arguments: list[str], answer: Exception | None, code: int, text: str
) -> None:
    runs.answer = answer or runs.answer
    file = tmp_path / "result.json"
    assert cli.command(["run", "--name", "box", "--result", str(file), *arguments, "nothing", "here"]) == code
    written = json.loads(file.read_text())
    assert (written["id"], written["args"], written["exit_code"]) == ("box", ["nothing", "here"], code)
    assert written["reason"] == "runtime-error"
    assert written["error"].startswith(text)


def test_an_unwritable_result_is_an_error_before_anything_runs(runs: Runs, tmp_path: Path, capfd: Any) -> None:
    for place, reason in (
        (tmp_path, "it is a directory"),
        (tmp_path / "no" / "file", "there is no directory"),
    ):
        assert cli.command(["run", "--result", str(place), "true"]) == 125
        assert reason in capfd.readouterr().err
    assert runs.asked == []
