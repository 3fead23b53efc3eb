"""What the virtual machine boots: Debian's cloud kernel and an initramfs around busybox.

The packages are unpacked into the cache and never installed: the host's own boot files and modules stay as
they are.
"""

from __future__ import annotations

import fcntl
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import debian

KERNEL_PACKAGE = "linux-image-cloud-amd64"
QEMU = "qemu-system-x86_64"
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"  # where Debian 12's qemu-system-x86 has it

# What the guest needs before it sees the host's files. Everything else loads from there when it is asked for.
BOOT_MODULES = ("virtio_pci", "virtio_console", "virtiofs", "overlay")
MOUNT_POINTS = ("bin", "dev", "lower", "new", "proc", "sys", "tmp", "upper")


@dataclass(frozen=True)
class GuestImage:
    """The unpacked packages: ``root`` holds boot/, lib/modules/ and bin/busybox."""

    root: Path

    @property
    def kernel_version(self) -> str:
        return next((self.root / "lib/modules").iterdir()).name

    @property
    def kernel(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.kernel_version}"

    @property
    def modules(self) -> Path:
        return self.root / "lib/modules" / self.kernel_version

    @property
    def busybox(self) -> Path:
        return self.root / "bin/busybox"


def prepare(cache: Path) -> GuestImage:
    """Install QEMU if it is missing and unpack the guest's packages into ``cache``, both on first use."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two first uses at once would unpack over each other
        if shutil.which(QEMU) is None or not Path(VIRTIOFSD).exists():
            debian.install("qemu-system-x86")
        image = GuestImage(cache / "root")
        if not image.root.exists():
            _unpack(image.root)
        return image


def _unpack(root: Path) -> None:
    kernels = [name for name in debian.dependencies(KERNEL_PACKAGE) if name.startswith("linux-image-")]
    if not kernels:
        raise debian.DebianError(f"apt has no package {KERNEL_PACKAGE}: the virtual machine needs Debian on x86-64")
    with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
        image = GuestImage(Path(scratch) / "root")
        debian.unpack(kernels[0], "busybox-static", into=image.root)
        # modules.dep is written when a kernel package is installed; busybox's depmod makes it without.
        debian.run(str(image.busybox), "depmod", "-b", str(image.root), image.kernel_version)
        image.root.rename(root)  # in one step: a cache that is there is complete


def initramfs(image: GuestImage, init: Path, settings: str, command: str) -> bytes:
    """The archive that the kernel boots: busybox, the modules, ``init``, its settings and the command."""
    files = [(name, 0o40755, b"") for name in MOUNT_POINTS]
    modules = _with_dependencies(image.modules)
    files += [(path.name, 0o100644, path.read_bytes()) for path in modules]
    names = " ".join(path.name for path in modules)
    settings += f"modules={shlex.quote(names)}\n"
    files += [
        ("bin/busybox", 0o100755, image.busybox.read_bytes()),
        ("init", 0o100755, init.read_bytes()),
        ("settings", 0o100644, settings.encode()),
        ("command", 0o100644, command.encode(errors="surrogateescape")),
    ]
    return _newc_archive(files)


def _with_dependencies(modules: Path) -> list[Path]:
    """The boot modules' files in the order in which insmod takes them."""
    dependencies: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        dependencies[path] = needed.split()
    ordered: dict[str, None] = {}
    for name in BOOT_MODULES:
        path = next(path for path in dependencies if path.endswith(f"/{name}.ko"))
        # modules.dep lists what must come first last.
        ordered.update(dict.fromkeys([*reversed(dependencies[path]), path]))
    return [modules / path for path in ordered]


def _newc_archive(files: list[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    archive = bytearray()
    for inode, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        uid = gid = mtime = major = minor = checksum = 0
        links = 1
        header = (inode, mode, uid, gid, links, mtime, len(data), major, minor, major, minor, len(name) + 1, checksum)
        archive += b"070701" + b"".join(b"%08X" % field for field in header) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4)
        archive += data + bytes(-len(data) % 4)
    return bytes(archive)
