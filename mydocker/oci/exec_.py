"""exec: run a process in a container that runs."""

from __future__ import annotations

import os

from mydocker.errors import MydockerError, OciError
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from mydocker.oci.container import Container
    from mydocker.oci.main import Call

ARGUMENTS = "CONTAINER-ID [COMMAND] [ARG...]"
OPTIONS = (
    Option(names=("--process", "-p"), metavar="FILE", help="the process, as JSON in the form of config.json's process"),
    Option(names=("--detach", "-d"), kind="flag", help="do not wait for the end of the process"),
    Option(names=("--pid-file",), metavar="FILE", help="write its PID there"),
    Option(names=("--tty", "-t"), kind="flag", help="give it a terminal"),
    Option(names=("--console-socket",), metavar="SOCKET", help="send the master of its terminal to this socket"),
    Option(names=("--pidfd-socket",), metavar="SOCKET", help="send a pidfd of it to this socket"),
    Option(names=("--cwd",), metavar="DIR", help="its working directory in the container"),
    Option(names=("--env", "-e"), kind="multiple", metavar="NAME=VALUE", help="a variable; may be repeated"),
    Option(names=("--user", "-u"), metavar="UID[:GID]", help="its user"),
    Option(names=("--additional-gids", "-g"), kind="multiple", metavar="GID", help="a group besides; may be repeated"),
    Option(names=("--cap", "-c"), kind="multiple", metavar="CAP", help="a capability besides; may be repeated"),
    Option(names=("--no-new-privs",), kind="flag", help="set no_new_privs"),
    Option(names=("--apparmor",), metavar="PROFILE", help="its AppArmor profile"),
    Option(names=("--process-label",), metavar="LABEL", help="its SELinux label"),
    Option(
        names=("--cgroup",),
        kind="multiple",
        metavar="[CONTROLLER,...:]PATH",
        help="put it into this cgroup below the container's, which must exist; may be repeated with controllers on v1",
    ),
    Option(names=("--ignore-paused",), kind="flag", help="in a paused container: wait until it is resumed"),
    Option(names=("--preserve-fds",), metavar="N", help="pass N descriptors besides 0, 1 and 2"),
    Option(names=("--no-subreaper",), kind="flag", help="accepted: nothing here relies on a subreaper"),
)

#: What a ``--process`` that does not say otherwise has from the container's own process, as with runc.
_INHERITED = (
    "capabilities",
    "apparmorProfile",
    "selinuxLabel",
    "oomScoreAdj",
    "scheduler",
    "ioPriority",
    "execCPUAffinity",
)


def main(call: Call) -> int:
    try:
        return _execute(call)
    except OciError as e:
        raise OciError(f"exec failed: {e}") from e


def _execute(call: Call) -> int:
    from mydocker.oci import console, container, descriptors, execution

    options = call.options
    preserved = descriptors.passed(descriptors.count(options.get("preserve_fds")))
    found = container.find(call)
    status = found.status
    if status in ("stopped", "creating"):
        raise OciError(f"cannot exec in a {status} container: container not running")
    if status == "paused" and not options.get("ignore_paused"):
        raise OciError("cannot exec in a paused container (use --ignore-paused to override)")
    found.ensure_watched()
    entry = _process(call, found)
    detached = bool(options.get("detach"))
    console.check(terminal=entry["terminal"], detached=detached, socket=options.get("console_socket"))
    work = execution.Work(
        container=found,
        process=entry,
        log=call.log,
        detached=detached,
        preserved=preserved,
        pid_file=options.get("pid_file") or "",
        console_socket=options.get("console_socket") or "",
        pidfd_socket=options.get("pidfd_socket") or "",
        cgroups=_sub_cgroups(options.get("cgroup", ())),
    )
    try:
        return execution.run(work)
    except OciError:
        raise
    except (MydockerError, OSError) as e:
        raise OciError(f"unable to start container process: {_words(e)}") from e


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        about = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
        return f"{(error.strerror or str(error)).lower()}{about}"
    return str(error)


def _process(call: Call, found: Container) -> dict[str, Any]:
    """The process to be run: that of ``--process``, or the container's own with what the options change of it."""
    own: dict[str, Any] = found.config.get("process") or {}
    options = call.options
    command = list(call.arguments[1:])
    if options.get("process"):
        return {"terminal": False, **_read(options["process"], own)}
    entry = {**own, "args": command, "terminal": bool(options.get("tty"))}
    if not command:
        raise OciError("process args cannot be empty")
    entry["env"] = [*(own.get("env") or ()), *options.get("env", ())]
    if options.get("cwd"):
        entry["cwd"] = options["cwd"]
    if not str(entry.get("cwd") or "").startswith("/"):
        raise OciError("Cwd must be an absolute path")
    if options.get("apparmor"):
        entry["apparmorProfile"] = options["apparmor"]
    if options.get("process_label"):
        entry["selinuxLabel"] = options["process_label"]
    if "no_new_privs" in options:
        entry["noNewPrivileges"] = options["no_new_privs"]
    entry["user"] = _user(own.get("user") or {}, options)
    if options.get("cap"):
        entry["capabilities"] = _with_capabilities(own.get("capabilities") or {}, options["cap"])
    return entry


def _read(path: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The process in a file. Of what is not said there, some is as in the container's own process."""
    from mydocker import plain_json
    from mydocker.oci import config

    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            entry = plain_json.loads(f.read())
    except OSError as e:
        raise OciError(f"--process: cannot read {path}: {(e.strerror or '').lower()}") from e
    except ValueError as e:
        raise OciError(f"--process: {path} is not JSON: {e}") from None
    config.validate_process(entry)
    for name in _INHERITED:
        if entry.get(name) is None and own.get(name) is not None:
            entry[name] = own[name]
    return dict(entry)


def _user(own: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    user = dict(own)
    if options.get("user"):
        uid, colon, gid = options["user"].partition(":")
        user["uid"] = _id(uid, "--user", "uid")
        if colon:
            user["gid"] = _id(gid, "--user", "gid")
    if options.get("additional_gids"):
        more = ",".join(options["additional_gids"]).split(",")
        gids = [_id(text, "--additional-gids", "gid") for text in more]
        user["additionalGids"] = [*(own.get("additionalGids") or ()), *gids]
    return user


def _id(text: str, flag: str, kind: str) -> int:
    """The last number of 32 bits is no id: setresuid(2) takes it for "no change"."""
    if not (text.isascii() and text.isdigit() and int(text) < 0xFFFFFFFF):
        raise OciError(f'{flag}: "{text}" is not a {kind}: write a number, as in 1000:1000')
    return int(text)


def _with_capabilities(own: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Not inheritable (CVE-2022-29162), and ambient only where the container has inheritable ones anyway."""
    kinds = ("bounding", "permitted", "effective", "ambient")
    sets = {kind: list(own.get(kind) or ()) for kind in (*kinds, "inheritable")}
    for kind in kinds if sets["inheritable"] else kinds[:-1]:
        sets[kind] += names
    return sets


def _sub_cgroups(texts: Sequence[str]) -> dict[str, str]:
    """Controller to the path below the container's cgroup; the empty one stands for all others."""
    found: dict[str, str] = {}
    for text in texts:
        controllers, _, path = text.rpartition(":")
        if ".." in path.split("/"):
            raise OciError(f"--cgroup: {path} is not a sub cgroup path")
        for controller in controllers.split(","):
            if controller in found:
                raise OciError(f"--cgroup: {controller or 'a path for all controllers'} is given twice")
            found[controller] = path.strip("/")
    return found
