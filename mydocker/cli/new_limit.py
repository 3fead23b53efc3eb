"""``mydocker subsystems new NAME``: the folder of a new limit, a pip project with tests that pass as it is."""

from __future__ import annotations

import keyword
import os
from typing import TYPE_CHECKING

from mydocker.errors import UsageError
from mydocker.version import __version__

if TYPE_CHECKING:
    from mydocker.plugins import Registry

#: A name and what goes with it is a word on the command line, a field and a module.
_LONGEST = 40


def make(name: str, directory: str | None, registry: Registry) -> str:
    """Make the project of the limit ``name`` in ``directory`` (by default ``mydocker-NAME``); the directory.

    `UsageError` for a name that is none or is taken, and for a directory that exists and is not empty.
    """
    name = name.removeprefix("mydocker-")
    _check(name, registry)
    folder = directory or f"mydocker-{name}"
    try:
        if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
            raise UsageError(f"{folder} exists already: choose another --directory, or remove it")
        for path, content in project(name).items():
            file = os.path.join(folder, path)
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with open(file, "x") as stream:
                stream.write(content)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return folder


def _check(name: str, registry: Registry) -> None:
    words = name.split("-")
    plain = all(word.isascii() and word.isalnum() and word == word.lower() for word in words)
    if not plain or not name[0].isalpha() or len(name) > _LONGEST:
        raise UsageError(
            f'"{name}" cannot be a limit\'s name: use lower-case letters, digits and single hyphens, as in open-files'
        )
    from mydocker.plugin_discovery import core_flags, core_names

    field, flag = name.replace("-", "_"), f"--{name}"
    if keyword.iskeyword(field):
        raise UsageError(f"{name}: it is a word of Python's own, and could not be a keyword; choose another name")
    if field in core_names() or flag in core_flags():
        raise UsageError(f"{name}: mydocker itself has {flag} or the keyword {field}; choose another name")
    for plugin in registry.plugins:
        if plugin.name == name or any(other.name == field or flag in other.flags for other in plugin.fields):
            raise UsageError(f"{name}: {plugin} has that name or that flag; choose another name")


def project(name: str) -> dict[str, str]:
    """The files of the project: path to content."""
    field = name.replace("-", "_")
    words = {"NAME": name, "FIELD": field, "MODULE": f"mydocker_{field}", "VERSION": __version__}
    made = {}
    for path, template in _FILES.items():
        for word, value in words.items():
            path, template = path.replace(f"@{word}@", value), template.replace(f"@{word}@", value)
        made[path] = template
    return made


_SETUP_CFG = """\
[metadata]
name = mydocker-@NAME@
version = 0.1
description = A limit for mydocker: --@NAME@
long_description = file: README.md
long_description_content_type = text/markdown
classifiers =
    Environment :: Console
    Operating System :: POSIX :: Linux
    Programming Language :: Python :: 3 :: Only
    Topic :: System :: Systems Administration

[options]
python_requires = >=3.11
py_modules = @MODULE@
install_requires =
    mydocker >=@VERSION@

[options.extras_require]
test =
    pytest >=8

# This is what makes it a plugin: its name, and the module that has the hooks.
[options.entry_points]
mydocker.subsystems =
    @NAME@ = @MODULE@
"""

_PYPROJECT_TOML = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

_MODULE = '''\
"""``--@NAME@``: how many tasks, processes and threads together, the container may have at once.

This is a whole limit that works. Put yours in its place, hook by hook: docs/writing-a-limit.md of mydocker tells
what each may do.
"""

from mydocker import LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import parse_integer

#: The version of mydocker's plugin interface that this is written for.
MYDOCKER_API = 1


@hookimpl
def mydocker_fields():
    """Called when the plugin is found: what the user can set."""
    return [
        ResourceField(
            name="@FIELD@",
            flags=("--@NAME@",),
            parse=parse_integer,
            metavar="N",
            help="The most processes and threads that there may be at once.",
        )
    ]


@hookimpl
def mydocker_probe(layout):
    """For ``mydocker subsystems``: can it work on this host?"""
    version = layout.version("pids")
    if version is None:
        return Probe(controllers=("pids",), problem="this host has no pids controller")
    return Probe(controllers=("pids",), version=version, files=("pids.max",))


@hookimpl
def mydocker_validate(config, layout):
    """Before anything exists: is the value one that can be put in force here?"""
    layout.require_for("pids", config, "@FIELD@")
    if config["@FIELD@"] < 1:
        raise LimitError("@FIELD@", f"{config['@FIELD@']} is not enough for the command itself: use 1 or more")


@hookimpl
def mydocker_prepare(config, cgroup):
    """Make the container's cgroup and write the limit. No process is in it yet."""
    cgroup.controller("pids").max = config["@FIELD@"]


@hookimpl
def mydocker_apply(cgroup, pid):
    """Put the limit in force for the child, which waits."""
    cgroup.attach("pids", pid)


@hookimpl
def mydocker_update(config, cgroup):
    """Change the limit of a running container."""
    cgroup.controller("pids").max = config["@FIELD@"]


@hookimpl
def mydocker_usage(cgroup):
    """What was used, for the Result."""
    if not cgroup.has("pids"):
        return {}
    return {"refused_tasks": cgroup.controller("pids").events["max"]}
'''

_CONFTEST = """\
# The fixtures of mydocker.testing: limit_journey, cgroup_v1, cgroup_v2, run_container and others.
pytest_plugins = ["mydocker.testing.pytest_plugin"]
"""

_TESTS = '''\
"""None of these needs root, but for the last one, which is skipped without it."""

import @MODULE@
import pytest
from mydocker import LimitError


def test_it_is_written_and_the_process_is_in_the_cgroup(limit_journey):
    """On an imitated host with cgroup v1, then v2, then both."""
    with limit_journey(@MODULE@, @FIELD@="5") as container:
        assert container.written == {"pids.max": "5"}
        assert container.attached("pids")
        container.report("pids.events", {"max": 3})  # as if the kernel had refused three
    assert container.usage == {"refused_tasks": 3}


def test_it_changes_while_the_container_runs(limit_journey):
    with limit_journey(@MODULE@, @FIELD@="5") as container:
        container.update(@FIELD@="50")
        assert container.read("pids.max") == "50"


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_what_is_no_number_of_tasks_is_refused(limit_journey, text):
    with pytest.raises(LimitError, match="--@NAME@: "):
        limit_journey(@MODULE@, @FIELD@=text)


def test_a_real_container_gets_no_more(run_container):
    """Needs the plugin installed: pip install -e '.[test]'"""
    result = run_container(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2 & done; wait"], @FIELD@=3)
    assert result.limits == {"@FIELD@": 3}
    assert result.usage.plugins["@NAME@"]["refused_tasks"] > 0
'''

_README = """\
# mydocker-@NAME@

A limit for [mydocker](https://pypi.org/project/mydocker/): how many tasks a container may have at once.

    pip install mydocker-@NAME@
    mydocker run --@NAME@ 50 make -j

From Python: `mydocker.run(["make", "-j"], @FIELD@=50)`.

## Work on it

    pip install -e '.[test]'
    pytest
"""

_GITIGNORE = """\
__pycache__/
*.egg-info/
.pytest_cache/
.venv/
build/
dist/
"""

_FILES = {
    "setup.cfg": _SETUP_CFG,
    "pyproject.toml": _PYPROJECT_TOML,
    "README.md": _README,
    ".gitignore": _GITIGNORE,
    "@MODULE@.py": _MODULE,
    "tests/conftest.py": _CONFTEST,
    "tests/test_@FIELD@.py": _TESTS,
}
