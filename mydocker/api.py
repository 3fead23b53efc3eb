"""`run`: a container as ``subprocess.run`` runs a process."""

from __future__ import annotations

import os

from mydocker import config, plugins, runner
from mydocker.errors import RunFailed, UsageError
from mydocker.resources import ResourceConfig, parse_duration
from mydocker.spec import Spec, Tmpfs, Volume, resolve_capabilities
from mydocker.streams import CapturedStreams, reserve_standard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Any, Literal

    from mydocker.result import Result

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
    ``Result.usage`` even where no limit needs a cgroup; costs some cgroups.

    ``seccomp``: ``"default"``, which is Docker's profile; ``"unconfined"``; the path of a profile in Docker's form or
    in the OCI runtime spec's, or one as a dict. ``no_new_privileges``: None is on, but for ``privileged``.

    Returns a `Result`. Raises `RunFailed` with ``check=True`` if the command did not exit with 0; `LimitError` for
    a value; `UsageError` for a wrong call; `CommandNotFound` and `CommandNotExecutable`; another `MydockerError`
    if the container could not be made. KeyboardInterrupt kills the container and passes on.
    """
    if isinstance(argv, (str, bytes)) or not argv:
        raise UsageError("argv is a list of the command and its arguments, as in ['ls', '-l']")
    if limits not in ("strict", "best-effort"):
        raise UsageError(f'limits: "{limits}" is not a way to treat limits: use strict or best-effort')
    registry, resources = None, ResourceConfig()
    configuration = config.load()
    given = {key: value for key, value in fields.items() if value is not None}
    if given or configuration.limits or accounting:
        registry = plugins.load(configuration)
        # errors name the keyword, not a flag
        resources = registry.parse(*configuration.with_defaults(given, {key: key for key in given}))
    if capture_output:
        if stdout is not None or stderr is not None:
            raise UsageError("stdout and stderr may not be given together with capture_output")
        stdout = stderr = PIPE
    if input is not None:
        if stdin is not None:
            raise UsageError("stdin and input may not be given together")
        stdin = PIPE
    elif stdin == PIPE:
        stdin = DEVNULL  # nothing would ever be written to it
    if isinstance(input, str):
        input = input.encode()  # noqa: A001
    spec = Spec(
        args=tuple(os.fsencode(arg) for arg in argv),
        env=None if env is None else tuple(os.fsencode(k) + b"=" + os.fsencode(v) for k, v in env.items()),
        cwd=None if cwd is None else os.fspath(cwd),
        user=str(user),
        hostname=hostname,
        rootfs=None if rootfs is None else os.path.abspath(rootfs),
        readonly=readonly,
        overlay=overlay,
        mounts=tuple(mounts),
        network=network,
        init=init,
        timeout=None if timeout is None else _seconds(timeout),
        name=name,
        pidfile=None if pidfile is None else os.fspath(pidfile),
        cgroup_parent=cgroup_parent,
        capabilities=resolve_capabilities(cap_add, cap_drop),
        privileged=privileged,
        seccomp=_profile(seccomp),
        no_new_privileges=no_new_privileges,
        apparmor_profile=apparmor_profile,
        selinux_label=selinux_label,
        accounting=accounting,
        limits=limits,
    )
    reserve_standard()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        streams = CapturedStreams(
            _descriptor(stdin, null, null), _descriptor(stdout, 1, null), _descriptor(stderr, 2, null), input or b""
        )
        result = runner.run(spec, resources, registry, streams)
    finally:
        os.close(null)
    out, err = streams.output("stdout"), streams.output("stderr")
    result = result.replace(stdout=_text(out) if text else out, stderr=_text(err) if text else err)
    if check and result.exit_code != 0:
        raise RunFailed(result)
    return result


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
