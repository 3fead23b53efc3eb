"""Without ``site``, an environment is as with it; and the script of mydocker-oci finds its interpreter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import mydocker

PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
SCRIPTS = Path(sysconfig.get_path("scripts"))

LOOK = """
import json, sys
if sys.flags.no_site:
    sys.path.append(PACKAGES)
    from mydocker import environment
    environment.complete()
print(json.dumps([sys.path, sys.prefix, sys.exec_prefix, "customized" in sys.modules, "site" in sys.modules]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment in which nothing but mydocker is installed."""
    directory = tmp_path / "environment"
    venv.create(directory, symlinks=True)
    (directory / PACKAGES / "mydocker").symlink_to(Path(mydocker.__file__).parent)
    for name in ("mydocker", "mydocker-oci"):
        text = (SCRIPTS / name).read_text()
        if text.startswith(f"#!{SCRIPTS}"):
            text = f"#!{directory}/bin/python3\n{text.partition(chr(10))[2]}"
        (directory / "bin" / name).write_text(text)
        (directory / "bin" / name).chmod(0o755)
    return directory


def look(environment: Path, *options: str) -> list[object]:
    script = environment / "bin/look"
    script.write_text(LOOK.replace("PACKAGES", repr(str(environment / PACKAGES))))
    command = [environment / "bin/python3", *options, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


def prepare(environment: Path, tmp_path: Path, case: str) -> None:
    packages = environment / PACKAGES
    if case == "a path":
        (tmp_path / "more").mkdir()
        (packages / "more.pth").write_text(f"{tmp_path}/more\n")
    elif case == "code":
        (packages / "customized.py").touch()
        (packages / "code.pth").write_text("import customized\n")
    elif case == "sitecustomize":
        (packages / "customized.py").touch()
        (packages / "sitecustomize.py").write_text("import customized\n")
    elif case == "the system's packages":
        config = environment / "pyvenv.cfg"
        config.write_text(config.read_text().replace("packages = false", "packages = true"))


@pytest.mark.parametrize("case", ["plain", "a path", "code", "sitecustomize", "the system's packages"])
def test_environment_is_as_site_makes_it(environment: Path, tmp_path: Path, case: str) -> None:
    prepare(environment, tmp_path, case)
    with_site, without = look(environment), look(environment, "-S")
    assert with_site[:4] == without[:4]
    assert without[4] is (case not in ("plain", "sitecustomize")), "only where it has to be, site is loaded"


def version(command: Path | str, **options: object) -> str:
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]
    assert not done.returncode, done.stderr
    return str(done.stdout)


def test_script_wherever_it_is_called(environment: Path, tmp_path: Path) -> None:
    script = environment / "bin/mydocker-oci"
    expected = version(script)
    assert expected.startswith(f"mydocker-oci version {mydocker.__version__}")
    (tmp_path / "link").symlink_to(script)
    (tmp_path / "second").symlink_to("link")
    assert version(tmp_path / "link") == version(tmp_path / "second") == expected
    assert version("./mydocker-oci", cwd=script.parent) == version("bin/mydocker-oci", cwd=environment) == expected
    assert version("mydocker-oci", env={"PATH": f"{script.parent}:{os.defpath}"}) == expected
    assert version(script, env={}) == expected


def test_script_where_the_package_is_named_by_a_path_file(environment: Path) -> None:
    """As in an editable installation."""
    packages = environment / PACKAGES
    (packages / "mydocker").unlink()
    (packages / "mydocker.pth").write_text(f"{Path(mydocker.__file__).parent.parent}\n")
    assert version(environment / "bin/mydocker-oci").startswith("mydocker-oci version")


def test_script_outside_of_an_environment(environment: Path, tmp_path: Path) -> None:
    """The other script, in which pip has put the interpreter, is beside it."""
    directory = tmp_path / "usr/bin"
    directory.mkdir(parents=True)
    for name in ("mydocker", "mydocker-oci"):
        shutil.copy(environment / "bin" / name, directory)
    assert version(directory / "mydocker-oci").startswith("mydocker-oci version")
