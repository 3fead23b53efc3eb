"""JSON as the ``json`` module has it, without its import: that loads ``re``, and takes longer than what is read.

The scanner and the encoder are the C ones that ``json`` itself uses (``json.scanner``, ``json.encoder``); where an
interpreter lacks them, and for the words of an error, ``json`` is asked.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

_WHITESPACE = " \t\n\r"


class _Context:
    """What the scanner wants to know of its decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # NaN and Infinity, as json has them
    memo: ClassVar[dict[str, str]] = {}


def loads(text: str) -> Any:
    """The value that ``text`` is the JSON of. ValueError (a `json.JSONDecodeError`) if it is none."""
    try:
        from _json import make_scanner

        start = len(text) - len(text.lstrip(_WHITESPACE))
        value, end = make_scanner(_Context)(text, start)  # type: ignore[arg-type]
        if not text[end:].strip(_WHITESPACE):
            return value
    except (ImportError, StopIteration, SystemError, ValueError):
        pass
    import json

    return json.loads(text)


def dumps(value: Any, indent: int | None = None) -> str:
    """The JSON of ``value``, in ASCII. With ``indent`` laid out in lines, for people."""
    if indent is None:
        try:
            from _json import encode_basestring_ascii, make_encoder

            encode = make_encoder({}, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)
            return "".join(encode(value, 0))
        except ImportError:
            pass
        import json

        return json.dumps(value, separators=(",", ":"))
    return _laid_out(value, "\n", " " * indent)


def _laid_out(value: Any, line: str, step: str) -> str:
    """As ``json`` has it: an entry on each line."""
    inner = line + step
    if isinstance(value, dict) and value:
        entries = (f"{dumps(key)}: {_laid_out(entry, inner, step)}" for key, entry in value.items())
        return f"{{{inner}{f',{inner}'.join(entries)}{line}}}"
    if isinstance(value, (list, tuple)) and value:
        return f"[{inner}{f',{inner}'.join(_laid_out(entry, inner, step) for entry in value)}{line}]"
    return dumps(value)


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} has no JSON")
