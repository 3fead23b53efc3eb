"""The options of a mount in config.json, sorted by whom they are for (runtime-spec, config.md, "Linux mount options").

Some are attributes of the mount, some of the file system, some say how the mount is made. What is none of the known
words is for the file system, which refuses what it does not know.
"""

from __future__ import annotations

from mydocker.linux import mount
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Attributes of the mount: word -> (bit, whether the word sets it). A later word wins over an earlier one.
_ATTRIBUTES = {
    "ro": (mount.MOUNT_ATTR_RDONLY, True),
    "rw": (mount.MOUNT_ATTR_RDONLY, False),
    "nosuid": (mount.MOUNT_ATTR_NOSUID, True),
    "suid": (mount.MOUNT_ATTR_NOSUID, False),
    "nodev": (mount.MOUNT_ATTR_NODEV, True),
    "dev": (mount.MOUNT_ATTR_NODEV, False),
    "noexec": (mount.MOUNT_ATTR_NOEXEC, True),
    "exec": (mount.MOUNT_ATTR_NOEXEC, False),
    "nodiratime": (mount.MOUNT_ATTR_NODIRATIME, True),
    "diratime": (mount.MOUNT_ATTR_NODIRATIME, False),
    "nosymfollow": (mount.MOUNT_ATTR_NOSYMFOLLOW, True),
    "symfollow": (mount.MOUNT_ATTR_NOSYMFOLLOW, False),
}
#: When access times are written. To mount_setattr(2) it is one of three values, to config.json words of their own.
_ATIMES = {
    "noatime": ("noatime", True),
    "atime": ("noatime", False),
    "relatime": ("relatime", True),
    "norelatime": ("relatime", False),
    "strictatime": ("strictatime", True),
    "nostrictatime": ("strictatime", False),
}
#: Attributes of the file system: word -> (the word that wins or loses by it, whether it is on). fsconfig(2) knows them.
_SUPERBLOCK = {
    "sync": ("sync", True),
    "async": ("sync", False),
    "dirsync": ("dirsync", True),
    "mand": ("mand", True),
    "nomand": ("mand", False),
    "lazytime": ("lazytime", True),
    "nolazytime": ("lazytime", False),
}
_OFF = {"sync": b"async", "mand": b"nomand", "lazytime": b"nolazytime"}
#: Without effect: what the kernel writes to its log, and a counter that file systems keep, or not, by themselves.
_WITHOUT_EFFECT = frozenset(("silent", "loud", "iversion", "noiversion"))
_PROPAGATION = {
    "private": (mount.MS_PRIVATE, False),
    "rprivate": (mount.MS_PRIVATE, True),
    "slave": (mount.MS_SLAVE, False),
    "rslave": (mount.MS_SLAVE, True),
    "shared": (mount.MS_SHARED, False),
    "rshared": (mount.MS_SHARED, True),
    "unbindable": (mount.MS_UNBINDABLE, False),
    "runbindable": (mount.MS_UNBINDABLE, True),
}
_OTHERS = frozenset(
    "defaults bind rbind remount tmpcopyup idmap ridmap copy-symlink src-nofollow dest-nofollow".split()
)
#: The recursive twins: of every attribute, and of the access times.
_RECURSIVE = {f"r{word}": meaning for word, meaning in _ATTRIBUTES.items()}
_RECURSIVE_ATIMES = {f"r{word}": meaning for word, meaning in _ATIMES.items()}

#: What ``features`` reports as the options that mean something to the runtime.
KNOWN = (
    frozenset((*_ATTRIBUTES, *_ATIMES, *_SUPERBLOCK, *_PROPAGATION, *_RECURSIVE, *_RECURSIVE_ATIMES))
    | _OTHERS
    | _WITHOUT_EFFECT
)

#: All that a bind with options of its own states anew; what it does not name is taken off.
BIND_ATTRIBUTES = (
    mount.MOUNT_ATTR_RDONLY
    | mount.MOUNT_ATTR_NOSUID
    | mount.MOUNT_ATTR_NODEV
    | mount.MOUNT_ATTR_NOEXEC
    | mount.MOUNT_ATTR_NOSYMFOLLOW
)


class MountOptions(Value):
    """The options of one mount.

    ``bind``, ``recursive``, ``remount``, ``copy_up``  as the words.
    ``idmap``          ``""``, ``"idmap"`` or ``"ridmap"``.
    ``attributes``     MOUNT_ATTR bits to set.
    ``cleared``        MOUNT_ATTR bits that a word takes off explicitly.
    ``atime``          whether a word sets when access times are written; otherwise a bind keeps what its source has,
                       which a word that only takes something off does not change (as mount(8)).
    ``copy_link``, ``follow_source``, ``follow_target``  what becomes of symbolic links, by the words of crun.
    ``changes``        whether any word concerns attributes, so that a bind does not just take those of its source.
    ``superblock``     flags for the file system, as fsconfig(2) spells them.
    ``propagation``    (type, whether recursive), in order.
    ``set_below``, ``clear_below``   MOUNT_ATTR bits for the mount and all mounts below it.
    ``data``           the rest: (key, value), or (key, None) for a word without a value.
    """

    bind: bool = False
    recursive: bool = False
    remount: bool = False
    copy_up: bool = False
    copy_link: bool = False
    follow_source: bool = True
    follow_target: bool = True
    idmap: str = ""
    attributes: int = 0
    cleared: int = 0
    atime: bool = False
    changes: bool = False
    superblock: tuple[tuple[bytes, bytes | None], ...] = ()
    propagation: tuple[tuple[int, bool], ...] = ()
    set_below: int = 0
    clear_below: int = 0
    data: tuple[tuple[bytes, bytes | None], ...] = ()

    @property
    def readonly(self) -> bool:
        return bool(self.attributes & mount.MOUNT_ATTR_RDONLY)


def parse(words: Sequence[str], fstype: str) -> MountOptions:
    """Sort the options. ValueError for one that cannot be passed to the kernel."""
    chosen = set(words)
    bind = fstype == "bind" or "bind" in chosen or "rbind" in chosen
    attributes = cleared = set_below = clear_below = 0
    atimes: dict[str, bool] = {}
    superblock: dict[str, bool] = {}
    propagation = []
    data = []
    changes = False
    for word in words:
        if word in _ATTRIBUTES:
            bit, on = _ATTRIBUTES[word]
            attributes, cleared = (attributes | bit, cleared & ~bit) if on else (attributes & ~bit, cleared | bit)
            changes = True
        elif word in _ATIMES:
            name, on = _ATIMES[word]
            atimes[name] = on
            changes = True
        elif word in _SUPERBLOCK:
            name, on = _SUPERBLOCK[word]
            superblock[name] = on
            changes = True
        elif word in _PROPAGATION:
            propagation.append(_PROPAGATION[word])
        elif word in _RECURSIVE:
            bit, on = _RECURSIVE[word]
            set_below, clear_below = (
                (set_below | bit, clear_below & ~bit) if on else (set_below & ~bit, clear_below | bit)
            )
        elif word in _RECURSIVE_ATIMES:
            name, on = _RECURSIVE_ATIMES[word]
            # One of three values: all its bits are cleared before one is set (mount_setattr(2)).
            clear_below |= mount.MOUNT_ATTR__ATIME
            set_below = set_below & ~mount.MOUNT_ATTR__ATIME | _atime_bits({name: on})
        elif word in _WITHOUT_EFFECT:
            changes = True
        elif word == "acl" and fstype == "tmpfs":
            pass  # it has them if the kernel has them for it, and no word for that
        elif word not in _OTHERS:
            data.append(word)
    flags = [(name.encode() if on else _OFF.get(name, b""), None) for name, on in superblock.items()]
    if attributes & mount.MOUNT_ATTR_RDONLY:
        flags.append((b"ro", None))
    return MountOptions(
        bind=bind,
        recursive="rbind" in chosen,
        remount="remount" in chosen,
        copy_up="tmpcopyup" in chosen,
        copy_link="copy-symlink" in chosen,
        follow_source="src-nofollow" not in chosen and "copy-symlink" not in chosen,
        follow_target="dest-nofollow" not in chosen,
        idmap="ridmap" if "ridmap" in chosen else "idmap" if "idmap" in chosen else "",
        attributes=attributes | _atime_bits(atimes),
        cleared=cleared,
        atime=any(atimes.values()) or bool(attributes & mount.MOUNT_ATTR_NODIRATIME),
        changes=changes,
        superblock=tuple((key, value) for key, value in flags if key),
        propagation=tuple(propagation),
        set_below=set_below,
        clear_below=clear_below,
        data=_split_data(data, fstype),
    )


def _atime_bits(atimes: dict[str, bool]) -> int:
    """What mount(2) makes of the three words: the strict one wins, and relatime is what it is without any."""
    if atimes.get("strictatime"):
        return mount.MOUNT_ATTR_STRICTATIME
    return mount.MOUNT_ATTR_NOATIME if atimes.get("noatime") else mount.MOUNT_ATTR_RELATIME


def _split_data(words: Sequence[str], fstype: str) -> tuple[tuple[bytes, bytes | None], ...]:
    """The pairs that mount(2) would make of the words, joined by commas.

    Only overlay lets a comma be part of a value, with a backslash before it (fs/overlayfs/params.c).
    """
    found: list[tuple[bytes, bytes | None]] = []
    text = ",".join(words)
    if "\0" in text:
        raise ValueError("an option holds a NUL byte")
    pieces = text.split(",") if text else []
    if fstype == "overlay":
        pieces = _rejoin_escaped(pieces)
    for piece in pieces:
        key, equals, value = piece.encode(errors="surrogateescape").partition(b"=")
        if key:
            found.append((key, value if equals else None))
    return tuple(found)


def _rejoin_escaped(pieces: list[str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and (len(joined[-1]) - len(joined[-1].rstrip("\\"))) % 2:
            joined[-1] += "," + piece
        else:
            joined.append(piece)
    return joined
