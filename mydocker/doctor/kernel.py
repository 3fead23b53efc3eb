"""The kernel itself: its version, the system calls and the file systems that a container is made with."""

from __future__ import annotations

import errno

from mydocker.doctor.check import missing, not_needed, ok, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mydocker.doctor.check import Check
    from mydocker.doctor.host import Host

#: The kernel that has every system call of a run: mount_setattr(2) is the youngest.
OLDEST = "5.12"

_GROUPS = {
    "mount API": ("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "mount_setattr"),
    "openat2": ("openat2",),
    "clone3": ("clone3", "close_range"),
    "pidfds": ("pidfd_open", "pidfd_getfd", "pidfd_send_signal"),
}
_PURPOSES = {
    "mount API": "the container's mounts are made by it",
    "openat2": "paths inside a rootfs are resolved by it",
    "clone3": "the container's first process is made by it",
    "pidfds": "the container's processes are named by them",
}


def checks(host: Host) -> Iterator[Check]:
    yield release(host)
    yield views(host)
    for name in _GROUPS:
        yield system_calls(host, name)
    yield clone_into_cgroup(host)
    yield overlay(host)
    yield terminal(host)


def release(host: Host) -> Check:
    fact = f"Linux {host.release} on {host.machine}"
    if host.kernel_is(OLDEST):
        return ok("release", fact)
    return missing(
        "release", f"{fact} is older than {OLDEST}, which mydocker is made for", f"boot Linux {OLDEST} or newer"
    )


def views(host: Host) -> Check:
    """/proc, /sys and /dev: most that is known here comes from them."""
    name = "/proc, /sys, /dev"
    needed = {
        "/proc": ("/proc/self/status", "mount -t proc proc /proc"),
        "/dev": ("/dev/null", "mount -t devtmpfs dev /dev"),
        "/sys": ("/sys/kernel", "mount -t sysfs sysfs /sys"),
    }
    lacking = [place for place, (file, _) in needed.items() if not host.exists(file)]
    if not lacking:
        return ok(name, "they are mounted")
    fact = f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not mounted, which hides what is there"
    # /sys tells of the host; a container gets one of its own.
    report = warning if lacking == ["/sys"] else missing
    return report(name, fact, "; ".join(needed[place][1] for place in lacking))


def system_calls(host: Host, name: str) -> Check:
    """Whether the kernel has them, and no filter of an outer container keeps them from us.

    Without CAP_SYS_ADMIN the mount calls are refused with EPERM by the kernel itself; a user namespace gives it.
    """
    outcomes = {call: host.trial(f"call {call}") for call in _GROUPS[name]}
    lacking = [call for call, outcome in outcomes.items() if outcome.errno == errno.ENOSYS]
    silent = [call for call, outcome in outcomes.items() if outcome.errno in (errno.ETIMEDOUT, errno.EIO)]
    refused = [call for call, outcome in outcomes.items() if outcome.errno == errno.EPERM]
    filtered = host.read("/proc/self/status") is not None and _seccomp_mode(host) == "2"
    if lacking or silent:
        calls = ", ".join(lacking or silent)
        if filtered:
            return missing(
                name,
                f"{calls} cannot be called under the seccomp filter that this process is in; {_PURPOSES[name]}",
                "give the outer container a seccomp profile that allows it, as --security-opt seccomp=unconfined does",
            )
        return missing(
            name, f"this kernel does not have {calls}; {_PURPOSES[name]}", f"boot Linux {OLDEST} or newer"
        )
    if refused and filtered and host.can("CAP_SYS_ADMIN"):
        return missing(
            name,
            f"{', '.join(refused)} is refused under the seccomp filter that this process is in; {_PURPOSES[name]}",
            "give the outer container a seccomp profile that allows it, as --security-opt seccomp=unconfined does",
        )
    return ok(name, f"{', '.join(outcomes)} {'is' if len(outcomes) == 1 else 'are'} there")


def _seccomp_mode(host: Host) -> str:
    return status_field(host, "Seccomp")


def status_field(host: Host, field: str) -> str:
    """A field of /proc/self/status (proc(5)), or empty."""
    for line in (host.read("/proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return ""


def clone_into_cgroup(host: Host) -> Check:
    if host.trial("clone into a cgroup").errno == errno.EBADF:
        return ok("CLONE_INTO_CGROUP", "clone3 can make a process inside a v2 cgroup")
    return not_needed(
        "CLONE_INTO_CGROUP",
        "clone3 cannot make a process inside a v2 cgroup, so processes are moved there, which takes longer",
        "boot Linux 5.7 or newer for it",
    )


def overlay(host: Host) -> Check:
    """``--overlay`` shows the root copy-on-write. Since 5.11 a user namespace may mount one, with userxattr."""
    name = "overlayfs"
    if host.trial("container").ok:
        outcome = host.trial("container --overlay")
        if outcome.ok:
            return ok(name, f"{host.user} has started a container with --overlay")
    else:
        outcome = host.trial("overlay")
        if outcome.ok:
            return ok(name, f"{host.user} can mount a copy-on-write view of a directory")
    known = any(line.split()[-1:] == ["overlay"] for line in (host.read("/proc/filesystems") or "").splitlines())
    if not known:
        return missing(
            name,
            "this kernel has no overlay file system, so --overlay cannot be used",
            "modprobe overlay, or boot a kernel that was built with CONFIG_OVERLAY_FS",
        )
    return missing(
        name,
        f"{host.user} cannot use --overlay: {outcome.text}",
        "--rootfs with a copy of the files does without" if host.is_root else "run mydocker as root for it",
    )


def terminal(host: Host) -> Check:
    """``-t`` mounts a devpts of its own at /dev/pts."""
    if not host.exists("/dev/pts") or not host.exists("/dev/ptmx"):
        return missing(
            "terminal",
            "there is no /dev/ptmx with /dev/pts, so -t needs --rootfs here",
            "mount -t devpts devpts /dev/pts, with /dev/ptmx as a link to pts/ptmx",
        )
    if not host.writable("/dev/ptmx"):
        return warning(
            "terminal",
            f"{host.user} may not open /dev/ptmx; a container gets a terminal of its own all the same",
            "chmod 666 /dev/ptmx, or mount devpts with ptmxmode=666",
        )
    return ok("terminal", "/dev/ptmx and /dev/pts are there for -t")
