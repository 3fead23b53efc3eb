from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGIN = """
from mydocker import ResourceField, hookimpl
from mydocker.resources import parse_integer

@hookimpl
def mydocker_fields():
    return [ResourceField(name="{field}", flags=({flags}), parse=parse_integer, metavar="N", help="Some limit.")]
"""


class PluginSite:
    """A directory of sys.path in which packages with plugins are put by hand, as pip would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, source: str, *, version: str = "1.0", target: str = "", module: str = "") -> Path:
        """A package ``name`` with one module and the entry point of the same name for it; returns the module."""
        module = module or f"{name}_module"
        file = self.path / f"{module}.py"
        file.write_text(source)
        metadata = self.path / f"{name}_dist-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[mydocker.subsystems]\n{name} = {target or module}\n")
        return file

    def add_simple(self, name: str, *, field: str = "", flags: str = "", version: str = "1.0") -> Path:
        """A package with a plugin that declares one field and does nothing."""
        return self.add(
            name,
            PLUGIN.format(field=field or name, flags=flags or f'"--{name}",'),
            version=version,
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginSite]:
    """A `PluginSite`, with a cache of its own and with nothing of it left in ``sys.modules``."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MYDOCKER_DISABLE_PLUGINS", raising=False)
    (tmp_path / "cache").mkdir()
    before = set(sys.modules)
    yield PluginSite(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
