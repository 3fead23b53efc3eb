"""The code of all modules that a command imports, kept in one file, and read from there the next time.

Python looks for each module in each directory of its path, lists that, and opens, compares and reads a file: some ten
system calls and 150 µs, sixty times in a run. Here a module costs one ``stat(2)``, of its source: that has to have the
time, size and inode that it had. What has changed, and what is not here, Python itself finds, and the file is written
anew when the command has come to its end.

Only modules within packages are served, in the one directory that their package has: which package a name stands for,
and so what was installed or removed, is always for Python to find.
"""

from __future__ import annotations

import marshal
import sys

# What importlib is made of. Its own name imports warnings, and with that a good part of the standard library.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import SourceFileLoader

from mydocker import cache_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any

    from mydocker.cache_file import Stamp

    #: file, its stamp, path of Python's own bytecode, whether it is a package, place and size in the cache
    Entry = tuple[str, Stamp, str, bool, int, int]

FORMAT = 1


class CodeCache:
    """The modules of one kind of command. A finder of ``sys.meta_path``, from `install` on."""

    def __init__(self, kind: str, unusual: Sequence[str] = ()) -> None:
        """``kind``: any text; commands that import nearly the same have one.

        ``unusual``: modules that a command of this kind imports only where it takes a way that others do not.
        """
        self._name = cache_file.path("code", "\0".join(self._key(kind)).encode("utf-8", "surrogateescape"))
        self._key_here = self._key(kind)
        self._entries: dict[str, Entry] = {}
        self._data = memoryview(b"")
        self._before = frozenset(sys.modules)
        self._unusual = unusual

    @staticmethod
    def _key(kind: str) -> tuple[str, ...]:
        return (kind, sys.version, sys.implementation.cache_tag or "", str(sys.flags.optimize), __file__)

    def install(self) -> None:
        """Serve modules from now on."""
        try:
            self._read()
        except Exception:  # whatever is wrong with the file, Python itself knows better
            self._entries = {}
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def _read(self) -> None:
        content = cache_file.read(self._name, summed=False) if self._name is not None else None
        if content is None:
            return
        version, key, size, entries = marshal.loads(content)
        if version == FORMAT and key == self._key_here and len(content) >= size:
            self._data = memoryview(content)[len(content) - size :]
            self._entries = entries

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> object:
        entry = self._entries.get(name)
        if entry is None or path is None or len(path) != 1:
            return None
        file, stamp, bytecode, package, _, _ = entry
        if f"{path[0]}/{name.rpartition('.')[2]}{'/__init__.py' if package else '.py'}" != file:
            return None
        if cache_file.stamp(file) != stamp:
            return None
        spec: Any = ModuleSpec(name, _Loader(name, file, self), origin=file, is_package=package)
        spec.has_location = True
        spec.cached = bytecode
        if package:
            spec.submodule_search_locations.append(file.rpartition("/")[0])
        return spec

    def code(self, name: str) -> CodeType:
        _, _, _, _, start, size = self._entries[name]
        return marshal.loads(self._data[start : start + size])  # type: ignore[no-any-return]

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
        loaded = {module: found for module, found in sys.modules.items() if module not in self._before}
        missing = [module for module, found in loaded.items() if _is_read_from_source(found)]
        if not missing:
            return
        looked = cache_file.now()
        entries: dict[str, Entry] = {}
        parts: list[bytes | memoryview] = []
        at = 0
        for module, (file, stamp, bytecode, package, start, size) in self._entries.items():
            if module not in missing and cache_file.stamp(file) == stamp:
                entries[module] = (file, stamp, bytecode, package, at, size)
                parts.append(self._data[start : start + size])
                at += size
        known = len(entries)
        for module in missing:
            spec: Any = loaded[module].__spec__
            stamp = cache_file.stamp(spec.origin)
            code = marshal.dumps(spec.loader.get_code(module))
            # Python may have compiled what the file held a moment ago.
            if stamp is not None and cache_file.settled(stamp[0], looked) and cache_file.stamp(spec.origin) == stamp:
                package = spec.submodule_search_locations is not None
                entries[module] = (spec.origin, stamp, spec.cached or "", package, at, len(code))
                parts.append(code)
                at += len(code)
        if len(entries) > known:
            head = marshal.dumps((FORMAT, self._key_here, at, entries))
            cache_file.write(name, b"".join((head, *parts)), summed=False)


class _Loader(SourceFileLoader):
    """Python's own, but for where the code comes from."""

    def __init__(self, name: str, path: str, cache: CodeCache) -> None:
        super().__init__(name, path)
        self._cache = cache

    def get_code(self, fullname: str) -> CodeType | None:
        try:
            return self._cache.code(fullname)
        except (ValueError, EOFError, TypeError):  # a disk that lost power, for instance
            return super().get_code(fullname)


def _is_read_from_source(module: ModuleType) -> bool:
    """Whether Python has found it, in a package that does not come with Python, and read it from a source file."""
    spec = getattr(module, "__spec__", None)
    if spec is None or type(spec.loader) is not SourceFileLoader or not isinstance(spec.origin, str):
        return False
    top, dot, _ = spec.name.partition(".")
    return bool(dot) and top not in sys.stdlib_module_names
