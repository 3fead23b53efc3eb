"""What discovery found, kept in one file until something changes that it depends on.

Discovery reads the metadata of every installed package and imports every plugin. The answer depends on the
interpreter, on ``sys.path``, on the packages in its directories, on the code of the plugins and on the
`mydocker.plugins.Selection`; all this is compared by some dozens of ``stat(2)`` before a remembered table is used:

- the modification time of a directory of ``sys.path`` changes when a package is installed in it or removed. A
  directory also changes for other reasons (a job's working directory does all the time): then the names,
  times and inodes of the package metadata in it decide;
- every ``entry_points.txt``, and every module that has been imported from the packages of the plugins, is
  compared by time, size and inode.

A file system may give two changes the same time. What changed within `SETTLED` seconds before it was looked at
is therefore not trusted by its time.

The file is in marshal format, which can be made to crash the interpreter: it is read only if it belongs to the
effective user and nobody else can write it.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from mydocker.plugins import Selection, Table

    #: modification time in ns, size, inode; None if there is no such file
    Stamp = tuple[int, int, int] | None
    #: directory, its modification time in ns or 0, and the package metadata in it
    Directory = tuple[str, int, tuple[tuple[str, Stamp], ...]]

FORMAT = 2
SETTLED = 2.0
#: How many environments may share the directory before the files that were not written for longest are removed.
KEPT_FILES = 64

#: The largest below 2**64.
_PRIME = (1 << 64) - 59
_METADATA = (".dist-info", ".egg-info", ".egg")
_CORE_FILES = ("hookspecs.py", "resources.py", "plugin_discovery.py", "cli/options.py", "version.py")


def directory() -> str | None:
    """Where the cache is: ``$XDG_CACHE_HOME/mydocker``, else /var/cache/mydocker for root, else ~/.cache/mydocker."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        if os.geteuid() == 0:
            base = "/var/cache"
        else:
            home = os.environ.get("HOME", "")
            base = f"{home}/.cache" if home.startswith("/") else ""
    return f"{base}/mydocker" if base else None


def read(selection: Selection) -> Table | None:
    """The remembered table, or None if there is none that is still true."""
    try:
        return _read(selection)
    except Exception:
        # Whatever is wrong with the file, discovery knows better.
        return None


def remember(selection: Selection, discover: Callable[[], Table]) -> Table:
    """Run ``discover`` and keep its answer for the next process. That it cannot be kept is no error."""
    looked = _now()
    before = {path: _metadata(path, ()) for path in _search_path()}
    table = discover()
    try:
        packages = _packages(table)
        directories = tuple(
            (path, changed if _settled(changed, looked) else 0, _metadata(path, packages))
            for path, changed in ((path, _changed(path)) for path in before)
        )
        files = tuple((path, _stamp(path)) for path in _files(directories, packages))
        settled = all(stamp is None or _settled(stamp[0], looked) for _, stamp in files)
        if settled and before == {path: _metadata(path, ()) for path in before}:
            _write(selection, marshal.dumps((FORMAT, _environment(selection), directories, packages, files, table)))
    except (OSError, ValueError):
        pass
    return table


def _read(selection: Selection) -> Table | None:
    content = _content(selection)
    if content is None:
        return None
    version, environment, directories, packages, files, table = marshal.loads(content)
    if version != FORMAT or environment != _environment(selection):
        return None
    for path, changed, metadata in directories:
        if _changed(path) != changed and _metadata(path, packages) != metadata:
            return None
    for path, stamp in files:
        if _stamp(path) != stamp:
            return None
    return table  # type: ignore[no-any-return]


def _content(selection: Selection) -> bytes | None:
    """The payload of the cache file if it is ours and whole."""
    name = _file(selection)
    if name is None:
        return None
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o170022 != 0o100000:
            return None
        data = os.read(fd, status.st_size)
    finally:
        os.close(fd)
    content = data[8:]
    return content if data[:8] == _checksum(content) else None


def _write(selection: Selection, content: bytes) -> None:
    name = _file(selection)
    if name is None:
        return
    folder = os.path.dirname(name)
    if not os.path.isdir(folder):
        # With sudo's environment of another user, root would leave a directory there that its owner cannot use.
        base = os.path.dirname(folder)
        os.makedirs(base, 0o700, exist_ok=True)
        if os.stat(base).st_uid != os.geteuid():
            return
        os.mkdir(folder, 0o755)
    if os.stat(folder).st_uid != os.geteuid():
        return
    unfinished = f"{name}.{os.getpid()}"
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(_checksum(content) + content)
        os.rename(unfinished, name)
    except OSError:
        os.unlink(unfinished)
        raise
    _prune(folder)


def _prune(folder: str) -> None:
    with os.scandir(folder) as entries:
        files = sorted((entry.stat().st_mtime_ns, entry.path) for entry in entries if entry.name.startswith("plugins-"))
    for _, path in files[:-KEPT_FILES]:
        os.unlink(path)


def _checksum(content: bytes) -> bytes:
    """A remainder: hashlib and zlib cost an import, the built-in hash differs in each process."""
    return (int.from_bytes(content, "little") % _PRIME).to_bytes(8, "little")


def _file(selection: Selection) -> str | None:
    folder = directory()
    if folder is None:
        return None
    names = "\0".join(_environment(selection)).encode("utf-8", "surrogateescape")
    return f"{folder}/plugins-{_checksum(names).hex()}"


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


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _metadata(path: str, packages: Iterable[str]) -> tuple[tuple[str, Stamp], ...]:
    """What in a directory of sys.path decides which plugins there are.

    The metadata of packages with their stamps, and the presence of what has the name of a plugin's package.
    """
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return ()
    return tuple(
        (name, _stamp(f"{path}/{name}") if name.endswith(_METADATA) else None)
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
        for name in (name for name, stamp in metadata if stamp is not None):
            points = f"{path}/{name}/entry_points.txt"
            if os.path.exists(points):
                files.add(points)
            elif not name.endswith(".dist-info"):
                # In a source tree the file may come later; what pip installs it makes anew as a whole.
                files.add(f"{path}/{name}")
    here = os.path.dirname(__file__)
    files.update(f"{here}/{name}" for name in _CORE_FILES)
    return sorted(files)


def _settled(changed: int, looked: int) -> bool:
    """Whether a later change would get another time than ``changed``."""
    return not looked - SETTLED * 1e9 <= changed <= _now()


def _now() -> int:
    import time

    return time.time_ns()
