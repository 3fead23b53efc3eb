"""Containers that stand by for their command: what it sees, and what may become of them while they wait."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mydocker
from mydocker import api

Eventually = Callable[..., object]

#: What a command can see of itself, but for figures that no two processes have alike.
LOOK = r"""
grep -v -e '^P*Pid' -e '^NSpid' -e ctxt_switches -e '^Vm' -e '^Rss' -e '^Hugetlb' -e SigQ /proc/self/status
mounts() {
    sed -E -e 's/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ //' -e 's/[0-9a-f]{12}//g' \
        -e 's/(shared|master|propagate_from):[0-9]+//g' -e 's,lowerdir=/proc/self/fd/[0-9]+,,' /proc/self/mountinfo
}
mounts | grep -v ' - cgroup'
mounts | grep ' - cgroup' | sort
cat /proc/self/limits /proc/self/uid_map /proc/self/oom_score_adj /proc/self/timerslack_ns 2>/dev/null
sed 's/[0-9a-f]\{12\}//' /proc/self/cgroup
cat /proc/self/stat | cut -d' ' -f 2,6,7,8,9,18,19,40,41
ls -l /proc/self/fd | sed 's/.*[0-9]:[0-9][0-9] //; s/\[[0-9]*\]//; s/[0-9]*\/fd/fd/' ; env | sort; pwd; umask; id
ls -la /dev | sed 's/ [A-Z][a-z]* .*[0-9][0-9]:[0-9][0-9] / /'
"""


def look(run: Callable[..., mydocker.Result], **options: Any) -> list[str]:
    env = {"A": "b", "PATH": os.environ["PATH"]}
    result = run(["sh", "-c", LOOK], capture_output=True, text=True, env=env, **options)
    assert isinstance(result.stdout, str)
    return result.stdout.splitlines()


def waiting(spawner: mydocker.Spawner) -> list[int]:
    """The PIDs of what stands by."""
    pool = spawner._pool
    assert pool is not None
    return [container.child.pid for container in pool._ready]


SETTINGS: list[dict[str, Any]] = [
    {},
    {"memory": "50m", "pids_limit": 20},
    {"rootfs": True, "readonly": True, "ulimit": ["nofile=20:20"], "user": "alice"},
    {"overlay": True, "init": True, "hostname": "here", "accounting": True},
    {"rootfs": True, "cap_add": ["SYS_ADMIN"], "seccomp": "unconfined", "cpus": 0.5, "network": "host"},
    {"privileged": True},
    {"user": "1234:1234", "nice": 5, "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}, "no_new_privileges": False},
]


class TestWhatTheCommandSees:
    @pytest.mark.parametrize("options", SETTINGS, ids=lambda options: ",".join(options) or "nothing")
    def test_is_what_it_sees_in_one_of_its_own(self, options: dict[str, Any], rootfs: Path) -> None:
        if options.get("rootfs"):
            options = {**options, "rootfs": rootfs, "hostname": "here"}
        with mydocker.Spawner(prepare=1, **options) as spawner:
            spawner.run(["true"])
            ahead = look(spawner.run)
        assert ahead == look(mydocker.run, **options)
        assert len(ahead) > 50

    def test_its_own_streams_environment_and_time(self, tmp_path: Path) -> None:
        with mydocker.Spawner(prepare=2, memory="50m") as spawner:
            data = os.urandom(1 << 20)
            assert spawner.run(["cat"], input=data, capture_output=True).stdout == data
            with (tmp_path / "out").open("w") as out:
                spawner.run(["sh", "-c", "echo $V; echo error >&2"], stdout=out, stderr=-2, env={"V": "x"})
            assert (tmp_path / "out").read_text() == "x\nerror\n"
            assert spawner.run(["sleep", "1000"], timeout=0.1).reason == "timeout"
            with pytest.raises(mydocker.CommandNotFound):
                spawner.run(["no-such-command"])
            with pytest.raises(mydocker.CommandNotExecutable):
                spawner.run(["/etc/passwd"])
            with pytest.raises(mydocker.RunFailed):
                spawner.run(["false"], check=True)
            long = ["x" * 100_000] * 15
            assert spawner.run(["sh", "-c", 'exit "$#"', "sh", *long]).exit_code == 15

    def test_nothing_of_another_run(self, rootfs: Path) -> None:
        script = """
            [ -e /dev/shm/mine ] || [ -e /dev/mine ] || [ -e /tmp/mine ] || [ "$(hostname)" = mine ] && exit 1
            touch /dev/shm/mine /dev/mine /tmp/mine; hostname mine; cd /tmp; export MINE=1; exec 7</dev/null
            echo /proc/[0-9]*; echo /proc/self/fd/*; cat /proc/self/cgroup | wc -l"""
        options: dict[str, Any] = {"rootfs": rootfs, "cap_add": ["SYS_ADMIN"], "seccomp": "unconfined", "memory": "50m"}
        from mydocker.spec import Tmpfs

        with mydocker.Spawner(prepare=2, mounts=[Tmpfs(destination="/tmp")], **options) as spawner:
            seen = [spawner.run(["sh", "-c", script], capture_output=True).stdout for _ in range(5)]
            assert len(set(seen)) == 1
            assert seen[0]

    def test_another_is_made_while_one_takes_long(self, tmp_path: Path, eventually: Callable[..., object]) -> None:
        end = tmp_path / "end"
        until_then = ["sh", "-c", 'while ! [ -e "$1" ]; do sleep 0.01; done', "sh", str(end)]
        with mydocker.Spawner(prepare=1, memory="50m") as spawner:
            first = waiting(spawner)
            thread = threading.Thread(target=spawner.run, args=(until_then,))
            thread.start()
            try:
                eventually(lambda: waiting(spawner) not in ([], first))
                assert thread.is_alive()
            finally:
                end.touch()
                thread.join()

    def test_figures_of_the_run_alone(self) -> None:
        with mydocker.Spawner(prepare=1, memory="50m") as spawner:
            eat = "d=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ${#d}"
            assert (spawner.run(["sh", "-c", eat], capture_output=True).memory_peak or 0) > 20_000_000
            assert (spawner.run(["true"]).memory_peak or 0) < 10_000_000

    def test_an_oom_kill_is_told(self) -> None:
        with mydocker.Spawner(prepare=1, memory="20m", memory_swap="20m") as spawner:
            result = spawner.run([sys.executable, "-Sc", "bytearray(200 << 20)"], capture_output=True)
            assert (result.reason, result.oom_kills) == ("oom", 1)


class TestTheSpawner:
    def test_one_serves_once_and_another_takes_its_place(self, eventually: Eventually) -> None:
        with mydocker.Spawner(prepare=2) as spawner:
            first = waiting(spawner)
            spawner.run(["true"])
            eventually(lambda: len(waiting(spawner)) == 2)
            assert first[0] not in waiting(spawner)
            assert first[1] in waiting(spawner)

    def test_what_was_killed_while_it_waited_is_not_given_out(self) -> None:
        with mydocker.Spawner(prepare=3, memory="50m") as spawner:
            for pid in waiting(spawner):
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert spawner.run(["sh", "-c", "exit 3"]).exit_code == 3

    def test_killed_at_any_moment_it_is_a_result_or_a_named_error(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.touch()
        chance = random.Random(2)
        stop = threading.Event()
        begun = []
        with mydocker.Spawner(prepare=2) as spawner:

            def kills() -> None:
                while not stop.is_set():
                    for pid in waiting(spawner)[:1]:
                        try:
                            os.kill(pid, signal.SIGKILL)
                        except ProcessLookupError:
                            pass
                    time.sleep(chance.uniform(0, 0.02))

            killer = threading.Thread(target=kills)
            killer.start()
            for n in range(20):
                begun.append(str(n))
                try:
                    result = spawner.run(["sh", "-c", f"echo {n} >>{log}"])
                except mydocker.HandoffError:
                    continue
                assert result.reason in ("exited", "signaled")
            stop.set()
            killer.join()
        ran = log.read_text().split()
        assert len(set(ran)) == len(ran)
        assert set(ran) <= set(begun)

    def test_without_with_twice_and_closed(self) -> None:
        spawner = mydocker.Spawner(prepare=2)
        assert spawner.run(["sh", "-c", "exit 4"]).exit_code == 4
        for _ in range(2):
            with spawner:
                with spawner:
                    assert len(waiting(spawner)) == 2
                assert spawner.run(["sh", "-c", "exit 5"]).exit_code == 5
        spawner.close()
        assert spawner.run(["sh", "-c", "exit 6"]).exit_code == 6

    def test_closed_during_runs(self, eventually: Eventually, tmp_path: Path) -> None:
        results = []
        script = f'touch {tmp_path}/begun$0; while ! [ -e {tmp_path}/end ]; do sleep 0.01; done; exit 8'
        with mydocker.Spawner(prepare=2) as spawner:

            def body(n: int) -> None:
                results.append(spawner.run(["sh", "-c", script, str(n)]))

            threads = [threading.Thread(target=body, args=(n,)) for n in range(3)]
            for thread in threads:
                thread.start()
            eventually(lambda: len(list(tmp_path.glob("begun*"))) == 3)
        api.close()
        (tmp_path / "end").touch()
        for thread in threads:
            thread.join()
        assert [(result.exit_code, result.reason) for result in results] == [(8, "exited")] * 3

    def test_other_options_get_a_container_of_their_own(self) -> None:
        with mydocker.Spawner(prepare=1) as spawner:
            pids = waiting(spawner)
            assert spawner.run(["hostname"], hostname="other", capture_output=True, text=True).stdout == "other\n"
            assert waiting(spawner) == pids

    def test_the_environment_is_that_of_the_run(self, rootfs: Path, eventually: Eventually) -> None:
        """Whether a container stood by for it or not."""
        given = {"V": "first"}
        own = {"PATH": "/bin", "V": "own"}
        with mydocker.Spawner(prepare=1, rootfs=rootfs, env=given, capture_output=True, text=True) as spawner:

            def v(**options: Any) -> str:
                eventually(lambda: waiting(spawner))
                result = spawner.run(["/bin/sh", "-c", "echo $V $HOME"], **options)
                assert isinstance(result.stdout, str)
                return result.stdout

            assert v() == "first\n"
            assert v(env=None) == "/root\n"
            assert v(env=own) == "own\n"
            given["V"] = "second"
            assert v() == v(timeout=10) == v(hostname="other") == "second\n"

    def test_another_working_directory_is_not_that_of_what_stands_by(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with mydocker.Spawner(prepare=1, capture_output=True, text=True) as spawner:
            monkeypatch.chdir(tmp_path)
            assert spawner.run(["pwd"]).stdout == f"{tmp_path}\n"

    @pytest.mark.parametrize("options", [{"prepare": -1}, {"prepare": "2"}, {"prepare": 2000}])
    def test_wrong_numbers(self, options: dict[str, Any]) -> None:
        with pytest.raises(mydocker.UsageError, match="prepare"):
            mydocker.Spawner(**options)

    @pytest.mark.parametrize("option", ["name", "pidfile"])
    def test_what_several_cannot_have(self, option: str) -> None:
        with pytest.raises(mydocker.UsageError, match=option):
            mydocker.Spawner(prepare=1, **{option: "x"})

    def test_what_cannot_be_prepared_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(mydocker.LimitError), mydocker.Spawner(prepare=1, memory="12x"):
            pass
        with pytest.raises(mydocker.UsageError), mydocker.Spawner(prepare=1, rootfs=tmp_path / "none"):
            pass

    def test_a_fork_makes_its_own(self) -> None:
        with mydocker.Spawner(prepare=1) as spawner:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = spawner.run(["sh", "-c", "exit 9"]).exit_code
                    spawner.close()
                    api.close()
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
            assert spawner.run(["sh", "-c", "exit 2"]).exit_code == 2


class TestAwaited:
    def test_several_at_once(self) -> None:
        async def main() -> list[int]:
            async with mydocker.Spawner(prepare=2) as spawner:
                runs = (spawner.run(["sh", "-c", f"exit {n}"]) for n in range(6))
                return [result.exit_code for result in await asyncio.gather(*runs)]

        assert asyncio.run(main()) == [0, 1, 2, 3, 4, 5]

    def test_an_error_is_raised(self) -> None:
        async def main() -> None:
            async with mydocker.Spawner() as spawner:
                await spawner.run(["no-such-command"])

        with pytest.raises(mydocker.CommandNotFound):
            asyncio.run(main())

    def test_cancelled_at_any_moment_nothing_is_left(self, state_dir: Path) -> None:
        """When the cancellation passes on the container is removed, however often it was cancelled."""
        chance = random.Random(3)

        async def main() -> None:
            async with mydocker.Spawner(prepare=1) as spawner:
                for n in range(12):
                    task = asyncio.create_task(spawner.run(["sleep", "1000"], env={"PATH": os.environ["PATH"]}))
                    await asyncio.sleep(chance.uniform(0, 0.05))
                    for _ in range(1 + n % 3):
                        task.cancel()
                        await asyncio.sleep(0)
                    with pytest.raises(asyncio.CancelledError):
                        await task
            assert not state_dir.exists() or os.listdir(state_dir) == []

        asyncio.run(main())

    def test_a_timeout_of_asyncio(self) -> None:
        async def main() -> None:
            async with mydocker.Spawner() as spawner, asyncio.timeout(0.2):
                await spawner.run(["sleep", "1000"])

        with pytest.raises(TimeoutError):
            asyncio.run(main())
