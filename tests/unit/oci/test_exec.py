"""What the options of ``exec`` make of the container's own process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from mydocker.errors import OciError
from mydocker.oci import descriptors, exec_, options
from mydocker.oci.container import Container
from mydocker.oci.log import Log
from mydocker.oci.main import Call

OWN = {
    "terminal": True,
    "cwd": "/work",
    "args": ["server"],
    "env": ["PATH=/bin"],
    "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
    "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]},
    "noNewPrivileges": True,
    "oomScoreAdj": 10,
    "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
}


class Fake:
    def __init__(self) -> None:
        self.config = {"process": OWN}


def made(*words: str) -> dict[str, Any]:
    given, others = options.parse(words, exec_.OPTIONS, mixed=False)
    call = Call(verb="exec", root="/nonexistent", log=Log(), options=given, arguments=("id", *others))
    return exec_._process(call, cast(Container, Fake()))


def test_only_the_command_and_the_terminal_differ() -> None:
    assert made("sh", "-c", "x") == {**OWN, "args": ["sh", "-c", "x"], "terminal": False}
    assert made("-t", "sh")["terminal"] is True


def test_options() -> None:
    entry = made("--cwd", "/tmp", "-e", "A=1", "-e", "B=2", "--no-new-privs=false", "-u", "8:9", "-g", "1,2", "sh")
    assert entry["cwd"] == "/tmp"
    assert entry["env"] == ["PATH=/bin", "A=1", "B=2"]
    assert entry["noNewPrivileges"] is False
    assert entry["user"] == {"uid": 8, "gid": 9, "additionalGids": [7, 1, 2]}
    labelled = made("--apparmor", "p", "--process-label", "l", "sh")
    assert (labelled["apparmorProfile"], labelled["selinuxLabel"]) == ("p", "l")


def test_user_without_a_group_keeps_it() -> None:
    assert made("--user", "8", "sh")["user"] == {"uid": 8, "gid": 6, "additionalGids": [7]}


@pytest.mark.parametrize("text", ["root", "1:root", "-1", "4294967295", "1:"])
def test_user_is_a_number(text: str) -> None:
    with pytest.raises(OciError, match="--user"):
        made("--user", text, "sh")


def test_capabilities_besides_are_not_inheritable() -> None:
    sets = made("--cap", "CAP_CHOWN", "sh")["capabilities"]
    for kind in ("bounding", "permitted", "effective"):
        assert sets[kind] == ["CAP_KILL", "CAP_CHOWN"]
    assert sets["inheritable"] == []
    assert sets["ambient"] == []
    assert OWN["capabilities"] == {kind: ["CAP_KILL"] for kind in ("bounding", "permitted", "effective")}


def test_command_is_needed() -> None:
    with pytest.raises(OciError, match="process args cannot be empty"):
        made()


def test_cwd_is_absolute() -> None:
    with pytest.raises(OciError, match="Cwd must be an absolute path"):
        made("--cwd", "here", "sh")


def test_process_in_a_file_has_the_containers_restrictions(tmp_path: Path) -> None:
    path = tmp_path / "process.json"
    path.write_text(json.dumps({"args": ["x"], "cwd": "/", "user": {"uid": 1, "gid": 1}}))
    entry = made("--process", str(path))
    assert entry["capabilities"] == OWN["capabilities"]
    assert entry["oomScoreAdj"] == 10
    assert "rlimits" not in entry
    assert "env" not in entry
    assert entry["user"] == {"uid": 1, "gid": 1}
    assert not entry["terminal"]


@pytest.mark.parametrize(
    ("text", "named"),
    [("{", "is not JSON"), ('{"args": ["x"]}', "cwd"), ('{"args": ["x"], "cwd": "rel"}', "cwd"), ("[]", "process")],
)
def test_wrong_process_in_a_file(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "process.json"
    path.write_text(text)
    with pytest.raises(OciError, match=named):
        made("--process", str(path))


def test_no_such_file() -> None:
    with pytest.raises(OciError, match="cannot read /nonexistent/x: no such file or directory"):
        made("--process", "/nonexistent/x")


def test_sub_cgroups() -> None:
    assert exec_._sub_cgroups(["/a/b"]) == {"": "a/b"}
    assert exec_._sub_cgroups(["cpu,memory:a", "b"]) == {"cpu": "a", "memory": "a", "": "b"}
    for wrong in (["../x"], ["a/../../x"], ["memory:.."], ["a", "b"], ["cpu:a", "cpu:b"]):
        with pytest.raises(OciError, match="--cgroup"):
            exec_._sub_cgroups(wrong)


class TestPreservedDescriptors:
    def test_none(self) -> None:
        assert descriptors.count(None) == descriptors.count("0") == 0
        assert descriptors.passed(0) == frozenset()

    @pytest.mark.parametrize("text", ["x", "-1", "1.5", "9999999"])
    def test_no_number(self, text: str) -> None:
        with pytest.raises(OciError, match="--preserve-fds"):
            descriptors.count(text)
