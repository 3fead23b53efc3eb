"""What to run and in what surroundings. The names follow the OCI runtime spec's config where it has one."""

from __future__ import annotations

import os

from mydocker.errors import UsageError
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

#: HOST_NAME_MAX, gethostname(2).
HOSTNAME_MAX = 64

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Docker's default set (moby, oci/caps/defaults.go) without CAP_MKNOD: Docker can grant it because its
#: devices cgroup refuses what a device node opens, and here a run may have no cgroup.
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def resolve_capabilities(add: Sequence[str], drop: Sequence[str]) -> tuple[str, ...]:
    """The default set with some added and some dropped, as ``--cap-add`` and ``--cap-drop`` of ``docker run``.

    Names with or without ``CAP_``, in any case; ``ALL`` is all of them. Drops win over adds, but for single names
    added to a ``--cap-drop ALL``. UsageError for a name that is none.
    """
    if not add and not drop:
        return DEFAULT_CAPABILITIES
    from mydocker.linux.capabilities import NAMES

    def full(names: Sequence[str], flag: str) -> set[str]:
        found = set()
        for name in names:
            upper = name.upper()
            upper = upper if upper.startswith("CAP_") or upper == "ALL" else f"CAP_{upper}"
            if upper not in NAMES and upper != "ALL":
                raise UsageError(f'{flag}: "{name}" is not a capability: see capabilities(7), as in NET_ADMIN')
            found.add(upper)
        return found

    added, dropped = full(add, "--cap-add"), full(drop, "--cap-drop")
    start = set(NAMES) if "ALL" in added else set() if "ALL" in dropped else set(DEFAULT_CAPABILITIES)
    kept = (start | added) - dropped - {"ALL"}
    return tuple(name for name in NAMES if name in kept)


class Volume(Value):
    """A bind mount (recursive) of the host's ``source`` on ``destination`` in the container."""

    source: str
    destination: str
    readonly: bool = False


class Tmpfs(Value):
    """A tmpfs on ``destination``. ``size`` is its bound in bytes, None for the kernel's (half of the RAM)."""

    destination: str
    size: int | None = None
    mode: int = 0o1777
    readonly: bool = False
    exec: bool = False


class Spec(Value):
    """One container.

    ``args``          the command and its arguments, exactly; the first is looked up in the container's PATH.
    ``env``           the whole environment, ``KEY=VALUE`` each; None: the default for this kind of root.
    ``extra_env``     what is added to it; a later one wins over an earlier one.
    ``cwd``           the working directory in the container; created if missing when it has its own rootfs. With the
                      host's root it may be relative to this process's.
    ``user``          ``UID[:GID]`` or names as the container's /etc/passwd and /etc/group know them; empty: root.
    ``rootfs``        directory on the host that becomes ``/``; None: the host's own root in a private mount namespace.
    ``readonly``      the root cannot be written.
    ``overlay``       the root is copy-on-write; every change is dropped at the end.
    ``network``       ``none``: a network namespace with loopback only, which is up. ``host``: the host's.
    ``terminal``      give the command a pseudo-terminal of its own.
    ``init``          run a reaper as PID 1 and the command as its child.
    ``timeout``       seconds after which the container is killed, counted from the handing over of the command.
    ``stop_timeout``  seconds between TERM and KILL when the runtime is told to stop.
    ``name``          the container's id; None: a random one.
    ``pidfile``       where to write the PID of the container's first process, as the host sees it, while it runs.
    ``cgroup_parent`` cgroup, from the mount point of each hierarchy, below which the container's is made.
    ``capabilities``  names, as in capabilities(7): the bounding, permitted and effective set.
    ``accounting``    make the cgroups that the figures of `mydocker.Usage` need, even without a limit.
    ``limits``        ``strict``: a limit that this host cannot put in force is an error. ``best-effort``: a warning.
    ``privileged``    all capabilities, nothing masked, no default filter, no_new_privs off.
    ``seccomp``       which system calls the command may make: ``default``, what Docker's profile allows to these
                      capabilities; ``unconfined``; the path of a profile, or one as a mapping.
    ``no_new_privileges``  whether no program gives more privileges than the command has; None: unless ``privileged``.
    ``apparmor_profile``, ``selinux_label``  what a security module confines the command by; empty: as the runtime.
    """

    args: tuple[bytes, ...]
    env: tuple[bytes, ...] | None = None
    extra_env: tuple[bytes, ...] = ()
    cwd: str | None = None
    user: str = ""
    hostname: str | None = None
    rootfs: str | None = None
    readonly: bool = False
    overlay: bool = False
    mounts: tuple[Volume | Tmpfs, ...] = ()
    network: Literal["none", "host"] = "none"
    terminal: bool = False
    init: bool = False
    timeout: float | None = None
    stop_timeout: float = 10.0
    name: str | None = None
    pidfile: str | None = None
    cgroup_parent: str | None = None
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    accounting: bool = False
    limits: Literal["strict", "best-effort"] = "strict"
    privileged: bool = False
    seccomp: str | Mapping[str, Any] = "default"
    no_new_privileges: bool | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""

    @property
    def gains_nothing(self) -> bool:
        """Whether the command runs with no_new_privs (prctl(2), PR_SET_NO_NEW_PRIVS)."""
        return not self.privileged if self.no_new_privileges is None else self.no_new_privileges

    @property
    def own_root(self) -> bool:
        """Whether ``/`` is pivoted to a root of the container's own, with a /dev of its own."""
        return self.rootfs is not None or self.overlay or self.readonly

    @property
    def has_place_for_root(self) -> bool:
        """Whether its root can be put together without a directory of the container's own: over its rootfs, or there
        is none to put together.
        """
        return self.rootfs is not None or not self.own_root


def check_hostname(text: str | None, given: str) -> str | None:
    """``text``, which may be a host name or none. UsageError if it is longer than one can be, with what it was
    ``given`` by.
    """
    if text is not None and len(os.fsencode(text)) > HOSTNAME_MAX:
        raise UsageError(f"{given}: a host name has at most {HOSTNAME_MAX} bytes, and this one has more")
    return text


def check_cwd(text: str | None, given: str) -> str | None:
    """``text``, which may be a working directory in the container or none. UsageError if it is relative, with what it
    was ``given`` by.
    """
    if text is not None and not text.startswith("/"):
        raise UsageError(f'{given}: "{text}" is not a path in the container: write one that begins with /')
    return text


def candidates(argv: Sequence[bytes], env: Sequence[bytes]) -> list[bytes]:
    """The paths at which the command may be, in their order, as execvp(3) looks a plain name up in PATH."""
    name = argv[0]
    if b"/" in name or not name:
        return [name] if name else []
    path = DEFAULT_PATH
    for entry in env:
        if entry.startswith(b"PATH="):
            path = entry[5:]
    return [(directory or b".") + b"/" + name for directory in path.split(b":")]
