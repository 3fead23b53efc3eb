#!/usr/bin/env python3
"""Run a command as root on a Debian kernel, in a virtual machine that lives as long as the command.

    cgroup_vm.py [--cgroup v2|v1|hybrid] -- COMMAND [ARG...]

The guest sees this machine's files copy-on-write: what it writes is dropped at the end. The current directory
and every --rw DIR are shared read/write. /run, /var/tmp and /dev/shm are empty, /tmp has the directories and
the small files of the host's, but not those of pytest's sessions. stdin is empty, stdout and stderr are live,
the environment goes along, and the exit status is the command's; 125 says that the virtual machine itself failed.

It needs root on Debian 12. First use installs qemu-system-x86 and unpacks a kernel and busybox into the cache,
~/.cache/mydocker-vm or $MYDOCKER_VM_CACHE. KVM is used where a guest boots under it, else software emulation,
under which Python is about 12 times slower than outside.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import os
import platform
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from debian import DebianError
from guest_image import QEMU, VIRTIOFSD, GuestImage, initramfs, prepare

LAYOUTS = ("v2", "v1", "hybrid")
VM_FAILED = 125
KVM_PROBE_SECONDS = 8
GUEST_INIT = Path(__file__).resolve().with_name("guest-init")
# These name directories of this machine that the guest does not share.
NOT_PASSED = ("TMPDIR", "XDG_RUNTIME_DIR")
PR_SET_PDEATHSIG = 1  # prctl(2)
LIBC = ctypes.CDLL(None, use_errno=True)


class VmError(Exception):
    """The virtual machine did not come up."""


@dataclass(frozen=True)
class Machine:
    """The virtual machine that was asked for. ``memory`` is QEMU's -m, ``accel`` is auto, kvm or tcg."""

    cgroup: str
    cpus: int
    memory: str
    accel: str
    cache: Path
    writable: tuple[Path, ...]


def main() -> int:
    machine, command = parse_arguments()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, exit_on_signal)
    try:
        image = prepare(machine.cache)
        return boot(machine, image, command)
    except (DebianError, VmError) as e:
        print(f"cgroup_vm: {e}", file=sys.stderr)
        return VM_FAILED


def parse_arguments() -> tuple[Machine, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = os.environ.get("MYDOCKER_VM_CACHE", "~/.cache/mydocker-vm")
    parser.add_argument("--cgroup", choices=LAYOUTS, default="v2", help="what is at /sys/fs/cgroup (default: v2)")
    parser.add_argument("--cpus", type=int, default=2, help="virtual CPUs (default: 2)")
    parser.add_argument("--memory", default="2G", help="the guest's memory (default: 2G)")
    parser.add_argument("--rw", action="append", default=[], type=Path, metavar="DIR", help="share DIR read/write")
    parser.add_argument("--accel", choices=["auto", "kvm", "tcg"], default="auto", help="how the CPU is virtualised")
    parser.add_argument("--cache", default=cache, type=Path, metavar="DIR", help="where the kernel is kept")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run in the guest")
    arguments = parser.parse_args()
    writable = tuple(directory.resolve() for directory in (Path.cwd(), *arguments.rw))
    if os.geteuid() != 0:
        parser.error("only root can share the machine's files with a guest")
    if Path("/") in writable:
        parser.error("/ cannot be shared read/write: change to another directory")
    machine = Machine(
        cgroup=arguments.cgroup,
        cpus=arguments.cpus,
        memory=arguments.memory,
        accel=arguments.accel,
        cache=arguments.cache.expanduser().resolve(),
        writable=writable,
    )
    return machine, arguments.command


def exit_on_signal(number: int, _frame: object) -> None:
    """Leave through the ``with`` blocks that end the children. Once: timeout(1) may send its signal twice."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def boot(machine: Machine, image: GuestImage, command: list[str]) -> int:
    """Boot the machine, relay the command's output, return its exit status."""
    accel = accelerator(machine)
    status = io.BytesIO()
    with tempfile.TemporaryDirectory(dir="/run", prefix="mydocker-vm-") as directory, contextlib.ExitStack() as stack:
        scratch = Path(directory)
        settings = guest_settings(machine, image)
        (scratch / "initrd").write_bytes(initramfs(image, GUEST_INIT, settings, guest_command(command)))
        shares = start_file_servers(machine, scratch, stack)
        # guest-init writes to them as its virtio ports 1, 2 and 3.
        sinks = (sys.stdout.buffer, sys.stderr.buffer, status)
        streams = [socket.socketpair() for _ in sinks]
        guest_ends = [guest for _, guest in streams]
        qemu = [*qemu_command(machine, image, accel, scratch), *shares, *serial_ports(guest_ends)]
        start(qemu, scratch / "qemu", guest_ends, stack)
        relay({host: sink for (host, _), sink in zip(streams, sinks, strict=True)})
        if not status.getvalue():
            print_logs(scratch)
            raise VmError(f"the guest ended without running the command (under {accel})")
    return int(status.getvalue())


def guest_settings(machine: Machine, image: GuestImage) -> str:
    """Shell assignments for guest-init, and its list of the directories to share read/write."""
    shares = "".join(f"  share {tag} {shlex.quote(str(path))}\n" for tag, path in enumerate(machine.writable, 1))
    return (
        f"cgroup={machine.cgroup}\n"
        f"kernel_version={shlex.quote(image.kernel_version)}\n"
        f"kernel_modules={shlex.quote(str(image.modules))}\n"
        f"share_writable() {{\n{shares}}}\n"
    )


def guest_command(command: list[str]) -> str:
    """The command as a shell script, with this process's environment and directory."""
    script = ""
    for name, value in os.environ.items():
        if name.isidentifier() and name.isascii() and name not in NOT_PASSED:
            script += f"export {name}={shlex.quote(value)}\n"
    if os.path.sameopenfile(1, 2):
        script += "exec 2>&1\n"  # one destination outside: keep the order of what is written
    return f"{script}cd {shlex.quote(str(Path.cwd()))} || exit {VM_FAILED}\nexec {shlex.join(command)}\n"


def accelerator(machine: Machine) -> str:
    """kvm or tcg. Nested KVM may hang or crawl, so it is tried, once for each kernel of the host."""
    if machine.accel != "auto":
        return machine.accel
    note = machine.cache / f"accel-{platform.release()}"
    if not note.exists():
        note.write_text("kvm" if os.access("/dev/kvm", os.W_OK) and kvm_boots(machine.cache) else "tcg")
    return note.read_text()


def kvm_boots(cache: Path) -> bool:
    probe = [sys.executable, __file__, "--accel", "kvm", "--cache", str(cache), "--", "true"]
    limited = ["timeout", str(KVM_PROBE_SECONDS), *probe]
    return subprocess.run(limited, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def start_file_servers(machine: Machine, scratch: Path, stack: contextlib.ExitStack) -> list[str]:
    """Start a virtiofsd for / and for each writable directory; QEMU's arguments that connect them."""
    arguments = []
    for tag, path in enumerate((Path("/"), *machine.writable)):
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(scratch / f"share{tag}"))
        listener.listen()
        # Only the shares with a tag above 0 change under the guest's feet, so only they are revalidated.
        cache = "auto" if tag else "always"
        options = f"sandbox=chroot,xattr,modcaps=+sys_admin,cache={cache},source={path}"
        command = [VIRTIOFSD, f"--fd={listener.fileno()}", "-o", options]
        if path == Path("/"):
            # Read-only by the kernel and not only by the guest's mount, in a mount namespace of its own.
            read_only = 'mount -o remount,bind,ro / && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", read_only, "sh", *command]
        start(command, scratch / f"virtiofsd{tag}", [listener], stack)
        arguments += ["-chardev", f"socket,id=share{tag},path={scratch}/share{tag}"]
        arguments += ["-device", f"vhost-user-fs-pci,chardev=share{tag},tag=share{tag}"]
    return arguments


def serial_ports(guest_ends: Sequence[socket.socket]) -> list[str]:
    arguments = ["-device", "virtio-serial-pci"]
    for number, end in enumerate(guest_ends, 1):
        arguments += ["-chardev", f"socket,id=port{number},fd={end.fileno()}"]
        arguments += ["-device", f"virtserialport,chardev=port{number},nr={number}"]
    return arguments


def qemu_command(machine: Machine, image: GuestImage, accel: str, scratch: Path) -> list[str]:
    # cgroup_no_v1=all keeps the controllers from cgroup v1, so that all of them are on v2.
    no_v1 = "cgroup_no_v1=all" if machine.cgroup == "v2" else ""
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-accel", accel, "-cpu", "max" if accel == "tcg" else "host,-arch-capabilities"),
        *("-smp", str(machine.cpus), "-m", machine.memory, "-M", "q35,memory-backend=ram"),
        # virtiofsd reads and writes the guest's memory: it has to be shared.
        *("-object", f"memory-backend-memfd,id=ram,size={machine.memory},share=on"),
        *("-kernel", str(image.kernel), "-initrd", f"{scratch}/initrd"),
        *("-append", f"console=ttyS0 quiet panic=-1 mitigations=off apparmor=0 {no_v1}"),
        *("-serial", f"file:{scratch}/console"),
    ]


def start(command: list[str], log: Path, sockets: Sequence[socket.socket], stack: contextlib.ExitStack) -> None:
    """Start a child that takes ``sockets`` over and ends with ``stack``, or with this process if it is killed."""
    with log.open("w") as output:
        child = subprocess.Popen(
            command,
            pass_fds=[s.fileno() for s in sockets],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (this program has one thread)
        )
    stack.callback(child.wait)
    stack.callback(child.kill)
    for s in sockets:
        s.close()


def die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def relay(sinks: dict[socket.socket, BinaryIO]) -> None:
    """Copy what comes from each socket to its sink until the guest has closed them all."""
    with selectors.DefaultSelector() as selector:
        for source, sink in sinks.items():
            selector.register(source, selectors.EVENT_READ, sink)
        while selector.get_map():
            for key, _ in selector.select():
                source, sink = next((s, k) for s, k in sinks.items() if s is key.fileobj)
                data = source.recv(1 << 16)
                if not data:
                    selector.unregister(source)
                    source.close()
                    continue
                sink.write(data)
                sink.flush()


def print_logs(scratch: Path) -> None:
    for name in ("virtiofsd0", "qemu", "console"):
        log = scratch / name
        lines = log.read_text(errors="replace").splitlines()[-25:] if log.exists() else []
        print(f"--- {name}", *lines, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
