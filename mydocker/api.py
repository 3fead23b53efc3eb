"""`run`: a container as ``subprocess.run`` runs a process.

All runs of a program share one `SharedMeans`, with one helper process; `mydocker.spawner.Spawner` is made of the same
parts.
"""

from __future__ import annotations

import os

from mydocker import config, runner
from mydocker.errors import RunFailed, UsageError
from mydocker.resources import ResourceConfig, parse_duration
from mydocker.spawning.means import SharedMeans
from mydocker.spec import Spec, Tmpfs, Volume, check_cwd, check_hostname, resolve_capabilities
from mydocker.streams import CapturedStreams, open_null

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any, Literal

    from mydocker.plugins import Registry
    from mydocker.result import Result
    from mydocker.runner import Container, Control, Means

    StrOrBytes = str | bytes
    Stream = int | IO[Any] | None

#: As in subprocess.
PIPE, STDOUT, DEVNULL = -1, -2, -3


def run(
    argv: Sequence[StrOrBytes | os.PathLike[str]],
    *,
    stdin: Stream = None,
    input: StrOrBytes | None = None,  # noqa: A002
    stdout: Stream = None,
    stderr: Stream = None,
    capture_output: bool = False,
    text: bool = False,
    timeout: float | str | None = None,
    check: bool = False,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    user: str | int = "",
    rootfs: str | os.PathLike[str] | None = None,
    readonly: bool = False,
    overlay: bool = False,
    mounts: Sequence[Volume | Tmpfs] = (),
    network: Literal["none", "host"] = "none",
    hostname: str | None = None,
    init: bool = False,
    name: str | None = None,
    pidfile: str | os.PathLike[str] | None = None,
    cgroup_parent: str | None = None,
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    privileged: bool = False,
    seccomp: str | os.PathLike[str] | Mapping[str, Any] = "default",
    no_new_privileges: bool | None = None,
    apparmor_profile: str = "",
    selinux_label: str = "",
    accounting: bool = False,
    trace: bool = False,
    limits: Literal["strict", "best-effort"] = "strict",
    **fields: Any,
) -> Result:
    """Run ``argv`` in a container and wait for it.

    The parameters are those of `subprocess.run` where it has them. ``stdin``, ``stdout`` and ``stderr`` are None
    (the caller's own; stdin: nothing), a descriptor, a file, or `subprocess.PIPE`, ``STDOUT`` and ``DEVNULL``.
    ``env`` None: the caller's environment with the host's root, a small one with ``rootfs``. ``timeout``: seconds,
    or a text such as ``"1m30s"``; the container is then killed and the Result's reason is ``timeout``; nothing
    is raised, unless ``check``.

    Every other keyword is a limit, by the name of its field (``memory="100m"``, ``cpus=0.5``): a plugin declares
    it; ``mydocker subsystems`` lists them. A field that may be given several times takes a list. What the configuration
    file sets (`mydocker.config`) holds unless the keyword is given. ``limits="best-effort"``: a limit that this host
    cannot put in force is dropped with a warning and listed in ``Result.unenforced``. ``accounting``: fill
    ``Result.usage`` even where no limit needs a cgroup; costs some cgroups. ``trace``: fill ``Result.trace`` with the
    stages of the run and the time that each took.

    ``seccomp``: ``"default"``, which is Docker's profile; ``"unconfined"``; the path of a profile in Docker's form or
    in the OCI runtime spec's, or one as a dict. ``no_new_privileges``: None is on, but for ``privileged``.

    Returns a `Result`. Raises `RunFailed` with ``check=True`` if the command did not exit with 0; `LimitError` for
    a value; `UsageError` for a wrong call; `CommandNotFound` and `CommandNotExecutable`; another `MydockerError`
    if the container could not be made. KeyboardInterrupt kills the container and passes on.
    """
    options = {name: value for name, value in locals().items() if name not in ("argv", "fields")}
    return run_call(Call(argv, {**options, **fields}))


#: The parameters of `run` that are not limits, with their defaults.
_DEFAULTS: dict[str, Any] = dict(run.__kwdefaults__ or {})

#: Those that a container need not be made for: it can be prepared before they are known.
_BY_RUN = frozenset(
    ("stdin", "input", "stdout", "stderr", "capture_output", "text", "timeout", "check", "env", "trace")
)


class Call:
    """One call of `run`, as it was meant: what to run, under which limits, with which streams."""

    registry: Registry | None
    config: ResourceConfig
    spec: Spec
    _options: dict[str, Any]

    def __init__(
        self, argv: Sequence[StrOrBytes | os.PathLike[str]], options: Mapping[str, Any], like: Call | None = None
    ) -> None:
        """``options``: the keywords of `run`. Raises as `run` does for what is wrong with them.

        ``like``: a call whose keywords hold too. Then `is_by_run` tells of ``options`` that they may be given.
        """
        args = _arguments(argv)
        if like is not None:
            self.registry, self.config = like.registry, like.config
            self._options = {**like._options, **options} if options else like._options
            env, timeout = _environment(self._options["env"]), _timeout(self._options["timeout"])
            self.spec = like.spec.replace(args=args, env=env, timeout=timeout)
        else:
            self._options = {**_DEFAULTS, **options}
            fields = {name: value for name, value in options.items() if name not in _DEFAULTS}
            self.registry, self.config = _limits(fields, accounting=self._options["accounting"])
            self.spec = _spec(args, self._options)
        self._check_streams()

    @staticmethod
    def is_by_run(options: Mapping[str, Any]) -> bool:
        """Whether these are all of the command and not of the container: streams, environment and time."""
        return _BY_RUN.issuperset(options)

    def _check_streams(self) -> None:
        options = self._options
        if options["capture_output"] and (options["stdout"] is not None or options["stderr"] is not None):
            raise UsageError("stdout and stderr may not be given together with capture_output")
        if options["input"] is not None and options["stdin"] is not None:
            raise UsageError("stdin and input may not be given together")

    @property
    def traced(self) -> bool:
        return bool(self._options["trace"])

    def streams(self, null: int) -> CapturedStreams:
        """``null``: a descriptor of /dev/null."""
        options = self._options
        stdin, stdout, stderr, data = options["stdin"], options["stdout"], options["stderr"], options["input"]
        if options["capture_output"]:
            stdout = stderr = PIPE
        if data is not None:
            stdin = PIPE
        elif stdin == PIPE:
            stdin = DEVNULL  # nothing would ever be written to it
        if isinstance(data, str):
            data = data.encode()
        return CapturedStreams(
            _descriptor(stdin, null, null), _descriptor(stdout, 1, null), _descriptor(stderr, 2, null), data or b""
        )

    def finished(self, result: Result, streams: CapturedStreams) -> Result:
        """The Result with what was captured. `RunFailed` if that was asked for."""
        out, err = streams.output("stdout"), streams.output("stderr")
        text = self._options["text"]
        result = result.replace(stdout=_text(out) if text else out, stderr=_text(err) if text else err)
        if self._options["check"] and result.exit_code != 0:
            raise RunFailed(result)
        return result


def run_call(
    call: Call,
    forwarder: Control | None = None,
    prepared: Container | None = None,
    meanwhile: Callable[[], None] = runner.done,
) -> Result:
    """Do what ``call`` says, in a container that stands by if there is one. ``forwarder``: interrupts it.

    ``meanwhile`` is called if the command of a container that stood by takes long.
    """
    if call.traced:
        from mydocker.tracing import Trace

        trace = Trace()
        try:
            result, streams = _run_call(call, forwarder, prepared, meanwhile, trace.means(means()))
            result = result.replace(trace=trace.stages())
        finally:
            trace.close()
    else:
        result, streams = _run_call(call, forwarder, prepared, meanwhile, means())
    return call.finished(result, streams)


def _run_call(
    call: Call,
    forwarder: Control | None,
    prepared: Container | None,
    meanwhile: Callable[[], None],
    means: Means,
) -> tuple[Result, CapturedStreams]:
    null = -1
    try:
        null = open_null()
        streams = call.streams(null)
        if prepared is not None:
            result = run_prepared(prepared, call, streams, forwarder, meanwhile, means)
        else:
            result = runner.run(call.spec, call.config, call.registry, streams, forwarder, means=means)
    except OSError as e:
        if e.errno is None:  # a stream of the caller's that has no descriptor (io.UnsupportedOperation)
            raise
        raise runner.as_setup_error(e) from e
    finally:
        if null >= 0:
            os.close(null)
    return result, streams


def run_prepared(
    prepared: Container,
    call: Call,
    streams: CapturedStreams,
    forwarder: Control | None,
    meanwhile: Callable[[], None],
    means: Means,
) -> Result:
    """`Container.run_now`, with errors as those of `runner.run`."""
    try:
        return prepared.run_now(call.spec, streams, forwarder, meanwhile, means)
    except OSError as e:
        raise runner.as_setup_error(e) from e
    finally:
        streams.close()


_shared: list[SharedMeans] = []


def means() -> SharedMeans:
    """Those of this process, made when they are first used."""
    if not _shared:
        _shared.append(SharedMeans())
    return _shared[0]


def close() -> None:
    """End the helper process that the runs of this program share. The next run starts another."""
    for shared in _shared:
        shared.close()


# A fork makes its own: another thread of the program may have held any lock of these.
os.register_at_fork(after_in_child=_shared.clear)


def _limits(fields: Mapping[str, Any], *, accounting: bool) -> tuple[Registry | None, ResourceConfig]:
    configuration = config.load()
    given = {key: value for key, value in fields.items() if value is not None}
    if not (given or configuration.limits or accounting):
        return None, ResourceConfig()
    registry = means().registry(configuration)
    # errors name the keyword, not a flag
    wanted = configuration.with_defaults(given, {key: key for key in given})
    return registry, registry.parse(*wanted, means().supervised)


def _arguments(argv: Sequence[StrOrBytes | os.PathLike[str]]) -> tuple[bytes, ...]:
    if isinstance(argv, (str, bytes)) or not argv:
        raise UsageError("argv is a list of the command and its arguments, as in ['ls', '-l']")
    return tuple(map(os.fsencode, argv))


def _environment(env: Mapping[Any, Any] | None) -> tuple[bytes, ...] | None:
    return None if env is None else tuple(os.fsencode(k) + b"=" + os.fsencode(v) for k, v in env.items())


def _timeout(timeout: float | str | None) -> float | None:
    return None if timeout is None else _seconds(timeout)


def _spec(args: tuple[bytes, ...], options: Mapping[str, Any]) -> Spec:
    cwd, rootfs, pidfile = (options[name] for name in ("cwd", "rootfs", "pidfile"))
    cwd = None if cwd is None else os.fspath(cwd)
    if options["limits"] not in ("strict", "best-effort"):
        raise UsageError(f'limits: "{options["limits"]}" is not a way to treat limits: use strict or best-effort')
    same = ("readonly", "overlay", "network", "init", "name", "cgroup_parent", "privileged", "limits")
    more = ("no_new_privileges", "apparmor_profile", "selinux_label", "accounting")
    return Spec(
        args=args,
        env=_environment(options["env"]),
        cwd=check_cwd(cwd, "cwd") if rootfs is not None else cwd,
        user=str(options["user"]),
        rootfs=None if rootfs is None else os.path.abspath(rootfs),
        mounts=tuple(options["mounts"]),
        timeout=_timeout(options["timeout"]),
        pidfile=None if pidfile is None else os.fspath(pidfile),
        capabilities=resolve_capabilities(options["cap_add"], options["cap_drop"]),
        seccomp=_profile(options["seccomp"]),
        hostname=check_hostname(options["hostname"], "hostname"),
        **{name: options[name] for name in (*same, *more)},
    )


def _profile(seccomp: str | os.PathLike[str] | Mapping[str, Any]) -> str | Mapping[str, Any]:
    if isinstance(seccomp, (str, os.PathLike)):
        path = os.fspath(seccomp)
        return path if path in ("default", "unconfined") else os.path.abspath(path)
    return seccomp


def _seconds(timeout: float | str) -> float:
    if isinstance(timeout, str):
        try:
            return parse_duration(timeout)
        except ValueError as e:
            raise UsageError(f"timeout: {e}") from None
    if not 0 < timeout < 1e9:
        raise UsageError(f"timeout: {timeout} is not a number of seconds to wait for: it must be more than 0")
    return float(timeout)


def _descriptor(stream: Stream, default: int, null: int) -> int:
    if stream is None:
        return default
    if stream == DEVNULL:
        return null
    return stream if isinstance(stream, int) else stream.fileno()


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="replace")
