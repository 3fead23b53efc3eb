"""mydocker: run a command in namespaces of its own, under limits that are plugins.

The public names, loaded when they are first used::

    import mydocker

    result = mydocker.run(["python3", "job.py"], memory="100m", timeout=10, capture_output=True)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.amendment import Amendment as Amendment
    from mydocker.api import run as run
    from mydocker.errors import CgroupDenied as CgroupDenied
    from mydocker.errors import CgroupError as CgroupError
    from mydocker.errors import CommandNotExecutable as CommandNotExecutable
    from mydocker.errors import CommandNotFound as CommandNotFound
    from mydocker.errors import ConflictError as ConflictError
    from mydocker.errors import HandoffError as HandoffError
    from mydocker.errors import LimitError as LimitError
    from mydocker.errors import MydockerError as MydockerError
    from mydocker.errors import PluginError as PluginError
    from mydocker.errors import RunFailed as RunFailed
    from mydocker.errors import SetupError as SetupError
    from mydocker.errors import StateError as StateError
    from mydocker.errors import UnsupportedLimit as UnsupportedLimit
    from mydocker.errors import UsageError as UsageError
    from mydocker.hookimpl import hookimpl as hookimpl
    from mydocker.pausing import pause as pause
    from mydocker.pausing import unpause as unpause
    from mydocker.resources import Probe as Probe
    from mydocker.resources import ResourceConfig as ResourceConfig
    from mydocker.resources import ResourceField as ResourceField
    from mydocker.result import Result as Result
    from mydocker.result import Usage as Usage
    from mydocker.spawner import Spawner as Spawner
    from mydocker.spec import Tmpfs as Tmpfs
    from mydocker.spec import Volume as Volume
    from mydocker.updating import update as update
    from mydocker.version import __version__ as __version__
    from mydocker.watch import Verdict as Verdict
    from mydocker.watch import Watch as Watch

_HOMES = {
    "__version__": "version",
    "Spawner": "spawner",
    "Volume": "spec",
    "Tmpfs": "spec",
    "Verdict": "watch",
    "Watch": "watch",
    "Amendment": "amendment",
    "UnsupportedLimit": "errors",
    "run": "api",
    "update": "updating",
    "pause": "pausing",
    "unpause": "pausing",
    "hookimpl": "hookimpl",
    "Result": "result",
    "Usage": "result",
    "Probe": "resources",
    "ResourceConfig": "resources",
    "ResourceField": "resources",
    "CgroupDenied": "errors",
    "CgroupError": "errors",
    "CommandNotExecutable": "errors",
    "CommandNotFound": "errors",
    "ConflictError": "errors",
    "HandoffError": "errors",
    "LimitError": "errors",
    "MydockerError": "errors",
    "PluginError": "errors",
    "RunFailed": "errors",
    "SetupError": "errors",
    "StateError": "errors",
    "UsageError": "errors",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mydocker' has no attribute {name!r}")
    value = getattr(__import__(f"mydocker.{_HOMES[name]}", fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
