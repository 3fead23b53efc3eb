"""The code of all modules that a command imports, kept in one file, and read from there the next time.

Python looks for each module in each directory of its path, lists that, and opens, compares and reads a file: some ten
system calls and 150 µs, sixty times in a run. Here a module costs one ``stat(2)``, of its source: that has to have the
time, size and inode that it had. What has changed, and what is not here, Python itself finds, and the file is written
anew when the command has come to its end. Of the file each module's part is read when it is wanted: to have all of it
in memory takes longer, for the kernel has to find a page for every 4 KiB.

What a module of mydocker's own imports as it begins is noted when it has been served for the first time. From then on
that is loaded before it, one after another, and its import statements find it there: all that they do besides takes
a module 12 µs. They also do it for several threads at once; so this is left to them from `release` on.

Modules within packages are served, in the one directory that their package has. So are packages, and of the standard
library the modules that stand by themselves, as long as neither the directory in which Python has found one has changed
nor one in which it would look first: else it is for Python to find what their names stand for.
"""

from __future__ import annotations

import marshal
import os
import sys

# What importlib is made of. Its own name imports warnings, and with that a good part of the standard library.
from _frozen_importlib import ModuleSpec, _load_unlocked  # type: ignore[attr-defined]
from _frozen_importlib_external import ExtensionFileLoader, SourceFileLoader
from _thread import _count as count_of_threads

from mydocker import cache_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any

    from mydocker.cache_file import Stamp

    #: file, its stamp, path of Python's own bytecode, whether it is a package, place and size in the cache, which has
    #: nothing of a module that is written in C, and what it imports as it begins, or None if that is not known
    Entry = tuple[str, Stamp, str, bool, int, int, tuple[str, ...] | None]

FORMAT = 4

#: The file begins with the size of its head, in so many bytes. Most heads come with the first read.
_SIZE = 8
_FIRST = 1 << 16

#: Where its descriptor is, if nothing else is there.
_HIGH = 1000

#: Of whose modules is noted what they import. In others, order may matter.
_OWN = __name__.partition(".")[0] + "."

_installed: list[CodeCache] = []


class CodeCache:
    """The modules of one kind of command. A finder of ``sys.meta_path``, from `install` on."""

    def __init__(self, kind: str, unusual: Sequence[str] = ()) -> None:
        """``kind``: any text; commands that import nearly the same have one.

        ``unusual``: modules that a command of this kind imports only where it takes a way that others do not.
        """
        self._name = cache_file.path("code", "\0".join(self._key(kind)).encode("utf-8", "surrogateescape"))
        self._key_here = self._key(kind)
        self._entries: dict[str, Entry] = {}
        #: the directories in which Python looks for what is in no package; and those that are known, each as it was,
        #: and how many of them are still so
        self._path: tuple[str, ...] = ()
        self._search: tuple[tuple[str, Stamp], ...] = ()
        self._same: int | None = None
        #: nanoseconds; what has changed since may have been found as it was before
        self._installed = 0
        #: its file, while that is open; when it was last seen; and where in it the modules begin
        self._file = -1
        self._seen: tuple[int, int, int] | None = None
        self._begin = 0
        #: what Python was asked for that is not served
        self._missed: dict[str, None] = {}
        #: what has been served, in the order in which it was complete; and what is new of that
        self._completed: list[str] = []
        self._learned: dict[str, tuple[str, ...]] = {}
        self._is_beginning = True
        self._unusual = unusual

    @staticmethod
    def _key(kind: str) -> tuple[str, ...]:
        return (kind, sys.version, sys.implementation.cache_tag or "", str(sys.flags.optimize), __file__)

    def install(self) -> None:
        """Serve modules from now on. `release` is owed."""
        try:
            self._read()
        except Exception:  # whatever is wrong with the file, Python itself knows better
            self._entries = {}
        self._installed = cache_file.now()
        self._path = tuple(sys.path)
        _installed.append(self)
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def _read(self) -> None:
        found = cache_file.opened(self._name) if self._name is not None else None
        if found is None:
            return
        fd, status = found
        content = os.read(fd, _FIRST)
        begin = _SIZE + int.from_bytes(content[:_SIZE], "little")
        if len(content) < begin:
            content += os.read(fd, begin - len(content))
        self._file = _out_of_the_way(fd)
        version, key, size, entries, search = marshal.loads(content[_SIZE:begin])
        if version == FORMAT and key == self._key_here and status.st_size == begin + size:
            self._entries, self._search = entries, search
            self._begin, self._seen = begin, _identity(status)

    def end_beginning(self) -> None:
        """From now on the file is opened for each module that is still wanted, and none is loaded before another."""
        self._is_beginning = False
        fd, self._file = self._file, -1
        try:
            if fd >= 0:
                os.close(fd)
        except OSError:
            pass  # a plugin has closed all that it does not know

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> object:
        spec = self._spec(name, path)
        if spec is None:
            self._missed[name] = None
        return spec

    def _spec(self, name: str, path: Sequence[str] | None) -> object:
        entry = self._entries.get(name)
        if entry is None:
            return None
        file, stamp, bytecode, package, _, size, _ = entry
        if path is None:
            is_there = self._is_found_where_it_was(entry)
        else:
            last = f"{name.rpartition('.')[2]}{'/__init__.py' if package else '.py'}"
            is_there = len(path) == 1 and f"{path[0]}/{last}" == file
        if not is_there or cache_file.stamp(file) != stamp:
            return None
        loader: Any = _Loader(name, file, self) if size else _KnownExtension(name, file, self)
        spec: Any = ModuleSpec(name, loader, origin=file, is_package=package)
        spec.has_location = True
        spec.cached = bytecode or None
        if package:
            spec.submodule_search_locations.append(_directory(file))
        return spec

    def _is_found_where_it_was(self, entry: Entry) -> bool:
        """Whether Python would find what is in no package, and is known, where that was."""
        place = _place(entry[0], package=entry[3])
        return any(path == place for path, _ in self._unchanged())

    def _unchanged(self) -> tuple[tuple[str, Stamp], ...]:
        """The directories in which Python looks first that are as they were."""
        if self._same is None:
            self._same = 0
            for (path, found), now in zip(self._search, sys.path, strict=False):
                if path != now or cache_file.stamp(path) != found:
                    break
                self._same += 1
        return self._search[: self._same]

    def load_needs(self, name: str) -> None:
        """Load what a module imports as it begins. Where that cannot be, its own import says why."""
        if not self._is_beginning or count_of_threads():
            return
        try:
            for needed in self._entries[name][6] or ():
                above, _, last = needed.rpartition(".")
                if needed in sys.modules or (above and above not in sys.modules):
                    continue
                package = sys.modules[above] if above else None
                spec = self._spec(needed, package.__path__ if package is not None else None)
                if spec is None:
                    return  # what comes after it is to be loaded after it
                module = _loaded(spec)
                if package is not None:
                    setattr(package, last, module)
        except Exception:
            return

    def begin(self) -> int:
        """A module begins. The mark is for `complete`."""
        return len(self._completed)

    def complete(self, name: str, mark: int) -> None:
        """A module is complete; so are those that were meanwhile."""
        if not self._is_beginning:
            return
        if name.startswith(_OWN) and self._entries[name][6] is None:
            self._learned[name] = tuple(filter(_is_what_its_package_has, self._completed[mark:]))
        self._completed.append(name)

    def code(self, name: str) -> CodeType:
        """OSError, ValueError, EOFError or TypeError if it cannot be read any more."""
        return marshal.loads(self._part(self._entries[name]))  # type: ignore[no-any-return]

    def _part(self, entry: Entry) -> bytes:
        _, _, _, _, start, size, _ = entry
        if self._file >= 0:
            return os.pread(self._file, size, self._begin + start)
        found = cache_file.opened(self._name) if self._name is not None else None
        if found is None:
            raise ValueError("the file is not ours any more")
        fd, status = found
        try:
            if _identity(status) != self._seen:
                raise ValueError("another process has written the file anew")
            return os.pread(fd, size, self._begin + start)
        finally:
            os.close(fd)

    def keep(self) -> None:
        """At the end of a command: if it has imported what was not here, write all that there is now.

        Not where something was unusual: what that takes, the next one does not.
        """
        try:
            if self._name is not None and not any(name in sys.modules for name in self._unusual):
                self._keep(self._name)
        except Exception:
            pass  # that it cannot be kept is no error

    def _keep(self, name: str) -> None:
        loaded = {module: sys.modules[module] for module in self._missed if module in sys.modules}
        missing = [module for module, found in loaded.items() if _is_read_from_source(found)]
        search = self._search
        if _begins_as_script():
            places = {module: place for module, found in loaded.items() if (place := self._place_of(found)) is not None}
            if places:
                top, search = self._where_python_looks(places)
                missing += top
        if not missing and not self._learned:
            return
        served = [path for path, _ in search]
        entries: dict[str, Entry] = {}
        parts: list[bytes] = []
        at = 0
        for module, entry in self._entries.items():
            file, stamp, bytecode, package, _, size, needs = entry
            # What is new may stand for something that is not needed any more: it is all to be learned again.
            needs = None if missing else self._learned.get(module, needs)
            if "." not in module and _place(file, package=package) not in served:
                continue
            if module not in missing and cache_file.stamp(file) == stamp:
                entries[module] = (file, stamp, bytecode, package, at, size, needs)
                parts.append(self._part(entry))
                at += size
        known = len(entries)
        for module in missing:
            spec: Any = loaded[module].__spec__
            stamp = cache_file.stamp(spec.origin)
            compiled = spec.loader.get_code(module)
            code = b"" if compiled is None else marshal.dumps(compiled)
            # Python may have compiled what the file held a moment ago.
            if stamp is not None and self._is_trusted(stamp) and cache_file.stamp(spec.origin) == stamp:
                package = _is_package(spec)
                entries[module] = (spec.origin, stamp, spec.cached or "", package, at, len(code), None)
                parts.append(code)
                at += len(code)
        if len(entries) > known or self._learned:
            head = marshal.dumps((FORMAT, self._key_here, at, entries, search))
            cache_file.write(name, b"".join((len(head).to_bytes(_SIZE, "little"), head, *parts)), summed=False)

    def _place_of(self, module: ModuleType) -> str | None:
        """The directory of the path in which Python has found it, of a package or a module of the standard library that
        is in no package and was read from a file.
        """
        spec = getattr(module, "__spec__", None)
        if spec is None or type(spec.loader) not in (SourceFileLoader, ExtensionFileLoader) or "." in spec.name:
            return None
        package = _is_package(spec)
        place = _place(spec.origin, package=package)
        return place if (package or spec.name in sys.stdlib_module_names) and place in self._path else None

    def _where_python_looks(self, places: dict[str, str]) -> tuple[list[str], tuple[tuple[str, Stamp], ...]]:
        """Those of the modules that Python would find again in these places, and the directories in which it looks for
        them and for those that are known.
        """
        search = list(self._unchanged())
        for path in self._path[len(search) :]:
            found = cache_file.stamp(path)
            if not self._is_trusted(found):
                break
            search.append((path, found))
        numbers = {name: self._path.index(place) for name, place in places.items()}
        names = [name for name, at in numbers.items() if at < len(search) and not self._may_be_found_before(name, at)]
        if not names:
            return [], self._search
        count = max(len(self._unchanged()), *(numbers[name] + 1 for name in names))
        return names, tuple(search[:count])

    def _is_trusted(self, found: Stamp) -> bool:
        """Whether what has this stamp now is as it was when this command began."""
        return found is None or cache_file.settled(found[0], self._installed)

    def _may_be_found_before(self, name: str, at: int) -> bool:
        """Whether one of the first ``at`` directories has something of that name that is no module yet: it may become
        one without a change of the directory.
        """
        return any(os.path.lexists(f"{path}/{name}") for path in self._path[:at])


def release() -> None:
    """Close the file of the cache that is installed: most of what is wanted is imported, and what comes now asks which
    descriptors are open, or has them closed.
    """
    while _installed:
        _installed.pop().end_beginning()


def _out_of_the_way(fd: int) -> int:
    """The same file by a high number; -1 if that cannot be. A low one could be taken for what the caller has opened."""
    try:
        for number in range(_HIGH, _HIGH + 16):
            try:
                os.fstat(number)
            except OSError:
                return os.dup2(fd, number, inheritable=False)
    except OSError:  # RLIMIT_NOFILE is lower
        pass
    finally:
        os.close(fd)
    return -1


def _loaded(spec: Any) -> ModuleType:
    """The module, as importlib loads one (Python's documentation, "The import system", 5.4), but without a look at what
    neither the loader nor the module has: that is half of what it does.
    """
    if type(spec.loader) is not _Loader:
        return _load_unlocked(spec)  # type: ignore[no-any-return]
    name = spec.name
    module = type(sys)(name)
    attributes = module.__dict__
    attributes["__spec__"] = spec
    attributes["__loader__"] = spec.loader
    attributes["__package__"] = spec.parent
    attributes["__file__"] = spec.origin
    attributes["__cached__"] = spec.cached
    if _is_package(spec):
        attributes["__path__"] = spec.submodule_search_locations
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return sys.modules[name]  # it may have put something else there


def _is_what_its_package_has(name: str) -> bool:
    """Whether a module is the attribute of its name: a package may put something else there."""
    above, _, last = name.rpartition(".")
    return not above or getattr(sys.modules.get(above), last, None) is sys.modules.get(name)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Loader(SourceFileLoader):
    """Python's own, but for where the code comes from."""

    def __init__(self, name: str, path: str, cache: CodeCache) -> None:
        super().__init__(name, path)
        self._cache = cache

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        mark = self._cache.begin()
        self._cache.load_needs(name)
        super().exec_module(module)
        self._cache.complete(name, mark)

    def get_code(self, fullname: str) -> CodeType | None:
        try:
            return self._cache.code(fullname)
        except (OSError, ValueError, EOFError, TypeError):  # a disk that lost power, for instance
            return super().get_code(fullname)


class _KnownExtension(ExtensionFileLoader):
    """Python's own, of what Python did not have to look for."""

    def __init__(self, name: str, path: str, cache: CodeCache) -> None:
        super().__init__(name, path)
        self._cache = cache

    def exec_module(self, module: ModuleType) -> None:
        mark = self._cache.begin()
        super().exec_module(module)
        self._cache.complete(self.name, mark)  # some have another one for themselves


def _is_read_from_source(module: ModuleType) -> bool:
    """Whether Python has found it, in a package that does not come with Python, and read it from a source file."""
    spec = getattr(module, "__spec__", None)
    if spec is None or type(spec.loader) is not SourceFileLoader or not isinstance(spec.origin, str):
        return False
    top, dot, _ = spec.name.partition(".")
    return bool(dot) and top not in sys.stdlib_module_names


def _is_package(spec: Any) -> bool:
    return spec.submodule_search_locations is not None


def _place(file: str, *, package: bool) -> str:
    """The directory in which Python has found what is in no package."""
    directory = _directory(file)
    return _directory(directory) if package else directory


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _begins_as_script() -> bool:
    """Whether Python looks first where the script is, and not in whatever directory somebody works in."""
    return sys.path[:1] == [_directory(sys.argv[0])] != [""]
