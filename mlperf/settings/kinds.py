"""Types of flag values: parsing, range check and display.

A `Kind` is a callable for argparse's `type`. It raises ArgumentTypeError, naming the value and what is allowed,
for a value out of its range.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf.benchmarks import dashed
from mlperf.util.printable import shown, shown_name

# Limits of the ranges below, far beyond any use; products of two of them fit into 64 bits or are not computed.
MAX_COUNT = 1 << 40  # of rows, samples, batches and steps
MAX_INT32 = (1 << 31) - 1  # of the samples of a batch, which kernels number in 32 bits
# Numbers that float32, the dtype of weights and kernels, represents to full precision.
MIN_REAL, MAX_REAL = 1e-37, 1e38

# Python also reads 1_000, digits of other scripts, nan and inf; a mistyped number must not become another one.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
_REAL_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MAX_PATH_BYTES = 4095  # of Linux
_MAX_DIGITS = 40  # read of a number; more are beyond any range, and Python refuses to read thousands


@dataclass(frozen=True)
class Kind:
    """Type of a flag's value.

    parse: converts the text on the command line to the value. show: the inverse of `parse`. metavar: placeholder
    of the value in the help. const: value of the flag when it is given without one (argparse's `const`); None if a
    value is required. is_switch: the flag takes no value and is True when given. extremes: texts of the smallest
    and the largest number allowed, empty for kinds that are not numbers. allowed: description of the values.
    """

    parse: Callable[[str], Any]
    metavar: str
    show: Callable[[Any], str] = str
    const: Any = None
    is_switch: bool = False
    extremes: tuple[str, ...] = ()
    allowed: str = ""

    def __call__(self, text: str) -> Any:
        """Return the value of `text`. ArgumentTypeError if it is not allowed."""
        return self.parse(text)


def _wrong(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{shown(text)} is not {allowed}")


def _out_of_range(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{shown_name(text.strip())} is not {allowed}")


def _read_whole(text: str) -> int | None:
    """Return the whole number that a text is, None if it is none. Spaces around it are allowed."""
    text = text.strip()
    if _WHOLE_NUMBER.fullmatch(text) is None:
        return None
    digits = text.lstrip("+-0")
    value = int(digits[:_MAX_DIGITS] or "0")
    return -value if text[0] == "-" else value


def _read_real(text: str) -> float | None:
    """Return the number that a text is, None if it is none or is too large for a float64."""
    text = text.strip()
    value = float(text) if _REAL_NUMBER.fullmatch(text) is not None else math.inf
    return value + 0.0 if math.isfinite(value) else None  # -0.0 + 0.0 is 0.0


def _underflows(text: str, value: float) -> bool:
    """Return whether a number other than 0 is too close to 0 for a float32 of full precision."""
    mantissa = re.split("[eE]", text)[0]
    return abs(value) < MIN_REAL and any(digit in mantissa for digit in "123456789")


def at_least(minimum: int, *, or_value: int | None = None) -> Kind:
    """Return the kind of counts from `minimum` to MAX_COUNT, and `or_value`."""
    return whole_between(minimum, MAX_COUNT, or_value=or_value)


def whole_between(minimum: int, maximum: int, *, or_value: int | None = None) -> Kind:
    """Return the kind of whole numbers from `minimum` to `maximum`, and `or_value`."""
    allowed = f"a whole number from {minimum} to {maximum}" + ("" if or_value is None else f", or {or_value}")

    def parse(text: str) -> int:
        value = _read_whole(text)
        if value is None:
            raise _wrong(text, allowed)
        if value != or_value and not minimum <= value <= maximum:
            raise _out_of_range(text, allowed)
        return value

    return Kind(parse, "N", extremes=(str(minimum), str(maximum)), allowed=allowed)


def between(minimum: float = -MAX_REAL, maximum: float = MAX_REAL, *, below: bool = False) -> Kind:
    """Return the kind of numbers from `minimum` to `maximum`; with `below`, less than `maximum`.

    Numbers other than 0 are at least MIN_REAL in size, so that they are not 0 in float32.
    """
    allowed = f"a number in [{minimum:g}, {maximum:g}{')' if below else ']'}"

    def parse(text: str) -> float:
        value = _read_real(text)
        if value is None:
            raise _wrong(text, allowed)
        in_range = minimum <= value < maximum if below else minimum <= value <= maximum
        if not in_range:
            raise _out_of_range(text, allowed)
        if _underflows(text, value):
            raise _out_of_range(text, f"{allowed} that float32 can represent")
        return value

    largest = math.nextafter(maximum, minimum) if below else maximum
    return Kind(parse, "X", extremes=(repr(minimum), repr(largest)), allowed=allowed)


positive = between(MIN_REAL, MAX_REAL)


def whole_numbers(maximum: int, *, minimum: int = 1) -> Kind:
    """Return the kind of lists of whole numbers from `minimum` to `maximum`, separated by dashes."""
    allowed = f"a list of whole numbers from {minimum} to {maximum} separated by dashes"

    def parse(text: str) -> tuple[int, ...]:
        values = [-1 if (value := _read_whole(part)) is None else value for part in text.split("-")]
        if not minimum <= min(values) <= max(values) <= maximum:
            raise _wrong(text, allowed)
        return tuple(values)

    return Kind(parse, "N-N-...", dashed, extremes=(str(minimum), str(maximum)), allowed=allowed)


def number_ranges(count: int, metavar: str) -> Kind:
    """Return the kind of increasing numbers from 0 to `count` - 1, such as 0-3,23."""
    last = count - 1
    allowed = f"increasing numbers from 0 to {last} and ranges of them, separated by commas, such as 0-3,{last}"

    def parse(text: str) -> tuple[int, ...]:
        values: list[int] = []
        for part in text.split(","):
            ends = [_read_whole(number) for number in part.split("-")]
            if len(ends) > 2 or any(number is None or not 0 <= number < count for number in ends):
                raise _wrong(text, allowed)
            start, end = int(ends[0] or 0), int(ends[-1] or 0)
            values += range(start, end + 1)
            if start > end or values != sorted(set(values)):
                raise _wrong(text, allowed)
        return tuple(values)

    def show(values: tuple[int, ...]) -> str:
        starts = [value for value in values if value - 1 not in values]
        ends = [value for value in values if value + 1 not in values]
        return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))

    return Kind(parse, metavar, show, extremes=("0", f"0-{last}"), allowed=allowed)


_weight = between(0)
_TWO_WEIGHTS = f"two numbers in [0, {MAX_REAL:g}] separated by a dash"


def _parse_two_weights(text: str) -> tuple[float, float]:
    try:
        without_click, with_click = (_weight(part) for part in re.split(r"(?<![eE])-", text))
    except (ValueError, argparse.ArgumentTypeError):
        raise _wrong(text, _TWO_WEIGHTS) from None
    return without_click, with_click


two_weights = Kind(_parse_two_weights, "X-X", dashed, extremes=("0-0", "1e38-1e38"), allowed=_TWO_WEIGHTS)

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _parse_boolean(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise _wrong(text, "true or false, 1 or 0, yes or no")
    return _WORDS[text.lower()]


def _show_boolean(value: bool) -> str:
    return "true" if value else "false"


boolean = Kind(_parse_boolean, "BOOL", _show_boolean, const=True)
switch = Kind(_parse_boolean, "", _show_boolean, is_switch=True)


def choice(
    *values: str | int,
    refused: Mapping[str, str] | None = None,
    metavar: str | None = None,
    empty: str | None = None,
) -> Kind:
    """Return the kind that accepts one of `values`.

    refused: other values, with the reasons for rejection. metavar: name in the help, by default the values.
    empty: the value that an empty text stands for; if None, it is refused.
    """
    allowed = ", ".join(map(str, values))

    def parse(text: str) -> str | int:
        if text == "" and empty is not None:
            return empty
        if refused is not None and text in refused:
            raise argparse.ArgumentTypeError(f"{text!r} {refused[text]}; allowed: {allowed}")
        for value in values:
            if text == str(value) or (isinstance(value, int) and _read_whole(text) == value):
                return value
        raise argparse.ArgumentTypeError(f"{shown(text)} is unknown; allowed: {allowed}")

    return Kind(parse, metavar or "{" + ",".join(map(str, values)) + "}")


def _files(allowed: str, *, or_folder: bool = False) -> Kind:
    """Return the kind of paths that do not name a folder; with `or_folder`, one that exists may be named.

    allowed: what the error message asks for.
    """

    def parse(text: str) -> Path:
        if (size := len(text.encode(errors="surrogateescape"))) > _MAX_PATH_BYTES:
            raise argparse.ArgumentTypeError(
                f"{shown(text)} has {size:,} bytes; a path has at most {_MAX_PATH_BYTES:,}"
            )
        path = Path(text)
        if text == "" or "\0" in text:
            raise argparse.ArgumentTypeError(
                f"the name is {'empty' if text == '' else repr(text)}; must be {allowed}"
            )
        final_slash = text.endswith(("/", "/."))  # Path drops it
        if path.name in ("", "..") or (final_slash and not (or_folder and os.path.isdir(path))):
            raise argparse.ArgumentTypeError(
                f"{text!r} names a folder; must be {allowed}, such as {path / 'NAME'}"
            )
        return path

    return Kind(parse, "FILE")


file_name = _files("a file name")
file_prefix = _files("a file name or a prefix of file names")
file_or_folder = _files("the name of a file or folder", or_folder=True)
prefix_or_folder = _files("a file name or a prefix of file names", or_folder=True)
text = Kind(str, "NAME")


def _parse_folder(text: str) -> Path:
    if text == "" or "\0" in text or len(text.encode(errors="surrogateescape")) > _MAX_PATH_BYTES:
        raise _wrong(text, f"the name of a folder, which has from 1 to {_MAX_PATH_BYTES:,} bytes")
    return Path(text)


folder_name = Kind(_parse_folder, "DIR")


def file_ending_in(*endings: str, default: Path) -> Kind:
    """Return the kind of file names with one of `endings`. The flag without a value means `default`."""
    allowed = f"a file name that ends in {', '.join(endings[:-1])} or {endings[-1]}"
    names = _files(allowed)

    def parse(text: str) -> Path:
        path: Path = names(text)
        if path.suffix not in endings:
            raise _wrong(text, allowed)
        return path

    return Kind(parse, "FILE", const=default)


def _parse_reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must state a reason")
    return text


reason = Kind(_parse_reason, "REASON")


def path_or(default: Path) -> Kind:
    """Return the kind of paths in UTF-8; the flag without a value means `default`."""

    def parse(text: str) -> Path:
        if "\0" in text or any("\udc80" <= character <= "\udcff" for character in text):
            raise _wrong(text, "a path in UTF-8")
        return Path(text)

    return Kind(parse, "PATH", const=default)
