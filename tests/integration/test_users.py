"""``--user``: by number, by name, as the container's own files know them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import mydocker

Run = Callable[..., CompletedProcess[str]]

IDS = ["grep", "-E", "^(Uid|Gid|Groups|CapPrm|CapEff|CapInh|CapAmb):", "/proc/self/status"]


def ids(text: str) -> dict[str, list[str]]:
    return {line.partition(":")[0]: line.split()[1:] for line in text.splitlines()}


@pytest.mark.vm_once
def test_root_unless_asked_otherwise(run: Run, rootfs: Path) -> None:
    for options in ([], ["--rootfs", rootfs]):
        shown = ids(run(*options, *IDS).stdout)
        assert (shown["Uid"], shown["Gid"]) == (["0"] * 4, ["0"] * 4)
        assert shown["Groups"] in ([], ["0"])


@pytest.mark.vm_once
@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("1000", "1000", "1000", ["29", "1000"]),
        ("alice", "1000", "1000", ["29", "1000"]),
        ("4242", "4242", "0", ["0"]),
        ("4242:77", "4242", "77", ["77"]),
        ("alice:audio", "1000", "29", ["29"]),
        ("0:29", "0", "29", ["29"]),
    ],
)
def test_who_the_command_is(run: Run, rootfs: Path, user: str, uid: str, gid: str, groups: list[str]) -> None:
    shown = ids(run("--rootfs", rootfs, "-u", user, *IDS).stdout)
    assert (shown["Uid"], shown["Gid"]) == ([uid] * 4, [gid] * 4)
    assert sorted(shown["Groups"]) == sorted(groups)


@pytest.mark.vm_once
def test_another_user_has_no_capabilities(run: Run) -> None:
    for options in ([], ["--init"], ["--privileged"], ["--cap-add", "ALL"]):
        shown = ids(run("-w", "/", "-u", "12345", *options, *IDS).stdout)
        assert [int(shown[name][0], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [0] * 4, options


def test_the_hosts_users_with_the_hosts_root(run: Run) -> None:
    assert run("-w", "/", "-u", "nobody", "id", "-un").stdout == "nobody\n"


def test_the_callers_groups_are_gone(run: Run) -> None:
    def join_groups() -> None:
        os.setgroups([4, 27, 999])

    shown = ids(run("-w", "/", "-u", "12345:12345", *IDS, preexec_fn=join_groups).stdout)
    assert shown["Groups"] == ["12345"]


def test_root_by_default_does_not_keep_the_callers_groups(run: Run) -> None:
    def join_groups() -> None:
        os.setgroups([4, 27, 999])

    assert ids(run(*IDS, preexec_fn=join_groups).stdout)["Groups"] in ([], ["0"])


def test_the_user_cannot_read_what_is_roots(run: Run, rootfs: Path) -> None:
    (rootfs / "root").chmod(0o700)
    assert run("--rootfs", rootfs, "-u", "alice", "ls", "/root").returncode == 1


def test_the_user_can_write_to_the_standard_streams_by_name(run: Run, rootfs: Path) -> None:
    """Pipes are made by the runtime; opening /dev/stdout asks for their mode again."""
    result = mydocker.run(
        ["sh", "-c", "echo out >/proc/self/fd/1"], rootfs=rootfs, user="alice", capture_output=True, text=True
    )
    assert result.stdout in ("out\n", "")
    assert run("--rootfs", rootfs, "-u", "alice", "sh", "-c", "echo out; echo err >&2").stdout == "out\n"


def test_an_unknown_user_is_named(run: Run, rootfs: Path) -> None:
    result = run("--rootfs", rootfs, "-u", "nobody", "true")
    assert (result.returncode, '"nobody"' in result.stderr) == (125, True)


def test_from_python_by_number(rootfs: Path) -> None:
    assert mydocker.run(["id", "-u"], rootfs=rootfs, user=1000, capture_output=True).stdout == b"1000\n"
