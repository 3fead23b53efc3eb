"""Taking the interpreter out of reach of what is executed: /proc/PID/exe of this process becomes an empty file.

A command in a container may be a script whose first line names /proc/self/exe. The kernel then executes once more what
the process was before, which is the interpreter on the host, with the container's own loader: who is root there gets a
descriptor of the host's file, and can write to it when nobody executes it any more (CVE-2019-5736). A copy of the
interpreter to be executed from would cost a second start of it. Instead the kernel is told that the process executes a
sealed, empty file in memory (prctl(2), PR_SET_MM_MAP), which children inherit. It believes that when nothing of the
former file is mapped any more: what was changed of it is replaced by anonymous memory with the same content, and the
rest is mapped from the same file by another mount of it.

To copy memory and to put the copy in its place is one call of machine code: between two calls of ours the interpreter
would change its own data.
"""

from __future__ import annotations

import errno
import os
import struct

from mydocker.linux import empty_file, machine, mount
from mydocker.linux.libc import (
    addressof,
    c_int,
    c_long,
    c_size_t,
    c_ulong,
    c_void_p,
    create_string_buffer,
    foreign,
    function,
)
from mydocker.value import Value

_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_FIXED = 0x02, 0x10
#: Of an entry of /proc/PID/pagemap: the page is there, is in swap, is one of a file (proc_pid_pagemap(5)).
_PRESENT, _SWAPPED, _OF_FILE = 1 << 63, 1 << 62, 1 << 61

#: For each of the entries (new, old, size, protection), of 64 bits each, copy ``old`` to ``new``, protect that, and
#: mremap(2) it to where ``old`` is. The result is 0, or an error's number below 0.
_CODE = {
    "x86_64": bytes.fromhex(
        "5341544889fb4989f4"  # push rbx; push r12; mov rbx, rdi; mov r12, rsi
        "4d85e47450"  # next: test r12, r12; jz all_done
        "488b3b488b7308488b4b10f3a4"  # mov rdi, [rbx]; mov rsi, [rbx+8]; mov rcx, [rbx+16]; rep movsb
        "488b3b488b7310488b5318b80a0000000f05"  # mprotect([rbx], [rbx+16], [rbx+24])
        "4885c0752e"  # test rax, rax; jnz done
        "488b3b488b73104889f241ba030000004c8b4308b8190000000f05"  # mremap([rbx], size, size, MAYMOVE | FIXED, [rbx+8])
        "483d01f0ffff730b"  # cmp rax, -4095; jae done
        "4883c32049ffccebab"  # add rbx, 32; dec r12; jmp next
        "31c0415c5bc3"  # all_done: xor eax, eax; done: pop r12; pop rbx; ret
    ),
}

_prctl = function("prctl", c_int, c_ulong, c_void_p, c_ulong, c_ulong)
_mmap = foreign("mmap", c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_sbrk = foreign("sbrk", c_void_p, c_long)


def let_go() -> None:
    """Have this process, which must have one thread, execute nothing that a descendant could reach. Once is enough.

    OSError: ENOSYS on another machine than x86-64, EINVAL from a kernel without CONFIG_CHECKPOINT_RESTORE, EPERM
    without CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. Then nothing has changed that matters.
    """
    path = os.readlink("/proc/self/exe")
    if path.startswith(f"/memfd:{empty_file.NAME} "):
        return
    code = _CODE.get(os.uname().machine)
    if code is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    regions = _regions(os.fsencode(path))
    empty = empty_file.made()
    try:
        _replace(code, [region for region in regions if not _mapped_anew(path, region)])
        _note(empty)
    finally:
        os.close(empty)


def let_go_where_possible() -> bool:
    """`let_go`; whether it could be: not on this machine or kernel, or not by a plain user outside his namespaces."""
    try:
        let_go()
    except OSError:
        return False
    return True


class _Region(Value):
    """One mapping of the file. ``protection`` is that of mmap(2), ``offset`` is in the file."""

    address: int
    size: int
    protection: int
    offset: int

    @property
    def is_changed(self) -> bool:
        """Whether a page of it is not the file's any more: written to, or relocated by the loader."""
        if self.protection & _PROT_WRITE:
            return True
        with open("/proc/self/pagemap", "rb", buffering=0) as f:
            f.seek(self.address // machine.PAGE * 8)
            data = f.read(self.size // machine.PAGE * 8)
        pages = struct.unpack(f"={len(data) // 8}Q", data)
        return any(page & (_PRESENT | _SWAPPED) and not page & _OF_FILE for page in pages)


def _regions(path: bytes) -> list[_Region]:
    """The mappings of the file (proc(5), /proc/PID/maps)."""
    with open("/proc/self/maps", "rb") as f:
        lines = f.read().split(b"\n")
    found = []
    for line in lines:
        if not line.endswith(path):  # most are of libraries
            continue
        fields = line.split(None, 5)
        if fields[-1] == path:
            start, end = (int(text, 16) for text in fields[0].split(b"-"))
            flags = zip(fields[1][:3], b"rwx", (_PROT_READ, _PROT_WRITE, _PROT_EXEC), strict=True)
            found.append(
                _Region(
                    address=start,
                    size=end - start,
                    protection=sum(bit for flag, letter, bit in flags if flag == letter),
                    offset=int(fields[2], 16),
                )
            )
    return found


def _mapped_anew(path: str, region: _Region) -> bool:
    """Map the same part of the file by another mount; False where that cannot be, and a small one is as soon copied."""
    if region.size < 16 * machine.PAGE or region.is_changed:
        return False
    try:
        tree = mount.clone_tree(mount.AT_FDCWD, os.fsencode(path), recursive=False)
    except OSError:
        return False
    try:
        fd = os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(tree)
    try:
        if not os.path.samestat(os.fstat(fd), os.stat("/proc/self/exe")):
            return False  # another one is there by now, or in this mount namespace
        flags = _MAP_PRIVATE | _MAP_FIXED
        return bool(_mmap(region.address, region.size, region.protection, flags, fd, region.offset) == region.address)
    finally:
        os.close(fd)


def _replace(code: bytes, regions: list[_Region]) -> None:
    """Put copies in anonymous memory where the regions are."""
    entries = b"".join(
        struct.pack("=4Q", machine.new_memory(region.size), region.address, region.size, region.protection)
        for region in regions
    )
    table = create_string_buffer(entries, len(entries))
    made = machine.Code(code)
    try:
        result = made.function(c_void_p, c_size_t)(addressof(table), len(regions))
    finally:
        made.close()
    if result:
        raise OSError(-result, os.strerror(-result))


def _note(executable: int) -> None:
    """Tell the kernel of the new file; all else in struct prctl_mm_map is as it is (proc(5), /proc/PID/stat)."""
    with open("/proc/self/stat", "rb") as f:
        _, *rest = f.read().rpartition(b")")[2].split()
    # So that they have the numbers of proc(5): the state is the third.
    field = dict(enumerate(map(int, rest), start=4))
    code, data, start_brk = (field[26], field[27]), (field[45], field[46]), field[47]
    strings = (field[number] for number in (48, 49, 50, 51))
    addresses = (*code, *data, start_brk, _sbrk(0), field[28], *strings)
    table = create_string_buffer(empty_file.description(addresses, executable))
    _prctl(empty_file.PR_SET_MM, empty_file.PR_SET_MM_MAP, addressof(table), empty_file.DESCRIPTION_SIZE, 0)
