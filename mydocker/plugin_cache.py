"""What discovery found, kept in one file until something changes that it depends on.

Discovery reads the metadata of every installed package and imports every plugin. The answer depends on the
interpreter, on ``sys.path``, on the packages in its directories, on the code of the plugins and on the
`mydocker.plugins.Selection`; all this is compared by some dozens of ``stat(2)`` before a remembered table is used:

- the modification time of a directory of ``sys.path`` changes when a package is installed in it or removed. A
  directory also changes for other reasons (a job's working directory does all the time): then the names,
  times and inodes of the package metadata in it decide;
- every ``entry_points.txt``, and every module that has been imported from the packages of the plugins, is
  compared by time, size and inode.

The file is in marshal format, which can be made to crash the interpreter: `mydocker.cache_file` reads what is ours.
"""

from __future__ import annotations

import marshal
import os
import sys

from mydocker import cache_file
from mydocker.cache_file import now, settled, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from mydocker.cache_file import Stamp
    from mydocker.plugins import Selection, Table

    #: directory, its modification time in ns or 0, and the package metadata in it
    Directory = tuple[str, int, tuple[tuple[str, Stamp], ...]]

FORMAT = 4

_METADATA = (".dist-info", ".egg-info", ".egg")
_CORE_FILES = ("hookspecs.py", "resources.py", "plugin_discovery.py", "cli/options.py", "version.py")


def read(selection: Selection) -> Table | None:
    """The remembered table, or None if there is none that is still true."""
    try:
        return _read(selection)
    except Exception:
        # Whatever is wrong with the file, discovery knows better.
        return None


def remember(selection: Selection, discover: Callable[[], Table]) -> Table:
    """Run ``discover`` and keep its answer for the next process. That it cannot be kept is no error."""
    looked = now()
    before = {path: _metadata(path, ()) for path in _search_path()}
    table = discover()
    try:
        packages = _packages(table)
        directories = tuple(
            (path, changed if settled(changed, looked) else 0, _metadata(path, packages))
            for path, changed in ((path, _changed(path)) for path in before)
        )
        files = tuple((path, stamp(path)) for path in _files(directories, packages))
        known_by_time = all(found is None or settled(found[0], looked) for _, found in files)
        if known_by_time and before == {path: _metadata(path, ()) for path in before}:
            name = _file(selection)
            if name is not None:
                known = (FORMAT, _environment(selection), directories, packages, files, table)
                cache_file.write(name, marshal.dumps(known))
    except (OSError, ValueError):
        pass
    return table


def _read(selection: Selection) -> Table | None:
    name = _file(selection)
    content = cache_file.read(name) if name is not None else None
    if content is None:
        return None
    version, environment, directories, packages, files, table = marshal.loads(content)
    if version != FORMAT or environment != _environment(selection):
        return None
    looked = 0
    for path, changed, metadata in directories:
        if _changed(path) != changed:
            looked = looked or now()
            if _metadata(path, packages) != metadata:
                return None
    for path, found in files:
        if stamp(path) != found:
            return None
    if looked and name is not None:
        _settle(name, looked, (version, environment, directories, packages, files, table))
    return table  # type: ignore[no-any-return]


def _settle(name: str, looked: int, known: tuple[Any, ...]) -> None:
    """What is still true can be told by the time of a directory alone from now on, which was too new to be relied on
    when it was written down: an environment is used a moment after it was made.
    """
    version, environment, directories, *rest = known
    settled_now = tuple(
        (path, changed or (at if settled(at, looked) else 0), metadata)
        for path, changed, metadata, at in ((*directory, _changed(directory[0])) for directory in directories)
    )
    if settled_now != directories:
        try:
            cache_file.write(name, marshal.dumps((version, environment, settled_now, *rest)))
        except OSError:
            pass


def _file(selection: Selection) -> str | None:
    return cache_file.path("plugins", "\0".join(_environment(selection)).encode("utf-8", "surrogateescape"))


def _environment(selection: Selection) -> tuple[str, ...]:
    chosen = repr(selection)
    return (sys.executable or "", sys.version, sys.prefix, __file__, chosen, *_search_path())


def _search_path() -> list[str]:
    """sys.path, with relative entries, of which the empty one is the working directory, made absolute."""
    return [path if path.startswith("/") else os.path.abspath(path) for path in sys.path]


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _metadata(path: str, packages: Iterable[str]) -> tuple[tuple[str, Stamp], ...]:
    """What in a directory of sys.path decides which plugins there are.

    The metadata of packages with their stamps, and the presence of what has the name of a plugin's package.
    """
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return ()
    return tuple(
        (name, stamp(f"{path}/{name}") if name.endswith(_METADATA) else None)
        for name in names
        if name.endswith(_METADATA) or name.partition(".")[0] in packages
    )


def _packages(table: Table) -> tuple[str, ...]:
    """The top-level packages of the plugins."""
    return tuple(sorted({row[3].partition(":")[0].partition(".")[0] for row in table}))


def _files(directories: Iterable[Directory], packages: Iterable[str]) -> list[str]:
    modules: list[Any] = [module for name, module in sys.modules.items() if name.partition(".")[0] in packages]
    files = {file for file in (getattr(module, "__file__", None) for module in modules) if isinstance(file, str)}
    for path, _, metadata in directories:
        for name in (name for name, found in metadata if found is not None):
            points = f"{path}/{name}/entry_points.txt"
            if os.path.exists(points):
                files.add(points)
            elif not name.endswith(".dist-info"):
                # In a source tree the file may come later; what pip installs it makes anew as a whole.
                files.add(f"{path}/{name}")
    here = os.path.dirname(__file__)
    files.update(f"{here}/{name}" for name in _CORE_FILES)
    return sorted(files)
