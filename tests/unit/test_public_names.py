"""The names that ``import mydocker`` offers."""

from __future__ import annotations

import importlib
import importlib.resources
import pkgutil

import pytest

import mydocker
from mydocker import errors

NAMES = {
    "Amendment",
    "Tmpfs",
    "UnsupportedLimit",
    "Verdict",
    "Volume",
    "Watch",
    "CgroupDenied",
    "CgroupError",
    "CommandNotExecutable",
    "CommandNotFound",
    "ConflictError",
    "HandoffError",
    "LimitError",
    "MydockerError",
    "PluginError",
    "Probe",
    "ResourceConfig",
    "ResourceField",
    "Result",
    "RunFailed",
    "SetupError",
    "Spawner",
    "StateError",
    "Usage",
    "UsageError",
    "__version__",
    "hookimpl",
    "pause",
    "run",
    "unpause",
    "update",
}


def test_the_public_names_are_these() -> None:
    assert set(mydocker.__all__) == NAMES
    assert set(dir(mydocker)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_is_there(name: str) -> None:
    assert getattr(mydocker, name) is getattr(mydocker, name)


def test_another_is_not() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        mydocker.nonsense  # noqa: B018


def test_every_error_is_public_and_in_the_one_tree() -> None:
    tree = {
        name: error
        for name, error in vars(errors).items()
        if isinstance(error, type) and error.__module__ == errors.__name__
    }
    raised = {name for name, error in tree.items() if not issubclass(error, errors.OciError)}
    assert raised <= NAMES, "no call of the API raises those of mydocker-oci"
    assert all(issubclass(error, mydocker.MydockerError) for error in tree.values())


def test_exit_codes_are_those_of_docker() -> None:
    codes = {name: getattr(mydocker, name).exit_code for name in NAMES if name.endswith(("Error", "Limit"))}
    assert set(codes.values()) == {125}
    assert mydocker.CommandNotExecutable.exit_code == 126
    assert mydocker.CommandNotFound.exit_code == 127


def test_the_package_ships_its_types() -> None:
    assert importlib.resources.files("mydocker").joinpath("py.typed").is_file()


@pytest.mark.parametrize(
    "module", [m.name for m in pkgutil.walk_packages(mydocker.__path__, "mydocker.") if m.name != "mydocker.__main__"]
)
def test_every_module_can_be_imported(module: str) -> None:
    importlib.import_module(module)
