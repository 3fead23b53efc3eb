"""What is read of one container is read of the next one like it in one call, and is what it is then."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups import files
from mydocker.cgroups.read_ahead import ReadAhead
from mydocker.errors import CgroupError
from mydocker.linux import batch


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    if not batch.code_page():
        pytest.skip("there is no machine code for this machine, or it may not be executed: all is read one by one")
    yield
    assert not files.ahead
    assert not files.noting
    assert not files.past


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were opened one by one."""
    found: list[str] = []
    real = os.open

    def open_(path: Any, *args: Any, **kwargs: Any) -> int:
        found.append(str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(files.os, "open", open_)
    return found


def container(tmp_path: Path, name: str, **content: str) -> list[str]:
    """Directories of two hierarchies, with the files ``a…`` in one and the others in the other."""
    for file, text in content.items():
        path = tmp_path / ("one" if file.startswith("a") else "two") / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [str(tmp_path / "one" / name), str(tmp_path / "two" / name)]


def reading(directories: list[str], *names: str) -> Callable[[], list[str]]:
    return lambda: [files.read(f"{directories[not name.startswith('a')]}/{name}") for name in names]


def test_the_second_container_s_are_read_together(tmp_path: Path, opened: list[str]) -> None:
    ahead = ReadAhead()
    first = container(tmp_path, "first", a="1\n", a2="2\n", b="3\n")
    second = container(tmp_path, "second", a="4\n", a2="5 \n6\n", b="7\n")
    assert ahead.during(first, "kind", reading(first, "a", "a2", "b")) == ["1", "2", "3"]
    assert len(opened) == 3
    assert ahead.during(second, "kind", reading(second, "a", "a2", "b")) == ["4", "5 \n6", "7"]
    assert len(opened) == 3


def test_each_is_what_it_is_at_the_second_reading(tmp_path: Path) -> None:
    ahead = ReadAhead()
    here = container(tmp_path, "x", a="1", b="2")
    path = f"{here[0]}/a"
    ahead.during(here, "kind", reading(here, "a", "b"))

    def work() -> list[str]:
        before = files.read(path)
        Path(path).write_text("changed")
        return [before, files.read(path)]

    assert ahead.during(here, "kind", work) == ["1", "changed"]


def test_what_was_written_meanwhile_is_read_anew(tmp_path: Path) -> None:
    ahead = ReadAhead()
    here = container(tmp_path, "x", a="1")
    ahead.during(here, "kind", reading(here, "a"))

    def work() -> str:
        files.write(f"{here[0]}/a", "22")
        return files.read(f"{here[0]}/a")

    assert ahead.during(here, "kind", work) == "22"


def test_what_is_beside_a_written_file_is_read_anew(tmp_path: Path) -> None:
    """It may follow from that."""
    ahead = ReadAhead()
    here = container(tmp_path, "x", a="1", a2="2")
    ahead.during(here, "kind", reading(here, "a", "a2"))

    def work() -> str:
        Path(f"{here[0]}/a2").write_text("3")
        files.write(f"{here[0]}/a", "4")
        return files.read(f"{here[0]}/a2")

    assert ahead.during(here, "kind", work) == "3"


def test_a_fork_has_nothing_of_another_thread_s(tmp_path: Path) -> None:
    ahead = ReadAhead()
    here = container(tmp_path, "x", a="1")

    def in_fork() -> int:
        files.read(f"{here[0]}/a")
        pid = os.fork()
        if pid == 0:
            os._exit(7 if not files.ahead and not files.noting and not files.past else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert [ahead.during(here, "kind", in_fork) for _ in range(2)] == [7, 7]


def test_interrupts_leave_nothing(tmp_path: Path, interrupted: Callable[[Callable[[int], object]], None]) -> None:
    ahead = ReadAhead()
    here = container(tmp_path, "x", a="1", b="2")

    def read(n: int) -> None:
        for kind in range(20):
            ahead.during(here, (n, kind // 4), reading(here, "a", "b"))

    interrupted(read)


def test_a_first_reading_that_fails_is_not_what_is_known(tmp_path: Path, opened: list[str]) -> None:
    ahead = ReadAhead()
    here = container(tmp_path, "x", a="1", b="2")
    with pytest.raises(CgroupError):
        ahead.during(here, "kind", reading(here, "a", "a9"))
    ahead.during(here, "kind", reading(here, "a", "b"))
    opened.clear()
    assert ahead.during(here, "kind", reading(here, "a", "b")) == ["1", "2"]
    assert not opened


def test_another_kind_and_what_is_not_known_are_read_one_by_one(tmp_path: Path, opened: list[str]) -> None:
    ahead = ReadAhead()
    here = container(tmp_path, "x", a="1", a2="2", b="3")
    ahead.during(here, "kind", reading(here, "a"))
    opened.clear()
    ahead.during(here, "other", reading(here, "a"))
    assert opened == [f"{here[0]}/a"]
    assert ahead.during(here, "kind", reading(here, "a", "a2", "b")) == ["1", "2", "3"]
    assert opened[1:] == [f"{here[0]}/a2", f"{here[1]}/b"]


def test_a_file_that_is_gone_or_empty_or_long_is_read_as_ever(tmp_path: Path) -> None:
    ahead = ReadAhead()
    first = container(tmp_path, "first", a="1", a2="2", a3="3", b="4")
    long = "x" * (files.FAR_SHORTER + 1)
    second = container(tmp_path, "second", a2="", a3=long, b="5")
    ahead.during(first, "kind", reading(first, "a", "a2", "a3", "b"))
    assert ahead.during(second, "kind", reading(second, "a2", "a3", "b")) == ["", long, "5"]
    with pytest.raises(CgroupError, match="No such file"):
        ahead.during(second, "kind", reading(second, "a"))


def test_a_directory_that_is_gone_takes_nothing_along(tmp_path: Path) -> None:
    ahead = ReadAhead()
    first = container(tmp_path, "first", a="1", b="2")
    ahead.during(first, "kind", reading(first, "a", "b"))
    before = len(os.listdir("/proc/self/fd"))
    second = container(tmp_path, "second", b="3")
    assert ahead.during(second, "kind", reading(second, "b")) == ["3"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_error_leaves_nothing_for_the_next_reader(tmp_path: Path) -> None:
    ahead = ReadAhead()
    here = container(tmp_path, "x", a="1")
    ahead.during(here, "kind", reading(here, "a"))

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        ahead.during(here, "kind", fail)
    Path(f"{here[0]}/a").write_text("2")
    assert files.read(f"{here[0]}/a") == "2"


def test_threads_read_their_own_while_others_write(tmp_path: Path) -> None:
    ahead = ReadAhead()
    many = [f"a{number}" for number in range(20)]
    names = [f"c{number}" for number in range(4)]
    places = {name: container(tmp_path, name, b=name * 2, **dict.fromkeys(many, name)) for name in names}
    wrong: list[object] = []

    def read(name: str) -> None:
        for _ in range(600):
            found = ahead.during(places[name], "kind", reading(places[name], *many, "b"))
            if found != [*[name] * len(many), name * 2]:
                wrong.append(found)

    def write(name: str) -> None:
        try:
            while any(thread.is_alive() for thread in threads[: len(names)]):
                files.write(f"{other}/{name}", "x")
        except BaseException as e:
            wrong.append(e)

    other = container(tmp_path, "other", a0="", a1="")[0]
    works = [*((read, name) for name in names), (write, "a0"), (write, "a1")]
    threads = [threading.Thread(target=work, args=(name,)) for work, name in works]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def gone(directories: list[str]) -> None:
    for directory in directories:
        shutil.rmtree(directory)


class TestPuttingOff:
    """Work that asks for nothing but what is known beforehand."""

    @staticmethod
    def asking(directories: list[str]) -> Callable[[], list[object]]:
        def work() -> list[object]:
            one, two = directories
            looks = [files.exists(f"{one}/{name}") for name in ("a", "a8", "a9")]
            return [files.read(f"{one}/a"), *looks, files.has_nested(two), files.read(f"{two}/b")]

        return work

    def test_is_done_by_what_was_there(self, tmp_path: Path, opened: list[str]) -> None:
        ahead = ReadAhead()
        first = container(tmp_path, "first", a="1", a8="", b="2")
        work = self.asking(first)
        assert ahead.during(first, "kind", work, work) == ["1", True, True, False, False, "2"]
        second = container(tmp_path, "second", a="3", a8="", b="4")
        work = self.asking(second)
        later = ahead.during(second, "kind", work, work)
        assert callable(later)
        gone(second)
        container(tmp_path, "second", a="another's", a9="", b="of the same name")
        opened.clear()
        expected = ["3", True, True, False, False, "4"]
        assert later() == later() == expected
        in_thread: list[object] = []
        thread = threading.Thread(target=lambda: in_thread.append(later()))
        thread.start()
        thread.join()
        assert in_thread == [expected]
        assert not opened

    def test_no_other_thread_is_told_of_it(self, tmp_path: Path) -> None:
        ahead = ReadAhead()
        here = container(tmp_path, "x", a="1")
        seen: list[object] = []

        def live() -> None:
            seen.extend([files.read(f"{here[0]}/a"), files.exists(f"{here[0]}/a2"), files.has_nested(here[0])])

        def later() -> str:
            thread = threading.Thread(target=live)
            thread.start()
            thread.join()
            return files.read(f"{here[0]}/a")

        ahead.during(here[:1], "kind", reading(here, "a"))
        done = ahead.during(here[:1], "kind", lambda: "", later)
        assert callable(done)
        container(tmp_path, "x", a="new", a2="")
        Path(here[0], "nested").mkdir()
        assert done() == "1"
        assert seen == ["new", True, True]

    @pytest.mark.parametrize("ask", [files.read, files.exists, lambda path: files.has_nested(os.path.dirname(path))])
    @pytest.mark.parametrize("above", [False, True])
    def test_what_nobody_has_asked_for_before_is_an_error(
        self, tmp_path: Path, ask: Callable[[str], object], above: bool
    ) -> None:
        """Never an answer of what is there now. Also about the cgroups above."""
        ahead = ReadAhead()
        here = container(tmp_path, "x", a="1", a2="2")
        asked = f"{here[0]}/a2"
        if above:
            asked = f"{tmp_path}/one/a2"
            Path(asked).write_text("2")
        ahead.during(here[:1], "kind", reading(here, "a"))
        later = ahead.during(here[:1], "kind", list, lambda: [ask(asked)])
        assert callable(later)
        with pytest.raises((CgroupError, OSError), match=r"the cgroup was removed|No such device"):
            later()
        assert files.read(asked) == "2"

    def test_about_others_the_kernel_is_asked(self, tmp_path: Path) -> None:
        """A handler of signals may do anything meanwhile."""
        ahead = ReadAhead()
        here, other = container(tmp_path, "x", a="1")[0], container(tmp_path, "y", a="2")[0]
        ahead.during([here], "kind", reading([here], "a"))

        def work() -> list[object]:
            return [files.read(f"{other}/a"), files.exists(f"{other}/a2"), files.read(f"{here}/a")]

        later = ahead.during([here], "kind", list, work)
        assert callable(later)
        Path(other, "a").write_text("3")
        assert later() == ["3", False, "1"]

    def test_interrupted_by_another_it_goes_on(self, tmp_path: Path) -> None:
        """A handler of signals may look at figures."""
        ahead = ReadAhead()
        places = [container(tmp_path, name, a=name)[:1] for name in ("first", "inner", "outer")]
        ahead.during(places[0], "kind", reading(places[0], "a"))
        inner = ahead.during(places[1], "kind", list, reading(places[1], "a"))
        assert callable(inner)

        def work() -> list[str]:
            return [*inner(), *reading(places[2], "a")()]

        outer = ahead.during(places[2], "kind", list, work)
        assert callable(outer)
        gone([place[0] for place in places])
        assert outer() == ["inner", "outer"]

    @pytest.mark.parametrize("change", ["missing", "empty", "long", "nested", "fewer directories"])
    def test_is_not_done_where_something_is_otherwise(self, tmp_path: Path, change: str) -> None:
        ahead = ReadAhead()
        here = container(tmp_path, "x", a="1", a2="2", a8="", b="3")

        def work() -> list[object]:
            return [files.exists(f"{here[0]}/a2") and files.read(f"{here[0]}/a2"), *self.asking(here)()]

        assert ahead.during(here, "kind", work, work) == ["2", "1", True, True, False, False, "3"]
        assert callable(ahead.during(here, "kind", work, work))
        if change == "missing":
            Path(here[0], "a2").unlink()
        elif change == "nested":
            Path(here[1], "nested").mkdir()
        else:
            Path(here[0], "a2").write_text({"empty": "", "long": "x" * 5000}.get(change, "2"))
        found = ahead.during(here[: 1 if change == "fewer directories" else 2], "kind", work, work)
        expected = {"missing": False, "empty": "", "long": "x" * 5000}.get(change, "2")
        assert found == [expected, "1", True, True, False, change == "nested", "3"]

    @pytest.mark.parametrize("ask", [files.read, files.exists, lambda path: files.has_nested(os.path.dirname(path))])
    def test_is_not_done_where_more_is_asked(self, tmp_path: Path, ask: Callable[[str], object]) -> None:
        """About what is not of these directories, and so may be otherwise later."""
        ahead = ReadAhead()
        here = container(tmp_path, "x", a="1", b="2")
        other = f"{here[1]}/b"

        def work() -> list[object]:
            return [files.read(f"{here[0]}/a"), ask(other)]

        found = ahead.during(here[:1], "kind", work, work)
        assert isinstance(found, list)
        assert ahead.during(here[:1], "kind", work, work) == found

    def test_what_other_threads_ask_for_meanwhile_is_theirs(self, tmp_path: Path) -> None:
        ahead = ReadAhead()
        here = container(tmp_path, "x", a="1", b="2")

        def work() -> list[str]:
            thread = threading.Thread(target=files.read, args=(f"{here[1]}/b",))
            thread.start()
            thread.join()
            return reading(here, "a")()

        ahead.during(here[:1], "kind", work, work)
        assert callable(ahead.during(here[:1], "kind", work, work))
