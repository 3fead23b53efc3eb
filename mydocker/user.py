"""Who the command runs as: ``--user`` against the container's own /etc/passwd and /etc/group.

The files are parsed here and not looked up through libc: its name services would be the host's, and inside
an untrusted root they would load libraries from there.
"""

from __future__ import annotations

from mydocker.errors import UsageError
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.rootless.ids import IdMaps

#: uid_t is 32 bits and its last value means "no change" to setresuid(2).
_MAX_ID = 0xFFFFFFFE


class User(Value):
    """Numeric ids in the container, supplementary groups, the home directory.

    ``maps``: for a plain user's container, whose ids on the host they are.
    """

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: bytes = b"/root"
    maps: IdMaps | None = None


def _rows(data: bytes, fields: int) -> list[list[bytes]]:
    return [row for row in (line.split(b":") for line in data.splitlines()) if len(row) >= fields]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _checked(number: int, text: str) -> int:
    if number > _MAX_ID:
        raise UsageError(f"--user: {text} is not an id: the largest is {_MAX_ID}")
    return number


#: What was found out last: a program that runs one container after another asks the same each time.
_last: list[tuple[tuple[str, bytes, bytes], User]] = []


def resolve(text: str, passwd: bytes, group: bytes) -> User:
    """`look_up`, which is not done again if it was the last that was asked."""
    asked = (text, passwd, group)
    for known in _last:
        if known[0] == asked:
            return known[1]
    user = look_up(*asked)
    _last[:] = [(asked, user)]
    return user


def look_up(text: str, passwd: bytes, group: bytes) -> User:
    """``UID[:GID]``, names or numbers; empty is root. As ``docker run --user``.

    A number need not be in /etc/passwd; a name must be. Without ``:GID`` the group is the user's own, or 0, and
    the supplementary groups are those that list the user. UsageError if a name is not known.
    """
    user_text, colon, group_text = text.partition(":")
    users = _rows(passwd, 7)
    uid = _number(user_text or "0")
    if uid is None:
        row = next((r for r in users if r[0] == user_text.encode(errors="surrogateescape")), None)
        if row is None:
            raise UsageError(f'--user: no user "{user_text}" in the container\'s /etc/passwd: use a UID or add it')
    else:
        row = next((r for r in users if r[2] == str(uid).encode()), None)
    if row is not None and row[2].isdigit() and row[3].isdigit():
        uid, gid, name, home = int(row[2]), int(row[3]), row[0], row[5] or b"/"
    else:
        uid, gid, name, home = uid or 0, 0, b"", b"/root" if uid == 0 else b"/"
    if not colon:
        members = [r for r in _rows(group, 4) if name and r[2].isdigit() and name in r[3].strip().split(b",")]
        groups = tuple(dict.fromkeys([gid, *(int(r[2]) for r in members)]))
        return User(uid=_checked(uid, user_text), gid=gid, groups=groups, home=home)
    number = _number(group_text)
    if number is None:
        row = next((r for r in _rows(group, 3) if r[0] == group_text.encode(errors="surrogateescape")), None)
        if row is None or not row[2].isdigit():
            raise UsageError(f'--user: no group "{group_text}" in the container\'s /etc/group: use a GID or add it')
        number = int(row[2])
    return User(uid=_checked(uid, user_text), gid=_checked(number, group_text), groups=(number,), home=home)
