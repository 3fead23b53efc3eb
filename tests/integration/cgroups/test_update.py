"""Limits that are changed while the container runs: in force as a whole, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker import state
from mydocker.cgroups.controllers import Controller
from mydocker.cgroups.group import ContainerCgroup
from mydocker.cgroups.layout import Layout

pytestmark = pytest.mark.vm

Start = Callable[..., subprocess.Popen[str]]
Eventually = Callable[..., object]

MIB = 1 << 20


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``mydocker`` with these arguments."""
    line = [sys.executable, "-m", "mydocker", *arguments]
    return subprocess.run(line, capture_output=True, encoding="utf-8", check=False, timeout=120)


class Container:
    """A container whose command waits for a word: `go` lets it end, or do what it is there for."""

    def __init__(self, process: subprocess.Popen[str], result: Path) -> None:
        self.process = process
        self._result = result

    def go(self) -> dict[str, Any]:
        """Its Result, as ``--result`` has it."""
        self.process.communicate("\n", timeout=120)
        return dict(json.loads(self._result.read_text()))


@pytest.fixture
def job(
    start: Start, eventually: Eventually, state_dir: Path, tmp_path: Path, name: str
) -> Iterator[Callable[..., Container]]:
    """Starts the container with these limits. ``then``: the shell's words after the wait; ``before``: before it."""
    made: list[Container] = []

    def start_job(*limits: str, before: str = "", then: str = "true") -> Container:
        result = tmp_path / "result.json"
        waiting = f"{before or 'true'}; echo waiting; read word; {then}"
        process = start(
            "-i", "--name", name, "--result", str(result), *limits, "sh", "-c", waiting, stdin=subprocess.PIPE
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "waiting\n", process.communicate()
        made.append(Container(process, result))
        return made[-1]

    yield start_job
    for container in made:
        if container.process.poll() is None:
            container.process.communicate("\n", timeout=120)


def controller(name: str, layout: Layout, state_dir: Path) -> Controller:
    """The files of the one container that runs."""
    (record,) = state.running(str(state_dir))
    return ContainerCgroup.opened(layout, record.cgroup).controller(name)


def pids_max(layout: Layout, state_dir: Path) -> int | None:
    limit: int | None = controller("pids", layout, state_dir).max
    return limit


def memory_and_swap(layout: Layout, state_dir: Path) -> tuple[int, int | None]:
    """The limit of memory and that of both together, in bytes; -1 for none, None if swap is not accounted for."""
    memory = controller("memory", layout, state_dir)
    if memory.version == 1:
        both = [memory.limit_in_bytes, memory.memsw_limit_in_bytes if memory.has("memory.memsw.failcnt") else None]
        limit, total = (-1 if value is not None and value > 1 << 62 else value for value in both)
        return limit, total
    limit = -1 if memory.max is None else memory.max
    if not memory.has("memory.swap.max"):
        return limit, None
    return limit, -1 if memory.swap_max is None else limit + memory.swap_max


#: Pairs of --memory and --memory-swap as bytes; -1: no limit.
MEMORY_AND_SWAP = [
    (32 * MIB, 32 * MIB),
    (32 * MIB, 64 * MIB),
    (32 * MIB, -1),
    (64 * MIB, 64 * MIB),
    (64 * MIB, 128 * MIB),
    (128 * MIB, 128 * MIB),
    (128 * MIB, -1),
    (-1, -1),
]


def test_memory_and_swap_go_from_each_pair_to_each_other(
    job: Callable[..., Container], layout: Layout, state_dir: Path, name: str
) -> None:
    """On v1 the wrong order of the two writes is EINVAL, and which order is right depends on both pairs."""
    container = job("-m", "32m", "--memory-swap", "32m")
    last = len(MEMORY_AND_SWAP)
    # 0, 1, 0, 2, 0, … 1, 2, 1, 3, …: each step once in each direction
    path = [at for low in range(last) for high in range(low + 1, last) for at in (low, high)]
    for memory, swap in [MEMORY_AND_SWAP[at] for at in (*path, 0)]:
        limits = mydocker.update(name, memory=memory, memory_swap=swap)
        assert (limits["memory"], limits["memory_swap"]) == (memory, swap)
        assert memory_and_swap(layout, state_dir) in ((memory, swap), (memory, None))
    assert container.go()["exit_code"] == 0


def test_the_command_line_takes_the_flags_of_run(
    job: Callable[..., Container], layout: Layout, state_dir: Path, name: str
) -> None:
    container = job("-mem", "64m")
    done = command("update", "-mem", "96m", name, "--pids-limit=50")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n", "")
    assert memory_and_swap(layout, state_dir)[0] == 96 * MIB
    assert pids_max(layout, state_dir) == 50
    result = container.go()
    assert result["limits"] == {"memory": 96 * MIB, "pids_limit": 50}


def test_a_raised_limit_lets_the_command_go_on(job: Callable[..., Container], name: str) -> None:
    """It allocates, after the update, more than it could have before."""
    container = job("-m", "24m", "--memory-swap", "24m", then="head -c 60m /dev/zero | tail > /dev/null")
    mydocker.update(name, memory="200m", memory_swap="200m")
    result = container.go()
    assert (result["exit_code"], result["oom_kills"]) == (0, 0)


def test_a_lowered_limit_holds(job: Callable[..., Container], name: str) -> None:
    container = job("-m", "200m", "--memory-swap", "200m", then="head -c 60m /dev/zero | tail > /dev/null")
    mydocker.update(name, memory="24m", memory_swap="24m")
    assert container.go()["oom_kills"] > 0


def test_a_container_without_a_cgroup_gets_one_with_all_its_processes(
    start: Start, eventually: Eventually, state_dir: Path, layout: Layout, name: str
) -> None:
    process = start("--name", name, "sh", "-c", "sleep 100 & sleep 100 & sleep 100; wait")
    eventually(lambda: any(record.pid for record in state.running(str(state_dir))))
    mydocker.update(name, pids_limit=20)
    pids = controller("pids", layout, state_dir)
    eventually(lambda: pids.current == 4)
    process.terminate()
    process.wait()
    eventually(lambda: not os.path.exists(pids.path))


def test_fewer_processes_than_it_has_refuse_new_ones(job: Callable[..., Container], name: str) -> None:
    container = job(then="true & wait; echo survived")
    mydocker.update(name, pids_limit=1)
    result = container.go()
    assert result["exit_code"] == 2  # the shell's, when it cannot fork
    assert result["usage"]["pids"]["refused_forks"] > 0


def test_less_memory_than_is_in_use_is_refused_and_everything_stays(
    job: Callable[..., Container], layout: Layout, state_dir: Path, name: str
) -> None:
    """The limit of CPUs comes first, by the name of its plugin, and is undone. Nothing is killed."""
    keep = "x=$(head -c 40000000 /dev/zero | tr '\\0' x)"
    container = job("-m", "300m", "--memory-swap", "300m", "--cpus", "1", before=keep, then='test "${#x}" = 40000000')
    before = memory_and_swap(layout, state_dir), cpu_limit(layout, state_dir)
    done = command("update", name, "--cpus", "0.5", "-m", "20m", "--memory-swap", "20m")
    assert done.returncode == 125
    assert done.stderr.startswith("mydocker: -m: the container has ")
    assert "in use" in done.stderr
    assert (memory_and_swap(layout, state_dir), cpu_limit(layout, state_dir)) == before
    result = container.go()
    assert (result["exit_code"], result["oom_kills"]) == (0, 0)
    assert result["limits"] == {"memory": 300 * MIB, "memory_swap": 300 * MIB, "cpus": 1.0}


def cpu_limit(layout: Layout, state_dir: Path) -> tuple[int | None, int]:
    cpu = controller("cpu", layout, state_dir)
    quota, period = cpu.max if cpu.version == 2 else (cpu.cfs_quota_us, cpu.cfs_period_us)
    return quota, period


PLUGIN = """
import time
from mydocker import ResourceField, hookimpl
from mydocker.resources import parse_integer

@hookimpl
def mydocker_fields():
    return [ResourceField(name="zz", flags=("--zz",), parse=parse_integer, metavar="N", help="A limit.")]
"""


@pytest.fixture
def last_plugin(site: Any) -> Callable[[str], None]:
    """Add a plugin with the field ``zz``, called after the built-in ones, and this ``mydocker_update``."""

    def add(body: str = "") -> None:
        hook = "@hookimpl\ndef mydocker_update(config, previous, cgroup, pid):\n" + textwrap.indent(body, "    ")
        site.add("zz", PLUGIN + (hook if body else ""))

    return add


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise KeyError('x')", "plugin zz (zz-dist 1.0) failed in mydocker_update: KeyError: 'x'"),
        ("time.sleep(30)", "plugin zz (zz-dist 1.0) was called in mydocker_update and did not return in 1 seconds"),
    ],
)
def test_what_was_changed_before_a_plugin_fails_is_undone(
    job: Callable[..., Container],
    last_plugin: Callable[[str], None],
    layout: Layout,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    sentence: str,
    name: str,
) -> None:
    monkeypatch.setenv("MYDOCKER_PLUGIN_TIMEOUT", "1")
    last_plugin(body)
    container = job("--pids-limit", "40", "-m", "64m")
    memory = memory_and_swap(layout, state_dir)
    done = command("update", name, "--pids-limit", "10", "-m", "32m", "--zz", "1")
    assert (done.returncode, done.stderr) == (125, f"mydocker: {sentence}\n")
    assert pids_max(layout, state_dir) == 40
    assert memory_and_swap(layout, state_dir) == memory
    assert state.find(name, str(state_dir)).limits == {"pids_limit": "40", "memory": "64m"}
    assert container.go()["limits"] == {"pids_limit": 40, "memory": 64 * MIB}


def test_a_plugin_says_how_its_own_work_is_undone(
    job: Callable[..., Container], site: Any, last_plugin: Callable[[str], None], tmp_path: Path, name: str
) -> None:
    last_plugin(f"cgroup.on_undo(lambda: open({str(tmp_path / 'undone')!r}, 'w').close())\nraise KeyError('x')")
    job()
    with pytest.raises(mydocker.PluginError, match="KeyError"):
        mydocker.update(name, zz=1)
    assert (tmp_path / "undone").exists()


def test_what_cannot_be_undone_is_told(
    job: Callable[..., Container], last_plugin: Callable[[str], None], name: str
) -> None:
    last_plugin("cgroup.on_undo(lambda: 1 / 0)\nraise KeyError('x')")
    job()
    with pytest.raises(mydocker.PluginError, match=r"KeyError: 'x'; what was changed before .* division by zero"):
        mydocker.update(name, zz=1)


def test_a_file_that_another_plugin_wrote_is_refused(
    job: Callable[..., Container], last_plugin: Callable[[str], None], layout: Layout, state_dir: Path, name: str
) -> None:
    """Whether that was at the start or in an update."""
    last_plugin("cgroup.controller('pids').max = config['zz']")
    job("--pids-limit", "40")
    with pytest.raises(mydocker.ConflictError, match=r"the plugins pids and zz both write .*/pids\.max"):
        mydocker.update(name, zz=10)
    assert pids_max(layout, state_dir) == 40


def test_a_file_that_an_update_wrote_belongs_to_its_plugin(
    job: Callable[..., Container], last_plugin: Callable[[str], None], layout: Layout, state_dir: Path, name: str
) -> None:
    last_plugin("cgroup.controller('pids').max = config['zz']")
    job()
    mydocker.update(name, zz=10)
    with pytest.raises(mydocker.ConflictError, match="the plugins zz and pids both write"):
        mydocker.update(name, pids_limit=40)
    mydocker.update(name, zz=20)
    assert pids_max(layout, state_dir) == 20


def test_a_limit_that_cannot_be_changed_is_refused_before_anything_is_written(
    job: Callable[..., Container], last_plugin: Callable[[str], None], layout: Layout, state_dir: Path, name: str
) -> None:
    last_plugin("")
    job("--pids-limit", "40", "--zz", "1")
    done = command("update", name, "--pids-limit", "10", "--zz", "2")
    assert done.returncode == 125
    assert done.stderr == "mydocker: --zz: it cannot be changed while the container runs\n"
    assert pids_max(layout, state_dir) == 40
    # To say what it is already changes nothing.
    assert command("update", name, "--pids-limit", "10", "--zz", "1").returncode == 0
    assert pids_max(layout, state_dir) == 10


def test_values_are_validated_with_those_that_stay(
    job: Callable[..., Container], layout: Layout, state_dir: Path, name: str
) -> None:
    job("-m", "64m", "--memory-swap", "64m")
    done = command("update", name, "-m", "128m")
    assert done.returncode == 125
    assert done.stderr.startswith("mydocker: --memory-swap: 64m is less than --memory 128m, which it includes: give")
    assert command("update", name, "-m", "lots").stderr.startswith('mydocker: -m: "lots" is not a size')
    assert memory_and_swap(layout, state_dir)[0] == 64 * MIB


def test_there_has_to_be_a_container_and_a_limit(job: Callable[..., Container], state_dir: Path, name: str) -> None:
    done = command("update", "nobody", "-m", "64m")
    assert (done.returncode, done.stderr) == (125, 'mydocker: no container named "nobody" is running\n')
    job()
    done = command("update", "nobody", "-m", "64m")
    assert done.stderr == f'mydocker: no container named "nobody" is running: there are {name}\n'
    done = command("update", name)
    assert (done.returncode, done.stderr.startswith("mydocker: there is no limit to change")) == (125, True)
    with pytest.raises(mydocker.UsageError, match="there is no limit named memroy"):
        mydocker.update(name, memroy="64m")


def test_updates_at_once_come_one_after_the_other(
    job: Callable[..., Container], layout: Layout, state_dir: Path, name: str
) -> None:
    """None is lost: what each one changed is in the record, and the record says what is in force."""
    container = job()
    line = [sys.executable, "-m", "mydocker", "update", name]
    several = [
        subprocess.Popen([*line, *limit], stdout=subprocess.DEVNULL)
        for number in range(4)
        for limit in (("-m", f"{64 + number}m"), ("--pids-limit", str(40 + number)), ("-c", str(512 + number)))
    ]
    assert [process.wait(timeout=120) for process in several] == [0] * len(several)
    limits = state.find(name, str(state_dir)).limits
    assert set(limits) == {"memory", "pids_limit", "cpu_shares"}
    assert limits["memory"] == f"{memory_and_swap(layout, state_dir)[0] // MIB}m"
    assert limits["pids_limit"] == str(pids_max(layout, state_dir))
    assert container.go()["exit_code"] == 0


def test_a_second_update_begins_when_the_first_is_done(
    job: Callable[..., Container], last_plugin: Callable[[str], None], tmp_path: Path, state_dir: Path, name: str
) -> None:
    log = tmp_path / "log"
    last_plugin(f"def say(word): open({str(log)!r}, 'a').write(word + ' ')\nsay('begin')\ntime.sleep(0.5)\nsay('end')")
    job()
    several = [
        subprocess.Popen([sys.executable, "-m", "mydocker", "update", name, "--zz", str(number), *limit])
        for number, limit in enumerate((["--pids-limit", "40"], ["-m", "64m"], ["-c", "512"]))
    ]
    assert [process.wait(timeout=120) for process in several] == [0, 0, 0]
    assert log.read_text().split() == ["begin", "end"] * 3
    assert set(state.find(name, str(state_dir)).limits) == {"zz", "pids_limit", "memory", "cpu_shares"}


def test_updates_from_threads_of_one_process(
    job: Callable[..., Container], layout: Layout, state_dir: Path, name: str
) -> None:
    job()
    threads = [threading.Thread(target=mydocker.update, args=(name,), kwargs={"pids_limit": n}) for n in (20, 30, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.find(name, str(state_dir)).limits == {"pids_limit": str(pids_max(layout, state_dir))}


@pytest.mark.parametrize("limits", [(), ("-m", "64m")])
def test_the_end_of_the_container_may_come_at_any_moment_of_an_update(
    start: Start, eventually: Eventually, state_dir: Path, limits: tuple[str, ...], name: str
) -> None:
    """It succeeds, or says that the container has ended; and nothing of either is left (see `nothing_left`)."""
    said = set()
    for hundredths in range(0, 16, 2):
        process = start("--name", name, *limits, "sleep", f"0.{hundredths:02}")
        eventually(lambda ended=process.poll: state.running(str(state_dir)) or ended() is not None)
        number = 0
        while process.poll() is None:
            number += 1
            try:
                mydocker.update(name, pids_limit=10 + number % 5, memory=f"{64 + number % 5}m")
            except mydocker.MydockerError as error:
                said.add(str(error))
                if "ended" in str(error) or "no container" in str(error):
                    break
        assert process.wait(timeout=60) == 0, process.communicate()
        assert not (state_dir / name).exists()
    assert said <= {
        f'the container "{name}" has ended',
        f'the container "{name}" has ended, and its limits with it',
        f'no container named "{name}" is running',
    }


def test_a_signal_waits_until_all_is_changed(
    job: Callable[..., Container],
    last_plugin: Callable[[str], None],
    eventually: Eventually,
    tmp_path: Path,
    layout: Layout,
    state_dir: Path,
    name: str,
) -> None:
    last_plugin(f"open({str(tmp_path / 'changing')!r}, 'w').close()\ntime.sleep(1)")
    job("--pids-limit", "40")
    line = [sys.executable, "-m", "mydocker", "update", name, "--pids-limit", "10", "--zz", "1"]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    eventually((tmp_path / "changing").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM
    assert pids_max(layout, state_dir) == 10
    assert state.find(name, str(state_dir)).limits == {"pids_limit": "10", "zz": "1"}


def test_an_update_waits_for_the_limits_that_a_run_starts_with(
    start: Start, site: Any, eventually: Eventually, state_dir: Path, name: str
) -> None:
    """Else what the run applies last would replace what the update has set."""
    apply = "@hookimpl\ndef mydocker_apply(pid):\n    time.sleep(1)\n"
    update = "@hookimpl\ndef mydocker_update(config):\n    pass\n"
    site.add("aa", PLUGIN + apply + update)  # applied first
    process = start("--name", name, "--zz", "1", "--ulimit", "nofile=100", "sleep", "100")
    eventually(lambda: any(record.pid for record in state.running(str(state_dir))))
    mydocker.update(name, ulimit=["nofile=50"])
    pid = state.find(name, str(state_dir)).pid
    eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in line]
    assert line.split()[3:5] == ["50", "50"]
    process.terminate()
    process.wait()


def test_a_container_that_is_frozen_from_the_start(
    start: Start, eventually: Eventually, state_dir: Path, layout: Layout, name: str
) -> None:
    """Its command has not run yet, and will under the new limit."""
    process = start("--name", name, "--frozen", "sh", "-c", "true & wait")
    eventually(lambda: any(record.pid for record in state.running(str(state_dir))))
    mydocker.update(name, pids_limit=1)
    assert pids_max(layout, state_dir) == 1
    assert command("unpause", name).returncode == 0
    assert process.wait(timeout=60) == 2  # the shell's, when it cannot fork
