"""What confines this process, and what it can confine containers with."""

from __future__ import annotations

from mydocker.doctor.check import missing, not_needed, ok, warning
from mydocker.doctor.kernel import status_field
from mydocker.linux import capabilities
from mydocker.spec import DEFAULT_CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mydocker.doctor.check import Check
    from mydocker.doctor.host import Host

#: What root does with each (capabilities(7)); without the first three there is no container.
_USES = {
    "CAP_SYS_ADMIN": "to make namespaces and mounts",
    "CAP_SETPCAP": "to take capabilities from the container",
    "CAP_SETUID": "for --user",
    "CAP_SETGID": "for --user",
    "CAP_DAC_OVERRIDE": "to use files of other users",
    "CAP_NET_ADMIN": "to bring up the container's network",
    "CAP_SYS_RESOURCE": "to raise hard limits with --ulimit, and to lower the OOM score",
    "CAP_SYS_NICE": "for real-time scheduling and negative nice values",
    "CAP_KILL": "to end containers of other users",
}


def checks(host: Host) -> Iterator[Check]:
    yield capability_set(host)
    yield bounding_set(host)
    yield no_new_privileges(host)
    yield seccomp(host)
    yield seccomp_library(host)
    yield from security_modules(host)


def capability_set(host: Host) -> Check:
    if not host.is_root:
        return not_needed("capabilities", f"{host.user} gets them in a user namespace")
    lacking = [name for name in _USES if not host.can(name)]
    if not lacking:
        return ok("capabilities", "root has all that mydocker uses")
    facts = "; ".join(f"{name}, {_USES[name]}" for name in lacking)
    advice = f"start it where root has them, as in an outer container with --cap-add {lacking[0].removeprefix('CAP_')}"
    required = {"CAP_SYS_ADMIN", "CAP_SETPCAP"} & set(lacking)
    return (missing if required else warning)("capabilities", f"root lacks {facts}", advice)


def bounding_set(host: Host) -> Check:
    """A container cannot have what is not in the runtime's bounding set."""
    try:
        bounding = int(status_field(host, "CapBnd"), 16)
    except ValueError:
        return warning("bounding set", "/proc/self/status does not show it", "mount -t proc proc /proc")
    lacking = [name for name in DEFAULT_CAPABILITIES if not bounding & capabilities.mask([name])]
    if not lacking:
        return ok("bounding set", "it has every capability that a container gets by default")
    return warning(
        "bounding set",
        f"it lacks {', '.join(lacking)}, which a container gets by default elsewhere",
        "start mydocker from a process that has not dropped them",
    )


def no_new_privileges(host: Host) -> Check:
    if status_field(host, "NoNewPrivs") != "1":
        return ok("no_new_privs", "it is not set on this process, and mydocker sets it on each command")
    if host.is_root:
        return ok("no_new_privs", "it is set on this process already, which takes nothing from root")
    return warning(
        "no_new_privs",
        "it is set on this process, so newuidmap and sudo have no effect in it",
        "start mydocker from a shell that is not in a container or a sandbox",
    )


def seccomp(host: Host) -> Check:
    mode = status_field(host, "Seccomp")
    actions = host.read("/proc/sys/kernel/seccomp/actions_avail")
    if not host.exists("/proc/self/status"):
        return warning("seccomp", "/proc does not show whether there are filters", "mount -t proc proc /proc")
    if not mode or actions is None:
        return missing(
            "seccomp", "this kernel has no seccomp filters", "boot a kernel that was built with CONFIG_SECCOMP_FILTER"
        )
    if mode == "2":
        return warning(
            "seccomp",
            "this process is under a filter of something around it, which holds for containers too",
            "start mydocker outside of it if a system call is refused",
        )
    return ok("seccomp", f"filters can be set: {actions}")


def seccomp_library(host: Host) -> Check:
    """What compiles the filter that a container gets by default. A compiled one is kept; this makes the first."""
    outcome = host.trial("libseccomp")
    if outcome.ok:
        return ok("libseccomp", f"version {outcome.value} is there, and compiles the filters of containers")
    return missing(
        "libseccomp",
        "it cannot be loaded, so containers cannot get their filter of system calls",
        "apt-get install libseccomp2, or give each run --security-opt seccomp=unconfined",
    )


def security_modules(host: Host) -> Iterator[Check]:
    """AppArmor and SELinux, which may refuse what the kernel would allow."""
    active = host.read("/sys/kernel/security/lsm")
    modules = [name for name in (active or "").split(",") if name]
    apparmor = host.read("/sys/module/apparmor/parameters/enabled") == "Y"
    selinux = host.read("/sys/fs/selinux/enforce")
    if modules:
        yield ok("security modules", f"this kernel runs {', '.join(modules)}")
    elif not apparmor and selinux is None:
        fact = "/sys/kernel/security/lsm cannot be read" if active is None else "there are none"
        yield not_needed("security modules", f"{fact}; neither AppArmor nor SELinux is in force")
    if apparmor:
        yield _apparmor(host)
    if selinux is not None:
        yield _selinux(host, enforcing=selinux == "1")


def _apparmor(host: Host) -> Check:
    profile = host.read("/proc/self/attr/apparmor/current") or host.read("/proc/self/attr/current") or "unconfined"
    profile = profile.rstrip("\0\n")
    if profile == "unconfined" or profile.endswith("(complain)"):
        return ok("AppArmor", f"it is enabled and lets this process do as it likes ({profile})")
    return warning(
        "AppArmor",
        f"this process is confined by the profile {profile}, which may refuse mounts",
        "start the outer container with --security-opt apparmor=unconfined if a mount is refused",
    )


def _selinux(host: Host, *, enforcing: bool) -> Check:
    context = (host.read("/proc/self/attr/current") or "unknown").rstrip("\0\n")
    if not enforcing:
        return ok("SELinux", f"it is permissive: it logs and refuses nothing (this process is {context})")
    if "unconfined" in context or context.split(":")[2:3] == ["kernel_t"]:
        return ok("SELinux", f"it is enforcing, and lets this process do as it likes ({context})")
    return warning(
        "SELinux",
        f"it is enforcing, and this process is {context}: it may refuse mounts and cgroups",
        "look for refusals with ausearch -m avc, or use a context that is unconfined",
    )
