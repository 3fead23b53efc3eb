"""What a plugin may do to a run, and what follows when it fails: hangs, raises, claims what another has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker.cgroups.layout import Layout


@pytest.mark.parametrize(
    ("hook", "parameters"),
    [
        ("mydocker_validate", "config"),
        ("mydocker_amend", "config"),
        ("mydocker_prepare", "cgroup"),
        ("mydocker_apply", "pid"),
        ("mydocker_watch", "pid"),
    ],
)
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise KeyError('x')", "plugin bad (bad-dist 1.0) failed in {}: KeyError: 'x'"),
        ("time.sleep(30)", "plugin bad (bad-dist 1.0) was called in {} and did not return in 0.5 seconds"),
        ("while True: pass", "plugin bad (bad-dist 1.0) was called in {} and did not return in 0.5 seconds"),
    ],
)
def test_a_hook_that_fails_or_hangs_stops_the_run(
    plugin: Any, run: Any, tmp_path: Path, monkeypatch: Any, hook: str, parameters: str, body: str, sentence: str
) -> None:
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "0.5")
    plugin("bad", f"@hookimpl\ndef {hook}({parameters}):\n    {body}\n")
    plugin("good", "@hookimpl\ndef mydocker_prepare(cgroup):\n    cgroup.controller('pids').max = 50\n")
    done = run("--bad", "1", "--good", "1", "touch", tmp_path / "ran")
    assert (done.returncode, done.stderr) == (125, f"mydocker: {sentence.format(hook)}\n")
    assert not (tmp_path / "ran").exists()


def test_a_plugin_that_hangs_while_it_is_imported_is_named(site: Any, run: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "0.5")
    site.add("bad", "import time\ntime.sleep(30)\n")
    done = run("true")
    assert done.returncode == 125
    way_out = "uninstall it, or set MYDOCKER_DISABLE_PLUGINS=bad to run without it"
    problem = "plugin bad (bad-dist 1.0) was imported and did not return in 0.5 seconds"
    assert done.stderr == f"mydocker: {problem}; {way_out}\n"


def test_a_hook_that_wakes_too_late_cannot_touch_the_cgroup(
    plugin: Any, eventually: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    """In a long-lived process the abandoned thread goes on."""
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "0.3")
    plugin(
        "late",
        f"""
        @hookimpl
        def mydocker_prepare(cgroup):
            time.sleep(1)
            try:
                cgroup.controller("pids").max = 5
            except CgroupError as error:
                with open({str(tmp_path / "refused")!r}, "w") as file:
                    file.write(str(error))
        """,
    )
    with pytest.raises(mydocker.PluginError, match=r"did not return in 0\.3 seconds"):
        mydocker.run(["true"], late=1)
    refused = tmp_path / "refused"
    eventually(lambda: refused.exists() and refused.read_text())
    assert "took too long" in refused.read_text()


@pytest.mark.vm
def test_a_file_that_another_wrote_is_refused(plugin: Any, run: Any) -> None:
    for name in ("first", "second"):
        plugin(name, "@hookimpl\ndef mydocker_prepare(cgroup):\n    cgroup.controller('pids').max = 50\n")
    done = run("--first", "1", "--second", "1", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("mydocker: the plugins first and second both write /sys/fs/cgroup/")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        ("cgroup.controller('pids').set_property('cgroup.procs', 0)", "cgroup.procs is mydocker's own"),
        ("cgroup.layout.root('pids').set_property('pids.max', 50)", "pids.max is not of this container"),
        ("cgroup.controller('pids').parent().max = 50", "mydocker/pids.max is not of this container"),
    ],
)
@pytest.mark.parametrize("hook", ["prepare", "apply"])
def test_what_is_not_of_the_container_is_not_written(plugin: Any, run: Any, write: str, words: str, hook: str) -> None:
    plugin("greedy", f"@hookimpl\ndef mydocker_{hook}(cgroup):\n    {write}\n")
    done = run("--greedy", "1", "true")
    assert done.returncode == 125, done.stderr
    problem = f"mydocker: plugin greedy (greedy-dist 1.0) failed in mydocker_{hook}: PermissionError: "
    assert done.stderr.startswith(problem) and words in done.stderr


NOTE = """
import os
def note():
    os.close(os.open({file!r} + str(os.getpid()), os.O_CREAT))
"""


class TestForks:
    """A plugin that forks and lets its child return: two would set the limits, or watch and double at each look."""

    def test_the_child_of_a_hook_does_not_call_the_next_one(self, plugin: Any, run: Any, tmp_path: Path) -> None:
        plugin("first", "import os\n@hookimpl\ndef mydocker_prepare():\n    os.fork()\n")
        note = NOTE.format(file=str(tmp_path / "called-by-"))
        plugin("second", f"{note}@hookimpl\ndef mydocker_prepare():\n    note()\n")
        done = run("--first", "1", "--second", "1", "echo", "once")
        assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
        assert len(list(tmp_path.glob("called-by-*"))) == 1

    def test_the_child_of_a_check_does_not_watch(self, plugin: Any, run: Any, tmp_path: Path) -> None:
        plugin(
            "first",
            NOTE.format(file=str(tmp_path / "called-by-"))
            + """
forked = []

def check():
    note()
    if not forked:
        forked.append(os.fork())

@hookimpl
def mydocker_watch():
    return [Watch(check=check, interval=0.02)]
""",
        )
        done = run("--first", "1", "sh", "-c", "sleep 0.3; echo once")
        assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
        assert len(list(tmp_path.glob("called-by-*"))) == 1


def test_what_is_no_file_can_be_claimed_too(plugin: Any, run: Any) -> None:
    for name in ("first", "second"):
        plugin(name, "@hookimpl\ndef mydocker_apply(cgroup):\n    cgroup.claim('rlimit nofile')\n")
    done = run("--first", "1", "--second", "1", "true")
    assert done.returncode == 125
    assert "the plugins first and second both set the rlimit nofile" in done.stderr


@pytest.mark.parametrize("version", ["2", "'1'", "None", "True"])
def test_a_version_of_the_api_that_is_not_offered_is_refused(plugin: Any, run: Any, version: str) -> None:
    plugin("newer", f"MYDOCKER_API = {version}\n")
    done = run("true")
    assert done.returncode == 125
    assert f"plugin newer (newer-dist 1.0) is written for version {version} of the plugin API" in done.stderr


def test_an_unknown_hook_is_an_error(plugin: Any, run: Any) -> None:
    plugin("odd", "@hookimpl\ndef mydocker_prepared(cgroup): pass\n")
    done = run("true")
    assert done.returncode == 125
    assert "plugin odd (odd-dist 1.0) does not keep the contract of the hooks" in done.stderr
    assert "mydocker_prepared" in done.stderr


class TestAmend:
    def test_mounts_and_variables_are_there_for_the_command(self, plugin: Any, run: Any, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data/file").write_text("content\n")
        plugin(
            "scratch",
            f"""
            @hookimpl
            def mydocker_amend(config):
                return Amendment(
                    mounts=(
                        Tmpfs(destination="/mnt", size=config["scratch"] << 20),
                        Volume(source={str(tmp_path / "data")!r}, destination="/mnt/data", readonly=True),
                    ),
                    env=(b"SCRATCH=/mnt",),
                )
            """,
        )
        done = run("--overlay", "--scratch", "1", "sh", "-c", "cat $SCRATCH/data/file; stat -f -c '%b %S' /mnt")
        assert (done.returncode, done.stdout, done.stderr) == (0, "content\n256 4096\n", "")

    @pytest.mark.parametrize(
        ("amendment", "deed"),
        [
            ("mounts=(Tmpfs(destination='/mnt'),)", "mount on /mnt"),
            ("env=(b'A=1',)", "set the variable A"),
        ],
    )
    def test_two_that_add_the_same_conflict(self, plugin: Any, run: Any, amendment: str, deed: str) -> None:
        for name in ("first", "second"):
            plugin(name, f"@hookimpl\ndef mydocker_amend(config):\n    return Amendment({amendment})\n")
        done = run("--first", "1", "--second", "1", "true")
        assert done.returncode == 125
        sentence = f"plugin first (first-dist 1.0) and plugin second (second-dist 1.0) both {deed}"
        assert done.stderr == f"mydocker: {sentence}: leave one of them out\n"

    def test_what_the_user_asked_for_conflicts_too(self, plugin: Any, run: Any) -> None:
        plugin("first", "@hookimpl\ndef mydocker_amend():\n    return Amendment(mounts=(Tmpfs(destination='/mnt'),))\n")
        done = run("--first", "1", "--tmpfs", "/mnt", "true")
        assert done.returncode == 125
        assert "--volume or --tmpfs and plugin first (first-dist 1.0) both mount on /mnt" in done.stderr

    @pytest.mark.parametrize("spelling", ["/mnt/", "//mnt", "/mnt/../mnt", "/./mnt"])
    def test_another_spelling_of_a_place_conflicts_too(self, plugin: Any, run: Any, spelling: str) -> None:
        amendment = f"Amendment(mounts=(Tmpfs(destination={spelling!r}),))"
        plugin("first", f"@hookimpl\ndef mydocker_amend():\n    return {amendment}\n")
        done = run("--first", "1", "--tmpfs", "/mnt", "true")
        assert done.returncode == 125
        assert "--volume or --tmpfs and plugin first (first-dist 1.0) both mount on /mnt:" in done.stderr

    def test_work_in_the_network_namespace_of_the_container(self, plugin: Any, run: Any) -> None:
        plugin(
            "mtu",
            """
            import fcntl, socket, struct

            def shrink(pid):
                with socket.socket() as s:
                    fcntl.ioctl(s, 0x8922, struct.pack("16sI", b"lo", 1400) + bytes(20))  # SIOCSIFMTU

            @hookimpl
            def mydocker_amend():
                return Amendment(network=shrink)
            """,
        )
        done = run("--mtu", "1", "cat", "/sys/class/net/lo/mtu")
        assert (done.returncode, done.stdout) == (0, "1400\n"), done.stderr
        assert Path("/sys/class/net/lo/mtu").read_text() != "1400\n"
        refused = run("--mtu", "1", "--network", "host", "true")
        assert (refused.returncode, "--network host" in refused.stderr) == (125, True)

    def test_an_answer_that_is_no_amendment_is_refused(self, plugin: Any, run: Any) -> None:
        plugin("odd", "@hookimpl\ndef mydocker_amend():\n    return ['A=1']\n")
        done = run("--odd", "1", "true")
        assert (done.returncode, "which is no mydocker.Amendment" in done.stderr) == (125, True)


def result_of(run: Any, file: Path, *arguments: str) -> Any:
    done = run("--result", file, *arguments)
    return done, json.loads(file.read_text())


class TestWatch:
    @pytest.fixture
    def watched(self, plugin: Any, run: Any, tmp_path: Path) -> Callable[..., Any]:
        """Run a command for up to 30 s, watched by a plugin with this body of its check and these parameters."""

        def start(
            body: str, parameters: str = "interval=0.05", command: str = "sleep 30", timeout: str = "60s"
        ) -> Any:
            plugin(
                "dog",
                f"""
                calls = []

                def check():
                    calls.append(time.monotonic())
                    {body}

                @hookimpl
                def mydocker_watch(pid):
                    return [Watch(check=check, {parameters})]
                """,
            )
            return result_of(run, tmp_path / "result", "--timeout", timeout, "--dog", "1", "sh", "-c", command)

        return start

    def test_it_stops_the_container_for_its_reason(self, watched: Any) -> None:
        done, result = watched("return Verdict.stop('bored', 'it sleeps all day') if len(calls) > 2 else None")
        assert (done.returncode, result["reason"], result["signal"]) == (137, "bored", 9)
        said = "plugin dog (dog-dist 1.0) stopped the container (bored): it sleeps all day"
        assert done.stderr == f"mydocker: warning: {said}\n"
        assert result["notes"] == ["it sleeps all day"]

    def test_a_note_is_in_the_result_and_the_container_goes_on(self, watched: Any) -> None:
        body = "return Verdict.note(f'call {len(calls)}') if len(calls) < 3 else None"
        done, result = watched(body, command="sleep 0.5; exit 7")
        assert (done.returncode, result["reason"]) == (7, "exited")
        assert result["notes"] == ["call 1", "call 2"]

    def test_a_descriptor_wakes_it(self, plugin: Any, run: Any, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        plugin(
            "dog",
            f"""
            os.mkfifo({str(fifo)!r})
            fd = os.open({str(fifo)!r}, os.O_RDONLY | os.O_NONBLOCK)

            def check():
                try:
                    return Verdict.stop("called", "somebody rang") if os.read(fd, 10) else None
                except BlockingIOError:
                    return None

            @hookimpl
            def mydocker_watch():
                return [Watch(check=check, fd=fd)]

            @hookimpl
            def mydocker_remove():
                os.unlink({str(fifo)!r})
            """,
        )
        site_already_imported = fifo.exists()
        assert not site_already_imported
        done, result = result_of(run, tmp_path / "result", "--dog", "1", "sh", "-c", f"echo x > {fifo}; sleep 30")
        assert (done.returncode, result["reason"]) == (137, "called"), done.stderr

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ("raise OSError('no more')", "OSError: no more"),
            ("return 'stop'", "its check returned 'stop', which is no verdict"),
            ("import sys; sys.exit()", "SystemExit"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt"),
            ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
            ("return float('nan')", "its check returned nan, which is no number of seconds below 1e9"),
            ("return float('inf')", "its check returned inf"),
            ("return 1e300", "its check returned 1e+300"),
            ("return Verdict.stop('exited', 'x')", "ValueError: 'exited' is a reason of mydocker's own"),
            ("return Verdict(action='stop', reason='oom')", "'oom' is a reason of mydocker's own"),
            ("return Verdict.stop('two words', 'x')", "'two words' is no reason to stop"),
            ("return Verdict.stop('', 'x')", "'' is no reason to stop"),
            ("return Verdict(action='halt')", "'halt' is no action of a verdict"),
            ("return Verdict.note(5)", "5 is no text of a verdict"),
            ("time.sleep(30) if len(calls) > 1 else None", "its check did not return in 3 seconds"),
        ],
    )
    def test_it_fails_closed(self, watched: Any, monkeypatch: Any, body: str, words: str) -> None:
        if "sleep" in body:  # time enough for all else, also on a machine with much to do
            monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "3")
        done, result = watched(body)
        assert (done.returncode, result["reason"]) == (137, "plugin-error")
        assert result["notes"] == [done.stderr.removeprefix("mydocker: ").strip().removeprefix("warning: ")]
        assert "plugin dog (dog-dist 1.0) failed to watch the container, which was stopped: " in result["notes"][0]
        assert words in result["notes"][0]

    @pytest.mark.parametrize(
        ("parameters", "problem"),
        [
            ("interval=float('nan')", "ValueError: Watch: interval=nan is not above 0 and below 1e9 seconds"),
            ("interval=0", "interval=0 is not above 0"),
            ("interval=-1", "interval=-1 is not above 0"),
            ("interval=1e300", "interval=1e+300 is not above 0 and below 1e9 seconds"),
            ("interval='1'", "TypeError: Watch: interval='1' is no number of seconds"),
            ("fd='x'", "fd='x' is no descriptor"),
            ("fd=999", "watches the descriptor 999, which is not open"),
        ],
    )
    def test_one_that_cannot_be_is_refused_before_the_command_runs(
        self, watched: Any, tmp_path: Path, parameters: str, problem: str
    ) -> None:
        done, result = watched("", parameters=parameters, command=f"touch {tmp_path}/ran")
        assert (done.returncode, result["reason"]) == (125, "runtime-error")
        assert done.stderr.startswith("mydocker: plugin dog (dog-dist 1.0) ")
        assert problem in done.stderr
        assert not (tmp_path / "ran").exists()

    def test_a_check_that_cannot_be_called_is_refused(self, plugin: Any, run: Any) -> None:
        plugin("dog", "@hookimpl\ndef mydocker_watch(): return [Watch(check=None)]\n")
        done = run("--dog", "1", "true")
        assert (done.returncode, "TypeError: Watch: check=None is no function" in done.stderr) == (125, True)

    @pytest.mark.parametrize(
        ("parameters", "answer"), [("interval=1e-9", "None"), ("interval=None", "-5"), ("interval=None", "0")]
    )
    def test_it_does_not_keep_a_cpu_busy(self, watched: Any, parameters: str, answer: str) -> None:
        """Whatever it asks for, it is not called more often than 100 times in a second."""
        body = f"return Verdict.stop('done', str(len(calls))) if calls[-1] > calls[0] + 0.5 else {answer}"
        _, result = watched(body, parameters=parameters)
        assert 2 <= int(result["notes"][0]) <= 60

    def test_a_descriptor_that_is_closed_meanwhile(self, plugin: Any, run: Any, tmp_path: Path) -> None:
        plugin(
            "dog",
            """
            @hookimpl
            def mydocker_watch():
                reading, writing = os.pipe()

                def check():
                    os.close(reading)

                return [Watch(check=check, fd=reading)]
            """,
        )
        done, result = result_of(run, tmp_path / "result", "--dog", "1", "sleep", "30")
        assert (done.returncode, result["reason"]) == (137, "plugin-error")
        assert "plugin dog (dog-dist 1.0) failed to watch the container" in result["notes"][0]
        assert "which it watches, is closed" in result["notes"][0]

    @pytest.mark.parametrize(("command", "code"), [("true", 0), ("/nowhere", 127)])
    def test_it_is_closed_when_nobody_looks_any_more(
        self, plugin: Any, run: Any, tmp_path: Path, command: str, code: int
    ) -> None:
        notes = tmp_path / "notes"
        plugin(
            "dog",
            f"""
            @hookimpl
            def mydocker_watch():
                reading, writing = os.pipe()

                def close():
                    os.close(reading)
                    open({str(notes)!r}, "a").write("closed")
                    raise RuntimeError("what now")

                return [Watch(check=lambda: None, fd=reading, close=close)]
            """,
        )
        done = run("--dog", "1", command)
        assert (done.returncode, notes.read_text()) == (code, "closed")
        assert "plugin dog (dog-dist 1.0) failed to close its watch: RuntimeError: what now" in done.stderr

    def test_a_number_is_when_it_wants_to_look_again(self, watched: Any) -> None:
        body = "return Verdict.stop('asked', f'{len(calls)}') if calls[-1] - calls[0] >= 0.3 else 0.1"
        _, result = watched(body, parameters="interval=None")
        assert result["reason"] == "asked"
        assert 2 <= int(result["notes"][0]) <= 4  # no more often than it asked for

    @pytest.mark.vm
    def test_it_freezes_and_thaws(self, plugin: Any, run: Any, tmp_path: Path) -> None:
        """The counter stands still between the two verdicts."""
        counter = tmp_path / "counter"
        plugin(
            "dog",
            f"""
            steps, seen = [], []

            def count():
                try:
                    return os.path.getsize({str(counter)!r})
                except FileNotFoundError:
                    return 0

            def check():
                if not steps and count() > 3:
                    steps.append("frozen")
                    return Verdict.freeze("hold")
                if steps == ["frozen"]:
                    seen.append(count())
                    if len(seen) > 5 and len(set(seen[-5:])) == 1:
                        steps.append("thawed")
                        return Verdict.thaw("it stood still")
                elif len(steps) > 1 and count() > seen[-1] + 3:
                    return Verdict.stop("done", "it counts again")

            @hookimpl
            def mydocker_watch():
                return [Watch(check=check, interval=0.1)]
            """,
        )
        command = f"while :; do printf x >> {counter}; sleep 0.01; done"
        done, result = result_of(run, tmp_path / "result", "--dog", "1", "sh", "-c", command)
        assert (result["reason"], result["notes"]) == ("done", ["hold", "it stood still", "it counts again"]), done

    def test_a_frozen_container_meets_its_deadline(self, watched: Any) -> None:
        body = "return Verdict.freeze('hold') if len(calls) == 1 else None"
        done, result = watched(body, timeout="1s")
        assert (done.returncode, result["reason"], result["notes"]) == (137, "timeout", ["hold"])

    def test_from_python_in_a_thread(self, plugin: Any) -> None:
        plugin(
            "dog",
            """
            @hookimpl
            def mydocker_watch():
                return [Watch(check=lambda: Verdict.stop("no", "not today"))]
            """,
        )
        result = mydocker.run(["sleep", "30"], dog=1)
        assert (result.reason, result.notes, result.exit_code) == ("no", ("not today",), 137)


class TestBestEffort:
    UNSUPPORTED = """
    @hookimpl
    def {hook}(config):
        if "odd" in config:
            raise UnsupportedLimit("odd", "this kernel has no oddities")
    """

    @pytest.mark.vm
    @pytest.mark.parametrize("hook", ["mydocker_validate", "mydocker_prepare", "mydocker_apply"])
    def test_what_the_host_lacks_is_an_error_or_a_warning(
        self, plugin: Any, run: Any, tmp_path: Path, hook: str
    ) -> None:
        plugin("odd", self.UNSUPPORTED.format(hook=hook))
        refused = run("--odd", "1", "true")
        assert (refused.returncode, refused.stderr) == (125, "mydocker: --odd: this kernel has no oddities\n")
        arguments = ("--limits", "best-effort", "-m", "100m", "--odd", "1", "true")
        done, result = result_of(run, tmp_path / "result", *arguments)
        assert done.returncode == 0
        assert "--odd: this kernel has no oddities; the command runs without this limit" in done.stderr
        assert result["unenforced"] == {"odd": "this kernel has no oddities"}
        assert result["limits"] == {"memory": 100 << 20}

    def test_a_wrong_value_stays_an_error(self, run: Any) -> None:
        done = run("--limits", "best-effort", "-m", "1k", "true")
        assert done.returncode == 125
        assert done.stderr.startswith("mydocker: -m: 1024 bytes is less than the minimum")

    def test_from_python(self, plugin: Any) -> None:
        plugin("odd", self.UNSUPPORTED.format(hook="mydocker_validate"))
        with pytest.raises(mydocker.UnsupportedLimit, match="odd: this kernel has no oddities"):
            mydocker.run(["true"], odd=1)
        result = mydocker.run(["true"], odd=1, limits="best-effort")
        assert (result.exit_code, result.unenforced) == (0, {"odd": "this kernel has no oddities"})
        with pytest.raises(mydocker.UsageError, match="strict or best-effort"):
            mydocker.run(["true"], limits="loose")  # type: ignore[arg-type]


class TestConfigurationFile:
    @pytest.fixture
    def configure(self, tmp_path: Path, monkeypatch: Any) -> Callable[[str], Path]:
        def write(text: str) -> Path:
            file = tmp_path / "config.toml"
            file.write_text(text)
            monkeypatch.setenv("MYDOCKER_CONFIG", str(file))
            return file

        return write

    LIMIT = "import resource\n@hookimpl\ndef mydocker_usage(config): return {'files': config['files']}\n"

    def test_its_limits_hold_for_every_run_unless_given(
        self, configure: Any, plugin: Any, run: Any, tmp_path: Path
    ) -> None:
        plugin("files", self.LIMIT)
        configure("[limits]\nfiles = 7\nmemory = '64m'\n")
        _, result = result_of(run, tmp_path / "result", "true")
        assert result["limits"] == {"files": 7, "memory": 64 << 20}
        _, result = result_of(run, tmp_path / "result", "--files", "9", "true")
        assert result["limits"] == {"files": 9, "memory": 64 << 20}
        assert mydocker.run(["true"]).limits == {"files": 7, "memory": 64 << 20}
        assert mydocker.run(["true"], memory="unlimited").limits["files"] == 7

    def test_an_allow_list_of_plugins(self, configure: Any, site: Any, run: Any, tmp_path: Path) -> None:
        site.add("broken", f"open({str(tmp_path / 'imported')!r}, 'w')\nraise ValueError\n")
        configure("[plugins]\nallow = ['memory']\n")
        assert run("-m", "100m", "true").returncode == 0
        refused = run("--cpus", "1", "true")
        assert (refused.returncode, "no option --cpus" in refused.stderr) == (125, True)
        assert f"limits are turned off here by {tmp_path}/config.toml; see mydocker run --help" in refused.stderr
        assert not (tmp_path / "imported").exists()
        configure("[plugins]\ndisable = ['broken']\n")
        assert run("--cpus", "1", "true").returncode == 0
        configure("")
        assert "plugin broken" in run("true").stderr

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[limits", "is not TOML"),
            ("[limts]\n", "has limts, which is unknown: it may have limits and plugins"),
            ("[plugins]\nallowed = []\n", "has plugins.allowed, which is unknown"),
            ("[plugins]\nallow = 'memory'\n", "plugins.allow is a list of names"),
            ("[limits]\nmemory = {}\n", "limits.memory is no text, no number"),
            ("[limits]\nmemory = '1x'\n", 'config.toml: memory: "1x" is not a size'),
            ("[limits]\nmemry = 1\n", "config.toml: memry: there is no limit of that name, did you mean memory?"),
            ("[limits]\npids_limit = true\n", 'config.toml: pids_limit: "true" is not a whole number'),
        ],
    )
    def test_a_mistake_in_it_is_one_sentence(self, configure: Any, run: Any, text: str, words: str) -> None:
        configure(text)
        done = run("true")
        assert done.returncode == 125
        assert words in done.stderr
        assert done.stderr.count("\n") == 1

    def test_one_that_others_can_write_is_refused(self, configure: Any, run: Any) -> None:
        configure("").chmod(0o666)
        done = run("true")
        assert (done.returncode, "can be changed by others" in done.stderr) == (125, True)


def test_a_plugin_of_others_is_asked_for_figures_that_nobody_looks_at(plugin: Any, run: Any, tmp_path: Path) -> None:
    """mydocker's own are not: they do no more than to read them."""
    made = f"open({str(tmp_path / 'asked')!r}, 'w').close()"
    plugin("asked", f"@hookimpl\ndef mydocker_usage():\n    {made}\n    return {{}}\n")
    assert run("--asked", "1", "-m", "50m", "true").returncode == 0
    assert (tmp_path / "asked").exists()


class TestWhatLeavesNoTrace:
    """``traceless``: there is nothing to undo for such a field."""

    @pytest.fixture
    def undone(self, plugin: Any, tmp_path: Path) -> Callable[[], int]:
        """How often the plugin was asked to undo something, since the last time."""
        mark = tmp_path / "undone"
        plugin(
            "odd",
            f"""
            @hookimpl
            def mydocker_fields():
                return [
                    ResourceField(name=n, flags=("--" + n,), parse=parse_integer, metavar="N", help="One.", traceless=t)
                    for n, t in (("light", True), ("heavy", False))
                ]

            @hookimpl
            def mydocker_prepare(config, cgroup):
                if config.get("heavy") == 7:
                    raise UnsupportedLimit("heavy", "not here")

            @hookimpl
            def mydocker_update(config, previous, cgroup, pid):
                pass

            @hookimpl
            def mydocker_account(cgroup):
                pass

            @hookimpl
            def mydocker_remove():
                with open({str(mark)!r}, "a") as f:
                    f.write("x")
            """,
        )

        def count() -> int:
            found = len(mark.read_text()) if mark.exists() else 0
            mark.unlink(missing_ok=True)
            return found

        return count

    @pytest.mark.parametrize(
        ("limits", "times"),
        [
            (("--light=1",), 0),
            (("--heavy=1",), 1),
            (("--light=1", "--heavy=1"), 1),
            (("-m", "50m"), 0),
            (("--light=1", "-m", "50m", "--result", "/dev/null"), 1),
            (("--light=1", "--heavy=7", "--limits=best-effort"), 1),
        ],
    )
    def test_nobody_is_called_for_it(
        self, run: Any, undone: Callable[[], int], limits: tuple[str, ...], times: int
    ) -> None:
        """``--result`` asks for all figures, for which a plugin may have made something."""
        assert run(*limits, "true").returncode == 0
        assert undone() == times
        assert run(*limits, "no-such-command").returncode == 127
        assert undone() == times

    @pytest.mark.parametrize("first", [{"pids_limit": 50}, {"light": 1}])
    def test_an_update_may_set_more(
        self, start: Any, name: str, undone: Callable[[], int], first: dict[str, int]
    ) -> None:
        flags = [f"--{field.replace('_', '-')}={value}" for field, value in first.items()]
        process = start("--name", name, "-i", *flags, "cat", stdin=subprocess.PIPE)
        process.stdin.write("ready\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        mydocker.update(name, heavy=2)
        process.stdin.close()
        assert process.wait() == 0
        assert undone() == 1


@pytest.mark.vm
def test_figures_without_a_limit(run: Any, tmp_path: Path) -> None:
    done, result = result_of(run, tmp_path / "result", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    assert done.returncode == 0
    assert result["limits"] == {}
    if Layout.read().find("memory"):
        assert result["usage"]["memory"]["peak_bytes"] > 0
    usage = mydocker.run(["true"], accounting=True).usage
    assert usage.memory_peak is None or usage.memory_peak > 0
    assert mydocker.run(["true"]).usage.plugins == {}
