"""JSON files whose content must follow a schema.

The functions that check a value raise SchemaError in one line: the entry, what was found and what is allowed.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Collection
from typing import Any, NoReturn

from mlperf.util.printable import shown

_LARGEST = 2**63 - 1


class SchemaError(ValueError):
    """A value is not what the schema allows."""


def parse_json(content: bytes) -> Any:
    """Return the value of JSON text in UTF-8. SchemaError for NaN, infinite numbers and repeated keys, too."""
    try:
        return json.loads(
            content.decode(),
            object_pairs_hook=_distinct_keys,
            parse_constant=_refuse_number,
            parse_float=_finite,
        )
    except SchemaError:
        raise
    except RecursionError:
        raise SchemaError("it is nested too deeply") from None
    except ValueError as error:
        raise SchemaError(f"it is not JSON: {error}") from None


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise SchemaError(f"the key {shown(repeated)} is repeated")
    return content


def _refuse_number(text: str) -> NoReturn:
    raise SchemaError(f"it contains {text}, which is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse_number(text)
    return value


def refuse(where: str, value: object, allowed: str) -> NoReturn:
    """Raise SchemaError for the value of the entry `where`."""
    raise SchemaError(f"{where} is {shown(value)}, must be {allowed}")


def fields(value: object, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """Return `value` if it is an object with all required keys and no others, except optional ones."""
    if not isinstance(value, dict):
        refuse(where, value, "an object")
    if missing := sorted(set(required) - set(value)):
        raise SchemaError(f"{where} lacks {', '.join(missing)}")
    if unknown := sorted(set(value) - {*required, *optional}):
        raise SchemaError(f"{where} has unknown entries: {', '.join(map(shown, unknown[:5]))}")
    return value


def items(value: object, where: str, lengths: Collection[int]) -> list[Any]:
    """Return `value` if it is a list of one of the lengths."""
    if not isinstance(value, list):
        refuse(where, value, "a list")
    if len(value) not in lengths:
        allowed = " or ".join(map(str, lengths))
        raise SchemaError(f"{where} has {len(value)} entries, must have {allowed}")
    return value


def whole(value: object, where: str, minimum: int, maximum: int = _LARGEST) -> int:
    """Return `value` if it is a whole number in the range; true and 1.0 are not."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        refuse(where, value, f"a whole number from {minimum} to {maximum}")
    return value


def file_name(value: object, where: str) -> str:
    """Return `value` if it can be the name of a file in a given folder."""
    allowed = "the name of a file, without a folder and without control characters"
    if not isinstance(value, str) or value in ("", ".", "..") or "/" in value:
        refuse(where, value, allowed)
    if any(unicodedata.category(character) == "Cc" for character in value):
        refuse(where, value, allowed)
    return value
