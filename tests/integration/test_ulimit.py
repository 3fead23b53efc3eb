"""``--ulimit``, as the command feels it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mydocker
from mydocker import LimitError
from mydocker.cgroups.layout import Layout

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Eventually = Callable[..., object]


def in_python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_open_files(run: Run) -> None:
    code = "import errno, os\ntry:\n  while True: n = os.dup(0)\nexcept OSError as e: print(n, e.errno == errno.EMFILE)"
    assert run("--ulimit", "nofile=40", *in_python(code)).stdout == "39 True\n"


def test_soft_and_hard(run: Run) -> None:
    done = run("--ulimit", "nofile=40:50", "sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -n 50 && ulimit -n 51")
    assert done.stdout == "40\n50\n"
    assert done.returncode != 0


def test_no_bound(run: Run) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("core dumps are bounded on this host")
    assert run("--ulimit", "core=7:unlimited", "sh", "-c", "ulimit -Sc -Hc; ulimit -Hc").stdout.endswith("unlimited\n")


def test_size_of_a_file(run: Run, tmp_path: Path) -> None:
    """SIGXFSZ (25) to the command, which is not PID 1 here: that would only see EFBIG."""
    done = run("--init", "--ulimit", "fsize=1000", "sh", "-c", 'exec head -c 2000 /dev/zero > "$0"', tmp_path / "file")
    assert done.returncode == 128 + 25
    assert (tmp_path / "file").stat().st_size == 1000


def test_cpu_seconds_of_a_process(run: Run) -> None:
    """The hard limit kills PID 1 too; the soft one only asks (SIGXCPU), and PID 1 is not asked."""
    assert run("--ulimit", "cpu=1", "sh", "-c", "while :; do :; done").returncode == 128 + 9
    assert run("--init", "--ulimit", "cpu=1:5", "sh", "-c", "while :; do :; done").returncode == 128 + 24


def test_address_space(run: Run) -> None:
    code = "try: bytearray(300 << 20)\nexcept MemoryError: print('refused')"
    assert run("--ulimit", f"as={200 << 20}", *in_python(code)).stdout == "refused\n"


def test_a_limit_under_which_nothing_starts_is_an_error(run: Run) -> None:
    done = run("--ulimit", "as=4096", "true")
    assert done.returncode in (125, 126, 139), done
    assert done.stdout == ""


def test_all_names(run: Run) -> None:
    """Each is set to its own value, and read by its own number."""
    from subsystems.ulimit import NAMES

    values = {name: 60 + number for name, number in NAMES.items() if name not in ("as", "data", "stack", "nproc")}
    values.update(dict.fromkeys(("as", "data"), 4 << 30), stack=4 << 20, nproc=5000)
    values.update(rtprio=0, nice=0)  # a host may allow no more without a capability
    options = [part for name, value in values.items() for part in ("--ulimit", f"{name}={value}")]
    code = "import resource, json; print(json.dumps([resource.getrlimit(n) for n in range(16)]))"
    found = json.loads(run(*options, *in_python(code)).stdout)
    assert {name: found[NAMES[name]] for name in values} == {name: [value] * 2 for name, value in values.items()}


def test_the_cgroup_is_seen_under_a_small_number_of_files(run: Run) -> None:
    script = 'for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do [ -e "$f" ] && echo "$f"; done'
    assert run("--ulimit", "nofile=10", "sh", "-c", script).stdout == run("sh", "-c", script).stdout != ""


def test_the_last_of_one_name_counts(run: Run) -> None:
    options = ("--ulimit", "nofile=40", "--ulimit", "nofile=50", "--ulimit", "core=0")
    done = run(*options, "sh", "-c", "ulimit -n; ulimit -c")
    assert done.stdout == "50\n0\n"


def test_from_python() -> None:
    command = ["sh", "-c", "ulimit -n; ulimit -c"]
    result = mydocker.run(command, ulimit=["nofile=40", "core=0"], capture_output=True, text=True)
    assert result.stdout == "40\n0\n"
    assert result.limits == {"ulimit": (("nofile", 40, 40), ("core", 0, 0))}
    with pytest.raises(LimitError, match=r"^ulimit: \"x\" has no"):
        mydocker.run(command, ulimit="x")


def test_errors_name_the_flag_and_the_bound_of_the_host(run: Run) -> None:
    done = run("--ulimit", "nofile=unlimited", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("mydocker: --ulimit: nofile=unlimited is more than this kernel allows any process, ")


def test_a_hard_limit_that_may_not_be_raised(run: Run) -> None:
    """Whether root has CAP_SYS_RESOURCE or not: the limit is in force, or the error names the bound."""
    lower = "import os, resource, sys; resource.setrlimit(4, (500, 500)); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-m", "mydocker", "run", "--ulimit", "core=600", "sh", "-c", "ulimit -Hc"]
    done = subprocess.run([sys.executable, "-c", lower, *command], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        assert done.stdout == "1\n"  # blocks of 512 bytes
    else:
        assert done.stderr == (
            "mydocker: --ulimit: core=600 is more than the hard limit here, 500, and mydocker may not raise it without "
            "CAP_SYS_RESOURCE: ask for at most 500\n"
        )


@pytest.mark.vm
@pytest.mark.parametrize("limits", [(), ("-m", "200m")], ids=["no cgroup", "cgroup"])
def test_update_reaches_every_process(
    start: Start, tmp_path: Path, eventually: Eventually, layout: Layout, name: str, limits: tuple[str, ...]
) -> None:
    """The shell, its child, and what either starts later."""
    if limits and layout.find("memory") is None:
        pytest.skip("no memory controller here")
    out = tmp_path / "out"
    loop = f'until [ -e {tmp_path}/go ]; do sleep 0.02; done; ulimit -n >> "$0"; sh -c "ulimit -n" >> "$0"'
    runtime = start("--name", name, *limits, "sh", "-c", f"({loop}) & wait; {loop}", out)
    eventually(lambda: mydocker_has_started(name))
    mydocker.update(name, ulimit=["nofile=77"])
    (tmp_path / "go").touch()
    assert runtime.communicate(timeout=60)[1] == ""
    assert out.read_text().split() == ["77"] * 4


def mydocker_has_started(name: str) -> bool:
    from mydocker import state

    try:
        return bool(state.find(name, state.default_root()).pid)
    except mydocker.StateError:
        return False
