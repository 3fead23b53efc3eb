"""The limit plugins of this environment: who declares which field, and how a hook of one is called.

Which plugins there are, whether they keep the contract of `mydocker.hookspecs`, and in which order they run
is decided by pluggy, in `mydocker.plugin_discovery`. That costs some 100 ms, several whole runs, so its answer
is a table of plain values that `mydocker.plugin_cache` keeps until a package or a module changes. A
`Registry` is made of that table, fresh or remembered, and imports the module of a plugin when it first calls it.
"""

from __future__ import annotations

import _thread
import os
import sys

from mydocker import config as configuration
from mydocker import hooks
from mydocker.errors import CgroupError, LimitError, MydockerError, PluginError, UsageError
from mydocker.resources import ResourceConfig, ResourceField
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from mydocker.config import Config
    from mydocker.hooks import Phase

    #: name, flags, "module:qualname" of the parser, metavar, help, oci, kind, complete, that of from_oci or empty,
    #: whether it is traceless
    FieldRow = tuple[str, tuple[str, ...], str, str, str, str, Any, str, str, bool]
    #: hook to (attribute of the plugin object, parameters that it takes, position among the plugins)
    HookRow = tuple[str, tuple[str, ...], int]
    #: name, distribution, version, "module" or "module:attribute", fields, hooks
    PluginRow = tuple[str, str, str, str, tuple[FieldRow, ...], dict[str, HookRow]]
    #: the plugins in the order of their names
    Table = tuple[PluginRow, ...]

GROUP = "mydocker.subsystems"
DISABLE_VARIABLE = "MYDOCKER_DISABLE_PLUGINS"


def resolve(reference: str) -> Any:
    """Import what ``module`` or ``module:attribute.attribute`` names. Raises what the import raises."""
    module, _, attributes = reference.partition(":")
    __import__(module)
    found: Any = sys.modules[module]
    for attribute in attributes.split(".") if attributes else ():
        found = getattr(found, attribute)
    return found


class NamedFunction:
    """A function known by its name, ``module:qualname``, and imported when it is first called."""

    __slots__ = ("_function", "reference")

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self._function: Any = None

    def __call__(self, *args: Any) -> Any:
        if self._function is None:
            self._function = resolve(self.reference)
        return self._function(*args)

    def __eq__(self, other: object) -> bool:
        return self.reference == other.reference if isinstance(other, NamedFunction) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.reference)

    def __repr__(self) -> str:
        return f"<{self.reference}>"

    @property
    def is_known(self) -> bool:
        """Whether it is one of mydocker's own parsers, which neither wait for anything nor import the plugin."""
        return self.reference.startswith("mydocker.resources:")


#: The package of the limits that come with mydocker.
_OWN = "mydocker"


class Plugin(Value):
    """One plugin: an entry point of the group ``mydocker.subsystems``.

    ``name``             the entry point's.
    ``dist, version``    the package that it came with.
    ``target``           ``module`` or ``module:attribute``: the object that has the hooks.
    ``fields``           what it declares.
    ``hooks``            hook to the attribute that implements it and the parameters which that takes.
    ``order``            hook to this plugin's position among those that implement it.
    """

    name: str
    dist: str
    version: str
    target: str
    fields: tuple[ResourceField, ...]
    hooks: Mapping[str, tuple[str, tuple[str, ...]]]
    order: Mapping[str, int]

    @property
    def is_own(self) -> bool:
        """Whether it came with mydocker."""
        return self.dist == _OWN

    def __str__(self) -> str:
        return described(self.name, self.dist, self.version)


def described(name: str, dist: str, version: str) -> str:
    """How texts name a plugin: ``plugin memory (mydocker 0.1)``."""
    return f"plugin {name} ({dist} {version})"


class Registry:
    """The plugins of this environment, in the order of their names."""

    __slots__ = ("_fields", "_implementing", "_objects", "_parsed", "config", "plugins", "table")

    def __init__(self, table: Table, config: Config = configuration.NONE) -> None:
        """``config``: the configuration file by which they were selected."""
        self.config = config
        self.table = table
        self.plugins: tuple[Plugin, ...] = tuple(
            Plugin(
                name=name,
                dist=dist,
                version=version,
                target=target,
                fields=tuple(
                    ResourceField(
                        name=field,
                        flags=flags,
                        parse=NamedFunction(parse),
                        metavar=metavar,
                        help=text,
                        oci=oci,
                        kind=kind,
                        complete=complete,
                        from_oci=NamedFunction(from_oci) if from_oci else None,
                        traceless=traceless,
                    )
                    for field, flags, parse, metavar, text, oci, kind, complete, from_oci, traceless in fields
                ),
                hooks={hook: (attribute, parameters) for hook, (attribute, parameters, _) in hooks.items()},
                order={hook: position for hook, (_, _, position) in hooks.items()},
            )
            for name, dist, version, target, fields, hooks in table
        )
        self._fields = {field.name: (field, plugin) for plugin in self.plugins for field in plugin.fields}
        self._objects: dict[str, Any] = {}
        #: what `implementing` has found, and `parse` made, the last time: threads replace each as a whole
        self._implementing: tuple[ResourceConfig | None, dict[str, tuple[Plugin, ...]]] = (None, {})
        self._parsed: tuple[object, ResourceConfig] | None = None

    @property
    def fields(self) -> tuple[ResourceField, ...]:
        """All fields, by the name of their plugin and then as it declares them."""
        return tuple(field for field, _ in self._fields.values())

    def field(self, name: str) -> tuple[ResourceField, Plugin]:
        """The field of that name and the plugin that declares it. `UsageError` if nobody does."""
        try:
            return self._fields[name]
        except KeyError:
            raise UsageError(f"there is no limit named {name}{self._meant(name)}") from None

    def _meant(self, name: str) -> str:
        """What may have been meant by a name that no limit has: another one, or a parameter of `mydocker.run`."""
        from difflib import get_close_matches

        from mydocker.plugin_discovery import core_names

        near = get_close_matches(name, [*self._fields, *core_names()], 1)
        if near:
            return f", did you mean {near[0]}?"
        return f"; the limits of the plugins here are: {', '.join(self._fields) or 'none'}"

    def owners(self, config: ResourceConfig, hook: str = "") -> tuple[Plugin, ...]:
        """The plugins that own a field which is set, in the order of their names.

        With ``hook``: in the order in which pluggy calls that hook, and those that do not implement it last.
        `UsageError` for a field that nobody declares.
        """
        owners = {plugin.name: plugin for plugin in (self.field(name)[1] for name in config)}
        last = len(self.plugins)
        return tuple(owners[name] for _, name in sorted((p.order.get(hook, last), p.name) for p in owners.values()))

    def implementing(self, config: ResourceConfig, hook: str = "") -> tuple[Plugin, ...]:
        """As `owners`, without those that do not implement ``hook``; for who asks the same again and again."""
        of, known = self._implementing
        if of is not config:
            known = {}
            self._implementing = (config, known)
        found = known.get(hook)
        if found is None:
            owners = self.owners(config, hook)
            found = known[hook] = tuple(p for p in owners if hook in p.hooks) if hook else owners
        return found

    def call(self, plugin: Plugin, hook: str, **arguments: Any) -> Any:
        """Call one hook of one plugin with those of the arguments that it takes.

        None if the plugin does not implement the hook. A `MydockerError` of the plugin passes through, a
        `LimitError` with the flag that the user typed; everything else that it raises becomes a
        `PluginError` that names the plugin, its version and the hook. So does a `CgroupError` of a plugin that did
        not come with mydocker, by a prefix.
        """
        implementation = plugin.hooks.get(hook)
        if implementation is None:
            return None
        attribute, parameters = implementation
        try:
            function = getattr(self._object(plugin), attribute)
            return function(**{name: arguments[name] for name in parameters})
        except LimitError as error:
            if str(error.field) not in self._fields:
                problem = f"it refuses {error.field}, which is the name of no limit: {error.reason}"
                raise PluginError(f"{plugin} failed in {hook}: {problem}") from error
            config = arguments.get("config")
            if not error.flag and config is not None:
                error.flag = config.flag(error.field)
            raise
        except CgroupError as error:
            if plugin.is_own:
                raise
            # A refusal of the kernel names the file: whose limit that is would not be known from it.
            raise type(error)(f"{plugin}: {error}", error.errno) from error
        except MydockerError:
            raise
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise PluginError(f"{plugin} failed in {hook}: {error_text(error)}") from error

    def shares_watch(self, plugin: Plugin) -> bool:
        """Whether one process may watch several containers for it: see `mydocker.hookspecs.mydocker_watch`."""
        try:
            return getattr(self._object(plugin), "MYDOCKER_SHARED_WATCH", False) is True
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise PluginError(f"{plugin} cannot be imported: {error_text(error)}") from error

    def _object(self, plugin: Plugin) -> Any:
        found = self._objects.get(plugin.name)
        if found is None:
            found = self._objects[plugin.name] = resolve(plugin.target)
        return found

    def parse(
        self,
        values: Mapping[str, object],
        flags: Mapping[str, str] | None = None,
        supervised: Callable[[Callable[[Phase], ResourceConfig]], ResourceConfig] = hooks.supervised,
    ) -> ResourceConfig:
        """The limits that are set, from field to text or to a Python value (a list of them for a field that may be
        given several times); None is "not set".

        ``flags``: field to the flag that the user typed, for the errors. ``supervised`` calls the parsers. Raises
        `UsageError` for a field that nobody declares, `LimitError` for a value that is wrong, `PluginError` if a parser
        fails otherwise or takes longer than a hook may.
        """
        flags = flags or {}
        key = [*map(type, values.values()), *values.items(), *flags.items()]
        known = self._parsed
        if known is not None and known[0] == key:
            return known[1]
        parsed = self._parse_or_refuse(values, flags, supervised)
        # One text is always the same value, but to parsers of others, which may look at what they like.
        if all(type(value) in _PLAIN and self._fields[name][1].is_own for name, value in values.items()):
            try:
                hash(tuple(parsed[name] for name in parsed))
                self._parsed = (key, parsed)
            except TypeError:
                pass  # somebody could change a dict in it: it is that run's own
        return parsed

    def _parse_or_refuse(
        self,
        values: Mapping[str, object],
        flags: Mapping[str, str],
        supervised: Callable[[Callable[[Phase], ResourceConfig]], ResourceConfig],
    ) -> ResourceConfig:
        for name in values:
            if name not in self._fields and flags.get(name, name) != name:
                raise UsageError(f"{flags[name]}: there is no limit of that name{self._meant(name)}")
        if all(_needs_no_thread(*self.field(name)) for name in values):
            return self._parse(values, flags, None)
        return supervised(lambda phase: self._parse(values, flags, phase))

    def _parse(self, values: Mapping[str, object], flags: Mapping[str, str], phase: Phase | None) -> ResourceConfig:
        parsed: dict[str, Any] = {}
        texts: dict[str, str | list[str]] = {}
        for name, value in values.items():
            field, plugin = self.field(name)
            if value is None:
                continue
            if phase is not None:
                phase.begin(f"{plugin} was called in the parser of {name}")
            try:
                parsed[name] = field.value_of(value, flags.get(name, ""))
            except MydockerError:
                raise
            except BaseException as error:
                if is_interrupt(error):
                    raise
                raise PluginError(f"{plugin} failed in the parser of {name}: {error_text(error)}") from error
            several = field.kind == "multiple" and isinstance(value, (list, tuple))
            texts[name] = [str(one) for one in value] if several else str(value)  # type: ignore[attr-defined]
        return ResourceConfig(parsed, flags, texts)


#: Values of which two that are equal, and of one type, are the same.
_PLAIN = frozenset((str, int, float, bool))


def _needs_no_thread(field: ResourceField, plugin: Plugin) -> bool:
    """Whether the field's parser is mydocker's own: such a one hangs no more than the rest of mydocker does."""
    return plugin.is_own or (isinstance(field.parse, NamedFunction) and field.parse.is_known)


def error_text(error: BaseException) -> str:
    """``TypeError: the message``, on one line."""
    try:
        text = str(error)
    except Exception:  # it is the plugin's class, and so is its __str__
        text = ""
    return " ".join(f"{type(error).__name__}: {text}".split()).removesuffix(":")


def is_interrupt(error: BaseException) -> bool:
    """Whether ``error`` is Ctrl-C and not a plugin's: Python raises that in the main thread and in no other (signal,
    "Signals and threads"). The main thread has the PID of the process (gettid(2))."""
    return isinstance(error, KeyboardInterrupt) and os.getpid() == _thread.get_native_id()


def load(config: Config | None = None) -> Registry:
    """The plugins that are installed and allowed, from the cache if it is still true.

    ``config``: the configuration file if the caller has read it already.

    Raises `PluginError` or `ConflictError` if one of them is broken, whether the run uses it or not: nobody can
    say which flags a plugin would have had that cannot be loaded. ``MYDOCKER_DISABLE_PLUGINS=name,name``
    turns plugins off.
    """
    from mydocker import plugin_cache

    if config is None:
        config = configuration.load()
    selection = Selection.of(config)
    table = plugin_cache.read(selection)
    if table is None:
        from mydocker.plugin_discovery import discover

        table = plugin_cache.remember(selection, lambda: discover(selection))
    return Registry(table, config)


class Selection(Value):
    """Which of the installed plugins may be there: all that are not ``disabled``, and only the ``allowed`` ones."""

    disabled: tuple[str, ...] = ()
    allowed: tuple[str, ...] | None = None

    @classmethod
    def of(cls, config: Config) -> Selection:
        """What the environment and the configuration file say."""
        disabled = [name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()]
        return cls(disabled=(*disabled, *config.disable), allowed=config.allow)

    def has(self, name: str) -> bool:
        return name not in self.disabled and (self.allowed is None or name in self.allowed)
