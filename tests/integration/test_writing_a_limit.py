"""docs/writing-a-limit.md: its commands do what it shows, and its modules are those of the example and the template."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mydocker.cgroups.layout import Layout

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "writing-a-limit.md").read_text()
EXAMPLE = DOCS / "examples" / "mydocker-examples"
#: Between the outputs of two commands.
MARK = "@@@"


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    """A folder with a copy of the example, and an environment with mydocker, pytest and pip, which needs no network.

    Not below /tmp, on which one of the examples mounts another.
    """
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="mydocker-workshop-"))
    try:
        environment = folder / "venv"
        venv.create(environment)
        (packages,) = environment.glob("lib/python*/site-packages")
        (packages / "of-the-tests.pth").write_text(sysconfig.get_path("purelib"))
        for command, program in (
            ("mydocker", "from mydocker.cli import main; main()"),
            ("pip", "import runpy; runpy.run_module('pip', run_name='__main__')"),
            ("pytest", "import sys, pytest; sys.exit(pytest.main())"),
        ):
            script = environment / "bin" / command
            script.write_text(f"#!{environment}/bin/python\n{program}\n")
            script.chmod(0o755)
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(EXAMPLE, folder / "mydocker-examples", ignore=unwanted)
        yield folder
    finally:
        shutil.rmtree(folder)


def run_all(commands: list[str], folder: Path) -> list[str]:
    """What each prints when one shell runs them in turn, in the environment of the workshop."""
    environment = f"{folder}/venv"
    settings = {
        "PATH": f"{environment}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(environment),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # this is how pip spells "none" in the environment
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
        "LC_ALL": "C",
        "COLUMNS": "80",
    }
    script = "".join(f"{command}\nprintf '\\n%s %s\\n' {MARK} $?\n" for command in commands)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    outputs = re.split(rf"\n{MARK} \d+\n", done.stdout)
    assert len(outputs) == len(commands) + 1, done.stdout
    return outputs[:-1]


def sessions(page: str) -> list[tuple[str, str]]:
    """The commands of the console blocks, each with the output that is shown for it."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = session.partition("\n")
            found.append((command, output))
    return found


def comparable(output: str, layout: Layout) -> list[str]:
    """Without what differs between two runs or two machines."""
    cpu = layout.find("cpu")
    if cpu is not None:
        output = output.replace(f"{cpu.base}/", "/sys/fs/cgroup/cpu/")
    output = re.sub(r"\b[0-9a-f]{12}\b", "ID", output)
    output = re.sub(r"in \d+\.\d+s", "in TIME", output)
    # Where a container runs at this moment, the cgroup above all containers is there already.
    common = "  make   /sys/fs/cgroup/cpu/mydocker"
    return [line for line in output.strip().splitlines() if line != common]


def test_every_command_prints_what_the_page_shows(workshop: Path, layout: Layout) -> None:
    shown = sessions(PAGE)
    assert len(shown) > 20
    printed = run_all([command for command, _ in shown], workshop)
    differing = [
        (command, comparable(output, layout), comparable(expected, layout))
        for (command, expected), output in zip(shown, printed, strict=True)
        # The page shows the files of v1.
        if ("/sys/fs/cgroup" not in expected or layout.version("cpu") == 1)
        and comparable(output, layout) != comparable(expected, layout)
    ]
    assert differing == []


@pytest.mark.parametrize("path", sorted({*re.findall(r"^`([\w/]+\.py)`:$", PAGE, re.MULTILINE)}))
def test_every_module_on_the_page_is_the_example_s(path: str) -> None:
    (block,) = re.findall(rf"^`{re.escape(path)}`:\n\n```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert block == (EXAMPLE / path).read_text()


def test_every_link_leads_somewhere() -> None:
    lines = [line.lower() for line in PAGE.splitlines() if line.startswith("#")]
    headings = {re.sub(r"[^a-z0-9 -]", "", line).strip().replace(" ", "-") for line in lines}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, heading = target.partition("#")
        assert not file or (DOCS / file).exists(), target
        assert not heading or heading in headings, target


def test_every_hook_is_on_the_page() -> None:
    from mydocker import hookspecs

    hooks = {name for name in vars(hookspecs) if name.startswith("mydocker_")}
    rows = dict(re.findall(r"^\| `(mydocker_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE))
    assert set(rows) == hooks
    for name in hooks:
        parameters = vars(hookspecs)[name].__code__
        assert re.findall(r"`(\w+)`", rows[name]) == list(parameters.co_varnames[: parameters.co_argcount])


@pytest.mark.vm
def test_the_example_works_on_the_kernel_of_each_layout(site: Any) -> None:
    """Its own tests, in real containers too. It is put in place by hand: pip takes minutes in a virtual machine."""
    settings = configparser.ConfigParser()
    settings.read(EXAMPLE / "setup.cfg")
    shutil.copytree(EXAMPLE / "mydocker_examples", site.path / "mydocker_examples")
    shutil.copytree(EXAMPLE / "tests", site.path / "tests")
    metadata = site.path / "mydocker_examples-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mydocker-examples\nVersion: 1.0\n")
    points = settings["options.entry_points"]["mydocker.subsystems"]
    (metadata / "entry_points.txt").write_text(f"[mydocker.subsystems]{points}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={site.path}", "tests"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site.path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=site.path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "32 passed" in done.stdout, done.stdout + done.stderr


def test_a_new_limit_is_a_project_that_works(workshop: Path) -> None:
    """Its tests pass from the folder alone; once installed, it limits."""
    name, flag, module = "open-files", "--open-files", "mydocker_open_files"
    commands = [
        f"mydocker subsystems new {name} --directory here/project",
        "cd here/project",
        f"PYTHONPATH=. pytest -q -k 'not real'; python -c 'import {module}'",
        "pip install -q .",
        "pytest -q",
        f"mydocker run {flag} 2 sh -c 'sleep 0.1 & sleep 0.1 & sleep 0.1 & wait'",
        f"mydocker subsystems new {name}",
    ]
    outputs = run_all(commands, workshop)
    assert "15 passed, 1 deselected" in outputs[2]
    assert "16 passed" in outputs[4]
    assert "Cannot fork" in outputs[5]
    taken = f"mydocker: {name}: plugin {name} (mydocker-{name} 0.1) has that name or that flag; choose another name"
    assert outputs[6].strip() == taken
