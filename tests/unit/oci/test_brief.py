"""When ``create`` leaves a brief for the short verbs, and when it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mydocker import state
from mydocker.oci import brief

CONTENT = b"what is to be done"


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[state.Claim]:
    made = state.make("box", str(tmp_path / "root"))
    made.write(record())
    made.write(record())  # a later one is put there by a rename
    yield made
    made.close()


def record() -> state.Record:
    return state.Record(id="box", runtime=os.getpid(), oci={"complete": True})


def left(claim: state.Claim) -> bytes | None:
    path = Path(claim.path, "brief")
    return path.read_bytes() if path.exists() else None


def test_of_a_record_that_is_as_it_was_written(claim: state.Claim) -> None:
    brief.write(claim, CONTENT)
    assert left(claim) == CONTENT


def test_not_once_somebody_has_changed_the_record(claim: state.Claim, tmp_path: Path) -> None:
    lock = state.lock_for_update("box", str(tmp_path / "root"))
    state.rewrite(record(), lock)
    os.close(lock)
    brief.write(claim, CONTENT)
    assert left(claim) is None


def test_not_while_somebody_changes_it(claim: state.Claim, tmp_path: Path) -> None:
    """An update may wait for the command to be started, so nobody waits for an update."""
    lock = state.lock_for_update("box", str(tmp_path / "root"))
    brief.write(claim, CONTENT)
    os.close(lock)
    assert left(claim) is None


def test_it_goes_when_the_record_is_changed(claim: state.Claim, tmp_path: Path) -> None:
    brief.write(claim, CONTENT)
    lock = state.lock_for_update("box", str(tmp_path / "root"))
    state.rewrite(record(), lock)
    os.close(lock)
    assert left(claim) is None
