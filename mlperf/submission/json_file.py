"""JSON files that users name by a flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlperf.util.errors import UsageError
from mlperf.util.files import read_regular

_MAX_BYTES = 1 << 24


def read_json(path: Path, flag: str) -> Any:
    """Return the content of the file named by `flag`. UsageError if it cannot be read or is not JSON."""
    try:
        return json.loads(read_regular(path, _MAX_BYTES, allow_pipes=True).decode())
    except OSError as error:
        raise UsageError(f"{flag}={path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{flag}={path}: not JSON: {error}") from None
