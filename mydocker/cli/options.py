"""The options of ``mydocker run`` that are not limits: one table for both readers of the command line.

`mydocker.cli.fast` reads a command line with it, `mydocker.cli.app` builds click's options and the help of it.
The limits' options come from the plugins.
"""

from __future__ import annotations

from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from mydocker.plugins import Registry

    Kind = Literal["flag", "value", "multiple"]


class Option(Value):
    """One option. The first of ``flags`` is the one that texts name.

    ``kind``: ``flag`` takes no value, ``value`` takes one and the last one given counts, ``multiple`` may be
    given several times. ``complete``: what the shell may offer for the value, ``file``, ``directory``, or the
    words themselves, separated by a space.
    """

    name: str
    flags: tuple[str, ...]
    kind: Kind
    section: str
    help: str
    metavar: str = ""
    complete: str = ""


class Parsed(Value):
    """A command line of ``mydocker run``, read and not yet understood.

    ``options``  those of the core that were given: True, the text, or a list of texts.
    ``limits``   field of a plugin to its text, or a list of texts; ``true`` for one that takes no value.
    ``flags``    field of a plugin to the flag as it was typed.
    ``command``  the command and its arguments, as the interpreter decoded them (``surrogateescape``).
    """

    options: Mapping[str, object]
    limits: Mapping[str, str | list[str]]
    flags: Mapping[str, str]
    command: list[str]


GENERAL = "General"
ROOT = "Root and files"
SURROUNDINGS = "Environment, user, network"
LIFE = "Life and result"
LOGS = "Messages"

#: The options that may also stand before the subcommand.
LOG_OPTIONS = (
    Option(
        name="log_format",
        flags=("--log-format",),
        kind="value",
        section=LOGS,
        metavar="text|json",
        complete="text json",
        help="How messages on stderr are written (default: text).",
    ),
    Option(
        name="log_level",
        flags=("--log-level",),
        kind="value",
        section=LOGS,
        metavar="LEVEL",
        complete="debug info warning error",
        help="What is worth a message: debug, info, warning or error (default: warning).",
    ),
    Option(
        name="debug",
        flags=("--debug",),
        kind="flag",
        section=LOGS,
        help="Write every message, and the traceback of an error.",
    ),
)

OPTIONS = (
    Option(
        name="interactive",
        flags=("-i", "--interactive"),
        kind="flag",
        section=GENERAL,
        help="Keep stdin open; without it the command reads an empty one.",
    ),
    Option(
        name="tty",
        flags=("-t", "--tty"),
        kind="flag",
        section=GENERAL,
        help="Give the command a terminal of its own.",
    ),
    Option(
        name="name",
        flags=("--name",),
        kind="value",
        section=GENERAL,
        metavar="NAME",
        help="Name the container; without it the name is random.",
    ),
    Option(
        name="init",
        flags=("--init",),
        kind="flag",
        section=GENERAL,
        help="Run a small init as PID 1 that forwards signals and reaps processes.",
    ),
    Option(
        name="rootfs",
        flags=("--rootfs",),
        kind="value",
        section=ROOT,
        metavar="DIR",
        complete="directory",
        help="Directory that becomes the container's / (default: the host's root).",
    ),
    Option(
        name="read_only",
        flags=("--read-only",),
        kind="flag",
        section=ROOT,
        help="Mount the root read-only.",
    ),
    Option(
        name="overlay",
        flags=("--overlay",),
        kind="flag",
        section=ROOT,
        help="Let the command write to a copy of the root; every change is dropped at the end.",
    ),
    Option(
        name="volume",
        flags=("-v", "--volume"),
        kind="multiple",
        section=ROOT,
        metavar="SRC:DST[:ro]",
        complete="file",
        help="Bind the host's SRC on DST; may be given several times.",
    ),
    Option(
        name="tmpfs",
        flags=("--tmpfs",),
        kind="multiple",
        section=ROOT,
        metavar="DST[:OPTIONS]",
        help="Mount an empty tmpfs on DST, with size=64m, mode=1777, ro or exec; may be given several times.",
    ),
    Option(
        name="workdir",
        flags=("-w", "--workdir"),
        kind="value",
        section=ROOT,
        metavar="DIR",
        help="Working directory in the container.",
    ),
    Option(
        name="env",
        flags=("-e", "--env"),
        kind="multiple",
        section=SURROUNDINGS,
        metavar="KEY[=VALUE]",
        help="Set an environment variable; KEY alone takes the host's value; may be given several times.",
    ),
    Option(
        name="env_file",
        flags=("--env-file",),
        kind="multiple",
        section=SURROUNDINGS,
        metavar="FILE",
        complete="file",
        help="Read environment variables from FILE, one KEY=VALUE in a line; may be given several times.",
    ),
    Option(
        name="user",
        flags=("-u", "--user"),
        kind="value",
        section=SURROUNDINGS,
        metavar="USER[:GROUP]",
        help="Run as this user: numbers, or names as the container knows them.",
    ),
    Option(
        name="hostname",
        flags=("--hostname",),
        kind="value",
        section=SURROUNDINGS,
        metavar="NAME",
        help="Host name in the container (default: the host's).",
    ),
    Option(
        name="network",
        flags=("--network", "--net"),
        kind="value",
        section=SURROUNDINGS,
        metavar="none|host",
        complete="none host",
        help="none: a loopback of its own and nothing else; host: the host's network (default: none).",
    ),
    Option(
        name="cap_add",
        flags=("--cap-add",),
        kind="multiple",
        section=SURROUNDINGS,
        metavar="CAPABILITY",
        help="Add a capability, or ALL; may be given several times.",
    ),
    Option(
        name="cap_drop",
        flags=("--cap-drop",),
        kind="multiple",
        section=SURROUNDINGS,
        metavar="CAPABILITY",
        help="Drop a capability, or ALL; may be given several times.",
    ),
    Option(
        name="privileged",
        flags=("--privileged",),
        kind="flag",
        section=SURROUNDINGS,
        help="Give the command all capabilities and mask nothing: it can take over the host.",
    ),
    Option(
        name="security_opt",
        flags=("--security-opt",),
        kind="multiple",
        section=SURROUNDINGS,
        metavar="OPTION",
        complete="seccomp=unconfined no-new-privileges=true no-new-privileges=false apparmor=unconfined label=disable",
        help="seccomp=FILE or unconfined, no-new-privileges=true or false, apparmor=PROFILE, label=LABEL; may be given "
        "several times.",
    ),
    Option(
        name="timeout",
        flags=("--timeout",),
        kind="value",
        section=LIFE,
        metavar="DURATION",
        help="Kill the container after this time, as in 10s or 1m30s.",
    ),
    Option(
        name="stop_timeout",
        flags=("--stop-timeout",),
        kind="value",
        section=LIFE,
        metavar="DURATION",
        help="Time between TERM and KILL when mydocker is told to stop (default: 10s).",
    ),
    Option(
        name="pidfile",
        flags=("--pidfile",),
        kind="value",
        section=LIFE,
        metavar="FILE",
        complete="file",
        help="Write the PID of the container's first process to FILE.",
    ),
    Option(
        name="result",
        flags=("--result",),
        kind="value",
        section=LIFE,
        metavar="FILE",
        complete="file",
        help="Write how the run ended to FILE, as JSON.",
    ),
    Option(
        name="profile",
        flags=("--profile",),
        kind="value",
        section=LIFE,
        metavar="FILE",
        complete="file",
        help="Draw memory, CPU and pressure over time to FILE, a .svg, .png or .pdf, when the command has ended.",
    ),
    Option(
        name="profile_interval",
        flags=("--profile-interval",),
        kind="value",
        section=LIFE,
        metavar="DURATION",
        help="Time between two moments of --profile (default: 50ms, and longer the longer the run).",
    ),
    Option(
        name="trace",
        flags=("--trace",),
        kind="flag",
        section=LIFE,
        help="Write to stderr which stages the run had and how long each took.",
    ),
    Option(
        name="limits",
        flags=("--limits",),
        kind="value",
        section=LIFE,
        metavar="strict|best-effort",
        complete="strict best-effort",
        help="best-effort: a limit that this host cannot put in force is a warning instead of an error.",
    ),
    Option(
        name="cgroup_parent",
        flags=("--cgroup-parent",),
        kind="value",
        section=LIFE,
        metavar="CGROUP",
        help="Make the container's cgroup below this one (default: mydocker).",
    ),
    *LOG_OPTIONS,
)

#: What no plugin may take, besides the flags of `OPTIONS`.
RESERVED_FLAGS = frozenset(("-h", "--help", "--version"))


def run_options(registry: Registry) -> tuple[Option, ...]:
    """All options of ``mydocker run``: those of the core, then the limits'."""
    return OPTIONS + limit_options(registry)


def limit_options(registry: Registry) -> tuple[Option, ...]:
    """The options of the limits, with a section for each plugin."""
    return tuple(
        Option(
            name=field.name,
            flags=field.flags,
            kind=field.kind,
            section=limit_section(plugin.name),
            help=field.help,
            metavar="" if field.kind == "flag" else field.metavar,
            complete=field.complete,
        )
        for plugin in registry.plugins
        for field in plugin.fields
    )


def limit_section(plugin: str) -> str:
    return f"Limits: {plugin}"
