"""The flags of a run as values that JSON and TOML can represent."""

from __future__ import annotations

from typing import Any

from mlperf.settings.flags import Flag, changed_flags

Value = bool | int | float | str


def changed_values(settings: Any) -> dict[str, Value]:
    """Return the flags whose values are not their defaults, by name without the dashes in front.

    Numbers and booleans keep their types, other values are texts as on the command line.
    """
    return {flag.name.removeprefix("--"): plain_value(flag, value) for flag, value in changed_flags(settings)}


def plain_value(flag: Flag, value: Any) -> Value:
    """Return the value of a flag as a boolean, number or text."""
    return value if isinstance(value, bool | int | float) else flag.kind.show(value)
