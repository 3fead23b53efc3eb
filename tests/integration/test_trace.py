"""``mydocker run --trace`` and ``trace=True``: which stages a run had and how long each took."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import mydocker

Run = Callable[..., subprocess.CompletedProcess[str]]

STAGES = "cgroups,validate,filter,claim,amend,clone,prepare,set up,apply,hand over,wait,usage,remove".split(",")
OF_CHILD = ["set up the process", "mount /proc", "drop privileges", "execute the command"]
ROW = re.compile(r" *(\d+\.\d\d) +(\d+\.\d\d)  (  child: )?(.+)")


def rows(text: str) -> list[tuple[float, float, str, str]]:
    """(begin, time, process, stage) of each line but the head and the sum."""
    lines = text.splitlines()
    assert lines[0].split() == ["at", "ms", "took", "stage"]
    assert lines[-1].endswith("in all")
    found = [ROW.fullmatch(line) for line in lines[1:-1]]
    assert all(found), text
    return [(float(m[1]), float(m[2]), "child" if m[3] else "runtime", m[4]) for m in found if m]


def in_this_order(wanted: Iterable[str], found: Iterable[str]) -> bool:
    rest = iter(found)
    return all(stage in rest for stage in wanted)


def test_the_table_follows_the_journey(run: Run) -> None:
    done = run("--trace", "-m", "100m", "sh", "-c", "sleep 0.3; echo done; exit 3")
    assert (done.returncode, done.stdout) == (3, "done\n")
    found = rows(done.stderr)
    of_runtime = [stage for _, _, process, stage in found if process == "runtime"]
    assert of_runtime == ["interpreter", "parse", "plugins", "parse", *STAGES]
    assert in_this_order(OF_CHILD, (stage for _, _, process, stage in found if process == "child"))
    assert [begin for begin, *_ in found] == sorted(begin for begin, *_ in found)
    (waited,) = [took for _, took, _, stage in found if stage == "wait"]
    assert waited > 250, "the time in which the command slept"


def test_as_json(run: Run) -> None:
    done = run("--log-format", "json", "--trace", "true")
    (line,) = done.stderr.splitlines()
    trace = json.loads(line)
    assert (trace["level"], trace["msg"]) == ("info", "trace")
    assert set(trace["stages"][0]) == {"stage", "process", "start_ms", "ms"}
    assert in_this_order(STAGES, (row["stage"] for row in trace["stages"] if row["process"] == "runtime"))
    assert in_this_order(OF_CHILD, (row["stage"] for row in trace["stages"] if row["process"] == "child"))


def test_the_way_through_click_is_traced_too() -> None:
    whole = subprocess.run(
        [sys.executable, "-c", "import sys; from mydocker.cli import app; app.main(['run', '--trace', 'true'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert in_this_order(STAGES, (stage for *_, stage in rows(whole.stderr)))


def test_a_word_of_the_command_is_no_option(run: Run) -> None:
    done = run("echo", "--trace")
    assert (done.stdout, done.stderr) == ("--trace\n", "")


def test_the_command_gets_nothing_of_it(run: Run) -> None:
    """No descriptor; and a reaper has none more than its own."""
    for options in ((), ("--init",)):
        traced, plain = (
            run(*trace, *options, "sh", "-c", "ls /proc/self/fd /proc/1/fd") for trace in (("--trace",), ())
        )
        assert len(plain.stdout.split()) > 8
        assert len(traced.stdout.split()) == len(plain.stdout.split()), traced.stdout


def test_from_python() -> None:
    result = mydocker.run(["sleep", "0.3"], trace=True)
    assert [stage.name for stage in result.trace if stage.process == "runtime"] == STAGES
    assert in_this_order(OF_CHILD, (stage.name for stage in result.trace if stage.process == "child"))
    (waited,) = [stage for stage in result.trace if stage.name == "wait"]
    assert waited.seconds > 0.25
    assert mydocker.run(["true"]).trace == ()


def test_a_container_that_stood_by_is_traced_from_the_command_on() -> None:
    with mydocker.Spawner(prepare=1) as spawner:
        trace = spawner.run(["true"], trace=True).trace
    assert [(stage.process, stage.name) for stage in trace] == [
        ("runtime", stage) for stage in ("hand over", "wait", "usage", "remove")
    ]


def test_many_mounts_do_not_stop_the_child(tmp_path: Path) -> None:
    """More words of the child than a pipe holds: the trace has a gap, the run goes on."""
    places = [str(tmp_path / f"{number}{'x' * 200}") for number in range(400)]
    for place in places:
        Path(place).mkdir()
    result = mydocker.run(["true"], mounts=[mydocker.Tmpfs(destination=place) for place in places], trace=True)
    assert result.exit_code == 0
    assert "clone" in {stage.name for stage in result.trace}


def test_nothing_is_imported_for_a_run_that_is_not_traced() -> None:
    program = (
        "import sys, mydocker\nfrom mydocker.cli import command\nassert command(['run', 'true']) == 0\n"
        "mydocker.run(['true'])\nprint([name for name in sys.modules if name == 'mydocker.tracing'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
