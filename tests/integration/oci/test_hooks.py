"""Hooks: when each kind runs and where, what it is given, and what becomes of the container when one fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocker.errors import OciError
from mydocker.oci import hooks
from mydocker.oci.config import HOOKS

STATE = b'{"id": "some"}'


def shell(script: str, *arguments: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script, "hook", *arguments], **more}


def run(*wanted: dict[str, Any], **options: Any) -> None:
    hooks.run("createRuntime", wanted, STATE, **options)


def failure(*wanted: dict[str, Any]) -> str:
    with pytest.raises(OciError) as caught:
        run(*wanted)
    return str(caught.value)


def test_state_arguments_and_environment_come_exactly(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = 'cat; echo; for a; do echo "<$a>"; done; cat /proc/$$/environ; pwd'
    arguments = ["", "two  words", "a\nb", "ü", "*"]
    run(
        {
            "path": "/bin/sh",
            "args": ["other-name", "-c", f"{{ {script}; }} >{out}", "x", *arguments],
            "env": ["A=b=c", "B="],
        },
        cwd=os.fsencode(tmp_path),
    )
    expected = ['{"id": "some"}', "<>", "<two  words>", "<a\nb>", "<ü>", "<*>", f"A=b=c\0B=\0{tmp_path}", ""]
    assert out.read_text() == "\n".join(expected)


def test_the_first_argument_is_the_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run({"path": "/bin/sh", "args": ["my-name", "-c", f"tr '\\0' '\\n' </proc/$$/cmdline >{out}"]})
    assert out.read_text().splitlines()[0] == "my-name"


def test_without_an_environment_it_is_the_runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one is none."""
    monkeypatch.setenv("OF_THE_ENGINE", "1")
    out = tmp_path / "out"
    run(shell(f"cat /proc/$$/environ >{out}"))
    assert b"OF_THE_ENGINE=1\0" in out.read_bytes()
    run(shell(f"cat /proc/$$/environ >{out}", env=[]))
    assert out.read_bytes() == b""
    run(shell(f"cat /proc/$$/environ >{out}"), environment={b"GIVEN": b"x"})
    assert out.read_bytes() == b"GIVEN=x\0"


def test_nothing_of_the_runtime_is_open_in_a_hook(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kept = os.open("/dev/null", os.O_RDONLY)
    os.dup2(kept, 50)
    try:
        run(shell(f"exec ls /proc/self/fd >{out}"))
    finally:
        os.close(kept)
        os.close(50)
    assert set(out.read_text().split()) == {"0", "1", "2", "3"}, "3 is the directory that ls reads"


def test_signals_and_umask_are_those_of_a_new_program(tmp_path: Path) -> None:
    out = tmp_path / "out"
    former, mask = os.umask(0), signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        run(shell(f"umask >{out}; exec grep -E 'Sig(Blk|Ign)' /proc/self/status >>{out}"))
    finally:
        os.umask(former)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert out.read_text().split() == ["0022", "SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


def test_a_hook_that_fails_is_named_with_its_words() -> None:
    told = failure(shell("exit 0"), shell("echo said; echo lost >&2; exit 7"), shell("exit 9"))
    assert told == "error running createRuntime hook #1: /bin/sh: exit status 7, stderr: lost, stdout: said"


def test_the_next_ones_do_not_run(tmp_path: Path) -> None:
    failure(shell("exit 1"), shell(f"touch {tmp_path}/ran"))
    assert not (tmp_path / "ran").exists()


def test_where_failures_are_only_told_the_next_ones_run(tmp_path: Path) -> None:
    told: list[str] = []
    run(shell("kill -KILL $$"), shell(f"touch {tmp_path}/ran"), failed=told.append)
    assert told == ["error running createRuntime hook #0: /bin/sh: killed by signal 9 (killed)"]
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/no/such/hook", "/no/such/hook: no such file or directory"),
        ("/etc/passwd", "/etc/passwd: permission denied"),
        ("bin/true", "bin/true: its path must be absolute"),
    ],
)
def test_what_cannot_be_executed(path: str, words: str) -> None:
    assert failure({"path": path}) == f"error running createRuntime hook #0: {words}"


def test_at_its_timeout_a_hook_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    told = failure(shell(f"sleep 1000 & echo $! $$ >{pids}; echo waiting >&2; wait", timeout=1))
    assert "killed" in told
    assert "timeout of 1 s" in told
    assert "stderr: waiting" in told
    for pid in pids.read_text().split():
        end = time.monotonic() + 10
        while is_alive(int(pid)):
            assert time.monotonic() < end
            time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_hook_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    """It holds the pipe for the hook's output."""
    pid = tmp_path / "pid"
    run(shell(f"sleep 1000 & echo $! >{pid}"))
    assert is_alive(int(pid.read_text()))
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_hook_that_writes_much_or_reads_nothing_comes_to_its_end() -> None:
    large = json.dumps({"annotations": {"a": "x" * (1 << 20)}}).encode()
    hooks.run("poststop", [shell("true")], large)
    told: list[str] = []
    hooks.run(
        "poststop", [shell("head -c 3000000 /dev/zero | tr '\\0' e >&2; wc -c; exit 1")], large, failed=told.append
    )
    assert str(len(large)) in told[0]
    assert len(told[0]) < 2000


def test_with_the_standard_descriptors_closed(tmp_path: Path) -> None:
    """The engine may have started us without some of them."""
    hook = shell("cat; echo words >&2; exit 3")
    script = f"""
import os
from mydocker.oci import hooks
for fd in (0, 1, 2):
    os.close(fd)
hooks.run("prestart", [{hook!r}], b"the state", failed=open("{tmp_path}/told", "w").write)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    told = (tmp_path / "told").read_text()
    assert told.endswith("exit status 3, stderr: words, stdout: the state")


def recording(place: str, kind: str) -> dict[str, Any]:
    """A hook that keeps its state, and in which mount namespace it ran and whether the command had run."""
    return shell(
        f"{{ cat; echo; readlink /proc/self/ns/mnt; ls {place}; }} >{place}/{kind}",
        env=["PATH=/bin:/usr/bin"],
    )


def test_each_kind_at_its_time_and_in_its_place(
    bundle: Any, ours: Any, cid: str, stopped: Callable[[Any, str], None]
) -> None:
    made = bundle("sh", "-c", "touch /tmp/command", annotations={"a": "b"})
    place = f"{made}/rootfs/tmp"
    config = json.loads((made / "config.json").read_text())
    config["hooks"] = {kind: [recording("/tmp" if kind == "startContainer" else place, kind)] for kind in HOOKS}
    (made / "config.json").write_text(json.dumps(config))

    def seen() -> set[str]:
        return set(os.listdir(place))

    created = {"prestart", "createRuntime", "createContainer"}
    assert ours.create(made, cid).returncode == 0
    pid = ours.state(cid)["pid"]
    inside = os.readlink(f"/proc/{pid}/ns/mnt")
    assert seen() == created
    assert ours("start", cid).returncode == 0
    stopped(ours, cid)
    assert seen() == created | {"startContainer", "poststart", "command"}
    assert ours("delete", cid).returncode == 0
    assert seen() == {*HOOKS, "command"}

    host = os.readlink("/proc/self/ns/mnt")
    before: set[str] = set()
    for kind in HOOKS:
        text, namespace, *files = Path(place, kind).read_text().splitlines()
        state = json.loads(text)
        assert state["id"] == cid
        assert state["bundle"] == str(made)
        assert state["annotations"] == {"a": "b"}
        assert state["ociVersion"]
        assert state["status"] == {"poststart": "running", "poststop": "stopped"}.get(kind, "created")
        # As whoever looks sees it (runtime.md, "State").
        assert state.get("pid", 0) == {"poststop": 0, "createContainer": 1, "startContainer": 1}.get(kind, pid)
        assert namespace == (inside if kind in ("createContainer", "startContainer") else host)
        assert before <= set(files), "they run in their order"
        assert kind in ("poststart", "poststop") or "command" not in files
        before.add(kind)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_create_fails_with_its_hook(kind: str, bundle: Any, ours: Any, cid: str, tmp_path: Path) -> None:
    config = bundle.config("true")
    config["hooks"] = {
        kind: [shell("echo its own words >&2; exit 3")],
        "poststop": [shell(f"cat >{tmp_path}/poststop")],
    }
    done = ours.create(bundle(config=config), cid, "--pid-file", tmp_path / "pid")
    assert done.returncode == 1
    assert not (tmp_path / "pid").exists(), "of a container's last hook it is written before"
    assert f"error running {kind} hook #0: /bin/sh: exit status 3, stderr: its own words" in done.stderr
    assert "does not exist" in ours("state", cid).stderr
    # What was begun is ended as any container is (runtime.md, "Lifecycle").
    assert json.loads((tmp_path / "poststop").read_text())["status"] == "stopped"


def test_start_fails_with_its_hook(bundle: Any, ours: Any, cid: str, stopped: Callable[[Any, str], None]) -> None:
    made = bundle("touch", "/tmp/ran", hooks={"startContainer": [shell("echo its own words >&2; exit 3")]})
    assert ours.create(made, cid).returncode == 0
    done = ours("start", cid)
    assert done.returncode == 1
    assert "error running startContainer hook #0: /bin/sh: exit status 3, stderr: its own words" in done.stderr
    stopped(ours, cid)
    assert not (made / "rootfs/tmp/ran").exists()
    assert ours("delete", cid).returncode == 0


def test_when_poststart_fails_the_container_is_stopped(
    bundle: Any, ours: Any, cid: str, stopped: Callable[[Any, str], None], tmp_path: Path
) -> None:
    made = bundle("sleep", "100", hooks={"poststart": [shell("exit 3"), shell(f"touch {tmp_path}/next")]})
    assert ours.create(made, cid).returncode == 0
    done = ours("start", cid)
    assert done.returncode == 1
    assert "error running poststart hook #0: /bin/sh: exit status 3" in done.stderr
    stopped(ours, cid)
    assert not (tmp_path / "next").exists()
    assert ours("delete", cid).returncode == 0
    assert ours.run(made, cid).returncode == 1
    assert "does not exist" in ours("state", cid).stderr


def test_when_poststop_fails_it_is_a_warning(bundle: Any, ours: Any, cid: str, tmp_path: Path) -> None:
    made = bundle("touch", "/tmp/ran", hooks={"poststop": [shell("exit 3"), shell(f"touch {tmp_path}/next")]})
    done = ours.run(made, cid)
    assert done.returncode == 0
    assert "error running poststop hook #0: /bin/sh: exit status 3" in done.stderr
    assert "level=warning" in done.stderr
    assert (made / "rootfs/tmp/ran").exists()
    assert (tmp_path / "next").exists()


def test_hooks_inside_have_the_containers_environment(bundle: Any, ours: Any, cid: str) -> None:
    """Where they name none: what the runtime has in its own is nobody's in the container."""
    made = bundle("true", process__env=["PATH=/bin", "OF=process"])
    config = json.loads((made / "config.json").read_text())
    config["hooks"] = {
        "createContainer": [shell("exec /bin/cat /proc/self/environ >tmp/create")],  # it runs in the container's root
        "startContainer": [shell("exec cat /proc/self/environ >/tmp/start")],
    }
    (made / "config.json").write_text(json.dumps(config))
    assert ours.run(made, cid).returncode == 0
    for name in ("create", "start"):
        found = {
            entry
            for entry in (made / "rootfs/tmp" / name).read_bytes().split(b"\0")
            if not entry.startswith((b"PWD=", b"SHLVL=", b"OLDPWD=", b"_="))  # the shell's own
        }
        assert {b"PATH=/bin", b"OF=process"} <= found <= {b"PATH=/bin", b"OF=process", b"HOME=/root", b""}


def test_hooks_inside_are_found_in_the_containers_root_or_the_hosts(bundle: Any, ours: Any, cid: str) -> None:
    """``createContainer``'s paths are the runtime's, ``startContainer``'s the container's (config.md)."""
    made = bundle("true")
    hook = made / "rootfs/bin/inside"
    hook.write_text("#!/bin/sh\necho ran >/tmp/inside\n")
    hook.chmod(0o755)
    config = json.loads((made / "config.json").read_text())
    config["hooks"] = {"startContainer": [{"path": "/bin/inside"}]}
    (made / "config.json").write_text(json.dumps(config))
    assert ours.run(made, cid).returncode == 0
    assert (made / "rootfs/tmp/inside").read_text() == "ran\n"
    config["hooks"] = {"createContainer": [{"path": "/bin/inside"}]}
    (made / "config.json").write_text(json.dumps(config))
    done = ours.run(made, cid)
    assert done.returncode == 1
    assert "createContainer hook #0: /bin/inside: no such file or directory" in done.stderr


def test_a_hook_can_change_the_network_namespace_before_the_command_runs(bundle: Any, ours: Any, cid: str) -> None:
    """What network plug-ins do: they are told the PID, and work on its namespaces."""
    script = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); nsenter -t $pid -n sysctl -w net.ipv4.ip_forward=1"
    hook = shell(script, env=["PATH=/bin:/usr/bin:/sbin:/usr/sbin"])
    made = bundle("cat", "/proc/sys/net/ipv4/ip_forward", hooks={"createRuntime": [hook]})
    done = ours.run(made, cid)
    assert done.stdout == "1\n", done


def test_killed_in_the_middle_of_a_hook_nothing_goes_on(bundle: Any, ours: Any, cid: str, eventually: Any) -> None:
    made = bundle("touch", "/tmp/ran", hooks={"createContainer": [shell(f"touch /tmp/{cid}; sleep 1000")]})
    begun = Path(f"/tmp/{cid}")
    create = subprocess.Popen([*ours.command, "--root", ours.root, "create", "--bundle", made, cid])
    try:
        eventually(begun.exists)
        create.kill()
        create.wait()
        assert ours("delete", "--force", cid).returncode == 0
        assert "does not exist" in ours("state", cid).stderr
    finally:
        begun.unlink(missing_ok=True)
