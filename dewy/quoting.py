"""Go's rules for quoting a value in a `key=value` log, since scripts that read Dewy v2's log read ours.

Checked against what `strconv.Quote` and `slog.TextHandler` write.
"""

from __future__ import annotations

from typing import Final

_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def needs_quotes(text: str) -> bool:
    """Whether a value has to be quoted: empty, or with a space, `=`, a quote, or what cannot be printed.

    A DEL and a lone backslash go unquoted, as in Go.
    """
    return not text or any(c in ' ="' or (c != "\x7f" and not c.isprintable()) for c in text)


def go_quote(text: str) -> str:
    """`text` as a Go string literal: printable characters as they are, all others escaped."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(c: str) -> str:
    if c in _ESCAPES:
        return _ESCAPES[c]
    if c.isprintable():
        return c
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name or argument that is no UTF-8, as Python carries it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
