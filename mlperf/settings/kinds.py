"""Types of flag values: parsing, range check and display.

A `Kind` is a callable for argparse's `type`. It raises ArgumentTypeError, naming the value and what is allowed,
for a value out of its range.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LARGEST_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class Kind:
    """Type of a flag's value.

    parse: converts the text on the command line to the value. show: the inverse of `parse`. metavar: placeholder
    of the value in the help. const: value of the flag when it is given without one (argparse's `const`); None if a
    value is required. is_switch: the flag takes no value and is True when given.
    """

    parse: Callable[[str], Any]
    metavar: str
    show: Callable[[Any], str] = str
    const: Any = None
    is_switch: bool = False

    def __call__(self, text: str) -> Any:
        """Return the value of `text`. ArgumentTypeError if it is not allowed."""
        return self.parse(text)


def _wrong(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} is not {allowed}")


def at_least(minimum: int, *, or_value: int | None = None) -> Kind:
    """Return the kind of whole numbers >= `minimum`, and `or_value`."""
    allowed = f"a whole number of at least {minimum}" + ("" if or_value is None else f", or {or_value}")
    return _whole_numbers(minimum, _LARGEST_INTEGER, or_value, allowed)


def whole_between(minimum: int, maximum: int) -> Kind:
    """Return the kind of whole numbers from `minimum` to `maximum`."""
    return _whole_numbers(minimum, maximum, None, f"a whole number from {minimum} to {maximum}")


def _whole_numbers(minimum: int, maximum: int, or_value: int | None, allowed: str) -> Kind:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise _wrong(text, allowed) from None
        if value != or_value and not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{text} is not {allowed}")
        return value

    return Kind(parse, "N")


def _parse_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _wrong(text, "a whole number") from None


integer = Kind(_parse_integer, "N")


def _is_integer(text: str, value: int) -> bool:
    """Return whether `text` is a notation of `value`, such as "8", "+8" or "08"."""
    try:
        return int(text) == value
    except ValueError:
        return False


def between(minimum: float = -math.inf, maximum: float = math.inf, *, below: bool = False) -> Kind:
    """Return the kind of finite numbers from `minimum` to `maximum`; with `below`, less than `maximum`."""
    allowed = f"a number in [{minimum:g}, {maximum:g}{')' if below else ']'}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise _wrong(text, allowed) from None
        in_range = minimum <= value < maximum if below else minimum <= value <= maximum
        if not math.isfinite(value) or not in_range:
            raise argparse.ArgumentTypeError(f"{text} is not {allowed}")
        return value

    return Kind(parse, "X")


def _parse_positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise _wrong(text, "a finite number greater than 0")
    return value


positive = Kind(_parse_positive, "X")


def _parse_integers(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split("-"))
    except ValueError:
        values = (0,)
    if min(values) < 1:
        raise _wrong(text, "a list of whole numbers >= 1 separated by dashes")
    return values


def _joined(values: tuple[object, ...]) -> str:
    return "-".join(map(str, values))


integers = Kind(_parse_integers, "N-N-...", _joined)


def _parse_two_weights(text: str) -> tuple[float, float]:
    try:
        without_click, with_click = (float(part) for part in re.split(r"(?<![eE])-", text))
    except ValueError:
        without_click = with_click = math.nan
    if not (math.isfinite(without_click + with_click) and min(without_click, with_click) >= 0):
        raise _wrong(text, "two numbers >= 0 separated by a dash")
    return without_click, with_click


two_weights = Kind(_parse_two_weights, "X-X", _joined)

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _parse_boolean(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise _wrong(text, "true or false, 1 or 0, yes or no")
    return _WORDS[text.lower()]


def _show_boolean(value: bool) -> str:
    return "true" if value else "false"


boolean = Kind(_parse_boolean, "BOOL", _show_boolean, const=True)
switch = Kind(_parse_boolean, "", _show_boolean, is_switch=True)


def choice(*values: str | int, refused: Mapping[str, str] | None = None) -> Kind:
    """Return the kind that accepts one of `values`. refused: other values, with the reasons for rejection."""
    allowed = ", ".join(map(str, values))

    def parse(text: str) -> str | int:
        if refused is not None and text in refused:
            raise argparse.ArgumentTypeError(f"{text!r} {refused[text]}; allowed: {allowed}")
        for value in values:
            if text == str(value) or (isinstance(value, int) and _is_integer(text, value)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is unknown; allowed: {allowed}")

    return Kind(parse, "{" + ",".join(map(str, values)) + "}")


def _files(allowed: str) -> Kind:
    """Return the kind of paths that do not name a folder. allowed: what the error message asks for."""

    def parse(text: str) -> Path:
        path = Path(text)
        if text == "":
            raise argparse.ArgumentTypeError(f"the name is empty; must be {allowed}")
        if path.name in ("", "..") or text.endswith(("/", "/.")):  # Path drops a final slash
            raise argparse.ArgumentTypeError(
                f"{text!r} names a folder; must be {allowed}, such as {path / 'NAME'}"
            )
        return path

    return Kind(parse, "FILE")


file_name = _files("a file name")
file_prefix = _files("a file name or a prefix of file names")
text = Kind(str, "NAME")


def _parse_reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must state a reason")
    return text


reason = Kind(_parse_reason, "REASON")


def path_or(default: Path) -> Kind:
    """Return the kind of paths; the flag without a value means `default`."""
    return Kind(Path, "PATH", const=default)
