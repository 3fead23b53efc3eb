"""What rename(2) cannot do."""

from __future__ import annotations

import os

from mydocker.linux.libc import AT_FDCWD, architecture_number, c_char_p, c_int, c_uint, system_call

_RENAME_EXCHANGE = 2

_renameat2 = system_call(architecture_number(316, 276), c_int, c_char_p, c_int, c_char_p, c_uint)


def replace(path: str, new: str) -> None:
    """Put the file ``new`` in the place of ``path``: who opens that gets the old one or the new one.

    The two are exchanged, and the old one is removed (renameat2(2)). Where rename(2) replaces a file, ext4 begins to
    write the new one to the disk at once (ext4(5), auto_da_alloc), and a removal soon after waits for that. OSError.
    """
    try:
        _renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE)
    except OSError:  # EINVAL on some file systems, ENOENT where there is no old one
        os.rename(new, path)
    else:
        os.unlink(new)
