"""What config.json's ``process`` is worked out to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mydocker import labels
from mydocker.errors import OciError
from mydocker.linux import capabilities, scheduling
from mydocker.oci import process


def planned(config: dict[str, Any] | None = None, **entries: Any) -> process.ProcessPlan:
    return process.plan({"cwd": "/", **entries}, config or {}, warn=pytest.fail)


def mask(*names: str) -> int:
    return capabilities.mask(names)


def test_nothing_asked_for_is_root_without_capabilities() -> None:
    plan = planned()
    assert (plan.uid, plan.gid, plan.groups, plan.umask) == (0, 0, (), 0o022)
    assert plan.capabilities == process.Capabilities()
    assert plan.rlimits == ()
    assert plan.oom_score_adj is None
    assert not plan.no_new_privs
    assert not plan.labelled


def test_user() -> None:
    plan = planned(user={"uid": 3, "gid": 4, "umask": 0o77, "additionalGids": [9, 5, 9]})
    assert (plan.uid, plan.gid, plan.groups, plan.umask) == (3, 4, (9, 5), 0o77)


def test_umask_of_nothing_is_not_the_default() -> None:
    assert planned(user={"umask": 0}).umask == 0


def test_five_sets() -> None:
    names = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]
    sets = {"bounding": names, "permitted": names[:2], "effective": names[:1], "inheritable": names[1:2]}
    found = planned({"linux": {"namespaces": [{"type": "user"}]}}, capabilities={**sets, "ambient": names[1:2]})
    assert found.capabilities == process.Capabilities(
        bounding=mask(*names),
        permitted=mask("CAP_CHOWN", "CAP_KILL"),
        effective=mask("CAP_CHOWN"),
        inheritable=mask("CAP_KILL"),
        ambient=mask("CAP_KILL"),
    )


def test_unknown_capabilities_are_left_out_with_one_warning() -> None:
    said: list[str] = []
    sets = {"bounding": ["CAP_NONSENSE", "CAP_CHOWN"], "permitted": ["CAP_NONSENSE"]}
    plan = process.plan({"cwd": "/", "capabilities": sets}, {}, warn=said.append)
    assert plan.capabilities == process.Capabilities(bounding=mask("CAP_CHOWN"))
    assert said == ["ignoring unknown or unavailable capabilities: CAP_NONSENSE"]


def test_ambient_capabilities_follow_the_kernels_rule() -> None:
    names = ["CAP_CHOWN", "CAP_KILL"]
    sets = {"bounding": names, "permitted": names, "inheritable": names[:1], "ambient": names}
    said: list[str] = []
    config = {"linux": {"namespaces": [{"type": "user"}]}}
    found = process.plan({"args": ["true"], "cwd": "/", "capabilities": sets}, config, warn=said.append)
    assert found.capabilities.ambient == mask("CAP_CHOWN")
    assert said == []  # engines' configs name them all the same


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        ({"effective": ["CAP_KILL"]}, "CAP_KILL cannot be effective"),
        ({"inheritable": ["CAP_KILL"]}, "CAP_KILL cannot be inheritable"),
    ],
)
def test_impossible_capabilities_are_named(sets: dict[str, list[str]], named: str) -> None:
    with pytest.raises(OciError, match=named) as caught:
        planned(capabilities=sets)
    assert "operation not permitted" in str(caught.value)


def test_capabilities_that_the_runtime_lacks_are_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "permitted", lambda: mask("CAP_CHOWN"))
    sets = {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"]}
    said: list[str] = []
    plan = process.plan({"cwd": "/", "capabilities": sets}, {}, warn=said.append)
    assert plan.capabilities.permitted == mask("CAP_CHOWN")
    assert plan.capabilities.bounding == mask("CAP_KILL", "CAP_CHOWN")
    assert said == ["ignoring unknown or unavailable capabilities: CAP_KILL"]
    user_namespace = {"linux": {"namespaces": [{"type": "user"}]}}
    assert planned(user_namespace, capabilities=sets).capabilities.permitted == mask("CAP_KILL", "CAP_CHOWN")


def test_rlimits_by_number() -> None:
    plan = planned(
        rlimits=[
            {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1},
        ]
    )
    assert plan.rlimits == ((7, 10, 20), (4, 0, (1 << 64) - 1))


@pytest.mark.parametrize(
    ("rlimits", "named"),
    [
        ([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}], r"rlimits\[0\].*RLIMIT_NONSENSE"),
        ([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2, r"rlimits\[1\].*RLIMIT_CPU is there twice"),
        ([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], r"soft limit, 2, is more than the hard limit, 1"),
    ],
)
def test_wrong_rlimits(rlimits: list[dict[str, Any]], named: str) -> None:
    with pytest.raises(OciError, match=named):
        planned(rlimits=rlimits)


def test_scheduler() -> None:
    plan = planned(
        scheduler={
            "policy": "SCHED_DEADLINE",
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"],
            "runtime": 1,
            "deadline": 2,
            "period": 3,
        }
    )
    assert plan.scheduler == scheduling.SchedAttr(policy=6, flags=3, runtime=1, deadline=2, period=3)
    assert planned(scheduler={"policy": "SCHED_BATCH", "nice": -3}).scheduler == scheduling.SchedAttr(policy=3, nice=-3)


@pytest.mark.parametrize(
    ("scheduler", "named"),
    [
        ({"policy": "SCHED_NONE"}, "invalid scheduler policy: SCHED_NONE"),
        ({"policy": "SCHED_OTHER", "flags": ["X"]}, "invalid scheduler flag: X"),
        ({"policy": "SCHED_OTHER", "nice": 20}, "nice"),
        ({"policy": "SCHED_OTHER", "priority": 1}, "SCHED_FIFO or SCHED_RR"),
        ({"policy": "SCHED_FIFO", "runtime": 1}, "SCHED_DEADLINE"),
    ],
)
def test_wrong_scheduler(scheduler: dict[str, Any], named: str) -> None:
    with pytest.raises(OciError, match=named):
        planned(scheduler=scheduler)


def test_io_priority() -> None:
    assert planned(ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0}).io_priority == (3, 0)
    for wrong in ({"class": "IOPRIO_CLASS_NONE"}, {"class": "IOPRIO_CLASS_BE", "priority": 8}):
        with pytest.raises(OciError, match=r"process\.ioPriority"):
            planned(ioPriority=wrong)


def test_cpu_affinity() -> None:
    plan = planned(execCPUAffinity={"initial": "0-2,7", "final": "4"})
    assert plan.initial_cpus == {0, 1, 2, 7}
    assert plan.final_cpus == {4}
    assert planned().initial_cpus is None


@pytest.mark.parametrize("text", ["x", "1-", "-1", "3-1", "1,,2", "99999999"])
def test_wrong_cpu_affinity(text: str) -> None:
    with pytest.raises(OciError, match=r"process\.execCPUAffinity\.final"):
        planned(execCPUAffinity={"final": text})


def test_personality() -> None:
    assert planned({"linux": {"personality": {"domain": "LINUX32"}}}).personality == 8
    assert planned({"linux": {"personality": {"domain": "LINUX"}}}).personality == 0
    with pytest.raises(OciError, match=r"linux\.personality\.flags"):
        planned({"linux": {"personality": {"domain": "LINUX", "flags": ["X"]}}})


def test_profile_that_nobody_enforces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "apparmor_enabled", lambda: False)
    with pytest.raises(OciError, match=r"process\.apparmorProfile.*docker-default"):
        planned(apparmorProfile="docker-default")
    assert planned(apparmorProfile="unconfined").apparmor == "unconfined"
    monkeypatch.setattr(labels, "apparmor_enabled", lambda: True)
    assert planned(apparmorProfile="docker-default").apparmor == "docker-default"


def test_label_that_nobody_enforces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    label = "system_u:system_r:container_t:s0"
    monkeypatch.setattr(labels, "selinux_enabled", lambda: False)
    with pytest.raises(OciError, match=r"process\.selinuxLabel.*selinux is disabled"):
        planned(selinuxLabel=label)
    monkeypatch.setattr(labels, "selinux_enabled", lambda: True)
    assert planned(selinuxLabel=label).labelled


def test_command_is_exact() -> None:
    args = ["a b", "", "new\nline", "\udcff"]
    assert process.command({"args": args, "env": ["A=b=c", "B="]}) == (
        [b"a b", b"", b"new\nline", b"\xff"],
        [b"A=b=c", b"B="],
    )


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"args": []}, "args must not be empty"),
        ({"args": ["x\0y"]}, "nul byte"),
        ({"args": ["x"], "env": ["X"]}, 'invalid environment variable "X"'),
        ({"args": ["x"], "env": ["=X"]}, "name cannot be empty"),
        ({"args": ["x"], "env": ["X=\0"]}, "nul byte"),
    ],
)
def test_impossible_command(entry: dict[str, Any], named: str) -> None:
    with pytest.raises(OciError, match=named):
        process.command(entry)
