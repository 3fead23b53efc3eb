"""Find the plugins and check that they keep the contract: the slow path, with pluggy.

Everything that `mydocker.hookspecs` calls an error is found here, for every plugin that is installed and not
disabled, before a command line is read.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import inspect
import keyword
from typing import Any

import pluggy

from mydocker import hooks, hookspecs
from mydocker.errors import ConflictError, MydockerError, PluginError
from mydocker.plugins import DISABLE_VARIABLE, GROUP, described, error_text, resolve
from mydocker.resources import ResourceField
from mydocker.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.plugins import FieldRow, Selection, Table

_KINDS = ("value", "multiple", "flag")
_WRAPPERS = ("wrapper", "hookwrapper")


def discover(selection: Selection, points: list[importlib.metadata.EntryPoint] | None = None) -> Table:
    """Load every entry point of the group that is selected, check it, and put the answer into plain values.

    ``points``: instead of all that are installed.
    """
    manager = pluggy.PluginManager("mydocker")
    manager.add_hookspecs(hookspecs)
    points = _entry_points() if points is None else points
    found = _unique([Candidate(point) for point in points if selection.has(point.name)])
    loading: list[Candidate] = []
    try:
        hooks.supervised(lambda phase: _load(phase, found, manager, loading))
    except PluginError as error:
        if loading and DISABLE_VARIABLE not in str(error):  # it hangs
            raise PluginError(f"{error}; {_way_out(loading[-1])}") from error
        raise
    _refuse_conflicts(found)
    positions = {
        (caller.name, implementation.plugin_name): position
        for candidate in found
        for caller in manager.get_hookcallers(candidate.plugin) or ()
        for position, implementation in enumerate(reversed(caller.get_hookimpls()))
    }
    return tuple(
        (
            candidate.name,
            candidate.dist,
            candidate.version,
            candidate.target,
            tuple(candidate.rows),
            {
                hook: (attribute, parameters, positions[hook, candidate.name])
                for hook, (attribute, parameters) in candidate.hooks.items()
            },
        )
        for candidate in found
    )


def _load(
    phase: hooks.Phase, found: list[Candidate], manager: pluggy.PluginManager, loading: list[Candidate]
) -> None:
    """``loading``: to be told of each candidate before it is dealt with."""
    # pluggy calls what was registered last first
    for candidate in reversed(found):
        loading.append(candidate)
        phase.begin(f"{candidate} was imported")
        candidate.register(manager)
    for candidate in found:
        loading.append(candidate)
        phase.begin(f"{candidate} was called in mydocker_fields")
        candidate.declare()


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: (p.name, p.dist.name if p.dist else ""))


class Candidate:
    """One entry point on its way to become a plugin."""

    def __init__(self, point: importlib.metadata.EntryPoint) -> None:
        self.point = point
        self.name = point.name
        self.target = f"{point.module}:{point.attr}" if point.attr else point.module
        self.dist = point.dist.name if point.dist else "unknown"
        self.version = point.dist.version if point.dist else "?"
        self.plugin: Any = None
        self.hooks: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.fields: tuple[ResourceField, ...] = ()
        self.rows: list[FieldRow] = []

    def __str__(self) -> str:
        return described(self.name, self.dist, self.version)

    def broken(self, problem: str) -> PluginError:
        return PluginError(f"{self} {problem}; {_way_out(self)}")

    def register(self, manager: pluggy.PluginManager) -> None:
        """Import the plugin and let pluggy check its hooks."""
        try:
            self.plugin = self.point.load()
        except BaseException as error:  # in this thread no Ctrl-C is raised
            raise self.broken(f"cannot be imported: {error_text(error)}") from error
        self._check_version()
        self._check_names(manager)
        try:
            manager.register(self.plugin, self.name)
            manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise self.broken(f"does not keep the contract of the hooks: {error_text(error)}") from error
        self.hooks = self._hooks(manager)

    def _check_version(self) -> None:
        """A plugin says for which version of the contract it is written; one that does not is of the first."""
        version = getattr(self.plugin, "MYDOCKER_API", 1)
        if version not in hookspecs.API_VERSIONS or isinstance(version, bool):
            offered = ", ".join(str(number) for number in hookspecs.API_VERSIONS)
            raise self.broken(
                f"is written for version {version!r} of the plugin API, and mydocker {__version__} offers {offered}"
            )

    def _check_names(self, manager: pluggy.PluginManager) -> None:
        """What looks like a hook is one: a limit whose hook is never called would be in force nowhere."""
        for attribute in dir(self.plugin):
            options = manager.parse_hookimpl_opts(self.plugin, attribute)
            if options is None:
                found = getattr(self.plugin, attribute) if attribute.startswith("mydocker_") else None
                if callable(found) and not isinstance(found, type):
                    raise self.broken(
                        f"has {attribute} without the mark @hookimpl, so that it would never be called: mark it, or "
                        "give it a name that does not begin with mydocker_"
                    )
                continue
            hook = options.get("specname") or attribute
            specification = getattr(hookspecs, hook, None) if hook.startswith("mydocker_") else None
            if specification is not None:
                self._check_parameters(hook, specification, getattr(self.plugin, attribute))
            elif not options.get("optionalhook"):
                known = [name for name in dir(hookspecs) if name.startswith("mydocker_")]
                meant = difflib.get_close_matches(hook, known, 1)
                hint = f", did you mean {meant[0]}?" if meant else f": there are {', '.join(known)}"
                raise self.broken(f"does not keep the contract of the hooks: there is no hook {hook}{hint}")

    def _check_parameters(self, hook: str, specification: Any, function: Any) -> None:
        known = [*inspect.signature(specification).parameters]
        for name, parameter in inspect.signature(function).parameters.items():
            variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if name not in known and not variable and parameter.default is parameter.empty:
                choice = f"it may take {', '.join(known)}" if known else "it takes none"
                raise self.broken(
                    f"does not keep the contract of the hooks: its {hook} has a parameter {name}, and {choice}"
                )

    def _hooks(self, manager: pluggy.PluginManager) -> dict[str, tuple[str, tuple[str, ...]]]:
        hooks: dict[str, tuple[str, tuple[str, ...]]] = {}
        implementations = {
            caller.name: [i for i in caller.get_hookimpls() if i.plugin_name == self.name]
            for caller in manager.get_hookcallers(self.plugin) or ()
        }
        for attribute in dir(self.plugin):
            options = manager.parse_hookimpl_opts(self.plugin, attribute)
            if options is None:
                continue
            hook = options.get("specname") or attribute
            specification = getattr(hookspecs, hook, None)
            if specification is None:
                continue  # an optional hook of another version of mydocker: check_pending let it pass
            if any(options.get(kind) for kind in _WRAPPERS):
                raise self.broken(f"has a wrapper of {hook}: wrappers are refused")
            if hook in hooks:
                raise self.broken(f"implements {hook} twice, as {hooks[hook][0]} and as {attribute}")
            self._refuse_deferred(hook, getattr(self.plugin, attribute))
            known = inspect.signature(specification).parameters
            taken = implementations[hook][0]
            hooks[hook] = (attribute, tuple(name for name in (*taken.argnames, *taken.kwargnames) if name in known))
        return hooks

    def _refuse_deferred(self, hook: str, function: Any) -> None:
        """A call of such a function does nothing by itself: the limit would not be in force."""
        generator = inspect.isgeneratorfunction(function) and hook != "mydocker_fields"
        if generator or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise self.broken(f"has a {hook} that is a generator or a coroutine; a hook is a plain function")

    def declare(self) -> None:
        """Ask the plugin for its fields and check each."""
        if "mydocker_fields" not in self.hooks:
            raise self.broken("has no mydocker_fields: it declares no limit and would never be called")
        attribute, _ = self.hooks["mydocker_fields"]
        try:
            self.fields = tuple(getattr(self.plugin, attribute)())
        except MydockerError as error:
            raise self.broken(f"failed in mydocker_fields: {error}") from error
        except BaseException as error:
            raise self.broken(f"failed in mydocker_fields: {error_text(error)}") from error
        if not self.fields:
            raise self.broken("declares no field and would never be called")
        for field in self.fields:
            self.rows.append(self._row(field))
        for kind, all_of_kind in (
            ("field", [field.name for field in self.fields]),
            ("flag", [flag for field in self.fields for flag in field.flags]),
        ):
            twice = {name for name in all_of_kind if all_of_kind.count(name) > 1}
            if twice:
                raise self.broken(f"declares the {kind} {min(twice)} twice")

    def _row(self, field: ResourceField) -> FieldRow:
        if not isinstance(field, ResourceField):
            raise self.broken(f"declares {field!r}, which is no mydocker.ResourceField")
        if not (isinstance(field.name, str) and field.name.isidentifier()):
            raise self.broken(f"declares the field {field.name!r}, which is no Python identifier")
        if keyword.iskeyword(field.name):
            raise self.broken(f"declares the field {field.name!r}, a word of Python's own, which cannot be a keyword")
        texts = (field.metavar, field.help, field.oci, field.complete)
        if not (isinstance(field.flags, tuple) and field.flags and all(isinstance(text, str) for text in texts)):
            raise self.broken(f"declares the field {field.name} without flags, or with texts that are none")
        if field.kind not in _KINDS:
            raise self.broken(f"declares {field.name} of the kind {field.kind!r}: write {', '.join(_KINDS)}")
        for flag in field.flags:
            if not _is_flag(flag):
                raise self.broken(f"declares {flag!r} for {field.name}, which is no flag: write -x, -name or --name")
        if field.from_oci is not None and not field.oci:
            raise self.broken(f"declares {field.name} with a from_oci, and without the path oci that this is for")
        if not isinstance(field.traceless, bool):
            problem = f"{field.traceless!r} for traceless, which is neither True nor False"
            raise self.broken(f"declares {field.name} with {problem}")
        parse = self._reference(field, field.parse, "parser")
        from_oci = self._reference(field, field.from_oci, "from_oci") if field.from_oci is not None else ""
        return (
            field.name,
            field.flags,
            parse,
            field.metavar,
            field.help,
            field.oci,
            field.kind,
            field.complete,
            from_oci,
            field.traceless,
        )

    def _reference(self, field: ResourceField, function: object, what: str) -> str:
        """How the cache names a function of the field."""
        reference = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
        try:
            same = resolve(reference) == function
        except BaseException:
            same = False
        if not same:
            raise self.broken(f"has a {what} of {field.name} that is not a module-level function: {function!r}")
        return reference


def _is_flag(flag: object) -> bool:
    return (
        isinstance(flag, str)
        and len(flag) >= 2
        and flag.startswith("-")
        and flag.lstrip("-")[:1].isalnum()
        and len(flag) - len(flag.lstrip("-")) <= 2
        # "--x" is long, "-x" is short: of the letters after it only the first one is looked at
        and not any(character.isspace() or character in "=\0" for character in flag)
    )


def _unique(found: list[Candidate]) -> list[Candidate]:
    names: dict[str, Candidate] = {}
    for candidate in found:
        first = names.setdefault(candidate.name, candidate)
        if first is not candidate:
            raise ConflictError(f"{first} and {candidate} have the same name; uninstall one of them")
    return found


def _refuse_conflicts(found: list[Candidate]) -> None:
    """No two may claim one field or one flag, and none what the core has."""
    names: dict[str, Candidate] = {}
    flags: dict[str, Candidate] = {}
    names_of_core, flags_of_core = core_names(), core_flags()
    for candidate in found:
        for field in candidate.fields:
            _claim("field", field.name, candidate, names, names_of_core)
            for flag in field.flags:
                _claim("flag", flag, candidate, flags, flags_of_core)


def _claim(kind: str, name: str, candidate: Candidate, claimed: dict[str, Candidate], core: set[str]) -> None:
    if name in core:
        raise ConflictError(f"{candidate} declares the {kind} {name}, which mydocker itself has; {_way_out(candidate)}")
    first = claimed.setdefault(name, candidate)
    if first is not candidate:
        raise ConflictError(f"{first} and {candidate} both declare the {kind} {name}; {_way_out(first, candidate)}")


def _way_out(*candidates: Candidate) -> str:
    names = " or ".join(f"{DISABLE_VARIABLE}={candidate.name}" for candidate in candidates)
    return f"uninstall {'it' if len(candidates) == 1 else 'one'}, or set {names} to run without it"


def core_names() -> set[str]:
    """The keywords of `mydocker.run`, which the fields join."""
    from mydocker import api

    parameters = inspect.signature(api.run).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}


def core_flags() -> set[str]:
    """The flags of ``mydocker run``, and what it reads as several of them: ``-ti``."""
    from itertools import permutations

    from mydocker.cli.options import OPTIONS, RESERVED_FLAGS

    switches = [flag[1] for option in OPTIONS if option.kind == "flag" for flag in option.flags if len(flag) == 2]
    clusters = {"-" + "".join(letters) for n in range(2, len(switches) + 1) for letters in permutations(switches, n)}
    return {flag for option in OPTIONS for flag in option.flags} | RESERVED_FLAGS | clusters
