from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from mydocker.config import NONE
from mydocker.errors import CgroupError, ConflictError, LimitError, PluginError, UsageError
from mydocker.plugin_discovery import discover
from mydocker.plugins import NamedFunction, Plugin, Registry, Selection
from mydocker.resources import ResourceConfig, parse_integer

HEAD = """
from mydocker import CgroupError, LimitError, ResourceField, hookimpl
from mydocker.resources import parse_integer

def field(name, flags=None, parse=parse_integer, **others):
    flags = flags or (f"--{name}",)
    return ResourceField(name=name, flags=flags, parse=parse, metavar="N", help="A limit.", **others)

@hookimpl
def mydocker_fields():
    return [field(NAME)]
"""


def source(name: str, rest: str = "") -> str:
    return f"NAME = {name!r}\n{HEAD}\n{rest}"


def discovered() -> Any:
    """What discovery finds, with what the environment turns off."""
    return discover(Selection.of(NONE))


def plugin(registry: Registry, name: str) -> Plugin:
    return next(p for p in registry.plugins if p.name == name)


def test_a_plugin_is_found_with_its_package_version_and_fields(site: Any) -> None:
    site.add("nofile", source("nofile"), version="3.2")
    found = plugin(Registry(discovered()), "nofile")
    assert (found.dist, found.version, found.target) == ("nofile-dist", "3.2", "nofile_module")
    assert str(found) == "plugin nofile (nofile-dist 3.2)"
    assert [field.flags for field in found.fields] == [("--nofile",)]


def test_a_field_and_its_owner_are_found_by_name(site: Any) -> None:
    site.add("nofile", source("nofile"))
    registry = Registry(discovered())
    field, owner = registry.field("nofile")
    assert (field.metavar, owner.name) == ("N", "nofile")
    with pytest.raises(UsageError, match=r"no limit named nothing.*nofile"):
        registry.field("nothing")


def test_the_module_of_a_plugin_is_imported_only_when_it_is_called(site: Any) -> None:
    site.add("nofile", source("nofile", "@hookimpl\ndef mydocker_usage():\n    return {'calls': 1}"))
    table = discovered()
    del sys.modules["nofile_module"]
    registry = Registry(table)
    config = registry.parse({"nofile": "7"})
    found = registry.owners(config)[0]
    assert "nofile_module" not in sys.modules
    assert registry.call(found, "mydocker_usage", config=config) == {"calls": 1}
    assert "nofile_module" in sys.modules


def test_the_values_of_others_are_parsed_anew_each_time(site: Any) -> None:
    """Their parsers may look at what they like."""
    counting = "def parse(text, calls=[]):\n    calls.append(text)\n    return len(calls)\n"
    fields = "@hookimpl\ndef mydocker_fields():\n    return [field(NAME, parse=parse)]\n"
    site.add("counted", source("counted", counting + fields))
    registry = Registry(discovered())
    assert [registry.parse({"counted": "x"})["counted"] for _ in range(3)] == [1, 2, 3]


def test_the_same_values_of_our_own_are_the_same_config() -> None:
    registry = Registry(discovered())
    values, flags = {"memory": "64m", "cpus": 1}, {"memory": "-m"}
    config = registry.parse(values, flags)
    assert registry.parse(dict(values), dict(flags)) is config
    assert config.texts == {"memory": "64m", "cpus": "1"}
    assert registry.parse({**values, "cpus": 1.0}, flags).texts["cpus"] == "1.0"
    assert registry.parse(values, {"memory": "--memory"}).flag("memory") == "--memory"
    assert registry.parse({"memory": "65m", "cpus": 1}, flags)["memory"] == 65 << 20
    with pytest.raises(LimitError):
        registry.parse({"memory": "64x", "cpus": 1}, flags)


def test_what_a_program_may_change_in_a_config_is_that_one_s() -> None:
    registry = Registry(discovered())
    values = {"io_max": "/dev/null rbps=1m"}
    registry.parse(values)["io_max"][0][1]["rbps"] = 7
    assert registry.parse(values)["io_max"][0][1]["rbps"] == 1 << 20


def test_only_owners_of_a_set_field_are_owners(site: Any) -> None:
    for name in ("ccc", "aaa", "bbb"):
        site.add(name, source(name))
    registry = Registry(discovered())
    assert [p.name for p in registry.owners(registry.parse({"ccc": 1, "aaa": 2}))] == ["aaa", "ccc"]
    assert registry.owners(ResourceConfig()) == ()
    with pytest.raises(UsageError, match="no limit named nothing"):
        registry.owners(ResourceConfig({"nothing": 1}))


def test_pluggys_order_is_the_order_of_the_calls(site: Any) -> None:
    for name, mark in (("aaa", "(trylast=True)"), ("bbb", ""), ("ccc", ""), ("ddd", "(tryfirst=True)")):
        site.add(name, source(name, f"@hookimpl{mark}\ndef mydocker_apply(pid):\n    pass"))
    site.add("eee", source("eee"))
    registry = Registry(discovered())
    config = registry.parse(dict.fromkeys(("aaa", "bbb", "ccc", "ddd", "eee"), 1))
    assert [p.name for p in registry.owners(config, "mydocker_apply")] == ["ddd", "bbb", "ccc", "aaa", "eee"]
    assert [p.name for p in registry.owners(config)] == ["aaa", "bbb", "ccc", "ddd", "eee"]


def test_a_hook_gets_the_parameters_that_it_takes(site: Any) -> None:
    body = "@hookimpl\ndef mydocker_apply(pid, config=None):\n    SEEN.append((pid, config))\nSEEN = []"
    site.add("nofile", source("nofile", body))
    registry = Registry(discovered())
    config = registry.parse({"nofile": 5})
    found = registry.owners(config)[0]
    assert registry.call(found, "mydocker_apply", config=config, cgroup=None, pid=42) is None
    assert [(42, config)] == sys.modules["nofile_module"].SEEN
    assert registry.call(found, "mydocker_remove", cgroup=None) is None


def test_an_object_of_a_module_can_be_the_plugin(site: Any) -> None:
    body = """
import pluggy
class Limits:
    @hookimpl
    def mydocker_fields(self):
        return [field("thing")]
    @pluggy.HookimplMarker("mydocker")(specname="mydocker_usage")
    def report(self, config):
        return {"thing": config["thing"]}
class namespace:
    limits = Limits()
"""
    head = HEAD.replace("@hookimpl\ndef mydocker_fields", "def other")
    site.add("thing", head + body, target="thing_module:namespace.limits")
    registry = Registry(discovered())
    config = registry.parse({"thing": 3})
    assert registry.call(registry.owners(config)[0], "mydocker_usage", config=config) == {"thing": 3}


@pytest.mark.parametrize("raised", ["TypeError('of two\\nlines')", "SystemExit('of two lines')"])
def test_what_a_hook_raises_becomes_a_plugin_error_that_names_it(site: Any, raised: str) -> None:
    site.add("nofile", source("nofile", f"@hookimpl\ndef mydocker_apply(pid):\n    raise {raised}"))
    registry = Registry(discovered())
    with pytest.raises(PluginError) as caught:
        registry.call(plugin(registry, "nofile"), "mydocker_apply", pid=1)
    kind = raised.partition("(")[0]
    assert str(caught.value) == f"plugin nofile (nofile-dist 1.0) failed in mydocker_apply: {kind}: of two lines"


def test_a_limit_error_of_a_plugin_names_the_flag_as_it_was_typed(site: Any) -> None:
    body = "@hookimpl\ndef mydocker_validate(config):\n    raise LimitError('nofile', 'too many')"
    site.add("nofile", source("nofile", body))
    registry = Registry(discovered())
    config = registry.parse({"nofile": 5}, {"nofile": "-files"})
    with pytest.raises(LimitError, match=r"^-files: too many$"):
        registry.call(plugin(registry, "nofile"), "mydocker_validate", config=config)


def test_a_refusal_of_the_kernel_says_whose_limit_it_is_of(site: Any) -> None:
    site.add("nofile", source("nofile", "@hookimpl\ndef mydocker_prepare():\n    raise CgroupError('no such group')"))
    registry = Registry(discovered())
    with pytest.raises(CgroupError, match=r"^plugin nofile \(nofile-dist 1.0\): no such group$"):
        registry.call(plugin(registry, "nofile"), "mydocker_prepare")


def test_values_are_parsed_from_text_and_from_python(site: Any) -> None:
    site.add("aaa", source("aaa"))
    site.add("bbb", source("bbb"))
    registry = Registry(discovered())
    config = registry.parse({"aaa": "5", "bbb": None}, {"aaa": "--aaa"})
    assert config.asdict() == {"aaa": 5}
    assert registry.parse({"aaa": 6})["aaa"] == 6
    with pytest.raises(LimitError, match=r'^-a: "x" is not a whole number$'):
        registry.parse({"aaa": "x"}, {"aaa": "-a"})
    with pytest.raises(LimitError, match=r'^--aaa: "x" is not'):
        registry.parse({"aaa": "x"})
    with pytest.raises(UsageError, match="no limit named zzz"):
        registry.parse({"zzz": 1})


def test_a_name_that_no_limit_has(site: Any) -> None:
    site.add("nofile", source("nofile"))
    registry = Registry(discovered())
    with pytest.raises(UsageError, match=r"^there is no limit named xxx; the limits of the plugins here are: .*nofile"):
        registry.parse({"xxx": 1})
    with pytest.raises(UsageError, match=r"^there is no limit named nofiles, did you mean nofile\?$"):
        registry.parse({"nofiles": 1})
    with pytest.raises(UsageError, match=r"^there is no limit named tmeout, did you mean timeout\?$"):
        registry.parse({"tmeout": 1})
    with pytest.raises(UsageError, match=r"^file: nofiles: there is no limit of that name, did you mean nofile\?$"):
        registry.parse({"nofiles": 1}, {"nofiles": "file: nofiles"})


def test_a_parser_that_fails_otherwise_is_the_plugins_fault(site: Any) -> None:
    fields = "@hookimpl\ndef mydocker_fields():\n    return [field('nofile', parse=parse)]"
    site.add("nofile", HEAD.replace("@hookimpl", "") + f"def parse(text):\n    raise KeyError(text)\n{fields}")
    with pytest.raises(PluginError, match=r"\(nofile-dist 1.0\) failed in the parser of nofile: KeyError"):
        Registry(discovered()).parse({"nofile": 1})


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("raise RuntimeError('broken')", "cannot be imported: RuntimeError: broken"),
        ("import a_module_that_is_not_there", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("@hookimpl\ndef mydocker_aply(pid): pass", "there is no hook mydocker_aply, did you mean mydocker_apply?"),
        ("@hookimpl\ndef mydocker_apply(process): pass", "a parameter process, and it may take config, cgroup, pid"),
        ("def mydocker_apply(pid): pass", "has mydocker_apply without the mark @hookimpl"),
        ("def mydocker_aply(pid): pass", "has mydocker_aply without the mark @hookimpl"),
        ("from functools import partial\nmydocker_apply = partial(print)", "has mydocker_apply without the mark"),
        ("@hookimpl\ndef mydocker_fields(): raise KeyboardInterrupt", "failed in mydocker_fields: KeyboardInterrupt"),
        ("raise KeyboardInterrupt", "cannot be imported: KeyboardInterrupt"),
        ("@hookimpl\ndef mydocker_fields(): return [field('class')]", "'class', a word of Python's own"),
        ("import pluggy\n@pluggy.HookimplMarker('mydocker')(wrapper=True)\ndef mydocker_apply(): yield", "wrapper"),
        ("import pluggy\n@pluggy.HookimplMarker('mydocker')(hookwrapper=True)\ndef mydocker_apply(): yield", "wrapper"),
        ("@hookimpl\ndef mydocker_apply(pid):\n    yield", "mydocker_apply that is a generator"),
        ("@hookimpl\nasync def mydocker_apply(pid): pass", "mydocker_apply that is a generator or a coroutine"),
        ("del mydocker_fields", "no mydocker_fields"),
        ("@hookimpl\ndef mydocker_fields(): raise ValueError('no')", "failed in mydocker_fields: ValueError: no"),
        ("@hookimpl\ndef mydocker_fields(): return []", "declares no field"),
        ("@hookimpl\ndef mydocker_fields(): return None", "failed in mydocker_fields: TypeError"),
        ("@hookimpl\ndef mydocker_fields(): return ['x']", "declares 'x', which is no mydocker.ResourceField"),
        ("@hookimpl\ndef mydocker_fields(): return [field('a b')]", "'a b', which is no Python identifier"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x', ('nofile',))]", "'nofile' for x, which is no flag"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x', ('--a=b',))]", "no flag"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x', '--abc')]", "without flags"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x'), field('x', ('-y',))]", "the field x twice"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x', ('-q',)), field('y', ('-q',))]", "the flag -q twice"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x', parse=lambda t: t)]", "not a module-level function"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x', oci='a', from_oci=lambda t: t)]", "a from_oci of x"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x', from_oci=str)]", "without the path oci that this is"),
        ("@hookimpl\ndef mydocker_fields(): return [field('x', traceless=1)]", "1 for traceless, which is neither"),
    ],
)
def test_a_broken_plugin_is_an_error_that_names_it_and_the_way_out(site: Any, rest: str, words: str) -> None:
    site.add("nofile", source("nofile", rest), version="0.9")
    with pytest.raises(PluginError) as caught:
        discovered()
    text = str(caught.value)
    assert text.startswith("plugin nofile (nofile-dist 0.9) ")
    assert words in text
    assert text.endswith("uninstall it, or set MYDOCKER_DISABLE_PLUGINS=nofile to run without it")


def test_a_plugin_that_is_turned_off_is_not_imported(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("broken", "raise RuntimeError")
    site.add("nofile", source("nofile"))
    monkeypatch.setenv("MYDOCKER_DISABLE_PLUGINS", "broken, nofile")
    assert not {"broken", "nofile"} & {p.name for p in Registry(discovered()).plugins}
    monkeypatch.setenv("MYDOCKER_DISABLE_PLUGINS", "broken")
    assert plugin(Registry(discovered()), "nofile")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("same", '"-a",'), ("same", '"-b",'), "both declare the field same"),
        (("aaa", '"-x", "--same"'), ("bbb", '"--same",'), "both declare the flag --same"),
    ],
)
def test_two_plugins_that_claim_the_same_conflict(
    site: Any, first: tuple[str, str], second: tuple[str, str], words: str
) -> None:
    site.add_simple("one", field=first[0], flags=first[1], version="1.5")
    site.add_simple("two", field=second[0], flags=second[1], version="2.5")
    with pytest.raises(ConflictError) as caught:
        discovered()
    assert str(caught.value).startswith(f"plugin one (one-dist 1.5) and plugin two (two-dist 2.5) {words}")
    assert "MYDOCKER_DISABLE_PLUGINS=one or MYDOCKER_DISABLE_PLUGINS=two" in str(caught.value)


def test_two_plugins_of_one_name_conflict(site: Any) -> None:
    site.add_simple("one", field="aaa", flags='"--aaa",')
    second = site.path / "two-1.dist-info"
    second.mkdir()
    (second / "METADATA").write_text("Metadata-Version: 2.1\nName: two\nVersion: 1\n")
    (second / "entry_points.txt").write_text("[mydocker.subsystems]\none = one_module\n")
    with pytest.raises(ConflictError, match=r"one \(one-dist 1.0\) and plugin one \(two 1\) have the same name"):
        discovered()


@pytest.mark.parametrize(
    ("field", "flags"),
    [("timeout", '"--mine",'), ("mine", '"--timeout",'), ("mine", '"--help",'), ("mine", '"-ti",'), ("mine", '"-it",')],
)
def test_what_the_core_has_no_plugin_may_take(site: Any, field: str, flags: str) -> None:
    site.add_simple("mine", field=field, flags=flags)
    with pytest.raises(ConflictError, match=r"plugin mine \(mine-dist 1.0\) .* which mydocker itself has"):
        discovered()


def test_a_package_that_is_found_twice_counts_once(site: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a source tree that is installed and is also the working directory."""
    site.add_simple("nofile", version="1.0")
    monkeypatch.syspath_prepend(str(site.path.parent / "second"))
    (site.path.parent / "second").mkdir()
    type(site)(site.path.parent / "second").add_simple("nofile", version="2.0")
    assert plugin(Registry(discovered()), "nofile").version == "2.0"


def test_a_parser_is_looked_up_by_its_name_when_it_is_called() -> None:
    function = NamedFunction("mydocker.resources:parse_integer")
    assert function("12") == 12
    assert function == NamedFunction("mydocker.resources:parse_integer")
    assert repr(function) == "<mydocker.resources:parse_integer>"
    assert function != parse_integer


def test_loading_known_plugins_imports_nothing_dear(site: Any) -> None:
    """Each of these modules costs more than what is left of a run."""
    site.add_simple("nofile")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "from mydocker import cache_file, plugins\n"
        "cache_file.SETTLED = 0.0\n"
        "config = plugins.load().parse({'nofile': 7})\n"
        "print(config['nofile'], *sorted(set(sys.modules) - before))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, str(site.path)]
    outputs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in (1, 2)]
    first, second = (set(output.stdout.split()) for output in outputs)
    assert "pluggy" in first
    assert "7" in second
    dear = {"pluggy", "click", "importlib.metadata", "typing", "re", "json", "enum", "logging", "nofile_module"}
    assert not dear & second
