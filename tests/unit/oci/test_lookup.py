"""Where the command is, and the words for where it is not: those of Go's exec.LookPath, which engines match on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mydocker.oci import lookup, process, restriction


class TestLookUp:
    @staticmethod
    def refusal(name: str, path: str = "") -> str:
        with pytest.raises(lookup.LookUpError) as caught:
            lookup.look_up(os.fsencode(name), {b"PATH": os.fsencode(path)})
        return str(caught.value)

    @staticmethod
    def program(path: Path, mode: int = 0o755) -> Path:
        path.write_text("")
        path.chmod(mode)
        return path

    def test_path(self, tmp_path: Path) -> None:
        found = self.program(tmp_path / "x")
        assert lookup.look_up(os.fsencode(found), {}) == os.fsencode(found)

    def test_name_in_the_first_directory_that_has_it(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir()
        self.program(tmp_path / "a" / "x", 0o644)
        (tmp_path / "b" / "x").mkdir()
        found = self.program(tmp_path / "c" / "x")
        path = f"/nonexistent:{tmp_path}/a:{tmp_path}/b:{tmp_path}/c"
        assert lookup.look_up(b"x", {b"PATH": os.fsencode(path)}) == os.fsencode(found)

    def test_missing(self, tmp_path: Path) -> None:
        assert self.refusal("x", str(tmp_path)) == 'exec: "x": executable file not found in $PATH'
        assert self.refusal("", str(tmp_path)) == 'exec: "": executable file not found in $PATH'
        path = f"{tmp_path}/x"
        assert self.refusal(path) == f'exec: "{path}": stat {path}: no such file or directory'

    def test_without_a_path_there_is_no_command(self) -> None:
        assert self.refusal("sh") == 'exec: "sh": executable file not found in $PATH'

    def test_below_a_file(self, tmp_path: Path) -> None:
        path = f"{self.program(tmp_path / 'x')}/y"
        assert self.refusal(path) == f'exec: "{path}": stat {path}: not a directory'

    def test_not_executable(self, tmp_path: Path) -> None:
        found = self.program(tmp_path / "x", 0o644)
        assert self.refusal(str(found)) == f'exec: "{found}": permission denied'
        assert self.refusal("x", str(tmp_path)) == 'exec: "x": executable file not found in $PATH'

    def test_directory(self, tmp_path: Path) -> None:
        assert self.refusal(str(tmp_path)) == f'exec: "{tmp_path}": is a directory: permission denied'

    def test_in_the_working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        self.program(tmp_path / "x")
        assert self.refusal("x", ".") == 'exec: "x": cannot run executable found relative to current directory'
        assert lookup.look_up(b"./x", {}) == b"./x"

    def test_name_is_quoted(self) -> None:
        assert self.refusal('a"b\n') == 'exec: "a\\"b\\n": executable file not found in $PATH'


def test_environment_has_each_variable_once_and_a_home() -> None:
    plan = process.ProcessPlan(uid=4_000_000_000)  # who is in no /etc/passwd
    assert restriction.environment(plan, [b"A=1", b"B=2", b"A=3"]) == {b"A": b"3", b"B": b"2", b"HOME": b"/"}
    assert restriction.environment(plan, [b"HOME=/h"]) == {b"HOME": b"/h"}
