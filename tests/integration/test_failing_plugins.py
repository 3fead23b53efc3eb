"""A plugin that fails in an unusual way: no limit is dropped in silence, and the error says whose it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker.cgroups.layout import Layout

#: None of these is an Exception.
UNUSUAL = ("asyncio.CancelledError('x')", "KeyboardInterrupt('x')", "SystemExit(0)", "GeneratorExit('x')", "Own('x')")
OWN = "import asyncio\nclass Own(BaseException): pass\n"


def result_of(run: Any, file: Path, *arguments: str, **options: Any) -> Any:
    done = run("--result", file, *arguments, **options)
    return done, json.loads(file.read_text())


@pytest.mark.parametrize("raised", UNUSUAL)
@pytest.mark.parametrize(
    "hook",
    ["mydocker_validate(config)", "mydocker_amend(config)", "mydocker_prepare(cgroup)", "mydocker_apply(pid)"],
)
def test_what_is_no_exception_is_named_and_stops_the_run(
    plugin: Any, run: Any, tmp_path: Path, hook: str, raised: str
) -> None:
    plugin("bad", f"{OWN}@hookimpl\ndef {hook}: raise {raised}\n")
    done = run("--bad", "1", "touch", tmp_path / "ran")
    kind, _, text = raised.removesuffix(")").replace("'", "").removeprefix("asyncio.").partition("(")
    problem = f"plugin bad (bad-dist 1.0) failed in {hook.partition('(')[0]}: {kind}: {text}"
    assert (done.returncode, done.stderr) == (125, f"mydocker: {problem}\n")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("raised", UNUSUAL)
def test_from_python_it_is_an_error_of_mydocker(plugin: Any, raised: str) -> None:
    plugin("bad", f"{OWN}@hookimpl\ndef mydocker_prepare(cgroup): raise {raised}\n")
    with pytest.raises(mydocker.PluginError, match="failed in mydocker_prepare"):
        mydocker.run(["true"], bad=1)


def test_an_error_that_has_no_text(plugin: Any, run: Any) -> None:
    plugin(
        "bad",
        """
        class Odd(Exception):
            def __str__(self):
                raise ValueError("no str")

        @hookimpl
        def mydocker_prepare(cgroup):
            raise Odd
        """,
    )
    assert run("--bad", "1", "true").stderr == "mydocker: plugin bad (bad-dist 1.0) failed in mydocker_prepare: Odd\n"


def test_a_limit_that_nobody_declares_is_not_the_users_fault(plugin: Any, run: Any) -> None:
    plugin("bad", "@hookimpl\ndef mydocker_validate(config): raise LimitError('nosuch', 'no good')\n")
    stderr = run("--bad", "1", "true").stderr
    problem = "it refuses nosuch, which is the name of no limit: no good"
    assert stderr == f"mydocker: plugin bad (bad-dist 1.0) failed in mydocker_validate: {problem}\n"


class TestParser:
    @pytest.fixture
    def parser(self, site: Any) -> Callable[[str], None]:
        """A plugin whose parser has this body."""

        def add(body: str) -> None:
            head = "import time\nfrom mydocker import ResourceField, hookimpl\n"
            fields = '[ResourceField(name="odd", flags=("--odd",), parse=parse, metavar="N", help="A limit.")]'
            hook = f"@hookimpl\ndef mydocker_fields(): return {fields}\n"
            site.add("odd", f"{head}def parse(text):\n    {body}\n{hook}")

        return add

    @pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
    def test_what_is_no_exception_is_named(self, parser: Any, run: Any, kind: str) -> None:
        parser(f"raise {kind}")
        problem = f"plugin odd (odd-dist 1.0) failed in the parser of odd: {kind}"
        done = run("--odd", "1", "true")
        assert (done.returncode, done.stderr) == (125, f"mydocker: {problem}\n")
        with pytest.raises(mydocker.PluginError, match="failed in the parser of odd"):
            mydocker.run(["true"], odd=1)

    def test_one_that_hangs_is_named(self, parser: Any, run: Any, monkeypatch: Any, tmp_path: Path) -> None:
        parser("time.sleep(30)")
        monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "0.5")
        done = run("--odd", "1", "touch", tmp_path / "ran")
        problem = "plugin odd (odd-dist 1.0) was called in the parser of odd and did not return in 0.5 seconds"
        assert (done.returncode, done.stderr) == (125, f"mydocker: {problem}\n")
        assert not (tmp_path / "ran").exists()

    def test_ctrl_c_ends_the_wait_for_it(self, parser: Any, start: Any, eventually: Any, tmp_path: Path) -> None:
        """The interrupt is the user's, and not a fault of the plugin."""
        parser(f"open({str(tmp_path / 'asked')!r}, 'w').close(); time.sleep(3); return 1")
        process = start("--odd", "1", "touch", tmp_path / "ran")
        eventually((tmp_path / "asked").exists)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (130, "")
        assert not (tmp_path / "ran").exists()


class TestAmendment:
    @pytest.mark.parametrize(
        ("amendment", "words"),
        [
            ("env=(b'noequals',)", "failed in mydocker_amend: ValueError: Amendment: env has b'noequals'"),
            ("env=(b'=x',)", "env has b'=x', which is no variable"),
            ("env=('A=b',)", "failed in mydocker_amend: TypeError: Amendment: env has 'A=b', which is no bytes"),
            ("env=b'A=b'", "env=b'A=b' is no tuple"),
            ("mounts=('x',)", "failed in mydocker_amend: TypeError: Amendment: mounts has 'x'"),
            ("mounts=(Tmpfs(destination=b'/mnt'),)", "whose paths are no texts"),
            ("mounts=(Tmpfs(destination='mnt'),)", 'adds a mount to the container: "mnt" is not a place'),
            ("mounts=(Tmpfs(destination='//'),)", 'adds a mount to the container: "//" is the whole root'),
            ("mounts=(Tmpfs(destination='/no/such'),)", "adds a mount to the container: /no/such does not exist"),
            ("mounts=(Volume(source='/nosuchdir', destination='/mnt'),)", "container: /nosuchdir does not exist on"),
            ("network=1", "network=1 is no function"),
            ("upper='x'", "upper='x' is no descriptor"),
            ("upper=999", "has the upper layer by descriptor 999, which is not open"),
        ],
    )
    @pytest.mark.parametrize("options", [(), ("--overlay",)])
    def test_one_that_cannot_be_names_its_plugin(
        self, plugin: Any, run: Any, state_dir: Path, amendment: str, words: str, options: tuple[str, ...]
    ) -> None:
        if "/no/such" in amendment and options:
            pytest.skip("the overlay has the place made")
        plugin("odd", f"@hookimpl\ndef mydocker_amend():\n    return Amendment({amendment})\n")
        done = run(*options, "--odd", "1", "true")
        assert (done.returncode, done.stderr.count("\n")) == (125, 1)
        assert done.stderr.startswith("mydocker: plugin odd (odd-dist 1.0) ")
        assert words in done.stderr
        assert not state_dir.exists()

    def test_an_upper_layer_that_is_given_back_closed(self, plugin: Any, run: Any, state_dir: Path) -> None:
        plugin(
            "odd",
            """
            @hookimpl
            def mydocker_amend():
                global upper
                upper = os.open("/", os.O_RDONLY)
                return Amendment(upper=upper)

            @hookimpl
            def mydocker_prepare(cgroup):
                cgroup.controller("pids")
                os.close(upper)
                raise ValueError("no")
            """,
        )
        done = run("--overlay", "--odd", "1", "true")
        closed = "the descriptor of the overlay's upper layer cannot be closed: Bad file descriptor"
        problem = "plugin odd (odd-dist 1.0) failed in mydocker_prepare: ValueError: no"
        assert done.stderr == f"mydocker: warning: {closed}\nmydocker: {problem}\n"
        run("true")  # what the core could not undo is for the next run
        assert not state_dir.exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("42", "answered mydocker_usage with 42, which is no dict of figures"),
        ("{'x': float('nan')}", "answered mydocker_usage with 'x': nan, which JSON cannot hold"),
        ("{'x': object}", "answered mydocker_usage with 'x': <class 'object'>, which JSON cannot hold"),
        ("{'x': [{'y': {1: 2}}]}", "which JSON cannot hold"),
        ("{1: 2}", "which JSON cannot hold"),
    ],
)
def test_figures_that_are_none(plugin: Any, run: Any, tmp_path: Path, answer: str, words: str) -> None:
    plugin("odd", f"@hookimpl\ndef mydocker_usage(): return {answer}\n")
    done, result = result_of(run, tmp_path / "result", "--odd", "1", "true")
    assert (done.returncode, [*result["usage"]["odd"]]) == (0, ["error"])
    for text in (result["usage"]["odd"]["error"], done.stderr):
        assert "plugin odd (odd-dist 1.0)" in text
        assert words in text


def test_a_first_process_that_is_killed_in_a_hook_has_not_run_the_command(plugin: Any, run: Any) -> None:
    plugin("odd", "@hookimpl\ndef mydocker_apply(pid):\n    os.kill(pid, 9)\n    time.sleep(0.3)\n")
    done = run("--odd", "1", "true")
    assert done.returncode == 125
    assert done.stderr == (
        "mydocker: the container's first process was killed before it took its command: nothing of it ran\n"
    )


class TestRemove:
    def test_a_run_keeps_its_result(self, plugin: Any, run: Any, tmp_path: Path, state_dir: Path) -> None:
        hooks = "@hookimpl\ndef mydocker_watch(): return []\n"
        plugin("odd", f"{hooks}@hookimpl\ndef mydocker_remove(cgroup): raise OSError('still there')\n")
        done, result = result_of(run, tmp_path / "result", "--odd", "1", "sh", "-c", "exit 5")
        problem = "plugin odd (odd-dist 1.0) failed in mydocker_remove: OSError: still there"
        assert (done.returncode, done.stderr) == (5, f"mydocker: warning: {problem}\n")
        assert (result["exit_code"], result["reason"], result["notes"]) == (5, "exited", [problem])
        assert result["id"]
        again = run("true")  # tries once more, says so, and no more after that
        assert again.returncode == 0
        said = f"what a limit of container {result['id']} made is not undone: {problem}"
        assert again.stderr == f"mydocker: warning: {said}\n"
        assert run("true").stderr == ""

    def test_of_two_failures_the_first_is_the_error(self, plugin: Any, run: Any) -> None:
        hooks = "@hookimpl\ndef mydocker_prepare(cgroup): raise LimitError('odd', 'no')\n"
        plugin("odd", f"{hooks}@hookimpl\ndef mydocker_remove(cgroup): raise OSError('still there')\n")
        done = run("--odd", "1", "true")
        assert done.returncode == 125
        assert done.stderr.splitlines()[1:] == ["mydocker: --odd: no"]
        assert "warning: plugin odd (odd-dist 1.0) failed in mydocker_remove" in done.stderr
        run("true")

    @pytest.fixture
    def killed(
        self, plugin: Any, start: Any, eventually: Any, tmp_path: Path, state_dir: Path, name: str
    ) -> Callable[[str], str]:
        """Kill the runtime of a container of a plugin that has made a file, and whose remove has this body."""

        def kill(body: str) -> str:
            made = tmp_path / "made"
            plugin(
                "odd",
                f"""
                @hookimpl
                def mydocker_prepare(cgroup):
                    cgroup.controller("pids").max = 50
                    open({str(made)!r}, "w").close()

                @hookimpl
                def mydocker_remove(cgroup):
                    {body}
                """,
            )
            process = start("--name", name, "--odd", "1", "-m", "100m", "sh", "-c", "echo here; sleep 1000")
            assert process.stdout.readline() == "here\n"
            process.kill()
            process.wait()
            assert made.exists()
            return name

        return kill

    def test_it_is_called_for_a_container_whose_runtime_was_killed(
        self, killed: Any, run: Any, tmp_path: Path, state_dir: Path, name: str
    ) -> None:
        in_order = f"cgroup.path == 'mydocker/{name}' and cgroup.has('pids') and not cgroup.pids()"
        killed(f"assert {in_order}; os.unlink({str(tmp_path / 'made')!r})")
        done = run("true")
        assert (done.returncode, done.stderr) == (0, "")
        assert not (tmp_path / "made").exists()
        assert not (state_dir / name).exists()

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ("raise OSError('busy')", "failed in mydocker_remove: OSError: busy"),
            ("time.sleep(30)", "was called in mydocker_remove and did not return in 2 seconds"),
        ],
    )
    def test_one_that_cannot_is_named_and_keeps_nobody_from_running(
        self, killed: Any, run: Any, monkeypatch: Any, state_dir: Path, body: str, problem: str
    ) -> None:
        name = killed(body)
        monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "2")
        done = run("true")
        said = f"what a limit of container {name} made is not undone: plugin odd (odd-dist 1.0) {problem}"
        assert (done.returncode, done.stderr) == (0, f"mydocker: warning: {said}\n")
        assert not (state_dir / name).exists()

    def test_a_plugin_that_is_gone_is_said_to_be(self, killed: Any, run: Any, monkeypatch: Any) -> None:
        name = killed("pass")
        monkeypatch.setenv("MYDOCKER_DISABLE_PLUGINS", "odd")
        done = run("true")
        said = f"container {name} had the limit odd, of a plugin that is not here to undo it"
        assert (done.returncode, done.stderr) == (0, f"mydocker: warning: {said}\n")


class TestProbe:
    @pytest.fixture
    def listed(self) -> Callable[[], Any]:
        def ask() -> Any:
            done = subprocess.run(
                [sys.executable, "-m", "mydocker", "subsystems", "--format", "json"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return {entry["name"]: entry for entry in json.loads(done.stdout)}

        return ask

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ("time.sleep(30)", "failed in mydocker_probe: there was no answer within 3 s"),
            ("os._exit(0)", "failed in mydocker_probe: the process that tried it ended with status 0"),
            ("raise SystemExit", "failed in mydocker_probe: SystemExit"),
            ("return 42", "answered mydocker_probe with 42, which is no mydocker.Probe"),
        ],
    )
    def test_one_that_fails_keeps_no_other_from_being_listed(
        self, plugin: Any, listed: Any, monkeypatch: Any, body: str, problem: str
    ) -> None:
        plugin("odd", f"@hookimpl\ndef mydocker_probe(): {body}\n")
        monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "3")
        found = listed()
        assert (found["odd"]["works"], found["odd"]["problem"]) == (False, f"plugin odd (odd-dist 1.0) {problem}")
        assert found["memory"]["controllers"] == ["memory"]


def test_a_hook_without_its_mark_is_refused_before_anything_runs(plugin: Any, run: Any, tmp_path: Path) -> None:
    plugin("odd", "def mydocker_prepare(cgroup): cgroup.controller('pids').max = 5\n")
    done = run("--odd", "1", "touch", tmp_path / "ran")
    assert done.returncode == 125
    assert "plugin odd (odd-dist 1.0) has mydocker_prepare without the mark @hookimpl" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_fields_that_hang_have_a_way_out(site: Any, run: Any, monkeypatch: Any) -> None:
    site.add("odd", "import time\nfrom mydocker import hookimpl\n@hookimpl\ndef mydocker_fields(): time.sleep(30)\n")
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "3")
    done = run("true")
    way_out = "uninstall it, or set MYDOCKER_DISABLE_PLUGINS=odd to run without it"
    problem = "plugin odd (odd-dist 1.0) was called in mydocker_fields and did not return in 3 seconds"
    assert (done.returncode, done.stderr) == (125, f"mydocker: {problem}; {way_out}\n")


def test_an_explanation_that_is_none(plugin: Any) -> None:
    plugin("odd", "@hookimpl\ndef mydocker_explain(config): return 42\n")
    command = [sys.executable, "-m", "mydocker", "subsystems", "--explain", "--", "run", "--odd", "1", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
    assert done.returncode == 125
    assert "plugin odd (odd-dist 1.0) answered mydocker_explain with 42, which is no list of lines" in done.stderr


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("set_property('../../cpu.shares', 2)", 'ValueError: "../../cpu.shares" is not the name of a file of a cgroup'),
        ("get_property('../pids.max')", 'ValueError: "../pids.max" is not the name of a file of a cgroup'),
        ("nosuch", "Pids of cgroup v1 has no file by the name of nosuch: get_property() takes any file"),
    ],
)
def test_a_file_that_is_none_of_the_containers(
    plugin: Any, run: Any, layout: Layout, body: str, problem: str
) -> None:
    plugin("odd", f"@hookimpl\ndef mydocker_prepare(cgroup): cgroup.controller('pids').{body}\n")
    done = run("--odd", "1", "true")
    assert done.returncode == 125
    assert problem.replace("v1", f"v{layout.version('pids')}") in done.stderr


class TestWhatKilledIt:
    """137 alone does not say."""

    def test_a_timeout(self, run: Any) -> None:
        done = run("--timeout", "0.3s", "sleep", "30")
        assert done.returncode == 137
        assert done.stderr == "mydocker: warning: the container was killed at its --timeout of 0.3s\n"

    def test_memory(self, run: Any) -> None:
        command = (sys.executable, "-c", "x = bytearray(200 << 20)")
        done = run("-m", "40m", *command)
        assert done.returncode == 137
        reason = "the command was killed because the container ran out of memory, of which it may have 40m"
        assert done.stderr == f"mydocker: warning: {reason}\n"

    def test_its_own_end_is_not_explained(self, run: Any) -> None:
        done = run("--init", "--timeout", "30s", "-m", "40m", "sh", "-c", "kill -9 $$")
        assert (done.returncode, done.stderr) == (137, "")
