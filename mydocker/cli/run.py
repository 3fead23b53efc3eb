"""``mydocker run``: from the command line as it was read to a `Spec`, and from the `Result` to the exit code.

The texts of ``--volume``, ``--tmpfs``, ``--env`` and ``--env-file`` are Docker's (docs.docker.com, "docker container
run").
"""

from __future__ import annotations

import os

from mydocker import code_cache, logs
from mydocker.errors import MydockerError, StateError, UsageError
from mydocker.resources import format_size, parse_duration, parse_size
from mydocker.spec import Spec, Tmpfs, Volume, check_cwd, check_hostname, resolve_capabilities
from mydocker.state import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Literal

    from mydocker.cli.options import Parsed
    from mydocker.plugins import Registry
    from mydocker.profile import Profile
    from mydocker.result import Result
    from mydocker.tracing import Stage

#: tmpfs mount options that are in force on every tmpfs of a container, so that asking for them changes nothing.
_TMPFS_ALWAYS = ("rw", "noexec", "nosuid", "nodev")


def execute(parsed: Parsed, registry: Registry) -> int:
    """Run it; the exit code. With ``--result``, the file tells of a failure of mydocker too."""
    options = parsed.options
    configure_logs(options)
    profile = _profile(options)
    file = options.get("result")
    if file is None:
        result = _run(parsed, registry, profile)
    else:
        target = _result_file(str(file))
        try:
            result = _run(parsed, registry, profile)
        except (Exception, KeyboardInterrupt) as error:
            _write_result(target, _failure(parsed, error))
            raise
        _write_result(target, result)
    _say_what_killed(result, options)
    if result.trace:
        _write_trace(result.trace)
    if profile is not None:
        profile.draw(result)
    return result.exit_code


def _say_what_killed(result: Result, options: Mapping[str, Any]) -> None:
    """An exit code of 137 does not tell why."""
    if result.reason == "timeout":
        logs.warning("the container was killed at its --timeout of %s", options.get("timeout"))
    elif result.reason == "oom":
        limit = result.usage.memory_limit
        allowed = f", of which it may have {format_size(limit)}" if limit is not None else ""
        logs.warning("the command was killed because the container ran out of memory%s", allowed)


def configure_logs(options: Mapping[str, Any]) -> None:
    """Put ``--log-level``, ``--log-format`` and ``--debug`` in force."""
    level = options.get("log_level", "warning")
    if level not in logs.LEVELS:
        raise UsageError(f'--log-level: "{level}" is not a level: use debug, info, warning or error')
    log_format = options.get("log_format", "text")
    if log_format not in ("text", "json"):
        raise UsageError(f'--log-format: "{log_format}" is not a format: use text or json')
    logs.configure("debug" if options.get("debug") else level, log_format)


def _profile(options: Mapping[str, Any]) -> Profile | None:
    if "profile" not in options:
        if "profile_interval" in options:
            raise UsageError("--profile-interval: it says how often --profile looks; add --profile FILE")
        return None
    from mydocker.profile import INTERVAL, Profile

    interval = options.get("profile_interval")
    return Profile(options["profile"], INTERVAL if interval is None else _duration("--profile-interval", interval))


def _run(parsed: Parsed, registry: Registry, profile: Profile | None) -> Result:
    spec = to_spec(parsed)
    config = registry.parse(*registry.config.with_defaults(parsed.limits, parsed.flags))
    if spec.terminal and not os.isatty(0):
        raise UsageError("the input device is not a TTY")
    from mydocker.runner import Means, run_foreground

    observer = profile.watches if profile is not None else None
    interactive = bool(parsed.options.get("interactive"))
    means, trace = Means(), None
    if "trace" in parsed.options:
        from mydocker.tracing import of_command_line

        trace = of_command_line()
        means = trace.means(means)
    elif not spec.terminal:
        from mydocker.kept_table import KeptMeans

        means = KeptMeans()
    code_cache.release()
    figures = "result" in parsed.options or profile is not None or trace is not None
    result = run_foreground(
        spec, config, registry, stdin=interactive, observer=observer, means=means, figures=figures
    )
    return result.replace(trace=trace.stages()) if trace is not None else result


def _write_trace(stages: Sequence[Stage]) -> None:
    import sys

    from mydocker import tracing

    sys.stderr.write(tracing.json_line(stages) if logs.is_json() else tracing.table(stages))


def to_spec(parsed: Parsed) -> Spec:
    """What the core options ask for. `UsageError`, which names the flag, for a value that is wrong."""
    options: Mapping[str, Any] = parsed.options
    for name, value in options.items():
        if value == "":
            raise UsageError(f"--{name.replace('_', '-')}: its value is empty; give it one, or leave it out")
    rootfs, pidfile = options.get("rootfs"), options.get("pidfile")
    return Spec(
        args=tuple(os.fsencode(word) for word in parsed.command),
        extra_env=environment(options.get("env", ()), options.get("env_file", ())),
        cwd=check_cwd(options.get("workdir"), "--workdir"),
        user=options.get("user", ""),
        hostname=check_hostname(options.get("hostname"), "--hostname"),
        rootfs=None if rootfs is None else os.path.abspath(rootfs),
        readonly="read_only" in options,
        overlay="overlay" in options,
        mounts=mounts(options.get("volume", ()), options.get("tmpfs", ())),
        network=_network(options.get("network", "none")),
        terminal="tty" in options,
        init="init" in options,
        timeout=_duration("--timeout", options["timeout"]) if "timeout" in options else None,
        stop_timeout=_stop_timeout(options.get("stop_timeout", "10")),
        name=_name(options.get("name")),
        pidfile=None if pidfile is None else os.path.abspath(pidfile),
        cgroup_parent=_cgroup_parent(options.get("cgroup_parent")),
        capabilities=resolve_capabilities(options.get("cap_add", ()), options.get("cap_drop", ())),
        privileged="privileged" in options,
        **_security(options),
        accounting="result" in options or "profile" in options,
        limits=_policy(options.get("limits", "strict")),
    )


def _security(options: Mapping[str, Any]) -> dict[str, Any]:
    if "security_opt" not in options:
        return {}
    from mydocker.cli import security_options

    return security_options.fields(options["security_opt"])


def _policy(text: str) -> Literal["strict", "best-effort"]:
    if text == "strict":
        return "strict"
    if text == "best-effort":
        return "best-effort"
    raise UsageError(f'--limits: "{text}" is not a way to treat limits: use strict or best-effort')


def _duration(flag: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def _stop_timeout(text: str) -> float:
    """Seconds; 0 is "kill at once", as for ``docker run``."""
    return 0.0 if text in ("0", "0s") else _duration("--stop-timeout", text)


def _name(text: str | None) -> str | None:
    try:
        return None if text is None else check_name(text)
    except StateError as error:
        raise UsageError(f"--name: {error}") from None


def _network(text: str) -> Literal["none", "host"]:
    if text == "none":
        return "none"
    if text == "host":
        return "host"
    raise UsageError(f'--network: "{text}" is not a network that mydocker can give: use none or host')


def _cgroup_parent(text: str | None) -> str | None:
    if text is None:
        return None
    names = [name for name in text.split("/") if name]
    if not names or "." in names or ".." in names:
        raise UsageError(f'--cgroup-parent: "{text}" is not a cgroup: write its path from the mount point, as in a/b')
    return "/".join(names)


def environment(variables: Sequence[str], files: Sequence[str]) -> tuple[bytes, ...]:
    """``KEY=VALUE`` of ``--env-file`` and then of ``--env``, which therefore wins.

    ``KEY`` alone takes the value that mydocker itself was started with, and is left out if there is none.
    """
    found: list[bytes] = []
    for file in files:
        found += _complete("--env-file", _env_lines(file))
    found += _complete("--env", (os.fsencode(variable) for variable in variables))
    return tuple(found)


def _complete(flag: str, entries: Iterable[bytes]) -> list[bytes]:
    complete = []
    for entry in entries:
        key, equals, _ = entry.partition(b"=")
        if not key:
            raise UsageError(f'{flag}: "{os.fsdecode(entry)}" has no name before "=": write KEY=VALUE')
        if equals:
            complete.append(entry)
        elif key in os.environb:
            complete.append(key + b"=" + os.environb[key])
    return complete


def _env_lines(file: str) -> list[bytes]:
    """The entries of a file: comments, empty lines and space before the name are not part of any.

    The value is taken as it is, quotes and spaces included.
    """
    try:
        with open(file, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise UsageError(f"--env-file: cannot read {file}: {error.strerror}") from None
    entries = []
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        entry = line.removesuffix(b"\r").lstrip()
        if not entry or entry.startswith(b"#"):
            continue
        key = entry.partition(b"=")[0]
        if len(key.split()) > 1 or key != key.rstrip():
            raise UsageError(f'--env-file: {file}: the name "{os.fsdecode(key)}" has a space in it')
        entries.append(entry)
    return entries


def mounts(volumes: Sequence[str], tmpfs: Sequence[str]) -> tuple[Volume | Tmpfs, ...]:
    """What ``--volume`` and ``--tmpfs`` ask for; what is mounted below another mount comes after it."""
    wanted: list[Volume | Tmpfs] = [*(parse_volume(text) for text in volumes), *(parse_tmpfs(text) for text in tmpfs)]
    seen = set()
    for mount in wanted:
        if mount.destination in seen:
            raise UsageError(f"--volume, --tmpfs: {mount.destination} is given twice")
        seen.add(mount.destination)
    return tuple(sorted(wanted, key=lambda mount: mount.destination.count("/")))


def parse_volume(text: str) -> Volume:
    """``SRC:DST`` or ``SRC:DST:ro`` (or ``rw``). A relative SRC is taken from the working directory."""
    source, _, rest = text.partition(":")
    destination, colon, mode = rest.partition(":")
    if not source or not destination:
        raise UsageError(f'--volume: "{text}" is not a volume: write SRC:DST, as in ./data:/data or /data:/data:ro')
    if colon and mode not in ("ro", "rw"):
        raise UsageError(f'--volume: "{mode}" in "{text}" is not a mode: use ro or rw')
    return Volume(
        source=os.path.abspath(source), destination=_destination("--volume", destination), readonly=mode == "ro"
    )


def parse_tmpfs(text: str) -> Tmpfs:
    """``DST`` or ``DST:size=64m,mode=1777,ro,exec``."""
    destination, _, words = text.partition(":")
    options: dict[str, Any] = {}
    for word in words.split(",") if words else ():
        key, equals, value = word.partition("=")
        if key == "size" and equals:
            options["size"] = _tmpfs_size(value)
        elif key == "mode" and equals:
            options["mode"] = _tmpfs_mode(value)
        elif word == "ro":
            options["readonly"] = True
        elif word == "exec":
            options["exec"] = True
        elif word not in _TMPFS_ALWAYS:
            raise UsageError(f'--tmpfs: "{word}" is not an option: use size=SIZE, mode=MODE, ro or exec')
    return Tmpfs(destination=_destination("--tmpfs", destination), **options)


def _tmpfs_size(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageError(f"--tmpfs: {error}") from None
    if size == 0:
        raise UsageError("--tmpfs: size=0 is no limit at all for the kernel; leave it out if you mean that")
    return size


def _tmpfs_mode(text: str) -> int:
    if not (text and len(text) <= 5 and not text.strip("01234567") and int(text, 8) <= 0o7777):
        raise UsageError(f'--tmpfs: "{text}" is not a mode: write it in octal, as in mode=1777')
    return int(text, 8)


def _destination(flag: str, text: str) -> str:
    path = os.path.normpath(text) if text.startswith("/") else ""
    # normpath keeps two slashes at the front, which POSIX lets mean something else
    path = "/" + path.lstrip("/") if path else ""
    if path in ("", "/"):
        raise UsageError(f'{flag}: "{text}" is not a place in the container: write a path below /, as in /data')
    return path


def _result_file(file: str) -> str | int:
    """Where to write the result, a path or a descriptor; `UsageError` now if it cannot be written."""
    if not file:
        raise UsageError("--result: its value is empty; give it one, or leave it out")
    descriptor = _descriptor(file)
    if descriptor is not None:
        return descriptor
    target = os.path.realpath(file)
    folder = os.path.dirname(target)
    problem = ""
    if os.path.isdir(target):
        problem = "it is a directory"
    elif not os.path.isdir(folder):
        problem = f"there is no directory {folder}"
    elif not os.access(target if _is_special(target) else folder, os.W_OK, effective_ids=True):
        problem = "permission denied, or the file system is read-only"
    if problem:
        raise UsageError(f"--result: cannot write {file}: {problem}")
    return target


def _descriptor(file: str) -> int | None:
    """The descriptor that ``/dev/stderr`` or ``/dev/fd/3`` stands for.

    What is behind it is written to: it may be a file, which must not be replaced by another.
    """
    # /dev/stderr is a link to the descriptor, which in turn looks like a link to the file: one step, not two.
    for meant in (file, os.readlink(file) if os.path.islink(file) else ""):
        folder, _, number = meant.rpartition("/")
        if folder in ("/dev/fd", "/proc/self/fd") and number.isdecimal():
            try:
                os.fstat(int(number))
            except OSError as error:
                raise UsageError(f"--result: cannot write {file}: {error.strerror}") from None
            return int(number)
    return None


def _is_special(path: str) -> bool:
    """A pipe or a device, which is written to and not replaced."""
    return os.path.exists(path) and not os.path.isfile(path)


def _write_result(target: str | int, result: Result) -> None:
    """A reader sees no file, the old one or the whole new one."""
    text = result.to_json() + "\n"
    try:
        if isinstance(target, int) or _is_special(target):
            with open(target, "w", closefd=isinstance(target, str)) as stream:
                stream.write(text)
            return
        unfinished = f"{target}.{os.getpid()}.new"
        try:
            with open(unfinished, "x") as stream:
                stream.write(text)
            os.rename(unfinished, target)
        except OSError:
            os.unlink(unfinished)
            raise
    except OSError as error:
        raise StateError(f"--result: cannot write {target}: {error.strerror}") from error


def _failure(parsed: Parsed, error: BaseException) -> Result:
    from mydocker.plugins import error_text
    from mydocker.result import Result

    known = isinstance(error, MydockerError)
    return Result(
        args=tuple(parsed.command),
        id=str(parsed.options.get("name", "")),
        exit_code=error.exit_code if isinstance(error, MydockerError) else 125,
        reason="runtime-error",
        error=str(error) if known else error_text(error),
    )
