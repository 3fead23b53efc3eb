"""Which table is kept for which kind of container, and what makes it void."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mydocker import cache_file, kept_table
from mydocker.kept_table import _Kept
from mydocker.linux import machine, thermal
from mydocker.plan import Plan
from mydocker.seccomp import Filter
from mydocker.spec import Spec, Volume
from mydocker.table import SIZE, Table
from mydocker.user import User

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no machine code for this machine")

PLAN = Plan(
    spec=Spec(args=(b"true",), rootfs="/", name="one"),
    staging="/somewhere",
    hierarchies=(),
    user=User(),
    capabilities=7,
    cwd="/",
    filter=Filter(program=bytes(8), flags=0, listener_path=""),
    commands=7,
    ahead=True,
)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of the cache, and of what stands for mydocker's source."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept_table, "_HERE", str(tmp_path))
    monkeypatch.setattr(kept_table, "SOURCES", ("source",))
    monkeypatch.setattr(cache_file, "SETTLED", 0.0)  # the file is as old as this test
    write_source(tmp_path, age=100)
    yield tmp_path
    for table in kept:
        table.close()
    kept.clear()


kept: list[Table] = []


def write_source(directory: Path, *, age: float) -> None:
    (directory / "source.py").write_text("")
    os.utime(directory / "source.py", (time.time() - age,) * 2)


def find(plan: Plan = PLAN) -> Table | None:
    """As a process does that has none at that address yet."""
    while kept:
        kept.pop().close()
    found = _Kept(plan).table()
    kept.extend([found] if found is not None else [])
    return found


def image(plan: Plan = PLAN) -> bytes | None:
    found = find(plan)
    return found.image() if found is not None else None


def test_the_second_of_a_kind_works_it_out_and_the_third_has_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert image() is None
    made = image()
    assert made is not None
    monkeypatch.setattr(_Kept, "_worked_out", None)
    found = find()
    assert found is not None
    assert found.image() == made
    assert machine.content(found.places.begin + len(made), SIZE - len(made)).count(0) == SIZE - len(made)


def test_kinds_differ_in_what_the_child_does() -> None:
    spec = PLAN.spec
    same = PLAN.replace(
        spec=spec.replace(args=(b"false",), name="two", timeout=1.0, env=(b"A=B",)), staging="/other", commands=9
    )
    others = (
        PLAN.replace(capabilities=3),
        PLAN.replace(cwd="/tmp"),
        PLAN.replace(user=User(uid=1, gid=1)),
        PLAN.replace(filter=Filter(program=bytes(16), flags=0, listener_path="")),
        PLAN.replace(filter=None),
        PLAN.replace(cgroups=True),
        PLAN.replace(spec=spec.replace(rootfs="/usr")),
        PLAN.replace(spec=spec.replace(readonly=True)),
        PLAN.replace(spec=spec.replace(network="host")),
        PLAN.replace(spec=spec.replace(mounts=(Volume(source="/etc", destination="/x"),))),
        PLAN.replace(spec=spec.replace(no_new_privileges=False)),
    )
    find()
    assert find(same) is not None
    for other in others:
        assert find(other) is None
        assert find(other) is not None
    assert find() is not None


def test_a_change_of_the_source_or_of_the_host_makes_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find()
    assert find() is not None
    write_source(directory, age=50)
    assert find() is None
    assert find() is not None
    monkeypatch.setattr(thermal, "heat_of_cpus", lambda: [b"sys/one/more"])
    assert find() is None
    assert find() is not None


def test_nothing_is_kept_of_a_source_that_may_have_changed_since_it_was_imported(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its time, or by when it got that time: who unpacks a package gives files their old ones."""
    monkeypatch.setattr(cache_file, "SETTLED", 2.0)
    for _ in range(3):
        find()
    write_source(directory, age=0)
    for _ in range(3):
        find()
    (directory / "source.py").unlink()
    for _ in range(3):
        find()
    assert all(file.stat().st_size < 10_000 for file in (directory / "mydocker").glob("table-*"))


def test_a_file_that_is_not_whole_or_not_ours_is_not_used(directory: Path) -> None:
    find()
    made = image()
    (file,) = (directory / "mydocker").glob("table-*")
    whole = file.read_bytes()
    for content in (b"", b"\0" * 99, os.urandom(5000), whole[:3000], whole[:-1], whole[:-4] + bytes(4)):
        file.write_bytes(content)
        assert find() is None  # as if it were the first
        assert image() == made
        assert file.read_bytes() == whole
    file.write_bytes(whole)
    file.chmod(0o666)
    assert find() is None


def test_the_file_of_another_kind_is_not_used(directory: Path) -> None:
    find()
    find()
    (file,) = (directory / "mydocker").glob("table-*")
    other = PLAN.replace(capabilities=3)
    content = file.read_bytes()
    find(other)
    (its,) = {*(directory / "mydocker").glob("table-*")} - {file}
    its.write_bytes(content)
    assert find(other) is None


def test_where_something_else_is_at_its_address() -> None:
    find()
    assert find() is not None
    kept.pop().close()
    address = machine.new_memory(SIZE, later=True, at=kept_table.ADDRESS + SIZE // 2)
    try:
        assert _Kept(PLAN).table() is None
    finally:
        machine.give_back(address, SIZE)
    assert find() is not None


def test_what_machine_code_has_failed_at_is_left_to_the_interpreter_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find()
    assert find() is not None
    _Kept(PLAN).refuse()
    assert find() is None
    assert find() is None
    later = time.time() + 2 * kept_table._REFUSED_FOR
    monkeypatch.setattr(time, "time", lambda: later)
    assert find() is not None


def test_all_by_which_a_table_is_worked_out_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    done = subprocess.run(
        [sys.executable, "-c", "import sys, mydocker.waiting; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name for name in done.stdout.split() if name.startswith("mydocker.")}
    assert imported - {"mydocker.linux"} <= {f"mydocker.{name.replace('/', '.')}" for name in kept_table.SOURCES}
