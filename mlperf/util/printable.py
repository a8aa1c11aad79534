"""Text from files in messages: in one line, without characters that control a terminal, and shortened."""

from __future__ import annotations

import re

_MAX_NAME = 80
_MAX_VALUE = 60
# Characters that control a terminal or the direction of text. Line ends and tabs lay out what programs print.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def one_line(text: object) -> str:
    """Return a text with its control characters escaped, such as line ends in the names of files."""
    return "".join(character if character.isprintable() else _escaped(character) for character in str(text))


def without_controls(text: str) -> str:
    """Return a text of several lines with its control characters escaped, except line ends and tabs."""
    return _CONTROLS.sub(lambda match: _escaped(match[0]), text)


def shown_name(text: object) -> str:
    """Return a name from a file for a message."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return _shortened(one_line(decoded[: _MAX_NAME + 1]), _MAX_NAME)


def shown(found: object) -> str:
    """Return a value from a file for a message; a tensor or an array as its dtype and shape."""
    dtype, shape = getattr(found, "dtype", None), getattr(found, "shape", ())
    if dtype is not None and (shape != () or hasattr(found, "layout")):
        return f"a {type(found).__name__} of {str(dtype).removeprefix('torch.')} and shape {list(shape)}"
    if dtype is not None and hasattr(found, "item"):  # a scalar of NumPy
        found = found.item()
    if isinstance(found, str | bytes):
        return _shortened(repr(found[: _MAX_VALUE + 1]), _MAX_VALUE)
    if isinstance(found, int) and abs(found) > 10**_MAX_VALUE:  # Python refuses to print thousands of digits
        return f"a number of {found.bit_length()} bits"
    return _shortened(one_line(repr(found)), _MAX_VALUE)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
