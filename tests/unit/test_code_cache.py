"""The code of modules that is kept from one command to the next, and what makes it void."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mydocker import launch
from mydocker.oci.main import VERBS

COMMAND = """
import json, os, sys
from mydocker.code_cache import CodeCache, release
cache = CodeCache("test", ["package.unusual"])
if "unusual" in sys.argv:
    import package.unusual
before = os.listdir("/proc/self/fd")
cache.install()
if "released" in sys.argv:
    release()
    assert os.listdir("/proc/self/fd") == before
for name in sys.argv[sys.argv.index("replaced") + 1:] if "replaced" in sys.argv else ():
    content = open(name, "rb").read()
    os.rename(name, name + ".old")
    open(name, "wb").write(content.replace(b"one", b"bad"))
import package.part, package.inner.deep
modules = (package, package.part, package.inner, package.inner.deep)
served = [type(module.__spec__.loader).__module__ == "mydocker.code_cache" for module in modules]
same = [module.__file__ == module.__spec__.origin and module.__cached__.endswith(".pyc") for module in modules]
assert all(same), same
assert package.inner.__path__ == [package.inner.__file__.rpartition("/")[0]]
cache.keep()
print(json.dumps([served, package.part.word, package.inner.deep.word]))
"""


class Packages:
    """A directory of ``sys.path`` with a package, and the cache of commands that import it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.write("package/__init__.py", "")
        self.write("package/part.py", "word = 'one'")
        self.write("package/unusual.py", "")
        self.write("package/inner/__init__.py", "")
        self.write("package/inner/deep.py", "word = 'two'")

    def write(self, name: str, text: str, *, age: float = 100.0) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    def import_all(
        self, *before: Path, options: tuple[str, ...] = (), words: tuple[str, ...] = ()
    ) -> tuple[list[bool], str, str]:
        """Which of package, part, inner and deep came from the cache, and the words of part and deep."""
        search = os.pathsep.join(map(str, (*before, self.directory)))
        served, part, deep = self.run([sys.executable, *options, "-c", COMMAND, *words], PYTHONPATH=search)
        return served, part, deep

    def run(self, command: list[str], **environment: str) -> Any:
        """What the command prints, with a cache that is this one's."""
        done = subprocess.run(
            command,
            env={**os.environ, "XDG_CACHE_HOME": str(self.directory / "cache"), **environment},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not done.returncode, done.stderr
        return json.loads(done.stdout)

    @property
    def files(self) -> list[Path]:
        return list((self.directory / "cache/mydocker").glob("code-*"))


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


FOUND_BY_PYTHON = [False, False, False, False]
#: The package itself does not come from the cache but for a script: else who knows what is in the working directory.
FROM_THE_CACHE = [False, True, True, True]


def test_second_command_has_the_code_of_the_first(packages: Packages) -> None:
    assert packages.import_all() == (FOUND_BY_PYTHON, "one", "two")
    written = [path.stat() for path in packages.files]
    assert packages.import_all() == (FROM_THE_CACHE, "one", "two")
    assert [path.stat().st_ino for path in packages.files] == [status.st_ino for status in written], "nothing was new"


def test_its_file_is_not_open_for_long(packages: Packages) -> None:
    packages.import_all()
    assert packages.import_all(words=("released",)) == (FROM_THE_CACHE, "one", "two")
    assert packages.import_all(words=("released",)) == (FROM_THE_CACHE, "one", "two")


@pytest.mark.parametrize("released", [(), ("released",)])
def test_a_file_that_another_process_has_written_meanwhile(packages: Packages, released: tuple[str, ...]) -> None:
    """Places in the one are not those in the other: what is open is still the one, and what is not open is not read."""
    packages.import_all()
    (file,) = packages.files
    assert packages.import_all(words=(*released, "replaced", str(file)))[1:] == ("one", "two")


def test_a_file_that_was_cut(packages: Packages) -> None:
    packages.import_all()
    (file,) = packages.files
    whole = file.read_bytes()
    for size in (0, 4, 8, 9, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert packages.import_all() == (FOUND_BY_PYTHON, "one", "two")
        assert packages.import_all() == (FROM_THE_CACHE, "one", "two")


def test_changed_module_is_seen_at_once(packages: Packages) -> None:
    packages.import_all()
    packages.write("package/part.py", "word = 'new'", age=50)
    assert packages.import_all() == ([False, False, True, True], "new", "two")
    assert packages.import_all() == (FROM_THE_CACHE, "new", "two")


def test_module_in_another_file_of_the_same_time_and_size(packages: Packages) -> None:
    packages.import_all()
    former = packages.directory / "package/part.py"
    status = former.stat()
    other = packages.write("package/other.py", "word = 'new'")
    os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
    other.rename(former)
    # Python's own bytecode goes by time and size alone.
    shutil.rmtree(packages.directory / "package/__pycache__", ignore_errors=True)
    assert packages.import_all()[1] == "new"


def test_module_that_changed_a_moment_ago_is_not_kept(packages: Packages) -> None:
    packages.write("package/part.py", "word = 'six'", age=0)
    packages.import_all()
    assert packages.import_all()[0] == [False, False, True, True]


def test_removed_module_is_missing(packages: Packages) -> None:
    packages.import_all()
    (packages.directory / "package/part.py").unlink()
    with pytest.raises(AssertionError, match=r"No module named 'package\.part'"):
        packages.import_all()


def test_package_of_the_same_name_earlier_on_the_path(packages: Packages, tmp_path: Path) -> None:
    packages.import_all()
    other = Packages(tmp_path / "other")
    other.write("package/part.py", "word = 'other'")
    assert packages.import_all(other.directory) == (FOUND_BY_PYTHON, "other", "two")


@pytest.mark.parametrize("damage", [b"", b"\0" * 5000, "half", "no code", "others' write"])
def test_damaged_file_is_passed_over(packages: Packages, damage: bytes | str) -> None:
    packages.import_all()
    (file,) = packages.files
    content = file.read_bytes()
    if damage == "others' write":
        file.chmod(0o666)
    elif damage == "half":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "no code":
        file.write_bytes(content[:-300] + bytes(300))
    else:
        assert isinstance(damage, bytes)
        file.write_bytes(damage)
    assert packages.import_all()[1:] == ("one", "two")


SCRIPT = """
import json, sys
from mydocker.code_cache import CodeCache
class Told:
    asked = []
    def find_spec(self, name, path=None, target=None):
        self.asked.append(name)
for name in ("sched", "_heapq", "heapq"):
    sys.modules.pop(name, None)
cache = CodeCache("standard")
cache.install()
sys.meta_path.insert(1, Told())  # asked for what the cache does not have
import sched, _heapq
assert sched.__spec__.origin == sched.__file__ and sched.__spec__.cached.endswith(".pyc")
assert _heapq.heappop and _heapq.__spec__.has_location
import tomllib  # a package
assert tomllib.loads("a = 1") == {"a": 1}
cache.keep()
print(json.dumps([sorted({"sched", "_heapq"}.intersection(Told.asked)), sched.__file__]))
"""


def test_modules_of_the_standard_library(packages: Packages) -> None:
    """Unless something that Python would find first has come meanwhile."""
    script = packages.write("bin/tool", SCRIPT)

    def changed(age: float) -> None:
        os.utime(script.parent, (time.time() - age,) * 2)

    def run(command: list[str]) -> tuple[list[str], str]:
        asked, file = packages.run(command)
        return asked, file

    as_script = [sys.executable, str(script)]
    both = ["_heapq", "sched"]
    changed(0)
    for _ in range(2):
        python = run(as_script)
        assert python[0] == both  # what will have changed is not known by its time yet
    changed(300)
    assert run(as_script) == python
    (written,) = packages.files
    number = written.stat().st_ino
    for _ in range(2):
        assert run(as_script) == ([], python[1])
    assert written.stat().st_ino == number, "nothing was new"
    assert run([sys.executable, "-c", SCRIPT]) == (both, python[1])  # who knows what is in the working directory
    assert run(as_script)[0] == []
    shadow = packages.write("bin/sched.py", "import heapq")
    changed(200)
    assert run(as_script) == (both, str(shadow))
    assert run(as_script) == ([], str(shadow))
    shadow.unlink()
    changed(100)
    assert run(as_script) == (both, python[1])
    assert run(as_script) == ([], python[1])


IMPORTING = """
import json, sys, time
from mydocker.code_cache import CodeCache
class Told:
    asked = []
    def find_spec(self, name, path=None, target=None):
        self.asked.append(name)
cache = CodeCache("importing")
cache.install()
sys.meta_path.insert(1, Told())
if len(sys.argv) > 1:
    sys.path.append(sys.argv[1])
    import vendored
import kit.part
assert kit.__path__ == [kit.__file__.rpartition("/")[0]] and kit.__spec__.submodule_search_locations == kit.__path__
if len(sys.argv) > 2:
    open(sys.argv[2] + "/kit.py", "w").close()
    time.sleep(2.2)  # after that the directory's time could be relied on
cache.keep()
print(json.dumps([[name for name in Told.asked if name.partition(".")[0] in ("kit", "vendored")], kit.word]))
"""


class Kits:
    """A script that imports the package ``kit``, which is in ``site``; Python looks in ``bin`` and ``near`` first."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages
        self.directory = packages.directory
        self.script = packages.write("bin/tool", IMPORTING)
        (self.directory / "near").mkdir()
        self.add("site", "one")

    def add(self, place: str, word: str) -> None:
        self._packages.write(f"{place}/kit/__init__.py", f"word = {word!r}", age=50)
        self._packages.write(f"{place}/kit/part.py", "")

    def changed(self, **ages: float) -> None:
        for place, age in {"bin": 300.0, "near": 300.0, "site": 300.0, **ages}.items():
            os.utime(self.directory / place, (time.time() - age,) * 2)

    def run(self, *words: str) -> tuple[list[str], str]:
        search = f"{self.directory}/near:{self.directory}/site"
        asked, word = self._packages.run([sys.executable, str(self.script), *words], PYTHONPATH=search)
        return asked, word


@pytest.fixture
def kits(packages: Packages) -> Kits:
    kits = Kits(packages)
    kits.changed()
    assert [kits.run(), kits.run()] == [(["kit", "kit.part"], "one"), ([], "one")]
    return kits


def test_package_that_a_script_imports(kits: Kits) -> None:
    """Unless another of its name may have been installed meanwhile."""
    kits.changed(site=200)
    assert [kits.run(), kits.run()] == [(["kit"], "one"), ([], "one")]
    kits.add("site", "two")
    kits.changed()
    assert [kits.run(), kits.run()] == [(["kit", "kit.part"], "two"), ([], "two")]
    kits.add("bin", "three")
    kits.changed(bin=200)
    assert [kits.run(), kits.run()] == [(["kit", "kit.part"], "three"), ([], "three")]
    shutil.rmtree(kits.directory / "bin/kit")
    kits.changed(bin=100)
    assert kits.run()[1] == "two"
    shutil.rmtree(kits.directory / "site/kit")
    kits.changed(bin=100, site=100)
    with pytest.raises(AssertionError, match="No module named 'kit'"):
        kits.run()


def test_package_that_is_installed_while_a_command_runs(kits: Kits, packages: Packages) -> None:
    packages.write("vendor/vendored/__init__.py", "")
    packages.files[0].unlink()
    assert kits.run(f"{kits.directory}/vendor", f"{kits.directory}/near")[1] == "one"
    with pytest.raises(AssertionError, match="'kit' is not a package"):  # but what was installed
        kits.run()


def test_package_that_a_directory_becomes(kits: Kits) -> None:
    """Without ``__init__.py`` it is passed over, and that may come without a change of what it is in."""
    (kits.directory / "near/kit").mkdir()
    kits.changed(near=200)
    assert [kits.run()[1], kits.run()[1]] == ["one", "one"]
    kits.add("near", "two")  # in near/kit, and not in near
    assert kits.run()[1] == "two"


def test_directory_that_comes_to_the_path_later(kits: Kits, packages: Packages) -> None:
    packages.write("vendor/vendored/__init__.py", "")
    os.utime(kits.directory / "vendor", (1, 1))
    (written,) = packages.files
    number = written.stat().st_ino
    for _ in range(2):
        assert kits.run(f"{kits.directory}/vendor") == (["vendored"], "one")
    assert written.stat().st_ino == number, "it is not written for what cannot be kept"


def test_what_is_imported_on_an_unusual_way_is_not_kept(packages: Packages) -> None:
    packages.import_all(words=("unusual",))
    assert not packages.files
    packages.import_all()
    assert packages.import_all(words=("unusual",))[0] == FROM_THE_CACHE


NEEDING = """
import json, sys
from mydocker import code_cache
code_cache._OWN = "package."
class Told:
    asked = []
    def find_spec(self, name, path=None, target=None):
        self.asked.append(name)
sys.began = []
cache = code_cache.CodeCache("needing")
cache.install()
sys.meta_path.insert(0, Told())
if "released" in sys.argv:
    code_cache.release()
if "threads" in sys.argv:
    import _thread
    lock = _thread.allocate_lock()
    lock.acquire()
    _thread.start_new_thread(lock.acquire, ())
    while not _thread._count():
        pass
import package.top
assert package.top.package is package and package.top.named == package.named == "named"
assert package.low.word == "low" and package.low.__package__ == "package"
assert package.low is sys.modules["package.low"] and package.low.replaced
cache.keep()
print(json.dumps([Told.asked, sys.began, package.top.failed]))
"""


#: Of a package in which a name that is a module's stands for something else, as ``mydocker.hookimpl`` does.
NAMING = """
def __getattr__(name):
    if name != "named":
        raise AttributeError(name)
    import package.named
    globals()["named"] = found = package.named.word
    return found
"""


#: A module that puts another object in its own place.
_REPLACING = """
other = Low(__name__)
other.__dict__.update(globals(), word="low")
sys.modules[__name__] = other
"""


def test_what_a_module_needs_is_loaded_before_it(packages: Packages) -> None:
    """In the order in which Python would, and without what is imported only now and then."""

    def write(name: str, *imports: str, age: float = 100.0) -> None:
        lines = ("import sys", *imports, f"sys.began.append({name!r})", f"word = {name!r}", "")
        packages.write(f"package/{name}.py", "\n".join(lines), age=age)

    packages.write("package/__init__.py", NAMING)

    def run(*words: str) -> tuple[list[str], list[str], str]:
        command = [sys.executable, "-c", NEEDING, *words]
        asked, began, failed = packages.run(command, PYTHONPATH=str(packages.directory))
        return asked, began, failed

    write("low", "class Low(type(sys)): replaced = True", *(_REPLACING.splitlines()))
    write("middle", "import package.low")
    write("rare")
    write("weak", "if 'broken' in sys.argv: raise ImportError('it is broken')")
    write("named")
    attempt = ("failed = ''", "try:", "    from package import weak", "except ImportError as e:", "    failed = str(e)")
    rare = "if 'rare' in sys.argv: import package.rare"
    write("top", rare, "import package", "import package.middle", *attempt, "from package import named")
    order = ["low", "middle", "weak", "named", "top"]
    every = ["package", *(f"package.{name}" for name in ("top", "middle", "low", "weak", "named"))]
    few = ["package", "package.top", "package.named"]
    for asked in (every, every, few, few):
        assert run() == (asked, order, "")
    assert run("released") == (every, order, ""), "there may be threads by now"
    assert run("threads") == (every, order, "")
    for _ in range(2):
        assert run("rare")[1:] == (["low", "middle", "weak", "rare", "named", "top"], "")
        assert run()[1:] == (order, "")
    assert run() == (few, order, "")

    assert run("broken")[1:] == (["low", "middle", "named", "top"], "it is broken"), "where it is imported"
    write("middle", "import package.low", age=50)
    for asked in ([name for name in every if name != "package.low"], every, few):
        assert run() == (asked, order, "")


ALTERNATING = """
import sys
from mydocker import code_cache
code_cache._OWN = "package."
for name in ("sched", "heapq"):
    sys.modules.pop(name, None)
cache = code_cache.CodeCache("alternating")
cache.install()
import package.top
cache.keep()
print("null")
"""


def test_commands_that_begin_in_two_ways_do_not_write_for_ever(packages: Packages) -> None:
    """Only one that begins as a script has modules of the standard library from there, and notes them as needed."""
    script = packages.write("bin/tool", ALTERNATING)
    packages.write("package/top.py", "import sched")
    written = []
    long_ago = time.time() - 300
    for command in [[sys.executable, str(script)], [sys.executable, "-c", ALTERNATING]] * 5:
        for directory in (script.parent, packages.directory):
            os.utime(directory, (long_ago, long_ago))
        packages.run(command, PYTHONPATH=str(packages.directory))
        written.append(packages.files[0].read_bytes())
    assert len(set(written[-4:])) == 1


def test_other_optimization_has_its_own(packages: Packages) -> None:
    packages.import_all()
    assert packages.import_all(options=("-O",))[0] == FOUND_BY_PYTHON
    assert len(packages.files) == 2


def test_frequent_commands_are_verbs() -> None:
    assert set(launch.FREQUENT["mydocker-oci"]) <= set(VERBS)
