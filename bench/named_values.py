"""Flags that take one or several names."""

from __future__ import annotations

from collections.abc import Sequence

from mlperf.util.errors import UsageError


def named_values(flag: str, text: str, known: Sequence[str]) -> list[str]:
    """Return the names in `text`, separated by commas. UsageError, naming `flag`, if one is not in `known`."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"{flag}={text}: {unknown[0]!r} is unknown; must be one or several of {', '.join(known)}, "
            "separated by commas"
        )
    return names
